"""Run and qrels files of trec_eval: round trips, scores in ir-measures, tie order, and invalid lines."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedQuery
from jina_rag.evaluation.measures import mean, measure
from jina_rag.evaluation.trec import (
    escape_name,
    page_id,
    parse_page_id,
    read_qrels,
    read_trec_run,
    unescape_name,
    write_qrels,
    write_trec_run,
)

QUERIES = [
    JudgedQuery("q 1", "?", {("annual report", 2): 2, ("annual report", 1): 1, ("b", 7): 0}),
    JudgedQuery("q2", "?", {("100 % #1", 1): 2, ("b", 2): 2}),
    JudgedQuery("q3", "?", {("報告　書", 3): 1}),
    JudgedQuery("nothing found", "?", {("b", 1): 2}),
    JudgedQuery("not judged", "?", {}),
]
RUN = {
    "q 1": [("annual report", 1), ("b", 7), ("annual report", 2), ("annual report", 1), ("annual report", 10)],
    "q2": [("b", 11), ("100 % #1", 1), ("b", 2)],
    "q3": [("報告　書", 3)],
    "not judged": [("b", 1)],
}


@given(st.text(min_size=1), st.integers(1, 10**6))
@example("a b\t\u00a0\u3000\u2028", 1)
@example("bad\udcff.name", 1)
@example("100%25 #3", 3)
def test_page_id_is_one_word_and_round_trips(doc, page):
    word = page_id((doc, page))
    assert word.split() == [word]
    assert parse_page_id(word) == (doc, page)
    assert unescape_name(escape_name(doc)) == doc
    word.encode("utf-8")


def test_run_and_qrels_files_round_trip(tmp_path):
    write_trec_run(tmp_path / "run.trec", RUN, name="a b")
    distinct_pages = {query_id: list(dict.fromkeys(pages)) for query_id, pages in RUN.items()}
    assert read_trec_run(tmp_path / "run.trec") == distinct_pages
    write_qrels(tmp_path / "qrels.trec", QUERIES)
    assert read_qrels(tmp_path / "qrels.trec") == {q.query_id: q.relevant for q in QUERIES if q.relevant}
    write_qrels(tmp_path / "gains.trec", QUERIES, gains=True)
    assert set(read_qrels(tmp_path / "gains.trec")["q 1"].values()) == {3, 1, 0}


def test_ir_measures_scores_of_written_files_match(tmp_path):
    ir_measures = pytest.importorskip("ir_measures")
    write_trec_run(tmp_path / "run.trec", RUN)
    write_qrels(tmp_path / "qrels.trec", QUERIES)
    write_qrels(tmp_path / "gains.trec", QUERIES, gains=True)
    expected = mean(list(measure(QUERIES, RUN).values()))
    run = list(ir_measures.read_trec_run(str(tmp_path / "run.trec")))
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.trec")))
    gains = list(ir_measures.read_trec_qrels(str(tmp_path / "gains.trec")))
    for k in (5, 10):
        gains_ndcg = ir_measures.nDCG(gains={1: 1, 2: 3}) @ k
        assert ir_measures.calc_aggregate([gains_ndcg], qrels, run)[gains_ndcg] == pytest.approx(
            expected[f"nDCG@{k}"], abs=1e-9
        )
        plain_ndcg = ir_measures.nDCG @ k
        assert ir_measures.calc_aggregate([plain_ndcg], gains, run)[plain_ndcg] == pytest.approx(
            expected[f"nDCG@{k}"], abs=1e-9
        )
        success = ir_measures.Success(rel=2) @ k
        assert ir_measures.calc_aggregate([success], qrels, run)[success] == pytest.approx(expected[f"Recall@{k}"])
    rr = ir_measures.RR(rel=2) @ 10
    assert ir_measures.calc_aggregate([rr], qrels, run)[rr] == pytest.approx(expected["RR@10"], abs=1e-9)


def test_read_run_sorts_by_score_and_name_like_trec_eval(tmp_path):
    path = tmp_path / "other.trec"
    path.write_text("q Q0 a#1 1 0.5 x\nq Q0 c#1 2 0.5 x\n\nq\tQ0 b#1 9 2e0 x\n")
    assert read_trec_run(path) == {"q": [("b", 1), ("c", 1), ("a", 1)]}


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_trec_run, "q Q0 a#1 1 0.5\n", "line 1: expected the columns QUERY Q0 PAGE RANK SCORE NAME"),
        (read_trec_run, "q Q0 a#1 1 high x\n", "line 1: score is 'high'"),
        (read_trec_run, "q Q0 a 1 0.5 x\n", "line 1: 'a' is not a page"),
        (read_qrels, "\nq 0 a#1\n", "line 2: expected the columns QUERY 0 PAGE GRADE"),
        (read_qrels, "q 0 a#1 good\n", "grade is 'good'"),
        (read_qrels, "q 0 a#x 1\n", "line 1: 'a#x' is not a page"),
    ],
)
def test_invalid_line_raises_invalid_input(tmp_path, read, text, message):
    (tmp_path / "f.trec").write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        read(tmp_path / "f.trec")


def test_unreadable_or_unwritable_file_is_named_in_the_error(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_trec_run(tmp_path / "none.trec")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InvalidInputError, match="UTF-8"):
        read_qrels(tmp_path / "binary")
    with pytest.raises(InvalidInputError, match="cannot be written"):
        write_qrels(tmp_path / "no" / "qrels.trec", QUERIES)
