"""Loading of weights into modules on the meta device, with strict checks of keys, shapes and values.

The tensors come from a `WeightSource`: the safetensors files of a checkpoint, or another source that the checkpoint
names. Modules are built on the meta device, without memory, and filled tensor by tensor. On the CPU, a tensor that
keeps the stored dtype is a view of the memory-mapped file and needs no further memory. A missing key raises an error,
whereas transformers prints a report and leaves the parameter randomly initialized.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from jina_rag.errors import CheckpointError
from jina_rag.models.runtime.checkpoints import Checkpoint
from jina_rag.models.runtime.devices import Placement
from jina_rag.models.runtime.weight_source import WeightSource

_MAX_LISTED_KEYS = 3
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class WeightFiles:
    """Context manager that opens safetensors files and returns the tensors by key; implements `WeightSource`.

    Args:
        paths: Safetensors files of one folder; each key must occur in only one file.

    Attributes:
        folder: Folder of the files.

    Raises:
        CheckpointError: On entry, if a file is missing or damaged, or a key occurs twice.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths, self.folder = paths, paths[0].parent
        self._stack = ExitStack()
        self._file_of: dict[str, Any] = {}
        self._path_of: dict[str, Path] = {}

    def __enter__(self) -> WeightFiles:
        with ExitStack() as stack:
            for path in self._paths:
                try:
                    file = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
                    keys = list(file.keys())
                except FileNotFoundError as exc:
                    raise CheckpointError(f"{path.parent} has no {path.name}. Download the model again.") from exc
                except (SafetensorError, OSError) as exc:
                    raise CheckpointError(
                        f"The weight file {path} is damaged or truncated ({exc}). Download the model again."
                    ) from exc
                for key in keys:
                    if key in self._file_of:
                        other = self._path_of[key].name
                        raise CheckpointError(f"{path} and {other} both contain {key!r}. Download the model again.")
                    self._file_of[key], self._path_of[key] = file, path
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._file_of.clear()
        self._stack.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor, as stated in the file's header."""
        return tuple(self._file_of[key].get_slice(key).get_shape())

    def tensor(self, key: str) -> torch.Tensor:
        """Return a tensor in the stored shape and dtype, as a view of the memory-mapped file.

        Raises:
            CheckpointError: If the dtype is not supported, or the tensor is damaged.
        """
        try:
            tensor: torch.Tensor = self._file_of[key].get_tensor(key)
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as exc:
            raise CheckpointError(
                f"The tensor {key!r} in {self._path_of[key]} cannot be read ({exc}). Download the model again."
            ) from exc
        return tensor

    def total_bytes(self) -> int:
        """Return the total size of all tensors in bytes, as stored."""
        slices = (file.get_slice(key) for key, file in self._file_of.items())
        return sum(math.prod(part.get_shape()) * _DTYPES.get(part.get_dtype(), torch.int8).itemsize for part in slices)

    def stored_dtype(self) -> torch.dtype:
        """Return the most frequent floating-point dtype of the tensors; float32 if none is floating-point."""
        counts = Counter(file.get_slice(key).get_dtype() for key, file in self._file_of.items())
        dtypes = [_DTYPES[name] for name, _ in counts.most_common() if name in _DTYPES]
        return dtypes[0] if dtypes else torch.float32


def open_weights(checkpoint: Checkpoint, paths: Sequence[Path] | None = None) -> AbstractContextManager[WeightSource]:
    """Open weight files with the opener of a checkpoint.

    Args:
        checkpoint: Checkpoint that selects the opener.
        paths: Files to open; None for the weights of the checkpoint, without adapters.

    Raises:
        CheckpointError: On entry of the context, if a file is missing or damaged, or a key occurs twice.
    """
    return (checkpoint.opener or WeightFiles)(checkpoint.weights if paths is None else paths)


