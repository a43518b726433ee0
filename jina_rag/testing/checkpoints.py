"""Random checkpoints in the layout of the published models, on disk or drawn on a device, for tests and benchmarks."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jina_rag._extras import require
from jina_rag.errors import InvalidInputError
from jina_rag.models.runtime.checkpoints import Checkpoint, family_of
from jina_rag.models.runtime.config_schemas import CONFIGS
from jina_rag.models.tiny_checkpoints import tiny_archive, unpack_tiny
from jina_rag.testing.checkpoint_shapes import Shapes, adapter_shapes, config_of, shapes_of

_SHARD_BYTES = 1_000_000_000
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def make_checkpoint(
    family: str,
    size: str = "tiny",
    path: Path | str | None = None,
    *,
    seed: int = 0,
    dtype: str | None = None,
    shards: int = 1,
    layout: str = "old",
    rank: int | None = None,
    alpha: float | None = None,
    tie: bool = True,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Write a random checkpoint: config, tokenizer, weights, and adapters for jina-embeddings-v4.

    Args:
        family: ``"v4"``, ``"m0"``, ``"colbert-v2"`` or ``"v1"``.
        size: ``"tiny"`` (below 1 MB); ``"mid"`` (tens of MB, in the proportions of the published model, for benchmarks
            on a CPU); ``"full"`` (the size of the published model: 7.5 GB for v4).
        path: A new or empty folder. None: a new temporary folder.
        seed: Seed of the weights; equal seeds give equal weights.
        dtype: Dtype of the stored weights: ``"bfloat16"``, ``"float16"`` or ``"float32"``. None: the dtype of the
            published model, float32 for v1 and bfloat16 for the other families.
        shards: Minimum number of weight files; a file has at most about 1 GB.
        layout: Tensor names: ``"old"`` as in the published files, ``"new"`` as in transformers 5 (v4 and m0).
        rank: Rank of the adapters. None: the rank for `size`.
        alpha: Numerator of the scale of the adapters, alpha / rank. None: `rank`, as in the published model.
        tie: Whether v4 and m0 use the token embeddings as output weights, as published. False: write separate output
            weights, ``lm_head.weight``.
        overrides: Values merged into config.json (nested objects key by key) before the shapes are derived. Put
            values for the decoder of v4 into ``text_config``. Dependent values are not adjusted: the caller must keep
            ``vision_config.out_hidden_size`` equal to the hidden size, and the sum of ``mrope_section`` equal to
            half the head size.

    Returns:
        The folder of the checkpoint.

    Raises:
        InvalidInputError: If `family`, `size`, `layout` or `dtype` is unknown, a number is below 1, `shards` exceeds
            the number of tensors, or the folder is not empty. No file is written in these cases.
        MissingDependencyError: If torch or safetensors is not installed (extra ``models``).
    """
    with zipfile.ZipFile(tiny_archive(family)) as archive:
        config, default_rank = config_of(family, size, json.loads(archive.read("config.json")))
    if layout not in ("old", "new"):
        raise InvalidInputError(f"layout is {layout!r}; expected 'old' or 'new'.")
    dtype = dtype or ("float32" if family == "v1" else "bfloat16")
    if dtype not in _BYTES:
        raise InvalidInputError(f"dtype is {dtype!r}; expected one of {', '.join(_BYTES)}.")
    rank = default_rank if rank is None else rank
    config = _merge(
        _update(config, torch_dtype=dtype, **({} if tie else {"tie_word_embeddings": False})), overrides or {}
    )
    shapes = {_key_in_layout(key, layout): shape for key, shape in shapes_of(family, config).items()}
    if not 1 <= shards <= len(shapes) or (family == "v4" and rank < 1):
        raise InvalidInputError(
            f"shards is {shards} and rank is {rank}; expected shards from 1 to {len(shapes)} and a rank of at least 1."
        )
    folder = _write_folder(family, config, path)
    _write_weights(folder, shapes, shards=shards, seed=seed, dtype=dtype)
    if family == "v4":
        _write_adapter_config(folder, rank, alpha)
        _write_adapters(folder / "adapters", config, rank, seed=seed + 1, dtype=dtype)
    return folder


