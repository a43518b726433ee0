"""The negation test: easy and hard accuracy, ties, Wilson intervals, and the triplet data."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest
from helpers.paths import ROOT

from jina_rag import load_embedder
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.negation import (
    PUBLISHED,
    Accuracy,
    Triplet,
    evaluate_negation,
    read_triplets,
    sample_triplets,
)
from jina_rag.protocols import EmbedderDefaults
from jina_rag.testing import FakeEmbedder
from jina_rag.types import Embeddings


class AngleEmbedder(EmbedderDefaults):
    """Embeds texts that are angles in degrees as two-dimensional vectors of length 7."""

    name, fingerprint, dim, multi_dim, modality = "angles", "angles-1", 2, 2, "text"

    def __init__(self):
        self.calls = []

    def _encode(self, side, texts, multi):
        assert not multi
        self.calls.append((side, len(texts)))
        radians = np.radians([float(text) for text in texts])
        return Embeddings(single=(np.stack([np.cos(radians), np.sin(radians)], axis=1) * 7).astype(np.float32))

    def encode_query(self, texts, *, multi=True, **options):
        return self._encode("query", texts, multi)

    def encode_document(self, texts, *, multi=True, **options):
        return self._encode("document", texts, multi)


def test_easy_and_hard_accuracy_compare_the_right_pairs():
    triplets = [
        Triplet("0", "10", "50"),  # both correct: 10 < 50 and 10 < 40
        Triplet("0", "30", "50"),  # easy only: 30 < 50, but 30 > 20
        Triplet("0", "30", "-10"),  # hard only: 30 > 10, but 30 < 40
        Triplet("0", "30", "10"),  # neither: 30 > 10 and 30 > 20
        Triplet("0", "40", "40"),  # entailment equals negative: easy is a tie, hard is wrong
        Triplet("20", "60", "20"),  # anchor equals negative: easy is wrong, hard is a tie
    ]
    result = evaluate_negation(AngleEmbedder(), triplets)
    assert (result.easy.right, result.easy.ties, result.easy.n) == (2, 1, 6)
    assert (result.hard.right, result.hard.ties, result.hard.n) == (2, 1, 6)
    easy = [evaluate_negation(AngleEmbedder(), [t]).easy.right for t in triplets]
    hard = [evaluate_negation(AngleEmbedder(), [t]).hard.right for t in triplets]
    assert (easy, hard) == ([1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0])


def test_texts_are_embedded_in_batches_on_the_chosen_side():
    triplets = [Triplet("0", "10", "50")] * 7
    embedder = AngleEmbedder()
    query = evaluate_negation(embedder, triplets, batch=10)
    assert embedder.calls == [("query", 10), ("query", 10), ("query", 1)]
    embedder = AngleEmbedder()
    document = evaluate_negation(embedder, triplets, side="document")
    assert embedder.calls == [("document", 21)]
    assert (query.side, document.side) == ("query", "document")
    assert query.easy == document.easy == Accuracy(7, 0, 7)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Wilson score intervals (Wilson, 1927) from Newcombe, Statistics in Medicine 17 (1998), table I.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_interval_matches_published_wilson_intervals(right, n, low, high):
    assert Accuracy(right, 0, n).interval == pytest.approx((low, high), abs=5e-5)


def test_result_includes_published_accuracies_and_data_hash():
    result = evaluate_negation(AngleEmbedder(), [Triplet("0", "10", "50"), Triplet("0", "30", "10")]).to_json()
    assert result["easy"] == pytest.approx(
        {"value": 0.5, "low": 0.0945, "high": 0.9055, "right": 1, "ties": 0, "n": 2}, abs=1e-4
    )
    assert (result["published"]["easy"], result["published"]["hard"]) == (0.982, 0.654)
    assert result["published"]["model"] == "jinaai/jina-embedding-l-en-v1"
    assert (result["embedder"], result["fingerprint"], result["side"]) == ("angles", "angles-1", "query")
    other = evaluate_negation(AngleEmbedder(), [Triplet("0", "30", "10"), Triplet("0", "10", "50")]).to_json()
    assert other["data_sha256"] != result["data_sha256"]
    assert "published 98.2%" in str(evaluate_negation(AngleEmbedder(), [Triplet("0", "10", "50")]))
    assert PUBLISHED["hard"] == 0.654


def test_read_triplets_validates_every_line(tmp_path):
    path = tmp_path / "triplets.jsonl"
    line = {"anchor": "A.", "entailment": "B.", "negative": "Not B.", "label": 1}
    path.write_text("\ufeff" + json.dumps(line) + "\n\n" + json.dumps(line | {"anchor": "Ä."}), encoding="utf-8")
    assert read_triplets(path) == (Triplet("A.", "B.", "Not B."), Triplet("Ä.", "B.", "Not B."))
    for bad_line in (
        '{"anchor": "A.", "entailment": "B."}',
        '{"anchor": "A", "entailment": " ", "negative": "C"}',
        "[1]",
        '"x"',
    ):
        path.write_text(json.dumps(line) + "\n" + bad_line, encoding="utf-8")
        message = '"anchor", "entailment" and "negative" must' if bad_line[0] == "{" else "expected a JSON object"
        with pytest.raises(InvalidInputError, match=f"line 2: {message}"):
            read_triplets(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="line 1: not JSON"):
        read_triplets(path)
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        read_triplets(path)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_triplets(tmp_path / "none.jsonl")


def test_missing_triplets_or_dense_vectors_raise_invalid_input():
    with pytest.raises(InvalidInputError, match="at least one triplet"):
        evaluate_negation(AngleEmbedder(), [])
    embedder = FakeEmbedder()
    embedder.encode_query = lambda texts, **options: Embeddings()
    with pytest.raises(InvalidInputError, match="no dense vectors"):
        evaluate_negation(embedder, sample_triplets())


def test_sample_file_matches_its_generator(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_negation_sample", ROOT / "tools" / "make_negation_sample.py")
    generator = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_negation_sample", generator)
    spec.loader.exec_module(generator)
    monkeypatch.setattr(generator, "OUT", tmp_path / "sample.jsonl")
    generator.main()
    sample = sample_triplets()
    assert read_triplets(tmp_path / "sample.jsonl") == sample
    assert len(set(sample)) == 100
    negations = (" not ", "No ", " never ", "It is not true that ")
    for triplet in sample:
        assert any(word in triplet.negative for word in negations)
        assert not any(word in triplet.entailment for word in negations)


def test_lite_passes_easy_but_not_hard_negation():
    result = evaluate_negation(load_embedder("lite"), sample_triplets())
    assert result.easy.value >= 0.95
    # Retrieval models match words and ignore negation, which the hard test reveals.
    assert result.hard.value <= 0.1
    assert result.easy.n == result.hard.n == 100


def test_result_of_v1_checkpoint_is_independent_of_batch_size(tiny, one_thread):
    embedder = load_embedder(tiny["v1"], device="cpu", dtype="float32")
    sample = sample_triplets()[:20]
    result = evaluate_negation(embedder, sample, batch=16)
    assert result == evaluate_negation(embedder, sample, batch=60)
    assert result.fingerprint == embedder.fingerprint
