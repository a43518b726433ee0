"""How the models run: batches, memory, number formats, special tokens, what is refused."""

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

from jina_rag.models.jina.image_patches import ImagePatcher  # noqa: E402
from jina_rag.models.runtime.batching import BatchRunner, fill_batches  # noqa: E402  # behind the check for torch
from jina_rag.models.runtime.devices import Placement, bfloat16_gain, place  # noqa: E402

IMAGES = DATA / "golden" / "images"
TEXTS = ["What is late interaction retrieval?", "a", "", "Überall gibt es schöne Straßen.", "long " * 120, "日本語の文"]
PICTURE = IMAGES / "photo_320x240.png"
EMBEDDERS = ("v4", "colbert-v2", "v1")


@pytest.fixture(scope="module")
def models(tiny):
    loaders = {family: load_embedder for family in EMBEDDERS} | {"m0": load_reranker}
    return {family: load(tiny[family], device="cpu", dtype="float32") for family, load in loaders.items()}


# -- batches ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 3000), max_size=60), st.integers(1, 4000))
def test_batches_hold_every_input_once_within_the_budget(lengths, tokens):
    batches = fill_batches(lengths, tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        widest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or widest * len(batch) <= tokens
    assert [max(lengths[i] for i in batch) for batch in batches] == sorted(
        (max(lengths[i] for i in batch) for batch in batches), reverse=True
    )


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200), st.integers(5, 60))
def test_a_runner_restores_the_order_and_survives_full_memory(lengths, tokens, room):
    """Whatever does not fit is halved until it does; only a single input that is too long ends the run."""
    runner = BatchRunner(Placement(torch.device("cpu"), torch.float32, tokens), name="m")

    def compute(batch):
        if max(lengths[i] for i in batch) * len(batch) > room:
            raise torch.OutOfMemoryError("full")
        return [index * 10 for index in batch]

    if max(lengths, default=0) > room:
        with pytest.raises(ModelError, match=r"tokens does not fit into the memory of cpu"):
            runner.run(lengths, lambda indices: list(indices), compute)
    else:
        expected = [index * 10 for index in range(len(lengths))]
        assert runner.run(lengths, lambda indices: list(indices), compute) == expected


def test_the_next_batch_is_prepared_while_the_device_works():
    runner = BatchRunner(Placement(torch.device("cpu"), torch.float32, 1), name="m")
    ahead = threading.Event()
    seen = []

    def prepare(indices):
        seen.append(tuple(indices))
        if len(seen) == 2:
            ahead.set()
        return indices

    def compute(batch):
        if len(seen) <= 2:
            assert ahead.wait(10)
        return list(batch)

    assert runner.run([1, 1, 1], prepare, compute) == [0, 1, 2]


