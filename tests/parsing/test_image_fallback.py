"""Image files that Pillow cannot read: MuPDF reads them, if it is installed and no other renderer is named."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, features

from jina_rag import image_formats
from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, LimitExceededError
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.pdf import pymupdf_images
from jina_rag.parsing.sources import SourceFile, source_file
from jina_rag.types import Failure


def bmp_of_12_bits(path, size=(6, 4), color=0x0F00):
    """Write a BMP with 4 bits a channel, a layout that Pillow does not read, in one color (default red)."""
    width, height = size
    rows = (struct.pack("<H", color) * width + b"\0\0" * (width % 2)) * height
    header = struct.pack("<IiiHHIIiiII", 56, width, height, 1, 16, 3, len(rows), 0, 0, 0, 0)
    header += struct.pack("<IIII", 0x0F00, 0x00F0, 0x000F, 0)
    offset = 14 + len(header)
    path.write_bytes(b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + rows)
    return path


def render(path, **settings):
    with open_document(source_file(path), IngestSettings(**settings)) as document:
        page = document.render(1)
        return page, (*document.warnings, *page.warnings)


@pytest.mark.parametrize("renderer", ["auto", "pymupdf"])
def test_mupdf_reads_a_layout_that_pillow_does_not_read(tmp_path, renderer):
    page, (warning,) = render(bmp_of_12_bits(tmp_path / "a.bmp"), renderer=renderer)
    assert page.screenshot.image.size == (6, 4)
    assert np.abs(np.asarray(page.screenshot.image).astype(int) - (255, 0, 0)).max() < 10
    assert warning.startswith("The image was read with pymupdf, because Pillow could not read it (Unsupported BMP")


def test_a_named_renderer_is_not_replaced(tmp_path):
    with pytest.raises(DocumentError, match=r"Unsupported BMP.*Replace or re-export the file, or convert it to PNG\.$"):
        render(bmp_of_12_bits(tmp_path / "a.bmp"), renderer="pypdfium2")


def test_without_pymupdf_the_error_is_that_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(pymupdf_images, "find_spec", lambda name: None)
    with pytest.raises(DocumentError, match="Unsupported BMP"):
        render(bmp_of_12_bits(tmp_path / "a.bmp"))


def test_the_size_is_checked_before_mupdf_decodes(tmp_path):
    path = bmp_of_12_bits(tmp_path / "a.bmp", (300, 200))
    with pytest.raises(DocumentError, match="Unsupported BMP"):
        render(path, limits=Limits(max_pixels=59_999))
    assert render(path, limits=Limits(max_pixels=60_000))[0].screenshot.image.size == (300, 200)


def test_an_image_that_is_too_large_for_pillow_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(pymupdf_images, "read_image", lambda *_: pytest.fail("read again"))
    Image.new("L", (400, 300)).save(tmp_path / "a.png")
    with pytest.raises(LimitExceededError):
        render(tmp_path / "a.png", limits=Limits(max_pixels=100_000))


@pytest.mark.parametrize("cut", [4, 8])
def test_a_png_without_its_end_is_read_to_its_last_row(tmp_path, cut):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-cut])
    page, warnings = render(tmp_path / "a.png")
    assert (np.asarray(page.screenshot.image.convert("L")) == values).all()
    assert len(warnings) <= 1


def test_the_decoded_part_of_a_truncated_image_keeps_its_shape(tmp_path):
    Image.new("RGB", (40, 20), (200, 30, 30)).save(tmp_path / "a.bmp")
    content = (tmp_path / "a.bmp").read_bytes()
    (tmp_path / "a.bmp").write_bytes(content[: len(content) // 2])
    page, (warning,) = render(tmp_path / "a.bmp")
    assert page.screenshot.image.size == (40, 20)
    assert "truncated" in warning
    assert {color for _, color in page.screenshot.image.getcolors()} == {(200, 30, 30), (255, 255, 255)}


def test_transparent_pixels_that_mupdf_decodes_become_white(tmp_path, monkeypatch):
    image = Image.new("RGBA", (8, 8), (200, 30, 30, 0))
    image.paste((200, 30, 30, 255), (4, 0, 8, 8))
    image.save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: (_ for _ in ()).throw(OSError("broken")))
    page, (warning,) = render(tmp_path / "a.png")
    assert "(broken)" in warning
    assert page.screenshot.image.getpixel((1, 4)) == (255, 255, 255)
    assert page.screenshot.image.getpixel((6, 4)) == (200, 30, 30)


def test_a_tall_image_that_mupdf_decodes_is_divided(tmp_path):
    path = bmp_of_12_bits(tmp_path / "a.bmp", (300, 4000), 0x00F0)
    with open_document(source_file(path)) as document:
        assert document.page_count > 1
        for number in (1, document.page_count):
            assert document.render(number).screenshot.image.getpixel((5, 5))[1] > 240


@pytest.mark.parametrize("name", ["a.jp2", "a.j2k", "a.png"])
def test_jpeg_2000_is_read_by_content(tmp_path, name):
    Image.new("RGB", (40, 20), (200, 30, 30)).save(tmp_path / name, "JPEG2000", no_jp2=name == "a.j2k")
    page, warnings = render(tmp_path / name)
    assert warnings == ()
    assert np.abs(np.asarray(page.screenshot.image).astype(int) - (200, 30, 30)).max() < 10


def test_a_pillow_without_jpeg_2000_is_named(tmp_path, monkeypatch):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jp2")
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(DocumentError, match="JPEG 2000 requires a Pillow with OpenJPEG"):
        render(tmp_path / "a.jp2", renderer="pypdfium2")
    assert image_formats.readable_formats((tmp_path / "a.jp2").read_bytes()) == ()


def test_text_with_the_suffix_of_an_image_is_a_failure(tmp_path):
    (tmp_path / "a.jp2").write_text("not an image")
    from jina_rag.parsing.sources import classify

    event = classify(tmp_path / "a.jp2")
    assert isinstance(event, Failure)
    assert "contrary to the suffix" in event.reason


def test_missing_files_are_no_case_for_mupdf(tmp_path):
    source = SourceFile(tmp_path / "a.bmp", tmp_path, "a.bmp", "image")
    with pytest.raises(DocumentError, match="Check the path and the permissions"):
        open_document(source)


@pytest.mark.parametrize("header_bytes", [12, 16, 40, 56])
def test_the_headers_of_all_versions_of_bmp_are_images(tmp_path, header_bytes):
    """OS/2 writes headers of 12 and 16 bytes."""
    size = struct.pack("<HHHH" if header_bytes == 12 else "<IIHH", 5, 3, 1, 24)
    header = struct.pack("<I", header_bytes) + size
    header += bytes(header_bytes - len(header))
    pixels = bytes([30, 30, 200] * 5 + [0]) * 3
    offset = 14 + header_bytes
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + pixels)
    page, _ = render(tmp_path / "a.bmp")
    assert page.screenshot.image.getpixel((2, 1)) == (200, 30, 30)
