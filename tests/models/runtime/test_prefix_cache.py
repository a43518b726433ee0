"""Prefix cache of jina-reranker-m0: unchanged scores, reuse across queries, memory limits and cache keys."""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from helpers.paths import DATA
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jina_rag import load_reranker
from jina_rag.errors import InvalidInputError, ModelError
from jina_rag.models.runtime.devices import Placement
from jina_rag.models.runtime.prefix_cache import PrefixCache, TwoTiers

torch = pytest.importorskip("torch")

from jina_rag.images import LoadedImage, open_image  # noqa: E402
from jina_rag.models.jina.image_patches import ImagePatcher  # noqa: E402
from jina_rag.models.jina.m0_scoring import MIN_CACHED_TOKENS, PairScorer  # noqa: E402
from jina_rag.models.runtime import cache_keys  # noqa: E402  # behind the check for torch
from jina_rag.models.runtime.batching import BatchRunner  # noqa: E402
from jina_rag.models.runtime.cache_keys import DocumentKeys  # noqa: E402
from jina_rag.testing import make_checkpoint  # noqa: E402

IMAGES = DATA / "golden" / "images"
PHOTO, TALL, ODD, WIDE = (
    IMAGES / name for name in ("photo_320x240.png", "tall_150x420.png", "odd_57x43.png", "wide_900x120.png")
)
LONG = "Revenue grew in the north, and fell in the south. " * 8
DOCUMENTS = [PHOTO, LONG, [TALL, "a caption", ODD], "short", [LONG, WIDE], [LONG, "and more"], PHOTO, LONG + " "]
QUERIES = ["where did revenue grow?", "\n\nnewlines first", "", " a space first", "*:\n", ODD, ["like this?", TALL]]
EXACT = 1e-5


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def uncached_model(tiny):
    """The model without a prefix cache."""
    return load_reranker(tiny["m0"], device="cpu", dtype="float32", prefix_cache=False)


@pytest.fixture(scope="module")
def expected(uncached_model):
    """Expected raw scores: for each query, the scores of all documents."""
    return [uncached_model.score(query, DOCUMENTS, raw=True) for query in QUERIES]


@pytest.fixture
def load(tiny):
    def load_with_cache(prefix_cache=True, **arguments):
        return load_reranker(tiny["m0"], device="cpu", dtype="float32", prefix_cache=prefix_cache, **arguments)

    return load_with_cache


@pytest.fixture
def size(load):
    """Size in bytes of the cached prefix of PHOTO."""
    model = load()
    model.score("q", [PHOTO])
    return model.prefix_cache.use.host_bytes


