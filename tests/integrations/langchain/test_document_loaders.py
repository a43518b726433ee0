"""JinaPageLoader: one document per page with the page image, lazy loading and unreadable files."""

from __future__ import annotations

import inspect
import logging
import stat
import sys
from pathlib import Path

import pytest

pytest.importorskip("langchain_core")

from helpers.langchain_fakes import PAGES, PLAIN, no_network
from langchain_core.document_loaders import BaseLoader
from langchain_jina_rag import JinaPageLoader, JinaVectorStore
from PIL import Image, ImageDraw, ImageFont

from jina_rag import DocumentIndex, InvalidInputError, MissingDependencyError, load_pages, open_page
from jina_rag.testing import FakeEmbedder, sample_pdf


@pytest.fixture(autouse=True)
def block_network():
    with no_network():
        yield


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    sample_pdf(folder / "animals.pdf", PAGES)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    return folder


async def test_loader_returns_one_document_per_page(files, tmp_path):
    loader = JinaPageLoader(files, image_folder=tmp_path / "pages", settings=PLAIN, on_failure=lambda failure: None)
    docs = loader.load()
    assert [doc.page_content for doc in docs] == PAGES
    for number, doc in enumerate(docs):
        assert doc.metadata == {
            "source": str(files / "animals.pdf"),
            "page": number,
            "total_pages": 3,
            "doc_id": "animals.pdf",
            "image": doc.metadata["image"],
        }
        assert doc.id == f"{files / 'animals.pdf'}#page={number + 1}"
        image = Path(doc.metadata["image"])
        assert image.is_relative_to(tmp_path / "pages")
        with Image.open(image) as image_file:
            assert image_file.format == "JPEG"
        assert open_page(image).text == doc.page_content
    assert [doc async for doc in loader.alazy_load()] == docs
    assert await loader.aload() == docs == list(loader.lazy_load())


def test_lazy_load_reads_pages_on_demand(files, tmp_path, monkeypatch):
    page_numbers = []

    def counting_load_pages(*args, **options):
        for page in load_pages(*args, **options):
            page_numbers.append(page.number)
            yield page

    monkeypatch.setattr("jina_rag.adapters.pages.load_pages", counting_load_pages)
    loader = JinaPageLoader(files / "animals.pdf", image_folder=tmp_path / "pages", settings=PLAIN)
    documents = loader.lazy_load()
    assert inspect.isgenerator(documents)
    assert page_numbers == []
    next(documents)
    assert page_numbers == [1]
    documents.close()
    assert {"load", "alazy_load", "aload"}.isdisjoint(vars(JinaPageLoader))
    assert issubclass(JinaPageLoader, BaseLoader)


def test_unreadable_files_are_listed_and_reported(files, tmp_path, caplog):
    loader = JinaPageLoader([files], image_folder=tmp_path / "pages", settings=PLAIN)
    with caplog.at_level(logging.WARNING, logger="jina_rag"):
        assert len(loader.load()) == 3
    assert [failure.path for failure in loader.failures] == [files / "broken.pdf"]
    assert f"{files / 'broken.pdf'} was not loaded: {loader.failures[0].reason}" in caplog.text
    reported = []
    second_loader = JinaPageLoader(files, image_folder=tmp_path / "pages", settings=PLAIN, on_failure=reported.append)
    caplog.clear()
    second_loader.load()
    second_loader.load()
    assert len(reported) == 2
    assert second_loader.failures == reported[1:]  # only the failures of the last run
    assert not caplog.records
    (files / "notes.xyz").write_text("text")
    second_loader.load()
    assert [file.path.name for file in second_loader.skipped] == ["notes.xyz"]
    assert second_loader.skipped[0].reason in caplog.text
    with pytest.raises(InvalidInputError, match="nowhere"):
        JinaPageLoader(tmp_path / "nowhere", image_folder=tmp_path / "pages").load()


def test_image_folder_defaults_to_user_cache(files, tmp_path, monkeypatch):
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name, **options: tmp_path / "cache" / name)
    doc = next(iter(JinaPageLoader(files / "animals.pdf", settings=PLAIN).lazy_load()))
    folder = tmp_path / "cache" / "jina-rag" / "pages"
    assert Path(doc.metadata["image"]).is_relative_to(folder)
    if sys.platform != "win32":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(MissingDependencyError, match=r"'platformdirs'.*jina-rag\[langchain\]"):
        JinaPageLoader(files / "animals.pdf", settings=PLAIN).load()


def test_loaded_pages_keep_word_boxes_in_vector_store(files, tmp_path):
    embedder = FakeEmbedder()
    loader = JinaPageLoader(files / "animals.pdf", image_folder=tmp_path / "pages", settings=PLAIN)
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        store = JinaVectorStore(index)
        docs = loader.load()
        ids = store.add_documents(docs)
        assert ids == [doc.id for doc in docs]
        doc = store.similarity_search("growth by region", k=1)[0]
        assert doc.page_content == PAGES[1]
        assert {key: doc.metadata[key] for key in ("source", "page", "total_pages", "doc_id")} == {
            key: docs[1].metadata[key] for key in ("source", "page", "total_pages", "doc_id")
        }
        assert Path(doc.metadata["image"]).is_relative_to(index.location)
        hit = index.search("growth by region", k=1)[0]
        assert index.cite("growth by region", hit).box is not None  # the word boxes of the page are stored
        # Loading the same pages again adds no entries and embeds nothing.
        embedder.history.clear()
        assert store.add_documents(loader.load()) == ids
        assert not [entry for entry in embedder.history if entry[0] == "document"]
        assert len(store.similarity_search("whales", k=9)) == 3


def test_empty_image_folder_raises_invalid_input_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="image_folder is empty"):
        JinaPageLoader("docs", image_folder="")


def test_tall_image_is_one_document_per_slice(tmp_path):
    image = Image.new("RGB", (240, 2800), "white")
    for word, top in (("harbour", 20), ("violin", 2700)):
        ImageDraw.Draw(image).text((10, top), word, font=ImageFont.load_default(size=32), fill="black")
    image.save(tmp_path / "chat.png")
    docs = JinaPageLoader(tmp_path / "chat.png", image_folder=tmp_path / "pages").load()
    assert [(doc.page_content, doc.metadata["page"], doc.metadata["total_pages"]) for doc in docs] == [
        ("harbour", 0, 2),
        ("violin", 1, 2),
    ]
    assert len({doc.id for doc in docs}) == len({doc.metadata["image"] for doc in docs}) == 2
