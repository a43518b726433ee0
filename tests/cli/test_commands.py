"""The command line as its users meet it: what is printed where, what --json holds, which status it ends with."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from jina_rag import DocumentIndex, __version__
from jina_rag.cli import _load, main
from jina_rag.cli.common import metadata_of
from jina_rag.cli.output import console
from jina_rag.cli.output import hits as hit_output
from jina_rag.testing import sample_pdf
from jina_rag.types import Failure, IngestReport, ScoredPage

COMMANDS = ("ingest", "search", "remove", "info", "verify", "copy", "evaluate", "clean", "models", "doctor", "demo")


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The one object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"not one line: {self.out!r}"
        found = json.loads(lines[0])
        assert isinstance(found, dict)
        return found

    def refused(self, *parts: str) -> None:
        """Wrong usage or input: status 2, nothing on stdout, a sentence that has these parts, no traceback."""
        said = " ".join(self.err.replace("│", " ").split())
        assert self.code == 2, said
        assert self.out == ""
        assert "Traceback" not in said
        for part in parts:
            assert part in said


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs the command line in this process."""
    monkeypatch.delenv("JINA_RAG_DEBUG", raising=False)

    def run(*args: object, width: int = 140) -> Result:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", ["jina-rag", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return Result(left.value.code or 0, printed.out, printed.err)

    return run


def process(*args: object, env: dict[str, str] | None = None, **options: object) -> subprocess.CompletedProcess:
    """Runs it as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "jina_rag", *map(os.fspath, args)],
        capture_output=True,
        env={**os.environ, "COLUMNS": "100", **(env or {})},
        timeout=120,
        check=False,
        **options,
    )


def write_docs(folder: Path) -> Path:
    (folder / "reports").mkdir(parents=True)
    sample_pdf(folder / "animals.pdf", ["cats and dogs sleep all day", "whales sing in the deep sea"])
    sample_pdf(folder / "reports" / "energy.pdf", ["solar power grew in Spain", "order KX-4471-B was shipped"])
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with documents and an index of them that no test changes."""
    root = tmp_path_factory.mktemp("shared")
    write_docs(root / "docs")
    with DocumentIndex.open(root / "kb") as index:
        for path, year in ((root / "docs" / "animals.pdf", "2024"), (root / "docs" / "reports", "2025")):
            index.ingest(path, metadata={"year": year})
    return root


@pytest.fixture
def docs(tmp_path):
    return write_docs(tmp_path / "docs")


# -- what every command has ----------------------------------------------------------------------------------------


def test_without_arguments_it_prints_its_help(cli):
    result = cli()
    assert all(command in result.out for command in COMMANDS)
    assert "Traceback" not in result.err


def test_version(cli):
    result = cli("--version")
    assert (result.code, result.out) == (0, f"jina-rag {__version__}\n")


def test_help_names_every_command(cli):
    result = cli("--help")
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [80, 140])
def test_help_of_each_command_has_examples(cli, command, width):
    result = cli(command, "--help", width=width)
    assert result.code == 0
    assert f"jina-rag {command} " in result.out or f"jina-rag {command}\n" in result.out.replace(" \n", "\n")
    assert "Example" in result.out
    assert "--json" in result.out
    assert max(map(len, result.out.splitlines())) <= width


