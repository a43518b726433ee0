"""The measures, against a second implementation written from their definitions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedQuery, read_folder, read_queries
from jina_rag.evaluation.measures import mean, measure

PAGES = [(doc, page) for doc in ("a", "b", "c") for page in (1, 2, 3, 11)]


def by_definition(relevant: dict, ranking: list) -> dict[str, float]:
    ranking = list(dict.fromkeys(ranking))
    gains = [(2 ** relevant.get(page, 0) - 1) / math.log2(i + 2) for i, page in enumerate(ranking[:5])]
    ideal = [(2**g - 1) / math.log2(i + 2) for i, g in enumerate(sorted(relevant.values(), reverse=True)[:5])]
    full = {page for page, grade in relevant.items() if grade == 2}
    return {
        "nDCG@5": sum(gains) / sum(ideal),
        "Recall@1": float(bool(full & set(ranking[:1]))),
        "Recall@5": float(bool(full & set(ranking[:5]))),
        "RR@10": next((1 / i for i, page in enumerate(ranking[:10], 1) if page in full), 0.0),
    }


judgements = st.dictionaries(st.sampled_from(PAGES), st.sampled_from([1, 2]), min_size=1, max_size=5)
rankings = st.lists(st.sampled_from(PAGES), max_size=14)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(judgements, rankings), min_size=1, max_size=4))
def test_measures_agree_with_their_definitions(cases):
    queries = [JudgedQuery(f"q{i}", "?", relevant) for i, (relevant, _) in enumerate(cases)]
    found = measure(queries, {f"q{i}": ranking for i, (_, ranking) in enumerate(cases)})
    for i, (relevant, ranking) in enumerate(cases):
        expected = by_definition(relevant, ranking)
        assert found[f"q{i}"] == pytest.approx(expected, abs=1e-9)


def test_a_question_that_is_missing_from_the_run_scores_zero():
    queries = [JudgedQuery("q1", "?", {("a", 1): 2}), JudgedQuery("q2", "?", {("a", 2): 2})]
    found = measure(queries, {"q1": [("a", 1)]})
    assert found["q1"]["nDCG@5"] == 1
    assert set(found["q2"].values()) == {0.0}
    assert mean(list(found.values()))["RR@10"] == 0.5


def test_questions_without_a_relevant_page_are_left_out():
    assert measure([JudgedQuery("q", "?", {("a", 1): 0})], {"q": [("a", 1)]}) == {}
    assert mean([]) == {}


def write_folder(root: Path, docs: list[dict], queries: list[dict]) -> Path:
    root.mkdir(exist_ok=True)
    (root / "docs.jsonl").write_text("\n".join(json.dumps(d) for d in docs), encoding="utf-8")
    (root / "queries.jsonl").write_text("\n".join(json.dumps(q) for q in queries), encoding="utf-8")
    return root


def test_a_folder_is_read(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    query = {
        "qid": "1", "query": "what?", "modality": "table", "cross_language": True,
        "relevant": [{"doc": "a", "page": 2, "grade": 2}],
    }  # fmt: skip
    folder = read_folder(write_folder(tmp_path, [{"doc": "a", "file": "a.pdf"}], [query]))
    assert folder.documents == {"a": tmp_path / "a.pdf"}
    assert folder.queries[0].relevant == {("a", 2): 2}
    assert folder.queries[0].cross_language is True


@pytest.mark.parametrize(
    ("docs", "queries", "words"),
    [
        ([{"doc": "a", "file": "none.pdf"}], [], "does not exist"),
        ([{"doc": "a"}], [], '"file" must be a text'),
        ([{"doc": "a", "file": "a.pdf"}] * 2, [], "listed twice"),
        ([], [{"qid": "1", "query": " "}], '"query" must be a text'),
        ([], [{"qid": "1", "query": "x"}] * 2, "occurs twice"),
        ([], [{"qid": "1", "query": "x", "relevant": [{"doc": "a"}]}], "doc, page and grade"),
        ([], [{"qid": "1", "query": "x", "relevant": [{"doc": "a", "page": 1, "grade": 5}]}], "grades are 2"),
        (
            [],
            [{"qid": "1", "query": "x", "relevant": [{"doc": "zz", "page": 1, "grade": 2}]}],
            "does not list",
        ),
    ],
)
def test_a_folder_with_a_fault_is_refused_by_name(tmp_path, docs, queries, words):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(InvalidInputError, match=words):
        read_folder(write_folder(tmp_path, docs, queries))


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match=r"has no docs\.jsonl"):
        read_folder(tmp_path)
    broken = tmp_path / "q.jsonl"
    broken.write_text('{"qid": "1", "query": "x"}\nnonsense\n', encoding="utf-8")
    with pytest.raises(InvalidInputError, match="line 2: not JSON"):
        read_queries(broken)
    broken.write_text("[1]", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="expected a JSON object"):
        read_queries(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="UTF-8"):
        read_queries(broken)
