"""Blank pages: a warning if the page has content that is not drawn, and no warning if nothing is on the page."""

from __future__ import annotations

import zlib

import pytest
from helpers.raw_pdf import LINES, one_page, page_tree, stream, text_content

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import SourceFile

RENDERERS = ("auto", "pymupdf", "pypdfium2")
IMAGE = "/Type/XObject/Subtype/Image/Width 100/Height 100"
DRAW = "q 612 0 0 792 0 0 cm /I Do Q"
WHITE_IMAGES = {
    "gray": stream(b"\xff" * 10_000, f"{IMAGE}/ColorSpace/DeviceGray/BitsPerComponent 8"),
    "rgb": stream(
        zlib.compress(b"\xff" * 30_000), f"{IMAGE}/ColorSpace/DeviceRGB/BitsPerComponent 8/Filter/FlateDecode"
    ),
    "cmyk": stream(
        zlib.compress(bytes(40_000)), f"{IMAGE}/ColorSpace/DeviceCMYK/BitsPerComponent 8/Filter/FlateDecode"
    ),
    "scan": stream(b"\xff" * 1_300, f"{IMAGE}/ColorSpace/DeviceGray/BitsPerComponent 1"),
}


def opened(path, renderer="auto"):
    return open_document(SourceFile(path, path.parent, path.name, "pdf"), IngestSettings(dpi=72, renderer=renderer))


def warnings_of(path, renderer):
    with opened(path, renderer) as document:
        page = document.render(1)
    assert page.screenshot.image.convert("L").getextrema() == (255, 255)
    return page.warnings


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("image", WHITE_IMAGES)
def test_a_white_scan_is_no_warning(tmp_path, renderer, image):
    path = one_page(tmp_path / "a.pdf", DRAW, resources="/XObject<</I 10 0 R>>", objects={10: WHITE_IMAGES[image]})
    assert warnings_of(path, renderer) == ()


@pytest.mark.parametrize("extension_bytes", [0, 2_000])
def test_a_white_jbig2_picture_with_much_data_is_a_warning(tmp_path, extension_bytes):
    """The extension, which MuPDF ignores without a message, stands for data that MuPDF cannot decode."""
    data = bytes.fromhex("00000000300001000000130000006400000064" + "00" * 11)
    if extension_bytes:
        data += bytes.fromhex("000000013e0001") + extension_bytes.to_bytes(4, "big") + bytes(extension_bytes)
    image = stream(data, f"{IMAGE}/ColorSpace/DeviceGray/BitsPerComponent 1/Filter/JBIG2Decode")
    path = one_page(tmp_path / "a.pdf", DRAW, resources="/XObject<</I 10 0 R>>", objects={10: image})
    assert len(warnings_of(path, "pymupdf")) == bool(extension_bytes)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_empty_form_fields_are_no_warning(tmp_path, renderer):
    field = "/Annots[<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/Rect[100 100 400 130]>>]"
    path = one_page(tmp_path / "a.pdf", page=field, objects={4: stream("", "/Filter/FlateDecode")})
    assert warnings_of(path, renderer) == ()


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_picture_that_is_covered_is_a_warning(tmp_path, renderer):
    black = stream(bytes(10_000), f"{IMAGE}/ColorSpace/DeviceGray/BitsPerComponent 8")
    content = f"{DRAW} 1 g 0 0 612 792 re f"
    path = one_page(tmp_path / "a.pdf", content, resources="/XObject<</I 10 0 R>>", objects={10: black})
    assert len(warnings_of(path, renderer)) == 1


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize(
    "content", ["", "q Q", "unknown", "BT /F1 12 Tf 72 720 Td (   ) Tj ET", "1 g 0 0 612 792 re f"]
)
def test_content_that_draws_nothing_is_no_warning(tmp_path, renderer, content):
    assert warnings_of(one_page(tmp_path / "a.pdf", content), renderer) == ()


@pytest.mark.parametrize("renderer", RENDERERS)
def test_an_empty_stream_with_a_filter_is_no_warning(tmp_path, renderer):
    path = one_page(tmp_path / "a.pdf", objects={4: stream("", "/Filter/FlateDecode")})
    assert warnings_of(path, renderer) == ()


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize(
    "content",
    [stream(b"junk" * 20, "/Filter/FlateDecode"), stream(zlib.compress(b"0 g 9 9 99 99 re f"), "/Filter/NoSuchDecode")],
)
def test_content_that_cannot_be_decoded_is_a_warning(tmp_path, renderer, content):
    (warning,) = warnings_of(one_page(tmp_path / "a.pdf", objects={4: content}), renderer)
    assert warning.startswith("The page has content, but the screenshot is blank.")


def test_a_page_that_the_other_renderer_draws_blank_without_a_warning_is_a_warning(tmp_path):
    """MuPDF reports that the content stream is an image; PDFium reports nothing."""
    content = stream(b"\xff\xd8junk" * 20, "/Filter/DCTDecode")
    (warning,) = warnings_of(one_page(tmp_path / "a.pdf", objects={4: content}), "auto")
    assert warning.endswith("the screenshot is blank. Both renderers draw it so. Re-export the file.")


def test_messages_of_a_page_do_not_count_for_the_next_page(tmp_path):
    """MuPDF reports how often a message was repeated when the next message arrives, or later."""
    noise = stream(text_content() + "unknown " * 20)
    path = page_tree(tmp_path / "a.pdf", "/Kids[10 0 R 12 0 R]/Count 2", {11: noise, 13: stream(text_content(LINES))})
    blank = page_tree(tmp_path / "b.pdf", "/Kids[10 0 R 12 0 R]/Count 2", {11: noise, 13: stream("q Q")})
    for file in (path, blank):
        with opened(file, "pymupdf") as document:
            assert [document.render(number).warnings for number in (1, 2)] == [(), ()]


@pytest.mark.parametrize(("flags", "count"), [(4, 1), (2, 0), (32, 0)])
def test_an_annotation_that_pdfium_does_not_draw_is_a_warning(tmp_path, flags, count):
    line = f"/Annots[<</Type/Annot/Subtype/Line/F {flags}/Rect[100 100 400 400]/L[100 100 400 400]/C[1 0 0]>>]"
    assert len(warnings_of(one_page(tmp_path / "a.pdf", "q Q", page=line), "pypdfium2")) == count


@pytest.mark.parametrize("missing", ["null", "42", "[1 2]"])
def test_a_page_without_a_page_object_is_a_warning(tmp_path, missing):
    path = page_tree(tmp_path / "a.pdf", "/Kids[10 0 R 12 0 R]/Count 2", {12: missing})
    with opened(path) as document:
        assert document.page_count == 2
        assert document.render(1).words
        for _ in range(2):  # the warning stays when the page is rendered again
            (warning,) = document.render(2).warnings
            assert warning.startswith("The page is missing in the file, and the screenshot is blank.")


@pytest.mark.parametrize("renderer", ["auto", "pymupdf"])
@pytest.mark.parametrize("content", ["<</Length 9>>", "[6 0 R 4 0 R]"])
def test_contents_that_are_no_stream_are_a_warning(tmp_path, renderer, content):
    (warning,) = warnings_of(one_page(tmp_path / "a.pdf", objects={4: content}), renderer)
    assert warning.startswith("The page has content, but the screenshot is blank.")