def images(folder, count, seed=0):
    """Write `count` distinct images of equal size and return their paths."""
    random = np.random.default_rng(seed)
    paths = [folder / f"{seed}-{number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(random.integers(0, 255, (84, 112, 3), dtype=np.uint8)).save(path)
    return paths


class PassRecorder:
    """Records the number of tokens in each decoder pass."""

    def __init__(self, model):
        self.tokens = []
        model._model.module.model.language_model.register_forward_pre_hook(self._record, with_kwargs=True)

    def _record(self, _module, _args, kwargs):
        batch, tokens, _ = kwargs["inputs_embeds"].shape
        self.tokens.append(batch * tokens)


# Unchanged scores


@pytest.mark.parametrize("batch_tokens", [1, 700, None])
def test_cached_scores_equal_uncached_scores(load, expected, batch_tokens):
    """Queries and documents are texts, images and lists of both, in batches of any size, cached and uncached."""
    model = load()
    for query, scores in zip(QUERIES, expected, strict=True):
        actual = model.score(query, DOCUMENTS, raw=True, batch_tokens=batch_tokens)
        np.testing.assert_allclose(actual, scores, atol=EXACT)
    np.testing.assert_allclose(model.score(QUERIES[0], DOCUMENTS, raw=True), expected[0], atol=EXACT)
    assert len(set(np.round(expected[0], 4).tolist())) >= 6  # the scores differ between documents


def test_all_pairs_in_one_call_compute_each_document_once(load, expected):
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
    order = np.random.default_rng(0).permutation(len(pairs))
    pairs, expected = [pairs[i] for i in order], np.concatenate(expected)[order]
    model = load()
    passes = PassRecorder(model)
    np.testing.assert_allclose(model.score_pairs(pairs, raw=True), expected, atol=EXACT)
    first = sum(passes.tokens)
    np.testing.assert_allclose(model.score_pairs(pairs, raw=True, batch_tokens=600), expected, atol=EXACT)
    use = model.prefix_cache.use
    cached = [document for document in DOCUMENTS if document != "short"]
    assert use.host_entries == use.misses == len(cached) - 1  # PHOTO occurs twice
    assert use.hits == 2 * len(cached) * len(QUERIES) - use.misses
    # Each document is computed once, although all queries come in one call.
    scored_pairs = model._scorer.pairs(*model._prompts(pairs, 10_240, 9_728, None), max_pixels=None)
    assert first < 0.6 * sum(len(pair.prompt) for pair in scored_pairs)


def test_cached_document_costs_query_tokens_only(load):
    model = load()
    passes = PassRecorder(model)
    model.score("where?", [PHOTO], raw=True)
    (whole,) = passes.tokens
    model.score("where else?", [PHOTO], raw=True)
    assert len(passes.tokens) == 2
    assert passes.tokens[1] < 0.2 * whole


def test_mixed_list_scores_equal_single_document_scores(uncached_model, load, tmp_path):
    """Scores of 30 texts and 30 images, shuffled, are in the order of the list, with and without a cache."""
    random = np.random.default_rng(3)
    words = "revenue table growth north chart page line total the of 1998".split()
    texts = [" ".join(random.choice(words, size=length)) for length in random.integers(1, 150, 30)]
    documents = [*texts, *images(tmp_path, 30)]
    documents = [documents[i] for i in random.permutation(60)]
    single_scores = [float(uncached_model.score("growth?", [document], raw=True)[0]) for document in documents]
    model = load()
    for reranker in (uncached_model, model, model):
        np.testing.assert_allclose(reranker.score("growth?", documents, raw=True), single_scores, atol=1e-4)
    assert model.prefix_cache.use.hits >= 30
    assert len(set(np.round(single_scores, 3).tolist())) > 40


@pytest.mark.parametrize(
    "lengths",
    [
        {"max_length": 60, "max_query_length": 20},
        {"max_length": 250, "max_query_length": 100},
        {"max_length": 250, "max_query_length": 20, "max_doc_length": 130},
        {"max_length": 400, "max_query_length": 100, "max_doc_length": 300},
    ],
)
def test_truncated_pairs_have_unchanged_scores(uncached_model, load, lengths):
    """Scores are unchanged if the document or the query is truncated, also after calls with other limits."""
    model = load()
    documents = [LONG, LONG[:300], PHOTO if lengths["max_length"] > 200 else LONG[:50], LONG + LONG]
    queries = ["where?", "why " * 300]
    for limits in ({}, lengths, {}):
        for query in queries:
            expected = uncached_model.score(query, documents, raw=True, **limits)
            np.testing.assert_allclose(model.score(query, documents, raw=True, **limits), expected, atol=EXACT)


def test_truncated_document_does_not_shorten_cached_prefix(uncached_model, load):
    model = load()
    passes = PassRecorder(model)
    text = LONG[:300]
    tokens = len(model._model.tokenizer.encode(text))
    assert tokens > MIN_CACHED_TOKENS + 10
    short = {"max_length": tokens + 2, "max_query_length": 1, "max_doc_length": tokens + 1}
    model.score("q", [text], **short)
    model.score("q", [text])
    assert model.prefix_cache.use.misses == 2
    passes.tokens.clear()
    np.testing.assert_allclose(
        model.score("another", [text], raw=True), uncached_model.score("another", [text], raw=True), atol=EXACT
    )
    assert passes.tokens[0] < 30


def test_half_precision_cache_halves_memory_with_close_scores(uncached_model, load):
    exact = load()
    exact.score("q", [PHOTO, LONG])
    for dtype, allowed in (("bfloat16", 0.05), ("float16", 0.01), ("bf16", 0.05), ("fp16", 0.01)):
        model = load(PrefixCache(dtype=dtype))
        model.score("q", [PHOTO, LONG])
        assert 2 * model.prefix_cache.use.host_bytes == exact.prefix_cache.use.host_bytes
        actual, expected = (reranker.score("why?", [PHOTO, LONG], raw=True) for reranker in (model, uncached_model))
        np.testing.assert_allclose(actual, expected, atol=allowed)
        assert np.abs(actual - expected).max() > 0


def test_bfloat16_model_caches_bfloat16(tiny):
    scores = []
    for prefix_cache in (False, True):
        model = load_reranker(tiny["m0"], device="cpu", dtype="bfloat16", prefix_cache=prefix_cache)
        model.score("q", [PHOTO, LONG])
        scores.append(model.score("why?", [PHOTO, LONG], raw=True))
    np.testing.assert_allclose(*scores, atol=0.1)
    assert model.prefix_cache.use.hits == 2
    cached = model.prefix_cache.peek(next(iter(model.prefix_cache._host.entries)))
    assert cached.states.dtype == torch.bfloat16


def test_lazy_pairs_are_read_once(uncached_model, load):
    """Inputs created on access may have the `id` of previous inputs, so each input is read once."""

    class LazyPairs(Sequence):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index >= 4:
                raise IndexError
            return "".join(["query ", str(index)]), "".join(["document ", str(index)] * 9)

    expected = [float(uncached_model.score(*(one, [two]), raw=True)[0]) for one, two in list(LazyPairs())]
    for model in (uncached_model, load()):
        for pairs in (LazyPairs(), iter(list(LazyPairs())), [list(pair) for pair in LazyPairs()]):
            np.testing.assert_allclose(model.score_pairs(pairs, raw=True), expected, atol=EXACT)
    assert len(set(np.round(expected, 4).tolist())) == 4


@pytest.mark.parametrize("pairs", ["ab", {"a": "b"}, 5, None])
def test_score_pairs_refuses_input_that_is_not_a_list(uncached_model, pairs):
    with pytest.raises(InvalidInputError, match=r"Pass a list of pairs"):
        uncached_model.score_pairs(pairs)


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "c"), 5, {"a": 1, "b": 2}])
def test_score_pairs_refuses_invalid_pair(uncached_model, pair):
    with pytest.raises(InvalidInputError, match=r"Pair 2 is not two inputs"):
        uncached_model.score_pairs([("a", "b"), pair])


