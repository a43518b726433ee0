"""Worker messages: invalid answers are rejected, because a document may have compromised the worker."""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jina_rag.config import IngestSettings, Limits
from jina_rag.images import encode_jpeg
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers import ipc, shared_memory
from jina_rag.parsing.workers.ipc import InvalidMessageError, unpack_opened, unpack_page
from jina_rag.types import SparseVector

SOURCE = SourceFile(Path("a.pdf"), Path(), "a.pdf", "pdf")
LIMITS = Limits(max_render_pixels=100, max_words=2, max_pages=9)
SETTINGS = IngestSettings(limits=LIMITS)
PIXELS = bytes(10 * 10 * 3)
HEADER = {
    "size": [10, 10],
    "dpi": 60,
    "words": [],
    "regions": [["chart", [0.1, 0.1, 0.5, 0.5], ""]],
    "images": [],
    "warnings": [],
    "suspects": [],
}
NAN, INF = float("nan"), float("inf")


def unpack(body=PIXELS, **changes):
    return unpack_page(SOURCE, 1, 1, HEADER | changes, body, SETTINGS)


def words(*boxes):
    return {"words": ["word"] * len(boxes), "body": np.array(boxes, dtype=np.float64).tobytes() + PIXELS}


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 5},
        {"size": [10]},
        {"size": [INF, 1]},
        {"size": [10.0, 10]},
        {"size": [True, 300]},
        {"size": [0, 10], "body": b""},
        {"size": [-10, -10]},
        {"size": [12, 12], "body": bytes(12 * 12 * 3)},
        {"size": [65_501, 1], "body": bytes(65_501 * 3)},
        {"body": PIXELS[:-1]},
        {"body": PIXELS + b"x"},
        {"dpi": NAN},
        {"dpi": INF},
        {"dpi": 10**400},
        {"dpi": None},
        {"words": None},
        {"suspects": 5},
        {"suspects": [["letters", "F", [], []]]},
        {"suspects": [["other", "F", [], [], True]]},
        {"suspects": [["letters", 5, [], [], True]]},
        {"suspects": [["letters", "F", [0], [], True]]},
        {"suspects": [["letters", "F", [-1], [], True]]},
        {"suspects": [["letters", "F", [0.0], [], True]]},
        {"suspects": [["letters", "F", [], [], 1]]},
        {"suspects": [["letters", "F", [], [[[0, 0, 1, NAN], 0]], True]]},
        {"suspects": [["letters", "F", [], [[[0, 0, 1, 1], 1]], True]]},
        {"suspects": [["letters", "F", [], [[[0, 0, 1], 0]], True]]},
        {"words": [5]},
        {"words": "ab"},
        words((0, 0, NAN, 1)),
        words((0, 0, INF, 1)),
        words(*[(0, 0, 1, 1)] * 3),
        {"regions": None},
        {"regions": [5]},
        {"regions": [["chart", [0, 0, 1, 1]]]},
        {"regions": [["page", [0, 0, 1, 1], ""]]},
        {"regions": [[{"a": 1}, [0, 0, 1, 1], ""]]},
        {"regions": [["chart", [0, 0, 1, 1], None]]},
        {"regions": [["chart", [0, 0, 1], ""]]},
        {"regions": [["chart", [0, 0, 1, NAN], ""]]},
        {"regions": [["chart", [0, 0, 1, 10**400], ""]]},
        {"regions": [["chart", None, ""]]},
        {"regions": [["chart", [0, 0, 1, 1], ""]] * 3_000},
        {"images": [[0, 0, -INF, 1]]},
        {"images": 5},
        {"images": {"a": 1}},
        {"warnings": [5]},
        {"warnings": "odd"},
        {"warnings": [""] * 2_000},
    ],
    ids=lambda changes: str({key: value for key, value in changes.items() if key != "body"})[:40],
)
def test_invalid_page_message_is_rejected(changes):
    with pytest.raises(InvalidMessageError):
        unpack(**changes)


@pytest.mark.parametrize("key", HEADER)
def test_missing_header_key_is_rejected(key):
    with pytest.raises(InvalidMessageError):
        unpack_page(SOURCE, 1, 1, {name: value for name, value in HEADER.items() if name != key}, PIXELS, SETTINGS)


