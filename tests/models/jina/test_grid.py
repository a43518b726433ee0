"""Patch grids of jina-embeddings-v4: the image box of each row of a multi-vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.paths import DATA
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jina_rag import load_embedder
from jina_rag.images import LoadedImage, open_image

torch = pytest.importorskip("torch")

from jina_rag.models.jina.vl_prompts import PlacedImage, Prompt, grid_of  # noqa: E402  # behind the check for torch

IMAGES = sorted((DATA / "golden" / "images").glob("*.png"))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def v4(tiny):
    return load_embedder(tiny["v4"], device="cpu", dtype="float32")


@pytest.fixture
def model_inputs(v4):
    """Grids of patches and positions of the image tokens that the model received."""
    grids, at = [], []
    base = v4._model.module.model
    handles = [
        base.visual.register_forward_pre_hook(
            lambda _, args, kwargs: grids.extend(tuple(row) for row in kwargs["grid_thw"].tolist()), with_kwargs=True
        ),
        base.language_model.embed_tokens.register_forward_pre_hook(
            lambda _, args: at.append(np.flatnonzero(args[0][0].numpy() == v4._model.image_id))
        ),
    ]
    yield grids, at
    for handle in handles:
        handle.remove()


def check_tiles(boxes, rows, columns):
    """Assert that the boxes are `rows` x `columns` equal cells of the whole image, in reading order.

    Adjacent boxes have exactly equal edges. A token covers 28 x 28 pixels of the resized image, and every edge is on a
    pixel border of the resized image.
    """
    assert boxes.dtype == np.float32
    assert boxes.shape == (rows * columns, 4)
    cells = boxes.reshape(rows, columns, 4)
    left, top, right, bottom = (cells[..., side] for side in range(4))
    np.testing.assert_array_equal(left[:, 0], 0)
    np.testing.assert_array_equal(right[:, -1], 1)
    np.testing.assert_array_equal(top[0], 0)
    np.testing.assert_array_equal(bottom[-1], 1)
    np.testing.assert_array_equal(left[:, 1:], right[:, :-1])
    np.testing.assert_array_equal(top[1:], bottom[:-1])
    assert (left < right).all()
    assert (top < bottom).all()
    # Boxes of a column share the left edge, boxes of a row the upper edge.
    np.testing.assert_array_equal(left, np.broadcast_to(left[0], left.shape))
    np.testing.assert_array_equal(top, np.broadcast_to(top[:, :1], top.shape))
    pixels = boxes.astype(np.float64) * np.array([28 * columns, 28 * rows] * 2)
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-3)
    x, y = (pixels[:, side].round().astype(int) // 28 for side in (0, 1))
    assert list(zip(y, x, strict=True)) == [(row, column) for row in range(rows) for column in range(columns)]


def has_box(grid):
    return ~np.isnan(grid.boxes).any(axis=1)


def test_sample_images_have_distinct_sizes():
    assert len({open_image(path).size for path in IMAGES}) == len(IMAGES) == 9


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
@pytest.mark.parametrize("max_pixels", [None, 50_176], ids=["full", "small"])
def test_image_boxes_tile_the_image(v4, model_inputs, path, max_pixels):
    embeddings = v4.encode_document([path], max_pixels=max_pixels)
    ((time, height, width),), (at,) = model_inputs
    rows, columns = height // 2, width // 2
    assert (time, height, width) == (1, rows * 2, columns * 2)
    grid, vectors = embeddings.grids[0], embeddings.multi[0]
    assert grid.kind == "patches"
    assert grid.images is None
    assert len(grid) == len(vectors)
    inside = has_box(grid)
    assert inside.sum() == rows * columns
    check_tiles(grid.boxes[inside], rows, columns)
    # Only the rows of image tokens have a box; words of the prompt template precede and follow the image.
    np.testing.assert_array_equal(np.flatnonzero(inside), at)
    assert 0 < at[0]
    assert at[-1] < len(grid) - 1
    assert np.isnan(grid.boxes[~inside]).all()


def test_images_of_one_call_have_separate_grids(v4):
    """Batching, which reorders and pads the prompts, does not change the grids."""
    together = v4.encode_document([*IMAGES, "a text"], single=False)
    assert together.grids[-1] is None
    for path, grid, vectors in zip(IMAGES, together.grids, together.multi, strict=False):
        (single,) = v4.encode_document([path], single=False).grids
        assert len(grid) == len(vectors)
        np.testing.assert_array_equal(grid.boxes, single.boxes)


@pytest.mark.parametrize(
    "order", [(0, "some words", 1), ("some words", 0, 1), (0, 1, "some words"), (0, "a", 1, "b", 0), (0, 1)]
)
def test_mixed_document_boxes_tile_each_image(v4, model_inputs, order):
    images = [Path(IMAGES[0]).parent / name for name in ("odd_57x43.png", "wide_900x120.png")]
    parts = [part if isinstance(part, str) else images[part] for part in order]
    embeddings = v4.encode_document([parts])
    (grid,), (vectors,) = embeddings.grids, embeddings.multi
    assert len(grid) == len(vectors)
    grids, (at,) = model_inputs
    shapes = [(height // 2, width // 2) for _, height, width in grids]
    assert len(shapes) == sum(part in (0, 1) for part in order)
    inside = has_box(grid)
    np.testing.assert_array_equal(np.flatnonzero(inside), at)
    np.testing.assert_array_equal(grid.images >= 0, inside)
    assert np.isnan(grid.boxes[~inside]).all()
    assert grid.images.dtype == np.int32
    for number, (rows, columns) in enumerate(shapes):
        check_tiles(grid.boxes[grid.images == number], rows, columns)
    # Images are in the order of the document.
    assert (np.diff(grid.images[inside]) >= 0).all()
    assert set(grid.images.tolist()) == {-1, *range(len(shapes))}


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (4, 0), (2, 3), (4, 6)])
def test_row_responds_to_pixels_in_its_box(v4, row, column):
    """Changing the pixels of one cell changes the vision features of the cell's row most."""
    rows, columns = 5, 7
    features = []
    handle = v4._model.module.model.visual.register_forward_hook(lambda _, __, out: features.append(out))
    rng, changes = np.random.default_rng(0), 0
    for _ in range(6):  # a single change may affect a neighbor more, because the layers mix the tokens
        pixels = rng.integers(100, 156, (rows * 28, columns * 28, 3)).astype(np.uint8)
        before = v4.encode_document([Image.fromarray(pixels)], single=False).grids[0]
        y, x = row * 28, column * 28
        pixels[y : y + 28, x : x + 28] = rng.integers(0, 255, (28, 28, 3))
        v4.encode_document([Image.fromarray(pixels)], single=False)
        changes += (features[-1] - features[-2]).norm(dim=1)
    handle.remove()
    assert len(changes) == has_box(before).sum()
    box = before.boxes[has_box(before)][int(changes.argmax())]
    expected = [column / columns, row / rows, (column + 1) / columns, (row + 1) / rows]
    np.testing.assert_allclose(box, expected, atol=1e-6)


@given(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(0, 5)), min_size=1, max_size=4))
def test_grid_of_any_size_tiles_the_image(shapes):
    """For any number of rows and columns, adjacent boxes have equal edges in float32."""
    images, at = [], 0
    for rows, columns, words in shapes:
        at += words
        images.append(PlacedImage(LoadedImage(b"", "a", (1, 1)), at, rows, columns, 0))
        at += rows * columns
    grid = grid_of(Prompt(np.zeros(at + 3, np.int64), tuple(images)))
    owner = np.where(has_box(grid), 0, -1) if grid.images is None else grid.images
    for number, (rows, columns, _) in enumerate(shapes):
        check_tiles(grid.boxes[owner == number], rows, columns)
    assert np.isnan(grid.boxes[owner < 0]).all()
