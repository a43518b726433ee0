"""What is shown of a page for a query: the best region and a snippet."""

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


def place(page, query: str):
    """What the index would show of a page for a question."""
    embedder = FakeEmbedder()
    embedded = embedder.encode_document([page])
    payload = describe(page, embedded.multi[0], embedded.grids[0], [CROP] * len(page.regions))
    return highlight(embedder.encode_query([query]).multi[0], payload, FOLDER)


# make_page writes eight words a line; a line is 0.03 of the page high.
LEFT = (0.0, 0.0, 0.48, 0.2)
RIGHT = (0.48, 0.0, 1.0, 0.2)
WORDS = "sun sun sun sun rain rain rain rain"


def test_the_region_whose_words_match_is_named_with_its_crop():
    page = make_page(WORDS, regions=[Region("table", LEFT), Region("chart", RIGHT)])
    assert place(page, "rain").region.kind == "chart"
    found = place(page, "sun").region
    assert (found.kind, found.box, found.image_path) == ("table", LEFT, FOLDER / CROP)
    assert 0.3 < found.score < 1


@pytest.mark.parametrize("name", ["/etc/passwd", f"../{CROP}", "", None, 5, ["x"], "missing"])
def test_a_region_whose_picture_is_named_oddly_has_none(name):
    entry = {"kind": "chart", "box": [0, 0, 0.5, 0.5], "caption": "", "image": name}
    if name == "missing":
        del entry["image"]
    payload = {"text": "", "regions": [entry]}
    found = highlight(np.zeros((1, 4), dtype=np.float32), payload, FOLDER).region
    assert (found.kind, found.image_path) == ("chart", None)
    assert region_at(payload, [0, 0, 0.5, 0.5], FOLDER).image_path is None


def test_no_region_when_the_rest_of_the_page_matches_better():
    page = make_page(WORDS, regions=[Region("table", LEFT)])
    assert place(page, "rain").region is None


def test_a_frame_around_everything_points_at_nothing():
    page = make_page(WORDS, regions=[Region("table", (0.0, 0.0, 1.0, 1.0))])
    assert place(page, "sun").region is None


def test_a_picture_without_words_is_its_own_region():
    payload = describe(make_page("", regions=[Region("figure", (0, 0, 1, 1))]), np.zeros((0, 64), "f4"), None, [None])
    assert highlight(np.ones((1, 64), dtype=np.float32), payload, FOLDER).region.kind == "figure"


def test_the_snippet_is_cut_where_the_words_speak():
    text = " ".join(["filler"] * 200 + ["penguins", "walk", "on", "ice"] * 3 + ["padding"] * 200)
    snippet = place(make_page(text), "penguins on ice").snippet
    assert "penguins walk on ice" in snippet
    assert snippet.startswith("… ")
    assert snippet.endswith(" …")
    assert len(snippet.split()) < 50


def test_a_short_page_is_quoted_whole_and_a_long_line_is_cut():
    assert place(make_page("just a few words"), "words").snippet == "just a few words"
    assert len(place(make_page("語" * 5000), "語").snippet) < 320


def test_the_caption_says_what_a_chart_shows():
    page = make_page(WORDS + " x" * 60, regions=[Region("chart", RIGHT, caption="Figure 2: rain by month")])
    assert place(page, "rain").snippet.startswith("Figure 2: rain by month … ")


def test_merged_rows_of_a_very_long_page_give_no_region():
    page = make_page(WORDS, regions=[Region("table", LEFT)])
    embedded = FakeEmbedder().encode_document([page])
    payload = describe(page, embedded.multi[0][:4], embedded.grids[0], [None])
    assert highlight(embedded.multi[0], payload, FOLDER).region is None


def page_of(texts, boxes=None):
    boxes = boxes or [(0.0, i / len(texts), 0.5, (i + 0.5) / len(texts)) for i in range(len(texts))]
    return replace(make_page("x"), words=tuple(map(Word, texts, boxes)))


@given(st.lists(st.text(max_size=3), max_size=5))
def test_words_and_places_are_told_together_or_not_at_all(texts):
    page = page_of(texts)
    payload = describe(page, np.zeros((0, 4), "f4"), None, [])
    payload = json.loads(json.dumps(schema.clean_payload(payload)))
    found = words_of(payload)
    if texts and all(text.split() == [text] for text in texts):
        assert found[0] == [schema.clean_payload(text) for text in texts]
        np.testing.assert_allclose(found[1], [word.box for word in page.words], atol=1e-4)
    else:
        assert found is None


def test_a_text_that_somebody_has_changed_has_no_places():
    payload = describe(page_of(["two", "words"]), np.zeros((0, 4), "f4"), None, [])
    assert words_of({**payload, "text": "now three words"}) is None
    assert words_of({"text": "two words"}) is None
    with pytest.raises(IndexCorruptError, match="ingest the document again"):
        words_of({**payload, "words": "words:AAAA"})


def test_of_a_model_that_looks_at_pixels_the_words_under_the_brightest_patches_are_quoted():
    # Two columns: in reading order all of the left one comes first, in the patches' order the top of both does.
    left, right = ([f"{side}{n}" for n in range(100)] for side in ("left", "right"))
    boxes = [(0.5 * (n // 100) + 0.1, n % 100 / 100, 0.5 * (n // 100) + 0.4, n % 100 / 100 + 0.008) for n in range(200)]
    page = page_of([*left, *right], boxes)
    rows, columns = 10, 4
    y, x = np.mgrid[:rows, :columns]
    patches = np.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], axis=2).reshape(-1, 4)
    boxes = np.concatenate([np.full((3, 4), np.nan), patches]).astype("f4")  # the prompt's own words stand nowhere
    vectors = np.tile(np.array([[0.0, 1.0]], "f4"), (len(boxes), 1))
    lit = (patches[:, 0] >= 0.5) & (patches[:, 1] < 0.25)
    vectors[3:][lit] = [1.0, 0.0]  # the top of the right column
    query = np.array([[1.0, 0.0]], "f4")
    for options, rows_of in (({}, None), ({"signs": False}, vectors)):
        payload = describe(page, vectors, TokenGrid(boxes, "patches"), [], **options)
        quoted = highlight(query, payload, FOLDER, rows_of).snippet
        assert "right5" in quoted.split()
        assert "left90" not in quoted.split()
        del payload["words"]
        assert "right5" not in highlight(query, payload, FOLDER, rows_of).snippet.split(), "without places, roughly"


def test_a_word_beside_all_patches_speaks_least():
    patches = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5]], "f4")
    words = np.array([[0.1, 0.1, 0.2, 0.2], [0.4, 0.1, 0.6, 0.2], [0.7, 0.1, 0.8, 0.2], [0.1, 0.8, 0.2, 0.9]], "f4")
    np.testing.assert_allclose(snippets.word_weights(words, patches, np.array([4, 2], "f4")), [4, 3, 2, 2])
    many = np.tile(words, (1500, 1))
    np.testing.assert_allclose(snippets.word_weights(many, patches, np.array([4, 2], "f4")), [4, 3, 2, 2] * 1500)
    assert snippets.word_weights(words, np.zeros((0, 4), "f4"), np.zeros(0, "f4")).tolist() == [0, 0, 0, 0]
