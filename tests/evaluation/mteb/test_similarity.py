"""Similarity matrices for mteb: MaxSim without padding, which keeps negative similarities."""

import mteb
import numpy as np
import pytest
from helpers.mteb_tasks import text_task
from hypothesis import given, settings
from hypothesis import strategies as st
from mteb.similarity_functions import max_sim

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb import JinaRagEncoder, similarity
from jina_rag.evaluation.mteb.similarity import EMPTY_DOCUMENT_SCORE, dense_scores, maxsim_scores
from jina_rag.scoring import maxsim_many
from jina_rag.testing import FakeEmbedder
from jina_rag.types import Embeddings


def rows(*cosines: float) -> np.ndarray:
    """Return unit rows whose dot products with (1, 0) are `cosines`."""
    return np.array([[c, np.sqrt(1 - c * c)] for c in cosines], np.float32)


class NegativeEmbedder(FakeEmbedder):
    """An embedder with negative similarities only; texts with the word "long" score higher."""

    def __init__(self) -> None:
        super().__init__(dim=2, multi_dim=2)

    def encode_query(self, queries, **options):
        return Embeddings(multi=[np.array([[1, 0]], np.float32) for _ in queries])

    def encode_document(self, documents, **options):
        return Embeddings(multi=[rows(-0.9, -0.5, -0.7) if "long" in text else rows(-1.0) for text in documents])


def test_maxsim_keeps_negative_scores_unlike_mteb_padding() -> None:
    query, documents = [np.array([[1, 0]], np.float32)], [rows(-1.0), rows(-0.9, -0.5)]
    assert maxsim_scores(query, documents)[0].tolist() == pytest.approx([-1, -0.5])
    assert max_sim(query, documents)[0].tolist() == pytest.approx([0, -0.5])  # the zero padding of mteb


def test_mteb_evaluation_ranks_negative_similarities() -> None:
    task = text_task(["the long one"], ["anything"])
    task._data[0].append({"id": "d1", "title": "", "text": "short"})
    model = JinaRagEncoder(NegativeEmbedder(), vectors="multi")
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    assert result.task_results[0].get_score() == 1.0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_maxsim_scores_equal_scoring_maxsim(data) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    lengths = st.lists(st.integers(0, 6), min_size=1, max_size=6)
    rng = np.random.default_rng(seed)
    queries = [rng.normal(size=(max(n, 1), 4)).astype(np.float32) for n in data.draw(lengths)]
    documents = [rng.normal(size=(n, 4)).astype(np.float32) - 2 for n in data.draw(lengths)]
    outcome = maxsim_scores(queries, documents)
    for query, scores in zip(queries, outcome, strict=True):
        expected = maxsim_many(query, documents)
        np.testing.assert_allclose(
            scores, np.where(np.isinf(expected), EMPTY_DOCUMENT_SCORE, expected), rtol=1e-5, atol=1e-5
        )


def test_maxsim_in_blocks_equals_one_block(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    queries = [rng.normal(size=(n, 4)) for n in (2, 3)]
    documents = [rng.normal(size=(n, 4)) for n in (5, 0, 1, 9, 2)]
    expected = maxsim_scores(queries, documents)
    monkeypatch.setattr(similarity, "_BLOCK", 30)
    np.testing.assert_allclose(maxsim_scores(queries, documents), expected, rtol=1e-6)


def test_similarity_accepts_all_input_shapes_of_mteb() -> None:
    query, documents = rows(0.5, 0.1), [rows(0.2), rows(0.9, 0.3)]
    expected = maxsim_scores([query], documents)
    for query_form in (query, query[None], np.array([query])):
        np.testing.assert_allclose(maxsim_scores(query_form, documents), expected)
    assert maxsim_scores([np.zeros((0, 2))], documents).tolist() == [[0, 0]]  # an empty query
    assert dense_scores(query[0], query).shape == (1, 2)
    with pytest.raises(InvalidInputError, match="same model"):
        maxsim_scores([query], [np.ones((1, 3))])


def test_pairwise_similarity_equals_the_diagonal() -> None:
    rng = np.random.default_rng(1)
    ragged = [rng.normal(size=(n, 3)) for n in (1, 4, 2)]
    multi, single = (JinaRagEncoder(FakeEmbedder(), vectors=kind) for kind in ("multi", "single"))
    np.testing.assert_allclose(
        multi.similarity_pairwise(ragged, ragged[::-1]), np.diag(multi.similarity(ragged, ragged[::-1])), rtol=1e-6
    )
    flat = rng.normal(size=(3, 4))
    np.testing.assert_allclose(
        single.similarity_pairwise(flat, flat[::-1]), np.diag(single.similarity(flat, flat[::-1])), rtol=1e-5
    )