def test_python_m_is_the_same_command():
    done = process("--version")
    assert (done.returncode, done.stdout.decode().strip()) == (0, f"jina-rag {__version__}")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["serch", "x"], ["No such command 'serch'", "search"]),
        (["search", "x"], ["Missing option '--index'"]),
        (["search", "x", "-i", "kb", "-k", "0"], ["Invalid value for '-k'", "1"]),
        (["search", "x", "-i", "kb", "-k", "many"], ["Invalid value for '-k'"]),
        (["search", "x", "-i", "kb", "-k", "99999999999999999999"], ["Invalid value for '-k'", "10000"]),
        (["search", "-i", "kb"], ["Give a QUERY or --image FILE, or --queries"]),
        (
            ["search", "x", "-i", "kb", "--queries", "q.jsonl", "--run", "r.jsonl"],
            ["Give a QUERY or --image FILE, or --queries"],
        ),
        (["search", "-i", "kb", "--queries", "q.jsonl"], ["--queries and --run go together"]),
        (["search", "x", "-i", "kb", "--filter", "year"], ["--filter 'year'", "KEY=VALUE"]),
        (["search", "x", "-i", "kb", "--filter", "=2024"], ["--filter '=2024'", "KEY=VALUE"]),
        (["search", "x", "-i", "kb", "--heatmap", "out.jpg"], ["out.jpg", ".png"]),
        (["search", "x", "-i", "kb", "--heatmap", "nowhere/out.png"], ["cannot be written", "nowhere"]),
        (["search", "-i", "kb", "--queries", "q", "--run", "r", "--explain"], ["value: --explain goes with a single"]),
        (
            "search -i kb --queries q --run r --image a.png --offset 2 --heatmap a.png".split(),
            ["value: --heatmap, --image and --offset go with a single QUERY"],
        ),
        (["ingest", "--index", "kb"], ["Missing argument 'PATH"]),
        (["ingest", ".", "--index", "kb", "--meta", "year"], ["--meta 'year'", "KEY=VALUE"]),
        (["ingest", "*.pdf", "--index", "kb"], ["Nothing matches '*.pdf'"]),
        (["ingest", "**/*.pdf", "--index", "kb"], ["Nothing matches"]),
        (["ingest", ".", "--index", "kb", "--limit", "max_seconds=" + "9" * 20], ["limits.max_seconds", "86400"]),
        (["ingest", ".", "--index", "kb", "--ocr", "sometimes"], ["'sometimes'", "auto, never, always"]),
        (["evaluate", "nowhere"], ["nowhere has no docs.jsonl"]),
    ],
)
def test_wrong_usage_is_one_clear_sentence(cli, args, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli(*args).refused(*parts)
    assert list(tmp_path.iterdir()) == []


# -- ingest --------------------------------------------------------------------------------------------------------


def test_ingest_json_and_a_second_run(cli, docs, tmp_path):
    (docs / "broken.pdf").write_text("this is no pdf")
    (docs / "notes.txt").write_text("not a document")
    first = cli("ingest", docs, "--index", tmp_path / "kb", "--json")
    assert first.code == 1
    assert first.err == ""
    report = first.json
    assert set(report) == {
        "documents", "pages", "regions", "unchanged", "moved", "removed", "repeated", "duplicates", "failed", "skipped",
        "warnings", "interrupted", "seconds",
    }  # fmt: skip
    assert (report["documents"], report["pages"], report["unchanged"]) == (2, 4, 0)
    assert [(Path(f["path"]).name, "not a PDF" in f["reason"]) for f in report["failed"]] == [("broken.pdf", True)]
    assert [Path(f["path"]).name for f in report["skipped"]] == ["notes.txt"]
    (docs / "broken.pdf").unlink()
    second = cli("ingest", docs, "--index", tmp_path / "kb", "--json")
    assert (second.code, second.json["documents"], second.json["unchanged"]) == (0, 0, 2)


def test_ingest_for_a_person(cli, docs, tmp_path):
    (docs / "broken.pdf").write_text("this is no pdf")
    first = cli("ingest", docs, "--index", tmp_path / "kb", "--ocr", "never")
    assert (first.code, first.out) == (1, "")
    lines = first.err.splitlines()
    assert lines[0].startswith("Indexed 2 documents, 4 pages in ")
    assert lines[1] == "Failed (1):"
    assert "broken.pdf: The content is not a PDF" in lines[2]
    assert len(lines) == 3
    (docs / "broken.pdf").unlink()
    again = cli("ingest", docs, "--index", tmp_path / "kb", "--ocr", "never")
    assert (again.code, again.err) == (0, "Nothing new to index: 2 documents unchanged.\n")


def test_ingest_of_one_document_in_the_singular(cli, tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["whales"])
    result = cli("ingest", tmp_path / "a.pdf", "--index", tmp_path / "kb", "--ocr", "never")
    assert "Indexed 1 document, 1 page in " in result.err


def test_ingest_with_metadata_that_search_can_filter_by(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    cli("ingest", docs / "animals.pdf", "-i", kb, "--meta", "year=2024", "--meta", "by=me=you", "--ocr", "never")
    cli("ingest", docs / "reports", "-i", kb, "--meta", "year=2025", "--ocr", "never")

    def found(*filters: str) -> set[str]:
        options = [part for entry in filters for part in ("--filter", entry)]
        return {hit["doc_id"] for hit in cli("search", "power", "-i", kb, "--json", *options).json["hits"]}

    assert found() == {"animals.pdf", "energy.pdf"}
    assert found("year=2024") == {"animals.pdf"}
    assert found("year=2024", "year=2025") == {"animals.pdf", "energy.pdf"}
    assert found("by=me=you") == {"animals.pdf"}
    assert found("year=2025", "by=me=you") == set()
    assert found("path=en*", "page=2") == {"energy.pdf"}
    assert found("year>=2025") == {"energy.pdf"}
    assert found("year>2023", "year<2025") == {"animals.pdf"}
    assert found("year>2025") == set()
    for wrong, said in (("year>=new", "no number"), ("year", "KEY>=NUMBER"), ("has=photo", "chart, table, figure")):
        cli("search", "power", "-i", kb, "--filter", wrong).refused(said)
    cli("search", "power", "-i", kb, "--filter", "year=2024", "--filter", "year>2023").refused("not both")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024", 2024),
        ("-1.5", -1.5),
        ("007", "007"),
        ("1e5", "1e5"),
        ("nan", "nan"),
        ("٣", "٣"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_metadata_that_is_written_as_a_number_is_one(text, value):
    (found,) = metadata_of([f"key={text}"]).values()
    assert (found, type(found)) == (value, type(value))


def test_search_in_stages_for_a_person(cli, shared):
    kb = shared / "kb"
    result = cli("search", "where do whales sing?", "-i", kb, "-k", "2", "--explain", "--stage", "rescore:dense=0.5")
    assert result.code == 0
    assert "Score and rank in each stage" in result.out
    assert all(stage in result.out for stage in ("dense", "lexical", "maxsim", "rescore"))
    assert "every page is compared" in result.out
    assert "candidates" in result.err
    reranked = cli("search", "where do whales sing?", "-i", kb, "--reranker", "lite", "--max-ms", "0", "--json").json
    assert not reranked["complete"]
    assert "max_ms=0" in reranked["notes"][0]
    judged = cli("search", "where do whales sing?", "-i", kb, "--reranker", "lite", "--json").json
    assert {hit["stage"] for hit in judged["hits"]} == {"rerank"}
    assert (judged["hits"][0]["doc_id"], judged["hits"][0]["page"]) == ("animals.pdf", 2)
    said = cli("search", "whales", "-i", kb, "--reranker", "lite", "--stage", "rerank:max_ms=0")
    assert "Note: rerank: 4 pages were not judged" in said.err


def test_search_pages_groups_and_cuts_off(cli, shared):
    kb = shared / "kb"
    whole = cli("search", "whales", "-i", kb, "-k", "4", "--json").json["hits"]
    rest = cli("search", "whales", "-i", kb, "-k", "2", "--offset", "2", "--json").json["hits"]
    assert [(hit["rank"], hit["page"]) for hit in rest] == [(hit["rank"], hit["page"]) for hit in whole[2:]]
    assert cli("search", "whales", "-i", kb, "-k", "2").err == "There are more: --offset 2.\n"
    assert cli("search", "whales", "-i", kb, "-k", "1", "--offset", "2").err == "There are more: --offset 3.\n"
    assert cli("search", "whales", "-i", kb, "-k", "2", "--offset", "2").err == ""
    assert cli("search", "whales", "-i", kb, "-k", "2", "--json").err == ""
    grouped = cli("search", "whales", "-i", kb, "--group-by", "document", "--json").json["hits"]
    assert [hit["doc_id"] for hit in grouped] == ["animals.pdf", "energy.pdf"]
    assert grouped[0]["other_pages"] == [1]
    assert "also page 1" in cli("search", "whales", "-i", kb, "--group-by", "document").out
    best = cli("search", "whales", "-i", kb, "--min-score", str(whole[0]["score"] - 1e-4), "--json").json["hits"]
    assert len(best) == 1


def test_a_question_that_is_too_long_is_cut_and_that_is_said(cli, shared):
    found = cli("search", "whales sing " * 400, "-i", shared / "kb", "--json").json
    assert found["notes"] == ["The question is too long: its end was not read."]
    assert found["hits"][0]["page"] == 2
    assert cli("search", "whales sing", "-i", shared / "kb", "--json").json["notes"] == []


def test_search_with_a_picture(cli, shared, tmp_path):
    image = cli("search", "whales", "-i", shared / "kb", "-k", "1", "--json").json["hits"][0]["image"]
    found = cli("search", "-i", shared / "kb", "-k", "1", "--image", image, "--json").json
    assert (found["query"], found["hits"][0]["page"]) == (image, 2)
    both = cli("search", "whales", "-i", shared / "kb", "-k", "1", "--image", image, "--json").json
    assert both["hits"][0]["page"] == 2
    cli("search", "-i", shared / "kb", "--image", tmp_path / "none.png").refused("none.png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stage", "rescore:dence=1"], "dense=…"),
        (["--stage", "guess"], "prefetch, rescore and rerank"),
        (["--max-ms", "5"], "--max-ms needs a reranker: name one with --reranker NAME"),
        (["--max-images", "5", "--max-ms", "5"], "--max-ms and --max-images need a reranker: name one with --reranker"),
        (["--max-images", "5", "--stage", "rerank:limit=0"], "--max-images needs a reranker"),
        (
            ["--max-ms", "5", "-r", "lite", "--stage", "rerank:max_ms=3"],
            "in one place: --max-ms, or --stage rerank:max",
        ),
        (["--max-images", "5", "--stage", "rerank:model=lite,max_images=0"], "in one place: --max-images, or"),
        (["--reranker", "lite", "--stage", "rerank:model=lite-en"], "Name the reranker in one place"),
        (["--group-by", "chapter"], "chapter"),
        (["--stage", "rerank"], "--stage rerank needs a reranker: name one with --reranker NAME"),
        (["--stage", "rerank:limit=3"], "--stage rerank needs a reranker: name one with --reranker NAME"),
        (["--stage", "rescore:dense=1", "--stage", "Rescore:window=1"], "--stage rescore is given twice"),
        (["--stage", "prefetch:limit=true"], "--stage 'prefetch:limit=true': Prefetch.limit is True"),
        (["--stage", "prefetch:exhaustive=false"], "Prefetch.exhaustive is False; it counts pages: a number"),
    ],
)
def test_search_options_that_make_no_sense(cli, shared, options, said):
    cli("search", "whales", "-i", shared / "kb", *options).refused(said)


