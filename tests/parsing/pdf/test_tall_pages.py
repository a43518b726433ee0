"""PDF pages with a very tall or very wide picture: one page each, rendered and read at the full size of the picture."""

from __future__ import annotations

import io

import pymupdf
import pytest
from PIL import Image, ImageDraw, ImageFont

from jina_rag.config import IngestSettings, Limits
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.sources import SourceFile
from jina_rag.types import Page

RENDERERS = ["pymupdf", "pypdfium2"]


def source(path):
    return SourceFile(path, path.parent, path.name, "pdf")


WORDS = "harbour lantern copper violin meadow granite falcon tunnel orchid pepper saddle timber".split()


def tall_picture():
    """Return an image with one word for each 225 rows, and the words."""
    image = Image.new("RGB", (220, 2700), "white")
    draw = ImageDraw.Draw(image)
    words = [WORDS[number % len(WORDS)] for number in range(12)]
    for number, word in enumerate(words):
        draw.text((20, 10 + 225 * number), word, font=ImageFont.load_default(22), fill="black")
    return image, words


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def render(path, renderer, settings=None):
    with open_document(source(path), settings or IngestSettings(renderer=renderer)) as document:
        assert document.page_count == 1
        return document.render(1)


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("size", [(220, 2700), (2700, 220)])
def test_page_is_rendered_at_the_resolution_of_its_long_picture(tmp_path, renderer, size):
    image = Image.effect_noise(size, 60)
    image.save(tmp_path / "a.pdf", resolution=600)  # at 150 dpi, a sixteenth of the pixels would be left
    screenshot = render(tmp_path / "a.pdf", renderer).screenshot
    assert screenshot.image.size == size
    assert screenshot.dpi == pytest.approx(600, rel=0.01)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_other_pages_keep_the_configured_resolution(tmp_path, renderer):
    Image.effect_noise((220, 2400), 60).save(tmp_path / "short.pdf", resolution=300)  # within max_image_side
    assert render(tmp_path / "short.pdf", renderer).screenshot.image.size == (110, 1200)
    Image.effect_noise((900, 2600), 60).save(tmp_path / "sheet.pdf", resolution=600)
    assert render(tmp_path / "sheet.pdf", renderer).screenshot.dpi == pytest.approx(150, rel=0.01)
    with pymupdf.open() as document:
        page = document.new_page(width=100, height=1000)
        page.insert_text((10, 20), "juniper")
        page.insert_image((10, 50, 60, 60), stream=png(Image.new("L", (2000, 400), "gray")))  # a logo
        document.save(tmp_path / "logo.pdf")
    assert render(tmp_path / "logo.pdf", renderer).screenshot.dpi == pytest.approx(150, rel=0.01)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_strips_of_a_long_picture_count_together(tmp_path, renderer):
    with pymupdf.open() as document:
        page = document.new_page(width=22, height=300)
        for top in range(0, 300, 30):
            page.insert_image((0, top, 22, top + 30), stream=png(Image.effect_noise((220, 300), 60)))
        document.save(tmp_path / "a.pdf")
    assert render(tmp_path / "a.pdf", renderer).screenshot.image.size == (220, 3000)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_limit_of_pixels_holds_with_a_warning(tmp_path, renderer):
    Image.effect_noise((220, 2700), 60).save(tmp_path / "a.pdf", resolution=600)
    page = render(
        tmp_path / "a.pdf", renderer, IngestSettings(renderer=renderer, limits=Limits(max_render_pixels=100_000))
    )
    image = page.screenshot.image
    assert 90_000 < image.width * image.height <= 105_000
    assert any("unreadable" in warning for warning in page.warnings)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_ocr_reads_a_tall_page_in_slices(tmp_path, renderer):
    image, words = tall_picture()
    image.save(tmp_path / "a.pdf", resolution=600)
    events = list(read_pages([source(tmp_path / "a.pdf")], IngestSettings(renderer=renderer)))
    (page,) = [event for event in events if isinstance(event, Page)]
    assert (page.number, page.count) == (1, 1)
    assert [word.text for word in page.words] == words
    for number, word in enumerate(page.words):
        top = (10 + 225 * number) / 2700
        assert top - 0.003 < word.box[1] < word.box[3] < top + 0.015
        assert word.box[0] * 220 == pytest.approx(20, abs=8)
