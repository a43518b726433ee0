"""Comparison of suspect words with OCR, their replacement, and the warnings."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from helpers.garbled_pages import (
    changed,
    draw_chart,
    draw_page,
    font_named,
    new_document,
    private_use,
    rotated_alphabet,
    shuffled,
    symbols,
)
from helpers.garbled_texts import TEXTS
from helpers.raw_pdf import one_page, stream, text_content

from jina_rag.config import IngestSettings
from jina_rag.errors import MissingDependencyError
from jina_rag.parsing import pages
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.text_layer import reading
from jina_rag.types import Page, Region, SuspectText, Word

LABELS = ("North", "South", "Revenue", "Costs", "Margin", "Profit", "Spring")
YEARS = tuple(str(1990 + 7 * number) for number in range(7))


def read(path, *, content=None, ocr="auto", renderer="pymupdf", isolate=False):
    if content is not None:
        path.write_bytes(content)
    settings = IngestSettings(renderer=renderer, ocr=ocr, isolate=isolate)
    events = list(read_pages([SourceFile(path, path.parent, path.name, "pdf")], settings, prepare=True))
    return next(event for event in events if isinstance(event, Page))


@cache
def chart(labels):
    document = new_document()
    draw_page(document, "\n".join(TEXTS["en"].splitlines()[:3]), font_named("tiro"))
    draw_chart(document, labels, font_named("helv"))
    document.subset_fonts()
    return document.tobytes()


def text_of(labels, mapping):
    return changed(chart(labels), {"Helvetica": mapping})


@pytest.mark.parametrize(
    ("labels", "mapping", "renderer"),
    [
        (LABELS, symbols, "pymupdf"),
        (LABELS, rotated_alphabet(13), "pypdfium2"),
        (LABELS, private_use, "pymupdf"),
        (YEARS, shuffled("0123456789", 5), "pypdfium2"),
    ],
)
def test_words_of_the_wrong_font_are_replaced_in_place(tmp_path, labels, mapping, renderer):
    sound = read(tmp_path / "sound.pdf", content=chart(labels), renderer=renderer)
    page = read(tmp_path / "wrong.pdf", content=text_of(labels, mapping), renderer=renderer)
    assert page.text == sound.text
    assert [word.ocr for word in page.words] == [word.text in labels for word in page.words]
    for word, expected in zip(page.words, sound.words, strict=True):
        assert word.box == pytest.approx(expected.box, abs=0.012)
    assert page.suspects == ()
    (warning,) = page.warnings
    assert "differs from the pixels" in warning
    assert "Helvetica" in warning
    assert len(warning) < 200


def test_words_are_replaced_with_worker_processes(tmp_path):
    page = read(tmp_path / "a.pdf", content=text_of(LABELS, symbols), isolate=True)
    assert page.text.split()[-7:] == list(LABELS)


@pytest.mark.parametrize("renderer", ["pymupdf", "pypdfium2"])
def test_simple_font_whose_map_contradicts_its_glyph_names(tmp_path, renderer):
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = " ".join(f"/{letters[(number + 13) % 26]}" for number in range(26))
    text = " ".join(TEXTS["en"].lower().replace(".", "").replace(",", "").split()[:40])
    mapping = rotated_alphabet(13)
    lines = ["".join(mapping(ord(c)) for c in text)[at : at + 60] for at in range(0, len(text), 60)]
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        "1 begincodespacerange <00> <FF> endcodespacerange\n1 beginbfrange <00> <FF> <0000> endbfrange\n"
        "endcmap end end"
    )
    font = (
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 6 0 R"
        f"/Encoding<</Type/Encoding/Differences[97 {names}]>>>>"
    )
    path = one_page(tmp_path / "a.pdf", text_content(lines), objects={5: font, 6: stream(cmap)})
    page = read(path, renderer=renderer)
    assert " ".join(page.text.split()[:8]) == "the harbour master keeps a log of every"
    assert any("differs from the pixels" in warning for warning in page.warnings)


def test_without_ocr_the_words_stay_and_a_warning_tells_it(tmp_path):
    document = new_document()
    draw_page(document, TEXTS["en"], font_named("tiro"))
    document.subset_fonts()
    page = read(tmp_path / "a.pdf", content=changed(document.tobytes(), {"": rotated_alphabet(13)}), ocr="never")
    assert page.text.startswith("Gur uneobhe")
    (warning,) = page.warnings
    assert "looks wrong" in warning
    assert "--ocr auto" in warning
    assert len(warning) < 200
    assert page.suspects == ()
    assert page.prepared is not None


def page_of(tmp_path, texts, *, is_certain=True, kind="letters"):
    """Return a sound page whose words are suspect, and the page with other texts in its text layer."""
    page = read(tmp_path / "p.pdf", content=chart(LABELS), ocr="never")
    indices = tuple(range(len(page.words)))
    suspect = SuspectText(kind, "F", indices, (), is_certain)
    words = tuple(Word(text, word.box) for text, word in zip(texts or page.text.split(), page.words, strict=True))
    return replace(page, words=words, suspects=(suspect,))


def test_words_that_ocr_confirms_stay_and_the_font_is_not_compared_again(tmp_path, monkeypatch):
    page = page_of(tmp_path, None)
    calls = []
    read_boxes = reading.read_boxes
    monkeypatch.setattr(
        reading, "read_boxes", lambda image, boxes: calls.append(len(boxes)) or read_boxes(image, boxes)
    )
    sound = reading.SoundFonts()
    for _ in range(4):
        checked = reading.replace_wrong_words(page, sound)
        assert checked.words == page.words
        assert checked.warnings == ()
        assert checked.suspects == ()
    assert calls == [2, 2]  # two lines on each of the first two pages


PHONETIC = "/ˈwɔːtə/ /θɪŋk/ /ˈʃʊɡə/ /ˈmɛʒə/ /tʃɜːtʃ/ /dʒʌdʒ/"
SIGNS = "∀x ∈ ∅ ⇒ ∃y ⊆ ∩ ≤ ≥ ≠ ≈ ∞ ∇ → ← ■ ⍳ ⍴"


@pytest.mark.parametrize("renderer", ["pymupdf", "pypdfium2"])
@pytest.mark.parametrize("text", [PHONETIC, SIGNS])
def test_signs_that_ocr_does_not_read_reliably_stay(tmp_path, text, renderer):
    document = new_document()
    draw_page(document, "\n".join([text] * 6), font_named("DejaVuSans"))
    document.subset_fonts()
    page = read(tmp_path / "a.pdf", content=document.tobytes(), renderer=renderer)
    assert page.warnings == ()
    assert not any(word.ocr for word in page.words)


def test_ocr_that_reads_nothing_keeps_the_words(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "read_boxes", lambda image, boxes: [reading.BoxReading()] * len(boxes))
    page = page_of(tmp_path, None)
    checked = reading.replace_wrong_words(page, reading.SoundFonts())
    assert checked.words == page.words
    (warning,) = checked.warnings
    assert "OCR cannot read" in warning
    doubtful = page_of(tmp_path, None, is_certain=False)
    assert reading.replace_wrong_words(doubtful, reading.SoundFonts()).warnings == ()


def test_missing_ocr_package_leaves_a_warning(tmp_path, monkeypatch):
    def fail(image, boxes):
        raise MissingDependencyError("rapidocr is not installed")

    monkeypatch.setattr(reading, "read_boxes", fail)
    (warning,) = reading.replace_wrong_words(page_of(tmp_path, None), reading.SoundFonts()).warnings
    assert "looks wrong" in warning


def test_failed_ocr_keeps_the_page_with_both_warnings(tmp_path, monkeypatch):
    def fail(page, sound_fonts):
        raise ValueError("broken model")

    monkeypatch.setattr(pages, "replace_wrong_words", fail)
    document = new_document()
    draw_page(document, TEXTS["en"], font_named("tiro"))
    document.subset_fonts()
    page = read(tmp_path / "a.pdf", content=changed(document.tobytes(), {"": rotated_alphabet(13)}))
    assert any("OCR failed" in warning for warning in page.warnings)
    assert any("looks wrong" in warning for warning in page.warnings)
    assert page.suspects == ()


def test_caption_of_a_region_gets_the_words_of_ocr(tmp_path):
    texts = read(tmp_path / "p.pdf", content=chart(LABELS), ocr="never").text.split()
    wrong = ["".join(rotated_alphabet(13)(ord(c)) for c in text) for text in texts]
    page = page_of(tmp_path, wrong)
    region = Region("chart", (0.1, 0.6, 0.9, 0.8), caption=" ".join(wrong[1:4]))
    checked = reading.replace_wrong_words(replace(page, regions=(region,)), reading.SoundFonts())
    assert checked.text.split() == texts
    assert "harbour master" in checked.regions[0].caption