def test_boxes_are_clipped_to_page():
    outside = [[-5, -0.01, 0.5, 9], [0.8, 0.9, 0.2, 0.1]]
    clipped_boxes = ((0, 0, 0.5, 1), (0.2, 0.1, 0.8, 0.9))
    page, images = unpack(regions=[["table", box, "Caption"] for box in outside], images=outside, **words(*outside))
    assert images == clipped_boxes
    assert tuple(word.box for word in page.words) == clipped_boxes
    assert tuple(region.box for region in page.regions) == clipped_boxes
    assert (page.regions[0].kind, page.regions[0].caption, page.regions[0].score) == ("table", "Caption", None)


def test_image_size_allows_rounding_up_both_sides():
    page, _ = unpack(size=[11, 11], body=bytes(11 * 11 * 3))
    assert page.screenshot.image.size == (11, 11)


@pytest.mark.parametrize(
    "header",
    [
        {"warnings": []},
        {"count": 0, "warnings": []},
        {"count": 10, "warnings": []},
        {"count": True, "warnings": []},
        {"count": 2.0, "warnings": []},
        {"count": 2},
        {"count": 2, "warnings": [{}]},
    ],
)
def test_invalid_document_header_is_rejected(header):
    with pytest.raises(InvalidMessageError):
        unpack_opened(header, LIMITS)


def test_valid_document_header_is_accepted():
    assert unpack_opened({"count": 9, "warnings": ["The file was repaired."]}, LIMITS) == (
        9,
        ("The file was repaired.",),
    )


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "5", json.dumps("x")], ids=lambda text: text[:9])
def test_malformed_header_is_rejected(text):
    data = struct.pack("=QQ", len(text), 0) + text.encode()
    with pytest.raises(InvalidMessageError):
        ipc.receive(io.BytesIO(data))


@pytest.mark.parametrize("lengths", [(2**25 + 1, 0), (2, 101), (2**63 - 1, 0), (2, 2**63)])
def test_oversized_message_is_rejected_before_reading(lengths):
    stream = io.BytesIO(struct.pack("=QQ", *lengths) + b"{}" + bytes(101))
    with pytest.raises(InvalidMessageError):
        ipc.receive(stream, max_body=100)
    assert stream.tell() == 16


def test_body_of_the_largest_page_is_accepted():
    limits = Limits(max_render_pixels=1_000_000)
    assert ipc.max_body_bytes(limits) >= 6 * 1_000_000 + limits.max_words * 32


