"""What a search is given: its question, its settings, and a filter over the metadata that documents show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from jina_rag import InvalidInputError, Range
from langchain_jina_rag._documents import PLACE_KEYS
from langchain_jina_rag.embeddings import ImageInput

SETTINGS = ("k", "offset", "filter", "stages", "group_by", "dedup", "min_score", "details", "explain")
"""What a search may be given besides its question."""


def asked(query: str, image: ImageInput | None) -> Any:  # noqa: ANN401  # an input of jina_rag
    """A question of words, of an image, or of both."""
    if image is None:
        return query
    return [query, {"image": image}] if query else {"image": image}


def of_pages(where: Any) -> Any:  # noqa: ANN401  # as a caller gives it; the index checks it
    """A filter over the metadata of pages: ``page`` counts from 0 there, and ``source`` is the file."""
    if not isinstance(where, Mapping):
        return where
    names = {"source": "path"}
    return {names.get(key, key): _next(value) if key == "page" else value for key, value in where.items()}


def of_entries(where: Any) -> Any:  # noqa: ANN401
    """A filter over the metadata that documents were added with: they may have places of their own in them."""
    if not isinstance(where, Mapping):
        return where
    return {f"meta.{key}" if key in PLACE_KEYS else key: value for key, value in where.items()}


def check_names(given: Iterable[str], known: Iterable[str] = SETTINGS) -> None:
    """Refuse a misspelt setting.

    Raises:
        InvalidInputError: With the settings there are.
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise InvalidInputError(f"{name!r} is no setting of a search: {', '.join(known)} are.")


def _next(value: Any) -> Any:  # noqa: ANN401
    """Page numbers, or a range of them, counted from 1."""
    if isinstance(value, Range):
        ends = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        return Range(**{name: None if end is None else end + 1 for name, end in ends.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return [_next(item) for item in value]
    return value + 1 if isinstance(value, int | float) and not isinstance(value, bool) else value
