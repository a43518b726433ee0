"""Heat maps: where they shine, and what is drawn on the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jina_rag.errors import InvalidInputError
from jina_rag.explain.explanation import Explanation, explain
from jina_rag.testing import FakeEmbedder, make_page
from jina_rag.types import TokenGrid


def image(tmp_path) -> Path:
    Image.new("RGB", (200, 100), "white").save(tmp_path / "page.png")
    return tmp_path / "page.png"


def test_a_heat_map_shines_where_the_words_match(tmp_path):
    page = make_page("sun sun sun sun " + "moon " * 28)
    embedder = FakeEmbedder()
    embedded = embedder.encode_document([page])
    query = embedder.encode_query(["sun"]).multi[0]
    heat = explain(query, embedded.multi[0], embedded.grids[0], image(tmp_path))
    assert (heat.weights[:4] > 0.5).all()
    assert (heat.weights[4:] < 0.2).all()
    assert heat.brightest[2] < 0.5
    pixels = np.asarray(heat.image()).astype(int)
    redness = pixels[..., 0] - pixels[..., 2]
    assert redness[:10, :90].max() > 60
    assert redness[30:].max() < 10, "the empty part of the page stays white"


def test_boxes_without_a_place_are_left_out(tmp_path):
    boxes = np.array([[np.nan] * 4, [0.1, 0.1, 0.2, 0.2]], dtype=np.float32)
    heat = explain(np.eye(2, dtype="f4"), np.eye(2, dtype="f4"), TokenGrid(boxes, "words"), image(tmp_path))
    assert len(heat.boxes) == 1
    with pytest.raises(InvalidInputError, match="not of one page"):
        explain(np.eye(2, dtype="f4"), np.eye(2, dtype="f4"), TokenGrid(boxes[:1], "words"), image(tmp_path))


def test_a_frame_and_its_label_are_drawn_inside_the_picture(tmp_path):
    heat = Explanation.empty(image(tmp_path))
    framed = np.asarray(heat.image(frame=(0.0, 0.0, 1.0, 1.0), label="table")).astype(int)
    blue = (framed[..., 2] - framed[..., 0]) > 100
    assert blue[50, 0]
    assert blue.sum() > 4 * (200 + 100)
    heat.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as saved:
        assert saved.format == "PNG"
