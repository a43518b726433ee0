"""Fonts that map codes to code points that are no characters: the other words of the page are read."""

from __future__ import annotations

import pytest
from helpers.raw_pdf import one_page, stream

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import SourceFile


def mapping(codes):
    """Return a ToUnicode CMap of a font with one byte a character."""
    entries = " ".join(f"<{ord(letter):02X}><{code}>" for letter, code in codes.items())
    return stream(
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap 1 begincodespacerange <00><FF> "
        f"endcodespacerange {len(codes)} beginbfchar {entries} endbfchar endcmap end end"
    )


@pytest.mark.parametrize("renderer", ["pymupdf", "pypdfium2"])
@pytest.mark.parametrize("invalid", ["D800", "DC00", "FDD0", "FFFF", "0000"])
@pytest.mark.parametrize("right_to_left", [False, True])
def test_words_beside_invalid_characters_are_read(tmp_path, renderer, invalid, right_to_left):
    codes = {"A": invalid} | ({"b": "05D0", "c": "05D1"} if right_to_left else {})
    font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 9 0 R>>"
    content = "BT /F1 12 Tf 72 700 Td (hello A world) Tj 0 -30 Td (bc) Tj ET"
    path = one_page(tmp_path / "a.pdf", content, objects={5: font, 9: mapping(codes)})
    source = SourceFile(path, path.parent, path.name, "pdf")
    with open_document(source, IngestSettings(dpi=100, renderer=renderer)) as document:
        page = document.render(1)
    texts = [word.text for word in page.words]
    assert {"hello", "world"} <= set(texts)
    assert sorted(texts[-1]) == (["\u05d0", "\u05d1"] if right_to_left else ["b", "c"])
    assert not any("could not be read" in warning for warning in page.warnings)
