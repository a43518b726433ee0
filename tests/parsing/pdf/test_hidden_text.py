"""Text that nobody can see is no word of the page; the invisible layer of a scan is. Both renderers agree."""

from __future__ import annotations

from collections import Counter

import pymupdf
import pytest
from helpers.garbled_pages import draw_page, font_named, new_document
from helpers.garbled_texts import TEXTS
from helpers.hidden_text_pdfs import SCENES, Scene, hidden_text_pdf

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import SourceFile

RENDERERS = ["pymupdf", "pypdfium2"]
SEEDS = range(8)


def words_of(path, renderer):
    source = SourceFile(path, path.parent, path.name, "pdf")
    with open_document(source, IngestSettings(ocr="never", regions=False, renderer=renderer)) as document:
        page = document.render(1)
    return [word.text for word in page.words]


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_only_visible_words_are_words(tmp_path, seed, renderer):
    visible = hidden_text_pdf(tmp_path / "a.pdf", seed)
    expected = Counter(word for words in visible.values() for word in words)
    words = Counter(words_of(tmp_path / "a.pdf", renderer))
    missing = {name for name, words_of_scene in visible.items() if set(words_of_scene) & set(expected - words)}
    assert missing == set()
    assert words - expected == Counter()


def test_the_seeds_have_all_scenes(tmp_path):
    names = {name for seed in SEEDS for name in hidden_text_pdf(tmp_path / "a.pdf", seed)}
    assert names == {build.__name__.lstrip("_") for build in SCENES}
    assert all(build(Scene()) is None for build in SCENES)


def scan(path, *, layer="en", mode=3, is_below=False, ink=True):
    """Write a page with a picture of English text, and a text layer with the words of a text at its places.

    Args:
        path: Path of the file.
        layer: Language of the text layer.
        mode: Text render mode of the layer.
        is_below: Whether the picture is painted over the text layer.
        ink: Whether the picture shows the text.
    """
    drawn = new_document()
    draw_page(drawn, TEXTS["en"], font_named("tiro"), size=12)
    layers = new_document()
    draw_page(layers, TEXTS[layer], font_named("tiro"), size=12)
    document = new_document()
    page = document[0]
    picture = (drawn if ink else new_document())[0].get_pixmap(dpi=150)
    writer = pymupdf.TextWriter(page.rect)
    for x0, _, _, y1, word, *_ in layers[0].get_text("words"):
        writer.append((x0, y1 - 3), word, font=font_named("tiro"), fontsize=12)
    if is_below:
        writer.write_text(page, render_mode=mode)
    page.insert_image(page.rect, pixmap=picture)
    if not is_below:
        writer.write_text(page, render_mode=mode)
    document.save(path)
    return path


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize(("mode", "is_below"), [(3, False), (3, True), (0, True)])
def test_a_layer_that_repeats_the_picture_of_a_scan_stays(tmp_path, renderer, mode, is_below):
    path = scan(tmp_path / "a.pdf", mode=mode, is_below=is_below)
    assert words_of(path, renderer) == TEXTS["en"].split()


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("arguments", [{"ink": False}, {"layer": "fi"}, {"ink": False, "mode": 0}])
def test_a_layer_that_does_not_repeat_the_picture_is_dropped(tmp_path, renderer, arguments):
    path = scan(tmp_path / "a.pdf", is_below=True, **arguments)
    assert words_of(path, renderer) == []
