"""Command line: ``jina-rag evaluate DIR`` on a judged folder of two documents."""

from __future__ import annotations

import json

import pytest
from helpers.command_line import write_docs


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


def test_evaluate_prints_the_measures(cli, judged, tmp_path):
    kb, run = tmp_path / "kb", tmp_path / "run.jsonl"
    result = cli("evaluate", judged, "-i", kb, "--run", run, "--json")
    assert (result.code, result.err) == (0, "")
    content = result.json
    assert {"queries", "measures", "by", "seconds"} <= set(content)
    assert content["queries"] == 2
    assert {"nDCG@5": 1.0, "Recall@1": 1.0, "Recall@5": 1.0, "RR@10": 1.0}.items() <= content["measures"].items()
    assert set(content["by"]) == {"modality", "language"}
    assert set(content["by"]["language"]) == {"same", "cross"}
    assert set(content["by"]["modality"]) == {"text", "table"}
    ranking = [json.loads(line) for line in run.read_text("utf-8").splitlines()]
    assert [line["ranking"][0] for line in ranking] == [["animals", 2], ["energy", 1]]
    table = cli("evaluate", judged, "-i", kb, width=80)  # the second run reuses the index
    assert table.code == 0
    assert "nDCG@5" in table.out
    assert "language: cross" in table.out
    assert "1.000" in table.out
    assert " s, of which " in table.err
    assert max(map(len, table.out.splitlines())) <= 80


def test_evaluate_reports_failed_documents(cli, judged):
    (judged / "docs" / "animals.pdf").write_text("no pdf")
    result = cli("evaluate", judged)
    assert result.code == 1
    assert "animals.pdf: The content is not a PDF" in result.err
    assert "0.500" in result.out