@pytest.mark.parametrize(
    "options",
    [
        ["-r", "lite", "--stage", "rerank:limit=3", "--max-ms", "0"],
        ["--stage", "rerank:limit=3,model=lite", "--max-ms", "0"],
        ["--stage", "rerank:limit=3,max_ms=0", "-r", "lite", "--max-images", "9"],
    ],
)
def test_limits_for_the_reranker_join_its_stage(cli, shared, options):
    found = cli("search", "whales", "-i", shared / "kb", *options, "--json").json
    assert not found["complete"]
    assert "3 pages" in found["notes"][0]
    assert "max_ms=0" in found["notes"][0]
    assert {hit["stage"] for hit in found["hits"]} == {"rescore"}


def test_stages_that_need_no_reranker(cli, shared):
    options = ["--stage", "prefetch:lexical=false,regions=true,limit=3,exhaustive=0", "--stage", "rerank:limit=0"]
    found = cli("search", "whales", "-i", shared / "kb", *options, "--json").json
    assert (found["hits"][0]["page"], found["hits"][0]["stage"]) == (2, "rescore")


def test_a_misspelt_path_makes_no_index(cli, tmp_path):
    cli("ingest", tmp_path / "dcos", "--index", tmp_path / "kb").refused("no file or folder", "dcos")
    assert not (tmp_path / "kb").exists()


