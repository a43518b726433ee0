"""A user's filter as conditions on what the store keeps, applied before anything is ranked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from typing import Any, TypeAlias, get_args

import numpy as np

from jina_rag.catalog.document_filter import matches_path, path_globs
from jina_rag.catalog.manifest import Manifest
from jina_rag.catalog.resources import IndexResources
from jina_rag.errors import InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.filters import checked_range, checked_scalar
from jina_rag.types import Range, RegionKind, Scalar, Where

_OWN_KEYS = {"doc_id": schema.DOC_ID, "page": schema.PAGE, "has": schema.HAS}
_Value: TypeAlias = "list[Scalar] | Range"


def checked_filter(where: object) -> dict[str, _Value]:
    """A filter whose values are lists or ranges.

    Raises:
        InvalidInputError: If it makes no sense, whatever the index holds.
    """
    if where is None:
        return {}
    if not isinstance(where, Mapping):
        raise InvalidInputError(f"A filter maps keys to values, for example {{'year': 2024}}; got {where!r}.")
    conditions: dict[str, _Value] = {}
    for key, value in where.items():
        if not isinstance(key, str) or not key:
            raise InvalidInputError(f"A filter's keys are names such as path, page or those of metadata; got {key!r}.")
        conditions[key] = checked_range(key, value) if isinstance(value, Range) else _values(key, value)
        _check_own(key, conditions[key])
    return conditions


def conditions_of(where: Mapping[str, _Value], resources: IndexResources) -> dict[str, Any] | None:
    """Translate a checked filter to payload keys; None if nothing can match.

    ``path`` takes globs, ``doc_id`` and ``page`` are the hits', ``has`` is a kind of region on the page; every other
    key is one of the documents' metadata. One of these names in the metadata is written ``meta.page``.

    Raises:
        InvalidInputError: If it asks for a path where the index's documents are listed elsewhere.
    """
    conditions: dict[str, Any] = {}
    for key, value in where.items():
        if key != "path":
            conditions[_OWN_KEYS.get(key, f"{schema.META}.{key.removeprefix(schema.META + '.')}")] = value
    if "path" in where:
        ids = _matching_ids(where, resources)
        if not ids:
            return None
        conditions[schema.DOC_ID] = ids
    return conditions


def unknown_keys(where: Mapping[str, _Value], manifest: Manifest) -> list[str]:
    """Keys of a filter that no document has among its metadata: misspelt, most likely."""
    names = {key: key.removeprefix(f"{schema.META}.") for key in where if key != "path" and key not in _OWN_KEYS}
    return [key for key, name in names.items() if not manifest.has_key(name.split("."))]


def _matching_ids(where: Where, resources: IndexResources) -> list[str]:
    """Ids of the documents whose path matches, and whose id is meant where one is asked for, too."""
    if not resources.manifest.contents() and resources.store.count():
        raise InvalidInputError(
            "The documents of this index are listed elsewhere, in the folder of files that it was filled with: "
            "filter by doc_id or metadata, or open it with that folder."
        )
    globs = path_globs(where["path"])
    ids = [
        record.doc_id for record in resources.manifest.documents() if matches_path(record.doc_id, record.path, globs)
    ]
    doc_ids = where.get("doc_id")
    return [doc_id for doc_id in ids if doc_id in doc_ids] if isinstance(doc_ids, list) else ids


def _values(key: str, value: object) -> list[Scalar]:
    one = value is None or isinstance(value, str | bytes | int | float | np.generic | os.PathLike)
    if not one and not isinstance(value, Sequence | Set):
        raise InvalidInputError(
            f"The filter {key!r} is {value!r}: give a string, a number, true or false, several of them, or a Range."
        )
    several: Any = [value] if one else value
    paths = key in ("path", "doc_id")
    return [
        os.fspath(item) if paths and isinstance(item, os.PathLike) else checked_scalar(key, item) for item in several
    ]


def _check_own(key: str, value: _Value) -> None:
    """Refuse what a page's own keys can never be: it would silently find nothing."""
    texts = [] if isinstance(value, Range) else [item for item in value if isinstance(item, str)]
    numbers = [] if isinstance(value, Range) else [item for item in value if type(item) in (int, float)]
    if key in ("path", "doc_id") and value and not texts:
        kind = "glob such as 'reports/*.pdf'" if key == "path" else "text"
        raise InvalidInputError(f"The filter {key!r} is {value!r}: give a {kind}, or several.")
    if key == "page" and value and not isinstance(value, Range) and not numbers:
        raise InvalidInputError(f"The filter 'page' is {value!r}: give numbers, counted from 1, or a Range.")
    kinds = get_args(RegionKind)
    if key == "has" and (isinstance(value, Range) or not set(value) <= set(kinds)):
        raise InvalidInputError(f"The filter 'has' is {value!r}: give one or several of {', '.join(kinds)}.")
