"""Encoding and scoring of the torch models: batches, memory, dtypes, special tokens, invalid arguments."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.contracts import check_reranker_shape
from helpers.paths import DATA
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jina_rag import load_embedder, load_reranker
from jina_rag.errors import InvalidInputError, ModelError
from jina_rag.protocols import Embedder, ExplainingReranker, PairReranker, PlacedModel
from jina_rag.scoring import maxsim
from jina_rag.testing import make_page

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from jina_rag.models.jina.image_patches import ImagePatcher  # noqa: E402
from jina_rag.models.runtime import devices  # noqa: E402
from jina_rag.models.runtime.batching import BatchRunner, fill_batches  # noqa: E402  # behind the check for torch
from jina_rag.models.runtime.devices import Placement, bfloat16_gain, place  # noqa: E402

IMAGES = DATA / "golden" / "images"
TEXTS = ["What is late interaction retrieval?", "a", "", "Überall gibt es schöne Straßen.", "long " * 120, "日本語の文"]
IMAGE = IMAGES / "photo_320x240.png"
EMBEDDERS = ("v4", "colbert-v2", "v1")


@pytest.fixture(scope="module")
def models(tiny):
    loaders = {family: load_embedder for family in EMBEDDERS} | {"m0": load_reranker}
    return {family: load(tiny[family], device="cpu", dtype="float32") for family, load in loaders.items()}


# Batches


@given(st.lists(st.integers(1, 3000), max_size=60), st.integers(1, 4000))
def test_batches_contain_each_input_once_within_budget(lengths, tokens):
    batches = fill_batches(lengths, tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        widest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or widest * len(batch) <= tokens
    assert [max(lengths[i] for i in batch) for batch in batches] == sorted(
        (max(lengths[i] for i in batch) for batch in batches), reverse=True
    )


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200), st.integers(5, 60))
def test_runner_keeps_input_order_after_out_of_memory(lengths, tokens, capacity):
    """Batches are halved until they fit into memory; only a single input larger than the memory fails."""
    runner = BatchRunner(Placement(torch.device("cpu"), torch.float32, tokens), name="m")

    def launch(batch):
        if max(lengths[i] for i in batch) * len(batch) > capacity:
            raise torch.OutOfMemoryError("full")
        return lambda: [index * 10 for index in batch]

    if max(lengths, default=0) > capacity:
        with pytest.raises(ModelError, match=r"tokens does not fit into the memory of cpu"):
            runner.run(lengths, lambda indices: list(indices), launch)
    else:
        expected = [index * 10 for index in range(len(lengths))]
        assert runner.run(lengths, lambda indices: list(indices), launch) == expected


def test_next_batch_is_prepared_during_computation():
    runner = BatchRunner(Placement(torch.device("cpu"), torch.float32, 1), name="m")
    ahead = threading.Event()
    prepared = []

    def prepare(indices):
        prepared.append(tuple(indices))
        if len(prepared) == 2:
            ahead.set()
        return indices

    def launch(batch):
        if len(prepared) <= 2:
            assert ahead.wait(10)
        return lambda: list(batch)

    assert runner.run([1, 1, 1], prepare, launch) == [0, 1, 2]


def test_other_runtime_errors_are_not_handled_as_out_of_memory():
    runner = BatchRunner(Placement(torch.device("cpu"), torch.float32, 10), name="m")

    def launch(batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        runner.run([1, 2], list, launch)


class StandInStream:
    """Stand-in for the stream of a device: a batch's results are in host memory only after its event."""

    def __init__(self):
        self.events = []

    def start_copies(self, tensors):
        values = [tensor.clone() for tensor in tensors]
        copies = [torch.full_like(tensor, float("nan")) for tensor in tensors]
        self.events.append("submit")

        class End:
            def synchronize(_):
                self.events.append("read")
                with torch.inference_mode():
                    for copy, value in zip(copies, values, strict=True):
                        copy.copy_(value)

        return copies, End()


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_next_batch_is_submitted_before_results_of_last_one_are_read(models, family, monkeypatch):
    model, stream, texts = models[family], StandInStream(), [f"{text} {i}" for i, text in enumerate(TEXTS[:4])]

    def run():
        if family == "m0":
            return [model.score("q", texts, raw=True, batch_tokens=1)]
        embeddings = model.encode_document(texts, batch_tokens=1)
        return [embeddings.single, *embeddings.multi]

    expected = run()
    monkeypatch.setattr(devices, "_start_copies", stream.start_copies)
    for actual, vectors in zip(run(), expected, strict=True):
        np.testing.assert_array_equal(actual, vectors)
    assert stream.events == ["submit", "submit", "read", "submit", "read", "submit", "read", "read"]


