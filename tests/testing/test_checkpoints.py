"""Random checkpoints: files, tensor names, shapes and options of `make_checkpoint`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jina_rag.errors import InvalidInputError
from jina_rag.models.factory import LoadOptions, build
from jina_rag.models.runtime.checkpoints import open_checkpoint
from jina_rag.models.tiny_checkpoints import TINY_FAMILIES, tiny_archive, unpack_tiny
from jina_rag.testing import make_checkpoint, random_checkpoint
from jina_rag.testing.checkpoint_shapes import adapter_shapes, config_of, shapes_of

TASKS = ("retrieval", "text-matching", "code")


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Return all tensors below a folder as float32, adapters included."""
    pytest.importorskip("torch")
    arrays = {}
    for path in sorted(folder.rglob("*.safetensors")):
        with pytest.importorskip("safetensors").safe_open(path, framework="pt") as file:
            arrays |= {key: file.get_tensor(key).float().numpy() for key in file.keys()}  # not iterable
    return arrays


def tensor_headers(folder: Path) -> dict[str, tuple[list[int], str]]:
    """Return shape and dtype of all tensors below a folder, from the file headers."""
    shapes = {}
    for path in sorted(folder.rglob("*.safetensors")):
        raw = path.read_bytes()
        entries = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        shapes |= {key: (value["shape"], value["dtype"]) for key, value in entries.items() if key != "__metadata__"}
    return shapes


def config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def tiny_config(family: str) -> dict:
    with zipfile.ZipFile(tiny_archive(family)) as archive:
        return json.loads(archive.read("config.json"))


def make_checkpoint_or_skip(*arguments, **options) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from jina_rag.testing import make_checkpoint

    return make_checkpoint(*arguments, **options)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_tiny_checkpoint_matches_packaged_checkpoint(family, tmp_path):
    packaged, created = (
        unpack_tiny(family, tmp_path / "packaged"),
        make_checkpoint_or_skip(family, "tiny", tmp_path / "made"),
    )
    names = [{path.relative_to(root).as_posix() for path in root.rglob("*")} for root in (packaged, created)]
    assert names[0] == names[1]
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names[1]
    assert tensor_headers(created) == tensor_headers(packaged)
    assert config(created) == config(packaged)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_equal_seeds_give_equal_weights(family, tmp_path):
    first, second, other = (
        tensors(make_checkpoint_or_skip(family, path=tmp_path / name, seed=seed))
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])
        assert np.isfinite(value).all()
        assert not np.array_equal(value, other[key]), key


def test_norm_weights_are_near_one_and_biases_small(tmp_path):
    weights = tensors(make_checkpoint_or_skip("m0", path=tmp_path / "m0"))
    assert abs(weights["model.norm.weight"].mean() - 1) < 0.1
    assert abs(weights["visual.blocks.0.norm1.weight"].mean() - 1) < 0.1
    assert np.abs(weights["visual.blocks.0.attn.qkv.bias"]).max() < 0.2
    assert np.abs(weights["model.layers.0.self_attn.q_proj.bias"]).max() < 0.2


def test_each_task_has_adapters_smaller_than_base_weights(tmp_path):
    weights = tensors(make_checkpoint_or_skip("v4", path=tmp_path / "v4"))
    prefix = "base_model.model.model.language_model.layers.1.mlp.up_proj.lora_"
    weight = weights["model.layers.1.mlp.up_proj.weight"]
    for task in TASKS:
        a, b = weights[f"{prefix}A.{task}.weight"], weights[f"{prefix}B.{task}.weight"]
        ratio = np.linalg.norm(b @ a) / np.linalg.norm(weight)
        assert 0.1 < ratio < 0.5
        assert weights[f"base_model.model.multi_vector_projector.lora_B.{task}.weight"].any()
    assert not np.array_equal(weights[f"{prefix}A.code.weight"], weights[f"{prefix}A.retrieval.weight"])


