"""Office files: detection by content and conversion to PDF with LibreOffice.

Most tests use a fake LibreOffice script. Tests with the real program are skipped if LibreOffice is not installed.
"""

from __future__ import annotations

import http.server
import os
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from jina_rag.config import IngestSettings, Limits
from jina_rag.parsing import office
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.scratch_folders import scratch_folder
from jina_rag.parsing.sources import SourceFile, find_sources, sniff
from jina_rag.testing import sample_pdf
from jina_rag.types import Failure, Page

QUICK = IngestSettings(dpi=60, ocr="never")
RTF = rb"{\rtf1\ansi Hello juniper\page Second page}"
requires_posix = pytest.mark.skipif(os.name == "nt", reason="the fake LibreOffice is a shell script")
requires_libreoffice = pytest.mark.skipif(office.find_libreoffice() is None, reason="LibreOffice is not installed")


def write_odt(path, body=b"<text:p>Hello juniper</text:p>"):
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


def test_office_files_detected_by_content(tmp_path):
    (tmp_path / "letter").write_bytes(RTF)
    write_odt(tmp_path / "text.odt")
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
    (failure,) = [entry for entry in entries if isinstance(entry, Failure)]
    assert failure.path.name == "fake.docx"
    assert "not an office file" in failure.reason
    assert sniff(b"PK\3\4" + b"\0" * 100) is None


def source(path):
    (source_file,) = [entry for entry in find_sources([path]) if isinstance(entry, SourceFile)]
    return source_file


def test_missing_libreoffice_fails_with_install_hint(tmp_path, monkeypatch):
    monkeypatch.setattr(office, "find_libreoffice", lambda: None)
    (tmp_path / "a.rtf").write_bytes(RTF)
    (event,) = read_pages([source(tmp_path / "a.rtf")], QUICK)
    assert event == Failure(
        tmp_path / "a.rtf",
        "LibreOffice is not installed. Install LibreOffice, or convert the file to PDF.",
    )


@pytest.fixture
def fake_libreoffice(tmp_path, monkeypatch):
    """Return a function that writes Python code as the fake LibreOffice program."""

    def write(code: str):
        file, script = tmp_path / "soffice", tmp_path / "soffice.txt"
        script.write_text(f"import sys, os, time, shutil, subprocess\n{code}\n")
        # A shell starts the interpreter, because a shebang line cannot contain a path with spaces.
        file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(office, "find_libreoffice", lambda: file)
        return file

    return write


COPY_CODE = (
    "out = sys.argv[sys.argv.index('--outdir') + 1]; os.makedirs(out)\n"
    "assert sys.argv[1].startswith('-env:UserInstallation=file:///'), sys.argv\n"
    "shutil.copy({made!r}, os.path.join(out, 'document.pdf'))"
)


@requires_posix
def test_converted_pages_keep_name_of_original_file(tmp_path, fake_libreoffice):
    pdf = sample_pdf(tmp_path / "made.pdf", ["one juniper", "two"])
    fake_libreoffice(COPY_CODE.format(made=str(pdf)))
    name = "-odd 'näme' \n.rtf"
    (tmp_path / name).write_bytes(RTF)
    file_names = set(os.listdir(tmp_path))
    pages = [event for event in read_pages([source(tmp_path / name)], QUICK) if isinstance(event, Page)]
    assert [(page.path, page.doc_id, page.number, page.count) for page in pages] == [
        (tmp_path / name, name, 1, 2),
        (tmp_path / name, name, 2, 2),
    ]
    assert "juniper" in pages[0].text
    assert set(os.listdir(tmp_path)) == file_names


@requires_posix
@pytest.mark.parametrize(
    ("code", "reason"), [("sys.exit(0)", "cannot convert the file"), ("time.sleep(60)", "exceeded 1 s")]
)
def test_failed_or_slow_conversion_reports_reason(tmp_path, fake_libreoffice, code, reason):
    fake_libreoffice(code)
    (tmp_path / "a.rtf").write_bytes(RTF)
    (event,) = read_pages([source(tmp_path / "a.rtf")], IngestSettings(limits=Limits(max_seconds=1)))
    assert reason in event.reason


