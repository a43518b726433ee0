"""Worker messages: invalid answers are rejected, because a document may have compromised the worker."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from jina_rag.config import IngestSettings, Limits
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers import ipc
from jina_rag.parsing.workers.ipc import InvalidMessageError, unpack_opened, unpack_page

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


def test_oversized_message_is_rejected_before_reading():
    with pytest.raises(InvalidMessageError):
        ipc.receive(io.BytesIO(b"\xff" * 16))
