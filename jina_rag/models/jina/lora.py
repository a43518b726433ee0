"""Task adapters of jina-embeddings-v4: LoRA matrices, loaded through peft.

The published file contains the matrices of all tasks, and each key has the task name as an additional level. For such
a file, the loader of peft would fill the matrices with zeros and only log a warning. This module therefore loads the
matrices without that loader, and raises an error if a matrix is missing or invalid.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021), and the model card of jina-embeddings-v4.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from jina_rag.errors import CheckpointError
from jina_rag.models.runtime.checkpoints import Checkpoint
from jina_rag.models.runtime.config_schemas import ADAPTERS
from jina_rag.models.runtime.devices import Placement
from jina_rag.models.runtime.weight_source import WeightSource
from jina_rag.models.runtime.weights import convert_tensor, open_weights, set_tensor

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<path>.+)\.lora_(?P<part>[AB])\.(?P<task>[^.]+)\.weight")
_UNSUPPORTED_OPTIONS = {"use_dora": False, "lora_bias": False, "bias": "none", "modules_to_save": None}


def add_adapters(
    module: nn.Module,
    checkpoint: Checkpoint,
    tasks: Sequence[str],
    placement: Placement,
    *,
    rename: Callable[[str], str],
) -> None:
    """Add the adapters of `tasks` to the layers of `module`.

    Args:
        module: Module whose layers get the adapters.
        checkpoint: Checkpoint whose folder ``adapters`` has adapter_config.json and adapter_model.safetensors.
        tasks: Tasks whose adapters are loaded.
        placement: Device and dtype of the matrices.
        rename: Function that maps the layer name in a key to the layer name in `module`.

    Raises:
        CheckpointError: If a matrix is missing, unexpected or of a wrong shape, or an adapter is all zeros.
    """
    from peft import LoraConfig, inject_adapter_in_model

    folder = checkpoint.folder / "adapters"
    config = checkpoint.json("adapters/adapter_config.json", ADAPTERS)
    for key, default in _UNSUPPORTED_OPTIONS.items():
        if config.get(key, default) not in (default, [] if default is None else default):
            raise CheckpointError(
                f"{folder}: adapters with {key}={config[key]!r} are not supported. Use adapters without {key}."
            )
    lora_options = {
        key: config[key] for key in ("r", "lora_alpha", "rank_pattern", "alpha_pattern") if config.get(key) is not None
    }
    with open_weights(checkpoint, [folder / "adapter_model.safetensors"]) as files:
        # The names of the layers, not `target_modules`, which may be any regular expression.
        names = sorted({rename(match["path"]) for key in files if (match := _KEY.fullmatch(key))})
        if not names:
            raise CheckpointError(f"{files.folder} has no LoRA matrices. Download the model again.")
        try:
            lora = LoraConfig(
                **lora_options,
                target_modules=names,
                use_rslora=bool(config.get("use_rslora")),
                lora_dropout=0.0,
                inference_mode=True,
            )
            with warnings.catch_warnings():
                # Suppress the warning of peft about several adapters on one module: several adapters are intended.
                warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
                for task in tasks:
                    inject_adapter_in_model(lora, module, adapter_name=task, low_cpu_mem_usage=True)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise CheckpointError(
                f"{folder}: the adapters do not fit the model ({exc}). Download the model again."
            ) from exc
        _load_matrices(module, files, tasks, placement, rename=rename)


def _load_matrices(
    module: nn.Module,
    files: WeightSource,
    tasks: Sequence[str],
    placement: Placement,
    *,
    rename: Callable[[str], str],
) -> None:
    shapes = {
        f"{path}.lora_{part}.{task}.weight": tuple(getattr(layer, f"lora_{part}")[task].weight.shape)
        for path, layer in _layers(module)
        for part in "AB"
        for task in tasks
    }
    loaded_names: set[str] = set()
    is_zero = dict.fromkeys(tasks, True)
    file_tasks: set[str] = set()
    for key in files:
        match = _KEY.fullmatch(key)
        if match is None:
            raise CheckpointError(f"{key!r} in {files.folder} is not a LoRA matrix. Download the model again.")
        file_tasks.add(match["task"])
        if match["task"] not in tasks:
            continue
        target = f"{rename(match['path'])}.lora_{match['part']}.{match['task']}.weight"
        if target not in shapes:
            raise CheckpointError(
                f"{files.folder}: adapter_config.json does not define the adapter {key!r}. Download the model again."
            )
        if files.shape(key) != shapes[target]:
            raise CheckpointError(
                f"The adapter matrix {key!r} in {files.folder} has shape {files.shape(key)}; adapter_config.json "
                f"requires {shapes[target]}. Download the model again."
            )
        value = convert_tensor(files, key, placement)
        if match["part"] == "B" and bool(value.any()):
            is_zero[match["task"]] = False
        set_tensor(module, target, value)
        loaded_names.add(target)
    for task in tasks:
        if task not in file_tasks:
            names = ", ".join(sorted(file_tasks))
            raise CheckpointError(f"{files.folder} has no adapter for the task {task!r}. Pass one of {names}.")
    missing_targets = [target for target in shapes if target not in loaded_names]
    if missing_targets:
        raise CheckpointError(
            f"{files.folder} lacks {len(missing_targets)} of {len(shapes)} adapter matrices, for example "
            f"{missing_targets[0]!r}. Download the model again."
        )
    for task, is_zero_task in is_zero.items():
        if is_zero_task:
            message = f"In {files.folder}, all lora_B matrices of the task {task!r} are zero."
            raise CheckpointError(f"{message} Download the model again.")


def merge_adapter(module: nn.Module, task: str) -> None:
    """Merge a task's adapter into the weights and remove the adapter layers.

    Forward passes become faster, and the vectors do not change.

    Args:
        module: Module with adapters.
        task: Task whose adapter is merged.
    """
    for path, layer in list(_layers(module)):
        layer.merge(adapter_names=[task])
        parent_path, _, leaf = path.rpartition(".")
        parent = module.get_submodule(parent_path) if parent_path else module
        setattr(parent, leaf, layer.get_base_layer())


def activate(module: nn.Module, task: str) -> None:
    """Activate the adapter of `task` for the following forward passes. The caller holds the model's lock.

    Args:
        module: Module with adapters.
        task: Task whose adapter is activated.
    """
    for _, layer in _layers(module):
        layer.set_adapter(task)
        layer.requires_grad_(False)


def _layers(module: nn.Module) -> list[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return [(path, layer) for path, layer in module.named_modules() if isinstance(layer, LoraLayer)]
