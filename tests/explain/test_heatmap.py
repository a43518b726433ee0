"""Heat maps of small pages: weights of matching words, overlay colors and frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jina_rag.errors import InvalidInputError
from jina_rag.explain.explanation import Explanation, explain
from jina_rag.testing import FakeEmbedder, make_page
from jina_rag.types import TokenGrid


def blank_page(tmp_path) -> Path:
    Image.new("RGB", (200, 100), "white").save(tmp_path / "page.png")
    return tmp_path / "page.png"


def test_weights_are_greatest_at_matching_words(tmp_path):
    page = make_page("sun sun sun sun " + "moon " * 28)
    embedder = FakeEmbedder()
    embedded = embedder.encode_document([page])
    query = embedder.encode_query(["sun"]).multi[0]
    explanation = explain(query, embedded.multi[0], embedded.grids[0], blank_page(tmp_path))
    assert (explanation.weights[:4] > 0.5).all()
    assert (explanation.weights[4:] < 0.2).all()
    assert explanation.brightest[2] < 0.5
    pixels = np.asarray(explanation.image()).astype(int)
    redness = pixels[..., 0] - pixels[..., 2]
    assert redness[:10, :90].max() > 60
    assert redness[30:].max() < 10, "the empty part of the page must stay white"


def test_invalid_boxes_are_dropped(tmp_path):
    boxes = np.array([[np.nan] * 4, [0.1, 0.1, 0.2, 0.2]], dtype=np.float32)
    explanation = explain(np.eye(2, dtype="f4"), np.eye(2, dtype="f4"), TokenGrid(boxes, "words"), blank_page(tmp_path))
    assert len(explanation.boxes) == 1
    with pytest.raises(InvalidInputError, match="one per page token"):
        explain(np.eye(2, dtype="f4"), np.eye(2, dtype="f4"), TokenGrid(boxes[:1], "words"), blank_page(tmp_path))


def test_frame_and_label_are_drawn_inside_image(tmp_path):
    explanation = Explanation.empty(blank_page(tmp_path))
    framed_pixels = np.asarray(explanation.image(frame=(0.0, 0.0, 1.0, 1.0), label="table")).astype(int)
    blue = (framed_pixels[..., 2] - framed_pixels[..., 0]) > 100
    assert blue[50, 0]
    assert blue.sum() > 4 * (200 + 100)
    explanation.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as saved:
        assert saved.format == "PNG"