def random_checkpoint(
    family: str,
    size: str = "tiny",
    path: Path | str | None = None,
    *,
    device: str = "cpu",
    seed: int = 0,
    dtype: str | None = None,
) -> Checkpoint:
    """Return a random checkpoint without weight files: each tensor is drawn on a device when a model is loaded.

    A checkpoint of the published size is therefore loaded in seconds, and needs neither disk space nor host memory. The
    folder contains the config, the tokenizer and the settings of the image processor only.

    Args:
        family: ``"v4"``, ``"m0"``, ``"colbert-v2"`` or ``"v1"``.
        size: ``"tiny"``, ``"mid"`` or ``"full"``; see `make_checkpoint`.
        path: A new or empty folder. None: a new temporary folder.
        device: Device on which the tensors are drawn.
        seed: Seed of the weights; equal seeds give equal weights on one kind of device.
        dtype: Dtype of the drawn tensors; None for the dtype of the published model. See `make_checkpoint`.

    Returns:
        The checkpoint, which `jina_rag.models.factory.build` loads.

    Raises:
        InvalidInputError: If `family`, `size` or `dtype` is unknown, or the folder is not empty.
        MissingDependencyError: If torch is not installed (extra ``models``).
    """
    with zipfile.ZipFile(tiny_archive(family)) as archive:
        config, rank = config_of(family, size, json.loads(archive.read("config.json")))
    dtype = dtype or ("float32" if family == "v1" else "bfloat16")
    if dtype not in _BYTES:
        raise InvalidInputError(f"dtype is {dtype!r}; expected one of {', '.join(_BYTES)}.")
    require("torch", extra="models")
    from jina_rag.testing.random_weights import RandomWeights

    folder = _write_folder(family, config, path)
    if family == "v4":
        _write_adapter_config(folder, rank, None)

    def draw(paths: Sequence[Path]) -> RandomWeights:
        shapes = shapes_of(family, config)
        if paths[0].parent.name == "adapters":
            shapes = _adapter_tensor_shapes(config, rank)
        return RandomWeights(paths[0].parent, shapes, device=device, dtype=dtype, seed=seed)

    weights = (folder / "model.safetensors",)  # no such file: `draw` uses only the folder
    checked = CONFIGS[family_of(config, folder)].check(config, folder / "config.json")
    return Checkpoint(str(folder), folder, family_of(config, folder), checked, weights=weights, opener=draw)


def _write_folder(family: str, config: Mapping[str, Any], path: Path | str | None) -> Path:
    """Write all files of a checkpoint except the weights to a new or empty folder, and return the folder."""
    folder = Path(tempfile.mkdtemp(prefix="jina-rag-checkpoint-")) if path is None else Path(path)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InvalidInputError(f"{folder} is not an empty folder. Pass a new or empty folder.")
    unpack_tiny(family, folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    _write_json(folder / "config.json", config)
    return folder


def _key_in_layout(key: str, layout: str) -> str:
    if layout == "old" or key.startswith(("multi_vector_projector", "score", "lm_head")):
        return key
    return f"model.{key}" if key.startswith("visual.") else key.replace("model.", "model.language_model.", 1)


def _write_weights(folder: Path, shapes: Shapes, *, shards: int, seed: int, dtype: str) -> None:
    torch = require("torch", extra="models")
    from jina_rag.testing.random_weights import draw_tensor

    width = _BYTES[dtype]
    total = sum(math.prod(shape) for shape in shapes.values()) * width
    shards = max(shards, math.ceil(total / _SHARD_BYTES))
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(_split_shards(shapes, total / width / shards, shards), start=1):
        name = f"model-{number:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        _save(
            {key: draw_tensor(key, shape, generator, getattr(torch, dtype)) for key, shape in shard.items()},
            folder / name,
        )
        weight_map |= dict.fromkeys(shard, name)
    if shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)


def _split_shards(shapes: Shapes, target: float, shards: int) -> Iterator[Shapes]:
    """Yield the tensors in `shards` non-empty groups of about `target` elements each, in order."""
    shard: Shapes = {}
    elements = index = 0
    for remaining, (key, shape) in zip(range(len(shapes), 0, -1), shapes.items(), strict=True):
        if shard and index < shards - 1 and (elements + math.prod(shape) / 2 > target or remaining < shards - index):
            yield shard
            shard, elements, index = {}, 0, index + 1
        shard[key] = shape
        elements += math.prod(shape)
    yield shard


def _write_adapter_config(folder: Path, rank: int, alpha: float | None) -> None:
    path = folder / "adapters" / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    _write_json(path, config | {"r": rank, "lora_alpha": rank if alpha is None else alpha})


def _adapter_tensor_shapes(config: Mapping[str, Any], rank: int) -> Shapes:
    """Return the shapes of the LoRA matrices of all tasks, by key in the published layout."""
    return {
        f"{key}.{task}.weight": shape
        for key, shape in adapter_shapes(config, rank).items()
        for task in config["task_names"]
    }


def _write_adapters(folder: Path, config: Mapping[str, Any], rank: int, *, seed: int, dtype: str) -> None:
    torch = require("torch", extra="models")
    from jina_rag.testing.random_weights import draw_tensor

    generator = torch.Generator().manual_seed(seed)
    tensors = {
        key: draw_tensor(key, shape, generator, getattr(torch, dtype))
        for key, shape in _adapter_tensor_shapes(config, rank).items()
    }
    _save(tensors, folder / "adapter_model.safetensors")


def _save(tensors: Mapping[str, Any], path: Path) -> None:
    require("safetensors.torch", extra="models").save_file(dict(tensors), path, metadata={"format": "pt"})


def _update(config: Mapping[str, Any], **values: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    """Return `config` with new `values` for keys that `config` contains at any depth; ignore other keys."""
    result = {key: _update(value, **values) if isinstance(value, Mapping) else value for key, value in config.items()}
    return result | {key: value for key, value in values.items() if key in config}


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        current = merged.get(key)
        merged[key] = _merge(current, value) if isinstance(current, Mapping) and isinstance(value, Mapping) else value
    return merged


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
