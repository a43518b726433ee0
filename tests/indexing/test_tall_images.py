"""Tall image files in an index and in `load_pages`: one page per slice, counted and updated like the pages of a PDF."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw, ImageFont

from jina_rag import DocumentIndex, load_pages, save_page
from jina_rag.config import IngestSettings
from jina_rag.indexing.page_files import open_page
from jina_rag.parsing.slices import slice_boxes
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


def test_citation_is_the_place_of_the_text_on_its_slice(tmp_path, screenshot):
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.ingest(screenshot.parent)
        hit = index.search("Where is the violin?", k=1)[0]
        citation = index.cite("Where is the violin?", hit)
    assert (citation.page, citation.text) == (2, "violin")
    left, top, right, bottom = slice_boxes(240, 2800, IngestSettings())[1]
    x0, y0, x1, y1 = citation.box
    assert left <= left + x0 * (right - left) < 14  # a citation has a margin
    assert 2660 < top + y0 * (bottom - top) < 2710 < 2725 < top + y1 * (bottom - top) < 2780
    assert x1 < 0.7
    with Image.open(citation.image_path) as image:
        assert image.size == (right - left, bottom - top)


def test_sync_deletes_all_slices_of_a_removed_image(tmp_path, screenshot):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(screenshot.parent)
        screenshot.unlink()
        Image.new("RGB", (60, 40), "white").save(screenshot.with_name("other.png"))
        assert index.ingest(screenshot.parent, sync=True).removed == 1
        assert index.info().pages == 1
        assert index.verify() == []


def test_shorter_image_in_the_same_file_has_fewer_pages(tmp_path, screenshot):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(screenshot.parent)
        with Image.open(screenshot) as image:
            image.crop((0, 0, 240, 600)).save(screenshot)
        index.ingest(screenshot.parent)
        assert [(hit.page, hit.page_count, hit.text) for hit in index.search("violin harbour", k=5)] == [
            (1, 1, "harbour")
        ]
        assert index.verify() == []


def test_adjacent_slices_are_no_near_duplicates(tmp_path, screenshot):
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.ingest(screenshot.parent)
        hits = index.search("granite", k=5)
    assert {hit.page: hit.near_duplicate_of for hit in hits} == {1: None, 2: None}


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
