"""Layout functions with arbitrary shapes and words: no error, and boxes inside the page."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jina_rag.parsing.layout.regions import Shapes, find_regions
from jina_rag.parsing.layout.scan_regions import find_regions_in_pixels
from jina_rag.parsing.layout.text_lines import text_lines
from jina_rag.types import Word

SIDES = st.sampled_from([612.0, 792.0, 1.0, 0.01, 40.0, 14_400.0])
TEXTS = st.sampled_from(["Figure", "1", "Table", "2:", "river", "12.5", "", "図1", "."])


@st.composite
def boxes(draw, width=1.0, height=1.0):
    x, y = draw(st.floats(0, width)), draw(st.floats(0, height))
    wide = draw(st.one_of(st.just(0.5), st.floats(0, 3), st.floats(0, width)))
    high = draw(st.one_of(st.just(0.5), st.floats(0, 5), st.floats(0, height)))
    return x, y, min(x + wide, width), min(y + high, height)


@st.composite
def pages(draw):
    width, height = draw(SIDES), draw(SIDES)
    drawings = draw(st.lists(boxes(width, height), max_size=12))
    images = draw(st.lists(boxes(width, height), max_size=4))
    words = [Word(text, box) for text, box in draw(st.lists(st.tuples(TEXTS, boxes()), max_size=8))]
    curved = np.zeros(len(drawings), bool)
    return Shapes(width, height, tuple(images), np.array(drawings, np.float32).reshape(-1, 4), curved), words


def check(regions):
    for region in regions:
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 <= x1 <= 1
        assert 0 <= y0 <= y1 <= 1


@settings(max_examples=60, deadline=None)
@given(pages(), st.booleans())
def test_arbitrary_shapes_and_words_give_regions_inside_the_page(page, text_page):
    shapes, words = page
    check(find_regions(shapes, text_lines(words, shapes.width, shapes.height), text_page=text_page))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.binary(max_size=60), st.lists(boxes(), max_size=6))
def test_arbitrary_pixels_give_regions_inside_the_page(width, height, marks, words):
    image = Image.new("L", (width, height), 255)
    for x, y, value in zip(marks[::3], marks[1::3], marks[2::3], strict=False):
        image.putpixel((x % width, y % height), value)
    check(find_regions_in_pixels(image.convert("RGB"), [Word("7", box) for box in words]))


def test_two_specks_near_each_other_are_no_region():
    specks = ((403.3, 176.8, 403.78, 179.9), (404.39, 173.5, 404.87, 177.0))
    assert find_regions(Shapes(612, 792, specks), []) == ()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_shape_without_finite_box_is_ignored(value):
    drawings = np.array([(10, 10, value, 20), (100, 100, 300, 300)], np.float32)
    found = find_regions(Shapes(612, 792, (), drawings, np.array([True, True])), [])
    assert [region.kind for region in found] == ["figure"]


def test_a_page_of_kilometers_needs_little_memory():
    drawings = np.array([(0, 0, 200_000, 200_000), (400_000, 400_000, 600_000, 700_000)], np.float32)
    check(find_regions(Shapes(1e6, 1e6, (), drawings, np.array([True, True])), []))
