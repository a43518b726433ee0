"""Checkpoints on disk: which folder, which family, which commit, and a fingerprint of what is in it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from jina_rag.errors import CheckpointError, ModelNotFoundError
from jina_rag.protocols import EmbedderDefaults

if TYPE_CHECKING:
    from jina_rag.models.runtime.devices import Placement

Family: TypeAlias = Literal["v4", "m0", "colbert-v2", "v1"]

_ARCHITECTURES: Mapping[str, Family] = {
    "JinaEmbeddingsV4Model": "v4",
    "JinaVLForRanking": "m0",
    "HF_ColBERT": "colbert-v2",
    "T5EncoderModel": "v1",
}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SAMPLE, _SAMPLES = 4096, 64
UNRELATED_TO_VECTORS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "auto_map")
"""Keys of a config that no model is built from: the files of the weights say in which number format they are."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that was found and looked at; no weight was read yet.

    Attributes:
        name: What it was asked by: a hub id or a path.
        folder: Where it lies.
        family: Which code runs it.
        config: Its config.json.
        revision: The commit it was resolved to, for one that came from the hub.
        weights: The safetensors files, in a fixed order.
    """

    name: str
    folder: Path
    family: Family
    config: Mapping[str, Any] = field(repr=False)
    revision: str | None = None
    weights: tuple[Path, ...] = ()

    def json(self, name: str, *, required: bool = True) -> dict[str, Any]:
        """One of its JSON files; empty if it is missing and not required.

        Raises:
            CheckpointError: If it is missing or not a JSON object.
        """
        return read_json(self.folder / name, required=required)

    def fingerprint(self, *settings: str) -> str:
        """Hub id and commit (of a folder its family), then `folder_fingerprint`, then `settings`."""
        source = f"{self.name}@{self.revision[:12]}" if self.revision else self.family
        return "+".join([source, folder_fingerprint(self.folder)[:16], *settings])


class CheckpointModel(EmbedderDefaults):
    """A model that was loaded from a checkpoint.

    Attributes:
        name: What it was loaded by: a hub id or a folder.
        revision: The commit, for a checkpoint from the hub.
        placement: Where it runs, and in which number format.
    """

    def __init__(self, checkpoint: Checkpoint, placement: Placement) -> None:
        self._checkpoint, self.placement = checkpoint, placement
        self.name, self.revision = checkpoint.name, checkpoint.revision


def open_checkpoint(folder: Path, *, name: str, revision: str | None = None) -> Checkpoint:
    """Look at a checkpoint folder.

    Raises:
        ModelNotFoundError: If there is no such folder.
        CheckpointError: If it is not a checkpoint of a family that is known, or has no safetensors.
    """
    if not folder.is_dir():
        raise ModelNotFoundError(f"There is no checkpoint folder {folder}: check the path.")
    config = read_json(folder / "config.json")
    return Checkpoint(
        name=name,
        folder=folder,
        family=family_of(config, folder),
        config=config,
        revision=revision,
        weights=weight_files(folder),
    )


def family_of(config: Mapping[str, Any], folder: Path) -> Family:
    """Which family a config belongs to, by its architecture, else by what only that family has.

    Raises:
        CheckpointError: If it belongs to none.
    """
    for name in config.get("architectures") or ():
        if name in _ARCHITECTURES:
            return _ARCHITECTURES[name]
    if "multi_vector_projector_dim" in config:
        return "v4"
    kind = config.get("model_type")
    if kind == "t5":
        return "v1"
    if kind == "xlm-roberta" and config.get("position_embedding_type") == "rotary":
        return "colbert-v2"
    raise CheckpointError(
        f"{folder} holds a model of a kind that is not run here (architectures {config.get('architectures')}, "
        f"model_type {kind!r}): jina-embeddings-v4, jina-reranker-m0, jina-colbert-v2 and Jina Embeddings v1 are."
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors of a folder: one file, or the shards that its index names.

    Raises:
        CheckpointError: If there are none, or a shard is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index} has no weight_map: download the model again.")
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if Path(name).name != name:
                raise CheckpointError(f"{index} names the file {name!r}, which is not beside it.")
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder} lacks the shard {name} that its index names: download it again.")
        return tuple(folder / name for name in names)
    single = folder / "model.safetensors"
    if single.is_file():
        return (single,)
    if any(folder.glob("*.bin")):
        raise CheckpointError(
            f"{folder} has its weights as .bin files only, which can run code when they are opened: "
            "they are not read. Use a revision with safetensors, or convert them."
        )
    raise CheckpointError(f"{folder} has no model.safetensors: download the model again.")


def folder_fingerprint(folder: Path) -> str:
    """A hash of what a checkpoint folder holds: the same wherever the folder lies and whatever its name is.

    It covers the config without `UNRELATED_TO_VECTORS`, and of the weights and adapters the headers, sizes and samples
    of their bytes: the headers alone would not tell a fine-tuned checkpoint from its base, and all bytes would take
    minutes.

    Raises:
        CheckpointError: If it is not a checkpoint.
    """
    config = json.dumps(_related(read_json(folder / "config.json")), sort_keys=True)
    digest = hashlib.sha256(config.encode())
    for path in (*weight_files(folder), *sorted((folder / "adapters").glob("*.safetensors"))):
        digest.update(_sampled(path))
    return digest.hexdigest()


def read_json(path: Path, *, required: bool = True) -> dict[str, Any]:
    """A JSON object from a file; see `Checkpoint.json`."""
    if not path.is_file():
        if required:
            raise CheckpointError(f"{path.parent} has no {path.name}: it is not a complete checkpoint.")
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return value


def commit_in(folder: Path) -> str | None:
    """The commit that a folder of the hub's cache is named after."""
    return folder.name if _COMMIT.fullmatch(folder.name) else None


def _related(config: Any) -> Any:  # noqa: ANN401  # a value of JSON
    """A config without `UNRELATED_TO_VECTORS`, in its parts as well."""
    if not isinstance(config, dict):
        return config
    return {key: _related(value) for key, value in config.items() if key not in UNRELATED_TO_VECTORS}


def _sampled(path: Path) -> bytes:
    """The header of a safetensors file, its length, and some blocks spread over its bytes, from first to last."""
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            header = min(int.from_bytes(start, "little"), size)
            digest.update(start + file.read(min(header, 64 * 1024**2)) + size.to_bytes(8, "little"))
            for i in range(_SAMPLES):
                file.seek(8 + header + max(0, size - 8 - header - _SAMPLE) * i // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE))
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror or exc}.") from exc
    return digest.digest()