@pytest.mark.parametrize(
    "changes",
    [
        {"words": ["x" * 1_000_001], "body": bytes(32) + PIXELS},
        {"warnings": ["x" * 10_001]},
        {"regions": [["chart", [0, 0, 1, 1], "x" * 1_000_001]]},
        {"suspects": [["letters", "x" * 1_000_001, [], [], True]]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_long_texts_are_rejected(changes):
    shorter = json.loads(json.dumps(changes, default=lambda _: "").replace("xx", ""))
    if "body" in changes:
        shorter["body"] = changes["body"]
    unpack(**shorter)
    with pytest.raises(InvalidMessageError):
        unpack(**changes)


def prepared_page(**changes):
    """Return the header and body of a page of 10 x 10 pixels with one region of 4 x 4 pixels."""
    screenshot, crop = (encode_jpeg(Image.new("RGB", (side, side), "red"), 85) for side in (10, 4))
    weights = SparseVector(np.array([3, 9], np.uint32), np.array([0.5, 1.5], np.float32))
    parts = {"weights": [weights, weights], "files": [screenshot.content, crop.content]} | changes
    header = HEADER | {
        "terms": [len(vector.indices) for vector in parts["weights"]],
        "jpegs": [len(content) for content in parts["files"]],
    }
    vectors = [array.tobytes() for vector in parts["weights"] for array in (vector.indices, vector.values)]
    return header, PIXELS + b"".join(vectors) + b"".join(parts["files"])


def unpack_prepared(header, body):
    return unpack_page(SOURCE, 1, 1, header, body, SETTINGS, prepared=True)[0].prepared


def sparse(indices, values):
    return SparseVector(np.array(indices, np.uint32), np.array(values, np.float32))


def jpeg(size, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "JPEG", **{"quality": SETTINGS.jpeg_quality} | options)
    return buffer.getvalue()


FULL, SMALL = jpeg((10, 10)), jpeg((4, 4))


def test_prepared_page_is_accepted_with_own_hashes():
    prepared = unpack_prepared(*prepared_page())
    assert prepared.screenshot == encode_jpeg(Image.new("RGB", (10, 10), "red"), SETTINGS.jpeg_quality)
    assert [image.sha256 for image in prepared.crops] == [hashlib.sha256(prepared.crops[0].content).hexdigest()]
    assert prepared.lexical.indices.tolist() == [3, 9]
    assert prepared.region_lexical[0].values.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": [sparse([3], [1])]},
        {"weights": [sparse([9, 3], [1, 1]), sparse([], [])]},
        {"weights": [sparse([3, 3], [1, 1]), sparse([], [])]},
        {"weights": [sparse([3], [NAN]), sparse([], [])]},
        {"weights": [sparse([3], [INF]), sparse([], [])]},
        {"weights": [sparse([3], [-1]), sparse([], [])]},
        {"files": [FULL]},
        {"files": [FULL, jpeg((4, 5))]},
        {"files": [jpeg((11, 10)), SMALL]},
        {"files": [FULL, jpeg((4, 4), "L")]},
        {"files": [FULL, jpeg((4, 4), quality=84)]},
        {"files": [FULL, jpeg((4, 4), progressive=True)]},
        {"files": [FULL, jpeg((4, 4), comment=b"note")]},
        {"files": [FULL, jpeg((4, 4), subsampling=0)]},
        {"files": [FULL, SMALL[:-2] + b"\xff\xd0" + SMALL[-2:]]},
        {"files": [FULL, SMALL[:-2] + b"\xff" + SMALL[-2:]]},
        {"files": [FULL, SMALL + b"x"]},
        {"files": [FULL, SMALL[:-1]]},
        {"files": [FULL, b"GIF89a"]},
        {"files": [FULL, b""]},
    ],
)
def test_invalid_prepared_page_is_rejected(changes):
    with pytest.raises(InvalidMessageError):
        unpack_prepared(*prepared_page(**changes))


@pytest.mark.parametrize("changes", [{"terms": None}, {"jpegs": [1, -1]}, {"jpegs": [1.0, 2]}, {"terms": [2, 1 << 40]}])
def test_invalid_lengths_of_a_prepared_page_are_rejected(changes):
    header, body = prepared_page()
    with pytest.raises(InvalidMessageError):
        unpack_prepared(header | changes, body)
    with pytest.raises(InvalidMessageError):
        unpack_prepared(header, body + b"x")


def test_message_with_a_body_is_read_from_shared_memory():
    memory = mmap.mmap(-1, 4096)
    stream = io.BytesIO()
    ipc.write(stream, {"a": 1}, [b"bo", b"dy"], memory)
    assert len(stream.getvalue()) == 16, "the pipe contains only the lengths"
    header, body = ipc.receive(io.BytesIO(stream.getvalue()), memory)
    assert (header, bytes(body)) == ({"a": 1}, b"body")
    for content in ([], [bytes(5000)]):  # no body; too large for the memory
        stream = io.BytesIO()
        ipc.write(stream, {"a": 1}, content, memory)
        message = ipc.receive(io.BytesIO(stream.getvalue()), memory, max_body=5000)
        assert message == ({"a": 1}, b"".join(content))


@pytest.mark.parametrize("lengths", [(10, 5000), (5000, 10), (1 << 40, 0)])
def test_message_beyond_the_shared_memory_is_rejected(lengths):
    data = struct.pack("=QQ", lengths[0] | 1 << 63, lengths[1])
    for memory in (mmap.mmap(-1, 4096), None):
        with pytest.raises(InvalidMessageError):
            ipc.receive(io.BytesIO(data), memory)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has sealed memory")
def test_shared_memory_cannot_be_resized():
    descriptor = shared_memory.create()
    if descriptor is None:
        pytest.skip("this system does not allow sealed memory")
    reading = shared_memory.open_for_reading(descriptor)
    for size in (0, shared_memory.SIZE * 2):
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(descriptor, size)
    writing = shared_memory.open_for_writing(descriptor)
    writing[-4:] = b"last"
    assert reading[-4:] == b"last"
    with pytest.raises(TypeError):
        reading[0] = 1
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
