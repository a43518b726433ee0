"""Query images that are pages of the index: a text embedder gets the stored words and reads no image by OCR."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import pytest
from PIL import Image

from jina_rag import DocumentIndex, load_pages
from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.models.lite import page_text
from jina_rag.testing import FakeEmbedder, make_page, sample_pdf

NO_OCR = IngestSettings(ocr="never")
TEXTS = [
    "rain falls on the green hills of the north",
    "pump number KX-4431-B needs oil",
    "cats sleep while the storm passes",
]


@pytest.fixture
def ocr_calls(monkeypatch):
    """Replace OCR by a function that records the images and finds no known word."""
    calls = []
    word = next(iter(make_page("elsewhere").words))
    monkeypatch.setattr(page_text, "_read", lambda image: calls.append(image) or [word])
    return calls


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    sample_pdf(folder / "notes.pdf", TEXTS)
    return folder


@pytest.fixture(scope="module")
def index(folder, tmp_path_factory):
    with DocumentIndex.open(tmp_path_factory.mktemp("kb") / "kb") as index:
        index.ingest(folder, settings=NO_OCR)
        yield index


def data_uri(content):
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def wordless_page(folder, number):
    [page] = [page for page in load_pages(folder / "notes.pdf", settings=NO_OCR) if page.number == number]
    return replace(page, words=())


@pytest.mark.parametrize(
    "make_query",
    [
        lambda path, page: path,
        lambda path, page: path.read_bytes(),
        lambda path, page: bytearray(path.read_bytes()),
        lambda path, page: {"image": path},
        lambda path, page: {"image": str(path)},
        lambda path, page: {"image": data_uri(path.read_bytes())},
        lambda path, page: [path],
        lambda path, page: page,
        lambda path, page: page.screenshot.image,
        lambda path, page: {"image": page},
        lambda path, page: [replace(page, words=make_page(TEXTS[1]).words)],
        lambda path, page: [page.screenshot.image, "and more"],
    ],
)
def test_query_image_of_an_indexed_page_is_not_read_by_ocr(index, folder, ocr_calls, make_query):
    [hit] = [hit for hit in index.search("pump oil", k=3) if hit.page == 2]
    results = index.search(make_query(hit.image_path, wordless_page(folder, 2)), k=3)
    assert ocr_calls == []
    assert results[0].page == 2
    assert results.query.startswith(TEXTS[1])
    assert results[0].scores["identifiers"] == 1, "the words of the page also select and score pages"


def test_query_image_has_the_vectors_of_the_words_of_the_page(index, ocr_calls):
    [hit] = [hit for hit in index.search("pump oil", k=3) if hit.page == 2]
    by_image, by_words = index._searcher.embed([hit.image_path, TEXTS[1]])
    assert by_image.text == by_words.text == TEXTS[1]
    assert by_image.tokens == by_words.tokens
    assert (by_image.multi == by_words.multi).all()
    assert by_image.content == hit.image_path, "the reranker still gets the image"


def test_indexed_image_file_is_found_by_the_hash_of_the_file(tmp_path, ocr_calls, monkeypatch):
    picture = tmp_path / "sheet.png"
    Image.new("RGB", (200, 100), "white").save(picture)
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.ingest(picture, settings=NO_OCR)
        index.search(picture)
        assert len(ocr_calls) == 1, "the page has no words"
        [record] = index.documents()
        store = index._session.resources.store
        [point] = index._session.resources.manifest.points(record.sha256)
        store.update_payload({point.point_id: {"text": "a sheet of white paper"}})
        assert index.search(picture).query == "a sheet of white paper"
        assert len(ocr_calls) == 1


def test_mapping_with_text_and_image_of_an_indexed_page_is_rejected(index):
    [hit] = [hit for hit in index.search("pump oil", k=3) if hit.page == 2]
    with pytest.raises(InvalidInputError):
        index.search({"text": "how", "image": hit.image_path})


def test_other_images_are_read_by_ocr(index, ocr_calls):
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "white").save(buffer, "PNG")
    assert index.search(buffer.getvalue()).query == ""
    assert len(ocr_calls) == 1
    [hit] = index.search("pump oil", k=1)
    results = index.search_many([hit.image_path, buffer.getvalue(), "rain"], k=1)
    assert [hits.query for hits in results] == [TEXTS[1], "", "rain"]
    assert len(ocr_calls) == 2


def test_unreadable_query_image_raises_the_error_of_the_embedder(index, tmp_path, ocr_calls):
    for query in (
        b"junk",
        {"image": "data:image/png;base64,AAA"},
        tmp_path / "missing.png",
        {"image": tmp_path},
        {"image": "https://localhost/x.png"},
    ):
        with pytest.raises(InvalidInputError):
            index.search(query)
    assert ocr_calls == []


def test_image_embedder_gets_the_image(folder, tmp_path):
    class ImageEmbedder(FakeEmbedder):
        modality = "image"

    with DocumentIndex.open(tmp_path / "kb", embedder=ImageEmbedder(name="pixels")) as index:
        index.ingest(folder, settings=NO_OCR)
        page = wordless_page(folder, 1)
        with pytest.raises(InvalidInputError, match="no words"):  # the fake embedder reads only words
            index.search(page)
        assert index.embedder.history[-1] == ("query", (page,))
