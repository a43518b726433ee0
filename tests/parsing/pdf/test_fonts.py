"""Fonts that are not embedded: text that is not drawn, or whose characters are guessed, is a warning."""

from __future__ import annotations

import ctypes
import multiprocessing

import pytest
from helpers.raw_pdf import one_page

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import SourceFile

CHINESE = "河流和桥梁"


def with_font(path, ordering, encoding, codes, *, content="", extra="", objects=None):
    descriptor = "/Flags 4/FontBBox[0 -200 1000 900]/ItalicAngle 0/Ascent 900/Descent -200/CapHeight 700/StemV 80"
    system = f"/CIDSystemInfo<</Registry(Adobe)/Ordering({ordering})/Supplement 0>>"
    font = {
        10: f"<</Type/Font/Subtype/Type0/BaseFont/SimSun/Encoding/{encoding}/DescendantFonts[11 0 R]{extra}>>",
        11: f"<</Type/Font/Subtype/CIDFontType2/BaseFont/SimSun{system}/DW 1000/FontDescriptor 12 0 R>>",
        12: f"<</Type/FontDescriptor/FontName/SimSun{descriptor}>>",
        **(objects or {}),
    }
    return one_page(path, f"{content} BT /F2 14 Tf 72 700 Td <{codes}> Tj ET", fonts="/F2 10 0 R", objects=font)


def warnings_of(path, renderer):
    source = SourceFile(path, path.parent, path.name, "pdf")
    with open_document(source, IngestSettings(dpi=72, renderer=renderer)) as document:
        return document.render(1).warnings


def chinese(path, content=""):
    codes = CHINESE.encode("utf-16-be").hex()
    return with_font(path, "GB1", "UniGB-UCS2-H", codes, content=content)


def warnings_without_system_fonts(path):
    """Return the warnings of PDFium in a process whose only folder of fonts is empty."""
    import pypdfium2.raw as raw

    raw.FPDF_DestroyLibrary()
    folders = (ctypes.c_char_p * 2)(bytes(path.parent / "fonts"), None)
    config = raw.FPDF_LIBRARY_CONFIG(version=2)
    config.m_pUserFontPaths = ctypes.cast(folders, type(config.m_pUserFontPaths))
    raw.FPDF_InitLibraryWithConfig(config)
    return warnings_of(path, "pypdfium2")


def test_text_of_a_font_that_pdfium_cannot_replace_is_a_warning(tmp_path):
    path = chinese(tmp_path / "a.pdf", "BT /F1 12 Tf 72 600 Td (Latin words) Tj ET")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        warnings = pool.apply(warnings_without_system_fonts, [path])
    assert warnings == (
        'The font "SimSun" is not embedded, and its text is not drawn. Another renderer is installed: '
        'renderer="pymupdf" (--renderer pymupdf).',
    )
    assert all(len(warning) < 200 for warning in warnings)


def test_text_is_drawn_or_a_warning_with_the_fonts_of_any_system(tmp_path):
    source = SourceFile(chinese(tmp_path / "a.pdf"), tmp_path, "a.pdf", "pdf")
    with open_document(source, IngestSettings(dpi=72, renderer="pypdfium2")) as document:
        page = document.render(1)
    is_drawn = page.screenshot.image.convert("L").getextrema() != (255, 255)
    assert bool(page.words) == is_drawn
    assert any("SimSun" in warning for warning in page.warnings) != is_drawn


def test_a_font_that_the_renderer_replaces_is_no_warning(tmp_path):
    assert warnings_of(chinese(tmp_path / "a.pdf"), "pymupdf") == ()
    assert warnings_of(one_page(tmp_path / "b.pdf"), "pymupdf") == ()
    assert warnings_of(one_page(tmp_path / "b.pdf"), "pypdfium2") == ()


def test_spaces_and_invisible_text_are_no_warning(tmp_path):
    path = one_page(tmp_path / "a.pdf", "BT /F1 12 Tf 72 700 Td (   ) Tj 3 Tr (hidden) Tj ET 0 0 50 50 re f")
    assert warnings_of(path, "pypdfium2") == ()


@pytest.mark.parametrize(
    ("extra", "objects", "count"),
    [
        ("", {}, 1),
        ("/ToUnicode 13 0 R", {13: "<</Length 4>>\nstream\nnone\nendstream"}, 0),
        ("", {12: "<</Type/FontDescriptor/FontFile2 13 0 R>>", 13: "<</Length 4>>\nstream\nnone\nendstream"}, 0),
    ],
)
def test_glyph_numbers_without_a_font_file_are_a_warning(tmp_path, extra, objects, count):
    path = with_font(tmp_path / "a.pdf", "Identity", "Identity-H", "00240025", extra=extra, objects=objects)
    warnings = [warning for warning in warnings_of(path, "pymupdf") if warning.startswith('The font "SimSun" is not')]
    assert len(warnings) == count
