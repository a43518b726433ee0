"""Recognition of text in boxes that the caller knows."""

from __future__ import annotations

import pymupdf
import pytest
from PIL import Image

from jina_rag.ocr.boxes import read_boxes

LINES = ("Harbour dues 1984", "Quantity of fish")


@pytest.fixture(scope="module")
def page():
    """Return the screenshot of two lines, one of them vertical, and the boxes of the lines."""
    with pymupdf.open() as document:
        drawn = document.new_page(width=300, height=300)
        drawn.insert_text((40, 60), LINES[0], fontsize=12)
        drawn.insert_text((250, 280), LINES[1], fontsize=12, rotate=90)
        pixmap = drawn.get_pixmap(dpi=150)
        image = Image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)
        boxes = [tuple(side / 300 for side in block[:4]) for block in drawn.get_text("blocks")]
    return image, boxes


def test_lines_are_read_in_the_order_of_the_boxes(page):
    image, boxes = page
    readings = read_boxes(image, boxes[::-1])
    assert [reading.text for reading in readings] == [LINES[1], LINES[0]]
    assert all(reading.score > 0.9 for reading in readings)


def test_words_have_boxes_on_the_image(page):
    image, boxes = page
    (reading,) = read_boxes(image, boxes[:1])
    assert [word.text for word in reading.words] == LINES[0].split()
    assert all(word.ocr for word in reading.words)
    assert reading.words[0].box[0] == pytest.approx(boxes[0][0], abs=0.02)
    assert reading.words[-1].box[2] == pytest.approx(boxes[0][2], abs=0.02)


def test_empty_tiny_and_outside_boxes_have_no_text(page):
    image, _ = page
    boxes = [(0.5, 0.5, 0.6, 0.6), (0.2, 0.2, 0.2, 0.2), (0.99, 0.99, 1.0, 1.0), (0.1, 0.1, 0.1001, 0.5)]
    assert [reading.text for reading in read_boxes(image, boxes)] == [""] * 4
    assert read_boxes(image, []) == []
