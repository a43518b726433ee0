"""Rendering of image files: all formats and pixel modes become upright RGB on white."""

from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pytest
from helpers.paths import DATA
from PIL import Image, ImageDraw, ImageFile, ImageFont

from jina_rag import image_formats
from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, InvalidInputError, LimitExceededError, UnsupportedDocumentError
from jina_rag.images import encode_jpeg, open_image
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.images import to_rgb
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.sources import SourceFile, source_file
from jina_rag.types import Failure, Page


def source(path):
    return SourceFile(path, path.parent, path.name, "image")


def render_page(path, settings=None, number=1):
    with open_document(source(path), settings) as document:
        return document.render(number)


def split_image(mode, left, right, size=(40, 20)):
    """Return an image with one value in the left half and another value in the right half."""
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.gif", "a.bmp", "a.avif"])
def test_image_formats_render_as_rgb(tmp_path, name):
    split_image("RGB", (200, 30, 30), (30, 30, 200)).save(tmp_path / name)
    page = render_page(tmp_path / name)
    pixels = np.asarray(page.screenshot.image).astype(int)
    assert page.screenshot.image.mode == "RGB"
    assert abs(pixels[10, 5] - (200, 30, 30)).max() < 25
    assert abs(pixels[10, 35] - (30, 30, 200)).max() < 25
    assert page.words == ()
    assert (page.number, page.count) == (1, 1)


@pytest.mark.parametrize("isolate", [False, True])
def test_heic_is_read_with_a_plugin(isolate):
    events = list(
        read_pages([source_file(DATA / "images" / "photo.heic")], IngestSettings(ocr="never", isolate=isolate))
    )
    [page] = [event for event in events if isinstance(event, Page)]
    assert page.screenshot.image.size == (96, 64)
    assert np.abs(np.subtract(page.screenshot.image.getpixel((10, 32)), (200, 30, 30))).max() < 25
    assert open_image(DATA / "images" / "photo.heic").load().size == (96, 64)


@pytest.mark.parametrize(
    ("suffix", "remedy"),
    [("heic", "jina-rag[images]"), ("jxl", "install pillow-jxl-plugin"), ("avif", "pillow>=11.3")],
)
def test_missing_decoder_is_named_with_the_package(tmp_path, monkeypatch, suffix, remedy):
    path = tmp_path / "wrong suffix.png"
    if suffix == "avif":
        Image.new("RGB", (9, 9)).save(path, "AVIF")
    else:
        shutil.copy(DATA / "images" / f"photo.{suffix}", path)
    monkeypatch.setitem(image_formats._REGISTRATIONS, image_formats.modern_format(path.read_bytes()), lambda: False)
    with pytest.raises(UnsupportedDocumentError, match=re.escape(remedy)):
        open_document(source_file(path))
    with pytest.raises(InvalidInputError, match=re.escape(remedy)):
        open_image(path)


@pytest.mark.parametrize("name", ["photo.heic", "photo.jxl"])
def test_damaged_modern_image_is_a_failure_with_a_reason(tmp_path, name):
    content = (DATA / "images" / name).read_bytes()
    for number, damaged in enumerate((content[: len(content) // 2], content[:40] + bytes(400))):
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(damaged)
        events = read_pages([source_file(path)], IngestSettings(ocr="never", isolate=False))
        [failure] = [event for event in events if isinstance(event, Failure)]
        assert "damaged" in failure.reason or "pillow-jxl-plugin" in failure.reason


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypavis\0\0\0\0avismsf1", "AVIF"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", None),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", None),
        (b"", None),
    ],
)
def test_format_is_determined_by_the_first_bytes(head, expected):
    assert image_formats.modern_format(head) == expected


