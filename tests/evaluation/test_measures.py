"""Ranking measures, compared with a direct implementation and with ir-measures, and reading of judged folders."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedQuery, read_folder, read_queries
from jina_rag.evaluation.measures import MEASURES, all_depths, max_depth, mean, measure, parse_measures, unjudged
from jina_rag.evaluation.trec import page_id, parse_page_id, trec_order

PAGES = [(doc, page) for doc in ("a", "b", "c d") for page in (1, 2, 3, 11)]
ALL_MEASURES = (*MEASURES, "nDCG@1", "nDCG@3", "Recall@3", "RR@1", "RR@5", "AP@5", "AP@10", "P@1", "P@5", "P@10")


def measure_by_definition(relevant: dict, ranking: list, name: str) -> float:
    family, k = name.split("@")
    k = int(k)
    ranking = list(dict.fromkeys(ranking))[:k]
    relevant_pages = {page for page, grade in relevant.items() if grade == 2}
    hits = [page in relevant_pages for page in ranking]
    if family == "nDCG":
        gains = [(2 ** relevant.get(page, 0) - 1) / math.log2(i + 2) for i, page in enumerate(ranking)]
        ideal = [(2**g - 1) / math.log2(i + 2) for i, g in enumerate(sorted(relevant.values(), reverse=True)[:k])]
        return sum(gains) / sum(ideal)
    if family == "Recall":
        return float(any(hits))
    if family == "RR":
        return next((1 / i for i, hit in enumerate(hits, 1) if hit), 0.0)
    if family == "P":
        return sum(hits) / k
    return sum(sum(hits[:i]) / i for i, hit in enumerate(hits, 1) if hit) / max(len(relevant_pages), 1)


judgments = st.dictionaries(st.sampled_from(PAGES), st.sampled_from([0, 1, 2]), min_size=1, max_size=6).filter(
    lambda relevant: any(relevant.values())
)
rankings = st.lists(st.sampled_from(PAGES), max_size=14)


@settings(max_examples=200)
@given(st.lists(st.tuples(judgments, rankings), min_size=1, max_size=4))
def test_measures_match_their_definitions(cases):
    queries = [JudgedQuery(f"q{i}", "?", relevant) for i, (relevant, _) in enumerate(cases)]
    result = measure(queries, {f"q{i}": ranking for i, (_, ranking) in enumerate(cases)}, ALL_MEASURES)
    for i, (relevant, ranking) in enumerate(cases):
        assert tuple(result[f"q{i}"]) == ALL_MEASURES
        for name in ALL_MEASURES:
            assert result[f"q{i}"][name] == pytest.approx(measure_by_definition(relevant, ranking, name), abs=1e-9), (
                name
            )


# Few distinct scores cause ties in most runs. Some pages are unjudged, and some runs and judgments are empty.
scored_runs = st.dictionaries(st.sampled_from(PAGES), st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.5]), max_size=12)
partial_judgments = st.dictionaries(st.sampled_from(PAGES), st.sampled_from([0, 1, 2]), max_size=6)


@settings(max_examples=200)
@given(st.lists(st.tuples(partial_judgments, scored_runs), min_size=1, max_size=4))
def test_measures_match_ir_measures(cases):
    ir_measures = pytest.importorskip("ir_measures")
    queries = [JudgedQuery(f"q{i}", "?", relevant) for i, (relevant, _) in enumerate(cases)]
    run = {
        f"q{i}": [parse_page_id(word) for word in trec_order((score, page_id(page)) for page, score in scored.items())]
        for i, (_, scored) in enumerate(cases)
    }
    result = measure(queries, run, ALL_MEASURES)
    assert set(result) == {f"q{i}" for i, (relevant, _) in enumerate(cases) if any(relevant.values())}
    ir_names = {name: ir_measure_of(ir_measures, name) for name in ALL_MEASURES}
    min_value = {name: 1 / int(name.split("@")[1]) if name.startswith("RR") else 0.0 for name in ALL_MEASURES}
    qrels = [
        ir_measures.Qrel(query.query_id, page_id(page), grade)
        for query in queries
        for page, grade in query.relevant.items()
    ]
    docs = [
        ir_measures.ScoredDoc(f"q{i}", page_id(page), score)
        for i, (_, scored) in enumerate(cases) for page, score in scored.items()
    ]  # fmt: skip
    if not qrels:
        return
    values = {
        (row.query_id, row.measure): row.value for row in ir_measures.iter_calc(set(ir_names.values()), qrels, docs)
    }
    for query_id, row in result.items():
        for name, value in row.items():
            # ir-measures omits a query without pages in the run; here such a query scores 0.
            expected = values.get((query_id, ir_names[name]), 0.0)
            assert value == pytest.approx(expected if expected > min_value[name] - 1e-9 else 0.0, abs=1e-9), name


def ir_measure_of(ir_measures, name: str):
    """Return the ir-measures equivalent, with gains 2^grade - 1 and grade 2 as relevant.

    RR has no depth, which selects trec_eval. With a depth, ir-measures uses the script of MS MARCO, which breaks ties
    in the opposite order of names.
    """
    family, k = name.split("@")
    if family == "RR":
        return ir_measures.RR(rel=2)
    measures = {
        "nDCG": ir_measures.nDCG(gains={1: 1, 2: 3}),
        "Recall": ir_measures.Success(rel=2),
        "AP": ir_measures.AP(rel=2),
        "P": ir_measures.P(rel=2),
    }
    return measures[family] @ int(k)


def test_measure_names_are_normalized():
    assert parse_measures(["ndcg@3", "MRR@10", "RR@10", " recall@1 ", "map@7", "p@2"]) == (
        "nDCG@3", "RR@10", "Recall@1", "AP@7", "P@2",
    )  # fmt: skip
    assert max_depth(["nDCG@3", "Recall@20"]) == 20
    assert max_depth([]) == 10
    assert all_depths(MEASURES) == (1, 5, 10)


@pytest.mark.parametrize("name", ["nDCG", "nDCG@0", "nDCG@1001", "F1@5", "", "@5", "nDCG@-1", "nDCG@5.5"])
def test_invalid_measure_name_raises_invalid_input(name):
    with pytest.raises(InvalidInputError, match="is not a measure; expected nDCG@K"):
        parse_measures([name])


def test_unjudged_pages_per_depth():
    query = JudgedQuery("q", "?", {("a", 1): 2, ("a", 2): 0})
    ranking = [("b", 1), ("a", 2), ("b", 1), ("a", 1), ("c", 1)]
    assert unjudged(query, ranking, (1, 2, 3, 10)) == {1: 1, 2: 1, 3: 1, 10: 2}, "a page of grade 0 is judged"
    assert unjudged(query, [], (5,)) == {5: 0}


def test_query_missing_from_run_scores_zero():
    queries = [JudgedQuery("q1", "?", {("a", 1): 2}), JudgedQuery("q2", "?", {("a", 2): 2})]
    result = measure(queries, {"q1": [("a", 1)]})
    assert result["q1"]["nDCG@5"] == 1
    assert set(result["q2"].values()) == {0.0}
    assert mean(list(result.values()))["RR@10"] == 0.5


def test_queries_without_relevant_page_are_skipped():
    assert measure([JudgedQuery("q", "?", {("a", 1): 0})], {"q": [("a", 1)]}) == {}
    assert mean([]) == {}


def write_folder(root: Path, docs: list[dict], queries: list[dict]) -> Path:
    root.mkdir(exist_ok=True)
    (root / "docs.jsonl").write_text("\n".join(json.dumps(d) for d in docs), encoding="utf-8")
    (root / "queries.jsonl").write_text("\n".join(json.dumps(q) for q in queries), encoding="utf-8")
    return root


def test_read_folder_returns_documents_and_queries(tmp_path):
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
    ("docs", "queries", "message"),
    [
        ([{"doc": "a", "file": "none.pdf"}], [], "does not exist"),
        ([{"doc": "a"}], [], '"file" is missing'),
        ([{"doc": "a", "file": "a.pdf"}] * 2, [], "listed twice"),
        ([], [{"qid": "1", "query": " "}], '"query" is missing'),
        ([], [{"qid": "1", "query": "x"}] * 2, "occurs twice"),
        ([], [{"qid": "1", "query": "x", "relevant": [{"doc": "a"}]}], "doc, page and grade"),
        ([], [{"qid": "1", "query": "x", "relevant": [{"doc": "a", "page": 1, "grade": 5}]}], "invalid grade"),
        (
            [],
            [{"qid": "1", "query": "x", "relevant": [{"doc": "zz", "page": 1, "grade": 2}]}],
            "does not list",
        ),
    ],
)
def test_invalid_folder_raises_invalid_input(tmp_path, docs, queries, message):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(InvalidInputError, match=message):
        read_folder(write_folder(tmp_path, docs, queries))


def test_unreadable_file_is_named_in_the_error(tmp_path):
    with pytest.raises(InvalidInputError, match=r"has no docs\.jsonl"):
        read_folder(tmp_path)
    path = tmp_path / "q.jsonl"
    path.write_text('{"qid": "1", "query": "x"}\nnonsense\n', encoding="utf-8")
    with pytest.raises(InvalidInputError, match="line 2: not JSON"):
        read_queries(path)
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="expected a JSON object"):
        read_queries(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="UTF-8"):
        read_queries(path)
