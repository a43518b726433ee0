"""LlamaIndex's metadata filters as the filters of jina_rag, which hold before anything is ranked.

A filter of jina_rag maps each key to values of which one must match, or to a range of numbers, and all keys must match.
What does not fit this is refused: a filter that were left out would let through what it was meant to keep away.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from jina_rag import InvalidInputError, Range

Wanted: TypeAlias = "list[Any] | Range"
"""Values of which one must match, or a range."""

_ENDS = {FilterOperator.GT: "gt", FilterOperator.GTE: "gte", FilterOperator.LT: "lt", FilterOperator.LTE: "lte"}
_ONE = (FilterOperator.EQ, FilterOperator.CONTAINS)
_SEVERAL = (FilterOperator.IN, FilterOperator.ANY)


def where_of(filters: MetadataFilters | None, name: Callable[[str], str] = lambda key: key) -> dict[str, Wanted]:
    """A filter of LlamaIndex as one of jina_rag.

    Args:
        filters: Joined by "and", nested ones too; or by "or" where all are values of one key. A list in the metadata
            matches where one of its items does.
        name: Gives the key that jina_rag knows a metadata key by.

    Raises:
        InvalidInputError: If it cannot be said as a filter of jina_rag.
    """
    found: dict[str, Wanted] = {}
    if filters is None:
        return found
    condition = filters.condition or FilterCondition.AND
    if condition == FilterCondition.NOT:
        _refuse("'not'")
    if condition == FilterCondition.OR and len(filters.filters) > 1:
        return _either(filters, name)
    for item in filters.filters:
        if isinstance(item, MetadataFilters):
            for key, wanted in where_of(item, name).items():
                also(found, key, wanted)
        else:
            also(found, name(item.key), _wanted(item))
    return found


def also(found: dict[str, Wanted], key: str, wanted: Wanted) -> None:
    """Add a condition to a filter.

    Raises:
        InvalidInputError: If the key has one already, unless both are ranges.
    """
    before = found.get(key)
    if before is None:
        found[key] = wanted
    elif isinstance(before, Range) and isinstance(wanted, Range):
        found[key] = Range(
            gte=_closer(max, before.gte, wanted.gte),
            gt=_closer(max, before.gt, wanted.gt),
            lte=_closer(min, before.lte, wanted.lte),
            lt=_closer(min, before.lt, wanted.lt),
        )
    else:
        _refuse(f"two conditions on {key!r}")


def meets(metadata: Mapping[str, Any], where: Mapping[str, Wanted]) -> bool:
    """Whether metadata meet a filter, by the rule of the index's search."""
    return all(_has(_at(metadata, key), wanted) for key, wanted in where.items())


def page_where(filters: MetadataFilters | None) -> dict[str, Wanted]:
    """A filter over pages of ingested files: by the keys that `JinaPageRetriever` gives its nodes, and by metadata.

    Raises:
        InvalidInputError: If it cannot be said as a filter of jina_rag.
    """
    found: dict[str, Wanted] = {}
    for key, wanted in where_of(filters).items():
        if key == "page_label":
            also(found, "page", _numbers(wanted))
        elif key == "file_name":
            also(found, "path", [f"*/{glob.escape(str(value))}" for value in _values(key, wanted)])
        elif key == "file_path":
            also(found, "path", [glob.escape(str(value)) for value in _values(key, wanted)])
        else:
            also(found, key, wanted)
    return found


def _either(filters: MetadataFilters, name: Callable[[str], str]) -> dict[str, Wanted]:
    """An "or" over values of one key."""
    keys: set[str] = set()
    values: list[Any] = []
    for item in filters.filters:
        wanted = None if isinstance(item, MetadataFilters) else _wanted(item)
        if wanted is None or isinstance(wanted, Range):
            _refuse("'or' over anything but values of one key")
        keys.add(item.key)  # type: ignore[union-attr]  # wanted is not None
        values += wanted
    if len(keys) > 1:
        _refuse(f"'or' over several keys ({', '.join(sorted(keys))})")
    return {name(keys.pop()): values}


def _wanted(item: MetadataFilter) -> Wanted:
    value, operator = item.value, item.operator
    said = f"{item.key} {operator.value} {value!r}"
    if value is None:
        _refuse(said)
    if operator in _ENDS:
        return Range(**{_ENDS[operator]: value})  # type: ignore[arg-type]  # jina_rag checks and explains
    if operator in _ONE and not isinstance(value, list):
        return [value]
    if operator in _SEVERAL or (operator == FilterOperator.ALL and isinstance(value, list) and len(value) == 1):
        return list(value) if isinstance(value, list) else [value]
    _refuse(said)


def _refuse(what: str) -> NoReturn:
    raise InvalidInputError(
        f"The filter {what} cannot be translated: use ==, in, any, contains, >, >=, < and <=, joined by 'and', with "
        "one condition for each key."
    )


def _closer(choose: Callable[[float, float], float], first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return second if first is None else first
    return choose(first, second)


def _values(key: str, wanted: Wanted) -> list[Any]:
    if isinstance(wanted, Range):
        _refuse(f"by a range of {key!r}")
    return wanted


def _numbers(wanted: Wanted) -> Wanted:
    """Page labels are texts in LlamaIndex; pages are numbers here."""

    def number(value: Any) -> Any:  # noqa: ANN401
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    if isinstance(wanted, Range):
        return Range(gte=number(wanted.gte), lte=number(wanted.lte), gt=number(wanted.gt), lt=number(wanted.lt))
    return [number(value) for value in wanted]


def _at(metadata: Mapping[str, Any], key: str) -> list[Any]:
    """The values under a key of metadata; ``meta.`` before it says that it is one of metadata."""
    value = metadata.get(key.removeprefix("meta."))
    return list(value) if isinstance(value, list | tuple) else [value]


def _has(values: Sequence[Any], wanted: Wanted) -> bool:
    if isinstance(wanted, Range):
        return any(_within(value, wanted) for value in values)
    return any(
        value == want and isinstance(value, bool) == isinstance(want, bool) for value in values for want in wanted
    )


def _within(value: object, limits: Range) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (
        (limits.gte is None or value >= limits.gte)
        and (limits.lte is None or value <= limits.lte)
        and (limits.gt is None or value > limits.gt)
        and (limits.lt is None or value < limits.lt)
    )
