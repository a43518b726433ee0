"""Models that share a card too small for all of them take turns on it.

Whoever wants to run holds a turn for as long as a call lasts. If a model's weights are away, they come onto the
device first, and those of others that nobody runs leave for main memory, the least recently used one first. Where all
of them fit, nothing ever moves and a turn costs one lock. On the CPU there is nothing to take turns for.

There is one lock for each device, and nothing else is waited for while it is held; a thread holds turns of one model
at a time. So two models in two threads cannot stop each other. Turns that must wait are given in the order in which
they were asked for.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager as Context
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import nn

from jina_rag.errors import ModelError
from jina_rag.models.runtime.device_memory import CardMemory, Memory
from jina_rag.models.runtime.devices import is_out_of_memory, release_memory

_log = logging.getLogger("jina_rag")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


class Seat:
    """A loaded model's place on its device. The model holds it; it leaves the register with the model."""

    def __init__(self, name: str, module: nn.Module, device: torch.device) -> None:
        """Register a model whose weights are on `device` now.

        Args:
            name: Of the model, for messages.
            module: All that moves: weights, adapters, buffers.
            device: Where it runs.
        """
        self.name = name
        self.module = module
        self.present = True
        self.users = 0
        self.used = 0
        self._callbacks: list[Callable[[], Callable[[], object] | None]] = []
        self._held = threading.local()
        self._register = register_of(device)
        if self._register is not None:
            self._register.add(self)

    @property
    def bytes(self) -> int:
        """Of its weights and buffers."""
        return sum(value.nbytes for value in (*self.module.parameters(), *self.module.buffers()))

    def on_leave(self, callback: Callable[[], object]) -> None:
        """Have something else on the device released whenever the weights leave it.

        Args:
            callback: Called while no turn is held on this model. It may not take a turn, nor wait for a thread that
                does. A bound method keeps its object alive no longer than others do.
        """
        self._callbacks.append(weakref.WeakMethod(callback) if inspect.ismethod(callback) else lambda: callback)

    def left(self) -> None:
        """Call what waits for the weights to leave: all of it, also if some of it raises."""
        with ExitStack() as every:
            for reference in reversed(self._callbacks):
                callback = reference()
                if callback is not None:
                    every.callback(callback)

    def turn(self) -> Context[None]:
        """Have the weights on their device, and keep them there until the end. A thread may nest turns of one model.

        Raises:
            ModelError: If the device is too small for this model alone.
        """
        return nullcontext() if self._register is None else self._turn(self._register)

    @contextmanager
    def _turn(self, register: Register) -> Iterator[None]:
        depth = getattr(self._held, "depth", 0)
        if not depth:
            register.enter(self)
        self._held.depth = depth + 1
        try:
            yield
        finally:
            self._held.depth = depth
            if not depth:
                register.leave(self)

    def roomy(self, compute: Callable[[Prepared], Result]) -> Callable[[Prepared], Result]:
        """The same function, tried once more without the models that nobody runs if memory runs out."""
        register = self._register
        if register is None:
            return compute

        def run(prepared: Prepared) -> Result:
            try:
                return compute(prepared)
            except (RuntimeError, MemoryError) as exc:
                if not is_out_of_memory(exc) or not register.clear(self):
                    raise
            # Outside of `except`, whose traceback held what was computed so far.
            release_memory(register.device)
            return compute(prepared)

        return run


