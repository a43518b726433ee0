"""Offloads idle models to main memory where a device is too small for all of them. Where all fit, nothing moves.

Each call holds its model's weights on the device. A model whose weights are away waits until enough idle ones have
left, the least recently used first; threads are served in order. accelerate's offload hooks neither wait nor queue.
"""

from __future__ import annotations

import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from jina_rag.errors import ModelError
from jina_rag.models.runtime.devices import free_memory, is_out_of_memory, release_memory

_log = logging.getLogger("jina_rag")
_WAY_OUT = "close what else uses it, load the model with dtype='bfloat16', or with device='cpu'."
_devices: dict[str, SharedDevice] = {}


class OffloadedWeights:
    """The parameters and buffers of one model, now on `device`; `on_offload` is called whenever they have left it."""

    def __init__(self, name: str, module: torch.nn.Module, device: torch.device) -> None:
        self.name, self.module, self.device = name, module, shared_device(device)
        self.present, self.users, self.last_use = True, 0, next(self.device.clock)
        self.on_offload: Callable[[], object] = bool
        with self.device.changed:
            self.device.models.add(self)

    @property
    def bytes(self) -> int:
        """Bytes of all that moves."""
        return sum(value.nbytes for value in (*self.module.parameters(), *self.module.buffers()))

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Keep the weights on their device until the end; not to be nested. ModelError if they cannot fit."""
        with self.device.changed:
            if not self.present or (self.device.queue and not self.device.is_loading):
                with self.device.first_in_queue(lambda: self.present or self.device.has_room(self.name, self.bytes)):
                    if not self.present:
                        self.device.move_weights(self, here=True)
            self.users += 1
        try:
            yield
        finally:
            with self.device.changed:
                self.users -= 1
                self.last_use = next(self.device.clock)
                self.device.changed.notify_all()


class SharedDevice:
    """The models of one device and the threads that wait for it; `margin` bytes are kept free beside the weights."""

    def __init__(self, device: torch.device, margin: int = 1024**3) -> None:
        self.device, self.margin, self.clock = device, margin, itertools.count()
        self.models: weakref.WeakSet[OffloadedWeights] = weakref.WeakSet()
        self.changed, self.queue = threading.Condition(), list[object]()
        self.is_loading = self._has_warned = False

    def free(self) -> float:
        """Bytes that can be had; on the CPU nothing has to leave."""
        return float("inf") if self.device.type == "cpu" else free_memory(self.device)

    def move(self, module: torch.nn.Module, *, here: bool) -> None:
        """Move a module to the device, or to main memory."""
        module.to(self.device if here else "cpu")
        release_memory(self.device)

    @contextmanager
    def first_in_queue(self, is_ready: Callable[[], bool]) -> Iterator[None]:
        """Wait for those who came before, and until `is_ready`; those who come later wait until the end."""
        self.queue.append(ticket := object())
        try:
            with self.changed:
                self.changed.wait_for(lambda: self.queue[0] is ticket and is_ready())
            yield
        finally:
            with self.changed:
                self.queue.remove(ticket)
                self.changed.notify_all()

    @contextmanager
    def loading(self, name: str, size: int) -> Iterator[None]:
        """Make room for a model of `size` bytes, and let none come or leave until it is loaded."""
        with self.first_in_queue(lambda: self.has_room(name, size)):
            self.is_loading = True
            try:
                yield
            except (RuntimeError, MemoryError) as exc:
                if not is_out_of_memory(exc):
                    raise
                raise ModelError(f"{name} does not fit onto {self.device}: {_WAY_OUT}") from exc
            finally:
                self.is_loading = False

    def has_room(self, name: str, size: int) -> bool:
        """Whether there is room, after offloading what is idle; False if a model in use may make some."""
        self.offload_idle(name, size + self.margin)
        free, is_idle = self.free(), not any(model.users for model in self.models)
        if is_idle and free < size:
            free_gb = f"{max(free, 0) / 1e9:.1f} GB are free there"
            raise ModelError(f"{name} needs {size / 1e9:.1f} GB on {self.device}, and {free_gb}: {_WAY_OUT}")
        return is_idle or free >= size + self.margin

    def offload_idle(self, room_for: str, needed: float = float("inf")) -> bool:
        """Offload models that nobody uses until `needed` bytes are free; whether there was one."""
        with self.changed:
            if self.is_loading or self.free() >= needed:
                return False
            idle = sorted((m for m in self.models if m.present and not m.users), key=lambda model: model.last_use)
            for model in idle:
                if self.free() < needed:
                    self.move_weights(model, here=False, room_for=room_for)
            return bool(idle)

    def move_weights(self, model: OffloadedWeights, *, here: bool, room_for: str = "") -> None:
        """Move all of a model, or nothing of it."""
        if room_for and not self._has_warned:
            self._has_warned = True
            names = f"{room_for} and {model.name} do not fit into the memory of {self.device} together"
            _log.warning("%s: they take turns, which costs a copy of the weights each time.", names)
        model.present = False  # whatever stops it half-way, the next use brings all of it
        with torch.inference_mode(False), torch.no_grad():  # a tensor made in inference mode is of no use outside
            try:
                self.move(model.module, here=here)
            except BaseException as exc:  # also Ctrl-C
                self.move(model.module, here=not here)
                model.present = not here
                if not is_out_of_memory(exc):
                    raise
                where = self.device if here else "main memory"
                raise ModelError(f"{model.name} does not fit into {where}: {_WAY_OUT}") from exc
        model.present = here
        if not here:
            model.on_offload()


def shared_device(device: torch.device) -> SharedDevice:
    """The one `SharedDevice` of a device, whatever it is called."""
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return _devices.setdefault(str(device), SharedDevice(device))
