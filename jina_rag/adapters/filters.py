"""Conversion of search settings and filters of LangChain and LlamaIndex to arguments of `DocumentIndex.search`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from jina_rag.errors import InvalidInputError
from jina_rag.stores.filters import matches
from jina_rag.stores.ranges import intersection, plain_scalar
from jina_rag.types import Range, Where

SEARCH_SETTINGS = ("k", "offset", "filter", "stages", "group_by", "dedup", "score_threshold", "details", "explain")
"""Names of the search settings: the parameters of `jina_rag.DocumentIndex.search`, where ``score_threshold`` is the
name of ``min_score``."""


def search_arguments(settings: Mapping[str, Any], allowed: Iterable[str] = SEARCH_SETTINGS) -> dict[str, Any]:
    """Convert search settings to arguments of `jina_rag.DocumentIndex.search`; NumPy arrays in a filter become lists.

    Args:
        settings: Search settings by name.
        allowed: Names of the supported settings.

    Returns:
        Keyword arguments of `search`.

    Raises:
        InvalidInputError: If a name is not in `allowed`.

    Example:
        >>> search_arguments({"k": 3, "score_threshold": 0.5})
        {'k': 3, 'min_score': 0.5}
    """
    names = list(allowed)
    for name in settings:
        if name not in names:
            raise InvalidInputError(f"{name!r} is not a search setting; expected one of {', '.join(names)}.")
    arguments = {"min_score" if name == "score_threshold" else name: value for name, value in settings.items()}
    if isinstance(arguments.get("filter"), Mapping):
        arguments["filter"] = {key: _without_numpy(value) for key, value in arguments["filter"].items()}
    return arguments


def page_filter(where: Any) -> Any:  # noqa: ANN401  # validated by the index
    """Convert a filter with LangChain's keys: ``source`` becomes ``path``, and 0-based page numbers become 1-based.

    Args:
        where: Filter by metadata key; a value that is not a mapping is returned unchanged.

    Returns:
        The filter for `jina_rag.DocumentIndex.search`.

    Raises:
        InvalidInputError: If the value of ``page`` is not a number, several numbers or a `jina_rag.Range` of numbers.

    Example:
        >>> page_filter({"source": "a.pdf", "page": range(2)})
        {'path': 'a.pdf', 'page': [1, 2]}
    """
    if not isinstance(where, Mapping):
        return where
    names = {"source": "path"}
    return {names.get(key, key): _to_one_based(value) if key == "page" else value for key, value in where.items()}


def metadata_matches(metadata: Mapping[str, Any], where: Where) -> bool:
    """Return whether metadata matches a filter, by the rules of `jina_rag.DocumentIndex.search`.

    Args:
        metadata: Metadata of a document.
        where: Filter by metadata key, with or without the prefix ``meta.``.
    """
    return matches({"meta": metadata}, {f"meta.{key.removeprefix('meta.')}": value for key, value in where.items()})


def intersect_ranges(key: str, first: Range, second: Range) -> Range:
    """Return the range of the values that are in both ranges of a key, for two conditions that are joined by "and".

    Args:
        key: Key of the ranges, for the error message.
        first: A range.
        second: Another range.

    Raises:
        InvalidInputError: If both ranges have the same bound, and these bounds cannot be compared.
    """
    ends = [{name: end for name, end in asdict(limits).items() if end is not None} for limits in (first, second)]
    return intersection(key, (first, second)) if ends[0].keys() & ends[1].keys() else Range(**ends[0], **ends[1])


def _without_numpy(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, np.ndarray):  # `tolist` would return nanoseconds for dates
        return [_without_numpy(item) for item in value] if value.ndim else plain_scalar(value[()])
    return plain_scalar(value)


def _to_one_based(value: Any) -> Any:  # noqa: ANN401
    """Convert 0-based page numbers, in any form that a filter supports, to 1-based page numbers."""
    if isinstance(value, Range):
        ends = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        return Range(**{name: None if end is None else _to_one_based(end) for name, end in ends.items()})
    value = _without_numpy(value)
    if isinstance(value, Sequence | Set) and not isinstance(value, str | bytes):
        return [_to_one_based(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value + 1
    raise InvalidInputError(f"The filter 'page' is {value!r}; expected 0-based page numbers or a Range.")
