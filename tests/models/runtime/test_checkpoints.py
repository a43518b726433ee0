"""Checkpoint loading: supported sizes and layouts, and errors for damaged or unsupported checkpoints."""

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
    """The module benchmarks/published.py, which runs the published code and reproduces the golden values."""
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
def test_v4_variants_match_published_code(name, published, tmp_path):
    folder = make_checkpoint("v4", "tiny", tmp_path / "v4", **V4_VARIANTS[name])
    ours, theirs = load("v4", folder), published.PublishedV4(folder)
    np.testing.assert_allclose(ours.encode_query(TEXTS).single, theirs.encode_text(TEXTS), atol=1e-4)
    embeddings = ours.encode_document(TEXTS).multi
    for row, expected in zip(embeddings, theirs.encode_text(TEXTS, prompt_name="passage", multi=True), strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-4)
    images = [IMAGES / "photo_320x240.png", IMAGES / "tall_150x420.png"]
    embeddings = ours.encode_document(images)
    np.testing.assert_allclose(embeddings.single, theirs.encode_image(images), atol=1e-4)
    for row, expected in zip(embeddings.multi, theirs.encode_image(images, multi=True), strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-4)
    code = load("v4", folder, task="code")
    np.testing.assert_allclose(code.encode_query(TEXTS).single, theirs.encode_text(TEXTS, task="code"), atol=1e-4)


def test_transparency_is_dropped_as_in_published_code(published, tiny, tmp_path):
    """Alpha channels are dropped, and also transparent palette colors, which Pillow keeps on conversion."""
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
def test_m0_variants_match_published_code(name, published, tmp_path):
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
def test_colbert_variants_match_numpy_reference(overrides, tmp_path):
    """Compare with a NumPy implementation of the encoder, for the settings in config.json."""
    folder = make_checkpoint("colbert-v2", path=tmp_path / "c", overrides=overrides, shards=2 if overrides else 1)
    model = load("colbert-v2", folder, skiplist="none")
    config = json.loads((folder / "config.json").read_text())
    weights = {k: v.float().numpy() for p in folder.glob("*.safetensors") for k, v in load_file(p).items()}
    for text, rows in zip(TEXTS, model.encode_document(TEXTS).multi, strict=True):
        ids = [0, model._tokenizer.special("[DocumentMarker]"), *model._tokenizer.encode(text), 2]
        np.testing.assert_allclose(rows, _reference_rows(ids, weights, config), atol=1e-4)


def _reference_rows(ids, w, config):
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
    rotation = np.exp(1j * angles)

    def rotate(x):
        rotated = (x[..., : dim // 2] + 1j * x[..., dim // 2 :]) * rotation
        return np.concatenate([rotated.real, rotated.imag], axis=-1)

    embeddings = (
        w["roberta.embeddings.word_embeddings.weight"][ids] + w["roberta.embeddings.token_type_embeddings.weight"][0]
    )
    x = norm(embeddings, "roberta.emb_ln")
    for i in range(config["num_hidden_layers"]):
        layer = f"roberta.encoder.layers.{i}"
        q, k, v = linear(x, f"{layer}.mixer.Wqkv").reshape(len(ids), 3, heads, dim).transpose(1, 2, 0, 3)
        scores = rotate(q) @ rotate(k).transpose(0, 2, 1) / np.sqrt(dim)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        attention = (weights / weights.sum(-1, keepdims=True)) @ v
        x = norm(
            x + linear(attention.transpose(1, 0, 2).reshape(len(ids), -1), f"{layer}.mixer.out_proj"), f"{layer}.norm1"
        )
        inner = linear(x, f"{layer}.mlp.fc1")
        inner = torch.nn.functional.gelu(torch.from_numpy(inner)).numpy()
        x = norm(x + linear(inner, f"{layer}.mlp.fc2"), f"{layer}.norm2")
    rows = x @ w["linear.weight"].T
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "overrides",
    [
        {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True},
        {"d_model": 96, "num_heads": 6, "num_layers": 2, "relative_attention_num_buckets": 16},
    ],
)
def test_v1_variants_match_stock_t5(overrides, tmp_path):
    from transformers import T5EncoderModel

    folder = make_checkpoint("v1", path=tmp_path / "v1", overrides=overrides)
    model = load("v1", folder)
    stock = T5EncoderModel.from_pretrained(str(folder)).eval()
    for text, row in zip(TEXTS, model.encode_query(TEXTS, raw=True).single, strict=True):
        ids = torch.tensor([[*model._tokenizer.encode(text), 1]])
        with torch.inference_mode():
            expected = stock(input_ids=ids).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-4)


