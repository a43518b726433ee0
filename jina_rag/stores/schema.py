"""Schema of stored points: names of vectors and payload keys, point ids, limits, and the encoding of token grids.

All stores share this schema, so that an index can be copied from one store to another.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import re
import reprlib
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt

from jina_rag.errors import IndexCorruptError, IndexMismatchError, InvalidInputError
from jina_rag.stores import dates
from jina_rag.stores.ranges import plain_scalar
from jina_rag.types import Float32, Point, TokenGrid

T = TypeVar("T")

DENSE = "dense"
MULTI = "multi"
LEXICAL = "lexical"

ADDED = "added"
"""True for content that was passed to `DocumentIndex.add` instead of read from a file."""
KIND = "kind"
"""``"page"``, or the kind of a region: ``"chart"``, ``"table"`` or ``"figure"``."""
DOC_ID = "doc_id"
PATH = "path"
PAGE = "page"
PAGE_COUNT = "page_count"
PAGE_ID = "page_id"
"""For a region, the point id of its page; for a page, its own point id."""
REVISION = "revision"
"""SHA-256 of the file that the page was rendered from."""
IMAGE = "image"
BOX = "box"
CAPTION = "caption"
GRID = "grid"
TEXT = "text"
"""Words of a page, joined by single spaces."""
WORDS = "words"
"""Box of each word of `TEXT`, encoded by `encode_grid`."""
ASSIGNMENT = "assignment"
"""For pooled rows: the stored row of each box of the grid; see `compression.pool_tokens`."""
SIGNS = "signs"
"""Sign codes of the rows of the multi-vector; see `compression.encode_signs`."""
NEAR = "near"
"""Point id of the earlier page that a page nearly duplicates; see `catalog.near_duplicates.finder`."""
BIAS = "bias"
"""Mean score of a page for the reference queries; see `Embedder.hubness`."""
REGIONS = "regions"
"""Charts, tables and figures of a page: a list of objects with the keys kind, box, caption and image."""
HAS = "has"
"""Sorted list of the region kinds on a page, stored with the page and with each of its regions."""
META = "meta"
"""Metadata of the documents with this content; a filter refers to a key as ``meta.<key>``."""

TAGS = "_where"
"""One string for each filterable payload value; see `filters.tags`."""
NUMBERS = "_numbers"
"""One list of numbers for each numeric payload key; see `filters.numbers`."""

UNFILTERABLE = frozenset({GRID, WORDS, ASSIGNMENT, SIGNS, BIAS, REGIONS, TEXT, BOX, CAPTION, TAGS, NUMBERS})
"""Payload keys whose values are too long or meaningless for a filter."""

MULTI_LIMIT = 1_048_576
"""Qdrant rejects a multi-vector with this many numbers or more; `indexing.point_builder` pools larger multi-vectors."""
BATCH_BYTES = 16 * 1024 * 1024
"""Maximum number of bytes of one request: half of the default limit of a Qdrant server."""

MAX_METADATA_DEPTH = 32
"""Maximum nesting depth of the objects and lists in metadata; an engine cannot reload a file with 126 levels."""
_OUTER_DEPTH = 2
"""Nesting levels around the metadata in a payload: the payload itself and a list."""

_NAMESPACE = uuid.UUID("6f1c6d0e-6a51-5a0b-9d0f-3f1a0d2c7b64")
_CANONICAL_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAN_CODE = 65535
_MAX_CODE = 65534
_MAX_GRID_BYTES = 1 << 26
"""Maximum number of bytes of the decompressed boxes of a page: 8 million boxes."""


def point_id(revision: str, page: int, part: str = "page") -> str:
    """Return the deterministic point id of a page or of one of its regions.

    Args:
        revision: SHA-256 of the file. Copies of a file share their points; an edited file has new ids, so that
            the new points never overwrite points that searches still use.
        page: Page number, from 1.
        part: ``"page"``, or a name that is unique among the regions of the page.

    Returns:
        A UUID (version 5) as text, equal on every machine.
    """
    return str(uuid.uuid5(_NAMESPACE, json.dumps([revision, page, part])))


def checked_id(value: str) -> str:
    """Return a point id in its canonical spelling.

    Args:
        value: A UUID in any spelling that Python parses.

    Raises:
        InvalidInputError: If `value` is not a UUID.
    """
    try:
        # Parsing takes ten times as long as the comparison, and a search checks hundreds of canonical ids.
        return value if _CANONICAL_ID.fullmatch(value) else str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError) as exc:
        raise InvalidInputError(f"The point id is {value!r}; expected a UUID as text.") from exc


def checked_point(point: Point, dim: int, multi_dim: int) -> Point:
    """Return a validated point for a store to write: canonical id, cleaned payload, empty vectors set to None.

    Args:
        point: Point to write.
        dim: Length of the dense vectors of the store.
        multi_dim: Length of each row of the multi-vectors of the store.

    Raises:
        InvalidInputError: If the id is not a UUID, a vector has the wrong shape or a number that is not finite, the
            multi-vector has `MULTI_LIMIT` numbers or more, or the payload is not JSON.
    """
    multi, lexical = point.multi, point.lexical
    if point.dense is not None:
        checked_vector(point.dense, 1, dim, "dense vector")
    if multi is not None and len(multi) and checked_vector(multi, 2, multi_dim, "multi-vector").size >= MULTI_LIMIT:
        raise InvalidInputError(
            f"A multi-vector of {len(multi):,} x {multi_dim} numbers is too large for one point; expected fewer than "
            f"{MULTI_LIMIT:,} numbers. Pool the rows with jina_rag.compression.pool_tokens."
        )
    return replace(
        point,
        id=checked_id(point.id),
        multi=multi if multi is not None and len(multi) else None,
        lexical=lexical if lexical is not None and len(lexical.indices) else None,
        payload=checked_payload(point.payload),
    )


def checked_vector(vector: Float32, axes: int, dim: int, name: str) -> Float32:
    """Return the vector unchanged if its shape and numbers are valid.

    Args:
        vector: Shape (dim,) or (tokens, dim), float32.
        axes: Expected number of axes: 1 or 2.
        dim: Expected length of the last axis.
        name: Name of the vector in error messages.

    Returns:
        `vector`, float32.

    Raises:
        InvalidInputError: If the vector has another shape, or a number that is not finite.
    """
    if vector.ndim != axes or vector.shape[-1] != dim:
        shape = f"({dim},)" if axes == 1 else f"(tokens, {dim})"
        raise InvalidInputError(
            f"The {name} has shape {vector.shape}; the index expects {shape}. "
            "Encode the input with the model of the index."
        )
    if not np.isfinite(vector).all():
        raise InvalidInputError(f"The {name} contains NaN or infinity. Check the weights and the dtype of the model.")
    return vector


def check_dims(stored: tuple[int, int], dims: tuple[int, int], location: object) -> None:
    """Check that an index stores vectors of the lengths that the model returns.

    Args:
        stored: Lengths of the dense vectors and of the rows of the multi-vectors in the index.
        dims: Lengths of the dense vectors and of the rows of the multi-vectors that the model returns.
        location: Path or URL of the index, for the error message.

    Raises:
        IndexMismatchError: If the lengths differ.
    """
    if stored != dims:
        raise IndexMismatchError(
            f"The index at {location} stores dense vectors and multi-vectors of {stored[0]} and {stored[1]} "
            f"dimensions, but the vectors of the model have {dims[0]} and {dims[1]}. Open the index with the model "
            "that built it, or ingest into a new index."
        )


class PayloadError(InvalidInputError):
    """A payload contains a value that cannot be stored.

    Attributes:
        problem: Description of the value and the remedy, for a message that starts with the name of the value.
        too_deep: Whether the value is nested too deeply.
    """

    def __init__(self, problem: str, *, too_deep: bool = False) -> None:
        super().__init__(f"A payload {problem}")
        self.problem = problem
        self.too_deep = too_deep


def clean_payload(value: Any, max_depth: int = MAX_METADATA_DEPTH) -> Any:  # noqa: ANN401  # JSON has no narrower type
    """Return a copy of a payload as JSON, without lone surrogates, which some engines reject.

    Dates and times become text (see `jina_rag.stores.dates`), and tuples and NumPy scalars become lists and Python
    values.

    Args:
        value: Metadata, or a value nested in metadata.
        max_depth: Maximum nesting depth; 32 levels by default.

    Raises:
        PayloadError: If a value is not JSON (NaN and infinity are not JSON), is nested too deeply, or is an integer
            beyond the range of a float.
    """
    kind = type(value)
    if kind is float and math.isfinite(value):  # checks by `isinstance` are slow for the many numbers of a page
        return value
    if kind is not str and isinstance(value, np.generic):
        value = plain_scalar(value)
        if value is None:
            raise PayloadError("contains the date NaT, which is not JSON. Use a date or null.")
    if isinstance(value, str):
        # PDF text layers contain lone surrogates; replacing the surrogates keeps the page searchable.
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # An engine silently rounds integers beyond 64 bits. Converting to float here gives the value that Python shows.
        try:
            return value if -(2**63) <= value < 2**64 else float(value)
        except OverflowError as exc:
            raise PayloadError("contains a number of more than 308 digits. Pass the number as a string.") from exc
    if isinstance(value, float) and math.isfinite(value):
        return value
    is_mapping = kind is dict or isinstance(value, Mapping)
    if max_depth < 1 and (is_mapping or isinstance(value, list | tuple)):
        raise PayloadError(
            f"is nested deeper than {MAX_METADATA_DEPTH} levels. Flatten the nested values.", too_deep=True
        )
    if is_mapping and all(isinstance(key, str) for key in value):
        return {clean_payload(key): clean_payload(item, max_depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_payload(item, max_depth - 1) for item in value]
    if isinstance(value, dt.date | dt.time):
        with suppress(ValueError):  # NaT
            return dates.to_text(value)
    # reprlib shortens long and recursive values.
    raise PayloadError(f"contains {reprlib.repr(value)}, which is not JSON. {_remedy(value)}")


def _remedy(value: object) -> str:
    """Return a sentence that says how to store a value that is not JSON."""
    if isinstance(value, float | dt.date):  # NaN, infinity or NaT
        return "Use a finite number, a date or null."
    if isinstance(value, bytes | bytearray | memoryview):
        return "Use text, for example base64."
    if isinstance(value, Set | np.ndarray):
        return "Use a list."
    if isinstance(value, dt.timedelta):
        return "Use a number of seconds."
    if isinstance(value, Mapping):
        return "Use strings as keys."
    return "Use strings, finite numbers, booleans, dates, lists and objects."


def checked_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cleaned payload, or cleaned payload changes, for a store to write; see `clean_payload`.

    Raises:
        InvalidInputError: If the payload is not JSON, or has one of the reserved keys `TAGS` and `NUMBERS`.
    """
    for key in (TAGS, NUMBERS):
        if key in payload:
            raise InvalidInputError(f"The payload key {key!r} is reserved for the store. Use another name.")
    return cast(dict[str, Any], clean_payload(dict(payload), MAX_METADATA_DEPTH + _OUTER_DEPTH))


