"""Offloading of idle models to host memory, on devices that are too small for all loaded models.

During a call, the weights of the called model stay on the device. A call of an offloaded model waits until enough idle
models are offloaded, beginning with the least recently used model. Waiting threads are served in order. If all models
fit on the device, no model is moved. accelerate's offload hooks are not used, because accelerate has no queue of
waiting threads.
"""

from __future__ import annotations

import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from jina_rag._forks import after_fork_in_child
from jina_rag.errors import ModelError
from jina_rag.models.runtime.devices import free_memory, is_out_of_memory, release_memory

_log = logging.getLogger("jina_rag")
_REMEDY = "Close other programs to free memory, or pass dtype='bfloat16' (--dtype) or device='cpu' (--device)."
_devices: dict[str, SharedDevice] = {}


class OffloadedWeights:
    """Parameters and buffers of one model, initially on `device`; `on_offload` is called after each offload."""

    def __init__(self, name: str, module: torch.nn.Module, device: torch.device) -> None:
        self.name, self.module, self.device = name, module, shared_device(device)
        self.present, self.users, self.last_use = True, 0, next(self.device.clock)
        self.on_offload: Callable[[], object] = bool
        with self.device.changed:
            self.device.models.add(self)

    @property
    def bytes(self) -> int:
        """Size of all parameters and buffers in bytes."""
        return sum(value.nbytes for value in (*self.module.parameters(), *self.module.buffers()))

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Keep the weights on the device until the context ends; contexts of one model must not be nested.

        Raises:
            ModelError: If the weights do not fit into the device's memory.
        """
        with self.device.changed:
            if not self.present or (self.device.queue and not self.device.is_loading):
                with self.device.first_in_queue(lambda: self.present or self.device.has_room(self.name, self.bytes)):
                    if not self.present:
                        self.device.move_weights(self, to_device=True)
            self.users += 1
        try:
            yield
        finally:
            with self.device.changed:
                self.users -= 1
                self.last_use = next(self.device.clock)
                self.device.changed.notify_all()


class SharedDevice:
    """The models of one device and the queue of threads that wait for memory.

    Args:
        device: Device that the models share.
        margin: Memory in bytes to keep free for activations, in addition to the weights.
    """

    def __init__(self, device: torch.device, margin: int = 1024**3) -> None:
        self.device, self.margin, self.clock = device, margin, itertools.count()
        self.models: weakref.WeakSet[OffloadedWeights] = weakref.WeakSet()
        self.changed, self.queue = threading.Condition(), list[object]()
        self.is_loading = self._has_warned = False

    def renew(self) -> None:
        """Forget the threads that use or wait for the device. Called in a forked child, which has none of them."""
        self.changed, self.queue, self.is_loading = threading.Condition(), [], False
        for model in self.models:
            model.users = 0

    def free(self) -> float:
        """Return the free memory in bytes; infinite on the CPU, where models are never offloaded."""
        return float("inf") if self.device.type == "cpu" else free_memory(self.device)

    def move(self, module: torch.nn.Module, *, to_device: bool) -> None:
        """Move a module to the device if `to_device`, else to host memory."""
        module.to(self.device if to_device else "cpu")
        release_memory(self.device)

    @contextmanager
    def first_in_queue(self, is_ready: Callable[[], bool]) -> Iterator[None]:
        """Wait until earlier threads are served and `is_ready` is True; later threads wait until the context ends."""
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
        """Free memory for a new model, and block moves of other models until the context ends.

        Args:
            name: Name of the model, for messages.
            size: Size of the new model's weights in bytes.

        Raises:
            ModelError: If the model does not fit into the device's memory.
        """
        with self.first_in_queue(lambda: self.has_room(name, size)):
            self.is_loading = True
            try:
                yield
            except (RuntimeError, MemoryError) as exc:
                if not is_out_of_memory(exc):
                    raise
                raise ModelError(f"{name} does not fit into the memory of {self.device}. {_REMEDY}") from exc
            finally:
                self.is_loading = False

    def has_room(self, name: str, size: int) -> bool:
        """Offload idle models if necessary, and return whether a model of `size` bytes can be loaded.

        If a loaded model is in use, `size` bytes plus the margin must be free. If no model is in use, `size` bytes are
        enough.

        Args:
            name: Name of the model to load, for messages.
            size: Size of the weights to load in bytes.

        Raises:
            ModelError: If no model is in use and fewer than `size` bytes are free.
        """
        self.offload_idle(name, size + self.margin)
        free, is_idle = self.free(), not any(model.users for model in self.models)
        if is_idle and free < size:
            free_gb = f"{max(free, 0) / 1e9:.1f} GB are free"
            raise ModelError(f"{name} needs {size / 1e9:.1f} GB on {self.device}; {free_gb}. {_REMEDY}")
        return is_idle or free >= size + self.margin

    def offload_idle(self, room_for: str, needed: float = float("inf")) -> bool:
        """Offload idle models until `needed` bytes are free, and return whether the device held an idle model.

        If `needed` bytes are already free, or while a model is being loaded, return False without moving a model.

        Args:
            room_for: Name of the model that needs the memory, for messages.
            needed: Number of bytes that must be free; infinity offloads all idle models.
        """
        with self.changed:
            if self.is_loading or self.free() >= needed:
                return False
            idle = sorted((m for m in self.models if m.present and not m.users), key=lambda model: model.last_use)
            for model in idle:
                if self.free() < needed:
                    self.move_weights(model, to_device=False, room_for=room_for)
            return bool(idle)

    def move_weights(self, model: OffloadedWeights, *, to_device: bool, room_for: str = "") -> None:
        """Move the weights of a model to or from the device; a failed move is undone.

        Args:
            model: Weights to move.
            to_device: Whether to move the weights to the device; False moves them to host memory.
            room_for: Name of the model that needs the memory, for messages.

        Raises:
            ModelError: If the weights do not fit into the target memory.
        """
        if room_for and not self._has_warned:
            self._has_warned = True
            names = f"{room_for} and {model.name} do not fit into the memory of {self.device} together"
            _log.warning("%s. Each switch between the models copies weights, which takes time.", names)
        model.present = False  # after an interrupted move, the next use moves all weights to the device
        with torch.inference_mode(False), torch.no_grad():  # tensors of inference mode would be unusable elsewhere
            try:
                self.move(model.module, to_device=to_device)
            except BaseException as exc:  # includes KeyboardInterrupt
                self.move(model.module, to_device=not to_device)
                model.present = not to_device
                if not is_out_of_memory(exc):
                    raise
                memory = f"the memory of {self.device}" if to_device else "host memory"
                raise ModelError(f"{model.name} does not fit into {memory}. {_REMEDY}") from exc
        model.present = to_device
        if not to_device:
            model.on_offload()


def shared_device(device: torch.device) -> SharedDevice:
    """Return the `SharedDevice` of a device; ``"cuda"`` returns the object of the current ``"cuda:N"``."""
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return _devices.setdefault(str(device), SharedDevice(device))


def _renew_devices() -> None:
    for device in _devices.values():
        device.renew()


after_fork_in_child(_renew_devices)
