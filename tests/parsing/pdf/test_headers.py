"""PDFs whose header is incomplete or missing, which PDF readers open. Other content named .pdf stays a failure."""

from __future__ import annotations

import pytest
from helpers.raw_pdf import LINES, one_page

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import SourceFile, classify
from jina_rag.types import Failure

WORDS = sum(len(line.split()) for line in LINES)


@pytest.mark.parametrize("header", [b"%PDF\n", b"%PDF-", b"", b"% a comment\n\n", b"\xef\xbb\xbf%PDF 1.4\n"])
def test_a_pdf_without_a_whole_header_is_read(tmp_path, header):
    path = one_page(tmp_path / "a.pdf")
    content = path.read_bytes()
    path.write_bytes(header + content[content.index(b"1 0 obj") :])
    source = classify(path)
    assert isinstance(source, SourceFile)
    with open_document(source, IngestSettings(dpi=72)) as document:
        assert document.page_count == 1
        assert len(document.render(1).words) == WORDS


@pytest.mark.parametrize("name", ["a.txt", "a.bin"])
def test_only_the_suffix_makes_a_pdf_without_a_header(tmp_path, name):
    path = one_page(tmp_path / name)
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    assert getattr(classify(path), "kind", None) != "pdf"


@pytest.mark.parametrize("text", ["Dear all, see objection 1 0 objects.", "<html><body>404</body></html>", "PDF 1.4"])
def test_text_named_pdf_is_a_failure(tmp_path, text):
    (tmp_path / "a.pdf").write_text(text)
    event = classify(tmp_path / "a.pdf")
    assert isinstance(event, Failure)
    assert event.reason.startswith("The content is not a PDF, contrary to the suffix.")


def test_pages_without_a_catalog_are_read(tmp_path):
    path = one_page(tmp_path / "a.pdf", objects={1: "null"})
    with open_document(classify(path), IngestSettings(dpi=72)) as document:
        assert document.page_count == 1
        assert len(document.render(1).words) == WORDS
        assert document.warnings
