"""Snippets in search: the best region of a page and the words to quote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag.errors import IndexCorruptError
from jina_rag.indexing.page_payload import describe
from jina_rag.search import snippets
from jina_rag.search.snippets import highlight, region_at, words_of
from jina_rag.stores import schema
from jina_rag.testing import FakeEmbedder, make_page
from jina_rag.types import Region, TokenGrid, Word

FOLDER = Path("images")
CROP = f"ab/{'ab' * 32}.jpg"


def highlight_of(page, query: str):
    """Return the highlight of a page for a query, computed as in a search."""
    embedder = FakeEmbedder()
    embedded = embedder.encode_document([page])
    payload = describe(page, embedded.multi[0], embedded.grids[0], [CROP] * len(page.regions))
    return highlight(embedder.encode_query([query]).multi[0], payload, FOLDER)


# make_page writes eight words per line; a line is 0.03 of the page height.
LEFT = (0.0, 0.0, 0.48, 0.2)
RIGHT = (0.48, 0.0, 1.0, 0.2)
WORDS = "sun sun sun sun rain rain rain rain"


def test_best_region_is_the_one_with_matching_words():
    page = make_page(WORDS, regions=[Region("table", LEFT), Region("chart", RIGHT)])
    assert highlight_of(page, "rain").region.kind == "chart"
    region = highlight_of(page, "sun").region
    assert (region.kind, region.box, region.image_path) == ("table", LEFT, FOLDER / CROP)
    assert 0.3 < region.score < 1


@pytest.mark.parametrize("name", ["/etc/passwd", f"../{CROP}", "", None, 5, ["x"], "missing"])
def test_region_with_an_unsafe_image_name_has_no_image_path(name):
    entry = {"kind": "chart", "box": [0, 0, 0.5, 0.5], "caption": "", "image": name}
    if name == "missing":
        del entry["image"]
    payload = {"text": "", "regions": [entry]}
    region = highlight(np.zeros((1, 4), dtype=np.float32), payload, FOLDER).region
    assert (region.kind, region.image_path) == ("chart", None)
    assert region_at(payload, [0, 0, 0.5, 0.5], FOLDER).image_path is None


def test_no_region_if_the_rest_of_the_page_matches_better():
    page = make_page(WORDS, regions=[Region("table", LEFT)])
    assert highlight_of(page, "rain").region is None


def test_page_sized_region_is_ignored():
    page = make_page(WORDS, regions=[Region("table", (0.0, 0.0, 1.0, 1.0))])
    assert highlight_of(page, "sun").region is None


def test_whole_image_is_the_region_of_an_image_without_words():
    payload = describe(make_page("", regions=[Region("figure", (0, 0, 1, 1))]), np.zeros((0, 64), "f4"), None, [None])
    assert highlight(np.ones((1, 64), dtype=np.float32), payload, FOLDER).region.kind == "figure"


def test_snippet_is_centered_on_the_matching_words():
    text = " ".join(["filler"] * 200 + ["penguins", "walk", "on", "ice"] * 3 + ["padding"] * 200)
    snippet = highlight_of(make_page(text), "penguins on ice").snippet
    assert "penguins walk on ice" in snippet
    assert snippet.startswith("… ")
    assert snippet.endswith(" …")
    assert len(snippet.split()) < 50


def test_short_page_is_quoted_whole_and_long_line_is_truncated():
    assert highlight_of(make_page("just a few words"), "words").snippet == "just a few words"
    assert len(highlight_of(make_page("語" * 5000), "語").snippet) < 320


def test_snippet_starts_with_the_caption_of_the_best_region():
    page = make_page(WORDS + " x" * 60, regions=[Region("chart", RIGHT, caption="Figure 2: rain by month")])
    assert highlight_of(page, "rain").snippet.startswith("Figure 2: rain by month … ")


def test_rows_merged_by_the_store_give_no_region():
    page = make_page(WORDS, regions=[Region("table", LEFT)])
    embedded = FakeEmbedder().encode_document([page])
    payload = describe(page, embedded.multi[0][:4], embedded.grids[0], [None])
    assert highlight(embedded.multi[0], payload, FOLDER).region is None


def page_with_words(texts, boxes=None):
    boxes = boxes or [(0.0, i / len(texts), 0.5, (i + 0.5) / len(texts)) for i in range(len(texts))]
    return replace(make_page("x"), words=tuple(map(Word, texts, boxes)))


@given(st.lists(st.text(max_size=3), max_size=5))
def test_words_of_returns_words_with_boxes_or_none(texts):
    page = page_with_words(texts)
    payload = describe(page, np.zeros((0, 4), "f4"), None, [])
    payload = json.loads(json.dumps(schema.clean_payload(payload)))
    words_and_boxes = words_of(payload)
    if texts and all(text.split() == [text] for text in texts):
        assert words_and_boxes[0] == [schema.clean_payload(text) for text in texts]
        np.testing.assert_allclose(words_and_boxes[1], [word.box for word in page.words], atol=1e-4)
    else:
        assert words_and_boxes is None


def test_words_of_rejects_changed_text_and_broken_boxes():
    payload = describe(page_with_words(["two", "words"]), np.zeros((0, 4), "f4"), None, [])
    assert words_of({**payload, "text": "now three words"}) is None
    assert words_of({"text": "two words"}) is None
    with pytest.raises(IndexCorruptError, match=r"(?i)ingest the documents again"):
        words_of({**payload, "words": "words:AAAA"})


def test_patch_embeddings_quote_the_words_under_the_best_patches():
    # Two columns. Reading order starts with the whole left column, patch order with the top of both columns.
    left, right = ([f"{side}{n}" for n in range(100)] for side in ("left", "right"))
    boxes = [(0.5 * (n // 100) + 0.1, n % 100 / 100, 0.5 * (n // 100) + 0.4, n % 100 / 100 + 0.008) for n in range(200)]
    page = page_with_words([*left, *right], boxes)
    rows, columns = 10, 4
    y, x = np.mgrid[:rows, :columns]
    patches = np.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], axis=2).reshape(-1, 4)
    boxes = np.concatenate([np.full((3, 4), np.nan), patches]).astype("f4")  # tokens of the prompt have no box
    vectors = np.tile(np.array([[0.0, 1.0]], "f4"), (len(boxes), 1))
    is_match = (patches[:, 0] >= 0.5) & (patches[:, 1] < 0.25)
    vectors[3:][is_match] = [1.0, 0.0]  # the top of the right column
    query = np.array([[1.0, 0.0]], "f4")
    for options, stored_rows in (({}, None), ({"signs": False}, vectors)):
        payload = describe(page, vectors, TokenGrid(boxes, "patches"), [], **options)
        snippet = highlight(query, payload, FOLDER, stored_rows).snippet
        assert "right5" in snippet.split()
        assert "left90" not in snippet.split()
        del payload["words"]
        assert "right5" not in highlight(query, payload, FOLDER, stored_rows).snippet.split(), (
            "without boxes, the position is approximate"
        )


def test_word_outside_all_patches_gets_the_lowest_weight():
    patches = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5]], "f4")
    words = np.array([[0.1, 0.1, 0.2, 0.2], [0.4, 0.1, 0.6, 0.2], [0.7, 0.1, 0.8, 0.2], [0.1, 0.8, 0.2, 0.9]], "f4")
    np.testing.assert_allclose(snippets.word_weights(words, patches, np.array([4, 2], "f4")), [4, 3, 2, 2])
    many = np.tile(words, (1500, 1))
    np.testing.assert_allclose(snippets.word_weights(many, patches, np.array([4, 2], "f4")), [4, 3, 2, 2] * 1500)
    assert snippets.word_weights(words, np.zeros((0, 4), "f4"), np.zeros(0, "f4")).tolist() == [0, 0, 0, 0]
