"""Translation of LlamaIndex metadata filters to jina_rag filters, which the index applies before ranking.

A jina_rag filter maps each key to a list of values, one of which must match, or to a range of numbers or dates. All
keys must match. A date is written as text: ``MetadataFilter(key="when", value="2025-01-31", operator=">=")``. Filters
that cannot be translated raise an error, because dropping a condition would return nodes that the filter excludes.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from jina_rag import InvalidInputError, Range
from jina_rag.adapters import intersect_ranges

FilterValue: TypeAlias = "list[Any] | Range"
"""A list of values, one of which must match, or a range of numbers or dates."""

_RANGE_BOUNDS = {FilterOperator.GT: "gt", FilterOperator.GTE: "gte", FilterOperator.LT: "lt", FilterOperator.LTE: "lte"}
_EQUALITY = (FilterOperator.EQ, FilterOperator.CONTAINS)
_MEMBERSHIP = (FilterOperator.IN, FilterOperator.ANY)


def to_where(filters: MetadataFilters | None, to_key: Callable[[str], str] = lambda key: key) -> dict[str, FilterValue]:
    """Translate a LlamaIndex filter to a jina_rag filter.

    Args:
        filters: Filters joined by "and", which can be nested, or by "or" over values of one key. A metadata value that
            is a list matches if one item of the list matches.
        to_key: Function that returns the key of the jina_rag filter for a metadata key.

    Returns:
        The filter by jina_rag key.

    Raises:
        InvalidInputError: If the filter cannot be translated.
    """
    where: dict[str, FilterValue] = {}
    if filters is None:
        return where
    condition = filters.condition or FilterCondition.AND
    if condition == FilterCondition.NOT:
        _reject("'not'")
    if condition == FilterCondition.OR and len(filters.filters) > 1:
        return _translate_or(filters, to_key)
    for item in filters.filters:
        if isinstance(item, MetadataFilters):
            for key, value in to_where(item, to_key).items():
                add_condition(where, key, value)
        else:
            add_condition(where, to_key(item.key), _translate_condition(item))
    return where


def add_condition(where: dict[str, FilterValue], key: str, value: FilterValue) -> None:
    """Add a condition to `where`, in place; two ranges of one key are intersected.

    Args:
        where: Filter to extend.
        key: Key of the condition.
        value: List of values, one of which must match, or a range of numbers or dates.

    Raises:
        InvalidInputError: If the key already has a condition, and one of the two conditions is not a range, or the
            ranges cannot be compared.
    """
    existing = where.get(key)
    if existing is None:
        where[key] = value
    elif isinstance(existing, Range) and isinstance(value, Range):
        where[key] = intersect_ranges(key, existing, value)
    else:
        _reject(f"two conditions on {key!r}")


def to_page_where(filters: MetadataFilters | None) -> dict[str, FilterValue]:
    """Translate a LlamaIndex filter over the metadata of `JinaPageRetriever` nodes to a jina_rag filter over pages.

    Args:
        filters: Filters by ``page_label``, ``file_name``, ``file_path``, ``doc_id``, ``has`` or document metadata.

    Returns:
        The filter for `jina_rag.DocumentIndex.search`.

    Raises:
        InvalidInputError: If the filter cannot be translated.
    """
    where: dict[str, FilterValue] = {}
    for key, value in to_where(filters).items():
        if key == "page_label":
            add_condition(where, "page", _page_numbers(value))
        elif key in ("file_name", "file_path"):
            if isinstance(value, Range):
                _reject(f"by a range of {key!r}")
            folder = "**/" if key == "file_name" else ""
            add_condition(where, "path", [f"{folder}{glob.escape(str(name))}" for name in value])
        else:
            add_condition(where, key, value)
    return where


def _translate_or(filters: MetadataFilters, to_key: Callable[[str], str]) -> dict[str, FilterValue]:
    """Translate filters that are joined by "or" and test one key."""
    items = [item for item in filters.filters if isinstance(item, MetadataFilter)]
    values = [_translate_condition(item) for item in items]
    if len(items) < len(filters.filters) or any(isinstance(value, Range) for value in values):
        _reject("'or' over anything but values of one key")
    keys = sorted({item.key for item in items})
    if len(keys) > 1:
        _reject(f"'or' over several keys ({', '.join(keys)})")
    return {to_key(keys[0]): [item for value in values if isinstance(value, list) for item in value]}


def _translate_condition(item: MetadataFilter) -> FilterValue:
    value, operator = item.value, item.operator
    values = value if isinstance(value, list) else [value]
    if value is not None:
        if operator in _RANGE_BOUNDS:
            return Range(**{_RANGE_BOUNDS[operator]: value})  # type: ignore[arg-type]  # Range validates the value
        if operator in _EQUALITY and not isinstance(value, list):
            return values
        if operator in _MEMBERSHIP or (operator == FilterOperator.ALL and isinstance(value, list) and len(value) == 1):
            return list(values)
    _reject(f"{item.key} {operator.value} {value!r}")


def _reject(condition: str) -> NoReturn:
    raise InvalidInputError(
        f"The filter {condition} cannot be translated. Use ==, in, any, contains, >, >=, < and <=, joined by 'and', "
        "with one condition per key."
    )


def _page_numbers(value: FilterValue) -> FilterValue:
    """Convert page labels, which are strings in LlamaIndex, to 1-based page numbers."""

    def number(label: Any) -> Any:  # noqa: ANN401
        return int(label) if isinstance(label, str) and label.isdecimal() else label

    if isinstance(value, Range):
        return Range(gte=number(value.gte), lte=number(value.lte), gt=number(value.gt), lt=number(value.lt))
    return [number(label) for label in value]
