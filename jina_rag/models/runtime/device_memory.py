"""A device's memory, as far as models that take turns on it must know it: what is free, and how weights move.

`jina_rag.models.runtime.offload` decides who moves; a memory that only counts can stand in for a card.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from jina_rag.models.runtime.devices import free_memory, release_memory

_MARGIN = 1024**3
"""Bytes kept free beside the weights, for what flows through them, as long as another model can leave for it."""


class Memory(Protocol):
    """A device's memory.

    Attributes:
        margin: Bytes to keep free beside the weights.
    """

    margin: int

    def free(self) -> int:
        """Bytes that can be had."""
        ...

    def bring(self, module: nn.Module) -> None:
        """Move a module here."""
        ...

    def take(self, module: nn.Module) -> None:
        """Move a module to main memory."""
        ...


class CardMemory:
    """The memory of a GPU; implements `Memory`."""

    margin = _MARGIN

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> int:
        """Bytes that the driver has left, and those that PyTorch holds without using them."""
        return free_memory(self._device)

    def bring(self, module: nn.Module) -> None:
        """Move a module here."""
        module.to(self._device)

    def take(self, module: nn.Module) -> None:
        """Move a module to main memory."""
        module.to("cpu")
        release_memory(self._device)