# Damaged and unsupported checkpoints


@pytest.fixture
def copy_checkpoint(tiny, tmp_path):
    """Return a function that copies a tiny checkpoint and changes tensors of the copy."""

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
def test_renamed_key_raises_checkpoint_error(copy_checkpoint, family):
    key = KEYS[family]
    folder = copy_checkpoint(family, lambda tensors: tensors.__setitem__(f"{key}x", tensors.pop(key)))
    with pytest.raises(CheckpointError, match="lacks .*contains '" + key.replace(".", r"\.") + "x'"):
        load(family, folder)


@pytest.mark.parametrize("family", KEYS)
def test_missing_key_error_names_key(copy_checkpoint, family):
    key = KEYS[family]
    folder = copy_checkpoint(family, lambda tensors: tensors.pop(key))
    with pytest.raises(CheckpointError, match=key.split(".", 1)[1].replace(".", r"\.")):
        load(family, folder)


@pytest.mark.parametrize("family", KEYS)
def test_wrong_shape_error_names_both_shapes(copy_checkpoint, family):
    key = KEYS[family]
    folder = copy_checkpoint(family, lambda tensors: tensors.__setitem__(key, torch.cat([tensors[key]] * 2)))
    with pytest.raises(CheckpointError, match=rf"'{key}' in .* has shape \(.*the config requires \("):
        load(family, folder)


@pytest.mark.parametrize("family", KEYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_infinite_weights_raise_checkpoint_error(copy_checkpoint, family, value):
    key = KEYS[family]
    folder = copy_checkpoint(family, lambda tensors: tensors[key].view(-1)[3:4].fill_(value))
    with pytest.raises(CheckpointError, match=f"'{key}' in .* contains NaN or infinity"):
        load(family, folder)


@pytest.mark.parametrize("family", KEYS)
def test_unexpected_key_requires_allow_unexpected(copy_checkpoint, family):
    folder = copy_checkpoint(family, lambda tensors: tensors.__setitem__("extra.weight", torch.zeros(2)))
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
def test_known_unused_keys_are_ignored(copy_checkpoint, family, key):
    load(family, copy_checkpoint(family, lambda tensors: tensors.__setitem__(key, torch.zeros(2, 2))))


@pytest.mark.parametrize("family", KEYS)
@pytest.mark.parametrize("keep", [4, 1000, -1000])
def test_truncated_weight_file_raises_checkpoint_error(copy_checkpoint, family, keep):
    folder = copy_checkpoint(family)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*damaged or truncated"):
        load(family, folder)


def _zero_matrices(tensors, task, part="lora_B"):
    for key, value in tensors.items():
        if f"{part}.{task}" in key:
            value.zero_()


ADAPTERS = "adapters/adapter_model.safetensors"


def test_zero_adapter_raises_checkpoint_error(copy_checkpoint):
    folder = copy_checkpoint("v4", lambda tensors: _zero_matrices(tensors, "code"), ADAPTERS)
    with pytest.raises(CheckpointError, match="task 'code' are zero"):
        load("v4", folder, task="code")
    with pytest.raises(CheckpointError, match="task 'code' are zero"):
        load("v4", folder, task=["retrieval", "code"])
    load("v4", folder, task="retrieval")  # the adapter of this task is valid


def _first_matrix_key(tensors):
    return next(key for key in sorted(tensors) if ".retrieval." in key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(_first_matrix_key(t)), "lacks"),
        (
            lambda t: t.__setitem__(_first_matrix_key(t).replace("layers.0", "layers.9"), t.pop(_first_matrix_key(t))),
            "does not define",
        ),
        (lambda t: t.__setitem__(_first_matrix_key(t), t[_first_matrix_key(t)][:, :3].contiguous()), "has shape"),
        (lambda t: t[_first_matrix_key(t)].view(-1)[:1].fill_(float("nan")), "NaN or infinity"),
        (lambda t: t.__setitem__("nonsense", t[_first_matrix_key(t)].clone()), "not a LoRA matrix"),
        (lambda t: [t.pop(k) for k in list(t) if ".retrieval." in k], "no adapter for the task 'retrieval'"),
    ],
)
def test_invalid_adapter_matrices_raise_checkpoint_error(copy_checkpoint, change, message):
    with pytest.raises(CheckpointError, match=message):
        load("v4", copy_checkpoint("v4", change, ADAPTERS))