def test_batch_tokens_below_one_is_refused_for_empty_list(uncached_model):
    with pytest.raises(InvalidInputError, match="batch_tokens is 0; expected an integer of at least 1"):
        uncached_model.score("q", [], batch_tokens=0)


# Cache keys


def test_images_of_cached_documents_are_not_decoded(load, monkeypatch):
    model = load()
    decoded = []
    monkeypatch.setattr(ImagePatcher, "fill_patches", _recording(decoded, ImagePatcher.fill_patches))
    documents = [PHOTO, [TALL, "a caption", ODD], PHOTO.read_bytes()]
    model.score("q", documents)
    assert len(decoded) == 3  # the bytes equal the file PHOTO
    model.score("another", documents)
    assert len(decoded) == 3
    assert model.prefix_cache.use.misses == 2


def _recording(notes, function):
    def wrapper(*arguments):
        notes.append(arguments)
        return function(*arguments)

    return wrapper


def _misses(model, document, **arguments):
    """Return 1 if a document was computed, 0 if it was cached."""
    before = model.prefix_cache.use.misses
    model.score("q", [document], **arguments)
    return model.prefix_cache.use.misses - before


def test_cache_key_depends_on_content_and_max_pixels(load, tmp_path):
    model = load()
    one, two = images(tmp_path, 2)
    assert _misses(model, one) == 1
    assert _misses(model, one) == 0
    copy = tmp_path / "copy.png"
    copy.write_bytes(one.read_bytes())
    assert _misses(model, copy) == 0
    assert _misses(model, two) == 1
    assert _misses(model, one, max_pixels=5000) == 1
    assert _misses(model, one, max_pixels=5000) == 0
    assert _misses(model, [one, two]) == 1
    assert _misses(model, [two, one]) == 1
    assert _misses(model, ["a text", one]) == 1
    assert _misses(model, one) == 0
    assert _misses(model, LONG) == 1
    assert _misses(model, {"text": LONG}) == 0
    assert _misses(model, LONG + "!") == 1


