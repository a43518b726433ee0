"""Command line: help, invalid usage, error messages and exit statuses of all commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers.command_line import NO_OCR, process

from jina_rag import DocumentIndex, __version__
from jina_rag.cli import main
from jina_rag.cli.app import app
from jina_rag.testing import sample_pdf

COMMANDS = ("ingest", "search", "info", "delete", "verify", "copy", "models", "evaluate", "clean", "doctor", "demo")
"""All commands in the order of use."""


def test_no_arguments_print_help(cli):
    result = cli()
    assert all(command in result.out for command in COMMANDS)
    assert "Traceback" not in result.err


def test_version_option_prints_the_version(cli):
    result = cli("--version")
    assert (result.code, result.out) == (0, f"jina-rag {__version__}\n")


def test_help_lists_the_commands_in_the_order_of_use(cli):
    result = cli("--help", width=80)
    assert result.code == 0
    rows = [line.strip("│ ").split(maxsplit=1) for line in result.out.partition("Commands")[2].splitlines()]
    summaries = dict(row for row in rows if len(row) == 2 and row[0].isalpha() and row[0].islower())
    assert tuple(summaries) == COMMANDS
    assert all(summary.endswith(".") for summary in summaries.values()), "a summary takes more than one line"


def help_texts(command, path=()):
    """Yield the path and the help text of a command, of its options and of its subcommands."""
    yield path, command.help or ""
    for parameter in command.params:
        yield path, getattr(parameter, "help", None) or ""
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from help_texts(subcommand, (*path, name))


def test_help_sentences_have_at_most_20_words():
    for path, text in help_texts(typer.main.get_command(app)):
        prose = text.partition("Examples:")[0].partition("Example:")[0].partition("Related commands:")[0]
        for sentence in re.split(r"(?<=[.!?])\s+", prose):
            assert len(sentence.split()) <= 20, (path, sentence)


def test_help_examples_use_existing_options():
    root = typer.main.get_command(app)
    examples = [line.strip() for _, text in help_texts(root) for line in text.splitlines() if "jina-rag " in line]
    examples = [line for line in examples if line.startswith("jina-rag ") and "  " not in line]
    assert len(examples) >= 25
    for example in examples:
        _, name, *arguments = shlex.split(example)
        command = root.commands[name]
        subcommands = getattr(command, "commands", {})
        candidates = [command, *subcommands.values()]
        options = {option for one in candidates for parameter in one.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("-")} <= options, example


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [80, 140])
def test_help_of_each_command_has_examples(cli, command, width):
    result = cli(command, "--help", width=width)
    assert result.code == 0
    assert f"jina-rag {command} " in result.out or f"jina-rag {command}\n" in result.out.replace(" \n", "\n")
    assert "Example" in result.out
    assert "--json" in result.out
    assert max(map(len, result.out.splitlines())) <= width


def test_python_m_runs_the_same_program():
    process_result = process("--version")
    assert (process_result.returncode, process_result.stdout.decode().strip()) == (0, f"jina-rag {__version__}")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["serch", "x"], ["No such command 'serch'", "search"]),
        (["search", "x"], ["Missing option '--index'"]),
        (["search", "x", "-i", "kb", "-k", "0"], ["Invalid value for '-k'", "1"]),
        (["search", "x", "-i", "kb", "-k", "many"], ["Invalid value for '-k'"]),
        (["search", "x", "-i", "kb", "-k", "99999999999999999999"], ["Invalid value for '-k'", "10000"]),
        (["search", "-i", "kb"], ["Pass a QUERY or --image FILE, or --queries"]),
        (
            ["search", "x", "-i", "kb", "--queries", "q.jsonl", "--run", "r.jsonl"],
            ["QUERY and --queries exclude each other"],
        ),
        (["search", "-i", "kb", "--queries", "q.jsonl"], ["--queries and --run require each other"]),
        (["search", "x", "-i", "kb", "--filter", "year"], ["--filter 'year'", "KEY=VALUE"]),
        (["search", "x", "-i", "kb", "--filter", "=2024"], ["--filter '=2024'", "KEY=VALUE"]),
        (["search", "x", "-i", "kb", "--heatmap", "out.jpg"], ["out.jpg", ".png"]),
        (["search", "x", "-i", "kb", "--heatmap", "nowhere/out.png"], ["cannot be written", "nowhere"]),
        (
            ["search", "-i", "kb", "--queries", "q", "--run", "r", "--explain"],
            ["value: --explain cannot be combined with --queries"],
        ),
        (
            "search -i kb --queries q --run r --image a.png --offset 2 --heatmap a.png".split(),
            ["value: --heatmap, --image and --offset cannot be combined"],
        ),
        (["ingest", "--index", "kb"], ["Missing argument 'PATH"]),
        (["ingest", ".", "--index", "kb", "--metadata", "year"], ["--metadata 'year'", "KEY=VALUE"]),
        (["ingest", "*.pdf", "--index", "kb"], ["No file or folder matches '*.pdf'"]),
        (["ingest", "**/*.pdf", "--index", "kb"], ["No file or folder matches"]),
        (["ingest", ".", "--index", "kb", "--limit", "max_seconds=" + "9" * 20], ["Limits.max_seconds", "86,400"]),
        (["ingest", ".", "--index", "kb", "--ocr", "sometimes"], ["'sometimes'", "auto, never, always"]),
        (["evaluate", "nowhere"], ["nowhere has no docs.jsonl"]),
    ],
)
def test_invalid_usage_prints_one_sentence(cli, args, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli(*args).assert_usage_error(*parts)
    assert list(tmp_path.iterdir()) == []


def test_missing_index_names_the_command_that_creates_it(cli, tmp_path):
    for args in (["search", "x"], ["info"], ["delete", "a.pdf"]):
        result = cli(*args, "--index", tmp_path / "kb")
        result.assert_usage_error("No index at", "jina-rag ingest PATH --index")
    assert not (tmp_path / "kb").exists()


def test_internal_error_prints_a_traceback_only_in_debug_mode(cli, monkeypatch, tmp_path):
    def raise_error(*_args, **_options):
        raise RuntimeError("the [sky] fell")

    monkeypatch.setattr(DocumentIndex, "open", raise_error)
    result = cli("info", "--index", tmp_path)
    result.assert_usage_error("Internal error in jina-rag: RuntimeError: the [sky] fell")
    monkeypatch.setenv("JINA_RAG_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["jina-rag", "info", "--index", str(tmp_path)])
    with pytest.raises(RuntimeError, match=r"the \[sky\] fell"):
        main()


def test_debug_mode_prints_the_traceback_in_a_process(tmp_path):
    plain = process("info", "--index", tmp_path / "kb")
    assert (plain.returncode, b"Traceback" in plain.stderr, plain.stdout) == (2, False, b"")
    debug = process("info", "--index", tmp_path / "kb", env={"JINA_RAG_DEBUG": "1"})
    assert b"Traceback" in debug.stderr
    assert b"IndexNotFoundError" in debug.stderr


def test_os_error_is_reported(cli, monkeypatch, tmp_path):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device", "kb/manifest.sqlite3")

    monkeypatch.setattr(DocumentIndex, "open", full)
    cli("info", "--index", tmp_path).assert_usage_error("kb/manifest.sqlite3", "No space left on device")


def test_second_process_reports_the_lock(cli, corpus):
    with DocumentIndex.open(corpus / "kb"):
        other = process("search", "whales", "--index", corpus / "kb")
    assert other.returncode == 2
    assert other.stdout == b""
    message = other.stderr.decode()
    assert f"locked by process {os.getpid()} (" in message
    assert "Traceback" not in message
    assert "WAL" not in message
    assert cli("search", "whales", "-i", corpus / "kb").code == 0


@pytest.mark.skipif(os.name == "nt", reason="no pipes of this kind")
def test_closed_pipe_is_not_an_error(corpus):
    command = f"{shlex.quote(sys.executable)} -m jina_rag info --json --documents --index kb | true"
    process_result = subprocess.run(["sh", "-c", command], cwd=corpus, capture_output=True, timeout=60, check=False)
    assert process_result.stderr == b""


ODD = ["line\nbreak.pdf", "[red]markup[bold] [link=x].pdf", "<b>&.pdf", "tab\there\x1b[31m.pdf", "naïve 文書 🙂.pdf"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_unusual_file_names_print_in_every_encoding(encoding, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    sample_pdf(folder / "a.pdf", ["juniper berries"])
    names = [*map(os.fsencode, ODD), b"bad\xff.pdf"]
    for number, name in enumerate(names):
        # Each name also has a damaged file, so that it appears among the failures.
        sample_pdf(folder / "a.pdf", [f"juniper berries {number}"])
        (folder / "a.pdf").rename(folder / os.fsdecode(name))
        (folder / os.fsdecode(b"damaged-" + name)).write_bytes(b"no pdf")
    env = {"PYTHONIOENCODING": encoding}
    kb = tmp_path / "kb"

    report = process("ingest", folder, "--index", kb, "--ocr", "never", "--json", env=env)
    assert report.returncode == 1, report.stderr
    content = json.loads(report.stdout.decode(encoding))
    assert report.stdout.count(b"\n") == 1
    assert (content["documents"], len(content["failed"])) == (len(names), len(names))
    assert {os.fsencode(Path(entry["path"]).name) for entry in content["failed"]} == {b"damaged-" + n for n in names}

    listing = process("ingest", folder, "--index", kb, "--ocr", "never", env=env)
    lines = listing.stderr.decode(encoding).splitlines()
    assert lines[0] == f"Nothing to index: {len(names)} documents unchanged."
    assert lines[1] == f"Failed ({len(names)}):"
    assert len(lines) == 2 + len(names), "one line per file"
    assert any(r"line\nbreak.pdf" in line for line in lines)
    assert any("[red]markup[bold] [link=x].pdf" in line for line in lines)
    assert not any("\x1b" in line for line in lines)

    hits = process("search", "juniper berries", "-i", kb, "-k", "20", "--json", env=env)
    paths = {os.fsencode(Path(hit["path"]).name) for hit in json.loads(hits.stdout.decode(encoding))["hits"]}
    assert paths == set(names)
    for args in (["search", "juniper", "-i", kb, "-k", "20"], ["info", "-i", kb, "--documents"]):
        table = process(*args, env=env)
        assert (table.returncode, table.stderr) == (0, b"")
        output = table.stdout.decode(encoding)
        assert "[red]markup" in output
        assert "\x1b" not in output


@pytest.mark.skipif(os.name == "nt", reason="signals are different there")
def test_ctrl_c_prints_no_traceback(cli, monkeypatch, tmp_path):
    def raise_interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(DocumentIndex, "open", raise_interrupt)
    result = cli("info", "--index", tmp_path)
    assert (result.code, result.err) == (130, "Interrupted.\n")


def test_commands_work_with_a_server_index(cli, docs, tmp_path, address):
    source = ("-i", address, "--assets-dir", tmp_path / "files")
    assert cli("ingest", docs, *source, *NO_OCR, "--json").json["pages"] == 4
    hit = cli("search", "whales", *source, "--json").json["hits"][0]
    assert (hit["doc_id"], hit["page"]) == ("animals.pdf", 2)
    assert cli("info", *source, "--json").json["location"] == address
    assert cli("verify", *source).code == 0
    assert cli("delete", "animals.pdf", *source).code == 0
    assert cli("ingest", docs, *source, *NO_OCR, "--dry-run", "--json").json["new"] == 1


def test_unreachable_server_prints_one_sentence(cli, docs, tmp_path):
    missing = "http://127.0.0.1:9/docs?retries=0&timeout=1"
    for command in (("ingest", docs), ("search", "whales"), ("info",), ("verify",)):
        cli(*command, "-i", missing, "--assets-dir", tmp_path / "files").assert_usage_error("No Qdrant server answers")
    cli("search", "x", "-i", "http://127.0.0.1:6333").assert_usage_error("has no collection name")
    cli("search", "x", "-i", tmp_path / "kb", "--assets-dir", tmp_path).assert_usage_error("apply only to an index")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["ingest", "", "--index", "kb"], "ingest"),
        (["ingest", "docs", "--index", ""], "--index"),
        (["evaluate", ""], "evaluate"),
        (["evaluate", "  "], "evaluate"),
        (["evaluate", "check", "\t"], "check"),
        (["info", "--index= "], "--index"),
        (["evaluate", "docs", "--report="], "--report"),
        (["demo", "--output", ""], "--output"),
    ],
)
def test_empty_argument_is_rejected(cli, tmp_path, monkeypatch, arguments, name):
    monkeypatch.chdir(tmp_path)
    cli(*arguments).assert_usage_error(f"after {name} is empty")
    assert not list(tmp_path.iterdir()), "something was written into the current folder"