def test_older_adapter_key_layout_gives_same_vectors(copy_checkpoint, tiny):
    def rename_keys(tensors):
        for key in list(tensors):
            tensors[key.replace(".language_model.layers", ".layers")] = tensors.pop(key)

    folder = copy_checkpoint("v4", rename_keys, ADAPTERS)
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
def test_missing_checkpoint_file_is_named(copy_checkpoint, family, name, message):
    folder = copy_checkpoint(family)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        load(family, folder)


def test_missing_shard_is_named(tmp_path):
    folder = make_checkpoint("m0", path=tmp_path / "m0", shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks the shard model-00002-of-00002"):
        load("m0", folder)


def test_shard_outside_checkpoint_folder_is_refused(tmp_path):
    folder = make_checkpoint("m0", path=tmp_path / "m0", shards=2)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002", "../model-00002"))
    with pytest.raises(CheckpointError, match="expected a file name"):
        load("m0", folder)


def test_pickle_weights_are_refused(copy_checkpoint):
    folder = copy_checkpoint("v1")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"only \.bin weight files.*execute code"):
        load("v1", folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "adapters/adapter_config.json"])
def test_invalid_json_raises_checkpoint_error(copy_checkpoint, name):
    folder = copy_checkpoint("v4")
    (folder / name).write_text("{")
    with pytest.raises(CheckpointError, match=name.rsplit("/", 1)[-1].replace(".", r"\.")):
        load("v4", folder)


def test_v1_without_mean_pooling_is_refused(copy_checkpoint):
    folder = copy_checkpoint("v1")
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )
    with pytest.raises(CheckpointError, match="does not use mean pooling"):
        load("v1", folder)


def test_family_is_detected_from_config(tiny, tmp_path):
    for family, folder in tiny.items():
        assert open_checkpoint(Path(folder), name="x").family == family
        config = json.loads((Path(folder) / "config.json").read_text())
        if family != "m0":
            assert family_of({k: v for k, v in config.items() if k != "architectures"}, tmp_path) == family
    with pytest.raises(CheckpointError, match="is not supported"):
        family_of({"architectures": ["BertModel"], "model_type": "bert"}, tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"checkpoint folder .* does not exist"):
        open_checkpoint(tmp_path / "none", name="x")


def test_wrong_loader_error_names_right_loader(tiny):
    with pytest.raises(InvalidInputError, match=r"is a reranker\. Load the model with load_reranker"):
        load_embedder(tiny["m0"])
    for family in ("v4", "colbert-v2", "v1"):
        with pytest.raises(InvalidInputError, match=r"is an embedder\. Load the model with load_embedder"):
            load_reranker(tiny[family])
    # For a model of the catalogue, the error precedes the download.
    with pytest.raises(InvalidInputError, match="load_reranker"):
        load_embedder("jinaai/jina-reranker-m0")


