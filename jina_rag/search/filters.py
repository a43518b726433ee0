"""Search filters: validation, and translation to conditions on payload keys, which a store applies before ranking."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence, Set
from typing import Any, TypeAlias, get_args

import numpy as np

from jina_rag.catalog.document_filter import matches_path, path_globs
from jina_rag.catalog.manifest import Manifest
from jina_rag.catalog.resources import IndexResources
from jina_rag.errors import InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.filters import checked_scalar
from jina_rag.stores.ranges import checked_range
from jina_rag.types import Range, RegionKind, Scalar, Where

_HIT_KEYS = {"doc_id": schema.DOC_ID, "page": schema.PAGE, "has": schema.HAS}
_Value: TypeAlias = "list[Scalar] | Range"


def checked_filter(where: object) -> dict[str, _Value]:
    """Return a validated filter that maps each key to a list of values or to a `Range`.

    Args:
        where: Filter as written by the caller; None for no filter.

    Raises:
        InvalidInputError: If a key or a value is invalid for every index.
    """
    if where is None:
        return {}
    if not isinstance(where, Mapping):
        raise InvalidInputError(f"filter is {where!r}; expected a mapping, for example {{'year': 2024}}.")
    conditions: dict[str, _Value] = {}
    for key, value in where.items():
        if not isinstance(key, str) or not key:
            raise InvalidInputError(f"filter has the key {key!r}; expected a non-empty string, for example 'path'.")
        conditions[key] = checked_range(key, value) if isinstance(value, Range) else _values(key, value)
        _check_hit_key(key, conditions[key])
    return conditions


def conditions_of(where: Mapping[str, _Value], resources: IndexResources) -> dict[str, Any] | None:
    """Translate a validated filter to payload keys; return None if no page can match.

    The keys ``path`` (globs), ``doc_id``, ``page`` and ``has`` (a kind of region on the page) refer to the page and the
    files that contain the page. All other keys refer to the metadata of documents. A metadata key named ``path``,
    ``doc_id``, ``page`` or ``has`` requires the prefix ``meta.``, for example ``meta.page``.

    Args:
        where: Result of `checked_filter`.
        resources: Resources of the index.

    Raises:
        InvalidInputError: If the filter has the key ``path`` and the manifest of the index is in another assets folder.
    """
    conditions: dict[str, Any] = {}
    for key, value in where.items():
        if key != "path":
            conditions[_HIT_KEYS.get(key, f"{schema.META}.{key.removeprefix(schema.META + '.')}")] = value
    if "path" in where:
        ids = _matching_ids(where, resources)
        if not ids:
            return None
        conditions[schema.DOC_ID] = ids
    return conditions


def unknown_keys(where: Mapping[str, _Value], manifest: Manifest) -> list[str]:
    """Return the filter keys that the metadata of no document contains. Such keys are usually misspelled."""
    names = {key: key.removeprefix(f"{schema.META}.") for key in where if key != "path" and key not in _HIT_KEYS}
    return [key for key, name in names.items() if not manifest.has_key(name.split("."))]


def _matching_ids(where: Where, resources: IndexResources) -> list[str]:
    """Return the ids of the documents that match the conditions ``path`` and ``doc_id`` of the filter.

    Raises:
        InvalidInputError: If the manifest of the index is in another assets folder.
    """
    if not resources.manifest.contents() and resources.store.count():
        raise InvalidInputError(
            "The index cannot be filtered by path here, because the manifest is in another assets folder. Filter by "
            "doc_id or metadata, or pass the other assets folder as assets_dir (--assets-dir)."
        )
    globs = path_globs(where["path"])
    ids = [
        record.doc_id for record in resources.manifest.documents() if matches_path(record.doc_id, record.path, globs)
    ]
    doc_ids = where.get("doc_id")
    return [doc_id for doc_id in ids if doc_id in doc_ids] if isinstance(doc_ids, list) else ids


def _values(key: str, value: object) -> list[Scalar]:
    is_single = value is None or isinstance(
        value, str | bytes | int | float | np.generic | os.PathLike | dt.date | dt.time
    )
    if not is_single and not isinstance(value, Sequence | Set):
        raise InvalidInputError(
            f"The filter {key!r} is {value!r}; expected a string, number, date, bool, list of these, or Range."
        )
    items: Any = [value] if is_single else value
    is_path = key in ("path", "doc_id")
    return [
        os.fspath(item) if is_path and isinstance(item, os.PathLike) else checked_scalar(key, item) for item in items
    ]


def _check_hit_key(key: str, value: _Value) -> None:
    """Raise an error for values of ``path``, ``doc_id``, ``page`` or ``has`` that can never match a page."""
    texts = [] if isinstance(value, Range) else [item for item in value if isinstance(item, str)]
    numbers = [] if isinstance(value, Range) else [item for item in value if type(item) in (int, float)]
    if key in ("path", "doc_id") and value and not texts:
        kind = "glob, for example 'reports/*.pdf'" if key == "path" else "string"
        raise InvalidInputError(f"The filter {key!r} is {value!r}; expected a {kind}, or a list of these.")
    if key == "page" and value and not isinstance(value, Range) and not numbers:
        raise InvalidInputError(f"The filter 'page' is {value!r}; expected 1-based page numbers or a Range.")
    kinds = get_args(RegionKind)
    if key == "has" and (isinstance(value, Range) or not set(value) <= set(kinds)):
        raise InvalidInputError(f"The filter 'has' is {value!r}; expected one or several of {', '.join(kinds)}.")
