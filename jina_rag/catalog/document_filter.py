"""Selection of documents by id, file, folder or glob, or by a filter."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from jina_rag import globs
from jina_rag.catalog.manifest import DocumentRecord, Manifest
from jina_rag.errors import InvalidInputError
from jina_rag.normalization import name_form
from jina_rag.stores import schema
from jina_rag.stores.filters import meets_all, moment_of, parse_where
from jina_rag.types import Scalar, Where

_MAX_VALUES = 500
"""Maximum number of values in one query to the manifest."""
_PAGE_KEYS = ("page", schema.HAS)
"""Filter keys that apply to pages, not to documents."""


def resolve(pattern: str, manifest: Manifest) -> list[str]:
    """Return the patterns that select what a name, path or glob means; see `globs`.

    A pattern that is the exact name of a document, file or folder selects only this name. Otherwise, a pattern that
    differs from such names only in the spelling selects these names (see `jina_rag.normalization`): those with the same
    Unicode form (NFC) if there are any, and otherwise those with the same `name_form`.

    Args:
        pattern: Id, path or glob, as written by the caller.
        manifest: Manifest of the index.

    Returns:
        At least one pattern.
    """
    path = os.path.abspath(pattern)
    literals = dict.fromkeys((pattern.rstrip("/"), path.replace(os.sep, "/")))
    names = [name.replace(os.sep, "/") for name in manifest.names()]
    for form in (str, _nfc, name_form):
        selected = [prefix for literal in literals for prefix in _names_like(literal, names, form)]
        if selected:
            return [globs.ExactPattern(globs.escape(prefix)) for prefix in dict.fromkeys(selected)]
    is_literal = globs.has_wildcards(pattern) and os.path.lexists(path)
    return [globs.escape(pattern) if is_literal else pattern]


def _names_like(literal: str, names: Sequence[str], form: Callable[[str], str]) -> list[str]:
    """Return the names, and the folders of names, that have the same form as `literal`."""
    size, wanted = literal.count("/") + 1, form(literal)
    prefixes = ("/".join(name.split("/", size)[:size]) for name in names)
    return [prefix for prefix in prefixes if prefix == literal or (form is not str and form(prefix) == wanted)]


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def resolve_names(where: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Return a copy of a filter with the patterns of ``path`` resolved, and the ids of ``doc_id`` as they are stored.

    Args:
        where: A filter.
        manifest: Manifest of the index.
    """
    resolved = dict(where)
    if "path" in where:
        resolved["path"] = [name for pattern in path_globs(where["path"]) for name in resolve(pattern, manifest)]
    if schema.DOC_ID in where:
        value = where[schema.DOC_ID]
        values = [value] if isinstance(value, str) else value
        if isinstance(values, Sequence | Set):
            resolved[schema.DOC_ID] = [name for item in values for name in stored_ids(item, manifest)]
    return resolved


def stored_ids(doc_id: Scalar, manifest: Manifest) -> list[Scalar]:
    """Return the ids of the documents that an id means: the exact id, or the ids that differ in the spelling only.

    Args:
        doc_id: Id as written by the caller.
        manifest: Manifest of the index.

    Returns:
        At least one id; `doc_id` if no document has such an id.
    """
    if not isinstance(doc_id, str) or manifest.document(doc_id) is not None:
        return [doc_id]
    ids = manifest.ids()
    for form in (_nfc, name_form):
        wanted = form(doc_id)
        if selected := [name for name in ids if form(name) == wanted]:
            return [*selected]
    return [doc_id]


def select_by_name(manifest: Manifest, pattern: str) -> list[DocumentRecord]:
    """Return the documents that a name selects: an id, a file, a folder, or a glob over ids and paths (see `globs`).

    Args:
        manifest: Manifest of the index.
        pattern: The name: an id, a path, or a glob.

    Raises:
        InvalidInputError: If the name is empty, because an empty path would select the current folder.
    """
    if not pattern.strip():
        raise InvalidInputError("The document name is empty; expected an id, a file, a folder or a glob.")
    records = manifest.documents()
    path = Path(os.path.abspath(pattern))
    return (
        [record for record in records if record.doc_id == pattern]
        or [record for record in records if record.path == path or path in record.path.parents]
        or [record for record in records if matches_path(record.doc_id, record.path, resolve(pattern, manifest))]
    )


