"""Command line: ``jina-rag evaluate`` and its subcommands, text and JSON output."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.judged_sets import QUERIES, entry, write_judged, write_lines

from jina_rag.cli import main
from jina_rag.evaluation.measures import MEASURES
from jina_rag.evaluation.serialization import load
from jina_rag.evaluation.trec import read_qrels, read_trec_run


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The JSON object on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    def assert_usage_error(self, *parts: str) -> None:
        message = " ".join(self.err.replace("│", " ").split())
        assert (self.code, self.out) == (2, ""), message
        assert "Traceback" not in message
        for part in parts:
            assert part in message


@pytest.fixture
def cli(monkeypatch, capsys):
    monkeypatch.delenv("JINA_RAG_DEBUG", raising=False)

    def run(*args: object, width: int = 140) -> Result:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", ["jina-rag", "evaluate", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as remaining:
            main()
        output = capsys.readouterr()
        return Result(remaining.value.code or 0, output.out, output.err)

    return run


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A judged folder with one unanswered query, and an index folder that the first test fills."""
    root = tmp_path_factory.mktemp("evaluate")
    missing = ("f", "where in the deep sea do whales sing?", [("energy", 2, 2)], "text", False)
    write_judged(root / "judged", (*QUERIES, missing))
    return root


def test_json_of_one_setting_contains_all_fields(cli, shared, tmp_path):
    outcome = cli(shared / "judged", "-i", shared / "kb", "--json", "--seed", "4")
    assert (outcome.code, outcome.err) == (0, "")
    value = outcome.json
    assert {"queries", "measures", "by", "seconds", "failed"} <= set(value), "fields of the first release"
    assert tuple(value["measures"]) == MEASURES
    assert {
        "intervals", "unjudged", "latency", "pages", "bytes", "index_seconds", "fingerprint", "setting", "data_hash",
        "command", "versions", "seed", "per_query",
    } <= set(value)  # fmt: skip
    assert "settings" not in value
    assert "compared" not in value
    assert value["seed"] == 4
    assert shlex.split(value["command"])[:3] == ["jina-rag", "evaluate", str(shared / "judged")]
    assert set(value["per_query"]) == set("abcdef")
    assert value["per_query"]["a"]["measures"]["Recall@1"] == 1.0


@pytest.mark.parametrize("width", [80, 140])
def test_table_of_one_setting_fits_the_terminal(cli, shared, width):
    outcome = cli(shared / "judged", "-i", shared / "kb", width=width)
    assert outcome.code == 0
    for part in ("all", "95 % from", "modality: table", "language: cross", *MEASURES, "kB of vectors", "(p99"):
        assert part in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= width
    assert " s, of which " in outcome.err


def test_several_settings_write_one_file_each(cli, shared, tmp_path):
    stages = ("--stages", "default", "--stages", "rescore:hubness=0,dense=0+prefetch:limit=10")
    files = ("--run", tmp_path / "r.jsonl", "--trec", tmp_path / "trec", "--save", tmp_path / "s.json")
    first = (shared / "judged", "-i", shared / "kb", *stages, "-m", "ndcg@3", "-m", "Recall@1")
    value = cli(*first, *files, "--json").json
    assert [setting["name"] for setting in value["settings"]] == ["lite, default", f"lite, {stages[3]}"]
    assert value["measures"] == value["settings"][0]["measures"]
    assert set(value["measures"]) == {"nDCG@3", "Recall@1"}
    assert [(entry["second"], entry["measure"]) for entry in value["compared"]] == [
        (f"lite, {stages[3]}", "nDCG@3"), (f"lite, {stages[3]}", "Recall@1"),
    ]  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {
        "r.lite-default.jsonl", "r.lite-rescore-hubness=0-dense=0-prefetch-limit=10.jsonl", "trec", "s.json",
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "trec").iterdir()} == {
        "run.lite-default.trec", "run.lite-rescore-hubness=0-dense=0-prefetch-limit=10.trec",
        "qrels.trec", "qrels-gains.trec",
    }  # fmt: skip
    ranking = [json.loads(line) for line in (tmp_path / "r.lite-default.jsonl").read_text().splitlines()]
    run = read_trec_run(tmp_path / "trec" / "run.lite-default.trec")
    assert {row["qid"]: [tuple(page) for page in row["ranking"]] for row in ranking} == run
    assert read_qrels(tmp_path / "trec" / "qrels-gains.trec")["a"] == {("animals", 2): 3, ("animals", 1): 1}
    assert len(load(tmp_path / "s.json").settings) == 2
    comparison = cli(*first, "--compare", tmp_path / "s.json", "--json").json
    assert [entry["first"] for entry in comparison["compared"][2:]] == [
        "lite, default (s.json)", "lite, default (s.json)", *[f"lite, {stages[3]} (s.json)"] * 2,
    ]  # fmt: skip
    for width in (80, 140):
        output = cli(*first, "--compare", tmp_path / "s.json", "--failures", "2", width=width)
        assert output.code == 0
        for part in ("setting", "kB/page", "95 % interval", "nDCG@3 vs. lite, default", "(s.json)", "Lowest"):
            assert part in output.out
        tables = [line for line in output.out.splitlines() if "─" in line or "0." in line]
        assert max(len(line) for line in tables) <= width


