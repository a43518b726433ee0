"""The measures, against a second implementation written from their definitions, and against ir-measures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedQuery, read_folder, read_queries
from jina_rag.evaluation.measures import MEASURES, depth_of, depths_of, mean, measure, parse_measures, unjudged
from jina_rag.evaluation.trec import page_id, page_of, trec_order

PAGES = [(doc, page) for doc in ("a", "b", "c d") for page in (1, 2, 3, 11)]
EVERY = (*MEASURES, "nDCG@1", "nDCG@3", "Recall@3", "RR@1", "RR@5", "AP@5", "AP@10", "P@1", "P@5", "P@10")


def by_definition(relevant: dict, ranking: list, name: str) -> float:
    family, k = name.split("@")
    k = int(k)
    ranking = list(dict.fromkeys(ranking))[:k]
    full = {page for page, grade in relevant.items() if grade == 2}
    hits = [page in full for page in ranking]
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
    return sum(sum(hits[:i]) / i for i, hit in enumerate(hits, 1) if hit) / max(len(full), 1)


judgements = st.dictionaries(st.sampled_from(PAGES), st.sampled_from([0, 1, 2]), min_size=1, max_size=6).filter(
    lambda relevant: any(relevant.values())
)
rankings = st.lists(st.sampled_from(PAGES), max_size=14)


@settings(max_examples=200)
@given(st.lists(st.tuples(judgements, rankings), min_size=1, max_size=4))
def test_measures_agree_with_their_definitions(cases):
    queries = [JudgedQuery(f"q{i}", "?", relevant) for i, (relevant, _) in enumerate(cases)]
    result = measure(queries, {f"q{i}": ranking for i, (_, ranking) in enumerate(cases)}, EVERY)
    for i, (relevant, ranking) in enumerate(cases):
        assert tuple(result[f"q{i}"]) == EVERY
        for name in EVERY:
            assert result[f"q{i}"][name] == pytest.approx(by_definition(relevant, ranking, name), abs=1e-9), name


# Scores of a few values only, so that most runs have ties; pages nobody judged; runs and judgements that are empty.
scored_runs = st.dictionaries(st.sampled_from(PAGES), st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.5]), max_size=12)
judged_or_not = st.dictionaries(st.sampled_from(PAGES), st.sampled_from([0, 1, 2]), max_size=6)


@settings(max_examples=200)
@given(st.lists(st.tuples(judged_or_not, scored_runs), min_size=1, max_size=4))
def test_measures_agree_with_ir_measures(cases):
    ir_measures = pytest.importorskip("ir_measures")
    queries = [JudgedQuery(f"q{i}", "?", relevant) for i, (relevant, _) in enumerate(cases)]
    run = {
        f"q{i}": [page_of(word) for word in trec_order((score, page_id(page)) for page, score in scored.items())]
        for i, (_, scored) in enumerate(cases)
    }
    result = measure(queries, run, EVERY)
    assert set(result) == {f"q{i}" for i, (relevant, _) in enumerate(cases) if any(relevant.values())}
    theirs = {name: their_measure(ir_measures, name) for name in EVERY}
    cut = {name: 1 / int(name.split("@")[1]) if name.startswith("RR") else 0.0 for name in EVERY}
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
        (row.query_id, row.measure): row.value for row in ir_measures.iter_calc(set(theirs.values()), qrels, docs)
    }
    for query_id, row in result.items():
        for name, value in row.items():
            # A question without any page in the run is left out there, and 0 here.
            expected = values.get((query_id, theirs[name]), 0.0)
            assert value == pytest.approx(expected if expected > cut[name] - 1e-9 else 0.0, abs=1e-9), name


def their_measure(ir_measures, name: str):
    """What ir-measures calls it, with the gains 2^grade - 1, and grade 2 as relevant.

    RR without its depth, which is trec_eval's: with one, it is that of a script of MS MARCO, which breaks ties by name
    the other way round.
    """
    family, k = name.split("@")
    if family == "RR":
        return ir_measures.RR(rel=2)
    known = {
        "nDCG": ir_measures.nDCG(gains={1: 1, 2: 3}),
        "Recall": ir_measures.Success(rel=2),
        "AP": ir_measures.AP(rel=2),
        "P": ir_measures.P(rel=2),
    }
    return known[family] @ int(k)


def test_names_of_measures():
    assert parse_measures(["ndcg@3", "MRR@10", "RR@10", " recall@1 ", "map@7", "p@2"]) == (
        "nDCG@3", "RR@10", "Recall@1", "AP@7", "P@2",
    )  # fmt: skip
    assert depth_of(["nDCG@3", "Recall@20"]) == 20
    assert depth_of([]) == 10
    assert depths_of(MEASURES) == (1, 5, 10)


@pytest.mark.parametrize("name", ["nDCG", "nDCG@0", "nDCG@1001", "F1@5", "", "@5", "nDCG@-1", "nDCG@5.5"])
def test_a_name_that_is_no_measure_is_refused(name):
    with pytest.raises(InvalidInputError, match="is no measure: write nDCG@K"):
        parse_measures([name])


def test_unjudged_pages_are_counted_by_depth():
    query = JudgedQuery("q", "?", {("a", 1): 2, ("a", 2): 0})
    ranking = [("b", 1), ("a", 2), ("b", 1), ("a", 1), ("c", 1)]
    assert unjudged(query, ranking, (1, 2, 3, 10)) == {1: 1, 2: 1, 3: 1, 10: 2}, "grade 0 is a judgement, too"
    assert unjudged(query, [], (5,)) == {5: 0}


def test_a_question_that_is_missing_from_the_run_scores_zero():
    queries = [JudgedQuery("q1", "?", {("a", 1): 2}), JudgedQuery("q2", "?", {("a", 2): 2})]
    result = measure(queries, {"q1": [("a", 1)]})
    assert result["q1"]["nDCG@5"] == 1
    assert set(result["q2"].values()) == {0.0}
    assert mean(list(result.values()))["RR@10"] == 0.5


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
