"""What a point looks like in the store: names of vectors and payload keys, ids, limits, grids.

Every store writes points in this shape, so that an index can be copied from one to another.
"""

from __future__ import annotations

import base64
import json
import math
import reprlib
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt

from jina_rag.errors import IndexCorruptError, IndexMismatchError, InvalidInputError
from jina_rag.types import Float32, Point, TokenGrid

T = TypeVar("T")

DENSE = "dense"
MULTI = "multi"
LEXICAL = "lexical"

ADDED = "added"
"""True for what was given to `DocumentIndex.add` rather than read from a file."""
KIND = "kind"
"""``"page"``, or what a region is: ``"chart"``, ``"table"``, ``"figure"``."""
DOC_ID = "doc_id"
PATH = "path"
PAGE = "page"
PAGE_COUNT = "page_count"
PAGE_ID = "page_id"
"""Id of the point of the page that a region stands on; a page carries its own."""
REVISION = "revision"
"""SHA-256 of the file that the page was rendered from."""
IMAGE = "image"
BOX = "box"
CAPTION = "caption"
GRID = "grid"
TEXT = "text"
"""The words of a page, joined by single spaces."""
WORDS = "words"
"""The box of each word of `TEXT`, coded as a grid."""
ASSIGNMENT = "assignment"
"""Which stored row each place of the grid stands for, where rows were pooled; see `compression.pool_tokens`."""
SIGNS = "signs"
"""Sign codes of the multi-vector's rows; see `compression.encode_signs`."""
NEAR = "near"
"""Id of the earlier page that a page repeats; see `catalog.near_duplicates.finder`."""
BIAS = "bias"
"""How well a page scores for questions about anything; see `hubness`."""
REGIONS = "regions"
"""Charts, tables and figures of a page: a list of objects with kind, box, caption and image."""
HAS = "has"
"""Which kinds of regions are on the page: a sorted list, on its point and on those of its regions."""
META = "meta"
"""What the user gave for the document; its keys are filtered as ``meta.<key>``."""

TAGS = "_where"
"""Holds one string for each payload value that can be filtered; see `filters.tags`."""
NUMBERS = "_numbers"
"""Holds a list for each payload key with numbers that can be filtered; see `filters.numbers`."""

UNFILTERABLE = frozenset({GRID, WORDS, ASSIGNMENT, SIGNS, BIAS, REGIONS, TEXT, BOX, CAPTION, TAGS, NUMBERS})
"""Payload keys that are too long, or make no sense, to filter by."""

MULTI_LIMIT = 1_048_576
"""Qdrant refuses a multi-vector with this many numbers or more; `indexing.point_builder` pools longer ones."""
BATCH_BYTES = 16 * 1024 * 1024
"""Size of one request: half of what a Qdrant server takes by default."""

MOST_DEPTH = 32
"""How deep the objects and lists of metadata may be nested: with 126 levels an engine cannot read its files again."""
_OUTER_DEPTH = 2
"""Metadata stands in a list of a payload."""

_NAMESPACE = uuid.UUID("6f1c6d0e-6a51-5a0b-9d0f-3f1a0d2c7b64")
_NOWHERE = 65535
_STEPS = 65534
_MOST_BYTES = 1 << 26
"""Of the boxes of a page, before they are packed: 8 million of them."""


def point_id(revision: str, page: int, part: str = "page") -> str:
    """The id of a page or of one of its regions: the same input has the same id on every machine.

    Args:
        revision: SHA-256 of the file: copies of a file share their points, and an edited file never overwrites the
            points that still serve.
        page: 1-based.
        part: ``"page"``, or a name that is unique among the regions of the page.

    Returns:
        A UUID (version 5) as text.
    """
    return str(uuid.uuid5(_NAMESPACE, json.dumps([revision, page, part])))


def checked_id(value: str) -> str:
    """Return the id in its canonical spelling.

    Raises:
        InvalidInputError: If it is not a UUID.
    """
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError) as exc:
        raise InvalidInputError(f"{value!r} is not an id of a point: pass a UUID as text.") from exc