def test_rank_and_alpha_of_adapters(tmp_path):
    folder = make_checkpoint_or_skip("v4", path=tmp_path / "v4", rank=3, alpha=7.5)
    written_config = json.loads((folder / "adapters" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (written_config["r"], written_config["lora_alpha"]) == (3, 7.5)
    for key, (shape, _) in tensor_headers(folder / "adapters").items():
        assert shape[0 if ".lora_A." in key else 1] == 3, key
    default_config = json.loads(
        (make_checkpoint_or_skip("v4", path=tmp_path / "u", rank=5) / "adapters" / "adapter_config.json").read_text()
    )
    assert (default_config["r"], default_config["lora_alpha"]) == (5, 5)


@pytest.mark.parametrize(("family", "shards"), [("v4", 2), ("m0", 5), ("colbert-v2", 3), ("v1", 27)])
def test_shards_match_index_file(family, shards, tmp_path):
    folder = make_checkpoint_or_skip(family, path=tmp_path / "sharded", shards=shards)
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert files == [f"model-{i:05}-of-{shards:05}.safetensors" for i in range(1, shards + 1)]
    files_by_key = {}
    for name in files:
        raw = (folder / name).read_bytes()
        entries = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        files_by_key |= dict.fromkeys(set(entries) - {"__metadata__"}, name)
    assert index["weight_map"] == files_by_key
    unsharded_weights = tensors(make_checkpoint_or_skip(family, path=tmp_path / "whole"))
    for key, value in tensors(folder).items():
        np.testing.assert_array_equal(value, unsharded_weights[key], err_msg=key)
    width = 4 if family == "v1" else 2
    assert index["metadata"]["total_size"] == sum(unsharded_weights[key].size for key in files_by_key) * width


@pytest.mark.parametrize("family", ["v4", "m0"])
def test_new_layout_renames_keys_only(family, tmp_path):
    old = tensors(make_checkpoint_or_skip(family, path=tmp_path / "old", tie=False))
    new = tensors(make_checkpoint_or_skip(family, path=tmp_path / "new", layout="new", tie=False))
    assert len(new) == len(old)
    for key, value in old.items():
        new_key = key
        if key.startswith("visual."):
            new_key = f"model.{key}"
        elif key.startswith("model."):
            new_key = f"model.language_model.{key.removeprefix('model.')}"
        np.testing.assert_array_equal(new[new_key], value, err_msg=key)


def test_new_layout_does_not_change_text_families(tmp_path):
    assert tensor_headers(make_checkpoint_or_skip("v1", path=tmp_path / "a", layout="new")) == tensor_headers(
        make_checkpoint_or_skip("v1", path=tmp_path / "b")
    )


def test_tie_false_adds_lm_head(tmp_path):
    for family in ("v4", "m0"):
        folder = make_checkpoint_or_skip(family, path=tmp_path / family, tie=False)
        text = config(folder).get("text_config", config(folder))
        assert text["tie_word_embeddings"] is False
        assert tensor_headers(folder)["lm_head.weight"][0] == [text["vocab_size"], text["hidden_size"]]


@pytest.mark.parametrize(("family", "dtype", "code"), [("v4", "float32", "F32"), ("v1", "float16", "F16")])
def test_dtype_of_weights_and_config(family, dtype, code, tmp_path):
    folder = make_checkpoint_or_skip(family, path=tmp_path / "model", dtype=dtype)
    assert {kind for _, kind in tensor_headers(folder).values()} == {code}
    assert config(folder)["torch_dtype"] == dtype


def test_overrides_change_config_and_shapes(tmp_path):
    overrides = {
        "multi_vector_projector_dim": 32,
        "task_names": ["one", "two"],
        "text_config": {"num_hidden_layers": 1, "vocab_size": 2200},
        "vision_config": {"depth": 2, "window_size": 56, "fullatt_block_indexes": [0]},
    }
    folder = make_checkpoint_or_skip("v4", path=tmp_path / "v4", overrides=overrides)
    shapes, written_config = tensor_headers(folder), config(folder)
    assert shapes["model.embed_tokens.weight"][0] == [2200, 64]
    assert shapes["multi_vector_projector.weight"][0] == [32, 64]
    assert not any(key.startswith(("model.layers.1.", "visual.blocks.2.")) for key in shapes)
    tasks = {key.split(".")[-2] for key in shapes if ".lora_A." in key}
    assert tasks == {"one", "two"}
    assert written_config["vision_config"]["window_size"] == 56
    assert written_config["text_config"]["hidden_size"] == 64
    assert written_config["image_token_id"] == tiny_config("v4")["image_token_id"]


def test_gated_feed_forward_has_two_input_weights(tmp_path):
    overrides = {"feed_forward_proj": "gated-gelu", "num_layers": 2}
    shapes = tensor_headers(make_checkpoint_or_skip("v1", path=tmp_path / "v1", overrides=overrides))
    assert {key.split(".")[-2] for key in shapes if "DenseReluDense" in key} == {"wi_0", "wi_1", "wo"}
    assert sum(key.endswith("SelfAttention.q.weight") for key in shapes) == 2


def test_mid_size_has_proportions_of_published_model():
    for family in ("v4", "m0"):
        tiny = tiny_config(family)
        mid, rank = config_of(family, "mid", tiny)
        full, full_rank = config_of(family, "full", tiny)
        text, vision = mid.get("text_config", mid), mid["vision_config"]
        assert text["hidden_size"] == vision.get("out_hidden_size", vision["hidden_size"]) == 512
        head = text["hidden_size"] // text["num_attention_heads"]
        assert sum(text["rope_scaling"]["mrope_section"]) == head // 2
        assert mid["image_token_id"] == tiny["image_token_id"] < text["vocab_size"]
        assert full["image_token_id"] == tiny["image_token_id"]
        assert rank * 4 == full_rank  # equals the ratio of the hidden sizes
        shapes = shapes_of(family, mid)
        layers = sum(math.prod(s) for key, s in shapes.items() if key.startswith("model.layers.") and len(s) == 2)
        words = math.prod(shapes["model.embed_tokens.weight"])
        assert 0.09 < words / (words + layers) < 0.11
    assert config_of("v4", "mid", tiny_config("v4"))[0]["matryoshka_dims"] == [64, 128, 256, 512]


def test_full_size_has_parameter_count_of_published_model():
    for family, billions in (("v4", 3.755), ("m0", 2.211), ("colbert-v2", 0.558), ("v1", 0.335)):
        full, _ = config_of(family, "full", tiny_config(family))
        numbers = sum(math.prod(shape) for shape in shapes_of(family, full).values())
        assert numbers / 1e9 == pytest.approx(billions, rel=0.005)
    full, rank = config_of("v4", "full", tiny_config("v4"))
    assert rank == 32
    assert len(adapter_shapes(full, rank)) * len(full["task_names"]) == 1518


def test_config_of_does_not_modify_tiny_config():
    tiny = tiny_config("v4")
    expected = json.dumps(tiny)
    config_of("v4", "full", tiny)
    config_of("v4", "mid", tiny)
    assert json.dumps(tiny) == expected


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        (("v3",), {}, "family is 'v3'"),
        (("v4", "huge"), {}, "size is 'huge'"),
        (("v1", "huge"), {}, "size is 'huge'"),
        (("m0",), {"layout": "newest"}, "layout"),
        (("m0",), {"dtype": "int8"}, "dtype"),
        (("m0",), {"shards": 0}, "shards"),
        (("m0",), {"shards": 1000}, "shards"),
        (("v4",), {"rank": 0}, "rank"),
    ],
)
def test_invalid_argument_raises_error_and_writes_no_file(arguments, options, match, tmp_path):
    with pytest.raises(InvalidInputError, match=match):
        make_checkpoint_or_skip(*arguments, path=tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_non_empty_folder_raises_error_and_is_unchanged(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for target in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InvalidInputError, match="empty folder"):
            make_checkpoint_or_skip("v1", path=target)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_default_path_is_new_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first, second = make_checkpoint_or_skip("colbert-v2"), make_checkpoint_or_skip("colbert-v2")
    assert first != second
    assert first.parent == second.parent == tmp_path


def test_unpack_tiny_of_unknown_family_raises_invalid_input_error(tmp_path):
    with pytest.raises(InvalidInputError, match="v4, m0, colbert-v2, v1"):
        unpack_tiny("v3", tmp_path)


def test_packaged_checkpoints_are_small_with_expected_outputs():
    assert sum(tiny_archive(family).stat().st_size for family in TINY_FAMILIES) < 3_000_000
    for family in TINY_FAMILIES:
        with zipfile.ZipFile(tiny_archive(family)) as archive:
            spec = json.loads(archive.read("expected.json"))
            with archive.open("expected.npz") as file, np.load(file, allow_pickle=False) as arrays:
                keys = {key.split("/")[0] for key in arrays.files}
                assert all(arrays[key].dtype == np.float32 for key in arrays.files)
            assert {check["key"] for check in spec["checks"]} == keys
            inputs = [item for check in spec["checks"] for item in [*check.get("inputs", []), *_pair_inputs(check)]]
            images = {item["image"] for item in inputs if not isinstance(item, str)}
            assert images == {n.removeprefix("images/") for n in archive.namelist() if n.startswith("images/")}


def _pair_inputs(check: dict) -> list:
    return [side for pair in check.get("pairs", []) for side in pair]


def test_import_of_testing_does_not_import_torch():
    code = "import sys, jina_rag.testing; sys.exit(any(m in sys.modules for m in ('torch', 'safetensors')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("family", ["v4", "m0"])
def test_random_checkpoint_loads_without_weight_files(family, tmp_path):
    pytest.importorskip("torch")
    checkpoint = random_checkpoint(family, path=tmp_path / family)
    assert not list((tmp_path / family).rglob("*.safetensors"))
    model = build(checkpoint, LoadOptions(device="cpu", dtype="float32"))
    again = build(checkpoint, LoadOptions(device="cpu", dtype="float32"))
    other = build(random_checkpoint(family, device="cpu", seed=1), LoadOptions(device="cpu", dtype="float32"))

    def output(model):
        if family == "m0":
            return model.score("growth", ["Revenue grew.", "A list."], raw=True)
        return model.encode_query(["growth"]).single

    np.testing.assert_array_equal(output(model), output(again))
    assert np.abs(output(model) - output(other)).max() > 1e-3


def test_random_checkpoint_has_the_tensors_of_a_written_checkpoint(tmp_path):
    """Both kinds of checkpoint have the same keys, shapes, sizes and dtypes, adapters included."""
    pytest.importorskip("torch")
    from jina_rag.models.runtime.weights import open_weights

    drawn = random_checkpoint("v4", path=tmp_path / "drawn", dtype="float32")
    written = open_checkpoint(make_checkpoint("v4", path=tmp_path / "written", dtype="float32"), name="v4")
    for name in ("model.safetensors", "adapters/adapter_model.safetensors"):
        with (
            open_weights(drawn, [drawn.folder / name]) as tensors,
            open_weights(written, [written.folder / name]) as files,
        ):
            assert {key: tensors.shape(key) for key in tensors} == {key: files.shape(key) for key in files}
            assert (tensors.total_bytes(), tensors.stored_dtype()) == (files.total_bytes(), files.stored_dtype())