def test_cache_key_of_in_memory_image_depends_on_pixels(load):
    model = load()
    image = Image.open(PHOTO)
    image.load()
    assert _misses(model, image) == 1
    assert _misses(model, image.copy()) == 0
    image.putpixel((5, 5), (1, 2, 3))
    assert _misses(model, image) == 1
    narrow = Image.frombytes("RGB", (60, 120), bytes(60 * 120 * 3))
    assert _misses(model, narrow) == 1
    assert _misses(model, Image.frombytes("RGB", (120, 60), bytes(60 * 120 * 3))) == 1
    pixel_bytes = np.random.default_rng(0).bytes(6600 * 3)
    for shape in ((100, 66), (110, 60)):  # same bytes and same number of tokens
        assert _misses(model, Image.frombytes("RGB", shape, pixel_bytes)) == 1
    rotated = narrow.copy()
    rotated.getexif()[0x0112] = 6
    assert _misses(model, rotated) == 0  # equals the 120 x 60 image after rotation


def test_changed_file_is_not_served_from_cache(uncached_model, load, tmp_path):
    """A change is detected even if size and modification time are unchanged."""
    model = load()
    path, other = (tmp_path / name for name in ("page.bmp", "other.bmp"))
    for target, value in ((path, 40), (other, 200)):
        Image.new("RGB", (112, 84), (value, 10, 10)).save(target)
    model.score("q", [path])
    stat = path.stat()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    np.testing.assert_allclose(
        model.score("q", [path], raw=True), uncached_model.score("q", [other], raw=True), atol=EXACT
    )
    assert model.prefix_cache.use.misses == 2


def test_unchanged_old_file_is_read_once(tmp_path, monkeypatch):
    keys = DocumentKeys()
    (path,) = images(tmp_path, 1)
    image = open_image(path)
    read = []
    digest = cache_keys.hashlib.file_digest
    monkeypatch.setattr(cache_keys.hashlib, "file_digest", _recording(read, digest))
    actual = keys.digest(image)
    assert keys.digest(image) == actual
    assert len(read) == 2  # a recent file may change again within one timestamp tick
    monkeypatch.setattr(cache_keys, "_MIN_FILE_AGE_NS", -(10**12))
    assert keys.digest(image) == keys.digest(image) == actual
    assert len(read) == 3
    path.write_bytes(PHOTO.read_bytes())
    assert keys.digest(image) != actual
    monkeypatch.setattr(cache_keys, "_MAX_CACHED_FILES", 3)
    for other in images(tmp_path, 6, seed=1):
        keys.digest(open_image(other))
    assert len(keys._files) == 3
    path.unlink()
    with pytest.raises(InvalidInputError, match=r"0-0\.png cannot be read"):
        keys.digest(image)


def test_file_changed_during_read_is_not_cached(load, tmp_path, monkeypatch):
    model = load()
    path, other = images(tmp_path, 2)
    fill_patches = ImagePatcher.fill_patches

    def change_first(patcher, image, max_pixels, out):
        path.write_bytes(other.read_bytes())
        fill_patches(patcher, image, max_pixels, out)

    monkeypatch.setattr(ImagePatcher, "fill_patches", change_first)
    model.score("q", [path])
    assert model.prefix_cache.use.host_entries == 0
    model.score("q", [path])
    assert model.prefix_cache.use.host_entries == 1


