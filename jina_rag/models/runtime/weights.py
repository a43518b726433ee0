"""Reads safetensors into modules that hold no memory yet, and refuses whatever does not fit.

Modules are built on the meta device and filled tensor by tensor. On the CPU, in the stored dtype, a tensor is a view
of the mapped file: loading costs no memory beyond the file's pages. Nothing is ever left as it was initialised: a
missing key is an error (transformers only prints a report, and the model would be random).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from jina_rag.errors import CheckpointError
from jina_rag.models.runtime.devices import Placement

_LISTED = 3
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class WeightFiles:
    """The tensors of one or several safetensors files, by key. A context manager."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._stack = ExitStack()
        self._where: dict[str, Any] = {}
        self._file: dict[str, Path] = {}

    def __enter__(self) -> WeightFiles:
        with ExitStack() as stack:
            for path in self._paths:
                try:
                    file = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
                    keys = list(file.keys())
                except (SafetensorError, OSError) as exc:
                    raise CheckpointError(
                        f"The weight file {path} is damaged or cut off ({exc}): download it again."
                    ) from exc
                for key in keys:
                    if key in self._where:
                        raise CheckpointError(f"The tensor {key!r} is in both {self._file[key].name} and {path.name}.")
                    self._where[key], self._file[key] = file, path
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._where.clear()
        self._stack.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape that the header states."""
        return tuple(self._where[key].get_slice(key).get_shape())

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor, as a view of the mapped file."""
        tensor: torch.Tensor = self._where[key].get_tensor(key)
        return tensor

    def total_bytes(self) -> int:
        """Bytes of all tensors, as stored."""
        slices = (file.get_slice(key) for key, file in self._where.items())
        return sum(math.prod(part.get_shape()) * _DTYPES.get(part.get_dtype(), torch.int8).itemsize for part in slices)

    def stored_dtype(self) -> torch.dtype:
        """The float type that most tensors are stored in."""
        kinds = Counter(file.get_slice(key).get_dtype() for key, file in self._where.items())
        floats = [_DTYPES[kind] for kind, _ in kinds.most_common() if kind in _DTYPES]
        return floats[0] if floats else torch.float32


def fill(
    module: nn.Module,
    files: WeightFiles,
    placement: Placement,
    *,
    rename: Callable[[str], str] = str,
    ignore: Iterable[str] = (),
    allow_unexpected: bool = False,
) -> None:
    """Put the tensors of `files` into the parameters of `module`.

    Args:
        module: Its parameters may be on the meta device.
        files: The checkpoint.
        placement: Where the parameters go, and what they are converted to.
        rename: From a key of the file to the name of a parameter.
        ignore: Patterns of keys that may be there and are not used.
        allow_unexpected: Whether other unused keys are let pass.

    Raises:
        CheckpointError: If a parameter has no tensor, a tensor no parameter, a shape differs, or a value is not a
            number; the key is named.
    """
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    patterns = [re.compile(pattern) for pattern in ignore]
    sources: dict[str, str] = {}
    unexpected: list[str] = []
    for key in files:
        target = rename(key)
        if target not in shapes:
            if not any(pattern.fullmatch(key) for pattern in patterns):
                unexpected.append(key)
        elif target in sources:
            raise CheckpointError(f"The keys {sources[target]!r} and {key!r} both stand for {target!r}.")
        else:
            sources[target] = key
    _refuse_missing([name for name in shapes if name not in sources], unexpected)
    if unexpected and not allow_unexpected:
        raise CheckpointError(
            f"The checkpoint has {_keys(unexpected)} that this model does not use: it is of another kind, or made by a "
            "newer version. Load with allow_unexpected=True to use it all the same."
        )
    for target, key in sources.items():
        if files.shape(key) != shapes[target]:
            raise CheckpointError(
                f"The tensor {key!r} has the shape {files.shape(key)}, but the config asks for {shapes[target]}."
            )
    for target, key in sources.items():
        put(module, target, checked_tensor(files.tensor(key), key, placement))


def checked_tensor(tensor: torch.Tensor, key: str, placement: Placement) -> torch.Tensor:
    """A tensor where and as it is wanted, checked to hold numbers.

    Raises:
        CheckpointError: If a value is NaN or infinite.
    """
    dtype = placement.dtype if tensor.is_floating_point() else tensor.dtype
    result = tensor.to(device=placement.device, dtype=dtype)
    if result.is_floating_point() and result.numel():
        low, high = torch.aminmax(result)  # one pass, no copy; NaN goes through both
        if not (math.isfinite(low.item()) and math.isfinite(high.item())):
            raise CheckpointError(f"The tensor {key!r} holds NaN or infinite values: download the model again.")
    return result


def put(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Make `tensor` the parameter or buffer `name` of a module."""
    path, _, leaf = name.rpartition(".")
    parent = module.get_submodule(path) if path else module
    if leaf in parent._parameters:
        parent._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        parent._buffers[leaf] = tensor


def renamer(patterns: Mapping[str, str]) -> Callable[[str], str]:
    """A function that applies the first pattern that matches the start of a key."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in patterns.items()]

    def rename(key: str) -> str:
        for pattern, replacement in compiled:
            renamed, count = pattern.subn(replacement, key, count=1)
            if count:
                return renamed
        return key

    return rename


def _refuse_missing(missing_keys: list[str], unexpected: list[str]) -> None:
    if not missing_keys:
        return
    hint = f" It has {_keys(unexpected)} instead." if unexpected else ""
    raise CheckpointError(
        f"The checkpoint lacks {_keys(missing_keys)}.{hint} It is incomplete or of another kind: download it again."
    )


def _keys(keys: Sequence[str]) -> str:
    names = ", ".join(repr(key) for key in keys[:_LISTED])
    return names if len(keys) <= _LISTED else f"{names} and {len(keys) - _LISTED} more keys"