class Waits(TorchDispatchMode):
    """Records the operations for which the host would wait for a device."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "aten.equal", "masked_select")):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_submission_does_not_wait_for_the_device(tiny, family):
    """With a mixture of lengths, for m0 also with cached documents."""
    load = load_reranker if family == "m0" else load_embedder
    model, inputs = load(tiny[family], device="cpu", dtype="float32"), ["short", "a longer text " * 20]
    inputs += [IMAGE, {"image": str(IMAGES / "odd_57x43.png")}] if family in ("v4", "m0") else []
    with Waits() as waits:
        for query in ("q", "another"):
            if family == "m0":
                model.score(query, inputs, batch_tokens=100_000)
            else:
                model.encode_document([query, *inputs], batch_tokens=100_000)
    assert waits.names == []


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_one_call_prepares_while_another_computes(tiny, family):
    """Concurrent calls share the device only, so the lock of the model is not held during the preparation."""
    load = load_reranker if family == "m0" else load_embedder
    model = load(tiny[family], device="cpu", dtype="float32")
    is_computing, is_prepared = threading.Event(), threading.Event()

    def hook(*_):
        if not is_computing.is_set():
            is_computing.set()
            assert is_prepared.wait(10)

    def run(text):
        return model.score("q", [text]) if family == "m0" else model.encode_document([text]).single

    expected = run("second text")
    owner = model._model if family in ("v4", "m0") else model
    name = "prepare" if family in ("v4", "m0") else "_prepare"
    prepare = getattr(owner, name)

    def note(*arguments):
        batch = prepare(*arguments)
        if is_computing.is_set():
            is_prepared.set()
        return batch

    setattr(owner, name, note)
    handle = _decoder(model, family).register_forward_pre_hook(hook)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, "first text")
        assert is_computing.wait(10)
        second = pool.submit(run, "second text")
        assert np.isfinite(first.result()).all()
        np.testing.assert_array_equal(second.result(), expected)
    handle.remove()


def _out_of_memory_above(module, tokens):
    """Make a module raise an out-of-memory error for batches of more than `tokens` tokens."""

    def hook(_, args, kwargs):
        ids = kwargs.get("inputs_embeds", kwargs.get("input_ids", args[0] if args else None))
        if ids.shape[0] * ids.shape[1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _decoder(model, family):
    if family in ("v4", "m0"):
        return model._model.module.model.language_model
    return model._module.roberta if family == "colbert-v2" else model._module


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_out_of_memory_keeps_outputs_and_warns_once(tiny, family, caplog):
    load = load_reranker if family == "m0" else load_embedder
    model = load(tiny[family], device="cpu", dtype="float32")

    def run():
        if family == "m0":
            return model.score_pairs([("q", text) for text in TEXTS] * 12, raw=True)
        return model.encode_document(TEXTS * 12).single

    expected = run()
    with caplog.at_level(logging.WARNING, "jina_rag"):
        caplog.clear()
        handle = _out_of_memory_above(_decoder(model, family), 400)
        np.testing.assert_allclose(run(), expected, atol=1e-5)
        np.testing.assert_allclose(run(), expected, atol=1e-5)
        handle.remove()
    assert len([r for r in caplog.records if "ran out of memory" in r.message]) == 1
    handle = _out_of_memory_above(_decoder(model, family), 5)
    with pytest.raises(ModelError, match="does not fit into the memory of cpu"):
        run()
    handle.remove()


@pytest.mark.parametrize("family", EMBEDDERS)
@pytest.mark.parametrize("tokens", [1, 60, 100_000])
def test_vectors_are_independent_of_batch_size(models, family, tokens):
    model = models[family]
    together = model.encode_document(TEXTS, batch_tokens=tokens)
    for i, text in enumerate(TEXTS):
        expected_alone = model.encode_document([text])
        np.testing.assert_allclose(together.single[i], expected_alone.single[0], atol=1e-5)
        np.testing.assert_allclose(together.multi[i], expected_alone.multi[0], atol=1e-5)


def test_scores_are_independent_of_batch_size(models):
    documents = [*TEXTS, IMAGE, {"image": str(IMAGES / "odd_57x43.png")}]
    expected = [float(models["m0"].score("q", [document], raw=True)[0]) for document in documents]
    for tokens in (1, 200, 100_000):
        np.testing.assert_allclose(
            models["m0"].score("q", documents, raw=True, batch_tokens=tokens), expected, atol=1e-4
        )


def test_one_forward_pass_returns_dense_and_multi_vectors(tiny):
    model = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    calls = []
    model._model.module.model.language_model.register_forward_hook(lambda *_: calls.append(1))
    embeddings = model.encode_document([IMAGE, "a text", make_page("a page")], batch_tokens=100_000)
    assert embeddings.single is not None
    assert embeddings.multi is not None
    assert len(calls) == len(fill_batches([len(rows) for rows in embeddings.multi], 100_000))
    calls.clear()
    model.encode_query(["one", "two words"])
    assert len(calls) == 1


def test_language_model_head_is_not_loaded(models):
    assert not any("lm_head" in name for name, _ in models["v4"]._model.module.named_modules())


# Dtypes


@pytest.mark.parametrize("family", EMBEDDERS)
def test_bfloat16_vectors_are_close_to_float32(tiny, models, family):
    bfloat16_model = load_embedder(tiny[family], device="cpu", dtype="bfloat16")
    inputs = [*TEXTS, *([IMAGE, IMAGES / "tall_150x420.png"] if family == "v4" else [])]
    ours, exact = bfloat16_model.encode_document(inputs), models[family].encode_document(inputs)
    assert (ours.single * exact.single).sum(axis=1).min() >= 0.999
    assert min((a * b).sum(axis=1).mean() for a, b in zip(ours.multi, exact.multi, strict=True)) >= 0.999
    assert ours.single.dtype == np.float32


def test_bfloat16_scores_are_close_to_float32(tiny, models):
    bfloat16_model = load_reranker(tiny["m0"], device="cpu", dtype="bfloat16")
    documents = [*TEXTS, IMAGE]
    np.testing.assert_allclose(bfloat16_model.score("q", documents), models["m0"].score("q", documents), atol=0.02)


def test_auto_dtype_is_the_fastest_that_fits_into_memory():
    dtype = place("cpu", "auto", weight_bytes=1000, stored_dtype=torch.bfloat16).dtype
    assert dtype == (torch.bfloat16 if bfloat16_gain() >= 1.25 else torch.float32)
    # In float32, the weights would need 4 million GB.
    assert place("cpu", "auto", weight_bytes=2 * 10**15, stored_dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("cuda:99", "auto", "does not exist here"),
        ("gpu", "auto", "device is 'gpu'; expected one of auto"),
        ("meta", "auto", "device is 'meta'; expected one of auto"),
        ("cpu", "int8", "dtype is 'int8'; expected one of auto"),
    ],
)
def test_unknown_device_or_dtype_raises_invalid_input_error(device, dtype, message):
    with pytest.raises(InvalidInputError, match=message):
        place(device, dtype)


def test_v1_refuses_float16(tiny):
    with pytest.raises(InvalidInputError, match="overflows in float16"):
        load_embedder(tiny["v1"], device="cpu", dtype="float16")


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_nan_output_raises_model_error(tiny, family):
    load = load_reranker if family == "m0" else load_embedder
    model = load(tiny[family], device="cpu", dtype="float32")
    _decoder(model, family).register_forward_hook(lambda _, __, out: _with_nan(out))
    with pytest.raises(ModelError, match="NaN"):
        model.score("a", ["b"]) if family == "m0" else model.encode_document(["a"])


def _with_nan(out):
    if isinstance(out, torch.Tensor):
        return out * float("nan")
    out.last_hidden_state = out.last_hidden_state * float("nan")
    return out


def test_zero_vector_raises_model_error(tiny):
    model = load_embedder(tiny["v1"], device="cpu", dtype="float32")
    model._module.encoder.final_layer_norm.weight.data.zero_()
    with pytest.raises(ModelError, match="zero vectors"):
        model.encode_document(["a"])


# Special tokens in texts


def special_tokens(folder) -> list[str]:
    data = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
    return [token["content"] for token in data["added_tokens"]]


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_special_tokens_in_text_are_encoded_as_text(tiny, models, family):
    """Text never becomes the ids of markup tokens, which start an image or end a prompt."""
    tokens = special_tokens(tiny[family])
    assert len(tokens) >= 7
    model = models[family]
    tokenizer = model._model.tokenizer if family in ("v4", "m0") else model._tokenizer
    all_tokens = " ".join(tokens) + "".join(tokens)
    unknown = tokenizer._special.get("<unk>")
    assert not set(tokenizer.encode(all_tokens)) & ({*tokenizer._special.values()} - {unknown})
    for text in [*tokens, all_tokens, f"before {all_tokens} after", f"<s>[QueryMarker]{all_tokens}</s><mask><pad>"]:
        if family == "m0":
            assert np.isfinite(model.score(text, [text, f"a {text}", IMAGE], raw=True)).all()
            continue
        embeddings = model.encode_document([text, "another text"])
        assert embeddings.grids[0] is None
        if family == "v4":
            assert len(embeddings.multi[0]) == len(tokenizer.encode(f"Passage: {text}"))
        np.testing.assert_allclose(embeddings.single[0], model.encode_document([text]).single[0], atol=1e-5)


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_markup_not_flagged_special_is_encoded_as_text(tiny, tmp_path, family):
    from jina_rag.models.jina.text_tokens import TextTokenizer

    data = json.loads((Path(tiny[family]) / "tokenizer.json").read_text(encoding="utf-8"))
    markup = [token for token in data["added_tokens"] if token["special"]]
    for token in markup:
        token["special"] = False
    if family in ("v4", "m0"):
        markup = [token for token in markup if token["content"].startswith(("<|im", "<|vision", "<|end", "<|video"))]
        assert len(markup) >= 8
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    tokenizer = TextTokenizer(tmp_path, fallback="Qwen2Tokenizer")
    unknown = {token["id"] for token in markup if token["content"] == "<unk>"}
    for token in markup:
        assert tokenizer.special(token["content"]) == token["id"]
        assert not {token["id"]} & set(tokenizer.encode(f"a {token['content']} b{token['content']}")) - unknown


def test_image_markup_in_text_does_not_add_an_image(models):
    markup_text = "<|vision_start|><|image_pad|><|vision_end|>"
    embeddings = models["v4"].encode_document([[markup_text, IMAGE]])
    plain = models["v4"].encode_document([["x", IMAGE]])
    boxes = [~np.isnan(grid.boxes).any(axis=1) for grid in (embeddings.grids[0], plain.grids[0])]
    assert boxes[0].sum() == boxes[1].sum()
    assert np.isfinite(models["m0"].score(markup_text, [IMAGE, [markup_text, IMAGE]])).all()


@pytest.mark.parametrize("family", EMBEDDERS)
def test_unusual_texts_give_finite_vectors(models, family):
    texts = ["\0", "\ud83d", "a\u202eb", "\r\n\t", "x" * 5000, "\U0001f680" * 50, "á" * 10]
    assert np.isfinite(models[family].encode_document(texts).single).all()
    assert np.isfinite(models["m0"].score("\ud83d\0", texts)).all()


# Images, grids, documents of several parts


def test_grid_gives_box_of_each_row(models):
    pixels = np.zeros((224, 448, 3), dtype=np.uint8)
    pixels[:, :224] = 255
    embeddings = models["v4"].encode_document([Image.fromarray(pixels)])
    rows, grid = embeddings.multi[0], embeddings.grids[0]
    assert grid.kind == "patches"
    assert len(grid) == len(rows)
    is_image_row = ~np.isnan(grid.boxes).any(axis=1)
    boxes = grid.boxes[is_image_row]
    assert is_image_row.sum() == 8 * 16
    np.testing.assert_allclose(boxes[0], [0, 0, 1 / 16, 1 / 8], atol=1e-6)
    np.testing.assert_allclose(boxes[17], [1 / 16, 1 / 8, 2 / 16, 2 / 8], atol=1e-6)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    np.testing.assert_allclose(area.sum(), 1, atol=1e-5)


def test_document_of_several_parts_has_one_vector(models):
    model = models["v4"]
    other = IMAGES / "odd_57x43.png"
    parts = [[IMAGE, other], ["a text", IMAGE], [IMAGE, "a text"], ["one", "two"]]
    embeddings = model.encode_document(parts)
    assert len(embeddings.single) == 4
    np.testing.assert_allclose(np.linalg.norm(embeddings.single, axis=1), 1, atol=1e-4)
    assert sorted(set(embeddings.grids[0].images.tolist())) == [-1, 0, 1]
    assert embeddings.grids[1].images is None
    assert embeddings.grids[3] is None
    expected_alone = model.encode_document([IMAGE]).single[0]
    assert all(float(vector @ expected_alone) < 0.9999 for vector in embeddings.single[:3])
    for vector, part in zip(embeddings.single, parts, strict=True):
        np.testing.assert_allclose(vector, model.encode_document([part]).single[0], atol=1e-5)


def test_list_of_one_part_equals_that_part(models):
    for part in (IMAGE, "a text"):
        expected = models["v4"].encode_document([part])
        np.testing.assert_allclose(models["v4"].encode_document([[part]]).single, expected.single, atol=1e-6)


def test_page_is_embedded_as_image_or_text_by_modality(models):
    page = make_page("some words on it", size=(170, 220))
    as_image = models["v4"].encode_document([page.screenshot.image]).single
    np.testing.assert_array_equal(models["v4"].encode_document([page]).single, as_image)
    expected = models["colbert-v2"].encode_document(["some words on it"]).single
    np.testing.assert_allclose(models["colbert-v2"].encode_document([page]).single, expected, atol=1e-6)
    assert models["v4"].modality == "image"
    assert models["colbert-v2"].modality == "text"


def test_exif_orientation_is_applied(models, tmp_path):
    """An image and a rotated copy with an EXIF tag have equal vectors; in v4's published code, the vectors differ."""
    upright = Image.open(IMAGES / "photo_320x240.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(tmp_path / "rotated.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    paths = [tmp_path / "rotated.png", tmp_path / "upright.png"]
    vectors = models["v4"].encode_document(paths).single
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    scores = models["m0"].score("q", paths, raw=True)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([3136, 50_176, 602_112, 2_000_000]))
def test_image_sizes_match_transformers(tiny_patcher, width, height, limit):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    if max(width, height) > 200 * min(width, height):
        with pytest.raises(InvalidInputError, match="at most 200 times"):
            tiny_patcher.tokens((width, height), limit)
        return
    rows, columns = tiny_patcher.tokens((width, height), limit)
    assert (rows * 28, columns * 28) == smart_resize(height, width, 28, 3136, limit)