@pytest.mark.parametrize(
    "content",
    ['{"*": 5}', "null", "5", '{"*": null}', '{"*": [["a"]]}', '[["a"]]', '{"*": {"a": 1}}', "[5]", "[" * 100_000],
    ids=lambda content: content[:20],
)
def test_passwords_that_are_none_are_one_sentence(cli, docs, tmp_path, content):
    file = tmp_path / "words.json"
    file.write_text(content)
    result = cli("ingest", docs, "--index", tmp_path / "kb", "--passwords", file)
    result.refused("words.json")
    assert "defect" not in result.err
    assert not (tmp_path / "kb").exists()


def test_an_unknown_model_lists_the_models_and_makes_no_index(cli, docs, tmp_path):
    result = cli("ingest", docs, "--index", tmp_path / "kb", "--embedder", "lite-xl")
    result.refused("no model 'lite-xl'", "'lite'", "'lite-en'")
    assert not (tmp_path / "kb").exists()


def test_another_model_than_the_index_has(cli, shared):
    result = cli("ingest", shared / "docs", "--index", shared / "kb", "--embedder", "lite-en")
    result.refused("built with the model 'lite'", "new folder")


def test_an_index_does_not_go_into_a_folder_of_other_things(cli, docs):
    cli("ingest", docs, "--index", docs).refused("holds other files")
    assert sorted(path.name for path in docs.iterdir()) == ["animals.pdf", "reports"]
    cli("ingest", docs, "--index", docs / "animals.pdf").refused("is a file")


# -- search --------------------------------------------------------------------------------------------------------


def test_search_json(cli, shared):
    result = cli("search", "where do whales sing?", "-i", shared / "kb", "-k", "3", "--json")
    assert (result.code, result.err) == (0, "")
    found = result.json
    assert set(found) == {"query", "hits", "notes", "complete", "more", "milliseconds"}
    assert (found["notes"], found["complete"], found["more"]) == ([], True, True)
    assert found["query"] == "where do whales sing?"
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    best = found["hits"][0]
    assert set(best) == {
        "rank", "score", "doc_id", "path", "page", "region", "image", "snippet", "copies", "repeats",
        "stage", "scores", "other_pages", "similar",
    }  # fmt: skip
    assert best["scores"][best["stage"]] == best["score"]
    assert (best["copies"], best["repeats"]) == ([], None)
    assert (best["doc_id"], best["page"], best["region"]) == ("animals.pdf", 2, None)
    assert Path(best["path"]) == shared / "docs" / "animals.pdf"
    assert Path(best["image"]).is_file()
    assert "whales" in best["snippet"]
    assert best["score"] > found["hits"][1]["score"]


def test_search_tells_which_region_answers():
    from jina_rag.types import Region

    hit = ScoredPage("a.pdf", Path("a.pdf"), 3, 0.5, region=Region("table", (0.1, 0.2, 0.3, 0.4)), page_count=9)
    (found,) = hit_output.search_json("q", [hit])["hits"]
    assert found["region"] == {"kind": "table", "box": [0.1, 0.2, 0.3, 0.4]}
    assert found["image"] is None
    assert "best: table" in shown_hits([hit], 80)


def shown_hits(hits, width: int) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, highlight=False)
    hit_output.print_hits(console, "question", hits)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_search_for_a_person(cli, shared, width):
    result = cli("search", "order KX-4471-B", "-i", shared / "kb", width=width)
    assert (result.code, result.err) == (0, "")
    assert "energy.pdf" in result.out
    assert "page 2 of 2" in result.out
    assert "order KX-4471-B was shipped" in result.out
    assert max(map(len, result.out.splitlines())) <= width


def test_names_of_usual_length_are_not_broken():
    hit = ScoredPage("reports/2024-summary.pdf", Path("x.pdf"), 1, 0.5, snippet="words " * 30, page_count=1)
    assert "reports/2024-summary.pdf" in shown_hits([hit], 80)
    long = ScoredPage("n" * 240 + ".pdf", Path("x.pdf"), 1, 0.5, snippet="words " * 30, page_count=1)
    assert max(map(len, shown_hits([long], 80).splitlines())) <= 80


def test_search_that_finds_nothing(cli, shared):
    result = cli("search", "whales", "-i", shared / "kb", "--filter", "year=1066")
    assert (result.code, result.out) == (0, "No page found.\n")
    assert cli("search", "whales", "-i", shared / "kb", "--filter", "year=1066", "--json").json["hits"] == []


@pytest.mark.parametrize("query", ["", "   "])
def test_an_empty_question(cli, shared, query):
    cli("search", query, "-i", shared / "kb").refused("question is empty")


def test_a_missing_index_says_how_to_make_one(cli, tmp_path):
    for args in (["search", "x"], ["info"], ["remove", "a.pdf"]):
        result = cli(*args, "--index", tmp_path / "kb")
        result.refused("There is no index at", "jina-rag ingest FOLDER --index")
    assert not (tmp_path / "kb").exists()


def test_heatmap(cli, shared, tmp_path):
    photo = tmp_path / "where.png"
    result = cli("search", "whales", "-i", shared / "kb", "--heatmap", photo)
    assert result.code == 0
    assert "Heat map of rank 1" in result.err
    with Image.open(photo) as image:
        assert image.format == "PNG"
        colours = image.convert("RGB").getcolors(1 << 24)
    # The page alone is black on white; the heat is not.
    assert any(max(rgb) - min(rgb) > 60 for _, rgb in colours)
    alone = cli("search", "whales", "-i", shared / "kb", "--heatmap", tmp_path / "again.png", "--json")
    assert len(alone.json["hits"]) == 4
    assert (tmp_path / "again.png").is_file()


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_heatmap_of_no_hit_is_not_drawn_and_that_is_said(cli, shared, tmp_path, extra):
    image = tmp_path / "where.png"
    result = cli("search", "whales", "-i", shared / "kb", "--filter", "year=1066", "--heatmap", image, *extra)
    assert (result.code, result.err) == (0, "No page was found, so no heat map was drawn.\n")
    assert not image.exists()


