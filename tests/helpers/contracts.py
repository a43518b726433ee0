"""What every embedder and every reranker must do; call these from the tests of each."""

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
QUESTION = "Why did the river flood the town?"


def check_embedder(embedder: Embedder) -> None:
    """Shapes, norms, order, batches, truncation, empty inputs, refusals: an embedder that reads words."""
    assert isinstance(embedder, Embedder)
    assert embedder.name
    assert embedder.fingerprint
    assert all(1 <= dim <= embedder.dim for dim in embedder.matryoshka_dims)
    assert all(1 <= dim <= embedder.multi_dim for dim in embedder.multi_matryoshka_dims)
    assert embedder.dense_weight >= 0
    assert embedder.hubness >= 0
    page = make_page(ON_TOPIC)
    documents = embedder.encode_document([ON_TOPIC, page, OFF_TOPIC])
    queries = embedder.encode_query([QUESTION])
    _check_shapes(embedder, documents, 3)
    _check_shapes(embedder, queries, 1)
    scores = maxsim_many(queries.multi[0], documents.multi)
    assert min(scores[0], scores[1]) > scores[2]
    dense = documents.single @ queries.single[0]
    assert min(dense[0], dense[1]) > dense[2]
    _check_grids(documents)
    _check_batch_invariance(embedder)
    _check_switches(embedder)
    _check_empty(embedder)


def check_reranker(reranker: Reranker) -> None:
    """Shape, range, order and mixed inputs of a reranker."""
    assert isinstance(reranker, Reranker)
    assert reranker.name
    assert reranker.fingerprint
    scores = reranker.score(QUESTION, [OFF_TOPIC, ON_TOPIC, make_page(ON_TOPIC), make_page("")])
    assert scores.shape == (4,)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    assert min(scores[1], scores[2]) > max(scores[0], scores[3])
    assert reranker.score(QUESTION, []).shape == (0,)
    with pytest.raises(InvalidInputError):
        reranker.score(" ", [ON_TOPIC])


def check_reranker_shape(reranker: Reranker) -> None:
    """What holds for any weights, random ones too: shape, range, order, mixed inputs, no documents."""
    documents = [OFF_TOPIC, make_page(ON_TOPIC), {"text": ON_TOPIC}, make_page(ON_TOPIC).screenshot.image]
    scores = reranker.score(QUESTION, documents)
    assert scores.shape == (4,)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(reranker.score(QUESTION, documents[::-1])[::-1], scores, atol=1e-4)
    assert reranker.score(QUESTION, []).shape == (0,)
    with pytest.raises(InvalidInputError):
        reranker.score(QUESTION, ON_TOPIC)


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
    """The page has one box for each row, within the page; a plain text has none."""
    text_grid, page_grid, _ = documents.grids
    assert text_grid is None
    assert len(page_grid) == len(documents.multi[1])
    placed = page_grid.boxes[~np.isnan(page_grid.boxes).any(axis=1)]
    assert len(placed)
    assert ((placed >= 0) & (placed <= 1)).all()
    assert (placed[:, :2] <= placed[:, 2:]).all()


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
    assert embedder.encode_query([QUESTION], single=False).single is None
    short = embedder.encode_document([ON_TOPIC], max_length=4).multi[0]
    assert 0 < len(short) < len(embedder.encode_document([ON_TOPIC]).multi[0])


def _check_empty(embedder: Embedder) -> None:
    nothing = embedder.encode_document([make_page(""), ""])
    assert not nothing.single.any()
    assert [rows.shape for rows in nothing.multi] == [(0, embedder.multi_dim)] * 2
    assert len(embedder.encode_document([]).single) == 0
    for query in ("", "  \n"):
        with pytest.raises(InvalidInputError):
            embedder.encode_query([query])
