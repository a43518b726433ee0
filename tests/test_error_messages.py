"""Error messages: for common mistakes, the message names the faulty object, its location and the remedy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jina_rag import (
    DocumentIndex,
    IngestSettings,
    JinaRagError,
    Rescore,
    Storage,
    load_embedder,
    load_reranker,
    open_page,
)
from jina_rag.config import Limits
from jina_rag.testing import FakeEmbedder, sample_pdf

MAX_LENGTH = 200
"""Maximum length of a message in characters. The test cases insert short paths and values."""

Action = Callable[[], object]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """The current folder, with a folder "docs" of one PDF and its index "kb"."""
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    sample_pdf(Path("docs/report.pdf"), ["solar power grew in Spain"])
    with open_index() as index:
        index.ingest("docs")
    return tmp_path


def open_index(location: str = "kb", **options: object) -> DocumentIndex:
    return DocumentIndex.open(location, embedder=FakeEmbedder(), **options)


def with_index(action: Callable[[DocumentIndex], object]) -> Action:
    """Return an action on the open index "kb"."""

    def run() -> None:
        with open_index() as index:
            action(index)

    return run


def command_line(*arguments: str) -> Action:
    """Return an action that runs the command line and raises its error message."""

    def run() -> None:
        from contextlib import redirect_stderr
        from io import StringIO

        from jina_rag.cli import main

        stderr, argv = StringIO(), sys.argv
        sys.argv = ["jina-rag", *arguments]
        try:
            with redirect_stderr(stderr), pytest.raises(SystemExit) as exit_info:
                main()
        finally:
            sys.argv = argv
        assert exit_info.value.code == 2
        message = " ".join(stderr.getvalue().replace("│", " ").split())
        assert "Traceback" not in message
        _, separator, usage_error = message.partition("Invalid value: ")
        raise JinaRagError(usage_error.rpartition(" ╰")[0] if separator else message.partition("Error: ")[2])

    return run


def closed_index() -> None:
    index = open_index()
    index.close()
    index.search("solar")


def damaged_manifest() -> None:
    Path("kb/manifest.sqlite3").write_bytes(b"not a database" * 100)
    open_index()


def foreign_folder() -> None:
    Path("photos").mkdir()
    Path("photos/holiday.txt").write_text("no index")
    open_index("photos")


def other_model() -> None:
    DocumentIndex.open("kb", embedder=FakeEmbedder(name="other"))


def failure(name: str, content: bytes | None = None, **settings: object) -> Action:
    """Return an action that ingests one file and raises its reported reason."""

    def run() -> None:
        path = Path("docs") / name
        if content is not None:
            path.write_bytes(content)
        with open_index() as index:
            report = index.ingest(path, settings=IngestSettings(**settings), force=True)
        (failed,) = (*report.failed, *report.skipped)
        raise JinaRagError(f"{failed.path.name}: {failed.reason}")

    return run


def encrypted_pdf() -> None:
    import pymupdf

    document = pymupdf.open()
    document.new_page().insert_text((72, 72), "secret")
    document.save("docs/secret.pdf", encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="word")
    failure("secret.pdf")()


def offline_model() -> None:
    load_embedder("jinaai/jina-embeddings-v4", local_files_only=True)


def region_filter() -> None:
    with_index(lambda index: index.search("solar", filter={"has": "photo"}))()


def missing_image() -> None:
    with_index(lambda index: index.add([Path("missing.png")]))()


def stage_option() -> None:
    command_line("search", "x", "--index", "kb", "--stage", "rescore:weight=1")()


def unreachable_server() -> None:
    DocumentIndex.open("http://127.0.0.1:9/docs?retries=0", embedder=FakeEmbedder())


def judged_folder() -> None:
    Path("judged").mkdir()
    Path("judged/docs.jsonl").write_text(json.dumps({"doc": "report.pdf", "file": "report.pdf"}) + "\n")
    command_line("evaluate", "judged")()


CASES: list[tuple[str, Action, tuple[str, ...]]] = [
    ("missing index", lambda: DocumentIndex.open("nowhere", create=False), ("No index at nowhere", "jina-rag ingest")),
    ("missing index, CLI", command_line("search", "x", "-i", "nowhere"), ("No index at nowhere", "jina-rag ingest")),
    ("empty index location", lambda: DocumentIndex.open(""), ("location is empty", "Pass a folder", "--index")),
    ("folder without index", foreign_folder, ("photos", "other files", "new folder")),
    ("closed index", closed_index, ("index at kb is closed", "DocumentIndex.open")),
    ("damaged manifest", damaged_manifest, ("kb/manifest.sqlite3", "ingest")),
    ("other model", other_model, ("index at kb", "fake-128-64", "other-128-64", "new index")),
    ("other storage", lambda: open_index(storage="compact"), ("index at kb", "exact", "compact", "--storage")),
    ("unknown storage", lambda: Storage.named("tiny"), ("storage is 'tiny'", "exact, balanced, compact")),
    ("unknown model", lambda: load_embedder("jina-v9"), ("'jina-v9'", "owner/model", "folder")),
    ("model not downloaded", offline_model, ("jinaai/jina-embeddings-v4", "jina-rag models download")),
    ("embedder as reranker", lambda: load_reranker("jinaai/jina-colbert-v2"), ("jina-colbert-v2", "load_embedder")),
    ("unsupported model option", lambda: load_embedder("lite", task="code"), ("lite", "Remove task='code'")),
    ("missing document", with_index(lambda index: index.ingest("missing.pdf")), ("'missing.pdf'", "Check the path")),
    ("glob without match", command_line("ingest", "*.docx", "-i", "kb"), ("'*.docx'", "Check the path")),
    ("empty path", with_index(lambda index: index.ingest("")), ("path is empty", "Pass a file or folder")),
    ("empty CLI argument", command_line("ingest", "", "-i", "kb"), ("after ingest is empty", "shell variable")),
    ("damaged PDF", failure("broken.pdf", b"%PDF-1.7\nnothing"), ("broken.pdf", "damaged", "Replace")),
    ("unsupported file", failure("notes.bin", b"\x00\x01\x02"), ("notes.bin", "PDF", "Convert")),
    ("empty file", failure("empty.pdf", b""), ("empty.pdf", "0 bytes", "Replace")),
    ("encrypted PDF", encrypted_pdf, ("secret.pdf", "encrypted", "--password")),
    (
        "file too large",
        failure("report.pdf", limits=Limits(max_bytes=10)),
        ("report.pdf", "bytes", "--limit max_bytes"),
    ),
    ("invalid passwords", lambda: IngestSettings(passwords="secret"), ("passwords", "tuple of strings")),
    ("dpi out of range", lambda: IngestSettings(dpi=5000), ("dpi is 5000", "from 36 to 600")),
    (
        "invalid OCR mode",
        command_line("ingest", "docs", "-i", "kb", "--ocr", "no"),
        ("ocr is 'no'", "auto, never, always"),
    ),
    ("unknown limit", command_line("ingest", "docs", "-i", "kb", "--limit", "size=3"), ("--limit 'size'", "max_bytes")),
    ("k below 1", with_index(lambda index: index.search("solar", k=0)), ("k is 0", "at least 1")),
    ("empty query", with_index(lambda index: index.search(" ")), ("query is empty", "Pass a text")),
    (
        "invalid filter",
        with_index(lambda index: index.search("solar", filter={"year": None})),
        ("'year'", "None", "number"),
    ),
    (
        "invalid filter, CLI",
        command_line("search", "x", "-i", "kb", "--filter", "year"),
        ("--filter 'year'", "KEY=VALUE"),
    ),
    ("invalid region filter", region_filter, ("'has'", "photo", "chart, table, figure")),
    (
        "unknown stage",
        command_line("search", "x", "-i", "kb", "--stage", "sort"),
        ("--stage: Unknown search stage 'sort'", "prefetch, rescore"),
    ),
    ("unknown stage option", stage_option, ("--stage 'rescore:weight=1'", "hubness", "dense")),
    ("missing reranker", command_line("search", "x", "-i", "kb", "--max-ms", "9"), ("--max-ms", "--reranker NAME")),
    ("stage option out of range", lambda: Rescore(dense=-1), ("Rescore.dense is -1", "at least 0")),
    (
        "unknown group",
        with_index(lambda index: index.search("solar", group_by="folder")),
        ("group_by is 'folder'", "page, document"),
    ),
    ("delete without a name", command_line("delete", "-i", "kb"), ("PATH", "--filter")),
    (
        "empty name to delete",
        with_index(lambda index: index.delete("")),
        ("name is empty", "an id, a file, a folder or a glob"),
    ),
    (
        "fewer ids than entries",
        with_index(lambda index: index.add(["a", "b"], ids=["a"])),
        ("2 ", "1 ids", "one id and one mapping"),
    ),
    ("invalid entry", with_index(lambda index: index.add([3], ids=["three"])), ("'three'", "int", "expected a text")),
    ("missing image", missing_image, ("missing.png", "Check the path")),
    (
        "heat map not a PNG",
        command_line("search", "x", "-i", "kb", "--heatmap", "a.jpg"),
        ("--heatmap is 'a.jpg'", ".png"),
    ),
    (
        "invalid truncation",
        lambda: load_embedder("lite").encode_query(["a"], truncate_dim=7),
        ("truncate_dim is 7", "384"),
    ),
    ("invalid input", lambda: load_embedder("lite").encode_query([3]), ("int", "expected a text")),
    ("text instead of a list", lambda: load_embedder("lite").encode_query("solar"), ("list", "queries", "str")),
    ("missing judged document", judged_folder, ("judged/docs.jsonl, line 1", "'report.pdf'", "Check the path")),
    ("missing judged folder", command_line("evaluate", "nowhere"), ("nowhere", "docs.jsonl", "jina-rag evaluate init")),
    ("unknown measure", command_line("evaluate", "docs", "--measure", "F1@5"), ("'F1@5'", "nDCG@K, Recall@K")),
    ("unreachable server", unreachable_server, ("http://127.0.0.1:9", "Check the URL")),
    ("missing saved page", lambda: open_page("missing.png"), ("missing.page.json", "save_page")),
]
"""(name of the mistake, function that makes the mistake, words that the message must contain)"""


@pytest.mark.parametrize(("name", "action", "parts"), CASES, ids=[name for name, _, _ in CASES])
def test_message_names_thing_place_and_fix(name, action, parts, workplace):
    with pytest.raises(JinaRagError) as error:
        action()
    message = str(error.value).replace(f"{workplace}/", "")
    assert all(part in message for part in parts), message
    assert len(message) < MAX_LENGTH, message
    assert message[0] != " "
    assert message.endswith(".")
    assert "\n" not in message


def test_list_contains_at_least_40_mistakes():
    assert len(CASES) >= 40