@pytest.fixture(scope="module")
def tiny_patcher(tiny):
    from jina_rag.models.runtime.checkpoints import open_checkpoint

    return ImagePatcher(open_checkpoint(Path(tiny["v4"]), name="v4"), max_pixels=None, fixed_limits=False)


def test_positions_match_transformers(models):
    """Positions equal the result of `get_rope_index` of transformers."""
    from jina_rag.models.jina.vl_prompts import mrope_positions

    for family in ("v4", "m0"):
        model = models[family]._model
        segments = ["before ", *model.image_segments(_image("photo_320x240.png")), " between "]
        segments += [*model.image_segments(_image("wide_900x120.png")), " after"]
        (prompt,) = model.prompts([segments])
        ids = torch.from_numpy(prompt.ids)[None]
        batch = model.prepare([prompt])
        expected, _ = model.module.model.get_rope_index(
            ids, (ids == model.image_id).int(), image_grid_thw=batch.grids, attention_mask=torch.ones_like(ids)
        )
        np.testing.assert_array_equal(mrope_positions(prompt), expected[:, 0].numpy())


def _image(name):
    from jina_rag.images import open_image

    return open_image(IMAGES / name)


def test_max_pixels_changes_number_of_image_tokens(models, tiny):
    page = IMAGES / "page_2000x1500.png"

    def rows(**options):
        (grid,) = models["v4"].encode_document([page], **options).grids
        return int((~np.isnan(grid.boxes).any(axis=1)).sum())

    assert rows() == 768
    assert rows(max_pixels=50_176) <= 64
    assert rows(max_pixels=2_000_000) > 2400
    assert models["m0"].score("q", [page], max_pixels=2_000_000).shape == (1,)
    model = load_embedder(tiny["v4"], device="cpu", dtype="float32", max_pixels=50_176)
    expected = models["v4"].encode_document([page], max_pixels=50_176).single
    np.testing.assert_array_equal(model.encode_document([page]).single, expected)
    for invalid in (0, 100, 10**9):
        with pytest.raises(InvalidInputError, match="max_pixels is"):
            models["v4"].encode_document([page], max_pixels=invalid)


