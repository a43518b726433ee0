"""Validation of the entries of `DocumentIndex.add`, before any image is decoded."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jina_rag.catalog.manifest import ADDED, DocumentRecord
from jina_rag.errors import InvalidInputError
from jina_rag.images import decode_data_uri, is_data_uri
from jina_rag.indexing.metadata import checked_metadata
from jina_rag.indexing.page_files import sidecar_of, source_of
from jina_rag.inputs import clean_text
from jina_rag.types import Embeddings, Page


@dataclass(frozen=True, slots=True)
class EntryInput:
    """A validated entry of an `add` call. The image of the entry has not been decoded.

    Attributes:
        record: Id, content hash and metadata of the entry.
        content: A text, a page, or an image as a file or as bytes.
        words: The text that the caller passed for an image; None if the caller passed no text.
        position: 0-based position of the entry in the arguments of the call.
    """

    record: DocumentRecord
    content: str | Page | Path | bytes
    words: str | None = None
    position: int = 0


def entries_of(
    contents: Sequence[object], ids: Sequence[str], metadata: Sequence[Mapping[str, Any]]
) -> list[EntryInput]:
    """Return the validated entries. If several entries share an id, only the last entry with the id is returned.

    Args:
        contents: Texts, images and pages.
        ids: One id per entry.
        metadata: One JSON mapping per entry.

    Raises:
        InvalidInputError: If an id is empty, the content of an entry has an unsupported type, an image file does not
            exist, or metadata cannot be stored as JSON.
    """
    entries: dict[str, EntryInput] = {}
    for position, (content, entry_id, meta) in enumerate(zip(contents, ids, metadata, strict=True)):
        if not isinstance(entry_id, str) or not entry_id.strip():
            raise InvalidInputError(f"The id of entry {position + 1} is {entry_id!r}; expected a non-empty string.")
        if not isinstance(meta, Mapping):
            raise InvalidInputError(f"The metadata of {entry_id!r} is {meta!r}; expected a mapping.")
        own_metadata = checked_metadata(meta, entry_id)
        parsed_content, image_text, path = _classify(content, entry_id)
        record = DocumentRecord(
            doc_id=clean_text(entry_id),
            path=path or Path(clean_text(entry_id)),
            sha256=_hash(entry_id, parsed_content, image_text),
            size=0,
            mtime_ns=ADDED,
            metadata=own_metadata,
            own_metadata=own_metadata,
        )
        entries[record.doc_id] = EntryInput(record, parsed_content, image_text, position)
    return list(entries.values())


def _classify(content: object, entry_id: str) -> tuple[str | Page | Path | bytes, str | None, Path | None]:
    """Return (content, text that the caller passed for an image or None, path of the source file or None)."""
    words: str | None = None
    if isinstance(content, Mapping) and content.keys() <= {"text", "image"} and content:
        text = content.get("text")
        if "image" not in content and isinstance(text, str):
            return clean_text(text), None, None
        if "image" in content and (text is None or isinstance(text, str)):
            content, words = content["image"], None if text is None else clean_text(text)
            if isinstance(content, str) and not is_data_uri(content):
                raise InvalidInputError(
                    f"The image of {entry_id!r} is a string; expected bytes, a PIL image, a data URI or a "
                    "pathlib.Path. URLs are not supported."
                )
            if isinstance(content, str):
                return decode_data_uri(content), words, None
    if isinstance(content, str):
        return clean_text(content), None, None
    if isinstance(content, Page):
        return content, None, Path(os.path.abspath(content.path))
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content), words, None
    if isinstance(content, os.PathLike):
        path = Path(os.path.abspath(os.fspath(content)))
        if not path.is_file():
            raise InvalidInputError(f"The image file {path} of {entry_id!r} does not exist. Check the path.")
        return path, words, path if words is not None else source_of(path)
    if hasattr(content, "getexif"):
        return _png(content), words, None
    raise InvalidInputError(
        f"Entry {entry_id!r} has the type {type(content).__name__}; expected a text, an image (bytes, a pathlib.Path, "
        'a PIL image, {"image": …, "text": …}) or a Page.'
    )


def _hash(entry_id: str, content: str | Page | Path | bytes, words: str | None) -> str:
    """Return the SHA-256 of an entry's id and content. Entries with equal content stay separate, because ids differ."""
    digest = hashlib.sha256()

    def update(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)

    update(b"entry")
    update(clean_text(entry_id).encode())
    if isinstance(content, Page):
        image = content.screenshot.image
        update(repr((content.number, content.count, image.size, image.mode)).encode())
        update(image.tobytes())
        update(repr([(word.text, word.box) for word in content.words]).encode("utf-8", "surrogatepass"))
        update(repr([(region.kind, region.box, region.caption) for region in content.regions]).encode())
    elif isinstance(content, Path):
        update(content.read_bytes())
        sidecar = sidecar_of(content)
        update(sidecar.read_bytes() if words is None and sidecar.is_file() else b"")
    else:
        update(content.encode() if isinstance(content, str) else content)
    update(b"" if words is None else b"words" + words.encode())
    return digest.hexdigest()


def _png(image: Any) -> bytes:  # noqa: ANN401  # a PIL image; the caller has imported Pillow
    buffer = io.BytesIO()
    (image if image.mode in ("L", "RGB", "RGBA", "P", "1") else image.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


def checked_vectors(vectors: Embeddings, count: int, dim: int, multi_dim: int) -> Embeddings:
    """Check that the vectors match the entries and the dimensions of the index, and return the vectors.

    Args:
        vectors: Embeddings of the entries.
        count: Number of entries.
        dim: Length of the stored dense vectors.
        multi_dim: Length of the stored multi-vector rows. Longer rows are accepted and later truncated.

    Raises:
        InvalidInputError: If an entry has no dense vector, multi-vector or grid, or a vector has an invalid length.
    """
    single, multi = vectors.single, vectors.multi
    if single is None or multi is None or len(single) != count or len(multi) != count:
        raise InvalidInputError(f"vectors is invalid; expected {count} dense vectors and {count} multi-vectors.")
    if single.shape[1] != dim or any(rows.ndim != 2 or rows.shape[1] < multi_dim for rows in multi):
        raise InvalidInputError(
            f"vectors has dense vectors of length {single.shape[1]} and multi-vector rows of length "
            f"{sorted({rows.shape[-1] for rows in multi})}; expected {dim} and at least {multi_dim}. Embed the entries "
            "with the embedder of this index."
        )
    if vectors.grids is not None and len(vectors.grids) != count:
        raise InvalidInputError(f"vectors has {len(vectors.grids)} grids; expected {count}, one grid per entry.")
    return vectors