def test_narrow_table_names_the_omitted_measures(cli, shared):
    output = cli(shared / "judged", "-i", shared / "kb", "--stages", "default", "--stages", "rescore:dense=1", width=80)
    assert "Recall@10, RR@10. Use --json, or widen the terminal." in output.out.replace("\n", " ")
    wide = cli(shared / "judged", "-i", shared / "kb", "--stages", "default", "--stages", "rescore:dense=1", width=150)
    assert "Use --json" not in wide.out


def test_lowest_scoring_queries_are_shown(cli, shared):
    output = cli(shared / "judged", "-i", shared / "kb", "--failures", "1", "-m", "P@2").out
    assert "Lowest-scoring queries by P@2:" in output
    assert "relevant: energy p. 2; retrieved: animals p. 2" in output
    assert "… and 5 more below 1." in output
    all_correct = cli(shared / "judged", "-i", shared / "kb", "--failures", "1", "-m", "Recall@4").out
    assert "Recall@4 is 1 for all queries." in all_correct


def test_reports_are_written_before_the_temporary_index_is_deleted(cli, shared, tmp_path):
    outcome = cli(shared / "judged", "--report", tmp_path / "r.html", "--markdown", tmp_path / "r.md", "--no-latency")
    assert outcome.code == 0, outcome.err
    html = (tmp_path / "r.html").read_text("utf-8")
    assert html.count("data:image/") >= 1, "the report contains page images"
    assert "nDCG@5" in (tmp_path / "r.md").read_text("utf-8")
    assert (tmp_path / "r.html").as_uri() in outcome.err.replace("\n", "")


def test_failed_documents_are_reported(cli, tmp_path):
    judged = write_judged(tmp_path / "judged")
    (judged / "docs" / "energy.pdf").write_text("no pdf")
    result = cli(judged, "--no-latency")
    assert result.code == 1
    assert "energy.pdf: The content is not a PDF" in result.err
    value = cli(judged, "--no-latency", "--json").json
    assert [Path(entry["path"]).name for entry in value["failed"]] == ["energy.pdf"]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["nowhere"], ["nowhere has no docs.jsonl", "jina-rag evaluate init"]),
        ([], ["Missing argument"]),
        (["judged", "-m", "F1@5"], ["'F1@5' is not a measure"]),
        (["judged", "--storage", "tiny"], ["expected one of exact, balanced, compact"]),
        (["judged", "--stages", "sort:x=1"], ["Unknown search stage 'sort'"]),
        (["judged", "--stages", "rerank:limit=3"], ["require a reranker"]),
        (["judged", "--report", "no/r.html"], ["cannot be written", "'no'"]),
        (["judged", "--trec", "no/trec"], ["cannot be written"]),
        (["judged", "--compare", "none.json"], ["none.json cannot be read"]),
        (["judged", "--failures", "-1"], ["Invalid value for '--failures'"]),
        (["init"], ["Missing argument"]),
        (["init", "new"], ["new does not exist. Pass the folder of the documents (--documents"]),
        (["check", "nowhere"], ["nowhere has no docs.jsonl"]),
        (["check", "judged", "--write"], ["has no queries.csv"]),
        (["check", "judged", "--whatever"], ["No such option"]),
    ],
)
def test_invalid_usage_prints_one_sentence(cli, args, parts, tmp_path, monkeypatch):
    write_judged(tmp_path / "judged")
    monkeypatch.chdir(tmp_path)
    previous = sorted(tmp_path.rglob("*"))
    cli(*args).assert_usage_error(*parts)
    assert sorted(tmp_path.rglob("*")) == previous


def test_results_of_other_data_are_rejected(cli, shared, tmp_path):
    cli(shared / "judged", "-i", shared / "kb", "--save", tmp_path / "s.json")
    judged = write_judged(tmp_path / "judged")
    result = cli(judged, "--no-latency", "--compare", tmp_path / "s.json")
    result.assert_usage_error("s.json was measured on different data", "the same documents and judgments")


