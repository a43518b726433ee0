"""Checkpoint folders on disk: config, model family, weight files, and a fingerprint of the content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from jina_rag.errors import CheckpointError, ModelNotFoundError
from jina_rag.models.runtime.config_schemas import CONFIGS, Schema
from jina_rag.protocols import EmbedderDefaults

if TYPE_CHECKING:
    from jina_rag.models.runtime.devices import Placement
    from jina_rag.models.runtime.weight_source import WeightOpener

Family: TypeAlias = Literal["v4", "m0", "colbert-v2", "v1"]

_ARCHITECTURES: Mapping[str, Family] = {
    "JinaEmbeddingsV4Model": "v4",
    "JinaVLForRanking": "m0",
    "HF_ColBERT": "colbert-v2",
    "T5EncoderModel": "v1",
}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SAMPLE_BYTES, _SAMPLE_COUNT = 4096, 64
_MAX_DEPTH = 50
_MAX_JSON_BYTES = 64 * 1024**2
"""The largest JSON file of a published checkpoint is the weight index, with less than 1 MB."""
UNRELATED_TO_VECTORS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "auto_map")
"""Keys of config.json that do not affect vectors. The dtype keys are redundant, because weight files record dtypes."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder and the content of config.json; the weights are not loaded.

    Attributes:
        name: Hub id or path that the caller passed.
        folder: Folder of the checkpoint.
        family: Model family, which selects the code that runs the checkpoint.
        config: Allowed keys of config.json; see `jina_rag.models.runtime.config_schemas`.
        revision: Commit hash, for a checkpoint from the hub; None for a local folder.
        weights: Safetensors files, in a fixed order.
        opener: Function that opens the weight files; None to read safetensors files. Another opener may create the
            tensors instead, as `jina_rag.testing.random_checkpoint` does.
    """

    name: str
    folder: Path
    family: Family
    config: Mapping[str, Any] = field(repr=False)
    revision: str | None = None
    weights: tuple[Path, ...] = ()
    opener: WeightOpener | None = field(default=None, repr=False)

    def json(self, name: str, schema: Schema, *, required: bool = True) -> dict[str, Any]:
        """Return the allowed keys of a JSON file in the folder.

        Args:
            name: Path of the file, relative to the folder.
            schema: Allowed keys and values. A file that is not required may also lack the keys that are required.
            required: Whether to raise an error if the file is missing; if False, a missing file gives an empty dict.

        Raises:
            CheckpointError: If the file is missing and required, is not a JSON object, or has a value that is not
                allowed.
        """
        content = read_json(self.folder / name, required=required)
        return schema.check(content, self.folder / name) if content or required else {}

    def fingerprint(self, *settings: str) -> str:
        """Return an identifier of the vectors that the checkpoint computes with `settings`.

        The identifier joins these parts with "+": the hub id and 12 digits of the commit (for a local folder, the model
        family), 16 digits of `folder_fingerprint`, and `settings`.
        """
        source = f"{self.name}@{self.revision[:12]}" if self.revision else self.family
        return "+".join([source, folder_fingerprint(self.folder)[:16], *settings])


@contextmanager
def config_errors(checkpoint: Checkpoint) -> Iterator[None]:
    """Convert each error that the construction of a module raises: only the config can cause it.

    Args:
        checkpoint: Checkpoint whose config describes the module.

    Raises:
        CheckpointError: Instead of any other error.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as exc:
        detail = str(exc).strip().splitlines()[:1] or [type(exc).__name__]
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'} is invalid ({detail[0][:100]}). Download the model again."
        ) from exc


class CheckpointModel(EmbedderDefaults):
    """Base class of the models that are loaded from a checkpoint.

    Attributes:
        name: Hub id or folder that the model was loaded from.
        revision: Commit hash, for a checkpoint from the hub; None for a local folder.
        placement: Device, dtype and token budget.
    """

    def __init__(self, checkpoint: Checkpoint, placement: Placement) -> None:
        self._checkpoint, self.placement = checkpoint, placement
        self.name, self.revision = checkpoint.name, checkpoint.revision


def open_checkpoint(folder: Path, *, name: str, revision: str | None = None) -> Checkpoint:
    """Open a checkpoint folder and read the config; the weights are not loaded.

    Args:
        folder: Folder of the checkpoint.
        name: Hub id or path that the caller passed.
        revision: Commit hash of a checkpoint from the hub.

    Raises:
        ModelNotFoundError: If the folder does not exist.
        CheckpointError: If the folder has no valid config of a supported family, or no safetensors files.
    """
    if not folder.is_dir():
        raise ModelNotFoundError(f"The checkpoint folder {folder} does not exist. Check the path.")
    config = read_json(folder / "config.json")
    family = family_of(config, folder)
    return Checkpoint(
        name=name,
        folder=folder,
        family=family,
        config=CONFIGS[family].check(config, folder / "config.json"),
        revision=revision,
        weights=weight_files(folder),
    )


