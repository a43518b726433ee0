"""Patches of images: equality with the processor of transformers, threads, JPEG files at reduced resolution."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import DATA
from PIL import Image

from jina_rag import load_embedder
from jina_rag.errors import CheckpointError, InvalidInputError
from jina_rag.images import LoadedImage, open_image
from jina_rag.testing import make_checkpoint

torch = pytest.importorskip("torch")

from jina_rag.models.jina import image_patches  # noqa: E402  # behind the check for torch
from jina_rag.models.jina.image_patches import MAX_PIXELS, ImagePatcher  # noqa: E402
from jina_rag.models.runtime.checkpoints import open_checkpoint  # noqa: E402

IMAGES = sorted((DATA / "golden" / "images").glob("*.png"))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def patcher(tiny):
    return ImagePatcher(open_checkpoint(Path(tiny["v4"]), name="v4"), max_pixels=None, fixed_limits=False)


@pytest.fixture
def two_threads(monkeypatch):
    with ThreadPoolExecutor(2) as executor:
        monkeypatch.setattr(image_patches, "_threads", lambda: executor)
        yield


def photo(size=(640, 480)):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize("max_pixels", [MAX_PIXELS, 50_176])
@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_pixel_values_equal_those_of_transformers(patcher, path, max_pixels):
    from transformers import Qwen2VLImageProcessorPil

    size = {"shortest_edge": patcher.min_pixels, "longest_edge": max_pixels}
    processor = Qwen2VLImageProcessorPil(size=size, do_convert_rgb=False)
    expected = processor.preprocess(images=[open_image(path).load()], return_tensors="np")
    patches, grids = patcher.patches_of([(open_image(path), max_pixels)], CPU)
    assert patches.dtype == torch.uint8
    assert patches.shape[1] == 3 * 14 * 14
    values = patcher.pixel_values(patches, CPU, torch.float32)
    np.testing.assert_array_equal(grids, expected["image_grid_thw"])
    np.testing.assert_allclose(values, expected["pixel_values"], atol=1e-6)


def test_normalization_settings_of_checkpoint_are_applied(tmp_path):
    settings = {
        "image_mean": [0.5, 0.25, 0.125],
        "image_std": [0.5, 0.25, 0.5],
        "rescale_factor": 1 / 51,
        "resample": 0,
    }
    patcher = ImagePatcher(checkpoint(tmp_path, settings), max_pixels=None, fixed_limits=False)
    pixels = np.zeros((56, 56, 3), np.uint8)
    pixels[...] = (51, 102, 153)
    patches, _ = patcher.patches_of([(open_image(Image.fromarray(pixels)), MAX_PIXELS)], CPU)
    values = patcher.pixel_values(patches, CPU, torch.float32).view(16, 3, 2 * 14 * 14)
    np.testing.assert_allclose(values.mean(dim=(0, 2)), [1, 7, 5.75], atol=1e-5)


def checkpoint(tmp_path, settings):
    import json

    folder = make_checkpoint("v4", path=tmp_path / "v4")
    path = Path(folder) / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")
    return open_checkpoint(Path(folder), name="v4")


@pytest.mark.parametrize("settings", [{"image_mean": [1, 2]}, {"image_std": "x"}, {"resample": "cubic"}])
def test_invalid_normalization_settings_raise_checkpoint_error(tmp_path, settings):
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json(:| is invalid)"):
        ImagePatcher(checkpoint(tmp_path, settings), max_pixels=None, fixed_limits=False)


def test_pixel_values_with_gradients_are_only_converted(patcher):
    values = torch.rand(4, 1176, requires_grad=True)
    assert patcher.pixel_values(values, CPU, torch.float32) is values


# Threads


@pytest.mark.usefixtures("two_threads")
def test_images_of_a_batch_are_prepared_at_the_same_time(patcher, monkeypatch):
    load, both = LoadedImage.load, threading.Barrier(2, timeout=10)

    def load_together(image, **options):
        both.wait()
        return load(image, **options)

    images = [(open_image(path), MAX_PIXELS) for path in IMAGES[:4]]
    expected = [patcher.patches_of([image], CPU)[0] for image in images]
    monkeypatch.setattr(LoadedImage, "load", load_together)
    np.testing.assert_array_equal(patcher.patches_of(images, CPU)[0], torch.cat(expected))


@pytest.mark.usefixtures("two_threads")
def test_error_of_an_image_is_raised(patcher):
    damaged = jpeg(photo())[:3000]
    images = [(open_image(source), MAX_PIXELS) for source in (IMAGES[0], damaged, IMAGES[1])]
    with pytest.raises(InvalidInputError, match="An input of 3000 bytes is not a readable image"):
        patcher.patches_of(images, CPU)


def test_threads_decode_one_opened_file_once(patcher, monkeypatch):
    """Pillow decodes an opened file at the first use, which fails if two threads do it at the same time."""
    expected, _ = patcher.patches_of([(open_image(photo()), MAX_PIXELS)], CPU)
    file = io.BytesIO()
    photo().save(file, "PNG")
    for _ in range(5):
        image = Image.open(io.BytesIO(file.getvalue()))
        with ThreadPoolExecutor(4) as executor:
            start = threading.Barrier(4, timeout=10)

            def patches(_, image=image, start=start):
                start.wait()
                return patcher.patches_of([(open_image(image), MAX_PIXELS)], CPU)[0]

            for actual in executor.map(patches, range(4)):
                np.testing.assert_array_equal(actual, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="requires fork")
def test_forked_process_prepares_images_on_threads_of_its_own(tiny):
    """An alarm ends a forked process that waits for the threads of its parent."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from jina_rag.images import open_image\n"
        "from jina_rag.models.jina.image_patches import ImagePatcher\n"
        "from jina_rag.models.runtime.checkpoints import open_checkpoint\n"
        "checkpoint = open_checkpoint(Path(sys.argv[1]), name='v4')\n"
        "patcher = ImagePatcher(checkpoint, max_pixels=None, fixed_limits=False)\n"
        "images = [(open_image(path), 50_176) for path in sys.argv[2:]]\n"
        "prepare = lambda: bytes(patcher.patches_of(images, torch.device('cpu'))[0].numpy())\n"
        "before = prepare()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    signal.alarm(20)\n"
        "    sys.exit(0 if prepare() == before else 'other patches')\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "assert prepare() == before\n"
    )
    program = [sys.executable, "-c", code, tiny["v4"], *map(str, IMAGES[:4])]
    result = subprocess.run(program, timeout=120, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


# JPEG files


def test_jpeg_is_decoded_at_the_resolution_that_is_needed(patcher):
    """The decoded sides are at least twice as long as after resizing."""
    content = jpeg(photo((1600, 1200)))
    assert open_image(content).load().size == (1600, 1200)
    assert open_image(content).load(min_size=(801, 600)).size == (1600, 1200)
    assert open_image(content).load(min_size=(800, 600)).size == (800, 600)
    assert open_image(content).load(min_size=(200, 150)).size == (200, 150)
    png = io.BytesIO()
    photo((1600, 1200)).save(png, "PNG")
    assert open_image(png.getvalue()).load(min_size=(200, 150)).size == (1600, 1200)


@pytest.mark.parametrize(
    ("size", "reduced"),
    [
        ((1600, 1600), (200, 200)),
        ((1604, 1608), (401, 402)),
        ((1602, 1604), (801, 802)),
        ((1601, 1600), (1601, 1600)),
        ((1600, 1603), (1600, 1603)),
    ],
)
def test_scale_of_jpeg_divides_both_sides(size, reduced):
    content = jpeg(photo(size))
    assert open_image(content).load(min_size=(200, 200)).size == reduced


def test_rotated_jpeg_is_decoded_at_the_resolution_that_is_needed():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = jpeg(photo((1600, 1000)), exif=exif)
    assert open_image(content).size == (1000, 1600)
    assert open_image(content).load(min_size=(500, 800)).size == (500, 800)
    assert open_image(content).load(min_size=(501, 800)).size == (1000, 1600)


def test_patches_of_reduced_jpeg_are_close_to_those_of_its_pixels(patcher, monkeypatch):
    sizes, resize = [], Image.Image.resize

    def note(image, size, *args, **options):
        if size != (64, 64):  # the sample that shows whether the image has color
            sizes.append(image.size)
        return resize(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", note)
    content = jpeg(photo((1600, 1200)))
    reduced, whole = (
        patcher.patches_of([(open_image(source), 100_000)], CPU)[0].numpy().astype(int)
        for source in (content, Image.open(io.BytesIO(content)))
    )
    assert sizes[-2:] == [(800, 600), (1600, 1200)]
    difference = np.abs(reduced - whole)
    assert difference.mean() < 0.5
    assert difference.max() < 16


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("size", "largest"), [((1600, 1208), 16), ((1602, 1204), 16), ((1601, 1203), 0)])
def test_patches_of_reduced_jpeg_are_not_shifted(patcher, size, largest, orientation):
    """The content is not shifted if a side is not divisible by the scale, also in rotated photos."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = jpeg(photo(size), exif=exif)
    reduced, whole = (
        patcher.patches_of([(open_image(source), 50_000)], CPU)[0].numpy().astype(int)
        for source in (content, Image.open(io.BytesIO(content)))
    )
    assert np.abs(reduced - whole).max() <= largest


def test_small_jpeg_has_the_vector_of_its_pixels(tiny):
    """A file of less than four times the needed sides is decoded at full resolution."""
    model = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    content = jpeg(photo())
    vectors = model.encode_document([content, Image.open(io.BytesIO(content)).convert("RGB")]).single
    np.testing.assert_array_equal(vectors[0], vectors[1])


# Pages without color


def test_page_without_color_is_resized_as_one_channel(patcher, monkeypatch):
    """The values equal those of three channels."""
    modes, resize = [], Image.Image.resize

    def note(image, size, resample=None, **options):
        if resample == Image.Resampling.BICUBIC:
            modes.append(image.mode)
        return resize(image, size, resample=resample, **options)

    color = photo()
    gray = color.convert("L").convert("RGB")
    one_pixel = gray.copy()
    one_pixel.putpixel((321, 123), (1, 2, 3))
    monkeypatch.setattr(Image.Image, "resize", note)
    for image in (gray, one_pixel, color):
        patches, _ = patcher.patches_of([(open_image(image), MAX_PIXELS)], CPU)
        expected = np.asarray(resize(image, (644, 476), resample=Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        tokens = patches.numpy().reshape(17, 23, 2, 2, 3, 14, 14).transpose(4, 0, 2, 5, 1, 3, 6)
        np.testing.assert_array_equal(tokens.reshape(expected.shape), expected)
    assert modes == ["L", "RGB", "RGB"]