def checked_point(point: Point, dim: int, multi_dim: int) -> Point:
    """Return the point as a store writes it: with a clean id and payload, without vectors that hold nothing.

    Args:
        point: To be written.
        dim: Length of the store's dense vectors.
        multi_dim: Length of each row of its multi-vectors.

    Raises:
        InvalidInputError: If a vector has another length, or is beyond Qdrant's limit, or the payload is not JSON.
    """
    multi, lexical = point.multi, point.lexical
    if point.dense is not None:
        checked_vector(point.dense, 1, dim, "dense vector")
    if multi is not None and len(multi) and checked_vector(multi, 2, multi_dim, "multi-vector").size >= MULTI_LIMIT:
        raise InvalidInputError(
            f"A multi-vector of {len(multi):,} x {multi_dim} numbers is too large for one point, which holds fewer "
            f"than {MULTI_LIMIT:,}: pool its rows first, with jina_rag.compression.pool_tokens."
        )
    return replace(
        point,
        id=checked_id(point.id),
        multi=multi if multi is not None and len(multi) else None,
        lexical=lexical if lexical is not None and len(lexical.indices) else None,
        payload=checked_payload(point.payload),
    )


def checked_vector(vector: Float32, axes: int, dim: int, what: str) -> Float32:
    """Return the vector if the store takes it.

    Args:
        vector: Shape (dim,) or (tokens, dim).
        axes: How many it must have.
        dim: Length of its last axis.
        what: Its name in messages.

    Raises:
        InvalidInputError: If it has another shape, or a number that is not finite.
    """
    if vector.ndim != axes or vector.shape[-1] != dim:
        shape = f"({dim},)" if axes == 1 else f"(tokens, {dim})"
        raise InvalidInputError(
            f"The {what} has shape {vector.shape}, the index keeps {shape}: was it made by the index's model?"
        )
    if not np.isfinite(vector).all():
        raise InvalidInputError(f"The {what} holds NaN or infinity: the model's output cannot be used.")
    return vector


def check_dims(stored: tuple[int, int], dims: tuple[int, int], place: object) -> None:
    """Refuse vectors of other lengths than the model's: dense ones, and rows of multi-vectors.

    Raises:
        IndexMismatchError: With the way out.
    """
    if stored != dims:
        raise IndexMismatchError(
            f"The index at {place} keeps vectors of {stored[0]} and {stored[1]} dimensions, the model makes {dims[0]} "
            f"and {dims[1]}: open it with the model it was built with, or ingest into a new place."
        )


def clean_payload(value: Any, most_depth: int = MOST_DEPTH) -> Any:  # noqa: ANN401  # JSON has no narrower type
    """Return a payload that every engine takes: no lone surrogates, no tuples, no NumPy scalars.

    Args:
        value: Metadata, or a part of it.
        most_depth: How deep it may be nested.

    Raises:
        InvalidInputError: If a value is not JSON (NaN and infinities are not), is nested deeper, or is a whole number
            beyond the range of a float.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        # PDF text layers hold halves of surrogate pairs; losing the page for one would be worse.
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # Beyond 64 bits an engine would round silently; as float the rounding is the one Python shows.
        try:
            return value if -(2**63) <= value < 2**64 else float(value)
        except OverflowError as exc:
            raise InvalidInputError("A payload holds a number of more than 308 digits: write it as text.") from exc
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping | list | tuple) and most_depth < 1:
        raise InvalidInputError(f"A payload is nested deeper than {MOST_DEPTH} levels: make it flatter.")
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {clean_payload(key): clean_payload(item, most_depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_payload(item, most_depth - 1) for item in value]
    raise InvalidInputError(
        # Cut short: what is nested endlessly has no end in words either.
        f"A payload holds {reprlib.repr(value)}, which is not JSON: use strings, finite numbers, lists, objects."
    )


def checked_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload, or changes to one, as a store writes it: see `clean_payload`.

    Raises:
        InvalidInputError: If it is not JSON, or has a key that is the stores' own.
    """
    for key in (TAGS, NUMBERS):
        if key in payload:
            raise InvalidInputError(f"The payload key {key!r} is the store's own: use another name.")
    return cast(dict[str, Any], clean_payload(dict(payload), MOST_DEPTH + _OUTER_DEPTH))


