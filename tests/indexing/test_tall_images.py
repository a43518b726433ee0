"""Tall image files in an index and in `load_pages`: one page per slice, counted and updated like the pages of a PDF."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw, ImageFont

from jina_rag import DocumentIndex, load_pages, save_page
from jina_rag.config import IngestSettings
from jina_rag.indexing.page_files import open_page
from jina_rag.testing import FakeEmbedder


@pytest.fixture
def screenshot(tmp_path):
    """Return the path of an image of two slices with one word each, and one word in the overlap."""
    image = Image.new("RGB", (240, 2800), "white")
    draw = ImageDraw.Draw(image)
    for word, top in (("harbour", 20), ("granite", 1385), ("violin", 2700)):
        draw.text((10, top), word, font=ImageFont.load_default(size=32), fill="black")
    (tmp_path / "docs").mkdir()
    image.save(tmp_path / "docs" / "chat.png")
    return tmp_path / "docs" / "chat.png"


def test_ingested_tall_image_has_one_page_per_slice(tmp_path, screenshot):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        assert index.ingest(screenshot.parent, dry_run=True).pages == 2
        report = index.ingest(screenshot.parent)
        assert (report.documents, report.pages, report.failed) == (1, 2, ())
        hit = index.search("violin", k=1)[0]
        assert (hit.doc_id, hit.page, hit.page_count) == ("chat.png", 2, 2)
        assert {hit.page for hit in index.search("granite", k=2)} == {1, 2}
        assert index.ingest(screenshot.parent).unchanged == 1
        assert index.delete("chat.png") == 1
        assert index.info().pages == 0
        assert index.verify() == []


def test_loaded_slices_are_saved_and_added_as_pages(tmp_path, screenshot):
    pages = list(load_pages(screenshot))
    assert [(page.number, page.count, page.text) for page in pages] == [
        (1, 2, "harbour granite"),
        (2, 2, "granite violin"),
    ]
    saved = [open_page(save_page(page, tmp_path / "pages")) for page in pages]
    assert [(page.number, page.count, page.text) for page in saved] == [
        (page.number, page.count, page.text) for page in pages
    ]


def test_max_image_side_decides_about_slices(screenshot):
    (page,) = load_pages(screenshot, settings=IngestSettings(max_image_side=3000))
    assert page.screenshot.image.size == (240, 2800)
    assert page.text == "harbour granite violin"