def test_a_heatmap_that_cannot_be_written(cli, shared, tmp_path):
    (tmp_path / "folder.png").mkdir()
    cli("search", "whales", "-i", shared / "kb", "--heatmap", tmp_path / "folder.png").refused("is a directory")
    too_long = tmp_path / ("n" * 300 + ".png")
    cli("search", "whales", "-i", shared / "kb", "--heatmap", too_long).refused("cannot be written", "name too long")


def test_many_questions(cli, shared, tmp_path):
    queries, run = tmp_path / "q.jsonl", tmp_path / "run.jsonl"
    lines = [{"qid": "a", "query": "whales"}, {"qid": "ü", "query": "solar power"}]
    queries.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    result = cli("search", "-i", shared / "kb", "--queries", queries, "--run", run, "--json")
    assert (result.code, result.json) == (0, {"queries": 2, "run": str(run)})
    hurried = ("search", "-i", shared / "kb", "--queries", queries, "--run", run, "--reranker", "lite", "--max-ms", "0")
    notes = cli(*hurried, "--json").json["notes"]
    assert len(notes) == 2
    assert all("max_ms=0" in note for said in notes.values() for note in said)
    assert cli(*hurried).err.count("max_ms=0") == 2
    written = [json.loads(line) for line in run.read_text("utf-8").splitlines()]
    assert [line["qid"] for line in written] == ["a", "ü"]
    assert written[0]["ranking"][0] == ["animals", 2]
    assert written[1]["ranking"][0] == ["energy", 1]
    assert len(written[0]["ranking"]) == 4
    queries.write_text(json.dumps(lines[0]), encoding="utf-8")
    said = cli("search", "-i", shared / "kb", "--queries", queries, "--run", run)
    assert (said.out, said.err.startswith("Asked 1 question; ")) == ("", True)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b'{"qid": "a", "query": "x"}\n{"qid": "b", "query"', ["line 2", "not JSON"]),
        (b'["a", "x"]', ["line 1", "JSON object"]),
        (b'{"qid": "a"}', ["line 1", '"query"']),
        (b'{"qid": "a", "query": "x"}\n{"qid": "a", "query": "y"}', ["line 2", "twice"]),
        (b"\xff\xfe\x00", ["UTF-8"]),
        (None, ["cannot be read", "No such file"]),
    ],
)
def test_a_broken_file_of_questions(cli, shared, tmp_path, content, parts):
    queries, run = tmp_path / "q.jsonl", tmp_path / "run.jsonl"
    if content is not None:
        queries.write_bytes(content)
    cli("search", "-i", shared / "kb", "--queries", queries, "--run", run).refused("q.jsonl", *parts)
    assert not run.exists()


@pytest.fixture(scope="module")
def repeating(tmp_path_factory):
    """An index of 13 pages, of which two of one document and one of another show the same."""
    root = tmp_path_factory.mktemp("repeating")
    same = "whales sing in the deep sea, and nobody knows what their long songs are about"
    things = ("solar power", "old bridges", "tax forms", "apple pie", "chess", "tides", "glass", "wool", "copper")
    sample_pdf(root / "songs.pdf", [same, same, *(f"a page about {thing}" for thing in things)])
    sample_pdf(root / "more.pdf", ["order KX-4471-B was shipped", same])
    with DocumentIndex.open(root / "kb") as index:
        index.ingest(root / "songs.pdf", metadata={"year": 2024})
        index.ingest(root / "more.pdf", metadata={"year": 2025})
    return root


def test_pages_that_show_the_same_are_one_hit_with_all_its_places(cli, repeating):
    hit, other = cli("search", "whales sing", "-i", repeating / "kb", "-k", "2", "--dedup", "--json").json["hits"]
    places = {("songs.pdf", 1), ("songs.pdf", 2), ("more.pdf", 2)}
    assert {(hit["doc_id"], hit["page"])} | {(s["doc_id"], s["page"]) for s in hit["similar"]} == places
    assert (other["doc_id"], other["page"]) not in places
    for similar in hit["similar"]:
        assert set(similar) == {"doc_id", "path", "page", "similarity"}
        assert Path(similar["path"]) == repeating / similar["doc_id"]
        assert similar["similarity"] > 0.9