def with_attachments(records: Sequence[DocumentRecord], manifest: Manifest) -> list[DocumentRecord]:
    """Return documents and the attachments of these documents, each document once.

    Args:
        records: The documents.
        manifest: Manifest of the index.
    """
    attachments = [other for record in records if record.attachments != () for other in _attachments(record, manifest)]
    return list({record.doc_id: record for record in (*records, *attachments)}.values())


def _attachments(record: DocumentRecord, manifest: Manifest) -> list[DocumentRecord]:
    return [] if record.added or record.container is not None else manifest.attachments_of(record.path)


def select_by_filter(records: Sequence[DocumentRecord], where: Where) -> list[DocumentRecord]:
    """Return the documents that match every key of a filter.

    Args:
        records: Documents to filter.
        where: Filter over ``path``, ``doc_id`` and metadata.

    Raises:
        InvalidInputError: If the filter has the page keys ``page`` or ``has``, or is invalid.
    """
    for key in _PAGE_KEYS:
        if key in where:
            raise InvalidInputError(
                f"The filter {key!r} applies to pages, not to documents. Filter by path, doc_id or metadata."
            )
    is_match = document_matcher(where)
    return [record for record in records if is_match(record.doc_id, record.path, record.metadata)]


def possible_matches(manifest: Manifest, where: Where) -> list[DocumentRecord]:
    """Return all documents that match a filter, and possibly others, without reading all documents if possible."""
    for key, value in where.items():
        texts: list[Any] = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
        if key == "path" or not texts or len(texts) > _MAX_VALUES or not all(isinstance(text, str) for text in texts):
            continue
        if key == schema.DOC_ID:
            return manifest.documents_by_id(texts)
        if not any(moment_of(key, text) for text in texts):  # a date has several spellings
            return manifest.documents_with_text(texts)
    return manifest.documents()


def document_matcher(where: Where) -> Callable[[str, Path, Mapping[str, Any]], bool]:
    """Return a function that takes the id, path and metadata of a document, and returns whether they match a filter.

    The filter is parsed once for all documents.

    Args:
        where: Filter over ``path``, ``doc_id`` and metadata; the page keys ``page`` and ``has`` are ignored.
    """
    patterns = path_globs(where["path"]) if "path" in where else None
    conditions = parse_where({
        key if key == schema.DOC_ID else f"{schema.META}.{key.removeprefix(f'{schema.META}.')}": value
        for key, value in where.items()
        if key != "path" and key not in _PAGE_KEYS
    })  # fmt: skip

    def is_match(doc_id: str, path: Path, metadata: Mapping[str, Any]) -> bool:
        if patterns is not None and not matches_path(doc_id, path, patterns):
            return False
        return not conditions or meets_all({schema.DOC_ID: doc_id, schema.META: metadata}, conditions)

    return is_match


def path_globs(value: object) -> list[str]:
    """Return the globs of a ``path`` filter.

    Args:
        value: Value of the filter: a glob or a list of globs.

    Raises:
        InvalidInputError: If the value is not a string or a list of strings, or a string is empty.
    """
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, Sequence) or not all(isinstance(item, str) and item.strip() for item in patterns):
        raise InvalidInputError(
            f"The filter 'path' is {value!r}; expected a glob, for example 'reports/*.pdf', or a list of globs."
        )
    return list(patterns)


def matches_path(doc_id: str, path: Path, patterns: Sequence[str]) -> bool:
    """Return whether one of the globs matches the id or the path of a document."""
    return any(globs.matches(doc_id, item) or globs.matches(path.as_posix(), item) for item in patterns)
