"""Digits of the text layer compared with the pixels of the page."""

from __future__ import annotations

import pymupdf
import pytest
from helpers.garbled_pages import font_named
from PIL import Image

from jina_rag.parsing.text_layer.digits import digit_probabilities, is_number
from jina_rag.types import Word

TEXT = "1029384756 60718293 5544 8888 1111 0001 97 34 20 9876 5432"
FONTS = ["helv", "hebo", "tiro", "tiit", "cour", "DejaVuSans", "DejaVuSerif-Bold", "STIXGeneral"]


def numbers(font, size, *, color=0.0, background=None, rule=False):
    """Return the screenshot of numbers at 150 dpi, and the words that can be compared."""
    with pymupdf.open() as document:
        page = document.new_page(width=500, height=60)
        if background is not None:
            page.draw_rect(page.rect, color=None, fill=[background] * 3)
        if rule:
            page.draw_line((10, 41 - size), (490, 41 - size))
            page.draw_line((10, 43), (490, 43))
        writer = pymupdf.TextWriter(page.rect)
        writer.append((20, 40), TEXT, font=font_named(font), fontsize=size)
        writer.write_text(page, color=[color] * 3)
        pixmap = page.get_pixmap(dpi=150)
        image = Image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)
        words = [Word(w[4], (w[0] / 500, w[1] / 60, w[2] / 500, w[3] / 60)) for w in page.get_text("words")]
    return image, [word for word in words if is_number(word.text)]


def accuracy(image, words):
    owners, probabilities = digit_probabilities(image, words)
    legible = sorted(set(owners.tolist()))
    shown = "".join(words[index].text for index in legible)
    assert len(shown) == len(probabilities)
    best = probabilities.argmax(axis=1).tolist()
    return len(legible), sum(int(a) == b for a, b in zip(shown, best, strict=True)) / len(best)


@pytest.mark.parametrize("font", FONTS)
def test_digits_of_many_fonts_are_recognized(font):
    legible, share = accuracy(*numbers(font, 10))
    assert legible >= 8
    assert share >= 0.95


@pytest.mark.parametrize("arguments", [{"color": 1.0, "background": 0.1}, {"background": 0.8}, {"rule": True}])
def test_digits_on_other_backgrounds_and_between_rules(arguments):
    legible, share = accuracy(*numbers("helv", 11, **arguments))
    assert legible >= 8
    assert share >= 0.95


def test_small_digits_are_not_compared():
    assert digit_probabilities(*numbers("helv", 2))[1].shape == (0, 10)


def test_empty_boxes_and_boxes_outside_the_page():
    image = Image.new("RGB", (50, 50), "white")
    boxes = [(0.2, 0.2, 0.5, 0.5), (0.9, 0.9, 1.0, 1.0), (0.5, 0.5, 0.5, 0.5), (0.0, 0.0, 1.0, 1.0)]
    owners, probabilities = digit_probabilities(image, [Word("123", box) for box in boxes])
    assert len(owners) == len(probabilities) == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("12", True), ("1", False), ("12.5", False), ("٣٤", False), ("²³", False)]
)
def test_is_number(text, expected):
    assert is_number(text) is expected
