"""Office files: told by content, converted by LibreOffice where it is installed, one clear sentence where it is not.

A stand-in program does the converting in most tests; the last ones use the real one and are skipped without it.
"""

from __future__ import annotations

import http.server
import os
import shlex
import stat
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import closing

import pytest

from jina_rag.config import IngestSettings, Limits
from jina_rag.parsing import office
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.sources import SourceFile, find_sources, sniff
from jina_rag.testing import sample_pdf
from jina_rag.types import Failure, Page

QUICK = IngestSettings(dpi=60, ocr="never")
RTF = rb"{\rtf1\ansi Hello juniper\page Second page}"
posix = pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
real = pytest.mark.skipif(office.find_libreoffice() is None, reason="LibreOffice is not installed")


def odt(path, body=b"<text:p>Hello juniper</text:p>"):
    names = " ".join(
        f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for short, name in [("office", "office"), ("text", "text"), ("draw", "drawing")]
    )
    names += ' xmlns:xlink="http://www.w3.org/1999/xlink"'
    names += ' xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0"'
    kind = "application/vnd.oasis.opendocument.text"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", kind, zipfile.ZIP_STORED)
        archive.writestr(
            "content.xml",
            f'<?xml version="1.0"?><office:document-content {names} office:version="1.2"><office:body>'
            f"<office:text>{body.decode()}</office:text></office:body></office:document-content>",
        )
        archive.writestr(
            "META-INF/manifest.xml",
            '<?xml version="1.0"?>'
            '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">'
            f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{kind}"/>'
            '<manifest:file-entry manifest:full-path="content.xml" manifest:media-type="text/xml"/>'
            "</manifest:manifest>",
        )
    return path


