"""Models of an index: one lock per model, and early checks of model names."""

from __future__ import annotations

import threading

import pytest

from jina_rag import DocumentIndex
from jina_rag.errors import InvalidInputError
from jina_rag.testing import FakeEmbedder


def test_embedder_is_usable_while_a_reranker_loads(tmp_path, monkeypatch):
    load_started, may_load = threading.Event(), threading.Event()

    def load_reranker(name, **_):
        load_started.set()
        assert may_load.wait(30)
        raise ValueError(name)

    monkeypatch.setattr("jina_rag.models.registry.load_reranker", load_reranker)
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder(), reranker="some/reranker") as index:
        index.add(["rain in the north"], ids=["a"])
        errors = []

        def read_reranker():
            try:
                index.reranker  # noqa: B018  # loads it
            except ValueError as exc:
                errors.append(exc)

        thread = threading.Thread(target=read_reranker)
        thread.start()
        assert load_started.wait(30)
        hits = []
        search = threading.Thread(target=lambda: hits.append(index.embedder.encode_query(["rain"])), daemon=True)
        search.start()
        search.join(30)
        assert hits, "the embedder must not wait for the reranker"
        may_load.set()
        thread.join(30)
        assert [str(error) for error in errors] == ["some/reranker"]


@pytest.mark.parametrize("name", ["assets_dir", "embedder", "reranker"])
def test_empty_argument_raises_before_opening(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="is empty"):
        DocumentIndex.open("http://127.0.0.1:9/docs", **{name: " "})
    assert not list(tmp_path.iterdir())