def test_cached_prefix_is_independent_of_query(load):
    """Cached prefixes contain no values that depend on the query."""
    states = []
    for query in ("one", "quite another question"):
        model = load()
        model.score(query, [PHOTO, LONG])
        memory = model.prefix_cache
        states.append({key: memory.peek(key).states for key in memory._host.entries})
        document = model._model.prompts([["**Document**:\n", LONG, "\n**Query**:\n"]])[0]
        assert memory.peek(model._scorer._documents.key(document)).tokens == len(document)
    assert states[0].keys() == states[1].keys()
    for key, cached in states[0].items():
        assert cached.shape == states[1][key].shape
        np.testing.assert_allclose(cached.numpy(), states[1][key].numpy(), atol=1e-5)
        assert cached.untyped_storage().nbytes() == cached.nbytes  # a copy, not a view of the batch


def test_short_texts_are_not_cached_and_fingerprint_is_unchanged(uncached_model, load):
    model = load()
    model.score("q", ["short", "as short"])
    use = model.prefix_cache.use
    assert (use.hits, use.misses, use.host_entries) == (0, 0, 0)
    assert model.fingerprint == uncached_model.fingerprint


# Limits


@dataclass
class Entry:
    name: int
    bytes: int
    tier: str = "device"


@given(
    st.lists(st.tuples(st.sampled_from("put get get offload".split()), st.integers(0, 7), st.integers(1, 40))),
    st.integers(0, 60),
    st.integers(0, 90),
)
def test_tiers_hold_most_recent_entries_within_limits(steps, device, host):
    """Compare with a reference implementation: newest entries on the device, older entries in host memory."""
    tiers = TwoTiers(
        device,
        host,
        to_device=lambda entry: Entry(entry.name, entry.bytes, "device"),
        to_host=lambda entry: Entry(entry.name, entry.bytes, "host"),
    )
    expected = {"device": [], "host": []}  # oldest first

    def evict(tier, limit, size):
        evicted = []
        while sum(entry.bytes for entry in expected[tier]) + size > limit:
            evicted.append(expected[tier].pop(0))
        return evicted

    def to_host(entry):
        if entry.bytes <= host:
            evict("host", host, entry.bytes)
            expected["host"].append(entry)

    def to_device(entry):
        for evicted in evict("device", device, entry.bytes):
            to_host(evicted)
        expected["device"].append(entry)

    for step, name, amount in steps:
        key = bytes([name])
        matches = [entry for tier in expected.values() for entry in tier if entry.name == name]
        if step == "put":
            for tier in expected.values():
                tier[:] = [entry for entry in tier if entry.name != name]
            entry = Entry(name, amount)
            assert tiers.put(key, entry) == tiers.accepts(amount) == (amount <= max(device, host))
            (to_device if amount <= device else to_host)(entry)
        elif step == "get":
            actual = tiers.get(key)
            assert (actual is not None) == bool(matches)
            for entry in matches:
                tier = "device" if entry in expected["device"] else "host"
                expected[tier].remove(entry)
                if tier == "device" or entry.bytes <= device:
                    to_device(entry)
                else:
                    expected["host"].append(entry)
                assert actual.tier == ("device" if entry in expected["device"] else "host")
        else:
            assert tiers.move_to_host() == bool(expected["device"])
            for entry in expected["device"]:
                to_host(entry)
            expected["device"] = []
        for tier, limit, tier_state in (("device", device, tiers._device), ("host", host, tiers._host)):
            assert [entry.name for entry in expected[tier]] == [key[0] for key in tier_state.entries]
            assert tier_state.bytes == sum(entry.bytes for entry in expected[tier]) <= limit
            assert {entry.tier for entry in tier_state.entries.values()} <= {tier}
    assert tiers.clear() == bool(expected["device"] or expected["host"])
    assert tiers.use.device_bytes == tiers.use.host_bytes == tiers.use.device_entries == tiers.use.host_entries == 0


def test_failed_copy_between_tiers_drops_only_the_entry():
    tiers = TwoTiers(10, 10, to_device=lambda entry: None, to_host=lambda entry: None)
    assert tiers.put(b"a", Entry(0, 8))
    assert tiers.put(b"b", Entry(1, 8))
    assert tiers.get(b"a") is None
    assert tiers.use.host_entries == 0
    full = TwoTiers(10, 20, to_device=lambda entry: None, to_host=lambda entry: entry)
    full.put(b"a", Entry(0, 8))
    full.put(b"b", Entry(1, 8))
    assert full.get(b"a").name == 0  # returned from host memory
    assert full.use.host_entries == 1


