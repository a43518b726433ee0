"""Random checkpoints in the real on-disk layout: for tests, benchmarks, and for trying the way a model is loaded."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jina_rag._extras import require
from jina_rag.errors import InvalidInputError
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
    """Write a random checkpoint: config, tokenizer, weights, for jina-embeddings-v4 also adapters.

    Args:
        family: ``"v4"``, ``"m0"``, ``"colbert-v2"`` or ``"v1"``.
        size: ``"tiny"`` (under 1 MB); ``"mid"`` (tens of MB, in the proportions of the real one, for benchmarks on a
            CPU); ``"full"`` (the real numbers: 7.5 GB for v4).
        path: A new or empty folder; None for one in the system's place for temporary files.
        seed: The same seed gives the same weights.
        dtype: What they are stored in, ``"bfloat16"``, ``"float16"`` or ``"float32"``; None for what the published
            ones are: float32 for v1, bfloat16 for the others.
        shards: Files that the weights are spread over; "full" takes as many as keep memory low.
        layout: ``"old"``, the names of the published files, or ``"new"``, those of transformers 5 (v4 and m0).
        rank: Of the adapters; None for what fits the size.
        alpha: Their scaling is alpha / rank; None for alpha = rank, as published.
        tie: False for a file that also has the ``lm_head.weight`` of v4 or m0, which the published ones do without.
        overrides: Merged into config.json (inner objects key by key) before shapes are derived from it. Those of v4's
            decoder go into ``text_config``; numbers that must agree (``vision_config.out_hidden_size`` with the
            hidden size, the sum of ``mrope_section`` with half a head) are taken as they are given.

    Returns:
        The folder.

    Raises:
        InvalidInputError: If there is no such family, size, layout or dtype, a number is less than 1, there are fewer
            tensors than shards, or the folder is not empty. Nothing is written then.
        MissingDependencyError: If torch or safetensors are not installed (extra ``models``).
    """
    with zipfile.ZipFile(tiny_archive(family)) as archive:
        config, usual_rank = config_of(family, size, json.loads(archive.read("config.json")))
    if layout not in ("old", "new"):
        raise InvalidInputError(f"There is no layout {layout!r}: old or new.")
    dtype = dtype or ("float32" if family == "v1" else "bfloat16")
    if dtype not in _BYTES:
        raise InvalidInputError(f"There is no dtype {dtype!r}: {', '.join(_BYTES)}.")
    rank = usual_rank if rank is None else rank
    config = _merged(
        _with(config, torch_dtype=dtype, **({} if tie else {"tie_word_embeddings": False})), overrides or {}
    )
    shapes = {_renamed(key, layout): shape for key, shape in shapes_of(family, config).items()}
    if not 1 <= shards <= len(shapes) or (family == "v4" and rank < 1):
        raise InvalidInputError(f"shards is 1 to {len(shapes)} and rank 1 or more here; got {shards} and {rank}.")
    folder = Path(tempfile.mkdtemp(prefix="jina-rag-checkpoint-")) if path is None else Path(path)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InvalidInputError(f"{folder} is not an empty folder: a checkpoint needs one of its own.")
    unpack_tiny(family, folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    _write_json(folder / "config.json", config)
    _write_weights(folder, shapes, shards=shards, seed=seed, dtype=dtype)
    if family == "v4":
        _write_adapters(folder / "adapters", config, rank, alpha, seed=seed + 1, dtype=dtype)
    return folder


def _renamed(key: str, layout: str) -> str:
    if layout == "old" or key.startswith(("multi_vector_projector", "score", "lm_head")):
        return key
    return f"model.{key}" if key.startswith("visual.") else key.replace("model.", "model.language_model.", 1)


def _write_weights(folder: Path, shapes: Shapes, *, shards: int, seed: int, dtype: str) -> None:
    torch = require("torch", extra="models")
    width = _BYTES[dtype]
    total = sum(math.prod(shape) for shape in shapes.values()) * width
    shards = max(shards, math.ceil(total / _SHARD_BYTES))
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}
    for number, part in enumerate(_parts(shapes, total / width / shards, shards), start=1):
        name = f"model-{number:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        _save({key: _random(key, shape, generator, dtype) for key, shape in part.items()}, folder / name)
        weight_map |= dict.fromkeys(part, name)
    if shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)


def _parts(shapes: Shapes, share: float, shards: int) -> Iterator[Shapes]:
    """The tensors in `shards` groups of about `share` numbers each, in order; none is empty."""
    part: Shapes = {}
    filled = shard = 0
    for remaining, (key, shape) in zip(range(len(shapes), 0, -1), shapes.items(), strict=True):
        if part and shard < shards - 1 and (filled + math.prod(shape) / 2 > share or remaining < shards - shard):
            yield part
            part, filled, shard = {}, 0, shard + 1
        part[key] = shape
        filled += math.prod(shape)
    yield part


def _write_adapters(
    folder: Path, config: Mapping[str, Any], rank: int, alpha: float | None, *, seed: int, dtype: str
) -> None:
    torch = require("torch", extra="models")
    generator = torch.Generator().manual_seed(seed)
    adapter_config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    _write_json(
        folder / "adapter_config.json", adapter_config | {"r": rank, "lora_alpha": rank if alpha is None else alpha}
    )
    tensors = {
        f"{key}.{task}.weight": _random(key, shape, generator, dtype)
        for key, shape in adapter_shapes(config, rank).items()
        for task in config["task_names"]
    }
    _save(tensors, folder / "adapter_model.safetensors")


def _random(key: str, shape: tuple[int, ...], generator: Any, dtype: str) -> Any:  # noqa: ANN401  # torch's
    """Values that keep what flows through a model at about one: norms near 1, weights by their fan-in."""
    torch = require("torch", extra="models")
    tensor = torch.empty(shape, dtype=getattr(torch, dtype))
    if len(shape) == 1:
        norm = key.endswith("weight")  # linear layers have no weight of one dimension
        return tensor.normal_(1.0 if norm else 0.0, 0.1 if norm else 0.02, generator=generator)
    if "embed" in key.rsplit(".", 2)[-2] or key.startswith("shared"):
        return tensor.normal_(0, 0.02 if "token_type" in key else 0.5, generator=generator)
    # Adapters are a fraction of the weight that they stand beside: outputs change, and remain outputs of the model.
    scale = 0.3 if key.endswith(".lora_B") else 0.7
    return tensor.normal_(0, scale / math.sqrt(math.prod(shape[1:])), generator=generator)


def _save(tensors: Mapping[str, Any], path: Path) -> None:
    require("safetensors.torch", extra="models").save_file(dict(tensors), path, metadata={"format": "pt"})


def _with(config: Mapping[str, Any], **values: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    """The config with these values wherever it, or an object in it, has one already."""
    changed = {key: _with(value, **values) if isinstance(value, Mapping) else value for key, value in config.items()}
    return changed | {key: value for key, value in values.items() if key in config}


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
