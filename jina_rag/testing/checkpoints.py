"""Random checkpoints in the real on-disk layout: for tests, benchmarks, and for trying the way a model is loaded."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jina_rag._extras import require
from jina_rag.errors import InvalidInputError
from jina_rag.models.tiny import unpack_tiny
from jina_rag.testing.checkpoint_shapes import Shapes, adapter_shapes, config_of, shapes_of

_SHARD_BYTES = 1_000_000_000


def make_checkpoint(
    family: str,
    size: str = "tiny",
    path: Path | str | None = None,
    *,
    seed: int = 0,
    shards: int = 1,
    layout: str = "old",
    rank: int | None = None,
    alpha: float | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Write a random checkpoint: config, tokenizer, weights, for jina-embeddings-v4 also adapters.

    Args:
        family: ``"v4"``, ``"m0"``, ``"colbert-v2"`` or ``"v1"``.
        size: ``"tiny"`` (under 1 MB); ``"mid"`` (tens of MB, in the proportions of the real one, for benchmarks on a
            CPU); ``"full"`` (the real numbers: 7.5 GB for v4).
        path: A new or empty folder; None for one in the system's place for temporary files.
        seed: The same seed gives the same weights.
        shards: Files that the weights are spread over; "full" takes as many as keep memory low.
        layout: ``"old"``, the names of the published files, or ``"new"``, those of transformers 5 (v4 and m0).
        rank: Of the adapters; None for what fits the size.
        alpha: Their scaling is alpha / rank; None for alpha = rank, as published.
        overrides: Merged into config.json (inner objects key by key) before shapes are derived from it.

    Returns:
        The folder.

    Raises:
        InvalidInputError: If there is no such family or size, or the folder is not empty.
        MissingDependencyError: If torch or safetensors are not installed (extra ``models``).
    """
    folder = Path(tempfile.mkdtemp(prefix="jina-rag-checkpoint-")) if path is None else Path(path)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InvalidInputError(f"{folder} is not an empty folder: a checkpoint needs one of its own.")
    if layout not in ("old", "new"):
        raise InvalidInputError(f"There is no layout {layout!r}: old or new.")
    unpack_tiny(family, folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    config, usual_rank = config_of(family, size, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    config = _merged(config, overrides or {})
    _write_json(folder / "config.json", config)
    dtype = "float32" if family == "v1" else "bfloat16"
    renamed = {_renamed(key, layout): shape for key, shape in shapes_of(family, config).items()}
    _write_weights(folder, renamed, shards=shards, seed=seed, dtype=dtype)
    if family == "v4":
        _write_adapters(folder / "adapters", config, rank or usual_rank, alpha, seed=seed + 1, dtype=dtype)
    return folder


def _renamed(key: str, layout: str) -> str:
    if layout == "old" or key.startswith(("multi_vector_projector", "score")):
        return key
    return f"model.{key}" if key.startswith("visual.") else key.replace("model.", "model.language_model.", 1)


def _write_weights(folder: Path, shapes: Shapes, *, shards: int, seed: int, dtype: str) -> None:
    torch = require("torch", extra="models")
    width = 4 if dtype == "float32" else 2
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
    filled = done = 0
    for left, (key, shape) in zip(range(len(shapes), 0, -1), shapes.items(), strict=True):
        if part and done < shards - 1 and (filled + math.prod(shape) / 2 > share or left < shards - done):
            yield part
            part, filled, done = {}, 0, done + 1
        part[key] = shape
        filled += math.prod(shape)
    yield part


def _write_adapters(
    folder: Path, config: Mapping[str, Any], rank: int, alpha: float | None, *, seed: int, dtype: str
) -> None:
    torch = require("torch", extra="models")
    generator = torch.Generator().manual_seed(seed)
    written = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    _write_json(folder / "adapter_config.json", written | {"r": rank, "lora_alpha": rank if alpha is None else alpha})
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
        norm = "norm" in key or key.endswith(("ln_q.weight", "emb_ln.weight"))
        return tensor.normal_(1.0 if norm and key.endswith("weight") else 0.0, 0.1, generator=generator)
    if "embed" in key.rsplit(".", 2)[-2] or key.startswith("shared"):
        return tensor.normal_(0, 0.5 if key.startswith("shared") else 0.1, generator=generator)
    fan_in = math.prod(shape[1:])
    return tensor.normal_(0, 0.7 / math.sqrt(fan_in), generator=generator)


def _save(tensors: Mapping[str, Any], path: Path) -> None:
    require("safetensors.torch", extra="models").save_file(dict(tensors), path, metadata={"format": "pt"})


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
