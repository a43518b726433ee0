"""Attachments of a PDF (room `parsing`): names, kinds, limits, both libraries, and temporary files."""

from __future__ import annotations

import io
import os
import re
import tempfile
import threading
import time
from pathlib import Path

import pymupdf
import pytest
from helpers.portfolios import pdf_content, portfolio
from helpers.raw_pdf import one_page, stream
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from jina_rag import load_pages
from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError
from jina_rag.parsing import attachment_readers
from jina_rag.parsing.attachment_names import attachment_names, attachment_path
from jina_rag.parsing.attachment_readers import may_have_attachments
from jina_rag.parsing.attachments import extracted, read_attachments
from jina_rag.parsing.sources import source_file
from jina_rag.parsing.workers.attachments import IsolatedAttachments

HOSTILE_NAMES = [
    "../../etc/passwd.pdf", "..", "/", "a#b.pdf", "x\x00\n\x07[31m.pdf", "C:\\folder\\win.pdf", "same.pdf", "same.pdf",
    "\u202efdp.exe.pdf", "отчёт 合同.pdf", "n" * 300 + ".pdf", "same (2).pdf", "*[1]?.pdf",
]  # fmt: skip


@pytest.fixture(params=["pymupdf", "pypdfium2"])
def settings(request):
    return IngestSettings(renderer=request.param, ocr="never", dpi=60, isolate=False)


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """Use a temporary folder of the test for attachments, and check that nothing stays in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not os.listdir(folder)


@pytest.fixture
def attached(tmp_path):
    return pdf_content(tmp_path / "attached.pdf", "ATTACHED")


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    return file.getvalue()


def test_hostile_names_become_different_file_names():
    names = attachment_names(HOSTILE_NAMES, Path("report.pdf"))
    assert names == [
        "passwd.pdf", "attachment 2", "attachment 3", "a_b.pdf", "x[31m.pdf", "win.pdf", "same.pdf", "same (2).pdf",
        "fdp.exe.pdf", "отчёт 合同.pdf", "n" * 116 + ".pdf", "same (2) (2).pdf", "*[1]?.pdf",
    ]  # fmt: skip


@hypothesis_settings(max_examples=60, deadline=None)
@given(stored_names=st.lists(st.text(st.characters(), max_size=12), max_size=8))
def test_any_names_become_different_file_names_without_control_characters(stored_names):
    names = attachment_names(stored_names, Path("report.pdf"))
    assert len(set(names)) == len(stored_names)
    for name in names:
        assert name.strip()
        assert not re.search(r"[/\\#\x00-\x1f\x7f]", name)
        assert Path("a", attachment_path(Path("report.pdf"), name)).parent == Path("a")
        name.encode("utf-8")


def test_many_attachments_with_the_same_name_are_named_in_linear_time():
    names = attachment_names(["a.pdf"] * 20_000, Path("report.pdf"))
    assert len(set(names)) == 20_000
    assert names[-1] == "a (20000).pdf"


def test_existing_file_with_the_path_of_an_attachment_keeps_the_path(tmp_path):
    (tmp_path / "report.pdf#a.pdf").touch()
    assert attachment_names(["a.pdf"], tmp_path / "report.pdf") == ["a (2).pdf"]


def test_attachments_are_read_with_both_libraries(tmp_path, settings, attached):
    contents = [(name, attached) for name in HOSTILE_NAMES] + [
        ("image", png()),
        ("data.xml", b"<a/>"),
        ("t.dwg", b"AC1032"),
    ]
    source = source_file(portfolio(tmp_path / "report.pdf", contents))
    attachments = read_attachments(source, settings)
    names = attachment_names([*HOSTILE_NAMES, "image"], source.path)
    assert [document.path.name for document in attachments.documents] == [f"report.pdf#{name}" for name in names]
    assert [document.doc_id for document in attachments.documents] == [f"report.pdf#{name}" for name in names]
    assert [document.kind for document in attachments.documents] == ["pdf"] * len(HOSTILE_NAMES) + ["image"]
    assert not attachments.failures
    assert attachments.is_complete
    assert "'data.xml'" in attachments.warnings[0]
    with extracted(attachments.documents[0], settings) as (file, _):
        assert file.path.read_bytes() == attached


def test_files_of_annotations_are_attachments(tmp_path, settings, attached):
    """A file that is also in the name tree is read once."""
    specification = "<</Type/Filespec/F(%s)/UF(%s)/EF<</F 21 0 R>>>>"
    annotation = "<</Type/Annot/Subtype/FileAttachment/Rect[72 72 90 90]/FS %s>>"
    path = one_page(
        tmp_path / "report.pdf",
        page="/Annots[10 0 R 11 0 R 12 0 R]",
        objects={
            1: "<</Type/Catalog/Pages 2 0 R/Names<</EmbeddedFiles<</Names[(a) 20 0 R]>>>>>>",
            10: annotation % (specification % ("clip.pdf", "clip.pdf")),
            11: annotation % "20 0 R",
            12: "<</Type/Annot/Subtype/Text/Rect[9 9 20 20]/Contents(note)>>",
            20: specification % ("tree.pdf", "tree.pdf"),
            21: stream(attached, "/Type/EmbeddedFile"),
        },
    )
    documents = read_attachments(source_file(path), settings).documents
    assert [document.path.name for document in documents] == ["report.pdf#tree.pdf", "report.pdf#clip.pdf"]
    with extracted(documents[1], settings) as (file, _):
        assert file.path.read_bytes() == attached


def test_attachment_with_the_suffix_of_another_format_fails_alone(tmp_path, settings, attached):
    source = source_file(portfolio(tmp_path / "report.pdf", [("bad.pdf", b"no pdf"), ("good.pdf", attached)]))
    attachments = read_attachments(source, settings)
    assert [document.path.name for document in attachments.documents] == ["report.pdf#good.pdf"]
    assert [(failure.path.name, failure.page) for failure in attachments.failures] == [("report.pdf#bad.pdf", None)]


def test_limits_of_number_and_bytes_are_failures(tmp_path, settings, attached):
    source = source_file(portfolio(tmp_path / "report.pdf", [(f"{n}.pdf", attached) for n in range(4)]))
    limited = read_attachments(source, IngestSettings(isolate=False, limits=Limits(max_attachments=2)))
    assert [document.path.name for document in limited.documents] == ["report.pdf#0.pdf", "report.pdf#1.pdf"]
    assert "max_attachments" in limited.failures[0].reason
    assert not limited.is_complete
    bomb = source_file(portfolio(tmp_path / "bomb.pdf", [("zeros.pdf", bytes(30_000_000)), ("a.pdf", attached)]))
    assert bomb.path.stat().st_size < 100_000
    limits = Limits(max_bytes=1_000_000)
    attachments = read_attachments(bomb, IngestSettings(renderer=settings.renderer, isolate=False, limits=limits))
    assert [document.path.name for document in attachments.documents] == ["bomb.pdf#a.pdf"]
    assert "max_bytes" in attachments.failures[0].reason
    many = read_attachments(source, IngestSettings(isolate=False, limits=Limits(max_bytes=2 * len(attached) + 9000)))
    assert len(many.documents) + len(many.failures) == 4


def test_attachments_of_an_attachment_are_named_only(tmp_path, settings, attached):
    inner = portfolio(tmp_path / "inner.pdf", [("deep.pdf", attached)]).read_bytes()
    source = source_file(portfolio(tmp_path / "report.pdf", [("inner.pdf", inner)]))
    (document,) = read_attachments(source, settings).documents
    assert "'deep.pdf'" in document.warnings[0]
    assert read_attachments(document, settings).documents == ()


def test_attachments_of_an_encrypted_file_are_read_with_its_password(tmp_path, attached):
    path = tmp_path / "secret.pdf"
    with pymupdf.open() as document:
        document.new_page().insert_text((72, 72), "secret")
        document.embfile_add("key", attached, filename="inner.pdf", ufilename="inner.pdf")
        document.save(path, encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="word", owner_pw="owner")
    source = source_file(path)
    for passwords in ((), ("wrong",)):
        attachments = read_attachments(source, IngestSettings(isolate=False, passwords=passwords))
        assert attachments.documents == ()
        assert not attachments.is_complete
    for renderer in ("pymupdf", "pypdfium2"):
        by_glob = IngestSettings(isolate=False, renderer=renderer, passwords={"secret.pdf": "word"})
        assert [d.path.name for d in read_attachments(source, by_glob).documents] == ["secret.pdf#inner.pdf"]


@pytest.mark.parametrize("pattern", ["report.pdf", "*#inner.pdf"])
def test_encrypted_attachment_is_read_with_the_password_of_its_path_or_file(tmp_path, attached, pattern):
    with pymupdf.open(stream=attached, filetype="pdf") as document:
        inner = document.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="word", owner_pw="owner")
    path = portfolio(tmp_path / "report.pdf", [("inner.pdf", inner)])
    for passwords, ids in (
        ({pattern: "word"}, ["report.pdf", "report.pdf#inner.pdf"]),
        ({"x": "word"}, ["report.pdf"]),
    ):
        failures = []
        options = IngestSettings(ocr="never", dpi=40, isolate=False, passwords=passwords)
        pages = load_pages(path, settings=options, on_failure=failures.append)
        assert [page.doc_id for page in pages] == ids
        assert [failure.path.name for failure in failures] == ["report.pdf#inner.pdf"] * (2 - len(ids))


def test_content_that_changed_after_the_listing_is_an_error(tmp_path, settings, attached):
    path = portfolio(tmp_path / "report.pdf", [("a.pdf", attached)])
    (document,) = read_attachments(source_file(path), settings).documents
    for attachments in ([("a.pdf", pdf_content(tmp_path / "b.pdf", "OTHER"))], []):
        portfolio(path, attachments)
        with pytest.raises(DocumentError, match="changed while it was read"), extracted(document, settings):
            pass


def test_file_without_attachment_keys_is_not_opened(tmp_path, monkeypatch, settings):
    def fail(*_):
        raise AssertionError

    path = portfolio(tmp_path / "plain.pdf", [], collection=False)
    monkeypatch.setattr(attachment_readers, "open_attachments", fail)
    assert not may_have_attachments(source_file(path))
    assert read_attachments(source_file(path), settings).is_complete


def test_key_across_the_boundary_of_two_blocks_is_found(tmp_path, monkeypatch, attached):
    path = portfolio(tmp_path / "report.pdf", [("a.pdf", attached)])
    for size in (7, 8, 9, 10, 11):
        monkeypatch.setattr(attachment_readers, "_BLOCK", size)
        assert may_have_attachments(source_file(path))


def test_loaded_pages_include_attachments_read_in_a_worker_process(tmp_path, attached):
    portfolio(tmp_path / "report.pdf", [("../a.pdf", attached), ("b.png", png()), ("c.pdf", b"broken")])
    failures = []
    settings = IngestSettings(ocr="never", dpi=60, processes=1)
    pages = list(load_pages(tmp_path / "report.pdf", settings=settings, on_failure=failures.append))
    assert [(page.path.name, page.doc_id, page.number) for page in pages] == [
        ("report.pdf", "report.pdf", 1), ("report.pdf#a.pdf", "report.pdf#a.pdf", 1),
        ("report.pdf#b.png", "report.pdf#b.png", 1),
    ]  # fmt: skip
    assert "ATTACHED" in pages[1].text
    assert [failure.path.name for failure in failures] == ["report.pdf#c.pdf"]


def test_crash_of_the_worker_fails_one_attachment(tmp_path, attached, monkeypatch):
    path = portfolio(tmp_path / "report.pdf", [("a.pdf", attached), ("b.pdf", attached)])
    send = IsolatedAttachments._send

    def kill_first(self, worker, requests):
        if requests[-1].get("index") == 0:
            worker.kill()
        send(self, worker, requests)

    monkeypatch.setattr(IsolatedAttachments, "_send", kill_first)
    attachments = read_attachments(source_file(path), IngestSettings())
    assert [document.path.name for document in attachments.documents] == ["report.pdf#b.pdf"]
    assert "crashed" in attachments.failures[0].reason


def test_file_on_which_the_first_library_crashes_is_opened_with_the_other(tmp_path, attached, monkeypatch):
    path = portfolio(tmp_path / "report.pdf", [("a.pdf", attached)])
    send = IsolatedAttachments._send

    def kill_first(self, worker, requests):
        if self._settings.renderer == "auto":
            worker.kill()
        send(self, worker, requests)

    monkeypatch.setattr(IsolatedAttachments, "_send", kill_first)
    attachments = read_attachments(source_file(path), IngestSettings())
    assert [document.path.name for document in attachments.documents] == ["report.pdf#a.pdf"]
    named = read_attachments(source_file(path), IngestSettings(renderer="pymupdf"))
    assert [document.path.name for document in named.documents] == ["report.pdf#a.pdf"]


def test_closing_loaded_pages_stops_the_reading_of_attachments(tmp_path, attached, monkeypatch):
    reached, stopped = threading.Event(), threading.Event()
    for name in ("a.pdf", "b.pdf"):
        portfolio(tmp_path / name, [("x.pdf", attached)])
    save = IsolatedAttachments.save

    def wait_for_stop(self, index, path):
        if self._source.path.name == "b.pdf":
            reached.set()
            while not self._stop.is_set:
                time.sleep(0.01)
            stopped.set()
        save(self, index, path)

    monkeypatch.setattr(IsolatedAttachments, "save", wait_for_stop)
    pages = load_pages([tmp_path / "a.pdf", tmp_path / "b.pdf"], settings=IngestSettings(ocr="never", dpi=40))
    assert next(pages).doc_id == "a.pdf"
    assert reached.wait(60)
    pages.close()
    assert stopped.is_set()


def test_attachments_that_cannot_be_listed_are_a_warning_of_a_readable_file(tmp_path, settings, attached, monkeypatch):
    def fail(*_):
        raise DocumentError("The list is damaged.")

    portfolio(tmp_path / "report.pdf", [("a.pdf", attached)])
    monkeypatch.setattr("jina_rag.parsing.attachments.open_attachments_isolated", fail)
    (page,) = load_pages(tmp_path / "report.pdf", settings=settings)
    assert page.warnings == ("The attachments cannot be read: The list is damaged.",)


def test_warnings_about_a_document_are_warnings_of_its_first_page(tmp_path, settings):
    portfolio(tmp_path / "a.pdf", [("data.xml", b"<a/>")])
    portfolio(tmp_path / "b.pdf", [])
    pages = list(load_pages(tmp_path, settings=settings))
    assert [page.doc_id for page in pages] == ["a.pdf", "b.pdf"]
    assert "'data.xml'" in pages[0].warnings[0]
    assert pages[1].warnings == ()
