"""Attachments of a PDF in JinaPageLoader and JinaPageReader: documents with paths of their own."""

from __future__ import annotations

import pytest
from helpers.portfolios import pdf_content, portfolio

from jina_rag.config import IngestSettings

SETTINGS = IngestSettings(ocr="never", dpi=40, isolate=False)


@pytest.fixture
def report(tmp_path):
    return portfolio(tmp_path / "report.pdf", [("a.pdf", pdf_content(tmp_path / "a.pdf", "ATTACHED"))])


def test_langchain_loader_loads_attachments(report, tmp_path):
    module = pytest.importorskip("langchain_jina_rag")
    documents = module.JinaPageLoader(report, image_folder=tmp_path / "pages", settings=SETTINGS).load()
    sources = [(document.metadata["source"], document.metadata["doc_id"]) for document in documents]
    assert sources == [(str(report), "report.pdf"), (f"{report}#a.pdf", "report.pdf#a.pdf")]
    assert "ATTACHED" in documents[1].page_content
    assert len({document.id for document in documents}) == 2


def test_llama_index_reader_loads_attachments(report, tmp_path):
    module = pytest.importorskip("llama_index.readers.jina_rag")
    reader = module.JinaPageReader(root=tmp_path, folder=tmp_path / "pages", settings=SETTINGS)
    documents = reader.load_data(report)
    assert [document.id_ for document in documents] == ["report.pdf#p0001", "report.pdf#a.pdf#p0001"]
    assert documents[1].metadata["file_name"] == "report.pdf#a.pdf"
    assert "ATTACHED" in documents[1].text
