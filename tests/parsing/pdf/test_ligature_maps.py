"""Character maps that lose letters of ligatures are completed from the names of the glyphs (PyMuPDF)."""

from __future__ import annotations

import pytest
from helpers.raw_pdf import LINES, one_page, stream, text_content

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import source_file

CODES = {0x19: "f_f_i", 0x1D: "f_t", 0x1E: "ff", 0x1F: "f_i.alt"}


def cmap(entries: str) -> str:
    return (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        "1 begincodespacerange <00> <FF> endcodespacerange\n1 beginbfrange <20> <7E> <0020> endbfrange\n"
        f"{entries}\nendcmap end end"
    )


def words_of(tmp_path, entries: str, encoding: str | None = None) -> list[str]:
    names = "".join(f"{code}/{name} " for code, name in CODES.items())
    encoding = encoding or f"<</Type/Encoding/BaseEncoding/WinAnsiEncoding/Differences[{names}]>>"
    font = f"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 6 0 R/Encoding {encoding}>>"
    lines = ["the o\x19ce is o\x1den a\x1eable and \x1fnal", *LINES]
    path = one_page(tmp_path / "a.pdf", text_content(lines), objects={5: font, 6: stream(cmap(entries))})
    with open_document(source_file(path), IngestSettings(renderer="pymupdf", ocr="never")) as document:
        page = document.render(1)
    assert page.warnings == ()
    return [word.text for word in page.words[:7]]


LETTERS = ["the", "office", "is", "often", "affable", "and", "final"]


@pytest.mark.parametrize(
    "entries",
    [
        "4 beginbfchar <19> <0069> <1D> <0074> <1E> <0066> <1F> <0069> endbfchar",
        "2 beginbfrange <19><19><0069> <1e><1e><0066> endbfrange 1 beginbfchar <1F> <0069> endbfchar",
        "1 beginbfchar <19> <00660069> endbfchar",  # the other codes are not in the map
        "",
    ],
    ids=["characters", "ranges", "one code", "empty"],
)
def test_lost_letters_are_read(tmp_path, entries):
    assert words_of(tmp_path, entries) == LETTERS


def test_complete_maps_are_unchanged(tmp_path):
    entries = "4 beginbfchar <19> <FB03> <1D> <00660074> <1E> <0058> <1F> <FB01> endbfchar"
    # A glyph named ff that is mapped to another character has this character: the map is no part of the letters.
    assert words_of(tmp_path, entries) == [*LETTERS[:4], "aXable", *LETTERS[5:]]


@pytest.mark.parametrize(
    "encoding",
    [
        "/WinAnsiEncoding",
        "<</Differences[/f_i 99999999999/f_i -1/f_i 31]>>",
        "<</Differences 31>>",
        "<</Differences[31/f_i 8 0 R]>>",
    ],
)
def test_damaged_encodings_cost_no_page(tmp_path, encoding):
    assert words_of(tmp_path, "4 beginbfchar <1> <0> <1F> <0069> endbfchar", encoding)[0] == "the"
