"""Pages whose contents cannot be read in part: the page is kept, with a warning."""

from __future__ import annotations

import pytest
from helpers.raw_pdf import one_page

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.pdf import base, pdfium_renderer, pymupdf_renderer
from jina_rag.parsing.sources import SourceFile

MODULES = {"pymupdf": pymupdf_renderer, "pypdfium2": pdfium_renderer}


def render(path, renderer):
    source = SourceFile(path, path.parent, path.name, "pdf")
    with open_document(source, IngestSettings(dpi=72, renderer=renderer)) as document:
        return document.render(1)


def fail(*_, **__):
    raise ValueError("zero-size array to reduction operation maximum which has no identity")


@pytest.mark.parametrize("renderer", MODULES)
def test_a_failed_region_detection_costs_only_the_regions(tmp_path, monkeypatch, renderer):
    monkeypatch.setattr(base, "find_regions", fail)
    page = render(one_page(tmp_path / "a.pdf"), renderer)
    assert "rivers." in page.text
    assert not page.regions
    assert page.warnings[0].startswith(
        "The charts, tables and figures of the page could not be read (ValueError: zero-"
    )


@pytest.mark.parametrize("renderer", MODULES)
def test_failed_words_cost_only_the_words(tmp_path, monkeypatch, renderer):
    monkeypatch.setattr(MODULES[renderer], "clean_words", fail)
    page = render(one_page(tmp_path / "a.pdf"), renderer)
    assert page.words == ()
    assert page.screenshot.image.convert("L").getextrema()[0] < 100
    assert [warning[:39] for warning in page.warnings] == ["The words of the page could not be read"]


@pytest.mark.parametrize(
    ("renderer", "function"), [("pymupdf", "find_drawings"), ("pymupdf", "clip_to_page"), ("pypdfium2", "read_shapes")]
)
def test_failed_shapes_cost_only_the_shapes(tmp_path, monkeypatch, renderer, function):
    picture = "/Type/XObject/Subtype/Image/Width 1/Height 1/BitsPerComponent 8/ColorSpace/DeviceGray"
    path = one_page(
        tmp_path / "a.pdf",
        "q 300 0 0 300 100 100 cm /I Do Q BT /F1 12 Tf 72 720 Td (words) Tj ET",
        resources="/XObject<</I 10 0 R>>",
        objects={10: f"<<{picture}/Length 1>>\nstream\n0\nendstream"},
    )
    monkeypatch.setattr(MODULES[renderer], function, fail)
    page = render(path, renderer)
    assert page.text.split() == ["words"]
    assert len(page.warnings) == 1
    assert "could not be read" in page.warnings[0]


def test_memory_that_is_exhausted_still_fails_the_page(tmp_path, monkeypatch):
    def exhaust(*_, **__):
        raise MemoryError

    monkeypatch.setattr(base, "find_regions", exhaust)
    with pytest.raises((MemoryError, DocumentError)):
        render(one_page(tmp_path / "a.pdf"), "pypdfium2")


@pytest.mark.parametrize("renderer", MODULES)
def test_two_specks_do_not_cost_the_page(tmp_path, renderer):
    picture = "/Type/XObject/Subtype/Image/Width 1/Height 1/BitsPerComponent 8/ColorSpace/DeviceGray"
    path = one_page(
        tmp_path / "a.pdf",
        "q .48 0 0 3.1 403.3 176.8 cm /I Do Q q .48 0 0 3.5 404.39 173.5 cm /I Do Q "
        "BT /F1 12 Tf 72 720 Td (words) Tj ET",
        resources="/XObject<</I 10 0 R>>",
        objects={10: f"<<{picture}/Length 1>>\nstream\n0\nendstream"},
    )
    page = render(path, renderer)
    assert (page.text.split(), page.warnings) == (["words"], ())
