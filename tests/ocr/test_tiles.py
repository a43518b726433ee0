"""Tiles of long images: lines across a seam are returned once and complete."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from jina_rag.ocr import read_words
from jina_rag.ocr.tiles import merge_tiles, tiles_of


def box(x0, y0, x1, y1):
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)


def same_lines(quads, lines):
    """Return whether each line has exactly one outline, with corners at most 1.5 pixels away."""
    distances = np.abs(np.array(quads)[:, None] - np.array(lines)[None]).max(axis=(2, 3))
    return len(quads) == len(lines) and (distances.min(axis=0) <= 1.5).all()


def seen(quads, tile, axis):
    """Return the outlines that a detector finds in a tile: a line is cut at the ends of the tile."""
    parts = []
    for quad in quads:
        part = quad.copy()
        part[:, axis] = part[:, axis].clip(tile.start, tile.end)
        if part[:, axis].max() > part[:, axis].min():
            parts.append(part)
    return parts


@pytest.mark.parametrize("axis", [0, 1])
def test_lines_at_any_position_are_returned_once(axis):
    tiles = tiles_of(4000, 400)
    assert len(tiles) > 5
    rng = np.random.default_rng(0)
    lines = [box(x, y, x + 150, y + 24) for y in range(10, 3900, 40) for x in (4 + y % 3, 210 + y % 4)]
    if axis == 0:
        lines = [quad[[0, 3, 2, 1]][:, ::-1].copy() for quad in lines]  # columns of a wide image

    def jitter(quad):
        """Move the sides by less than a pixel, as the detector does in another tile."""
        return quad + rng.uniform(-0.4, 0.4, (1, 2)).astype(np.float32)

    merged = merge_tiles([(tile, [jitter(quad) for quad in seen(lines, tile, axis)]) for tile in tiles], axis)
    assert same_lines(merged, lines)


@pytest.mark.parametrize("slope", [0, 0.02, -0.02])
def test_line_along_a_wide_image_is_joined_over_all_tiles(slope):
    tiles = tiles_of(5000, 400)
    lines = [(200, 60), (200, 110), (200, 160)]

    def corners(y, start, end):
        return np.array(
            [(x, y + slope * x + dy) for x, dy in ((start, 0), (end, 0), (end, 30), (start, 30))], np.float32
        )

    found = [(tile, [corners(y, max(x, tile.start), min(4800, tile.end)) for x, y in lines]) for tile in tiles]
    merged = merge_tiles(found, 0)
    assert len(merged) == 3
    for quad, (x, y) in zip(merged, lines, strict=True):
        assert np.allclose(quad, corners(y, x, 4800), atol=3)


def test_line_that_one_tile_misses_is_kept():
    first, second = tiles_of(1800, 400)[:2]
    line = box(20, first.last - 12, 300, first.last + 12)
    assert same_lines(merge_tiles([(first, [line]), (second, [])], 1), [line])
    assert same_lines(merge_tiles([(first, []), (second, [line])], 1), [line])


def test_neighboring_lines_at_a_seam_stay_separate():
    first, second = tiles_of(1800, 400)[:2]
    lines = [box(20, first.last + dy, 300, first.last + dy + 20) for dy in (-41, -19, 3, 25)]
    merged = merge_tiles([(first, lines), (second, lines)], 1)
    assert same_lines(merged, lines)


WORDS = "harbour lantern copper violin meadow granite falcon tunnel orchid pepper saddle timber".split()


@pytest.mark.parametrize("rotation", [0, 90, 180])
def test_words_of_a_wide_image_are_neither_doubled_nor_lost(rotation):
    """Each line crosses two seams. Rotated by 90 degrees, the lines are vertical, and the image is tall."""
    image = Image.new("RGB", (1900, 120), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=26)
    lines = [" ".join((WORDS[i:] + WORDS[:i]) * 2)[:130].rsplit(" ", 1)[0] for i in (0, 5)]
    for y, text in zip((15, 65), lines, strict=True):
        draw.text((10, y), text, font=font, fill="black")
    words = read_words(image.rotate(rotation, expand=True))
    assert " ".join(word.text for word in words) == " ".join(lines)
    if rotation == 0:
        for line, y in zip(lines, (15, 65), strict=True):
            end = 10 + font.getlength(line)
            last = [word for word in words if abs(word.box[1] * 120 - y) < 12][-1]
            assert last.box[2] * 1900 == pytest.approx(end, abs=12)


def test_small_text_of_a_large_image_is_detected_at_a_finer_scale():
    image = Image.new("RGB", (800, 1000), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 980, 790, 990), fill="black")  # the margins are not cropped
    font = ImageFont.load_default(size=12)
    lines = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(5)]
    for number, text in enumerate(lines):
        draw.text((20, 20 + 20 * number), text, font=font, fill="black")
    words = Counter(word.text for word in read_words(image, max_side=400))
    expected = Counter(" ".join(lines).split())
    assert (words & expected).total() > 0.97 * expected.total()
