"""Arguments of a search as the frameworks write them: names of settings, filters over pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import fields
from typing import Any

import numpy as np

from jina_rag.errors import InvalidInputError
from jina_rag.stores.filters import matches
from jina_rag.types import Range, Where

SEARCH_SETTINGS = ("k", "offset", "filter", "stages", "group_by", "dedup", "score_threshold", "details", "explain")
"""Settings of a search: those of `jina_rag.DocumentIndex.search`, where ``score_threshold`` is called ``min_score``."""


def search_arguments(settings: Mapping[str, Any], allowed: Iterable[str] = SEARCH_SETTINGS) -> dict[str, Any]:
    """Settings of a search as arguments of `jina_rag.DocumentIndex.search`; NumPy arrays in a filter become lists.

    >>> search_arguments({"k": 3, "score_threshold": 0.5})
    {'k': 3, 'min_score': 0.5}

    Raises:
        InvalidInputError: If one is misspelt, with those there are.
    """
    names = list(allowed)
    for name in settings:
        if name not in names:
            raise InvalidInputError(f"{name!r} is no setting of a search: {', '.join(names)} are.")
    arguments = {"min_score" if name == "score_threshold" else name: value for name, value in settings.items()}
    if isinstance(arguments.get("filter"), Mapping):
        arguments["filter"] = {key: _without_numpy(value) for key, value in arguments["filter"].items()}
    return arguments


def page_filter(where: Any) -> Any:  # noqa: ANN401  # as a caller writes it; the index checks it
    """A filter over the metadata of pages, where ``page`` counts from 0 and ``source`` is the file.

    >>> page_filter({"source": "a.pdf", "page": range(2)})
    {'path': 'a.pdf', 'page': [1, 2]}

    Raises:
        InvalidInputError: If ``page`` is neither numbers nor a range of them.
    """
    if not isinstance(where, Mapping):
        return where
    names = {"source": "path"}
    return {names.get(key, key): _next_page(value) if key == "page" else value for key, value in where.items()}


def metadata_matches(metadata: Mapping[str, Any], where: Where) -> bool:
    """Whether metadata meet a filter, by the rule of the index's search; ``meta.`` before a key changes nothing."""
    return matches({"meta": metadata}, {f"meta.{key.removeprefix('meta.')}": value for key, value in where.items()})


def _without_numpy(value: Any) -> Any:  # noqa: ANN401
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _next_page(value: Any) -> Any:  # noqa: ANN401
    """Page numbers that count from 0, in any form that a filter takes, as page numbers that count from 1."""
    if isinstance(value, Range):
        ends = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        return Range(**{name: None if end is None else _next_page(end) for name, end in ends.items()})
    value = _without_numpy(value)
    if isinstance(value, Sequence | Set) and not isinstance(value, str | bytes):
        return [_next_page(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value + 1
    raise InvalidInputError(f"The filter 'page' has {value!r}: give numbers, counted from 0, or a Range.")
