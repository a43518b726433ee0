"""Discovery of documents: each entry is reported once, special files are not opened, names stay reversible."""

from __future__ import annotations

import json
import os
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag.errors import InvalidInputError
from jina_rag.parsing.sources import Skipped, SourceFile, find_sources, printable, sniff, source_file
from jina_rag.types import Failure

PDF = b"%PDF-1.4\n%%EOF\n"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)

requires_posix = pytest.mark.skipif(os.name != "posix", reason="needs links, pipes and byte names")


def ids(entries):
    return [entry.doc_id for entry in entries if isinstance(entry, SourceFile)]


def reasons(entries, kind):
    return {entry.path.name: entry.reason for entry in entries if isinstance(entry, kind)}


def test_walk_sorts_files_and_returns_relative_ids(tmp_path):
    for name in ("b.pdf", "a.PDF", "sub/deep/c.png", "noext"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG if name.endswith("png") else PDF)
    entries = list(find_sources([tmp_path]))
    assert ids(entries) == ["a.PDF", "b.pdf", "noext", "sub/deep/c.png"]
    assert [entry.kind for entry in entries] == ["pdf", "pdf", "pdf", "image"]
    assert all(entry.root == tmp_path for entry in entries)


def test_single_file_id_is_file_name(tmp_path):
    path = tmp_path / "sub" / "a.pdf"
    path.parent.mkdir()
    path.write_bytes(PDF)
    assert source_file(path) == SourceFile(path, path.parent, "a.pdf", "pdf")


def test_source_file_reports_reason_for_non_document(tmp_path):
    (tmp_path / "a.log").write_text("x")
    with pytest.raises(InvalidInputError, match="neither a PDF, an image, an office file nor a text file"):
        source_file(tmp_path / "a.log")
    with pytest.raises(InvalidInputError, match="not a single document"):
        source_file(tmp_path)


def test_non_document_skipped_in_folder_but_fails_if_passed(tmp_path):
    path = tmp_path / "notes.log"
    path.write_text("BM: text that starts like a bitmap")
    assert reasons(find_sources([tmp_path]), Skipped) == {
        "notes.log": "The file is not a PDF, image, office or text file. Convert the file to PDF to index it."
    }
    reason = reasons(find_sources([path]), Failure)["notes.log"]
    assert "neither a PDF, an image, an office file nor a text file" in reason


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("mail.msg", "Save the mail as .eml or PDF"),
        ("slides.key", "Export the document to PDF"),
        ("novel.MOBI", "Convert the book to PDF or .epub"),
        ("all.zip", "Extract the files of the archive"),
    ],
)
def test_format_that_is_not_read_is_named_with_the_way_out(tmp_path, name, way_out):
    path = tmp_path / name
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    assert reasons(find_sources([tmp_path]), Skipped)[name].endswith(f"text file. {way_out} to index it.")
    assert reasons(find_sources([path]), Failure)[name].endswith(f"supported format. {way_out}.")


def test_document_suffix_with_other_content_fails(tmp_path):
    (tmp_path / "a.png").write_text("<html>")
    (tmp_path / "b.pdf").write_text("plain text")
    (tmp_path / "c.pdf").write_bytes(b"")
    (tmp_path / "d.log").write_bytes(b"")
    entries = list(find_sources([tmp_path]))
    failure_reasons = reasons(entries, Failure)
    assert "not an image" in failure_reasons["a.png"]
    assert "not a PDF" in failure_reasons["b.pdf"]
    assert "empty" in failure_reasons["c.pdf"]
    assert set(reasons(entries, Skipped)) == {"d.log"}


def test_hidden_entries_skipped_unless_passed(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.pdf").write_bytes(PDF)
    (tmp_path / ".b.pdf").write_bytes(PDF)
    entries = list(find_sources([tmp_path]))
    assert ids(entries) == []
    assert reasons(entries, Skipped) == {
        ".git": "The file or folder is hidden.",
        ".b.pdf": "The file or folder is hidden.",
    }
    assert ids(find_sources([tmp_path / ".b.pdf"])) == [".b.pdf"]


def test_excluded_folder_is_skipped(tmp_path):
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "screenshot.png").write_bytes(PNG)
    (tmp_path / "a.pdf").write_bytes(PDF)
    entries = list(find_sources([tmp_path], exclude=[tmp_path / "kb"]))
    assert ids(entries) == ["a.pdf"]
    assert "excluded" in reasons(entries, Skipped)["kb"]


@requires_posix
def test_links_into_excluded_folder_are_skipped(tmp_path):
    inside = tmp_path / "kb" / "images" / "ab"
    inside.mkdir(parents=True)
    (inside / "crop.png").write_bytes(PNG)
    (tmp_path / "kb2.pdf").write_bytes(PDF)
    (tmp_path / "folder").symlink_to(inside.parent)
    (tmp_path / "file.png").symlink_to(inside / "crop.png")
    entries = list(find_sources([tmp_path, inside, inside / "crop.png"], exclude=[tmp_path / "kb"]))
    assert ids(entries) == ["kb2.pdf"]
    skipped_names = [entry.path.name for entry in entries if isinstance(entry, Skipped) and "excluded" in entry.reason]
    assert skipped_names == ["kb", "file.png", "folder", "ab", "crop.png"]


def test_missing_path_raises_before_walk(tmp_path):
    with pytest.raises(InvalidInputError, match=r"nothing.* does not exist"):
        find_sources([tmp_path, tmp_path / "nothing"])
    with pytest.raises(InvalidInputError, match="No path"):
        find_sources([])