@pytest.mark.parametrize(
    ("args", "command"), [(["--help"], ""), (["init", "-h"], "init "), (["check", "-h"], "check ")]
)
@pytest.mark.parametrize("width", [80, 140])
def test_help_of_each_subcommand_has_examples(cli, args, command, width):
    outcome = cli(*args, width=width)
    assert outcome.code == 0
    assert f"jina-rag evaluate {command}" in outcome.out
    assert "Example" in outcome.out
    assert "--json" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= width
    if not command:
        assert "evaluate init DIR" in outcome.out
        assert "evaluate check DIR" in outcome.out


def test_benchmark_option_selects_public_benchmarks(cli, shared, tmp_path):
    assert "--whole-search" in cli("--benchmark", "JinaVDR", "--help").out
    pytest.importorskip("mteb")
    cli("-b", "NoSuchTask", "-o", tmp_path / "out").assert_usage_error("NoSuchTask")
    (tmp_path / "empty").mkdir()
    cli("--folder", tmp_path / "empty", "-o", tmp_path / "out").assert_usage_error("docs.jsonl")


def test_negation_output_as_json_and_text(cli, tmp_path):
    rows = [{"anchor": "a man sleeps", "entailment": "a man rests", "negative": "whales do not sing"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = cli("negation", tmp_path / "t.jsonl", "--json").json
    assert (outcome["embedder"], outcome["easy"]["n"], outcome["easy"]["value"]) == ("lite", 1, 1.0)
    assert outcome["published"]["easy"] == 0.982
    message = cli("negation", "-e", "lite-en")
    assert "100 triplets" in message.out
    assert "98.2%" in message.out
    assert "harder than the published triplets" in message.err
    assert len(message.out.splitlines()) == 3
    cli("negation", tmp_path / "none.jsonl").assert_usage_error("none.jsonl")


def test_options_may_precede_the_folder(cli, shared, tmp_path, monkeypatch):
    assert cli("--json", "-i", shared / "kb", shared / "judged").json["queries"] == 6
    # The folder has the name of a subcommand.
    monkeypatch.chdir(tmp_path)
    write_judged(tmp_path / "check")
    assert cli("./check", "--no-latency", "--json").json["queries"] == 5


def test_init_check_and_measure_work_in_sequence(cli, tmp_path):
    write_judged(tmp_path / "any")
    judged = tmp_path / "judged"
    scaffold = cli("init", judged, "--documents", tmp_path / "any" / "docs")
    assert scaffold.code == 0, scaffold.err
    assert "Listed 2 documents with 4 pages" in scaffold.err
    assert str(judged / "queries.csv") in scaffold.out.replace("\n", "")
    assert (judged / "pages.html").as_uri() in scaffold.out.replace("\n", "")
    cli(judged).assert_usage_error("has no judged query")
    with (judged / "queries.csv").open("a", encoding="utf-8") as file:
        file.write("Where do whales sing?,animals,2\nwhat grew,energy,9\n")
    check_result = cli("check", judged)
    assert check_result.code == 1
    assert "missing page: q002: 'energy' has no page 9; expected 1 to 2." in check_result.out
    sheet = (judged / "queries.csv").read_text("utf-8-sig")
    (judged / "queries.csv").write_text(sheet.replace("energy,9", "energy,1"), encoding="utf-8")
    good = cli("check", judged, "--write")
    assert good.code == 0, good.out
    assert "No problems found." in good.out
    assert "Wrote 2 queries to " in good.err
    assert cli("check", judged, "--json").json["findings"] == []
    assert cli("init", judged, "-d", tmp_path / "any" / "docs", "--json").json["documents"] == 2
    assert cli(judged, "--no-latency", "--json").json["measures"]["Recall@1"] == 1.0


def test_json_of_check_contains_findings_and_counts(cli, tmp_path):
    judged = write_judged(tmp_path / "judged")
    write_lines(judged / "queries.jsonl", [entry("a", "what?", []), entry("b", "what?", [("animals", 1, 2)])])
    outcome = cli("check", judged, "--json")
    assert outcome.code == 1
    assert {finding["kind"] for finding in outcome.json["findings"]} == {"no judgement", "other pages"}
    assert outcome.json["counts"]["questions"] == 2
    assert outcome.err == ""


@pytest.mark.parametrize("path", ["", " "])
def test_empty_document_folder_is_rejected(cli, docs, tmp_path, monkeypatch, path):
    monkeypatch.chdir(docs)
    cli("init", tmp_path / "judged", "--documents", path).assert_usage_error("is empty")
    assert not (tmp_path / "judged").exists()