def changed_payload(payload: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the payload with the changes applied; None removes a key."""
    unchanged = {key: value for key, value in payload.items() if key not in changes}
    return unchanged | {key: value for key, value in changes.items() if value is not None}


def encode_grid(grid: TokenGrid) -> str:
    """Return a token grid as text: the kind, and the boxes, delta-encoded, zlib-compressed and written in base64.

    A box takes about 5 characters. Boxes are quantized to uint16, shape (tokens, 4), and stored as differences. For
    consecutive words of a line, most differences are 0 or the width of a space; on 168 pages of text, the encoding
    takes a third of the size of the raw boxes. Fractions outside 0 to 1 are clipped; NaN is preserved.

    Args:
        grid: Token grid; boxes as fractions of the page, shape (tokens, 4), float32.
    """
    units = np.rint(np.clip(grid.boxes.astype(np.float64), 0, 1) * _MAX_CODE)
    x0, y0, x1, y1 = np.where(np.isnan(units), _NAN_CODE, units).astype("<u2").T
    # Differences modulo 65536 are exactly invertible.
    parts = np.stack([_row_differences(x0, x1), _row_differences(y0, y0), x1 - x0, _row_differences(y1 - y0, y1 - y0)])
    body = zlib.compress(parts.astype("<u2").tobytes(), level=9)
    return f"{grid.kind}:{base64.b64encode(body).decode('ascii')}"


def decode_grid(text: str) -> TokenGrid:
    """Return the token grid that `encode_grid` encoded, within 1/65535 of the page width and height.

    Args:
        text: Output of `encode_grid`.

    Raises:
        IndexCorruptError: If `text` is not an encoded grid.
    """
    kind, _, body = text.partition(":")
    try:
        decompressor = zlib.decompressobj()
        raw = decompressor.decompress(base64.b64decode(body, validate=True), _MAX_GRID_BYTES)
        if not decompressor.eof:
            raise ValueError("truncated, or larger than the limit")
        steps = np.frombuffer(raw, dtype="<u2").reshape(4, -1)
    except (ValueError, zlib.error) as exc:
        raise IndexCorruptError(
            "The stored token grid of a page is unreadable. Ingest the documents again with force=True (--force)."
        ) from exc
    if kind not in ("words", "patches"):
        raise IndexCorruptError(
            f"The stored token grid of a page has the kind {kind!r}; this version of jina-rag reads only words and "
            "patches. Update jina-rag, or ingest the documents again with force=True (--force)."
        )
    x1 = np.cumsum(steps[0] + steps[2], dtype=np.uint16)
    y0 = np.cumsum(steps[1], dtype=np.uint16)
    codes = np.stack([x1 - steps[2], y0, x1, y0 + np.cumsum(steps[3], dtype=np.uint16)], axis=1)
    boxes = codes.astype(np.float32) / np.float32(_MAX_CODE)
    boxes[codes == _NAN_CODE] = np.nan
    return TokenGrid(boxes=boxes, kind=cast(Literal["words", "patches"], kind))


def point_bytes(point: Point) -> int:
    """Return the approximate bytes of a point in a binary request: float32 vectors, texts, and 4 KiB for the rest."""
    vectors = sum(array.size * 4 for array in (point.dense, point.multi) if array is not None)
    texts = sum(len(value) for value in point.payload.values() if isinstance(value, str))
    return vectors + texts + 4096


def batches(points: Sequence[Point], limit: int = BATCH_BYTES) -> Iterator[list[Point]]:
    """Yield batches of points, in order, for one upsert call each.

    Args:
        points: Points to upsert.
        limit: Maximum number of bytes of a batch, estimated by `point_bytes`. A larger point forms a batch of its own.
    """
    return batches_by_size(points, point_bytes, limit)


def batches_by_size(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Yield batches of items, in order.

    Args:
        items: Items to batch.
        size: Function that returns the bytes of an item.
        limit: Maximum number of bytes of a batch. A larger item forms a batch of its own.
    """
    batch: list[T] = []
    batch_bytes = 0
    for item in items:
        item_bytes = size(item)
        if batch and batch_bytes + item_bytes > limit:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(item)
        batch_bytes += item_bytes
    if batch:
        yield batch


def _row_differences(values: npt.NDArray[np.uint16], before: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return `values` minus `before` shifted by one, modulo 65536, shape (n,), uint16; the first value is unchanged."""
    shifted = np.zeros_like(values)
    shifted[1:] = before[:-1]
    return values - shifted