def test_many_questions_are_asked_as_one_is(cli, repeating, tmp_path):
    queries, run = tmp_path / "q.jsonl", tmp_path / "run.jsonl"
    asked = {"a": "whales sing", "b": "order KX-4471-B"}
    lines = [json.dumps({"qid": qid, "query": query}) for qid, query in asked.items()]
    queries.write_text("\n".join(lines), encoding="utf-8")

    def many(*options: object) -> dict[str, list]:
        result = cli("search", "-i", repeating / "kb", "--queries", queries, "--run", run, *options)
        assert result.code == 0, result.err
        return {line["qid"]: line["ranking"] for line in map(json.loads, run.read_text("utf-8").splitlines())}

    def one_by_one(*options: object) -> dict[str, list]:
        hits = {
            qid: cli("search", query, "-i", repeating / "kb", *options, "--json").json["hits"]
            for qid, query in asked.items()
        }
        return {qid: [[Path(hit["doc_id"]).stem, hit["page"]] for hit in found] for qid, found in hits.items()}

    plain = many("-k", "13")
    assert plain == one_by_one("-k", "13")
    assert {qid: len(pages) for qid, pages in plain.items()} == {"a": 13, "b": 13}
    assert many() == {qid: pages[:10] for qid, pages in plain.items()}
    assert many("-k", "3") == {qid: pages[:3] for qid, pages in plain.items()}
    best = cli("search", asked["a"], "-i", repeating / "kb", "--json").json["hits"][0]["score"]
    for options in (
        ["--group-by", "document"],
        ["--dedup"],
        ["--min-score", best - 0.01],
        ["--filter", "year=2025"],
        ["--stage", "rescore:identifiers=0,hubness=0,dense=9"],
        ["--reranker", "lite", "--stage", "rerank:limit=2", "--min-score", "0"],
    ):
        found = many("-k", "13", *options)
        assert found == one_by_one("-k", "13", *options), options
        assert found != plain, options


def test_rankings_that_cannot_be_written(cli, shared, tmp_path):
    queries = tmp_path / "q.jsonl"
    queries.write_text('{"qid": "a", "query": "whales"}', encoding="utf-8")
    result = cli("search", "-i", shared / "kb", "--queries", queries, "--run", tmp_path / "no" / "run.jsonl")
    result.refused("cannot be written", "no folder")
    long = cli("search", "-i", shared / "kb", "--queries", queries, "--run", tmp_path / ("n" * 300))
    long.refused("cannot be written", "name too long")


# -- remove and info -----------------------------------------------------------------------------------------------


