"""Checkpoints that load, whatever their sizes and layouts, and checkpoints that must not."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import DATA, ROOT

from jina_rag import load_embedder, load_reranker
from jina_rag.errors import CheckpointError, InvalidInputError, ModelNotFoundError
from jina_rag.models.runtime.checkpoints import family_of, folder_fingerprint, open_checkpoint
from jina_rag.testing import make_checkpoint

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402  # behind the check for torch

IMAGES = DATA / "golden" / "images"
TEXTS = ["What is late interaction?", "a", "The quick brown fox jumps over the lazy dog, again and again.", "海滩"]
LOADERS = {"v4": load_embedder, "m0": load_reranker, "colbert-v2": load_embedder, "v1": load_embedder}


def load(family, folder, **options):
    return LOADERS[family](folder, device="cpu", dtype="float32", **options)


@pytest.fixture(scope="module")
def published():
    """benchmarks/published.py: the published way, which itself agrees with the recorded outputs."""
    spec = importlib.util.spec_from_file_location("published", ROOT / "benchmarks" / "published.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["published"] = module
    spec.loader.exec_module(module)
    return module


V4_VARIANTS = {
    "as published": {},
    "sharded": {"shards": 3, "seed": 1},
    "new key layout": {"layout": "new", "seed": 2},
    "other rank and scaling": {"rank": 4, "alpha": 12, "seed": 3},
    "other windows": {
        "overrides": {"vision_config": {"window_size": 56, "fullatt_block_indexes": [0, 3], "depth": 4}}, "seed": 4,
    },
    "other sizes": {
        "overrides": {
            "multi_vector_projector_dim": 32, "matryoshka_dims": [16, 96], "task_names": ["retrieval", "code"],
            "text_config": {
                "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 160,
                "num_hidden_layers": 2, "vocab_size": 2300, "rope_theta": 5e5, "rms_norm_eps": 1e-5,
                "rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [4, 2, 2]},
            },
            "vision_config": {"hidden_size": 48, "num_heads": 3, "intermediate_size": 80, "out_hidden_size": 96},
        },
        "seed": 5,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", V4_VARIANTS)
def test_other_v4_checkpoints_agree_with_the_published_way(name, published, tmp_path):
    folder = make_checkpoint("v4", "tiny", tmp_path / "v4", **V4_VARIANTS[name])
    ours, theirs = load("v4", folder), published.PublishedV4(folder)
    np.testing.assert_allclose(ours.encode_query(TEXTS).single, theirs.encode_text(TEXTS), atol=1e-4)
    done = ours.encode_document(TEXTS).multi
    for row, expected in zip(done, theirs.encode_text(TEXTS, prompt_name="passage", multi=True), strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-4)
    images = [IMAGES / "photo_320x240.png", IMAGES / "tall_150x420.png"]
    done = ours.encode_document(images)
    np.testing.assert_allclose(done.single, theirs.encode_image(images), atol=1e-4)
    for row, expected in zip(done.multi, theirs.encode_image(images, multi=True), strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-4)
    code = load("v4", folder, task="code")
    np.testing.assert_allclose(code.encode_query(TEXTS).single, theirs.encode_text(TEXTS, task="code"), atol=1e-4)


def test_transparency_is_dropped_as_published(published, tiny, tmp_path):
    """An alpha channel, and a palette with a transparent colour, which Pillow remembers after converting."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    palette = Image.fromarray(pixels[..., :3]).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=3)
    images = [tmp_path / "alpha.png", tmp_path / "palette.png"]
    expected = published.PublishedV4(Path(tiny["v4"])).encode_image(images)
    np.testing.assert_allclose(load("v4", tiny["v4"]).encode_document(images).single, expected, atol=1e-4)
    pairs = [("q", image) for image in images]
    raw = published.PublishedM0(Path(tiny["m0"])).compute_score(pairs, doc_type="image", raw=True)
    np.testing.assert_allclose(load("m0", tiny["m0"]).score_pairs(pairs, raw=True), raw, atol=3e-4)