def family_of(config: Mapping[str, Any], folder: Path) -> Family:
    """Return the model family of a checkpoint, from the architecture or from keys that only one family has.

    Args:
        config: Content of config.json.
        folder: Folder of the checkpoint, for the message.

    Raises:
        CheckpointError: If the config belongs to no supported family.
    """
    architectures = config.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        if isinstance(name, str) and name in _ARCHITECTURES:
            return _ARCHITECTURES[name]
    if "multi_vector_projector_dim" in config:
        return "v4"
    model_type = config.get("model_type")
    if model_type == "t5":
        return "v1"
    if model_type == "xlm-roberta" and config.get("position_embedding_type") == "rotary":
        return "colbert-v2"
    raise CheckpointError(
        f"The architecture of {folder} is not supported (architectures {str(architectures)[:80]}, model_type "
        f"{str(model_type)[:40]!r}). Pass jina-embeddings-v4, jina-reranker-m0, jina-colbert-v2 or Jina Embeddings v1."
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a folder: model.safetensors, or the shards in model.safetensors.index.json.

    Raises:
        CheckpointError: If the folder has no safetensors files, a shard is missing, or the index is invalid.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index} has no weight_map. Download the model again.")
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if Path(name).name != name:
                raise CheckpointError(f"{index} lists {name!r}; expected a file name. Download the model again.")
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder} lacks the shard {name} of {index.name}. Download the model again.")
        return tuple(folder / name for name in names)
    single = folder / "model.safetensors"
    if single.is_file():
        return (single,)
    if any(folder.glob("*.bin")):
        raise CheckpointError(
            f"{folder} has only .bin weight files, which are not loaded because they can execute code. Use a revision "
            "with safetensors files, or convert the weights to model.safetensors."
        )
    raise CheckpointError(f"{folder} has no model.safetensors. Download the model again.")


def folder_fingerprint(folder: Path) -> str:
    """Return a hexadecimal SHA-256 hash of a checkpoint's content; the name and location of the folder do not matter.

    The hash covers the config without the keys `UNRELATED_TO_VECTORS`, and the header, the size and samples of each
    weight and adapter file. The header alone is not enough, because a base model and a fine-tuned version have equal
    headers. Hashing all bytes would take minutes.

    Raises:
        CheckpointError: If the folder is not a checkpoint.
    """
    config = json.dumps(_without_unrelated_keys(read_json(folder / "config.json")), sort_keys=True)
    digest = hashlib.sha256(config.encode())
    for path in (*weight_files(folder), *sorted((folder / "adapters").glob("*.safetensors"))):
        digest.update(_sampled_digest(path))
    return digest.hexdigest()


def read_json(path: Path, *, required: bool = True) -> dict[str, Any]:
    """Return the JSON object in a file; an empty dict if the file is missing and `required` is False.

    Raises:
        CheckpointError: If the file is missing and `required`, cannot be read, or is not a JSON object.
    """
    if not path.is_file():
        if required:
            raise CheckpointError(f"{path.parent} has no {path.name}. Download the model again.")
        return {}
    try:
        if (size := path.stat().st_size) > _MAX_JSON_BYTES:
            raise CheckpointError(f"{path} has {size:,} bytes (limit {_MAX_JSON_BYTES:,}). Download the model again.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} cannot be read ({exc}). Download the model again.") from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object. Download the model again.")
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        containers = [item.values() if isinstance(item, dict) else item for item in level]
        level = [item for container in containers for item in container if isinstance(item, dict | list)]
        if not level:
            return value
    raise CheckpointError(f"{path} is nested deeper than {_MAX_DEPTH} levels. Download the model again.")


def commit_in(folder: Path) -> str | None:
    """Return the name of a snapshot folder in the hub's cache if the name is a commit hash, else None."""
    return folder.name if _COMMIT.fullmatch(folder.name) else None


def _without_unrelated_keys(config: Any) -> Any:  # noqa: ANN401  # any JSON value
    """Return a config without the keys `UNRELATED_TO_VECTORS`, at every nesting level."""
    if not isinstance(config, dict):
        return config
    return {key: _without_unrelated_keys(value) for key, value in config.items() if key not in UNRELATED_TO_VECTORS}


def _sampled_digest(path: Path) -> bytes:
    """Return the SHA-256 digest of a safetensors file's header, size and 64 evenly spaced blocks of 4,096 bytes."""
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            header = min(int.from_bytes(start, "little"), size)
            digest.update(start + file.read(min(header, 64 * 1024**2)) + size.to_bytes(8, "little"))
            for i in range(_SAMPLE_COUNT):
                file.seek(8 + header + max(0, size - 8 - header - _SAMPLE_BYTES) * i // (_SAMPLE_COUNT - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError as exc:
        raise CheckpointError(
            f"{path} cannot be read: {exc.strerror or exc}. Check the permissions, or download the model again."
        ) from exc
    return digest.digest()
