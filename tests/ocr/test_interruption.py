"""Cancellation of OCR: the check runs before each forward pass, and an exception from the check cancels OCR."""

from __future__ import annotations

import threading

import pytest
from PIL import Image, ImageDraw

from jina_rag.config import IngestSettings
from jina_rag.ocr import read_words
from jina_rag.ocr.interruption import check_interruption, interruptible
from jina_rag.parsing import pages
from jina_rag.parsing.sources import source_file


class Cancelled(Exception):
    pass


def text_image():
    image = Image.new("RGB", (600, 200), "white")
    for line in range(4):
        ImageDraw.Draw(image).text(
            (20, 20 + 40 * line), f"whales sing in the deep sea {line}", fill="black", font_size=24
        )
    return image


def test_check_is_called_before_each_forward_pass():
    calls = []
    with interruptible(lambda: calls.append(1)):
        words = read_words(text_image())
    assert "whales" in {word.text for word in words}
    assert len(calls) > 4, "one call for detection, one for each line"
    calls_before = len(calls)

    def cancel():
        calls.append(1)
        raise Cancelled

    with interruptible(cancel), pytest.raises(Cancelled):
        read_words(text_image())
    assert len(calls) == calls_before + 1
    assert read_words(text_image())


def test_check_cancels_ocr_of_a_page(tmp_path, monkeypatch):
    text_image().save(tmp_path / "a.png")
    reading = threading.Event()

    def read_until_cancelled(*args, **options):
        while True:
            reading.set()
            check_interruption()

    monkeypatch.setattr(pages, "read_areas", read_until_cancelled)

    def check():
        if reading.is_set():
            raise Cancelled

    events = pages.read_pages(
        [source_file(tmp_path / "a.png")], IngestSettings(ocr="always", isolate=False), check=check
    )
    with pytest.raises(Cancelled):
        list(events)
