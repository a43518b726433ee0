"""Near-duplicate detection: image alignment, OCR-tolerant text comparison, and search in the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jina_rag.catalog.near_duplicates import image_match
from jina_rag.catalog.near_duplicates.finder import NearDuplicateFinder
from jina_rag.catalog.near_duplicates.page_match import PageContent, is_near_duplicate
from jina_rag.catalog.near_duplicates.text_difference import has_changed_number, normalize_words, unmatched_words
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.types import Page, PageScreenshot, Point, StoreHit, Word


def test_page_content_ignores_image_names_outside_the_folder(tmp_path):
    payload = {schema.IMAGE: "../../etc/passwd", schema.TEXT: ""}
    assert PageContent.of_payload(payload, tmp_path).image is None


def test_point_pairs_align_a_crop_of_uniform_lines():
    image = Image.new("L", (800, 1000), 255)
    draw = ImageDraw.Draw(image)
    for y in range(60, 940, 24):
        for x in range(60, 740, 24):
            draw.rectangle((x, y, x + 12, y + 8), fill=40)
    draw.rectangle((300, 500, 312, 524), fill=0)
    crop_image = image.crop((30, 30, 800, 1000)).resize((794, 1000))
    a, b = (np.asarray(photo, dtype=np.float32) / 255 for photo in (image, crop_image))
    first = np.array([[x, y] for x in (0.2, 0.5, 0.8) for y in (0.2, 0.5, 0.8)], dtype=np.float32)
    second = ((first * [800, 1000] - 30) / [770, 970]).astype(np.float32)
    second[0] = 0.9  # one wrong pair is tolerated
    assert image_match.difference_map(a, b) is None
    assert image_match.difference_map(a, b, (first, second)).max() < 0.05
    assert image_match.difference_map(a, b, (first[:3], second[:3])) is None  # too few pairs


def test_load_returns_none_for_unreadable_images(tmp_path):
    damaged_file = tmp_path / "a.jpg"
    damaged_file.write_bytes(b"\xff\xd8\xff not an image")
    assert image_match.load(damaged_file) is None
    assert image_match.load(tmp_path / "missing.jpg") is None


# Words


@pytest.mark.parametrize(
    ("one", "other", "only_a", "only_b"),
    [
        ("Invoice no. 12", "invoice NO: 12", [], []),
        ("Number plate 7", "Numberplate 7", [], []),
        ("Müller zahlt 450 Euro", "Muller zahlt 45O Euro", [], []),
        ("modern times", "modem times", [], []),
        ("Incomprehensible words", "Incomprehensihle words", [], []),
        ("paid by Maria", "paid by Marta", ["maria"], ["marta"]),
        ("order 4711", "order 4712", ["4711"], ["4712"]),
        ("x ticked", "ticked", [], []),
        ("one two three", "one three", ["two"], []),
        ("東京都 2024", "東京都 2025", ["2024"], ["2025"]),
    ],
)
def test_unmatched_words_ignore_ocr_errors(one, other, only_a, only_b):
    assert unmatched_words(*(list(normalize_words(text.split()).values()) for text in (one, other))) == (only_a, only_b)


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [
        (["4711"], ["4712"], True),
        (["5"], ["8"], True),
        (["bp9378"], ["fp9320"], True),
        (["b10"], ["ss10"], False),
        (["maria"], ["marta"], False),
        (["4711"], [], False),
        (["2019", "left", "right", "up"], ["4733", "down"], False),
    ],
)
def test_has_changed_number(only_a, only_b, expected):
    assert has_changed_number(only_a, only_b) is expected


def test_unrelated_texts_are_not_compared():
    a, b = [f"a{i}x" for i in range(60)], [f"a{i}y" for i in range(60)]
    assert unmatched_words(a, b) == (a, b)
    assert not has_changed_number([f"1{i:03d}" for i in range(60)], [f"2{i:03d}" for i in range(60)])


# Pages of an index


class FakeStore:
    """A store that returns the same hits for every query, and counts the calls."""

    def __init__(self, hits):
        self.hits = hits
        self.calls = []

    def query_batch(self, queries):
        self.calls.append("query_batch")
        return [self.hits[: query.limit] for query in queries]

    def fetch(self, ids, *, vectors):
        self.calls.append("fetch")
        return [Point(hit.id, payload=hit.payload) for hit in self.hits if hit.id in ids]


def make_page(text, number=1):
    words = tuple(Word(word, (0.1, 0.1, 0.2, 0.2)) for word in text.split())
    return Page(
        "a.pdf", Path("a.pdf"), number, 9, PageScreenshot(Image.new("RGB", (80, 100), "white"), 72), words=words
    )


def test_find_returns_the_first_page_of_a_near_duplicate_group(tmp_path):
    text = " ".join(f"word{n}" for n in range(40))
    stored_hit = StoreHit("second", 0.99, {schema.TEXT: text, schema.NEAR: "first", schema.REVISION: "x"})
    dense = np.ones(4, dtype=np.float32) / 2
    finder = NearDuplicateFinder(FakeStore([stored_hit]), ImageFiles(tmp_path))
    pages = [("new", make_page(text), dense), ("newer", make_page(f"{text} again", 2), dense)]
    assert finder.find(pages) == {"new": "first", "newer": "first"}
    assert finder.find(pages, ignore={"x"}) == {"newer": "new"}
    assert finder.find([("first", make_page(text), dense)]) == {}
    assert finder.find([("new", make_page("something else " * 12), dense)]) == {}


def test_pages_without_candidate_cost_one_store_call_and_no_text_comparison(tmp_path, monkeypatch):
    store = FakeStore([StoreHit("far", 0.5, {schema.TEXT: "whales"})])
    monkeypatch.setattr(PageContent, "of_page", lambda page: pytest.fail("the page has no candidate"))
    pages = [(str(n), make_page(f"whales {n}", n), np.eye(4, dtype=np.float32)[n]) for n in range(4)]
    assert NearDuplicateFinder(store, ImageFiles(tmp_path)).find(pages) == {}
    assert store.calls == ["query_batch"]


def test_pages_with_few_words_are_compared_by_image():
    white, grey = (Image.new("RGB", (80, 100), shade) for shade in ("white", "grey"))
    assert is_near_duplicate(PageContent(image=white), PageContent(image=white.resize((160, 200))))
    assert not is_near_duplicate(PageContent(image=white), PageContent(image=grey))
    assert not is_near_duplicate(PageContent(image=white), PageContent())
    assert is_near_duplicate(PageContent(("few", "words")), PageContent(("few", "words")))