@pytest.mark.parametrize("entries", [0.5, 1, 2.5])
@pytest.mark.parametrize("has_device_tier", [False, True])
def test_small_cache_does_not_change_scores(uncached_model, load, tmp_path, size, entries, has_device_tier):
    """Documents are evicted during a call, and the cache size stays within the limits."""
    documents = [PHOTO, *images(tmp_path, 4), LONG, PHOTO]
    pairs = [(query, document) for query in QUERIES[:4] for document in documents]
    expected = uncached_model.score_pairs(pairs, raw=True)
    host, device = int(entries * size), int(has_device_tier * entries * size)
    model = load(PrefixCache(device_bytes=device, host_bytes=host))
    for batch_tokens in (None, 300):
        np.testing.assert_allclose(model.score_pairs(pairs, raw=True, batch_tokens=batch_tokens), expected, atol=EXACT)
        use = model.prefix_cache.use
        assert use.host_bytes <= host
        assert use.device_bytes <= device
        assert use.host_entries + use.device_entries > 0


def test_many_queries_in_one_call_compute_each_document_once(load, tmp_path, size):
    """The cache holds two documents; all queries of two documents are scored before the next two documents."""
    documents = images(tmp_path, 6)
    model = load()
    model.score("q", documents[:1])
    one = model.prefix_cache.use.host_bytes
    model = load(PrefixCache(host_bytes=2 * one))
    pairs = [(query, document) for query in QUERIES[:5] for document in documents]
    model.score_pairs(pairs)
    assert model.prefix_cache.use.misses == len(documents)
    assert model.prefix_cache.use.hits == len(pairs) - len(documents)


def test_device_and_host_tiers_keep_scores_and_limits(uncached_model, load, size):
    """New entries are on the device, old entries in host memory; the oldest entry is evicted. Use promotes entries."""
    model = load(PrefixCache(device_bytes=2 * size, host_bytes=2 * size))
    documents = [PHOTO, TALL, WIDE, IMAGES / "page_2000x1500.png", ODD]
    for document in [*documents, *documents]:
        expected = uncached_model.score("q", [document], raw=True, max_pixels=60_000)
        actual = model.score("q", [document], raw=True, max_pixels=60_000)
        np.testing.assert_allclose(actual, expected, atol=EXACT)
    use = model.prefix_cache.use
    assert use.device_entries
    assert use.host_entries
    assert use.hits
    model._model.weights.on_offload()  # as if another model used the device
    after_offload = model.prefix_cache.use
    assert after_offload.device_entries == after_offload.device_bytes == 0
    assert after_offload.host_bytes <= 2 * size
    actual = model.score("q", documents, raw=True, max_pixels=60_000)
    np.testing.assert_allclose(actual, uncached_model.score("q", documents, raw=True, max_pixels=60_000), atol=EXACT)
    model.prefix_cache.clear()
    assert model.prefix_cache.use.host_entries == model.prefix_cache.use.device_entries == 0


def test_document_evicted_between_steps_is_recomputed(uncached_model, load, monkeypatch):
    model = load()
    documents = [PHOTO, TALL, LONG]
    model.score("q", documents)
    real = TwoTiers.get

    def evict_all(tiers, key, **_):
        monkeypatch.setattr(TwoTiers, "get", real)
        tiers.clear()
        return None

    monkeypatch.setattr(TwoTiers, "get", evict_all)
    np.testing.assert_allclose(
        model.score("why?", documents, raw=True), uncached_model.score("why?", documents, raw=True), atol=EXACT
    )
    assert model.prefix_cache.use.misses == 6