def load(
    module: nn.Module,
    files: WeightSource,
    placement: Placement,
    *,
    rename: Callable[[str], str] = str,
    ignore: Iterable[str] = (),
    allow_unexpected: bool = False,
) -> None:
    """Load the tensors of `files` into the parameters of `module`.

    Args:
        module: Target module, whose parameters may be on the meta device.
        files: Open weight files of the checkpoint.
        placement: Device and dtype of the parameters.
        rename: Function that maps a key in the files to a parameter name.
        ignore: Regular expressions for keys that the files may contain, but that are not loaded.
        allow_unexpected: Whether to ignore all tensors that the module does not use.

    Raises:
        CheckpointError: If a parameter has no tensor, a tensor has no parameter, a shape differs, or a value is NaN or
            infinite. The message names the key.
    """
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    patterns = [re.compile(pattern) for pattern in ignore]
    key_of: dict[str, str] = {}
    unexpected: list[str] = []
    for key in files:
        target = rename(key)
        if target not in shapes:
            if not any(pattern.fullmatch(key) for pattern in patterns):
                unexpected.append(key)
        elif target in key_of:
            raise CheckpointError(
                f"{files.folder} contains {target!r} twice: {key_of[target]!r} and {key!r}. Download the model again."
            )
        else:
            key_of[target] = key
    _check_missing(files.folder, [name for name in shapes if name not in key_of], unexpected)
    if unexpected and not allow_unexpected:
        raise CheckpointError(
            f"{files.folder} contains {_quote(unexpected)}, which the model does not use. The checkpoint may be of "
            "another model or version. Pass allow_unexpected=True to ignore unused tensors."
        )
    for target, key in key_of.items():
        if files.shape(key) != shapes[target]:
            raise CheckpointError(
                f"The tensor {key!r} in {files.folder} has shape {files.shape(key)}; the config requires "
                f"{shapes[target]}. Download the model again."
            )
    for target, key in key_of.items():
        set_tensor(module, target, convert_tensor(files, key, placement))


def convert_tensor(files: WeightSource, key: str, placement: Placement) -> torch.Tensor:
    """Return a tensor in the stored shape, on the device and in the dtype of `placement`.

    Floating-point values are checked for NaN and infinity. Integer tensors keep the stored dtype.

    Args:
        files: Open weight files.
        key: Key of the tensor in `files`.
        placement: Device and dtype of the result.

    Raises:
        CheckpointError: If a value is NaN or infinite.
    """
    tensor = files.tensor(key)
    dtype = placement.dtype if tensor.is_floating_point() else tensor.dtype
    result = tensor.to(device=placement.device, dtype=dtype)
    if result.is_floating_point() and result.numel():
        low, high = torch.aminmax(result)  # one pass without a copy; NaN if any value is NaN
        if not (math.isfinite(low.item()) and math.isfinite(high.item())):
            raise CheckpointError(
                f"The tensor {key!r} in {files.folder} contains NaN or infinity. Download the model again."
            )
    return result


def set_tensor(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Set the parameter or buffer `name` of a module to `tensor`.

    Args:
        module: Module to change.
        name: Dotted path of the parameter or buffer.
        tensor: New value, in the shape of the parameter.
    """
    path, _, leaf = name.rpartition(".")
    parent = module.get_submodule(path) if path else module
    if leaf in parent._parameters:
        parent._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        parent._buffers[leaf] = tensor


def renamer(patterns: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that renames keys by the first regular expression that matches.

    Args:
        patterns: Replacement of each regular expression, in order of precedence.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in patterns.items()]

    def rename(key: str) -> str:
        for pattern, replacement in compiled:
            renamed, count = pattern.subn(replacement, key, count=1)
            if count:
                return renamed
        return key

    return rename


def _check_missing(folder: Path, missing_keys: list[str], unexpected: list[str]) -> None:
    if not missing_keys:
        return
    hint = f" and contains {_quote(unexpected)} instead" if unexpected else ""
    raise CheckpointError(
        f"{folder} lacks {_quote(missing_keys)}{hint}. The checkpoint is incomplete or of another model. Download the "
        "model again."
    )


def _quote(keys: Sequence[str]) -> str:
    names = ", ".join(repr(key) for key in keys[:_MAX_LISTED_KEYS])
    return names if len(keys) <= _MAX_LISTED_KEYS else f"{names} and {len(keys) - _MAX_LISTED_KEYS} more keys"
