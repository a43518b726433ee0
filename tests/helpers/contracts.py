"""Contract checks of embedders and rerankers, called by the tests of each model."""

from __future__ import annotations

import numpy as np
import pytest

from jina_rag.errors import InvalidInputError
from jina_rag.protocols import Embedder, Reranker
from jina_rag.scoring import maxsim_many
from jina_rag.testing import make_page
from jina_rag.types import Embeddings

ON_TOPIC = "The river flooded the town after three days of rain"
OFF_TOPIC = "Shareholders approved the dividend at the annual meeting"
QUERY = "Why did the river flood the town?"


def check_embedder(embedder: Embedder) -> None:
    """Check shapes, norms, ranking, batches, truncation, empty inputs and errors of a text embedder."""
    assert isinstance(embedder, Embedder)
    assert embedder.name
    assert embedder.fingerprint
    assert all(1 <= dim <= embedder.dim for dim in embedder.matryoshka_dims)
    assert all(1 <= dim <= embedder.multi_dim for dim in embedder.multi_matryoshka_dims)
    assert embedder.dense_weight >= 0
    assert embedder.hubness >= 0
    page = make_page(ON_TOPIC)
    documents = embedder.encode_document([ON_TOPIC, page, OFF_TOPIC])
    queries = embedder.encode_query([QUERY])
    _check_shapes(embedder, documents, 3)
    _check_shapes(embedder, queries, 1)
    scores = maxsim_many(queries.multi[0], documents.multi)
    assert min(scores[0], scores[1]) > scores[2]
    dense_scores = documents.single @ queries.single[0]
    assert min(dense_scores[0], dense_scores[1]) > dense_scores[2]
    _check_grids(documents)
    _check_batch_invariance(embedder)
    _check_switches(embedder)
    _check_empty(embedder)


def check_reranker(reranker: Reranker) -> None:
    """Check shape, range, ranking and mixed inputs of a reranker."""
    assert isinstance(reranker, Reranker)
    assert reranker.name
    assert reranker.fingerprint
    scores = reranker.score(QUERY, [OFF_TOPIC, ON_TOPIC, make_page(ON_TOPIC), make_page("")])
    assert scores.shape == (4,)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    assert min(scores[1], scores[2]) > max(scores[0], scores[3])
    assert reranker.score(QUERY, []).shape == (0,)
    with pytest.raises(InvalidInputError):
        reranker.score(" ", [ON_TOPIC])


def check_reranker_shape(reranker: Reranker) -> None:
    """Check the properties that hold even for random weights: shape, range, order of the scores, mixed inputs."""
    documents = [OFF_TOPIC, make_page(ON_TOPIC), {"text": ON_TOPIC}, make_page(ON_TOPIC).screenshot.image]
    scores = reranker.score(QUERY, documents)
    assert scores.shape == (4,)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(reranker.score(QUERY, documents[::-1])[::-1], scores, atol=1e-4)
    assert reranker.score(QUERY, []).shape == (0,)
    with pytest.raises(InvalidInputError):
        reranker.score(QUERY, ON_TOPIC)


def _check_shapes(embedder: Embedder, result: Embeddings, n: int) -> None:
    assert result.single.shape == (n, embedder.dim)
    assert result.single.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(result.single, axis=1), 1, atol=1e-3)
    assert len(result.multi) == len(result.grids) == n
    for rows in result.multi:
        assert rows.ndim == 2
        assert len(rows) > 0
        assert rows.shape[1] == embedder.multi_dim
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)


def _check_grids(documents: Embeddings) -> None:
    """Check that a page has one box per row, within the page, and that a plain text has no boxes."""
    text_grid, page_grid, _ = documents.grids
    assert text_grid is None
    assert len(page_grid) == len(documents.multi[1])
    boxes = page_grid.boxes[~np.isnan(page_grid.boxes).any(axis=1)]
    assert len(boxes)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all()


def _check_batch_invariance(embedder: Embedder) -> None:
    texts = [ON_TOPIC, "Rain", f"{OFF_TOPIC} and {ON_TOPIC}"]
    together = embedder.encode_document(texts)
    for i, text in enumerate(texts):
        alone = embedder.encode_document([text])
        np.testing.assert_allclose(together.single[i], alone.single[0], atol=2e-2)
        np.testing.assert_allclose(together.multi[i], alone.multi[0], atol=2e-2)


def _check_switches(embedder: Embedder) -> None:
    half = embedder.dim // 2
    result = embedder.encode_document([ON_TOPIC], multi=False, truncate_dim=half)
    assert result.multi is None
    assert result.single.shape == (1, half)
    np.testing.assert_allclose(np.linalg.norm(result.single, axis=1), 1, atol=1e-3)
    assert embedder.encode_query([QUERY], single=False).single is None
    short = embedder.encode_document([ON_TOPIC], max_length=4).multi[0]
    assert 0 < len(short) < len(embedder.encode_document([ON_TOPIC]).multi[0])


def _check_empty(embedder: Embedder) -> None:
    empty_result = embedder.encode_document([make_page(""), ""])
    assert not empty_result.single.any()
    assert [rows.shape for rows in empty_result.multi] == [(0, embedder.multi_dim)] * 2
    assert len(embedder.encode_document([]).single) == 0
    for query in ("", "  \n"):
        with pytest.raises(InvalidInputError):
            embedder.encode_query([query])