@pytest.mark.parametrize(
    ("image", "left", "right"),
    [
        (split_image("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)), 255, 0),
        (split_image("LA", (0, 0), (0, 255)), 255, 0),
        (split_image("I;16", 0, 65535), 0, 255),
        (Image.fromarray(np.repeat(np.array([[1000, 4095]], np.uint16), 20, 1).repeat(20, 0)), 62, 255),
        (split_image("I", 0, 60000), 0, 233),
        (split_image("F", -1.0, 1.0), 0, 255),
        (split_image("1", 0, 1), 0, 255),
        (split_image("CMYK", (0, 0, 0, 0), (0, 0, 0, 255)), 255, 0),
        (split_image("L", 10, 250), 10, 250),
    ],
)
def test_pixel_modes_convert_to_rgb(image, left, right):
    pixels = np.asarray(to_rgb(image)).astype(int)
    assert pixels.shape == (20, 40, 3)
    assert abs(pixels[10, 5] - left).max() <= 3
    assert abs(pixels[10, 35] - right).max() <= 3


def test_palette_transparency_flattens_onto_white(tmp_path):
    image = Image.new("P", (20, 20), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (10, 0, 20, 20))
    image.save(tmp_path / "a.png", transparency=0)
    pixels = np.asarray(render_page(tmp_path / "a.png").screenshot.image)
    assert pixels[5, 2].tolist() == [255, 255, 255]
    assert pixels[5, 15].tolist() == [255, 0, 0]


def test_exif_orientation_is_applied(tmp_path):
    image = split_image("RGB", "black", "white")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    screenshot = render_page(tmp_path / "a.jpg").screenshot.image
    assert screenshot.size == (20, 40)
    assert screenshot.getpixel((10, 2))[0] < 40
    assert screenshot.getpixel((10, 37))[0] > 215


def test_tiff_frames_become_pages(tmp_path):
    frames = [Image.new("L", (30 + index, 20), 50 * index) for index in range(4)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with open_document(source(tmp_path / "a.tif")) as document:
        assert document.page_count == 4
        assert document.warnings == ()
        for number in (3, 1, 4, 2):  # pages can be rendered in any order
            image = document.render(number).screenshot.image
            assert image.size == (29 + number, 20)
            assert image.getpixel((0, 0))[0] == 50 * (number - 1)
        with pytest.raises(DocumentError, match="Page 5 does not exist"):
            document.render(5)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animation_renders_first_frame_only(tmp_path, name):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100)
    with open_document(source(tmp_path / name)) as document:
        assert document.page_count == 1
        assert "3 frames" in document.warnings[0]
        assert document.render(1).screenshot.image.getpixel((5, 5))[0] > 200


def test_large_image_scales_size_and_dpi(tmp_path):
    Image.new("RGB", (3000, 1500), "white").save(tmp_path / "a.jpg", dpi=(300, 300))
    screenshot = render_page(tmp_path / "a.jpg", IngestSettings(max_image_side=1000)).screenshot
    assert screenshot.image.size == (1000, 500)
    assert screenshot.dpi == pytest.approx(100)


def test_extreme_aspect_ratio_keeps_at_least_one_pixel(tmp_path):
    Image.new("RGB", (9000, 2), "black").save(tmp_path / "a.png")
    assert render_page(tmp_path / "a.png").screenshot.image.size == (2500, 1)
    Image.new("RGB", (1, 1), "black").save(tmp_path / "b.png")
    assert render_page(tmp_path / "b.png").screenshot.image.size == (1, 1)


def striped_image(width, height, stripe=10):
    """Return a gray image whose rows tell their position: each stripe of rows has another pair of colors."""
    rows = np.arange(height) // stripe
    pixels = np.stack([rows % 256, rows // 256 * 8, 255 - rows % 256], axis=1).astype(np.uint8)
    return Image.fromarray(np.repeat(pixels[:, None], width, axis=1))


def render_all(path, settings=None):
    with open_document(source(path), settings) as document:
        return [document.render(number) for number in range(1, document.page_count + 1)]


@pytest.mark.parametrize("is_wide", [False, True])
def test_long_image_becomes_overlapping_pages_at_full_size(tmp_path, is_wide):
    image = striped_image(240, 3000)
    (image.transpose(Image.Transpose.TRANSPOSE) if is_wide else image).save(tmp_path / "a.png", dpi=(96, 96))
    pages = render_all(tmp_path / "a.png")
    assert [(page.number, page.count) for page in pages] == [(1, 2), (2, 2)]
    images = [page.screenshot.image for page in pages]
    slices = [np.asarray(part.transpose(Image.Transpose.TRANSPOSE) if is_wide else part) for part in images]
    length = len(slices[0])
    assert 1570 < length < 1590
    assert (slices[0] == np.asarray(image)[:length]).all()
    assert (slices[1] == np.asarray(image)[-length:]).all()
    assert pages[0].screenshot.dpi == pytest.approx(96, abs=0.1)
    assert all(page.warnings == () for page in pages)


@pytest.mark.parametrize("isolate", [True, False])
def test_slices_of_upright_image_follow_exif_orientation(tmp_path, isolate):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    image = striped_image(240, 3000)
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    settings = IngestSettings(ocr="never", isolate=isolate)
    pages = [event for event in read_pages([source(tmp_path / "a.png")], settings) if isinstance(event, Page)]
    assert len(pages) == 2
    for page, rows in zip(pages, (slice(None, 1579), slice(-1579, None)), strict=True):
        assert (np.asarray(page.screenshot.image) == np.asarray(image)[rows]).all()


def test_long_frames_of_tiff_are_divided_and_numbered_through(tmp_path):
    long = striped_image(240, 3000)
    frames = [Image.new("RGB", (30, 20), "red"), long, Image.new("RGB", (30, 20), "blue"), long]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with open_document(source(tmp_path / "a.tif")) as document:
        assert document.page_count == 6
        heights = {}
        for number in (4, 6, 2, 1, 3, 5):  # pages can be rendered in any order
            image = document.render(number).screenshot.image
            heights[number] = image.height
            if number == 4:
                assert image.getpixel((5, 5)) == (0, 0, 255)
            if number in (2, 5):
                assert image.getpixel((5, 5)) == long.getpixel((5, 5))
    assert heights == {1: 20, 2: 1579, 3: 1579, 4: 20, 5: 1579, 6: 1579}


def test_first_frame_of_long_animation_is_divided(tmp_path):
    frames = [striped_image(240, 3000), Image.new("RGB", (240, 3000), "green")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    with open_document(source(tmp_path / "a.webp")) as document:
        assert document.page_count == 2
        assert "only the first frame" in document.warnings[0]


def test_slices_count_for_the_limit_of_pages(tmp_path):
    Image.new("L", (240, 3000), "white").save(tmp_path / "a.png")
    with pytest.raises(LimitExceededError, match="2 pages"):
        open_document(source(tmp_path / "a.png"), IngestSettings(limits=Limits(max_pages=1)))


def test_long_image_is_decoded_once(tmp_path, monkeypatch):
    striped_image(240, 3000).save(tmp_path / "a.png")
    decoded = []
    load = ImageFile.ImageFile.load

    def count(self):
        decoded.append(self.size)
        return load(self)

    with open_document(source(tmp_path / "a.png")) as document:
        monkeypatch.setattr(ImageFile.ImageFile, "load", count)
        document.render(1)
        calls = len(decoded)
        document.render(2)
        assert calls
        assert len(decoded) == calls


def text_image(size, font_size):
    image = Image.new("L", size, "white")
    draw = ImageDraw.Draw(image)
    for y in range(0, size[1], 2 * font_size):
        draw.text((0, y), "legible words in a line " * 40, font=ImageFont.load_default(size=font_size), fill="black")
    return image


@pytest.mark.parametrize(
    ("size", "font_size", "is_lost"),
    [
        ((700, 700), 12, True),
        ((700, 700), 36, False),
        ((540, 540), 12, False),  # hardly scaled
        ((150, 1500), 20, True),  # too narrow for slices
        ((960, 3000), 16, True),  # slices, but wider than max_image_side
    ],
)
def test_warning_if_scaling_makes_text_unreadable(tmp_path, size, font_size, is_lost):
    text_image(size, font_size).save(tmp_path / "a.png")
    warnings = render_page(tmp_path / "a.png", IngestSettings(max_image_side=400)).warnings
    assert ["unreadable" in warning for warning in warnings] == [True] * is_lost


def test_no_warning_if_a_photo_is_scaled(tmp_path):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    photo = np.asarray(small.resize((880, 660), Image.Resampling.BICUBIC)) + rng.normal(0, 6, (660, 880, 1))
    Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(tmp_path / "a.jpg")
    assert render_page(tmp_path / "a.jpg", IngestSettings(max_image_side=500)).warnings == ()


@pytest.mark.parametrize("size", [(1001, 803), (1003, 1001), (1000, 800)])
def test_scaled_jpeg_is_not_shifted(tmp_path, size):
    """JPEG scales pad odd sides, which would shift the content at the right and the bottom."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels = (127 + 120 * np.sin(x / 25) * np.sin(y / 25)).astype(np.uint8)
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "a.jpg", quality=98)
    screenshot = render_page(tmp_path / "a.jpg", IngestSettings(max_image_side=120)).screenshot.image
    reference = Image.fromarray(pixels).convert("RGB").resize(screenshot.size, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(screenshot).astype(int) - np.asarray(reference)).max() < 12


def test_pixel_limit_checked_before_decoding(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("1", (2000, 1000)).save(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(LimitExceededError, match="2000 x 1000"):
        open_document(source(path), IngestSettings(limits=Limits(max_pixels=1_999_999)))
    open_document(source(path), IngestSettings(limits=Limits(max_pixels=2_000_000))).__exit__(None, None, None)


def test_truncated_jpeg_renders_upper_part_with_warning(tmp_path):
    data = io.BytesIO()
    noise_pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise_pixels).save(data, "JPEG")
    (tmp_path / "a.jpg").write_bytes(data.getvalue()[: len(data.getvalue()) // 2])
    page = render_page(tmp_path / "a.jpg")
    pixels = np.asarray(page.screenshot.image).astype(int)
    assert any("truncated" in warning for warning in page.warnings)
    assert pixels[:60].std() > 30
    assert pixels[-20:].std() < 5


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.gif", "a.webp", "a.bmp"])
def test_truncated_images_raise_document_error(tmp_path, name):
    """Without MuPDF, which reads the beginning of a BMP (see `test_image_fallback`)."""
    noise_pixels = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(noise_pixels).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for share in (0.1, 0.5, 0.95):
        (tmp_path / name).write_bytes(data[: int(len(data) * share)])
        with pytest.raises(DocumentError, match="image"):
            render_page(tmp_path / name, IngestSettings(renderer="pypdfium2"))


def test_pillow_warnings_become_document_warnings(tmp_path):
    truncated_exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0"
    Image.new("RGB", (20, 20), "white").save(tmp_path / "a.jpg", exif=truncated_exif)
    with open_document(source(tmp_path / "a.jpg")) as document:
        assert any("Corrupt EXIF" in warning for warning in document.warnings)
        assert document.render(1).screenshot.image.size == (20, 20)


@pytest.mark.parametrize("isolate", [True, False])
def test_prepared_image_has_no_comment_of_the_file(tmp_path, isolate):
    image = Image.effect_noise((60, 40), 90).convert("RGB")
    image.save(tmp_path / "a.jpg", comment=b"private note", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00")
    settings = IngestSettings(ocr="never", isolate=isolate)
    (page,) = [e for e in read_pages([source(tmp_path / "a.jpg")], settings, prepare=True) if isinstance(e, Page)]
    pixels = Image.frombytes("RGB", page.screenshot.image.size, page.screenshot.image.tobytes())
    assert page.prepared.screenshot == encode_jpeg(pixels, settings.jpeg_quality)
    assert b"private" not in page.prepared.screenshot.content