def test_fingerprints_differ_by_checkpoint_task_and_resolution(tiny, tmp_path):
    fingerprints = {
        load("v4", tiny["v4"]).fingerprint,
        load("v4", tiny["v4"], task="code").fingerprint,
        load("v4", tiny["v4"], max_pixels=50176).fingerprint,
        # Equal shapes and different values, as in a fine-tuned model.
        load("v4", make_checkpoint("v4", path=tmp_path / "a" / "v4", seed=11)).fingerprint,
        load("v4", make_checkpoint("v4", path=tmp_path / "b" / "v4", seed=12)).fingerprint,
    }
    assert len(fingerprints) == 5
    assert load("v4", tiny["v4"]).fingerprint in fingerprints
    copied_folder = shutil.copytree(tiny["v4"], tmp_path / "elsewhere" / "another-name")
    assert load("v4", copied_folder).fingerprint in fingerprints
    assert len({load("colbert-v2", tiny["colbert-v2"], skiplist=s).fingerprint for s in ("pylate", "none")}) == 2


def copy_with_change(folder, path, change):
    """Copy a checkpoint and update the config (a dict), or flip one bit at a position of the weights (an int)."""
    target = shutil.copytree(folder, path)
    if isinstance(change, dict):
        config = json.loads((target / "config.json").read_text())
        for part in (config, *(value for value in config.values() if isinstance(value, dict))):
            part.update(change)
        (target / "config.json").write_text(json.dumps(config, indent=1))
    else:
        content = bytearray((target / "model.safetensors").read_bytes())
        content[change] ^= 1
        (target / "model.safetensors").write_bytes(content)
    return target


@pytest.mark.parametrize("family", ["v4", "colbert-v2"])
def test_fingerprint_covers_first_and_last_weight_bytes(tiny, tmp_path, family):
    folder = Path(tiny[family])
    header = int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
    changed_copies = [copy_with_change(folder, tmp_path / str(at), at) for at in (-1, 8 + header)]
    assert len({folder_fingerprint(path) for path in (folder, *changed_copies)}) == 3


def test_fingerprint_covers_file_smaller_than_one_block(tmp_path):
    for name, content in (("a", b"12345"), ("b", b"12346")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}" + content)
    assert folder_fingerprint(tmp_path / "a") != folder_fingerprint(tmp_path / "b")


@pytest.mark.parametrize("family", ["v4", "colbert-v2", "v1"])
def test_fingerprint_ignores_config_keys_unrelated_to_vectors(tiny, tmp_path, family):
    change = {"_name_or_path": "elsewhere", "transformers_version": "9.9", "torch_dtype": "float16"}
    target = copy_with_change(tiny[family], tmp_path / "copy", change)
    assert folder_fingerprint(target) == folder_fingerprint(Path(tiny[family]))
    models = [load(family, folder) for folder in (tiny[family], target)]
    first, second = (model.encode_query(["a text"]).single for model in models)
    np.testing.assert_array_equal(first, second)
    assert models[0].fingerprint == models[1].fingerprint
    other = copy_with_change(tiny[family], tmp_path / "other", {"some_size": 3})
    assert folder_fingerprint(other) != folder_fingerprint(target)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="private memory is not reported on this system")
def test_weights_are_memory_mapped_not_copied(tmp_path):
    """In the stored dtype on the CPU, parameters are views of the memory-mapped file."""
    folder = make_checkpoint("m0", "mid", tmp_path / "m0")
    size = (folder / "model.safetensors").stat().st_size

    def private_bytes() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    before = private_bytes()
    model = load_reranker(folder, device="cpu", dtype="bfloat16")
    assert private_bytes() - before < size / 3
    assert np.isfinite(model.score("a", ["b"], raw=True)).all()