class Register:
    """Which models have their weights on one device."""

    def __init__(self, device: torch.device, memory: Memory) -> None:
        self.device = device
        self._memory = memory
        self._seats: list[weakref.ref[Seat]] = []
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._loading = False
        self._arrived: list[Seat] = []
        self._clock = 0
        self._told = False
        self._thread = threading.local()

    def add(self, seat: Seat) -> None:
        """Take note of a model that was loaded."""
        with self._changed:
            self._use(seat)
            if self._loading:  # not complete yet: it must not leave before it is
                seat.users += 1
                self._arrived.append(seat)
            self._seats = [*(reference for reference in self._seats if reference() is not None), weakref.ref(seat)]

    def enter(self, seat: Seat) -> None:
        """Wait for a turn, and bring the weights if they are away."""
        assert not getattr(self._thread, "inside", False), "a thread runs one model at a time"
        with self._changed:
            if self._queue or not seat.present:
                with self._in_order():
                    while not seat.present:
                        if not self._loading and self._has_room(seat.name, seat.bytes):
                            self._bring(seat)
                        else:
                            self._changed.wait()
            seat.users += 1
            self._use(seat)
        self._thread.inside = True

    def leave(self, seat: Seat) -> None:
        """End a turn."""
        self._thread.inside = False
        with self._changed:
            seat.users -= 1
            self._use(seat)
            self._changed.notify_all()

    @contextmanager
    def loading(self, name: str, size: int) -> Iterator[None]:
        """Room for a model of `size` bytes that is about to be loaded; no other one comes meanwhile."""
        with self._changed:
            with self._in_order():
                while self._loading or not self._has_room(name, size):
                    self._changed.wait()
            self._loading = True
        try:
            yield
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            raise ModelError(
                f"{name} does not fit onto {self.device}: load it with dtype='bfloat16', or with device='cpu'."
            ) from exc
        finally:
            with self._changed:
                self._loading = False
                for seat in self._arrived:
                    seat.users -= 1
                self._arrived.clear()
                self._changed.notify_all()

    def clear(self, keep: Seat) -> bool:
        """Send all models away that nobody runs, but `keep`; whether there was one."""
        with self._changed:
            leaving = [seat for seat in self._idle() if seat is not keep]
            try:
                for seat in leaving:
                    self._tell(keep.name, seat.name)
                    self._take(seat)
            finally:
                self._changed.notify_all()
            return bool(leaving)

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        """Wait until those who asked before have got what they wanted."""
        ticket = object()
        self._queue.append(ticket)
        try:
            while self._queue[0] is not ticket:
                self._changed.wait()
            yield
        finally:
            self._queue.remove(ticket)
            self._changed.notify_all()

    def _has_room(self, name: str, size: int) -> bool:
        """Whether there is room now, after sending away what can leave; False if something in use may make it."""
        wanted = size + self._memory.margin
        for seat in self._idle():
            if self._memory.free() >= wanted:
                return True
            self._tell(name, seat.name)
            self._take(seat)
        free = self._memory.free()
        if free >= wanted:
            return True
        if any(seat.users for seat in self._present()):
            return False
        if free >= size:
            return True
        raise ModelError(
            f"{name} needs {size / 1e9:.1f} GB on {self.device}, and {max(free, 0) / 1e9:.1f} GB are free there: close "
            "what else uses it, load the model with dtype='bfloat16', or with device='cpu'."
        )

    def _present(self) -> list[Seat]:
        seats = [seat for reference in self._seats if (seat := reference()) is not None and seat.present]
        return sorted(seats, key=lambda seat: seat.used)

    def _idle(self) -> list[Seat]:
        """The models that may leave, the least recently used one first."""
        return [seat for seat in self._present() if not seat.users]

    def _bring(self, seat: Seat) -> None:
        try:
            # A tensor made in a caller's inference mode could never again be used outside of one.
            with torch.inference_mode(False), torch.no_grad():
                self._memory.bring(seat.module)
        except BaseException as exc:  # also Ctrl-C: half of it may be here
            with torch.inference_mode(False), torch.no_grad():
                self._memory.take(seat.module)
            if not is_out_of_memory(exc):
                raise
            raise ModelError(
                f"{seat.name} does not fit onto {self.device} any more, although its memory counts as free: close what "
                "else uses it, or load the model with device='cpu'."
            ) from exc
        seat.present = True
        _log.debug("%s came onto %s.", seat.name, self.device)

    def _take(self, seat: Seat) -> None:
        seat.present = False  # first: whatever stops it half-way, the next turn brings all of it
        with torch.inference_mode(False), torch.no_grad():
            try:
                self._memory.take(seat.module)
            except (RuntimeError, MemoryError) as exc:
                self._memory.bring(seat.module)
                seat.present = True
                if not is_out_of_memory(exc):
                    raise
                raise ModelError(
                    f"{seat.name} cannot leave {self.device} for another model, because main memory is too small for "
                    f"it: load one of them with device='cpu' or dtype='bfloat16'."
                ) from exc
            except BaseException:  # Ctrl-C: half of it may be away
                self._memory.take(seat.module)
                seat.left()
                raise
        seat.left()
        _log.debug("%s left %s.", seat.name, self.device)

    def _tell(self, coming: str, leaving: str) -> None:
        if not self._told:
            self._told = True
            _log.warning(
                "%s and %s do not fit into the memory of %s together: they take turns, which costs a copy of the "
                "weights each time.",
                coming,
                leaving,
                self.device,
            )

    def _use(self, seat: Seat) -> None:
        self._clock += 1
        seat.used = self._clock


_registers: dict[str, Register] = {}
_making = threading.Lock()


def register_of(device: torch.device) -> Register | None:
    """The register of a device; None for the CPU, where nothing has to leave."""
    name = str(device)
    if device.type == "cuda" and device.index is None:
        name = f"cuda:{torch.cuda.current_device()}"
    with _making:
        if name not in _registers and device.type != "cpu":
            _registers[name] = Register(torch.device(name), CardMemory(torch.device(name)))
        return _registers.get(name)


def loading(name: str, device: torch.device, size: int) -> Context[None]:
    """Make room for a model that is about to be loaded, and keep others from coming until it is.

    Args:
        name: Of the model.
        device: Where it goes.
        size: Bytes that it will have there.

    Raises:
        ModelError: If the device is too small for it alone.
    """
    register = register_of(device)
    return nullcontext() if register is None else register.loading(name, size)