# Arguments


def test_v4_refuses_invalid_arguments(models, tiny):
    model = models["v4"]
    for options, message in (
        ({"truncate_dim": 7}, "expected one of 8, 16, 32, 64"),
        ({"task": "code"}, "is loaded for retrieval"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": 40_000}, "32,768"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            model.encode_query(["a"], **options)
    for options, message in (
        ({"task": "nope"}, "task is 'nope'; expected one or several of retrieval, text-matching, code"),
        ({"task": []}, "expected one or several of"),
        ({"truncate_dim": 7}, "expected one of 8"),
        ({"truncate_dim": 0}, "truncate_dim is 0"),
        ({"max_pixels": 5}, "max_pixels is 5"),
        ({"revision": "main"}, "a folder, which has no revisions"),
        ({"skiplist": "none"}, "does not support skiplist"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            load_embedder(tiny["v4"], device="cpu", dtype="float32", **options)


def test_colbert_v1_and_m0_refuse_invalid_arguments(models, tiny):
    for options, message in (
        ({"skiplist": "mine"}, "skiplist is"),
        ({"query_length": 2}, "query_length is 2"),
        ({"no_such": 1}, "supports skiplist"),
        ({"truncate_dim": 999}, "expected 1 to 128"),
        ({"task": "code"}, "'retrieval' only"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            load_embedder(tiny["colbert-v2"], device="cpu", **options)
    with pytest.raises(InvalidInputError, match="no Matryoshka training"):
        load_embedder(tiny["v1"], device="cpu", truncate_dim=32)
    with pytest.raises(InvalidInputError, match="from 2 to 512"):
        models["v1"].encode_query(["a"], max_length=600)
    for options in ({"max_length": 1}, {"max_doc_length": 10_000}, {"max_query_length": 0}, {"max_length": 40_000}):
        with pytest.raises(InvalidInputError, match="max_"):
            models["m0"].score("a", ["b"], **options)
    with pytest.raises(InvalidInputError, match=r"images do not fit into max_length=64"):
        models["m0"].score("q", [IMAGES / "page_2000x1500.png"], max_length=64, max_query_length=16)


def test_invalid_input_error_names_argument_and_position(models):
    for family, message in (("v4", "Document 2 of 2 is int; "), ("colbert-v2", "Document 2 of 2 is int; ")):
        with pytest.raises(InvalidInputError, match=message):
            models[family].encode_document(["a", 3])
    with pytest.raises(InvalidInputError, match="A part of query 1 of 1 is int; "):
        models["v4"].encode_query([["a", 3]])
    with pytest.raises(InvalidInputError, match="Text 2 of 2 is int; "):
        models["v1"].encode_query(["a", 3])
    with pytest.raises(InvalidInputError, match="Pass a list of documents"):
        models["v1"].encode_document("a")
    with pytest.raises(InvalidInputError, match="The document of pair 2 is int; "):
        models["m0"].score("q", ["a", 3])


def test_truncation_is_logged(models, caplog):
    with caplog.at_level(logging.WARNING, "jina_rag"):
        models["v4"].encode_document(TEXTS, max_length=6)
        models["m0"].score("q", ["long " * 50], max_length=64, max_query_length=16)
        models["colbert-v2"].encode_document(TEXTS, max_length=10)
        models["v1"].encode_document(["long " * 600])
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "Truncated 4 of 6 texts to 6 tokens",
        "Truncated 1 of 1 documents to 48 tokens",
        "Truncated 3 of 6 documents to 10 tokens",
        "Truncated 1 of 1 texts to 512 tokens",
    ]


@pytest.mark.parametrize("family", EMBEDDERS)
def test_embedders_implement_protocol(models, family):
    model = models[family]
    assert isinstance(model, Embedder)
    assert isinstance(model, PlacedModel)
    assert model.name
    assert (model.revision, model.dense_weight) == (None, 0.0)
    assert bool(model.matryoshka_dims) == (family == "v4")
    assert bool(model.multi_matryoshka_dims) == (family == "colbert-v2")
    assert model.encode_query([]).single.shape == (0, model.dim)
    embeddings = model.encode_document(TEXTS)
    assert embeddings.single.shape == (len(TEXTS), model.dim)
    assert len(embeddings.multi) == len(embeddings.grids) == len(TEXTS)
    for rows in embeddings.multi:
        assert rows.dtype == np.float32
        assert rows.shape[1] == model.multi_dim
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    assert model.encode_document(["a"], multi=False).multi is None
    assert model.encode_query(["a"], single=False).single is None
    # Each text is most similar to itself.
    scores = [maxsim(model.encode_document([TEXTS[0]]).multi[0], rows) for rows in embeddings.multi]
    assert int(np.argmax(scores)) == 0


def test_reranker_implements_protocols(models):
    assert isinstance(models["m0"], ExplainingReranker)
    assert isinstance(models["m0"], PairReranker)
    assert isinstance(models["m0"], PlacedModel)
    check_reranker_shape(models["m0"])


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_threads_share_one_model(models, family):
    model = models[family]

    def run(i):
        if family == "m0":
            return model.score("q", [TEXTS[i % 4], IMAGE])
        return model.encode_document([TEXTS[i % 4]]).single

    expected_alone = [run(i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(expected_alone, pool.map(run, range(8)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_threads_share_one_model_with_several_tasks(tiny):
    """Concurrent calls for different tasks do not mix up the active adapter, which is state of the module."""
    tasks = ("retrieval", "code", "text-matching")
    model = load_embedder(tiny["v4"], device="cpu", dtype="float32", task=tasks)
    expected_alone = {task: model.encode_query(TEXTS, task=task).single for task in tasks}
    assert np.abs(expected_alone["code"] - expected_alone["retrieval"]).max() > 0.01
    with ThreadPoolExecutor(6) as pool:
        futures = [(task, pool.submit(model.encode_query, TEXTS, task=task, batch_tokens=60)) for task in tasks * 4]
        for task, future in futures:
            np.testing.assert_allclose(future.result().single, expected_alone[task], atol=1e-5)


def test_license_warning_is_logged_once_per_family(tiny, caplog, monkeypatch):
    from jina_rag.models import registry

    monkeypatch.setattr(registry, "_families_warned_about", set())
    with caplog.at_level(logging.WARNING, "jina_rag"):
        for _ in range(2):
            load_reranker(tiny["m0"], device="cpu")
            load_embedder(tiny["v1"], device="cpu")
    assert [r.message for r in caplog.records if "License of" in r.message] == [
        "License of the jina-reranker-m0 weights: CC-BY-NC-4.0. Commercial use requires an agreement with Jina AI."
    ]
