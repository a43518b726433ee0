"""LlamaIndex's metadata filters as the filters of jina_rag, which hold before anything is ranked.

A filter of jina_rag maps each key to values of which one must match, or to a range of numbers, and all keys must match.
What does not fit this is refused: a filter that were left out would let through what it was meant to keep away.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from jina_rag import InvalidInputError, Range

FilterValue: TypeAlias = "list[Any] | Range"
"""Values of which one must match, or a range."""

_ENDS = {FilterOperator.GT: "gt", FilterOperator.GTE: "gte", FilterOperator.LT: "lt", FilterOperator.LTE: "lte"}
_ONE = (FilterOperator.EQ, FilterOperator.CONTAINS)
_SEVERAL = (FilterOperator.IN, FilterOperator.ANY)


def where_of(filters: MetadataFilters | None, name: Callable[[str], str] = lambda key: key) -> dict[str, FilterValue]:
    """A filter of LlamaIndex as one of jina_rag.

    Args:
        filters: Joined by "and", nested ones too; or by "or" where all are values of one key. A list in the metadata
            matches where one of its items does.
        name: Gives the key that jina_rag knows a metadata key by.

    Raises:
        InvalidInputError: If it cannot be said as a filter of jina_rag.
    """
    where: dict[str, FilterValue] = {}
    if filters is None:
        return where
    condition = filters.condition or FilterCondition.AND
    if condition == FilterCondition.NOT:
        _refuse("'not'")
    if condition == FilterCondition.OR and len(filters.filters) > 1:
        return _either(filters, name)
    for item in filters.filters:
        if isinstance(item, MetadataFilters):
            for key, value in where_of(item, name).items():
                add_condition(where, key, value)
        else:
            add_condition(where, name(item.key), _value_of(item))
    return where


def add_condition(where: dict[str, FilterValue], key: str, value: FilterValue) -> None:
    """Add a condition to a filter.

    Raises:
        InvalidInputError: If the key has one already, unless both are ranges.
    """
    before = where.get(key)
    if before is None:
        where[key] = value
    elif isinstance(before, Range) and isinstance(value, Range):
        where[key] = Range(
            gte=_closer(max, before.gte, value.gte),
            gt=_closer(max, before.gt, value.gt),
            lte=_closer(min, before.lte, value.lte),
            lt=_closer(min, before.lt, value.lt),
        )
    else:
        _refuse(f"two conditions on {key!r}")


def page_where(filters: MetadataFilters | None) -> dict[str, FilterValue]:
    """A filter over pages of ingested files: by the keys that `JinaPageRetriever` gives its nodes, and by metadata.

    Raises:
        InvalidInputError: If it cannot be said as a filter of jina_rag.
    """
    where: dict[str, FilterValue] = {}
    for key, value in where_of(filters).items():
        if key == "page_label":
            add_condition(where, "page", _numbers(value))
        elif key in ("file_name", "file_path"):
            if isinstance(value, Range):
                _refuse(f"by a range of {key!r}")
            folder = "**/" if key == "file_name" else ""
            add_condition(where, "path", [f"{folder}{glob.escape(str(name))}" for name in value])
        else:
            add_condition(where, key, value)
    return where


def _either(filters: MetadataFilters, name: Callable[[str], str]) -> dict[str, FilterValue]:
    """An "or" over values of one key."""
    items = [item for item in filters.filters if isinstance(item, MetadataFilter)]
    values = [_value_of(item) for item in items]
    if len(items) < len(filters.filters) or any(isinstance(value, Range) for value in values):
        _refuse("'or' over anything but values of one key")
    keys = sorted({item.key for item in items})
    if len(keys) > 1:
        _refuse(f"'or' over several keys ({', '.join(keys)})")
    return {name(keys[0]): [item for value in values if isinstance(value, list) for item in value]}


def _value_of(item: MetadataFilter) -> FilterValue:
    value, operator = item.value, item.operator
    values = value if isinstance(value, list) else [value]
    if value is not None:
        if operator in _ENDS:
            return Range(**{_ENDS[operator]: value})  # type: ignore[arg-type]  # jina_rag checks and explains
        if operator in _ONE and not isinstance(value, list):
            return values
        if operator in _SEVERAL or (operator == FilterOperator.ALL and isinstance(value, list) and len(value) == 1):
            return list(values)
    _refuse(f"{item.key} {operator.value} {value!r}")


def _refuse(what: str) -> NoReturn:
    raise InvalidInputError(
        f"The filter {what} cannot be translated: use ==, in, any, contains, >, >=, < and <=, joined by 'and', with "
        "one condition for each key."
    )


def _closer(choose: Callable[[list[float]], float], *ends: float | None) -> float | None:
    numbers = [end for end in ends if end is not None]
    return choose(numbers) if numbers else None


def _numbers(value: FilterValue) -> FilterValue:
    """Page labels are texts in LlamaIndex; pages are numbers here."""

    def number(label: Any) -> Any:  # noqa: ANN401
        return int(label) if isinstance(label, str) and label.isdecimal() else label

    if isinstance(value, Range):
        return Range(gte=number(value.gte), lte=number(value.lte), gt=number(value.gt), lt=number(value.lt))
    return [number(label) for label in value]