def test_file_passed_twice_is_returned_once(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(PDF)
    entries = list(find_sources([tmp_path, path, tmp_path]))
    assert ids(entries) == ["a.pdf"]
    assert "already read as" in reasons(entries, Skipped)["a.pdf"]


@requires_posix
def test_links_followed_once_after_actual_files(tmp_path):
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "real.pdf").write_bytes(PDF)
    (tmp_path / "a_link").symlink_to(tmp_path / "z")
    (tmp_path / "a.pdf").symlink_to(tmp_path / "z" / "real.pdf")
    (tmp_path / "z" / "up").symlink_to("..")
    outside = tmp_path.parent / f"{tmp_path.name}_outside"
    outside.mkdir()
    (outside / "far.pdf").write_bytes(PDF)
    (tmp_path / "far").symlink_to(outside)
    (tmp_path / "gone.pdf").symlink_to("/nonexistent/file.pdf")
    entries = list(find_sources([tmp_path], follow_links=True))
    assert ids(entries) == ["z/real.pdf", "far/far.pdf"]
    assert "already read as" in reasons(entries, Skipped)["a.pdf"]
    assert "does not exist" in reasons(entries, Failure)["gone.pdf"]
    entries = list(find_sources([tmp_path]))
    assert ids(entries) == ["z/real.pdf"]
    assert "leads out of the folder. Pass --follow-links" in reasons(entries, Skipped)["far"]
    assert ids(find_sources([tmp_path / "far"])) == ["far.pdf"]  # a link that is passed is followed


@requires_posix
@pytest.mark.parametrize("target", ["/proc", "/proc/self/mem", "/dev/zero", "/dev"])
def test_devices_and_processes_are_not_documents(tmp_path, target):
    (tmp_path / "a.pdf").symlink_to(target)
    entries = list(find_sources([tmp_path], follow_links=True))
    assert [type(entry) for entry in entries] == [Skipped]
    assert "devices or processes" in entries[0].reason


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="the system has no /proc")
def test_devices_and_processes_are_skipped_behind_a_linked_folder(tmp_path, monkeypatch):
    # As /proc/1/root, whose real path is not below /proc.
    (tmp_path / "root").symlink_to("/")
    walk = find_sources([tmp_path], follow_links=True, check=lambda: None)
    skipped_names = set()
    for entry in walk:
        if isinstance(entry, Skipped):
            skipped_names.add(entry.path.name)
        if {"proc", "dev"} <= skipped_names:
            break
    assert {"proc", "dev"} <= skipped_names


@requires_posix
def test_pipes_and_sockets_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.pdf")
    with socket.socket(socket.AF_UNIX) as server:
        previous = os.getcwd()
        os.chdir(tmp_path)  # socket paths are limited to about 100 bytes
        try:
            server.bind("s.pdf")
        finally:
            os.chdir(previous)
        skip_reasons = reasons(find_sources([tmp_path]), Skipped)
    assert "named pipe" in skip_reasons["pipe.pdf"]
    assert "socket" in skip_reasons["s.pdf"]
    assert "named pipe" in reasons(find_sources([tmp_path / "pipe.pdf"]), Failure)["pipe.pdf"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_entries_fail(tmp_path):
    (tmp_path / "a.pdf").write_bytes(PDF)
    (tmp_path / "a.pdf").chmod(0)
    (tmp_path / "closed").mkdir(mode=0)
    failure_reasons = reasons(find_sources([tmp_path]), Failure)
    assert set(failure_reasons) == {"a.pdf", "closed"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_undecodable_names_become_printable(tmp_path):
    with open(os.fsencode(tmp_path) + b"/bad\xff.pdf", "wb") as file:
        file.write(PDF)
    (tmp_path / "line\nbreak.pdf").write_bytes(PDF)
    document_ids = ids(find_sources([tmp_path]))
    assert document_ids == ["bad\ufffdFF.pdf", "line\nbreak.pdf"]
    assert json.loads(json.dumps(document_ids)) == document_ids
    assert [name.encode("utf-8") for name in document_ids]


@given(st.text(st.characters(), max_size=12), st.text(st.characters(), max_size=12))
def test_printable_is_reversible_and_encodable(a, b):
    printable(a).encode("utf-8")
    assert (printable(a) == printable(b)) == (a == b)
    if a.isascii():
        assert printable(a) == a


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"%PDF-1.7", "pdf"),
        (b"\xef\xbb\xbf\n%PDF-1.7", "pdf"),
        (b"about %PDF-1.7 files", None),
        (b"GIF89a", "image"),
        (b"II*\0", "image"),
        (b"RIFF\0\0\0\0WEBP", "image"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "image"),
        (b"BM is not a bitmap", None),
        (b"", None),
    ],
)
def test_sniff_detects_kind_from_first_bytes(head, kind):
    assert sniff(head) == kind


def test_pdf_header_after_junk_requires_pdf_suffix(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"junk before it\n" + PDF)
    (tmp_path / "b.log").write_bytes(b"junk before it\n" + PDF)
    assert ids(find_sources([tmp_path])) == ["a.pdf"]


def test_file_deleted_during_walk_fails(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(PDF)
    walk = find_sources([tmp_path])
    next(walk)
    (tmp_path / "b.pdf").unlink()
    assert "cannot be read" in reasons(walk, Failure)["b.pdf"]