def test_other_errors_are_not_taken_for_full_memory():
    runner = BatchRunner(Placement(torch.device("cpu"), torch.float32, 10), name="m")

    def compute(batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        runner.run([1, 2], list, compute)


def _out_of_memory_above(module, tokens):
    """Makes a module raise as a full device does when more tokens than that come at once."""

    def hook(_, args, kwargs):
        ids = kwargs.get("inputs_embeds", kwargs.get("input_ids", args[0] if args else None))
        if ids.shape[0] * ids.shape[1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _inner(model, family):
    if family in ("v4", "m0"):
        return model._model.module.model.language_model
    return model._module.roberta if family == "colbert-v2" else model._module


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_out_of_memory_gives_the_same_vectors_and_one_warning(tiny, family, caplog):
    load = load_reranker if family == "m0" else load_embedder
    model = load(tiny[family], device="cpu", dtype="float32")

    def run():
        if family == "m0":
            return model.score_pairs([("q", text) for text in TEXTS] * 12, raw=True)
        return model.encode_document(TEXTS * 12).single

    expected = run()
    with caplog.at_level(logging.WARNING, "jina_rag"):
        caplog.clear()
        handle = _out_of_memory_above(_inner(model, family), 400)
        np.testing.assert_allclose(run(), expected, atol=1e-5)
        np.testing.assert_allclose(run(), expected, atol=1e-5)
        handle.remove()
    assert len([r for r in caplog.records if "ran out of memory" in r.message]) == 1
    handle = _out_of_memory_above(_inner(model, family), 5)
    with pytest.raises(ModelError, match="does not fit into the memory of cpu"):
        run()
    handle.remove()


@pytest.mark.parametrize("family", EMBEDDERS)
@pytest.mark.parametrize("tokens", [1, 60, 100_000])
def test_vectors_do_not_depend_on_batches(models, family, tokens):
    model = models[family]
    together = model.encode_document(TEXTS, batch_tokens=tokens)
    for i, text in enumerate(TEXTS):
        alone = model.encode_document([text])
        np.testing.assert_allclose(together.single[i], alone.single[0], atol=1e-5)
        np.testing.assert_allclose(together.multi[i], alone.multi[0], atol=1e-5)


def test_scores_do_not_depend_on_batches(models):
    documents = [*TEXTS, PICTURE, {"image": str(IMAGES / "odd_57x43.png")}]
    expected = [float(models["m0"].score("q", [document], raw=True)[0]) for document in documents]
    for tokens in (1, 200, 100_000):
        np.testing.assert_allclose(
            models["m0"].score("q", documents, raw=True, batch_tokens=tokens), expected, atol=1e-4
        )


def test_one_forward_pass_gives_both_vectors(tiny):
    model = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    calls = []
    model._model.module.model.language_model.register_forward_hook(lambda *_: calls.append(1))
    done = model.encode_document([PICTURE, "a text", make_page("a page")], batch_tokens=100_000)
    assert done.single is not None
    assert done.multi is not None
    assert len(calls) == len(fill_batches([len(rows) for rows in done.multi], 100_000))
    calls.clear()
    model.encode_query(["one", "two words"])
    assert len(calls) == 1


def test_no_vocabulary_logits_are_computed(models):
    """The language model's head is not even there."""
    assert not any("lm_head" in name for name, _ in models["v4"]._model.module.named_modules())


# -- number formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", EMBEDDERS)
def test_bfloat16_is_near_float32(tiny, models, family):
    short = load_embedder(tiny[family], device="cpu", dtype="bfloat16")
    inputs = [*TEXTS, *([PICTURE, IMAGES / "tall_150x420.png"] if family == "v4" else [])]
    ours, exact = short.encode_document(inputs), models[family].encode_document(inputs)
    assert (ours.single * exact.single).sum(axis=1).min() >= 0.999
    assert min((a * b).sum(axis=1).mean() for a, b in zip(ours.multi, exact.multi, strict=True)) >= 0.999
    assert ours.single.dtype == np.float32


def test_bfloat16_scores_are_near_float32(tiny, models):
    short = load_reranker(tiny["m0"], device="cpu", dtype="bfloat16")
    documents = [*TEXTS, PICTURE]
    np.testing.assert_allclose(short.score("q", documents), models["m0"].score("q", documents), atol=0.02)


def test_auto_takes_what_is_faster_and_fits():
    chosen = place("cpu", "auto", weight_bytes=1000, stored_dtype=torch.bfloat16).dtype
    assert chosen == (torch.bfloat16 if bfloat16_gain() >= 1.25 else torch.float32)
    # As float32 this would need 4 million GB.
    assert place("cpu", "auto", weight_bytes=2 * 10**15, stored_dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("cuda:99", "auto", "does not exist here"),
        ("gpu", "auto", "device is auto"),
        ("meta", "auto", "device is auto"),
        ("cpu", "int8", "dtype is one of"),
    ],
)
def test_devices_and_dtypes_that_do_not_exist_are_refused(device, dtype, message):
    with pytest.raises(InvalidInputError, match=message):
        place(device, dtype)


def test_t5_is_not_run_in_float16(tiny):
    with pytest.raises(InvalidInputError, match="overflows in float16"):
        load_embedder(tiny["v1"], device="cpu", dtype="float16")


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_vectors_that_are_no_numbers_end_in_a_sentence(tiny, family):
    load = load_reranker if family == "m0" else load_embedder
    model = load(tiny[family], device="cpu", dtype="float32")
    _inner(model, family).register_forward_hook(lambda _, __, out: _poison(out))
    with pytest.raises(ModelError, match=r"NaN|not numbers"):
        model.score("a", ["b"]) if family == "m0" else model.encode_document(["a"])


def _poison(out):
    if isinstance(out, torch.Tensor):
        return out * float("nan")
    out.last_hidden_state = out.last_hidden_state * float("nan")
    return out


def test_rows_of_zeros_end_in_a_sentence(tiny):
    model = load_embedder(tiny["v1"], device="cpu", dtype="float32")
    model._module.encoder.final_layer_norm.weight.data.zero_()
    with pytest.raises(ModelError, match="vectors of zeros"):
        model.encode_document(["a"])


# -- what a text may hold ---------------------------------------------------------------------------------------


def special_tokens(folder) -> list[str]:
    added = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    return [token["content"] for token in added]


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_special_tokens_in_a_text_are_text(tiny, models, family):
    """Nothing a user writes opens an image, ends a prompt or takes another path: the ids of markup never come out."""
    tokens = special_tokens(tiny[family])
    assert len(tokens) >= 7
    model = models[family]
    tokenizer = model._model.tokenizer if family in ("v4", "m0") else model._tokenizer
    every = " ".join(tokens) + "".join(tokens)
    unknown = tokenizer._special.get("<unk>")
    assert not set(tokenizer.encode(every)) & ({*tokenizer._special.values()} - {unknown})
    for text in [*tokens, every, f"before {every} after", f"<s>[QueryMarker]{every}</s><mask><pad>"]:
        if family == "m0":
            assert np.isfinite(model.score(text, [text, f"a {text}", PICTURE], raw=True)).all()
            continue
        done = model.encode_document([text, "another text"])
        assert done.grids[0] is None
        if family == "v4":
            assert len(done.multi[0]) == len(tokenizer.encode(f"Passage: {text}"))
        np.testing.assert_allclose(done.single[0], model.encode_document([text]).single[0], atol=1e-5)


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_markup_that_a_file_does_not_call_special_is_none_of_a_text_either(tiny, tmp_path, family):
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


def test_an_image_mark_in_a_text_beside_an_image_changes_nothing_of_the_image(models):
    """The number of images is that of the images given."""
    marked = "<|vision_start|><|image_pad|><|vision_end|>"
    done = models["v4"].encode_document([[marked, PICTURE]])
    plain = models["v4"].encode_document([["x", PICTURE]])
    boxes = [~np.isnan(grid.boxes).any(axis=1) for grid in (done.grids[0], plain.grids[0])]
    assert boxes[0].sum() == boxes[1].sum()
    assert np.isfinite(models["m0"].score(marked, [PICTURE, [marked, PICTURE]])).all()


@pytest.mark.parametrize("family", EMBEDDERS)
def test_odd_texts_do_not_crash(models, family):
    texts = ["\0", "\ud83d", "a\u202eb", "\r\n\t", "x" * 5000, "\U0001f680" * 50, "á" * 10]
    assert np.isfinite(models[family].encode_document(texts).single).all()
    assert np.isfinite(models["m0"].score("\ud83d\0", texts)).all()


# -- pictures, grids, documents of several parts ----------------------------------------------------------------


def test_the_grid_says_which_box_each_row_stands_for(models):
    """White on the left and black on the right: the rows of either half resemble each other."""
    pixels = np.zeros((224, 448, 3), dtype=np.uint8)
    pixels[:, :224] = 255
    done = models["v4"].encode_document([Image.fromarray(pixels)])
    rows, grid = done.multi[0], done.grids[0]
    assert grid.kind == "patches"
    assert len(grid) == len(rows)
    placed = ~np.isnan(grid.boxes).any(axis=1)
    boxes = grid.boxes[placed]
    assert placed.sum() == 8 * 16
    np.testing.assert_allclose(boxes[0], [0, 0, 1 / 16, 1 / 8], atol=1e-6)
    np.testing.assert_allclose(boxes[17], [1 / 16, 1 / 8, 2 / 16, 2 / 8], atol=1e-6)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    np.testing.assert_allclose(area.sum(), 1, atol=1e-5)


def test_a_document_of_several_parts_is_one_document(models):
    model = models["v4"]
    other = IMAGES / "odd_57x43.png"
    parts = [[PICTURE, other], ["a text", PICTURE], [PICTURE, "a text"], ["one", "two"]]
    done = model.encode_document(parts)
    assert len(done.single) == 4
    np.testing.assert_allclose(np.linalg.norm(done.single, axis=1), 1, atol=1e-4)
    assert sorted(set(done.grids[0].images.tolist())) == [-1, 0, 1]
    assert done.grids[1].images is None
    assert done.grids[3] is None
    alone = model.encode_document([PICTURE]).single[0]
    assert all(float(vector @ alone) < 0.9999 for vector in done.single[:3])
    for vector, part in zip(done.single, parts, strict=True):
        np.testing.assert_allclose(vector, model.encode_document([part]).single[0], atol=1e-5)


def test_one_part_in_a_list_is_that_part(models):
    for part in (PICTURE, "a text"):
        expected = models["v4"].encode_document([part])
        np.testing.assert_allclose(models["v4"].encode_document([[part]]).single, expected.single, atol=1e-6)


def test_a_page_is_embedded_as_its_picture_and_read_by_text_models(models):
    page = make_page("some words on it", size=(170, 220))
    as_image = models["v4"].encode_document([page.screenshot.image]).single
    np.testing.assert_array_equal(models["v4"].encode_document([page]).single, as_image)
    expected = models["colbert-v2"].encode_document(["some words on it"]).single
    np.testing.assert_allclose(models["colbert-v2"].encode_document([page]).single, expected, atol=1e-6)
    assert models["v4"].modality == "image"
    assert models["colbert-v2"].modality == "text"


def test_exif_orientation_changes_the_vector_of_what_is_stored_not_of_what_is_seen(models, tmp_path):
    """The same picture, upright or stored lying with a mark, has one vector; the published code of v4 gives two."""
    upright = Image.open(IMAGES / "photo_320x240.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(tmp_path / "lying.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    paths = [tmp_path / "lying.png", tmp_path / "upright.png"]
    vectors = models["v4"].encode_document(paths).single
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    scores = models["m0"].score("q", paths, raw=True)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([3136, 50_176, 602_112, 2_000_000]))
def test_image_sizes_are_those_of_the_library(tiny_patcher, width, height, limit):
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


def test_positions_are_those_of_the_library(models):
    """Ours are computed without the modules' state; the library's is the reference."""
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


def test_max_pixels_can_be_raised_and_lowered(models, tiny):
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
    for wrong in (0, 100, 10**9):
        with pytest.raises(InvalidInputError, match="max_pixels is"):
            models["v4"].encode_document([page], max_pixels=wrong)


# -- arguments --------------------------------------------------------------------------------------------------


def test_v4_arguments_that_make_no_sense_are_refused(models, tiny):
    model = models["v4"]
    for options, message in (
        ({"truncate_dim": 7}, "can be cut to 8, 16, 32, 64"),
        ({"task": "code"}, "was loaded for retrieval"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": 40_000}, "32,768"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            model.encode_query(["a"], **options)
    for options, message in (
        ({"task": "nope"}, "task is one of retrieval, text-matching, code"),
        ({"task": []}, "task is one of"),
        ({"truncate_dim": 7}, "can be cut to"),
        ({"truncate_dim": 0}, "truncate_dim is 0"),
        ({"max_pixels": 5}, "max_pixels is 5"),
        ({"revision": "main"}, "folders have no revisions"),
        ({"skiplist": "none"}, "has no 'skiplist'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            load_embedder(tiny["v4"], device="cpu", dtype="float32", **options)


def test_other_arguments_that_make_no_sense_are_refused(models, tiny):
    for options, message in (
        ({"skiplist": "mine"}, "skiplist is"),
        ({"query_length": 2}, "query_length is 2"),
        ({"no_such": 1}, "takes skiplist"),
        ({"truncate_dim": 999}, "have 128 dimensions"),
        ({"task": "code"}, "one task"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            load_embedder(tiny["colbert-v2"], device="cpu", **options)
    with pytest.raises(InvalidInputError, match="not made to be cut"):
        load_embedder(tiny["v1"], device="cpu", truncate_dim=32)
    with pytest.raises(InvalidInputError, match="from 2 to 512"):
        models["v1"].encode_query(["a"], max_length=600)
    for options in ({"max_length": 1}, {"max_doc_length": 10_000}, {"max_query_length": 0}, {"max_length": 40_000}):
        with pytest.raises(InvalidInputError, match="max_"):
            models["m0"].score("a", ["b"], **options)
    with pytest.raises(InvalidInputError, match=r"images do not fit into max_length=64"):
        models["m0"].score("q", [IMAGES / "page_2000x1500.png"], max_length=64, max_query_length=16)


def test_cuts_are_reported(models, caplog):
    with caplog.at_level(logging.WARNING, "jina_rag"):
        models["v4"].encode_document(TEXTS, max_length=6)
        models["m0"].score("q", ["long " * 50], max_length=64, max_query_length=16)
        models["colbert-v2"].encode_document(TEXTS, max_length=10)
        models["v1"].encode_document(["long " * 600])
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "4 of 6 texts were cut after 6 tokens",
        "1 of 1 documents were cut to 48 tokens",
        "3 of 6 documents were cut after 10 tokens",
        "1 of 1 texts were cut after 512 tokens",
    ]


@pytest.mark.parametrize("family", EMBEDDERS)
def test_embedders_keep_the_contract(models, family):
    model = models[family]
    assert isinstance(model, Embedder)
    assert isinstance(model, PlacedModel)
    assert model.name
    assert (model.revision, model.dense_weight) == (None, 0.0)
    assert bool(model.matryoshka_dims) == (family == "v4")
    assert bool(model.multi_matryoshka_dims) == (family == "colbert-v2")
    assert model.encode_query([]).single.shape == (0, model.dim)
    done = model.encode_document(TEXTS)
    assert done.single.shape == (len(TEXTS), model.dim)
    assert len(done.multi) == len(done.grids) == len(TEXTS)
    for rows in done.multi:
        assert rows.dtype == np.float32
        assert rows.shape[1] == model.multi_dim
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    assert model.encode_document(["a"], multi=False).multi is None
    assert model.encode_query(["a"], single=False).single is None
    # A text is nearest to itself.
    scores = [maxsim(model.encode_document([TEXTS[0]]).multi[0], rows) for rows in done.multi]
    assert int(np.argmax(scores)) == 0


def test_the_reranker_keeps_the_contract(models):
    assert isinstance(models["m0"], ExplainingReranker)
    assert isinstance(models["m0"], PairReranker)
    assert isinstance(models["m0"], PlacedModel)
    check_reranker_shape(models["m0"])


@pytest.mark.parametrize("family", [*EMBEDDERS, "m0"])
def test_threads_share_a_model(models, family):
    model = models[family]

    def run(i):
        if family == "m0":
            return model.score("q", [TEXTS[i % 4], PICTURE])
        return model.encode_document([TEXTS[i % 4]]).single

    alone = [run(i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(run, range(8)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_threads_share_a_model_with_several_tasks(tiny):
    """Which adapter is active is state of the module: calls for different tasks must not meet."""
    tasks = ("retrieval", "code", "text-matching")
    model = load_embedder(tiny["v4"], device="cpu", dtype="float32", task=tasks)
    alone = {task: model.encode_query(TEXTS, task=task).single for task in tasks}
    assert np.abs(alone["code"] - alone["retrieval"]).max() > 0.01
    with ThreadPoolExecutor(6) as pool:
        jobs = [(task, pool.submit(model.encode_query, TEXTS, task=task, batch_tokens=60)) for task in tasks * 4]
        for task, job in jobs:
            np.testing.assert_allclose(job.result().single, alone[task], atol=1e-5)


def test_a_licence_is_told_once(tiny, caplog, monkeypatch):
    from jina_rag.models import registry

    monkeypatch.setattr(registry, "_families_warned_about", set())
    with caplog.at_level(logging.WARNING, "jina_rag"):
        for _ in range(2):
            load_reranker(tiny["m0"], device="cpu")
            load_embedder(tiny["v1"], device="cpu")
    assert [r.message for r in caplog.records if "under the" in r.message] == [
        "The weights of jina-reranker-m0 are under the CC-BY-NC-4.0: not for commercial use without an agreement "
        "with Jina AI."
    ]