def test_threads_share_one_prefix_cache(uncached_model, load, tmp_path, size):
    documents = [PHOTO, TALL, LONG, [ODD, "x"], *images(tmp_path, 3)]
    expected = {query: uncached_model.score(query, documents, raw=True) for query in QUERIES[:4]}
    model = load(PrefixCache(device_bytes=size, host_bytes=3 * size))
    barrier = threading.Barrier(4)

    def score_in_random_order(number):
        random = np.random.default_rng(number)
        barrier.wait()
        for query in QUERIES[:4]:
            order = random.permutation(len(documents))[:4]
            actual = model.score(query, [documents[i] for i in order], raw=True)
            np.testing.assert_allclose(actual, expected[query][order], atol=EXACT)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(score_in_random_order, range(4)))
    assert model.prefix_cache.use.device_bytes <= size
    assert model.prefix_cache.use.host_bytes <= 3 * size


# Out of memory


def test_out_of_memory_clears_cache_before_halving_batches(uncached_model, load, caplog):
    model = load()
    documents = [PHOTO, TALL, LONG, *["short"] * 20]
    expected = uncached_model.score("why?", documents, raw=True)
    model.score("q", documents[:3])
    decoder = model._model.module.model.language_model
    budget = model._scorer._cached_runner.batch_tokens

    def hook(*_):
        if model.prefix_cache.use.host_entries == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = decoder.register_forward_pre_hook(hook)
    with caplog.at_level(logging.WARNING, "jina_rag"):
        actual = model.score("why?", documents[:2] + documents[3:], raw=True)
    handle.remove()
    np.testing.assert_allclose(actual, [*expected[:2], *expected[3:]], atol=EXACT)
    assert model.prefix_cache.use.misses == 5
    assert model._scorer._whole_runner.batch_tokens == model._scorer._cached_runner.batch_tokens == budget
    assert not caplog.records


def test_oversized_pair_raises_model_error(load):
    model = load()
    model.score("q", [PHOTO])
    decoder = model._model.module.model.language_model

    def hook(*_):
        raise torch.OutOfMemoryError("full")

    decoder.register_forward_pre_hook(hook)
    with pytest.raises(ModelError, match="does not fit into the memory of cpu"):
        model.score("why?", [PHOTO])
    assert model.prefix_cache.use.host_entries == 0


@pytest.fixture
def separate_device_memory(monkeypatch):
    """Free memory as on a device with separate memory: cached prefixes move to host memory."""
    monkeypatch.setattr(PairScorer, "_free_memory", lambda scorer: scorer.prefixes.move_to_host())


def test_oversized_pair_on_gpu_raises_model_error(load, separate_device_memory):
    """Documents in host memory are not promoted to the full device."""
    model = load(PrefixCache(device_bytes=10**8, host_bytes=10**8))
    model.score("q", [PHOTO, TALL])
    passes = []

    def hook(*_):
        passes.append(model.prefix_cache.use.device_entries)
        assert len(passes) < 20
        raise torch.OutOfMemoryError("full")

    model._model.module.model.language_model.register_forward_pre_hook(hook)
    tokens = len(model._prompts([("why?", TALL)], 10_240, 9_728, None)[0][0])
    with pytest.raises(ModelError, match=f"An input of {tokens} tokens does not fit"):
        model.score("why?", [TALL])
    assert passes == [2, 0]


def test_out_of_memory_on_gpu_uses_documents_from_host_memory(uncached_model, load, separate_device_memory):
    model = load(PrefixCache(device_bytes=10**8, host_bytes=10**8))
    model.score("q", [PHOTO, TALL])
    passes = []

    def hook(*_):
        passes.append(model.prefix_cache.use.device_entries)
        if len(passes) == 1:
            raise torch.OutOfMemoryError("full")

    handle = model._model.module.model.language_model.register_forward_pre_hook(hook)
    actual = model.score("why?", [PHOTO, TALL], raw=True)
    handle.remove()
    np.testing.assert_allclose(actual, uncached_model.score("why?", [PHOTO, TALL], raw=True), atol=EXACT)
    assert passes == [2, 0]
    assert model.prefix_cache.use.misses == 2
    model.score("and?", [PHOTO])
    assert model.prefix_cache.use.device_entries == 1


