"""What may be put into an index by a program: texts, pictures, pages; checked here, but not read."""

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
from jina_rag.indexing.page_files import sidecar_of, source_of
from jina_rag.inputs import clean_text
from jina_rag.stores import schema
from jina_rag.types import Embeddings, Page


@dataclass(frozen=True, slots=True)
class EntryInput:
    """Something to be added: checked, but not read.

    Attributes:
        record: Its id, the hash of its content, its metadata.
        content: A text, a page, or a picture: its file, or its bytes.
        words: Of a picture whose words are known.
        position: Where it stands in the call.
    """

    record: DocumentRecord
    content: str | Page | Path | bytes
    words: str | None = None
    position: int = 0


def entries_of(
    contents: Sequence[object], ids: Sequence[str], metadata: Sequence[Mapping[str, Any]]
) -> list[EntryInput]:
    """Check what is to be added; nothing is decoded. Of entries of one id the last counts.

    Raises:
        InvalidInputError: If one is of another kind, or its metadata is not JSON.
    """
    entries: dict[str, EntryInput] = {}
    for position, (content, entry_id, meta) in enumerate(zip(contents, ids, metadata, strict=True)):
        if not isinstance(entry_id, str) or not entry_id.strip():
            raise InvalidInputError(f"The id of entry {position + 1} is {entry_id!r}: give a text that is not empty.")
        if not isinstance(meta, Mapping):
            raise InvalidInputError(f"The metadata of {entry_id!r} are {meta!r}: give a mapping.")
        own_metadata = schema.clean_payload(dict(meta))
        what, words, path = _kind(content, entry_id)
        record = DocumentRecord(
            doc_id=clean_text(entry_id),
            path=path or Path(clean_text(entry_id)),
            sha256=_hash(entry_id, what, words),
            size=0,
            mtime_ns=ADDED,
            metadata=own_metadata,
            own_metadata=own_metadata,
        )
        entries[record.doc_id] = EntryInput(record, what, words, position)
    return list(entries.values())


def _kind(content: object, entry_id: str) -> tuple[str | Page | Path | bytes, str | None, Path | None]:
    """What an entry is, the words that are known of it, and the file it is of."""
    words: str | None = None
    if isinstance(content, Mapping) and content.keys() <= {"text", "image"} and content:
        text = content.get("text")
        if "image" not in content and isinstance(text, str):
            return clean_text(text), None, None
        if "image" in content and (text is None or isinstance(text, str)):
            content, words = content["image"], None if text is None else clean_text(text)
            if isinstance(content, str) and not is_data_uri(content):
                raise InvalidInputError(
                    f"The picture of {entry_id!r} is given as a text: give bytes, a PIL image, a data URI, or a "
                    "pathlib.Path for a file. Addresses are not followed."
                )
    if isinstance(content, str):
        return (decode_data_uri(content), words, None) if is_data_uri(content) else (clean_text(content), None, None)
    if isinstance(content, Page):
        return content, None, Path(os.path.abspath(content.path))
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content), words, None
    if isinstance(content, os.PathLike):
        path = Path(os.path.abspath(os.fspath(content)))
        if not path.is_file():
            raise InvalidInputError(f"The picture of {entry_id!r} is not there: there is no file {path}.")
        return path, words, path if words is not None else source_of(path)
    if hasattr(content, "getexif"):
        return _png(content), words, None
    raise InvalidInputError(
        f"Entry {entry_id!r} is of the kind {type(content).__name__}: give a text, a picture (bytes, a pathlib.Path, "
        'a PIL image, {"image": …, "text": …}) or a Page.'
    )


def _hash(entry_id: str, content: str | Page | Path | bytes, words: str | None) -> str:
    """Of the id, too: two entries that say the same are two."""
    digest = hashlib.sha256()

    def take(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)

    take(b"entry")
    take(clean_text(entry_id).encode())
    if isinstance(content, Page):
        image = content.screenshot.image
        take(repr((content.number, content.count, image.size, image.mode)).encode())
        take(image.tobytes())
        take(repr([(word.text, word.box) for word in content.words]).encode("utf-8", "surrogatepass"))
        take(repr([(region.kind, region.box, region.caption) for region in content.regions]).encode())
    elif isinstance(content, Path):
        take(content.read_bytes())
        words_file = sidecar_of(content)
        take(words_file.read_bytes() if words is None and words_file.is_file() else b"")
    else:
        take(content.encode() if isinstance(content, str) else content)
    take(b"" if words is None else b"words" + words.encode())
    return digest.hexdigest()


def _png(image: Any) -> bytes:  # noqa: ANN401  # a PIL image; Pillow is imported by whoever made it
    buffer = io.BytesIO()
    (image if image.mode in ("L", "RGB", "RGBA", "P", "1") else image.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


def checked_vectors(vectors: Embeddings, count: int, dim: int, multi_dim: int) -> Embeddings:
    """Vectors that were made elsewhere, if they fit.

    Raises:
        InvalidInputError: If some are missing, or are of another length.
    """
    single, multi = vectors.single, vectors.multi
    if single is None or multi is None or len(single) != count or len(multi) != count:
        raise InvalidInputError(f"For {count} entries, vectors need as many dense vectors and multi-vectors.")
    if single.shape[1] != dim or any(rows.ndim != 2 or rows.shape[1] < multi_dim for rows in multi):
        raise InvalidInputError(
            f"This index keeps dense vectors of {dim} numbers and rows of {multi_dim}: the vectors have "
            f"{single.shape[1]} and {sorted({rows.shape[-1] for rows in multi})}."
        )
    if vectors.grids is not None and len(vectors.grids) != count:
        raise InvalidInputError(f"For {count} entries, vectors have {len(vectors.grids)} grids.")
    return vectors
