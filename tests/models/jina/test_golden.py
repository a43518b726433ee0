"""Golden values: the models return the recorded outputs of the published code for the tiny checkpoints.

Deliberate differences are tested elsewhere: the prefix of text-matching (compared with the documented prefix,
not with the published "Passage: "), EXIF orientation, special tokens in texts, and alpha channels on pages. The arrays
recorded with torchvision's image processor differ slightly and are not compared.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.paths import DATA

from jina_rag import load_embedder, load_reranker
from jina_rag.scoring import maxsim_many

pytest.importorskip("torch")

DATA = DATA / "golden"
TASKS = ("retrieval", "text-matching", "code")
SUBSET = (0, 1, 2, 6, 7, 12, 13, 17)


class Golden:
    """The recorded arrays of one family."""

    def __init__(self, name: str) -> None:
        self.spec = json.loads((DATA / f"{name}_golden.json").read_text(encoding="utf-8"))
        with np.load(DATA / f"{name}_golden.npz") as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        self.texts, self.long_text = self.spec["texts"], self.spec["long_text"]

    def check(self, key: str, actual, *, atol: float = 1e-4) -> None:
        if key in self.arrays:
            assert actual.shape == self.arrays[key].shape
            np.testing.assert_allclose(actual, self.arrays[key], atol=atol, rtol=0)
            return
        expected = [self.arrays[f"{key}/{i}"] for i in range(len(actual))]
        assert f"{key}/{len(actual)}" not in self.arrays
        for ours, theirs in zip(actual, expected, strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def v4() -> Golden:
    return Golden("v4")


@pytest.fixture(scope="module")
def images(v4):
    return [DATA / "images" / name for name in v4.spec["images"]]


@pytest.fixture(scope="module", params=[*TASKS, "all"])
def v4_models(request, tiny):
    """One model per task with a merged adapter, and one model with all adapters unmerged."""
    tasks = TASKS if request.param == "all" else (request.param,)
    task = tasks if request.param == "all" else request.param
    model = load_embedder(tiny["v4"], device="cpu", dtype="float32", task=task)
    return tasks, model


def test_v4_text_vectors_match_published(v4, v4_models):
    tasks, model = v4_models
    for task in tasks:
        passage = "passage_with_task_property" if task == "text-matching" else "passage"
        v4.check(f"text/single/{task}/query", model.encode_query(v4.texts, multi=False, task=task).single)
        v4.check(f"text/single/{task}/{passage}", model.encode_document(v4.texts, multi=False, task=task).single)
        subset = [v4.texts[i] for i in SUBSET]
        v4.check(f"text/multi/{task}/query", model.encode_query(subset, single=False, task=task).multi)


def test_v4_image_vectors_match_published(v4, v4_models, images):
    tasks, model = v4_models
    for task in tasks:
        embeddings = model.encode_document(images, task=task)
        v4.check(f"image/single/{task}", embeddings.single)
        indices = range(len(images)) if task == "retrieval" else (0, 2, 4, 6, 7, 8)
        v4.check(f"image/multi/{task}", [embeddings.multi[i] for i in indices])
        # Images are encoded in the same way as queries and as documents.
        v4.check(f"image/single/{task}", model.encode_query(images, multi=False, task=task).single)


def test_v4_text_matching_uses_query_prefix_for_documents(v4, tiny):
    """The prefix is "Query: ", as documented. The published code uses "Passage: " unless a model property is set."""
    model = load_embedder(tiny["v4"], device="cpu", dtype="float32", task="text-matching")
    ours = model.encode_document(v4.texts, multi=False).single
    np.testing.assert_array_equal(ours, model.encode_query(v4.texts, multi=False).single)
    assert np.abs(ours - v4.arrays["text/single/text-matching/passage"]).max() > 0.01


def test_v4_truncated_inputs_and_vectors_match_published(v4, tiny, images):
    model = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    v4.check("text/single/retrieval/default_prompt", model.encode_query(v4.texts[:4]).single)
    for dim in (8, 16, 32, 64):
        v4.check(f"text/single/retrieval/query/dim{dim}", model.encode_query(v4.texts[:8], truncate_dim=dim).single)
    for length in (8, 32):
        embeddings = model.encode_document(v4.texts, multi=False, max_length=length)
        v4.check(f"text/single/retrieval/passage/max_length{length}", embeddings.single)
    long = [v4.long_text, v4.texts[0], v4.long_text[:1500]]
    v4.check("text/single/retrieval/passage/long", model.encode_document(long, multi=False).single)
    subset = [v4.texts[i] for i in SUBSET]
    v4.check("text/multi/retrieval/passage", model.encode_document(subset, single=False).multi)
    v4.check("image/single/retrieval/dim16", model.encode_document(images[:4], truncate_dim=16).single)
    small = model.encode_document(images, multi=False, max_pixels=50176).single
    v4.check("image/single/retrieval/max_pixels50176", small)
    code = load_embedder(tiny["v4"], device="cpu", dtype="float32", task="code")
    v4.check("text/multi/code/passage/max_length8", code.encode_document(v4.texts[:5], max_length=8).multi)


def test_every_recorded_v4_array_is_compared(v4):
    """The tests above compare all recorded arrays, except for two keys."""
    compared = {f"text/single/{task}/{side}" for task in TASKS for side in ("query", "passage")}
    compared |= {f"text/multi/{task}/query" for task in TASKS} | {f"image/single/{task}" for task in TASKS}
    compared |= {f"image/multi/{task}" for task in TASKS}
    compared |= {f"text/single/retrieval/query/dim{dim}" for dim in (8, 16, 32, 64)}
    compared |= {f"text/single/retrieval/passage/max_length{length}" for length in (8, 32)}
    compared |= {
        "text/single/text-matching/passage_with_task_property", "text/single/retrieval/default_prompt",
        "text/single/retrieval/passage/long", "text/multi/retrieval/passage", "text/multi/code/passage/max_length8",
        "image/single/retrieval/dim16", "image/single/retrieval/max_pixels50176", "image_torchvision/single/retrieval",
    }  # fmt: skip
    keys = {key.rpartition("/")[0] if key.rpartition("/")[2].isdigit() else key for key in v4.arrays}
    assert keys == compared


@pytest.fixture(scope="module")
def m0():
    return Golden("m0")


@pytest.mark.parametrize("name", sorted(key for key in Golden("m0").spec["entries"] if "torchvision" not in key))
def test_m0_scores_match_published(m0, tiny, name):
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    entry = m0.spec["entries"][name]
    query_kind, document_kind = name.split("/")[0].split("_")

    def side(value, kind):
        return value if kind == "text" else DATA / value

    pairs = [(side(query, query_kind), side(document, document_kind)) for query, document in entry["pairs"]]
    lengths = {key: entry[key] for key in ("max_length", "max_query_length", "max_doc_length") if key in entry}
    m0.check(f"{name}/score", model.score_pairs(pairs, **lengths))
    m0.check(f"{name}/raw", model.score_pairs(pairs, raw=True, **lengths), atol=3e-4)


def test_m0_scores_mixed_list_like_single_documents(m0, tiny):
    """Scores of a mixed list equal those of single calls, in the order of the list."""
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    query = m0.texts[0]
    documents = [m0.texts[4], DATA / "images/photo_320x240.png", m0.texts[7], DATA / "images/odd_57x43.png"]
    together = model.score(query, documents, raw=True)
    single_scores = [float(model.score(query, [document], raw=True)[0]) for document in documents]
    np.testing.assert_allclose(together, single_scores, atol=1e-5)
    assert len(set(together.tolist())) == 4


@pytest.fixture(scope="module")
def colbert():
    return Golden("colbert")


def test_colbert_query_vectors_match_published(colbert, tiny):
    model = load_embedder(tiny["colbert-v2"], device="cpu", dtype="float32")
    texts = colbert.texts
    queries = [texts[i] for i in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 15, 17)]
    embeddings = model.encode_query(queries).multi
    colbert.check("query/pylate", embeddings)
    colbert.check("query/pylate/long", model.encode_query([texts[18], texts[4], colbert.long_text[:400]]).multi)
    documents = model.encode_document(texts).multi
    scores = np.stack([maxsim_many(query, documents) for query in embeddings])
    colbert.check("maxsim", scores, atol=1e-4 * 32)
    other = load_embedder(tiny["colbert-v2"], device="cpu", dtype="float32", attend_to_expansion=False)
    colbert.check("query/pylate/no_attend", other.encode_query(texts[:4]).multi)


def test_colbert_document_vectors_match_published(colbert, tiny):
    model = load_embedder(tiny["colbert-v2"], device="cpu", dtype="float32")
    texts = colbert.texts
    colbert.check("doc/pylate", model.encode_document(texts).multi)
    colbert.check("doc/pylate/long", model.encode_document([colbert.long_text[:3000]]).multi)
    short = model.encode_document([texts[18], texts[4], texts[0]], max_length=48)
    colbert.check("doc/pylate/maxlen48", short.multi)
    subset = [texts[i] for i in (0, 4, 6, 12, 17)]
    for rule, key in (("stanford", "stanford_skiplist"), ("none", "no_skiplist")):
        other = load_embedder(tiny["colbert-v2"], device="cpu", dtype="float32", skiplist=rule)
        colbert.check(f"doc/{key}", other.encode_document(subset).multi)


@pytest.mark.parametrize("dim", [96, 64])
def test_colbert_truncated_vectors_match_published(colbert, tiny, dim):
    texts = colbert.texts
    model = load_embedder(tiny["colbert-v2"], device="cpu", dtype="float32", truncate_dim=dim)
    assert model.multi_dim == dim
    colbert.check(f"query/pylate/dim{dim}", model.encode_query([texts[i] for i in (0, 1, 2, 3, 5)]).multi)
    colbert.check(f"doc/pylate/dim{dim}", model.encode_document([texts[i] for i in (0, 6, 12)]).multi)


def test_v1_vectors_match_published(tiny):
    golden = Golden("v1")
    model = load_embedder(tiny["v1"], device="cpu", dtype="float32")
    golden.check("single/raw", model.encode_query(golden.texts, raw=True).single)
    golden.check("single/normalized", model.encode_document(golden.texts).single)
    long = [golden.long_text, golden.texts[0]]
    golden.check("single/long", model.encode_document(long, raw=True).single)
    golden.check("single/max16", model.encode_document(golden.texts, raw=True, max_length=16).single)
    # The multi-vector equals the dense vector.
    embeddings = model.encode_document(golden.texts)
    np.testing.assert_array_equal(np.concatenate(embeddings.multi), embeddings.single)