def test_query_out_of_memory_keeps_whole_prompt_budget(load, monkeypatch, caplog):
    monkeypatch.setattr(PairScorer, "_free_memory", lambda _: False)
    model = load()
    model.score("q", [PHOTO])
    budget, calls = model._scorer._whole_runner.batch_tokens, []

    def hook(*_):
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("full")

    model._model.module.model.language_model.register_forward_pre_hook(hook)
    pairs = [(f"why {number}", PHOTO) for number in range(4)]
    tokens = len(model._prompts(pairs, 10_240, 9_728, None)[0][0])
    with caplog.at_level(logging.WARNING, "jina_rag"):
        model.score_pairs(pairs)
    assert model._scorer._whole_runner.batch_tokens == budget > model._scorer._cached_runner.batch_tokens
    assert f"with batches of {4 * tokens} tokens; continuing with batches of {2 * tokens} tokens." in caplog.text


def test_runner_retries_batch_once_after_freeing_memory():
    sizes = []

    def launch(batch):
        sizes.append(len(batch))
        if len(sizes) in (1, 2, 5):
            raise torch.OutOfMemoryError("full")
        return lambda: batch

    freed = []
    runner = BatchRunner(Placement(torch.device("cpu"), torch.float32, 100), name="m")
    assert runner.run([10] * 8, list, launch, on_oom=lambda: not freed.append(len(sizes))) == list(range(8))
    assert sizes == [8, 8, 4, 4]
    sizes.clear()
    runner = BatchRunner(Placement(torch.device("cpu"), torch.float32, 40), name="m")
    with pytest.raises(ModelError, match="An input of 77 tokens"):
        runner.run([40], list, lambda _: launch(sizes.clear() or [1]), on_oom=lambda: True, sizes=[77])


def test_pending_preparation_finishes_before_memory_is_freed():
    """The preparation of the next batch may allocate the memory that is about to be freed."""
    started, events = threading.Event(), []

    def prepare(batch):
        if batch == [1] and "ahead" not in events:
            started.set()
            time.sleep(0.05)
            events.append("ahead")
        return batch

    def launch(batch):
        started.wait(10)
        if "freed" not in events:
            raise torch.OutOfMemoryError("full")
        return lambda: batch

    runner = BatchRunner(Placement(torch.device("cpu"), torch.float32, 10), name="m")
    assert runner.run([10, 10], prepare, launch, on_oom=lambda: not events.append("freed")) == [0, 1]
    assert events == ["ahead", "freed"]


# Settings


def test_prefix_cache_settings_are_validated(uncached_model, load):
    assert uncached_model.prefix_cache is None
    assert load().prefix_cache.capacity > 10**6
    assert load(PrefixCache(device_bytes=5, host_bytes=7)).prefix_cache.capacity == 12
    for invalid in (
        *({"device_bytes": value} for value in (-1, 1.5, "5", True)),
        *({"host_bytes": value} for value in (-1, 1.5, "5", True)),
        {"dtype": "int8"},
    ):
        with pytest.raises(InvalidInputError, match=next(iter(invalid))):
            PrefixCache(**invalid)
    with pytest.raises(InvalidInputError, match="prefix_cache is 5; expected a PrefixCache, True or False"):
        load(5)
    with pytest.raises(InvalidInputError, match="Remove prefix_cache"):
        load_reranker("lite", prefix_cache=PrefixCache())


def test_sliding_window_decoder_has_no_prefix_cache(tmp_path):
    """A layer with a sliding window does not attend to all preceding tokens."""
    windowed = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}
    folder = make_checkpoint("m0", path=tmp_path / "m0", overrides=windowed)
    model = load_reranker(str(folder), device="cpu", dtype="float32")
    assert model.prefix_cache is None
    assert np.isfinite(model.score("q", [PHOTO, LONG])).all()


def test_opened_image_records_its_source():
    data = PHOTO.read_bytes()
    assert open_image(PHOTO).source == PHOTO
    assert open_image(data).source == data
    with Image.open(io.BytesIO(data)) as image:
        assert open_image(image).source is image
    assert isinstance(open_image(PHOTO), LoadedImage)
