"""Protocol of the sources of weights: the files of a checkpoint, or tensors that are made without files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch


class WeightSource(Protocol):
    """Tensors by key; `WeightFiles` reads them from files. Iteration yields the keys.

    Attributes:
        folder: Folder that error messages name.
    """

    folder: Path

    def __iter__(self) -> Iterator[str]: ...

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor, without reading the values.

        Args:
            key: Key of the tensor.
        """
        ...

    def tensor(self, key: str) -> torch.Tensor:
        """Return a tensor in the stored shape and dtype, on any device.

        Args:
            key: Key of the tensor.
        """
        ...

    def total_bytes(self) -> int:
        """Return the total size of all tensors in bytes, as stored."""
        ...

    def stored_dtype(self) -> torch.dtype:
        """Return the most frequent floating-point dtype of the tensors; float32 if none is floating-point."""
        ...


WeightOpener: TypeAlias = "Callable[[Sequence[Path]], AbstractContextManager[WeightSource]]"
"""Function that opens weight files and returns the tensors in a context manager."""
