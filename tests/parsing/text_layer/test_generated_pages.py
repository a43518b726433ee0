"""A sample of the generated pages of ``benchmarks/garbled.py``: the words after OCR, and no false alarm."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest
from helpers.garbled_pages import garbled_pages, sound_pages

from jina_rag import IngestSettings, load_pages

RENDERERS = ["pymupdf", "pypdfium2"]
STEP = 6
"""One of this many generated pages is tested. The benchmark measures all pages."""


@cache
def wrong_pages():
    return list(garbled_pages())


def page_of(path, content, renderer):
    path.write_bytes(content)
    settings = IngestSettings(renderer=renderer, regions=False, isolate=False)
    return next(iter(load_pages(path, settings=settings)))


def characters(texts):
    return Counter(re.sub(r"\W", "", "".join(texts).casefold()))


@pytest.mark.parametrize("number", range(0, 60, STEP))
def test_words_of_pages_with_a_wrong_layer_are_those_of_the_pixels(tmp_path, number):
    expected = wrong_pages()[number]
    page = page_of(tmp_path / "a.pdf", expected.content, RENDERERS[number // STEP % 2])
    shown, read = characters(expected.words), characters(word.text for word in page.words)
    assert any(word.ocr for word in page.words), expected.name
    assert (shown & read).total() >= 0.98 * max(shown.total(), read.total()), expected.name


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("text", ["code", "part numbers", "formulas", "table of names", "signs", "he", "id"])
def test_sound_pages_stay(tmp_path, text, renderer):
    name, content = next(sound_pages(text))
    page = page_of(tmp_path / "a.pdf", content, renderer)
    assert not any(word.ocr for word in page.words), name
    assert page.warnings == (), name
