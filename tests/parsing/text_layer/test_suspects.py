"""Search for suspect words without OCR, with the text layers of both renderers."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from helpers.garbled_pages import (
    changed,
    draw_chart,
    draw_page,
    font_named,
    new_document,
    private_use,
    rotated_alphabet,
    saved,
    shifted_codes,
    shuffled,
    sound_pages,
    substitute,
    symbols,
)  # fmt: skip
from helpers.garbled_texts import SAMPLES, TEXTS
from helpers.raw_pdf import one_page, stream
from PIL import Image

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.text_layer import suspects
from jina_rag.parsing.text_layer.suspects import TextRun, count_lost, find_suspects, is_lost
from jina_rag.types import Word

RENDERERS = ["pymupdf", "pypdfium2"]
LABELS = ["North", "South", "Revenue", "Costs", "Margin", "Profit", "Spring"]


def rendered(path, content, renderer):
    path.write_bytes(content)
    source = SourceFile(path, path.parent, path.name, "pdf")
    with open_document(source, IngestSettings(renderer=renderer, regions=False)) as document:
        return document.render(1)


@cache
def sound_chart(labels):
    """Return a page with prose in Times and the labels of a chart in Helvetica."""
    document = new_document()
    draw_page(document, TEXTS["en"] + "\n" + SAMPLES["prose with numbers"], font_named("tiro"))
    draw_chart(document, labels, font_named("helv"))
    document.subset_fonts()
    return document.tobytes()


def page_with_chart(labels, mapping):
    return changed(sound_chart(tuple(labels)), {"Helvetica": mapping})


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize(
    ("kind", "mapping"),
    [
        ("letters", symbols),
        ("letters", rotated_alphabet(13)),
        ("letters", shifted_codes(-29)),
        ("letters", private_use),
        ("digits", shuffled("0123456789", 5)),
    ],
)
def test_only_the_font_with_the_wrong_map_is_suspect(tmp_path, renderer, kind, mapping):
    labels = [str(1990 + 7 * number) for number in range(7)] if kind == "digits" else LABELS
    page = rendered(tmp_path / "a.pdf", page_with_chart(labels, mapping), renderer)
    (suspect,) = page.suspects
    assert suspect.kind == kind
    assert "Helvetica" in suspect.font
    boxes = [page.words[index].box for index in suspect.words] + [lost.box for lost in suspect.lost]
    assert len(boxes) == len(labels)
    assert all(box[1] > 0.7 for box in boxes)  # below the prose


def two_fonts_with_one_name(path, labels, mapping):
    """Write a page with prose and labels in two fonts named Helvetica, one of them with a wrong character map."""
    entries = "\n".join(f"<{code:02x}> <{mapping(code).encode('utf-16-be').hex()}>" for code in range(32, 127))
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        f"1 begincodespacerange <00> <FF> endcodespacerange\n95 beginbfchar\n{entries}\nendbfchar\nendcmap end end"
    )
    words = TEXTS["en"].split()
    content = "".join(
        f"BT /F1 11 Tf 60 {780 - 16 * number} Td ({' '.join(words[10 * number : 10 * number + 10])}) Tj ET\n"
        for number in range(9)
    )
    content += "".join(
        f"BT /F2 9 Tf {60 + 70 * number} 400 Td ({label}) Tj ET\n" for number, label in enumerate(labels)
    )
    font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding"
    objects = {5: font + ">>", 6: font + "/ToUnicode 7 0 R>>", 7: stream(cmap)}
    return one_page(path, content, fonts="/F2 6 0 R", objects=objects).read_bytes()


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("mapping", [symbols, rotated_alphabet(13), shifted_codes(-29)])
def test_fonts_with_one_name_are_told_apart_by_their_character_maps(tmp_path, renderer, mapping):
    content = two_fonts_with_one_name(tmp_path / "raw.pdf", LABELS, mapping)
    page = rendered(tmp_path / "a.pdf", content, renderer)
    (suspect,) = page.suspects
    assert suspect.font == "Helvetica (2)"
    assert len(suspect.words) == len(LABELS)
    sound = rendered(tmp_path / "b.pdf", two_fonts_with_one_name(tmp_path / "raw.pdf", LABELS, chr), renderer)
    assert sound.suspects == ()


@pytest.mark.parametrize("language", ["en", "de", "es", "pl", "fr"])
def test_latin_text_in_cyrillic_letters_is_suspect(language):
    image = Image.new("RGB", (600, 800), "white")
    mapping = substitute("abcdefghijklmnopqrstuvwxyz", "абвгдежзиклмнопрстуфхцчшщы")
    texts = "".join(mapping(ord(c)) for c in TEXTS[language].lower()).split()
    words = [Word(text, (0.1, n / 200, 0.2, (n + 1) / 200)) for n, text in enumerate(texts)]
    (suspect,) = find_suspects(image, words, lambda: [], any_lost=False)
    assert not suspect.is_certain


def test_fonts_of_more_words_than_are_compared_at_a_time(monkeypatch):
    texts = "".join(rotated_alphabet(13)(ord(c)) for c in TEXTS["en"]).split()
    words = [Word(text, (0.1, n / 200, 0.2, (n + 0.9) / 200)) for n, text in enumerate(texts)]
    runs = [TextRun(f"F{n % 2}", (0.1, n / 200, 0.2, (n + 0.9) / 200), 0, 5) for n in range(len(words))]
    image = Image.new("RGB", (600, 800), "white")
    expected = find_suspects(image, words, lambda: runs, any_lost=False)
    assert {index for suspect in expected for index in suspect.words} == set(range(len(words)))
    assert all(index % 2 == int(suspect.font[1:]) for suspect in expected for index in suspect.words)
    monkeypatch.setattr(suspects, "_MAX_PAIRS", 3 * len(runs))
    assert find_suspects(image, words, lambda: runs, any_lost=False) == expected


def test_letters_without_an_entry_in_the_map_that_have_the_codes_of_spaces(tmp_path):
    # PDFium returns the codes 2, 9, 10 and 13 of such a font, which are no hyphens and spaces.
    names = " ".join(f"/shape{number}" for number in range(1, 15))
    procs = "".join(f"/shape{number} 7 0 R" for number in range(1, 15))
    font = (
        f"<</Type/Font/Subtype/Type3/FontBBox[0 0 600 700]/FontMatrix[.001 0 0 .001 0 0]/CharProcs<<{procs}>>"
        f"/Encoding<</Type/Encoding/Differences[1 {names}]>>/FirstChar 1/LastChar 14/Widths[{'600 ' * 14}]>>"
    )
    line = "".join(f"{code:02x}" for code in (5, 9, 6, 10, 7, 13, 8, 2, 11, 12, 14, 9, 4))
    content = "".join(f"BT /F2 12 Tf 72 {700 - 20 * number} Td <{line}> Tj ET\n" for number in range(3))
    shape = stream("600 0 0 0 500 700 d1 0 0 500 700 re f")
    path = one_page(tmp_path / "raw.pdf", content, fonts="/F2 6 0 R", objects={6: font, 7: shape})
    page = rendered(tmp_path / "a.pdf", path.read_bytes(), "pypdfium2")
    (suspect,) = page.suspects
    assert len(suspect.lost) == 3  # one per line
    assert all(lost.box[2] - lost.box[0] == pytest.approx(13 * 7.2 / 612, abs=0.005) for lost in suspect.lost)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_sound_page_has_no_suspects(tmp_path, renderer):
    assert rendered(tmp_path / "a.pdf", page_with_chart(LABELS, chr), renderer).suspects == ()


@pytest.mark.parametrize("name", ["numbers", "bibliography", "fi", "vi", "ru", "he", "ja"])
def test_sound_pages_of_many_kinds_have_no_suspects(tmp_path, name):
    content = next(content for title, content in sound_pages(name))
    assert rendered(tmp_path / "a.pdf", content, "pymupdf").suspects == ()


def test_position_of_lost_text_is_that_of_the_reading_order(tmp_path):
    document = new_document()
    draw_page(document, "First line of the page\n", font_named("tiro"), top=72)
    draw_page(document, "Lost line of the page\n", font_named("helv"), top=100)
    draw_page(document, TEXTS["en"], font_named("tiro"), top=130)
    page = rendered(tmp_path / "a.pdf", saved(document, {"Helvetica": private_use}), "pymupdf")
    (suspect,) = page.suspects
    assert suspect.words == ()
    assert {lost.position for lost in suspect.lost} == {5}


def test_fonts_are_read_only_if_words_are_implausible():
    image = Image.new("RGB", (600, 800), "white")
    words = [Word(text, (0.1, n / 100, 0.2, (n + 1) / 100)) for n, text in enumerate(TEXTS["de"].split())]

    def read_runs():
        raise AssertionError("the fonts were read")

    assert find_suspects(image, words, read_runs, any_lost=False) == ()
    assert find_suspects(image, (), read_runs, any_lost=False) == ()


def test_words_without_a_font_are_judged_together():
    image = Image.new("RGB", (600, 800), "white")
    texts = "".join(rotated_alphabet(13)(ord(c)) for c in TEXTS["en"]).split()
    words = [Word(text, (0.1, n / 200, 0.2, (n + 1) / 200)) for n, text in enumerate(texts)]
    (suspect,) = find_suspects(image, words, lambda: [TextRun("F", (0.9, 0.9, 1.0, 1.0), 0, 1)], any_lost=False)
    assert suspect.font == ""
    assert suspect.words == tuple(range(len(words)))
    assert suspect.is_certain


@pytest.mark.parametrize(
    ("character", "expected"),
    [("\x03", True), ("\ue000", True), ("\ufffd", True), ("\x85", True), ("a", False), ("\u200c", False), ("א", False)],
)
def test_is_lost(character, expected):
    assert is_lost(ord(character)) is expected
    assert count_lost(["word", f"x{character}"]) == int(expected)


def test_count_lost_of_lone_surrogates():
    assert count_lost(["\ud800", ""]) == 1
    assert not np.isnan(count_lost([]))
