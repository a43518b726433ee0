"""An index with an image embedder of random weights: model identity, boxes and dimensions, not ranking quality."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jina_rag import DocumentIndex
from jina_rag.config import IngestSettings
from jina_rag.errors import IndexMismatchError, InvalidInputError, ModelNotFoundError
from jina_rag.testing import make_checkpoint, sample_pdf

pytest.importorskip("torch")
SETTINGS = IngestSettings(ocr="never")
EMBEDDERS = ("v4", "colbert-v2", "v1")


@pytest.fixture
def pdf(tmp_path):
    return sample_pdf(tmp_path / "a.pdf", ["whales sing in the ocean", "", "the north grew fastest"])


@pytest.mark.parametrize("family", EMBEDDERS)
def test_reopened_index_loads_the_recorded_model(tiny, tmp_path, pdf, family):
    with DocumentIndex.open(tmp_path / "kb", embedder=tiny[family]) as index:
        report = index.ingest(pdf, settings=SETTINGS)
        assert (report.pages, report.failed) == (3, ())
        first = index.search("Which region grew fastest?", k=3)
        assert len(first) == 3
        assert Path(index.info().embedder) == Path(tiny[family])
    # Without a model name, the recorded model is loaded.
    with DocumentIndex.open(tmp_path / "kb") as index:
        hits = index.search("Which region grew fastest?", k=3)
        assert [(hit.page, hit.score) for hit in hits] == [(hit.page, hit.score) for hit in first]
        assert index.ingest(pdf, settings=SETTINGS).unchanged == 1


def test_image_embedder_explains_a_page_without_words(tiny, tmp_path, pdf):
    with DocumentIndex.open(tmp_path / "kb", embedder=tiny["v4"]) as index:
        index.ingest(pdf, settings=SETTINGS)
        hit = next(hit for hit in index.search("anything", k=3) if hit.page == 2)
        explanation = index.explain("anything", hit)
        assert len(explanation.boxes) > 100
        assert explanation.weights.max() == pytest.approx(1)
        assert not np.isnan(explanation.boxes).any()
        assert explanation.image().size == explanation.image().size


def test_other_model_raises_mismatch_error(tiny, tmp_path, pdf):
    DocumentIndex.open(tmp_path / "kb", embedder=Path(tiny["v4"])).close()
    other = make_checkpoint("v4", path=tmp_path / "other", seed=3)
    with pytest.raises(IndexMismatchError, match="was built with the embedder"):
        DocumentIndex.open(tmp_path / "kb", embedder=str(other))
    from jina_rag import load_embedder

    code = load_embedder(tiny["v4"], device="cpu", task="code")
    with pytest.raises(IndexMismatchError, match="ingest into a new index"):
        DocumentIndex.open(tmp_path / "kb", embedder=code)


def test_model_folder_is_identified_by_its_contents(tmp_path, pdf, monkeypatch):
    home, other_home = tmp_path / "home", tmp_path / "other"
    model = make_checkpoint("v1", path=home / "m", seed=1)
    make_checkpoint("v1", path=other_home / "m", seed=2)
    monkeypatch.chdir(home)
    with DocumentIndex.open(tmp_path / "kb", embedder="m") as index:
        index.ingest(pdf, settings=SETTINGS)
        scores = [(hit.page, hit.score) for hit in index.search("whales", k=3)]
    for name in ("m/", "./m", Path("m"), model, os.path.join("..", "home", "m")):
        DocumentIndex.open(tmp_path / "kb", embedder=name).close()
    monkeypatch.chdir(other_home)
    with pytest.raises(IndexMismatchError, match="was built with the embedder"):
        DocumentIndex.open(tmp_path / "kb", embedder="m")
    # The model in another folder is accepted.
    moved_folder = shutil.move(model, tmp_path / "moved")
    with DocumentIndex.open(tmp_path / "kb", embedder=moved_folder) as index:
        assert [(hit.page, hit.score) for hit in index.search("whales", k=3)] == scores
    with (
        DocumentIndex.open(tmp_path / "kb") as index,
        pytest.raises(ModelNotFoundError, match="If the model folder was moved, open the index with embedder=FOLDER"),
    ):
        index.search("whales")
    # Another model in the recorded folder is rejected.
    shutil.copytree(other_home / "m", home / "m")
    with pytest.raises(IndexMismatchError, match="was built with the embedder"):
        DocumentIndex.open(tmp_path / "kb", embedder=home / "m")
    with (
        DocumentIndex.open(tmp_path / "kb") as index,
        pytest.raises(IndexMismatchError, match="but the embedder is"),
    ):
        index.search("whales")


def test_reranker_as_embedder_raises(tiny, tmp_path):
    with pytest.raises(InvalidInputError, match="load_reranker"):
        DocumentIndex.open(tmp_path / "kb", embedder=tiny["m0"])
    assert not (tmp_path / "kb").exists()


def test_dense_vectors_are_truncated_to_a_matryoshka_dim(tmp_path, pdf):
    """The index stores 1,024 of 2,048 dimensions; the dimension of the embedder stays 2,048."""
    numbers = {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 2, "intermediate_size": 64}
    overrides = {
        "matryoshka_dims": [1024, 2048],
        "text_config": {
            **numbers, "num_hidden_layers": 1,
            "rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [16, 24, 24]},
        },
        "vision_config": {"out_hidden_size": 2048},
    }  # fmt: skip
    folder = make_checkpoint("v4", path=tmp_path / "wide", overrides=overrides)
    with DocumentIndex.open(tmp_path / "kb", embedder=folder) as index:
        assert index.embedder.dim == 2048
        index.ingest(pdf, settings=SETTINGS)
        assert index._session.settings.dim == 1024
        assert len(index.search("anything", k=3)) == 3