def changed_payload(payload: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The payload with other values for some of its keys; None takes a key out."""
    unchanged = {key: value for key, value in payload.items() if key not in changes}
    return unchanged | {key: value for key, value in changes.items() if value is not None}


def encode_grid(grid: TokenGrid) -> str:
    """A grid as text: its kind, then base64 of its boxes as differences that are packed; some 5 characters a box.

    Boxes are (tokens, 4) uint16. Of words that follow each other on a line, most differences are 0 or that of a space:
    on 168 pages of text this takes a third of the boxes as they are. Fractions outside 0 to 1 are clipped; NaN
    survives.
    """
    units = np.rint(np.clip(grid.boxes.astype(np.float64), 0, 1) * _STEPS)
    x0, y0, x1, y1 = np.where(np.isnan(units), _NOWHERE, units).astype("<u2").T
    # Modulo 65536, so that all of it can be undone.
    parts = np.stack([_steps(x0, x1), _steps(y0, y0), x1 - x0, _steps(y1 - y0, y1 - y0)])
    body = zlib.compress(parts.astype("<u2").tobytes(), level=9)
    return f"{grid.kind}:{base64.b64encode(body).decode('ascii')}"


def decode_grid(text: str) -> TokenGrid:
    """The inverse of `encode_grid`, within 1/65535 of a page.

    Raises:
        IndexCorruptError: If the text is not an encoded grid.
    """
    kind, _, body = text.partition(":")
    try:
        opening = zlib.decompressobj()
        raw = opening.decompress(base64.b64decode(body, validate=True), _MOST_BYTES)
        if not opening.eof:
            raise ValueError("cut off, or larger than any page")
        steps = np.frombuffer(raw, dtype="<u2").reshape(4, -1)
    except (ValueError, zlib.error) as exc:
        raise IndexCorruptError("A stored token grid cannot be read: ingest the document again.") from exc
    if kind not in ("words", "patches"):
        raise IndexCorruptError(f"A stored token grid is of the unknown kind {kind!r}: update jina-rag.")
    x1 = np.cumsum(steps[0] + steps[2], dtype=np.uint16)
    y0 = np.cumsum(steps[1], dtype=np.uint16)
    codes = np.stack([x1 - steps[2], y0, x1, y0 + np.cumsum(steps[3], dtype=np.uint16)], axis=1)
    boxes = codes.astype(np.float32) / np.float32(_STEPS)
    boxes[codes == _NOWHERE] = np.nan
    return TokenGrid(boxes=boxes, kind=cast(Literal["words", "patches"], kind))


def point_bytes(point: Point) -> int:
    """About how many bytes a point takes in a request of binary numbers: its vectors and its payload."""
    vectors = sum(array.size * 4 for array in (point.dense, point.multi) if array is not None)
    texts = sum(len(value) for value in point.payload.values() if isinstance(value, str))
    return vectors + texts + 4096


def batches(points: Sequence[Point], limit: int = BATCH_BYTES) -> Iterator[list[Point]]:
    """Cut points into runs of at most `limit` bytes of vectors, for one upsert each.

    A point that is larger by itself stands alone.
    """
    return batches_by_size(points, point_bytes, limit)


def batches_by_size(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Cut items into runs of at most `limit` bytes; an item that is larger by itself stands alone.

    Args:
        items: In order.
        size: Counts the bytes of one.
        limit: Bytes of a run.
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


def _steps(values: npt.NDArray[np.uint16], before: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """How far each value is from what stands before it, modulo 65536."""
    shifted = np.zeros_like(values)
    shifted[1:] = before[:-1]
    return values - shifted