def test_office_files_are_told_by_content(tmp_path):
    (tmp_path / "letter").write_bytes(RTF)
    odt(tmp_path / "text.odt")
    with zipfile.ZipFile(tmp_path / "sheet.bin", "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    (tmp_path / "old.doc").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
    (tmp_path / "mail.msg").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("one.txt", "x")
    (tmp_path / "fake.docx").write_text("not a document")
    entries = list(find_sources([tmp_path]))
    kinds = {entry.path.name: entry.kind for entry in entries if isinstance(entry, SourceFile)}
    assert kinds == dict.fromkeys(["letter", "text.odt", "sheet.bin", "old.doc"], "office")
    (failed,) = [entry for entry in entries if isinstance(entry, Failure)]
    assert failed.path.name == "fake.docx"
    assert "not an office file" in failed.reason
    assert sniff(b"PK\3\4" + b"\0" * 100) is None


def source(path):
    (found,) = [entry for entry in find_sources([path]) if isinstance(entry, SourceFile)]
    return found


def test_without_libreoffice_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(office, "find_libreoffice", lambda: None)
    (tmp_path / "a.rtf").write_bytes(RTF)
    (event,) = read_pages([source(tmp_path / "a.rtf")], QUICK)
    assert event == Failure(
        tmp_path / "a.rtf", "It is an office file: install LibreOffice to have it converted, or save it as PDF."
    )


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A stand-in that "converts" whatever it gets; `program("code")` writes it."""

    def write(code: str):
        file, script = tmp_path / "soffice", tmp_path / "soffice.txt"
        script.write_text(f"import sys, os, time, shutil, subprocess\n{code}\n")
        # Through a shell: the path of an interpreter may hold spaces, which a first line does not bear.
        file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(office, "find_libreoffice", lambda: file)
        return file

    return write


COPY = (
    "out = sys.argv[sys.argv.index('--outdir') + 1]; os.makedirs(out)\n"
    "assert sys.argv[1].startswith('-env:UserInstallation=file:///'), sys.argv\n"
    "shutil.copy({made!r}, os.path.join(out, 'document.pdf'))"
)


@posix
def test_pages_of_the_converted_file_carry_the_files_own_name(tmp_path, program):
    made = sample_pdf(tmp_path / "made.pdf", ["one juniper", "two"])
    program(COPY.format(made=str(made)))
    name = "-odd 'näme' \n.rtf"
    (tmp_path / name).write_bytes(RTF)
    before = set(os.listdir(tmp_path))
    pages = [event for event in read_pages([source(tmp_path / name)], QUICK) if isinstance(event, Page)]
    assert [(page.path, page.doc_id, page.number, page.count) for page in pages] == [
        (tmp_path / name, name, 1, 2),
        (tmp_path / name, name, 2, 2),
    ]
    assert "juniper" in pages[0].text
    assert set(os.listdir(tmp_path)) == before


@posix
@pytest.mark.parametrize(
    ("code", "reason"), [("sys.exit(0)", "could not convert it"), ("time.sleep(60)", "longer than 1 s")]
)
def test_a_conversion_that_fails_or_hangs_ends_in_a_reason(tmp_path, program, code, reason):
    program(code)
    (tmp_path / "a.rtf").write_bytes(RTF)
    (event,) = read_pages([source(tmp_path / "a.rtf")], IngestSettings(limits=Limits(max_seconds=1)))
    assert reason in event.reason


@posix
def test_closing_the_stream_ends_a_conversion(tmp_path, program):
    program("open(sys.argv[0] + '.started', 'w').close(); time.sleep(60)")
    (tmp_path / "a.rtf").write_bytes(RTF)
    made = sample_pdf(tmp_path / "first.pdf", ["one"])
    with closing(read_pages([source(made), source(tmp_path / "a.rtf")], QUICK)) as events:
        next(events)
        deadline = time.monotonic() + 20
        while not (tmp_path / "soffice.started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        start = time.monotonic()
    assert time.monotonic() - start < 2


@posix
def test_the_program_stands_in_its_own_folder(tmp_path, program):
    made = sample_pdf(tmp_path / "made.pdf", ["one"])
    program("assert os.path.samefile('.', os.path.dirname(sys.argv[-1]))\n" + COPY.format(made=str(made)))
    (tmp_path / "a.rtf").write_bytes(RTF)
    assert [event.number for event in read_pages([source(tmp_path / "a.rtf")], QUICK) if isinstance(event, Page)] == [1]


@posix
def test_a_program_that_cannot_be_started_is_a_reason(tmp_path, program):
    program("").chmod(0o600)
    (tmp_path / "a.rtf").write_bytes(RTF)
    (event,) = read_pages([source(tmp_path / "a.rtf")], QUICK)
    assert event.reason == "LibreOffice cannot be started: Permission denied."


def test_no_room_for_temporary_files_is_a_reason(tmp_path, program, monkeypatch):
    program("")
    (tmp_path / "a.rtf").write_bytes(RTF)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    (event,) = read_pages([source(tmp_path / "a.rtf")], QUICK)
    assert "no folder for temporary files (No space left on device)" in event.reason


@posix
@pytest.mark.parametrize("path", ["{here}", ".", ""])
def test_a_program_among_the_documents_is_not_run(tmp_path, monkeypatch, path):
    for name in ("soffice", "libreoffice"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", path.format(here=tmp_path) + os.pathsep)
    monkeypatch.setattr(office, "_MAC", tmp_path / "none")
    monkeypatch.setattr(office, "_WINDOWS", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    assert office.find_libreoffice() is None
    if path.startswith("{"):
        monkeypatch.chdir("/")
        assert office.find_libreoffice() == tmp_path / "soffice"


@real
def test_libreoffice_converts(tmp_path):
    (tmp_path / "a.rtf").write_bytes(RTF)
    odt(tmp_path / "b.odt")
    for name, count in (("a.rtf", 2), ("b.odt", 1)):
        pages = [event for event in read_pages([source(tmp_path / name)], QUICK) if isinstance(event, Page)]
        assert len(pages) == count
        assert "juniper" in pages[0].text


@real
def test_a_document_cannot_make_libreoffice_fetch_anything(tmp_path):
    asked = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def handle_one_request(self):
            asked.append(self.client_address)
            self.close_connection = True

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            link = f"http://127.0.0.1:{server.server_address[1]}/pixel.png"
            body = (
                '<text:p>Hello<draw:frame text:anchor-type="paragraph" svg:width="5cm" svg:height="5cm">'
                f'<draw:image xlink:href="{link}" xlink:type="simple" xlink:show="embed" xlink:actuate="onLoad"/>'
                "</draw:frame></text:p>"
            )
            odt(tmp_path / "spy.odt", body.encode())
            events = list(read_pages([source(tmp_path / "spy.odt")], QUICK))
            assert any(isinstance(event, Page) for event in events)
            assert asked == []
        finally:
            server.shutdown()
            thread.join()
