"""Division of tall and wide images into slices: which images are divided, and the boxes of the slices."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jina_rag.config import IngestSettings, Limits
from jina_rag.parsing.slices import OVERLAP, is_elongated, scaled_size, slice_boxes, slice_count, slice_scale

DEFAULT = IngestSettings()


@pytest.mark.parametrize(
    ("size", "elongated"),
    [
        ((1080, 16_000), True),
        ((16_000, 1080), True),
        ((200, 2501), True),
        ((199, 2501), False),  # a strip without room for text
        ((833, 2500), False),  # within max_image_side
        ((834, 2502), False),  # exactly 3 times as long
        ((834, 2503), True),
        ((4000, 3000), False),
    ],
)
def test_only_long_images_are_divided(size, elongated):
    assert is_elongated(*size, DEFAULT) == elongated
    assert (slice_count(*size, DEFAULT) > 1) == elongated


def test_long_screenshot_is_divided_into_sheets_at_full_size():
    assert slice_scale(1080, 16_000, DEFAULT) == 1
    boxes = slice_boxes(1080, 16_000, DEFAULT)
    assert len(boxes) == 12
    assert {(left, right) for left, _, right, _ in boxes} == {(0, 1080)}
    assert all(1.3 < (bottom - top) / 1080 < 1.5 for _, top, _, bottom in boxes)
    # Wide images are divided in the same way, from left to right.
    assert slice_boxes(16_000, 1080, DEFAULT) == [(top, left, bottom, right) for left, top, right, bottom in boxes]


def test_narrow_images_are_not_cut_into_tiny_slices():
    assert len(slice_boxes(200, 6000, DEFAULT)) == 3


@given(
    short=st.integers(200, 9000),
    aspect=st.floats(3.001, 100),
    max_side=st.integers(100, 4000),
    max_pixels=st.integers(10_000, 30_000_000),
)
@settings(max_examples=60, deadline=None)
def test_slices_cover_the_image_within_the_limits(short, aspect, max_side, max_pixels):
    settings = IngestSettings(max_image_side=max_side, limits=Limits(max_render_pixels=max_pixels))
    long = int(short * aspect) + 1
    assume(is_elongated(short, long, settings))
    width, height = scaled_size(short, long, slice_scale(short, long, settings))
    boxes = slice_boxes(width, height, settings)
    assert len(boxes) == slice_count(short, long, settings) == slice_count(long, short, settings)
    assert (boxes[0][1], boxes[-1][3]) == (0, height)
    length = boxes[0][3] - boxes[0][1]
    assert max(width, length) <= max_side
    assert width * length <= max_pixels
    for (_, top, _, bottom), (_, next_top, _, next_bottom) in itertools.pairwise(boxes):
        assert bottom - top == next_bottom - next_top == length
        assert top < next_top <= bottom
        # Equal lengths round the overlap; the lengths of tiny slices are rounded most.
        assert abs((bottom - next_top) - OVERLAP * length) <= 2
