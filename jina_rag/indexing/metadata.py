"""Cleaning of the metadata of documents. A value that cannot be stored costs its key, not the document or the run."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from jina_rag.errors import InvalidInputError
from jina_rag.stores import schema

_Report: TypeAlias = Callable[[str, str], None]
"""Function that is called with the quoted name of a key, and the problem and the remedy."""


def clean_metadata(metadata: Mapping[Any, Any], report: Callable[[str], None]) -> dict[str, Any]:
    """Return metadata as JSON (see `schema.clean_payload`), without the keys whose values cannot be stored.

    Of a nested object, only the keys that cannot be stored are left out. A value that is nested too deeply is left out
    completely.

    Args:
        metadata: Metadata of a document.
        report: Called with one sentence for each key that is left out, which names the key, the reason and the remedy.
    """
    return _clean(metadata, lambda key, problem: report(f"The metadata key {key} was left out: {problem}"))


def checked_metadata(metadata: Mapping[Any, Any], doc_id: str) -> dict[str, Any]:
    """Return the metadata of an entry of `DocumentIndex.add` as JSON.

    Args:
        metadata: Metadata of the entry.
        doc_id: Id of the entry, for the error message.

    Raises:
        InvalidInputError: If a value cannot be stored. The message names the entry, the key and the remedy.
    """
    problems: list[tuple[str, str]] = []
    cleaned = _clean(metadata, lambda key, problem: problems.append((key, problem)))
    for key, problem in problems:
        raise InvalidInputError(f"The metadata key {key} of {doc_id!r} cannot be stored: {problem}")
    return cleaned


def _clean(metadata: Mapping[Any, Any], report: _Report) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], schema.clean_payload(dict(metadata)))
    except schema.PayloadError:  # one of the keys, which are now cleaned one by one
        return _clean_keys(metadata, "", schema.MAX_METADATA_DEPTH, report)


def _clean_keys(metadata: Mapping[Any, Any], prefix: str, max_depth: int, report: _Report) -> dict[str, Any]:
    cleaned: dict[str, Any] = {}
    for key, value in metadata.items():
        name = f"{prefix}{key}"
        if not isinstance(key, str):
            report(reprlib.repr(name), f"the key is of type {type(key).__name__}. Write the key as text, in quotes.")
            continue
        try:
            cleaned[schema.clean_payload(key)] = schema.clean_payload(value, max_depth - 1)
        except schema.PayloadError as error:
            if isinstance(value, Mapping) and not error.too_deep:
                cleaned[schema.clean_payload(key)] = _clean_keys(value, f"{name}.", max_depth - 1, report)
            else:
                report(reprlib.repr(name), f"the value {error.problem}")
    return cleaned
