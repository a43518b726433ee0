"""Right-to-left text: letters of one glyph and Arabic digits are in the order of reading with both renderers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from helpers.raw_pdf import one_page, stream

from jina_rag import load_pages
from jina_rag.config import IngestSettings

LETTERS = {"a": "ت", "b": "ا", "c": "و", "d": "د", "f": "ب", "g": "ل", "h": "م"}
WIDTHS = dict.fromkeys("abdegh", 556) | {"c": 500, "f": 278, "i": 222, " ": 278}  # of Helvetica
SAME = {letter: letter for letter in " KXB-:/.,"}
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


def arabic_page(path, content, lam_alef="لأ", more=None):
    letters = {**LETTERS, "e": lam_alef, "i": "الله", **(more or {})}
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


def right_to_left_in_one_command(text, y):
    """Return a drawing command that moves back before each letter, to the left of the previous letter."""
    moves = [WIDTHS[code] + WIDTHS[following] for code, following in pairwise(text)]
    letters = "".join(f"({code}){move}" for code, move in zip(text, [*moves, 0], strict=True))
    return f"BT /F1 24 Tf 400 {y} Td [{letters}] TJ ET\n"


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


@pytest.mark.parametrize("renderer", ["pymupdf", "pypdfium2"])
def test_text_drawn_from_right_to_left_in_one_command(tmp_path, renderer):
    lines = [*WORDS, "bedcba dchb"]
    content = "".join(right_to_left_in_one_command(word, 700 - 40 * number) for number, word in enumerate(lines))
    content += "BT /F1 24 Tf 72 300 Td (KX bcdcb 4) Tj ET\n"
    expected = [*WORDS.values(), "الأدوات", "دوما", "KX", "اودوا", "4"]
    for name, turn in (("upright", ""), ("turned", "0 1 -1 0 900 0 cm\n")):
        path = arabic_page(tmp_path / f"{name}.pdf", f"q {turn}{content}Q\n", more={**SAME, "4": "4"})
        assert words_of(path, renderer) == expected, name


@pytest.mark.parametrize("renderer", ["pymupdf", "pypdfium2"])
@pytest.mark.parametrize("zero", ["\u0660", "\u06f0", "\u0966", "\uff10"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("KX-4471-B: 4471", ["KX-4471-B:", "4471"]),
        ("12/05/2024 1,250.75 7", ["12/05/2024", "1,250.75", "7"]),
        ("KX 4471 bcb", ["KX", "4471", "اوا"]),
    ],
)
def test_digits_of_other_scripts_are_in_order_and_parts_of_their_word(tmp_path, renderer, zero, content, words):
    digits = {str(digit): chr(ord(zero) + digit) for digit in range(10)}
    translation = str.maketrans(digits)
    drawn = f"BT /F1 24 Tf 72 600 Td ({content}) Tj ET\n"
    for name, turn in (("upright", ""), ("turned", "0 1 -1 0 900 0 cm\n")):
        path = arabic_page(tmp_path / f"{name}.pdf", f"q {turn}{drawn}Q\n", more={**SAME, **digits})
        # The order of the words depends on the direction of the line, which a PDF does not tell.
        assert sorted(words_of(path, renderer)) == sorted(word.translate(translation) for word in words), name
