"""The task adapters of jina-embeddings-v4: LoRA matrices through peft, split by task.

The published file holds all tasks, with the task's name as one more level in each key. peft alone would load it as
zeros and only warn; here every matrix is found, checked and placed, or loading ends.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from jina_rag.errors import CheckpointError
from jina_rag.models.runtime.checkpoints import read_json
from jina_rag.models.runtime.devices import Placement
from jina_rag.models.runtime.weights import WeightFiles, checked_tensor, put

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<path>.+)\.lora_(?P<part>[AB])\.(?P<task>[^.]+)\.weight")
_UNUSED = {"use_dora": False, "lora_bias": False, "bias": "none", "modules_to_save": None}


def add_adapters(
    module: nn.Module,
    folder: Path,
    tasks: Sequence[str],
    placement: Placement,
    *,
    rename: Callable[[str], str],
) -> None:
    """Put the adapters of `tasks` beside the weights of `module`.

    Args:
        module: Holds the modules that the keys name.
        folder: With adapter_config.json and adapter_model.safetensors.
        tasks: Which of the file's tasks.
        placement: Where the matrices go, and what they are converted to.
        rename: From the keys of older layouts to the names of `module`.

    Raises:
        CheckpointError: If the file lacks a matrix, has one that fits nowhere, one of a wrong shape, or an adapter
            that is all zeros.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = read_json(folder / "adapter_config.json")
    for key, only in _UNUSED.items():
        if config.get(key, only) not in (only, [] if only is None else only):
            raise CheckpointError(f"The adapters in {folder} have {key}={config[key]!r}, which is not supported here.")
    lora_options = {
        key: config[key]
        for key in ("r", "lora_alpha", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern")
        if config.get(key) is not None
    }
    try:
        lora = LoraConfig(
            **lora_options, use_rslora=bool(config.get("use_rslora")), lora_dropout=0.0, inference_mode=True
        )
        with warnings.catch_warnings():
            # A second adapter is what is wanted here.
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            for task in tasks:
                inject_adapter_in_model(lora, module, adapter_name=task, low_cpu_mem_usage=True)
    except (ValueError, TypeError, KeyError) as exc:
        raise CheckpointError(f"The adapter_config.json in {folder} does not fit the model: {exc}") from exc
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {path.name}: it is not a complete checkpoint.")
    with WeightFiles([path]) as files:
        _fill(module, files, tasks, placement, rename=rename)


def _fill(
    module: nn.Module,
    files: WeightFiles,
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
    targets: set[str] = set()
    empty = dict.fromkeys(tasks, True)
    file_tasks: set[str] = set()
    for key in files:
        match = _KEY.fullmatch(key)
        if match is None:
            raise CheckpointError(f"The adapter file has the key {key!r}, which is no LoRA matrix of a task.")
        file_tasks.add(match["task"])
        if match["task"] not in tasks:
            continue
        target = f"{rename(match['path'])}.lora_{match['part']}.{match['task']}.weight"
        if target not in shapes:
            raise CheckpointError(f"The adapter file has {key!r}, but adapter_config.json has no adapter there.")
        if files.shape(key) != shapes[target]:
            raise CheckpointError(
                f"The adapter matrix {key!r} has the shape {files.shape(key)}, but rank and model ask for "
                f"{shapes[target]}."
            )
        value = checked_tensor(files.tensor(key), key, placement)
        if match["part"] == "B" and bool(value.any()):
            empty[match["task"]] = False
        put(module, target, value)
        targets.add(target)
    for task in tasks:
        if task not in file_tasks:
            raise CheckpointError(f"The adapter file has no task {task!r}; it has {', '.join(sorted(file_tasks))}.")
    missing_targets = [target for target in shapes if target not in targets]
    if missing_targets:
        raise CheckpointError(
            f"The adapter file lacks {missing_targets[0]!r} and {len(missing_targets) - 1} more matrices."
        )
    for task, zero in empty.items():
        if zero:
            raise CheckpointError(
                f"All lora_B matrices of the task {task!r} are zero: the adapter was never filled. Download it again."
            )


def merge_adapter(module: nn.Module, task: str) -> None:
    """Add an adapter to the weights and take the machinery out: the same vectors, without its time."""
    for path, layer in list(_layers(module)):
        layer.merge(adapter_names=[task])
        parent_path, _, leaf = path.rpartition(".")
        parent = module.get_submodule(parent_path) if parent_path else module
        setattr(parent, leaf, layer.get_base_layer())


def activate(module: nn.Module, task: str) -> None:
    """Make `task` the adapter that the next forward pass uses. State of the module: hold its lock."""
    for _, layer in _layers(module):
        layer.set_adapter(task)
        layer.requires_grad_(False)


def _layers(module: nn.Module) -> list[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return [(path, layer) for path, layer in module.named_modules() if isinstance(layer, LoraLayer)]
