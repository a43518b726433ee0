"""Random weights: tensors that are drawn on a device when a model is loaded, instead of being read from files."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import torch


class RandomWeights:
    """Random tensors by key, drawn when they are read; implements `jina_rag.models.runtime.weights.WeightSource`.

    The values of a tensor depend on the seed, the key, the dtype and the kind of device only, so two models that read
    the same keys have equal weights.

    Attributes:
        folder: Folder of the checkpoint, for messages.

    Args:
        folder: Folder of the checkpoint.
        shapes: Shape of each tensor by key.
        device: Device on which the tensors are drawn, for example ``"cuda"``.
        dtype: Dtype of the tensors: ``"bfloat16"``, ``"float16"`` or ``"float32"``.
        seed: Seed of the values.
    """

    def __init__(
        self, folder: Path, shapes: Mapping[str, tuple[int, ...]], *, device: str, dtype: str, seed: int
    ) -> None:
        self.folder, self._shapes, self._seed = folder, shapes, seed
        self._generator = torch.Generator(device=device)
        self._dtype: torch.dtype = getattr(torch, dtype)

    def __enter__(self) -> RandomWeights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor.

        Args:
            key: Key of the tensor.
        """
        return self._shapes[key]

    def tensor(self, key: str) -> torch.Tensor:
        """Draw a tensor on the device and return it; repeated calls return equal values.

        Args:
            key: Key of the tensor.

        Returns:
            Random values, shape `shape(key)`, in the dtype of `stored_dtype`.
        """
        self._generator.manual_seed(self._seed + zlib.crc32(key.encode()))
        return draw_tensor(key, self._shapes[key], self._generator, self._dtype)

    def total_bytes(self) -> int:
        """Return the total size of all tensors in bytes."""
        return sum(math.prod(shape) for shape in self._shapes.values()) * self._dtype.itemsize

    def stored_dtype(self) -> torch.dtype:
        """Return the dtype of all tensors."""
        return self._dtype


def draw_tensor(key: str, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    """Return random values that keep activations at about 1: norm weights near 1, other weights scaled by fan-in.

    Args:
        key: Key of the tensor in the published layout, which selects the distribution.
        shape: Shape of the result.
        generator: Source of the random numbers, which selects the device.
        dtype: Dtype of the result.
    """
    tensor = torch.empty(shape, dtype=dtype, device=generator.device)
    if len(shape) == 1:
        norm = key.endswith("weight")  # a one-dimensional tensor is a norm weight or a bias
        return tensor.normal_(1.0 if norm else 0.0, 0.1 if norm else 0.02, generator=generator)
    if "embed" in key.rsplit(".", 2)[-2] or key.startswith("shared"):
        return tensor.normal_(0, 0.02 if "token_type" in key else 0.5, generator=generator)
    # Small adapter weights change the values of the outputs, but hardly the scale of the outputs.
    scale = 0.3 if ".lora_B" in key else 0.7
    return tensor.normal_(0, scale / math.sqrt(math.prod(shape[1:])), generator=generator)