@requires_posix
def test_closing_stream_kills_conversion(tmp_path, fake_libreoffice):
    fake_libreoffice("open(sys.argv[0] + '.started', 'w').close(); time.sleep(60)")
    (tmp_path / "a.rtf").write_bytes(RTF)
    pdf = sample_pdf(tmp_path / "first.pdf", ["one"])
    with closing(read_pages([source(pdf), source(tmp_path / "a.rtf")], QUICK)) as events:
        next(events)
        deadline = time.monotonic() + 20
        while not (tmp_path / "soffice.started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        start = time.monotonic()
    assert time.monotonic() - start < 2


@requires_posix
def test_libreoffice_runs_in_temporary_folder(tmp_path, fake_libreoffice):
    pdf = sample_pdf(tmp_path / "made.pdf", ["one"])
    fake_libreoffice("assert os.path.samefile('.', os.path.dirname(sys.argv[-1]))\n" + COPY_CODE.format(made=str(pdf)))
    (tmp_path / "a.rtf").write_bytes(RTF)
    assert [event.number for event in read_pages([source(tmp_path / "a.rtf")], QUICK) if isinstance(event, Page)] == [1]


@requires_posix
def test_unstartable_libreoffice_reports_reason(tmp_path, fake_libreoffice):
    fake_libreoffice("").chmod(0o600)
    (tmp_path / "a.rtf").write_bytes(RTF)
    (event,) = read_pages([source(tmp_path / "a.rtf")], QUICK)
    assert event.reason == "LibreOffice cannot be started. Check the permissions, or reinstall LibreOffice."


def test_full_disk_for_temporary_files_reports_reason(tmp_path, fake_libreoffice, monkeypatch):
    fake_libreoffice("")
    (tmp_path / "a.rtf").write_bytes(RTF)

    def raise_disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", raise_disk_full)
    (event,) = read_pages([source(tmp_path / "a.rtf")], QUICK)
    assert "temporary folder can be created for LibreOffice (No space left on device)" in event.reason


@requires_posix
@pytest.mark.parametrize("path", ["{here}", ".", ""])
def test_executable_in_working_directory_is_ignored(tmp_path, monkeypatch, path):
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


@requires_libreoffice
def test_libreoffice_converts_rtf_and_odt(tmp_path):
    (tmp_path / "a.rtf").write_bytes(RTF)
    write_odt(tmp_path / "b.odt")
    for name, count in (("a.rtf", 2), ("b.odt", 1)):
        pages = [event for event in read_pages([source(tmp_path / name)], QUICK) if isinstance(event, Page)]
        assert len(pages) == count
        assert "juniper" in pages[0].text


@requires_libreoffice
def test_libreoffice_does_not_fetch_external_links(tmp_path):
    requests = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def handle_one_request(self):
            requests.append(self.client_address)
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
            write_odt(tmp_path / "spy.odt", body.encode())
            events = list(read_pages([source(tmp_path / "spy.odt")], QUICK))
            assert any(isinstance(event, Page) for event in events)
            assert requests == []
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not support the limit")
def test_memory_limit_ends_the_conversion(tmp_path, fake_libreoffice):
    fake_libreoffice(
        "import signal\ntry: block = bytearray(900_000_000)\nexcept MemoryError: os.kill(os.getpid(), 6)\n"
    )
    (tmp_path / "a.rtf").write_bytes(RTF)
    settings = IngestSettings(dpi=60, ocr="never", limits=Limits(max_memory=400_000_000))
    (event,) = read_pages([source(tmp_path / "a.rtf")], settings)
    assert "requires more than 400,000,000 bytes of memory" in event.reason


@requires_posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_libreoffice_and_its_folder_end_with_the_process_that_started_it(tmp_path, fake_libreoffice, number):
    # The child of the program stands for soffice.bin, which the script soffice starts.
    fake_libreoffice(
        f"import subprocess, time\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'started')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(60)\n"
    )
    (tmp_path / "a.rtf").write_bytes(RTF)
    code = (
        "from jina_rag.config import IngestSettings\nfrom jina_rag.parsing.office import as_pdf\n"
        "from jina_rag.parsing.sources import source_file\n"
        f"with as_pdf(source_file({str(tmp_path / 'a.rtf')!r}), IngestSettings()): pass"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as parent, ExitStack() as cleanup:
        cleanup.callback(parent.kill)
        wait_until(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text().count(" "))
        parent.send_signal(number)
    pids = [int(pid) for pid in (tmp_path / "started").read_text().split()]
    wait_until(lambda: not any(is_running(pid) for pid in pids) and not list(scratch.iterdir()))


def test_folders_that_killed_processes_left_are_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = ("jina-rag-office-left", "jina-rag-office-new", "jina-rag-other-left", "other")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "document.rtf").write_bytes(RTF)
    for name in ("jina-rag-office-left", "jina-rag-other-left", "other"):
        os.utime(tmp_path / name, (1e9, 1e9))
    with scratch_folder("office") as folder:
        os.utime(folder, (1e9, 1e9))
        with scratch_folder("office"):
            assert folder.is_dir()  # the folder is old, but in use
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], folder.name])


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return sys.platform != "linux" and is_process(pid)


def is_process(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
