"""A user's filter as conditions on what the store keeps, applied before anything is ranked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from jina_rag.errors import InvalidInputError
from jina_rag.retrieval.care import Parts
from jina_rag.retrieval.select import matches, path_globs
from jina_rag.stores import schema
from jina_rag.types import Range, RegionKind, Scalar, Where

_OWN_KEYS = {"doc_id": schema.DOC_ID, "page": schema.PAGE, "has": schema.HAS}


def conditions_of(where: Where, parts: Parts) -> dict[str, Any] | None:
    """Translate a filter to payload keys; None if nothing can match.

    ``path`` takes globs, ``doc_id`` and ``page`` are the hits', ``has`` is a kind of region on the page; every
    other key is one of the documents' metadata.

    Raises:
        InvalidInputError: If it makes no sense.
    """
    conditions: dict[str, Any] = {}
    for key, value in where.items():
        if key == "has":
            _check_kinds(value)
        if key != "path":
            conditions[_OWN_KEYS.get(key, f"{schema.META}.{key}")] = value
    if "path" in where:
        ids = _matching_ids(where, parts)
        if not ids:
            return None
        conditions[schema.DOC_ID] = ids
    return conditions


def _matching_ids(where: Where, parts: Parts) -> list[str]:
    """Ids of the documents whose path matches, and whose id is meant where one is asked for, too."""
    if not parts.manifest.contents() and parts.store.count():
        raise InvalidInputError(
            "The documents of this index are listed elsewhere, in the folder of files that it was filled with: "
            "filter by doc_id or metadata, or open it with that folder."
        )
    asked_path = where["path"]
    if isinstance(asked_path, Range):
        raise InvalidInputError("path is a text and has no range: give globs such as 'reports/*.pdf'.")
    globs = path_globs(asked_path)
    ids = [record.doc_id for record in parts.manifest.documents() if matches(record.doc_id, record.path, globs)]
    if "doc_id" not in where:
        return ids
    asked = where["doc_id"]
    if isinstance(asked, Range):
        raise InvalidInputError("doc_id is a text and has no range: give one or several ids, or a path glob.")
    wanted = {asked} if isinstance(asked, str | int | float) else set(asked)
    return [doc_id for doc_id in ids if doc_id in wanted]


def _check_kinds(value: Scalar | Sequence[Scalar] | Range) -> None:
    kinds = get_args(RegionKind)
    asked = [value] if isinstance(value, str) else value
    if not isinstance(asked, Sequence) or not asked or not set(asked) <= set(kinds):
        raise InvalidInputError(f"The filter 'has' is {value!r}: give one or several of {', '.join(kinds)}.")