M0_VARIANTS = {
    "as published": {},
    "sharded, new key layout": {"shards": 2, "layout": "new", "seed": 1},
    "other sizes": {
        "overrides": {
            "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 2,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "vocab_size": 2200,
            "vision_config": {"hidden_size": 96, "embed_dim": 48, "num_heads": 3, "depth": 3, "mlp_ratio": 2},
        },
        "seed": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", M0_VARIANTS)
def test_other_m0_checkpoints_agree_with_the_published_way(name, published, tmp_path):
    folder = make_checkpoint("m0", "tiny", tmp_path / "m0", **M0_VARIANTS[name])
    ours, theirs = load("m0", folder), published.PublishedM0(folder)
    pairs = [(TEXTS[0], text) for text in TEXTS]
    np.testing.assert_allclose(ours.score_pairs(pairs, raw=True), theirs.compute_score(pairs, raw=True), atol=3e-4)
    pairs = [(TEXTS[0], IMAGES / "photo_320x240.png"), (TEXTS[1], IMAGES / "tiny_30x30.png")]
    expected = theirs.compute_score(pairs, doc_type="image", raw=True)
    np.testing.assert_allclose(ours.score_pairs(pairs, raw=True), expected, atol=3e-4)


@pytest.mark.parametrize(
    "overrides",
    [{}, {"rotary_emb_base": 20000.0}, {"hidden_size": 96, "num_attention_heads": 6, "num_hidden_layers": 2}],
)
def test_other_colbert_checkpoints_agree_with_the_formula(overrides, tmp_path):
    """Against the encoder written down in NumPy, with what config.json states."""
    folder = make_checkpoint("colbert-v2", path=tmp_path / "c", overrides=overrides, shards=2 if overrides else 1)
    model = load("colbert-v2", folder, skiplist="none")
    config = json.loads((folder / "config.json").read_text())
    weights = {k: v.float().numpy() for p in folder.glob("*.safetensors") for k, v in load_file(p).items()}
    for text, rows in zip(TEXTS, model.encode_document(TEXTS).multi, strict=True):
        ids = [0, model._tokenizer.special("[DocumentMarker]"), *model._tokenizer.encode(text), 2]
        np.testing.assert_allclose(rows, _xlm_rotary(ids, weights, config), atol=1e-4)


def _xlm_rotary(ids, w, config):
    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return (
            x / np.sqrt((x**2).mean(-1, keepdims=True) + config["layer_norm_eps"]) * w[f"{name}.weight"]
            + w[f"{name}.bias"]
        )

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    heads = config["num_attention_heads"]
    dim = config["hidden_size"] // heads
    angles = np.outer(np.arange(len(ids)), config["rotary_emb_base"] ** (-np.arange(0, dim, 2) / dim))
    turn = np.exp(1j * angles)

    def rotate(x):
        turned = (x[..., : dim // 2] + 1j * x[..., dim // 2 :]) * turn
        return np.concatenate([turned.real, turned.imag], axis=-1)

    embeddings = (
        w["roberta.embeddings.word_embeddings.weight"][ids] + w["roberta.embeddings.token_type_embeddings.weight"][0]
    )
    x = norm(embeddings, "roberta.emb_ln")
    for i in range(config["num_hidden_layers"]):
        at = f"roberta.encoder.layers.{i}"
        q, k, v = linear(x, f"{at}.mixer.Wqkv").reshape(len(ids), 3, heads, dim).transpose(1, 2, 0, 3)
        scores = rotate(q) @ rotate(k).transpose(0, 2, 1) / np.sqrt(dim)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (share / share.sum(-1, keepdims=True)) @ v
        x = norm(x + linear(mixed.transpose(1, 0, 2).reshape(len(ids), -1), f"{at}.mixer.out_proj"), f"{at}.norm1")
        inner = linear(x, f"{at}.mlp.fc1")
        inner = torch.nn.functional.gelu(torch.from_numpy(inner)).numpy()
        x = norm(x + linear(inner, f"{at}.mlp.fc2"), f"{at}.norm2")
    rows = x @ w["linear.weight"].T
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "overrides",
    [
        {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True},
        {"d_model": 96, "num_heads": 6, "num_layers": 2, "relative_attention_num_buckets": 16},
    ],
)
def test_other_v1_checkpoints_agree_with_stock_t5(overrides, tmp_path):
    from transformers import T5EncoderModel

    folder = make_checkpoint("v1", path=tmp_path / "v1", overrides=overrides)
    model = load("v1", folder)
    stock = T5EncoderModel.from_pretrained(str(folder)).eval()
    for text, row in zip(TEXTS, model.encode_query(TEXTS, raw=True).single, strict=True):
        ids = torch.tensor([[*model._tokenizer.encode(text), 1]])
        with torch.inference_mode():
            expected = stock(input_ids=ids).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-4)


# -- what must not load -----------------------------------------------------------------------------------------


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of a tiny checkpoint that may be broken, and a way to change its tensors."""

    def make(family, change=None, file="model.safetensors"):
        folder = tmp_path / family
        shutil.copytree(tiny[family], folder)
        if change is not None:
            tensors = load_file(folder / file)
            change(tensors)
            save_file(tensors, folder / file)
        return folder

    return make


KEYS = {
    "v4": "model.layers.1.mlp.up_proj.weight",
    "m0": "score.2.weight",
    "colbert-v2": "roberta.encoder.layers.2.mixer.Wqkv.bias",
    "v1": "encoder.block.2.layer.0.SelfAttention.q.weight",
}


@pytest.mark.parametrize("family", KEYS)
def test_a_renamed_key_is_refused(copy, family):
    key = KEYS[family]
    folder = copy(family, lambda tensors: tensors.__setitem__(f"{key}x", tensors.pop(key)))
    with pytest.raises(CheckpointError, match="lacks .*has '" + key.replace(".", r"\.") + "x'"):
        load(family, folder)


@pytest.mark.parametrize("family", KEYS)
def test_a_dropped_key_is_refused_and_named(copy, family):
    key = KEYS[family]
    folder = copy(family, lambda tensors: tensors.pop(key))
    with pytest.raises(CheckpointError, match=key.split(".", 1)[1].replace(".", r"\.")):
        load(family, folder)


@pytest.mark.parametrize("family", KEYS)
def test_a_wrong_shape_is_refused_with_both_numbers(copy, family):
    key = KEYS[family]
    folder = copy(family, lambda tensors: tensors.__setitem__(key, torch.cat([tensors[key]] * 2)))
    with pytest.raises(CheckpointError, match=rf"'{key}' has the shape \(.*but the config asks for \("):
        load(family, folder)


@pytest.mark.parametrize("family", KEYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(copy, family, value):
    key = KEYS[family]
    folder = copy(family, lambda tensors: tensors[key].view(-1)[3:4].fill_(value))
    with pytest.raises(CheckpointError, match=f"'{key}' holds NaN or infinite"):
        load(family, folder)


@pytest.mark.parametrize("family", KEYS)
def test_an_unexpected_key_is_refused_unless_allowed(copy, family):
    folder = copy(family, lambda tensors: tensors.__setitem__("extra.weight", torch.zeros(2)))
    with pytest.raises(CheckpointError, match=r"'extra\.weight'.*allow_unexpected=True"):
        load(family, folder)
    load(family, folder, allow_unexpected=True)


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("v4", "lm_head.weight"), ("m0", "lm_head.weight"), ("colbert-v2", "roberta.pooler.dense.extra"),
        ("v1", "encoder.embed_tokens.weight"), ("v1", "decoder.block.0.layer.0.SelfAttention.q.weight"),
    ],
)  # fmt: skip
def test_keys_that_are_known_to_be_unused_pass(copy, family, key):
    load(family, copy(family, lambda tensors: tensors.__setitem__(key, torch.zeros(2, 2))))


@pytest.mark.parametrize("family", KEYS)
@pytest.mark.parametrize("keep", [4, 1000, -1000])
def test_a_file_that_was_cut_off_is_refused(copy, family, keep):
    folder = copy(family)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*damaged or cut off"):
        load(family, folder)


def _zero(tensors, task, part="lora_B"):
    for key, value in tensors.items():
        if f"{part}.{task}" in key:
            value.zero_()


ADAPTERS = "adapters/adapter_model.safetensors"


def test_an_adapter_of_zeros_is_refused(copy):
    folder = copy("v4", lambda tensors: _zero(tensors, "code"), ADAPTERS)
    with pytest.raises(CheckpointError, match="task 'code' are zero"):
        load("v4", folder, task="code")
    with pytest.raises(CheckpointError, match="task 'code' are zero"):
        load("v4", folder, task=["retrieval", "code"])
    load("v4", folder, task="retrieval")  # its own adapter is whole


def _first(tensors):
    return next(key for key in sorted(tensors) if ".retrieval." in key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(_first(t)), "lacks"),
        (lambda t: t.__setitem__(_first(t).replace("layers.0", "layers.9"), t.pop(_first(t))), "no adapter there"),
        (lambda t: t.__setitem__(_first(t), t[_first(t)][:, :3].contiguous()), "has the shape"),
        (lambda t: t[_first(t)].view(-1)[:1].fill_(float("nan")), "NaN or infinite"),
        (lambda t: t.__setitem__("nonsense", t[_first(t)].clone()), "no LoRA matrix"),
        (lambda t: [t.pop(k) for k in list(t) if ".retrieval." in k], "no task 'retrieval'"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(copy, change, message):
    with pytest.raises(CheckpointError, match=message):
        load("v4", copy("v4", change, ADAPTERS))


def test_adapters_in_the_older_key_layout_load_alike(copy, tiny):
    def older(tensors):
        for key in list(tensors):
            tensors[key.replace(".language_model.layers", ".layers")] = tensors.pop(key)

    folder = copy("v4", older, ADAPTERS)
    expected = load("v4", tiny["v4"]).encode_query(TEXTS).single
    np.testing.assert_allclose(load("v4", folder).encode_query(TEXTS).single, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("v4", "config.json", "no config.json"),
        ("v4", "model.safetensors", "no model.safetensors"),
        ("v4", "tokenizer.json", "tokenizer"),
        ("v4", "adapters/adapter_config.json", "no adapter_config.json"),
        ("v4", ADAPTERS, "no adapter_model.safetensors"),
        ("colbert-v2", "tokenizer.json", "tokenizer"),
    ],
)
def test_a_missing_file_is_named(copy, family, name, message):
    folder = copy(family)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        load(family, folder)


def test_a_missing_shard_is_named(tmp_path):
    folder = make_checkpoint("m0", path=tmp_path / "m0", shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks the shard model-00002-of-00002"):
        load("m0", folder)


def test_an_index_cannot_name_files_elsewhere(tmp_path):
    folder = make_checkpoint("m0", path=tmp_path / "m0", shards=2)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002", "../model-00002"))
    with pytest.raises(CheckpointError, match="not beside it"):
        load("m0", folder)


def test_pickles_are_not_read(copy):
    folder = copy("v1")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"\.bin files only.*run code"):
        load("v1", folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "adapters/adapter_config.json"])
def test_json_that_is_none_is_refused(copy, name):
    folder = copy("v4")
    (folder / name).write_text("{")
    with pytest.raises(CheckpointError, match=name.rsplit("/", 1)[-1].replace(".", r"\.")):
        load("v4", folder)


def test_a_v1_that_pools_otherwise_is_refused(copy):
    folder = copy("v1")
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )
    with pytest.raises(CheckpointError, match="does not pool by the mean"):
        load("v1", folder)


def test_families_are_told_by_their_configs(tiny, tmp_path):
    for family, folder in tiny.items():
        assert open_checkpoint(Path(folder), name="x").family == family
        config = json.loads((Path(folder) / "config.json").read_text())
        if family != "m0":
            assert family_of({k: v for k, v in config.items() if k != "architectures"}, tmp_path) == family
    with pytest.raises(CheckpointError, match="of a kind that is not run here"):
        family_of({"architectures": ["BertModel"], "model_type": "bert"}, tmp_path)
    with pytest.raises(ModelNotFoundError, match="no checkpoint folder"):
        open_checkpoint(tmp_path / "none", name="x")


def test_the_wrong_loader_says_which_is_right(tiny):
    with pytest.raises(InvalidInputError, match="is a reranker: load it with load_reranker"):
        load_embedder(tiny["m0"])
    for family in ("v4", "colbert-v2", "v1"):
        with pytest.raises(InvalidInputError, match="is an embedder: load it with load_embedder"):
            load_reranker(tiny[family])
    # For a known name it is said before anything is downloaded.
    with pytest.raises(InvalidInputError, match="load_reranker"):
        load_embedder("jinaai/jina-reranker-m0")


def test_fingerprints_tell_checkpoints_tasks_and_resolutions_apart(tiny, tmp_path):
    found = {
        load("v4", tiny["v4"]).fingerprint,
        load("v4", tiny["v4"], task="code").fingerprint,
        load("v4", tiny["v4"], max_pixels=50176).fingerprint,
        # The same shapes, other values: a fine-tuned model.
        load("v4", make_checkpoint("v4", path=tmp_path / "a" / "v4", seed=11)).fingerprint,
        load("v4", make_checkpoint("v4", path=tmp_path / "b" / "v4", seed=12)).fingerprint,
    }
    assert len(found) == 5
    assert load("v4", tiny["v4"]).fingerprint in found
    moved = shutil.copytree(tiny["v4"], tmp_path / "elsewhere" / "another-name")
    assert load("v4", moved).fingerprint in found
    assert len({load("colbert-v2", tiny["colbert-v2"], skiplist=s).fingerprint for s in ("pylate", "none")}) == 2


def changed(folder, path, change):
    """A copy of a checkpoint with another config, or with one of its weights' bytes flipped."""
    copy = shutil.copytree(folder, path)
    if isinstance(change, dict):
        config = json.loads((copy / "config.json").read_text())
        for part in (config, *(value for value in config.values() if isinstance(value, dict))):
            part.update(change)
        (copy / "config.json").write_text(json.dumps(config, indent=1))
    else:
        content = bytearray((copy / "model.safetensors").read_bytes())
        content[change] ^= 1
        (copy / "model.safetensors").write_bytes(content)
    return copy


@pytest.mark.parametrize("family", ["v4", "colbert-v2"])
def test_a_fingerprint_sees_the_weights_to_their_ends(tiny, tmp_path, family):
    folder = Path(tiny[family])
    header = int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
    copies = [changed(folder, tmp_path / str(at), at) for at in (-1, 8 + header)]
    assert len({folder_fingerprint(path) for path in (folder, *copies)}) == 3


def test_a_fingerprint_of_a_file_smaller_than_a_sample(tmp_path):
    for name, content in (("a", b"12345"), ("b", b"12346")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}" + content)
    assert folder_fingerprint(tmp_path / "a") != folder_fingerprint(tmp_path / "b")


@pytest.mark.parametrize("family", ["v4", "colbert-v2", "v1"])
def test_what_a_config_says_of_its_files_is_not_of_the_vectors(tiny, tmp_path, family):
    change = {"_name_or_path": "elsewhere", "transformers_version": "9.9", "torch_dtype": "float16"}
    copy = changed(tiny[family], tmp_path / "copy", change)
    assert folder_fingerprint(copy) == folder_fingerprint(Path(tiny[family]))
    models = [load(family, folder) for folder in (tiny[family], copy)]
    first, second = (model.encode_query(["a text"]).single for model in models)
    np.testing.assert_array_equal(first, second)
    assert models[0].fingerprint == models[1].fingerprint
    other = changed(tiny[family], tmp_path / "other", {"some_size": 3})
    assert folder_fingerprint(other) != folder_fingerprint(copy)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell what memory is private")
def test_weights_are_mapped_and_not_copied(tmp_path):
    """In the stored dtype on the CPU, parameters are views of the file: its pages are shared, not copied."""
    folder = make_checkpoint("m0", "mid", tmp_path / "m0")
    size = (folder / "model.safetensors").stat().st_size

    def private() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    before = private()
    model = load_reranker(folder, device="cpu", dtype="bfloat16")
    assert private() - before < size / 3
    assert np.isfinite(model.score("a", ["b"], raw=True)).all()