def test_remove(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    cli("ingest", docs, "--index", kb, "--ocr", "never")
    images = list((kb / "images").rglob("*.jpg"))
    removed = cli("remove", docs / "animals.pdf", "-i", kb)
    assert (removed.code, removed.out, removed.err) == (0, "", "Removed 1 document.\n")
    assert len(list((kb / "images").rglob("*.jpg"))) == len(images) - 2
    result = cli("remove", "reports/*", "no\nsuch[bold].pdf", "-i", kb)
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines()[0] == "Removed 1 document."
    assert r"no\nsuch[bold].pdf" in result.err.splitlines()[1]
    again = cli("remove", "reports/*", "-i", kb, "--json")
    assert (again.code, again.err) == (1, "")
    assert again.json == {"removed": 0, "failed": [{"path": "reports/*", "reason": "No such document in the index."}]}
    assert cli("search", "whales", "-i", kb).out == "No page found.\n"


def test_info(cli, shared):
    kb = shared / "kb"
    plain = cli("info", "-i", kb, "--json")
    assert (plain.code, plain.err) == (0, "")
    found = plain.json
    assert set(found) == {
        "location", "documents", "pages", "regions", "pending", "embedder", "fingerprint", "version", "storage",
        "bytes",
    }  # fmt: skip
    assert (found["documents"], found["pages"], found["pending"], found["embedder"]) == (2, 4, 0, "lite")
    assert {"images", "manifest", "ocr", "vectors: multi"} <= set(found["bytes"])
    assert all(0 <= size < 10_000_000 for size in found["bytes"].values())
    assert found["bytes"]["images"] > 1000
    listed = cli("info", "-i", kb, "--documents", "--json").json["list"]
    assert [(entry["doc_id"], entry["pages"], entry["done"]) for entry in listed] == [
        ("animals.pdf", 2, True),
        ("energy.pdf", 2, True),
    ]


@pytest.mark.parametrize("width", [80, 140])
def test_info_for_a_person(cli, shared, width):
    result = cli("info", "-i", shared / "kb", "--documents", width=width)
    assert (result.code, result.err) == (0, "")
    assert "lite@" in result.out
    assert "animals.pdf" in result.out
    assert "unfinished" not in result.out
    assert max(map(len, result.out.splitlines())) <= width


# -- evaluate and models -------------------------------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path):
    folder = tmp_path / "judged"
    write_docs(folder / "docs")
    lines = [{"doc": "animals", "file": "docs/animals.pdf"}, {"doc": "energy", "file": "docs/reports/energy.pdf"}]
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    queries = [
        ("a", "where do whales sing?", "animals", 2, "text", False),
        ("b", "Wo wuchs die Solarenergie?", "energy", 1, "table", True),
    ]
    entries = [
        {
            "qid": qid, "query": query, "relevant": [{"doc": doc, "page": page, "grade": 2}],
            "modality": modality, "cross_language": cross,
        }
        for qid, query, doc, page, modality, cross in queries
    ]  # fmt: skip
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    return folder


def test_evaluate(cli, judged, tmp_path):
    kb, run = tmp_path / "kb", tmp_path / "run.jsonl"
    result = cli("evaluate", judged, "-i", kb, "--run", run, "--json")
    assert (result.code, result.err) == (0, "")
    found = result.json
    assert {"queries", "measures", "by", "seconds"} <= set(found)
    assert found["queries"] == 2
    assert {"nDCG@5": 1.0, "Recall@1": 1.0, "Recall@5": 1.0, "RR@10": 1.0}.items() <= found["measures"].items()
    assert set(found["by"]) == {"modality", "language"}
    assert set(found["by"]["language"]) == {"same", "cross"}
    assert set(found["by"]["modality"]) == {"text", "table"}
    ranking = [json.loads(line) for line in run.read_text("utf-8").splitlines()]
    assert [line["ranking"][0] for line in ranking] == [["animals", 2], ["energy", 1]]
    table = cli("evaluate", judged, "-i", kb, width=80)  # the kept index makes the second run quick
    assert table.code == 0
    assert "nDCG@5" in table.out
    assert "language: cross" in table.out
    assert "1.000" in table.out
    assert " s, of which " in table.err
    assert max(map(len, table.out.splitlines())) <= 80


def test_evaluate_reports_what_could_not_be_read(cli, judged):
    (judged / "docs" / "animals.pdf").write_text("no pdf")
    result = cli("evaluate", judged)
    assert result.code == 1
    assert "animals.pdf: The content is not a PDF" in result.err
    assert "0.500" in result.out


def test_models(cli):
    listed = cli("models", "--json")
    assert (listed.code, listed.err) == (0, "")
    models = {model["name"]: model for model in listed.json["models"]}
    assert {"lite", "lite-en"} <= set(models)
    assert {"title", "reads", "languages", "licence", "megabytes", "installed", "role"} <= set(models["lite"])
    assert [model["name"] for model in models.values() if model["default"]] == ["lite"]
    assert not models["jinaai/jina-embeddings-v4"]["installed"]
    table = cli("models", width=80)
    assert table.code == 0
    for part in ("lite-en", "MIT", "Apache-2.0", "72 MB", "yes"):
        assert part in table.out
    assert "…" not in table.out, "something was cut off"
    assert max(map(len, table.out.splitlines())) <= 80


def test_models_download_says_what_is_wrong(cli):
    cli("models", "download", "jinaai/jina-reranker-m0").refused("not on this machine")  # offline, see conftest
    cli("models", "download", "lite").refused("come with a package")
    cli("models", "download", "no id").refused("write owner/model")


# -- trouble -------------------------------------------------------------------------------------------------------


def test_a_defect_is_one_sentence_and_debug_shows_the_traceback(cli, monkeypatch, tmp_path):
    def broken(*_args, **_options):
        raise RuntimeError("the [sky] fell")

    monkeypatch.setattr(DocumentIndex, "open", broken)
    result = cli("info", "--index", tmp_path)
    result.refused("defect of jina-rag, please report it: RuntimeError: the [sky] fell")
    monkeypatch.setenv("JINA_RAG_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["jina-rag", "info", "--index", str(tmp_path)])
    with pytest.raises(RuntimeError, match=r"the \[sky\] fell"):
        main()


def test_debug_shows_the_traceback_in_a_process(tmp_path):
    plain = process("info", "--index", tmp_path / "kb")
    assert (plain.returncode, b"Traceback" in plain.stderr, plain.stdout) == (2, False, b"")
    debug = process("info", "--index", tmp_path / "kb", env={"JINA_RAG_DEBUG": "1"})
    assert b"Traceback" in debug.stderr
    assert b"IndexNotFoundError" in debug.stderr


def test_what_the_system_refuses_is_said(cli, monkeypatch, tmp_path):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device", "kb/manifest.sqlite3")

    monkeypatch.setattr(DocumentIndex, "open", full)
    cli("info", "--index", tmp_path).refused("kb/manifest.sqlite3", "No space left on device")


def test_a_second_process_is_told_that_the_index_is_open(cli, shared):
    with DocumentIndex.open(shared / "kb"):
        other = process("search", "whales", "--index", shared / "kb")
    assert other.returncode == 2
    assert other.stdout == b""
    said = other.stderr.decode()
    assert "already open" in said
    assert "Traceback" not in said
    assert "WAL" not in said
    assert cli("search", "whales", "-i", shared / "kb").code == 0


@pytest.mark.skipif(os.name == "nt", reason="no pipes of this kind")
def test_a_reader_that_goes_away_is_no_error(shared):
    command = f"{shlex.quote(sys.executable)} -m jina_rag info --json --documents --index kb | true"
    done = subprocess.run(["sh", "-c", command], cwd=shared, capture_output=True, timeout=60, check=False)
    assert done.stderr == b""


ODD = ["line\nbreak.pdf", "[red]markup[bold] [link=x].pdf", "<b>&.pdf", "tab\there\x1b[31m.pdf", "naïve 文書 🙂.pdf"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_odd_names_never_break_the_output(encoding, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    sample_pdf(folder / "a.pdf", ["juniper berries"])
    names = [*map(os.fsencode, ODD), b"bad\xff.pdf"]
    for number, name in enumerate(names):
        # Each of its own content, and a broken twin, so that it stands in the list of failures, too.
        sample_pdf(folder / "a.pdf", [f"juniper berries {number}"])
        (folder / "a.pdf").rename(folder / os.fsdecode(name))
        (folder / os.fsdecode(b"broken-" + name)).write_bytes(b"no pdf")
    env = {"PYTHONIOENCODING": encoding}
    kb = tmp_path / "kb"

    report = process("ingest", folder, "--index", kb, "--ocr", "never", "--json", env=env)
    assert report.returncode == 1, report.stderr
    found = json.loads(report.stdout.decode(encoding))
    assert report.stdout.count(b"\n") == 1
    assert (found["documents"], len(found["failed"])) == (len(names), len(names))
    assert {os.fsencode(Path(entry["path"]).name) for entry in found["failed"]} == {b"broken-" + n for n in names}

    listing = process("ingest", folder, "--index", kb, "--ocr", "never", env=env)
    lines = listing.stderr.decode(encoding).splitlines()
    assert lines[0] == f"Nothing new to index: {len(names)} documents unchanged."
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
        shown = table.stdout.decode(encoding)
        assert "[red]markup" in shown
        assert "\x1b" not in shown


def test_a_long_list_is_cut_for_people_only():
    from rich.console import Console

    failures = tuple(Failure(Path(f"{n}.pdf"), "It is empty.", page=n or None) for n in range(50))
    report = IngestReport(failed=failures, warnings=failures[:1], skipped=failures[:7], interrupted=True)
    console = Console(file=io.StringIO(), width=80)
    console.print_report(console, report)
    said = console.file.getvalue()
    assert "Nothing was indexed." in said
    assert "0.pdf: It is empty." in said
    assert "3.pdf, page 3: It is empty." in said
    assert "… and 30 more; --json lists all." in said
    assert "… and 2 more" in said
    assert "Worth a look (1):" in said
    assert "the same command goes on from here" in said
    assert len(console.ingest_json(report)["failed"]) == 50
    assert console.ingest_json(report)["failed"][3] == {"path": "3.pdf", "reason": "It is empty.", "page": 3}


def test_progress_shows_pages_on_a_terminal_only():
    from rich.console import Console

    from jina_rag.indexing.ingest import IngestProgress

    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    with console.ingest_progress(terminal, quiet=False) as progress:
        assert progress is not None
        progress(IngestProgress(1, 3, 7, 21, current="a[b]\n.pdf"))
        progress(IngestProgress(3, 3, 21, 21))
    assert "21/21" in terminal.file.getvalue()
    for target, quiet in ((Console(file=io.StringIO()), False), (terminal, True)):
        with console.ingest_progress(target, quiet=quiet) as progress:
            assert progress is None


# -- haste ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "index"),
    [
        (["search", "whales", "--index", "kb"], "kb"),
        (["search", "-i", "kb", "whales"], "kb"),
        (["search", "whales", "--index=a=b"], "a=b"),
        (["search", "whales", "--index"], None),
        (["search", "--help", "-i", "kb"], None),
        (["info", "-i", "kb"], None),
        ([], None),
    ],
)
def test_a_search_loads_its_model_while_it_is_being_read(arguments, index, monkeypatch, capsys):
    begun = []
    monkeypatch.setattr("jina_rag.cli._load", begun.append)
    monkeypatch.setattr("jina_rag.cli.app.main", lambda: None)
    monkeypatch.setattr(sys, "argv", ["jina-rag", *arguments])
    monkeypatch.setattr("jina_rag.cli.gc.set_threshold", lambda *_: None)
    main()
    for thread in threading.enumerate():
        if thread.name == "jina-rag-model":
            thread.join()
    assert begun == ([] if index is None else [index])


def test_the_head_start_holds_the_model_of_the_index_and_is_silent_about_trouble(shared, tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr("jina_rag.cli._held", held)
    _load(str(shared / "kb"))
    assert [model.name for model in held] == ["lite"]
    _load(str(tmp_path / "nowhere"))
    (tmp_path / "manifest.sqlite3").write_bytes(b"no database, but long enough to be looked at" * 100)
    _load(str(tmp_path))
    assert [model.name for model in held if model] == ["lite"]


def test_a_new_index_loads_its_model_once(docs, tmp_path, monkeypatch):
    from jina_rag.index import session

    loaded = []
    load = session.load_embedder
    monkeypatch.setattr(session, "load_embedder", lambda name: loaded.append(name) or load(name))
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.ingest(docs / "animals.pdf")
        assert index.search("whales")
    assert loaded == ["lite"]


# -- Ctrl-C --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals are different there")
def test_ctrl_c_during_ingest_leaves_a_usable_index(cli, tmp_path):
    folder, kb = tmp_path / "docs", tmp_path / "kb"
    folder.mkdir()
    for d in range(20):
        words = " and more words that take their time" * 25
        sample_pdf(folder / f"doc{d}.pdf", [f"juniper document {d} page {p}{words}" for p in range(6)])
    command = [sys.executable, "-m", "jina_rag", "ingest", folder, "--index", kb, "--ocr", "never", "--json"]
    # Where these tests run in the background of a shell, Ctrl-C is ignored, and so it would be by what they start.
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not any((kb / "images").rglob("*.jpg")):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"Traceback" not in err
    report = json.loads(out)
    assert report["interrupted"] is True
    assert report["documents"] < 20
    assert cli("search", "juniper", "-i", kb).code == 0
    finished = cli("ingest", folder, "--index", kb, "--ocr", "never", "--json")
    assert finished.code == 0
    assert finished.json["documents"] + finished.json["unchanged"] == 20
    assert finished.json["unchanged"] == report["documents"]
    info = cli("info", "-i", kb, "--json").json
    assert (info["documents"], info["pages"], info["pending"]) == (20, 120, 0)


@pytest.mark.skipif(os.name == "nt", reason="signals are different there")
def test_ctrl_c_elsewhere_is_no_traceback(cli, monkeypatch, tmp_path):
    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(DocumentIndex, "open", interrupted)
    result = cli("info", "--index", tmp_path)
    assert result.code == 130
    assert "Traceback" not in result.err


def test_a_filter_finds_metadata_that_was_given_as_a_number_or_a_boolean(cli, docs, tmp_path):
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.ingest(docs / "animals.pdf", metadata={"year": 2024, "draft": True, "share": 0.5})
    for entry, count in (("year=2024", 2), ("draft=true", 2), ("share=0.5", 2), ("year=2023", 0), ("draft=1e999", 0)):
        hits = cli("search", "whales", "-i", tmp_path / "kb", "--filter", entry, "--json").json["hits"]
        assert len(hits) == count, entry
