"""The reading of an image ends between two passes of a network where nobody waits for it."""

from __future__ import annotations

import threading

import pytest
from PIL import Image, ImageDraw

from jina_rag.config import IngestSettings
from jina_rag.ocr import read_words
from jina_rag.ocr.interruption import check_interruption, checked_by
from jina_rag.parsing import pages
from jina_rag.parsing.sources import source_file


class Ended(Exception):
    pass


def picture():
    image = Image.new("RGB", (600, 200), "white")
    for line in range(4):
        ImageDraw.Draw(image).text(
            (20, 20 + 40 * line), f"whales sing in the deep sea {line}", fill="black", font_size=24
        )
    return image


def test_the_check_is_called_before_each_pass_and_only_within():
    calls = []
    with checked_by(lambda: calls.append(1)):
        words = read_words(picture())
    assert "whales" in {word.text for word in words}
    assert len(calls) > 4, "one to find the lines, one for each of them"
    before = len(calls)

    def end():
        calls.append(1)
        raise Ended

    with checked_by(end), pytest.raises(Ended):
        read_words(picture())
    assert len(calls) == before + 1
    assert read_words(picture())


def test_closing_the_stream_ends_the_reading_of_a_page(tmp_path, monkeypatch):
    picture().save(tmp_path / "a.png")
    reading = threading.Event()

    def endless(*args, **options):
        while True:
            reading.set()
            check_interruption()

    monkeypatch.setattr(pages, "read_areas", endless)

    def check():
        if reading.is_set():
            raise Ended

    events = pages.read_pages(
        [source_file(tmp_path / "a.png")], IngestSettings(ocr="always", isolate=False), check=check
    )
    with pytest.raises(Ended):
        list(events)
