"""Glyphs of several letters in right-to-left text: the letters are in the order of reading with both renderers."""

from __future__ import annotations

import pytest
from helpers.raw_pdf import one_page, stream

from jina_rag import load_pages
from jina_rag.config import IngestSettings

LETTERS = {"a": "ت", "b": "ا", "c": "و", "d": "د", "f": "ب", "g": "ل", "h": "م"}
# Glyphs of each word in the order of reading; e is lam-alef, i is a glyph of three letters.
WORDS = {
    "bedcba": "الأدوات",
    "gedcba": "للأدوات",
    "begh": "الألم",
    "gbhfe": "لامبلأ",
    "be": "الأ",
    "bga": "الت",
    "ci": "والله",
}


def arabic_page(path, content, lam_alef="لأ"):
    letters = {**LETTERS, "e": lam_alef, "i": "الله"}
    codes = "".join(f"<{ord(code):02x}> <{text.encode('utf-16-be').hex()}>\n" for code, text in letters.items())
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        f"1 begincodespacerange <00> <FF> endcodespacerange\n{len(letters)} beginbfchar\n{codes}endbfchar\n"
        "endcmap end end"
    )
    font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 6 0 R>>"
    return one_page(path, content, objects={5: font, 6: stream(cmap)})


def left_to_right(word, y):
    return f"BT /F1 24 Tf 72 {y} Td ({word[::-1]}) Tj ET\n"


def right_to_left(word, y):
    positions = [(400 - 14 * number, code) for number, code in enumerate(word)]
    return "".join(f"BT /F1 24 Tf {x} {y} Td ({code}) Tj ET\n" for x, code in positions)


def words_of(path, renderer):
    [page] = load_pages(path, settings=IngestSettings(renderer=renderer, ocr="never", isolate=False))
    return [word.text for word in page.words]


@pytest.mark.parametrize("renderer", ["pymupdf", "pypdfium2"])
@pytest.mark.parametrize("lam_alef", ["لأ", "أل"])
def test_letters_of_a_glyph_are_in_the_order_of_reading(tmp_path, renderer, lam_alef):
    content = "".join(left_to_right(word, 700 - 40 * number) for number, word in enumerate(WORDS))
    for name, turn in (("upright", ""), ("turned", "0 1 -1 0 900 0 cm\n")):
        path = arabic_page(tmp_path / f"{name}.pdf", f"q {turn}{content}Q\n", lam_alef)
        assert words_of(path, renderer) == list(WORDS.values()), name


@pytest.mark.parametrize("renderer", ["pymupdf", "pypdfium2"])
def test_text_drawn_in_the_order_of_reading_stays_as_it_is(tmp_path, renderer):
    content = "".join(right_to_left(word, 700 - 40 * number) for number, word in enumerate(WORDS))
    text = "".join(words_of(arabic_page(tmp_path / "a.pdf", content), renderer))
    assert text == "".join(WORDS.values())
