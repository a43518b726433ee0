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
    symbols,
)  # fmt: skip
from helpers.garbled_texts import SAMPLES, TEXTS
from PIL import Image

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import SourceFile
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
