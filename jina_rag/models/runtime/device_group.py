"""The processes of a model on several devices: start, restart after a loss, and the shares of a call."""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from jina_rag.config import usable_cpus
from jina_rag.errors import DeviceLostError, InvalidInputError
from jina_rag.models.runtime.device_process import (
    DeviceProcess,
    ModelDescription,
    ProcessLostError,
    pack_factory,
    wait_for,
)
from jina_rag.models.runtime.work_sharing import Share

_log = logging.getLogger("jina_rag")

_SHARES_AHEAD = 2
"""Shares of one call in a process at the same time: one is computed while the other is prepared."""
_POLL_SECONDS = 0.5

Send: TypeAlias = Callable[["DeviceSlot", Share], Future[Any]]


@dataclass(slots=True)
class DeviceSlot:
    """A device and its current process.

    Attributes:
        number: Index of the device.
        device: Name of the device.
        factory: Packed function that loads the model.
        process: The process; None before the first start.
        load: Tokens of the requests that are reserved or unanswered.
        starting: Lock held while the process is replaced.
        repeating: Lock held while the inputs of a lost process are computed again, so that inputs that end a process
            do not end the process in which the inputs of another call are repeated.
    """

    number: int
    device: str
    factory: bytes
    process: DeviceProcess | None = None
    load: int = 0
    starting: threading.Lock = field(default_factory=threading.Lock)
    repeating: threading.Lock = field(default_factory=threading.Lock)


class DeviceGroup:
    """The processes of one model; thread-safe.

    Args:
        factories: Functions that load the model, one per device: functions of a module, or `functools.partial` of such
            functions.
        devices: Names of the devices, for messages.

    Raises:
        InvalidInputError: If a factory cannot be sent to a process, or the models of the devices differ.
        JinaRagError: If a model cannot be loaded. The error is that of the first device that fails.
        DeviceLostError: If a process ends while loading.
    """

    def __init__(self, factories: Sequence[Callable[[], object]], devices: Sequence[str]) -> None:
        if not sys.executable or getattr(sys, "frozen", False):
            raise InvalidInputError("Several devices require a Python interpreter for the processes. Pass one device.")
        if not factories or len(factories) != len(devices):
            raise InvalidInputError(
                f"Got {len(factories)} factories and {len(devices)} devices; expected one factory for each device."
            )
        self.slots = [
            DeviceSlot(number, device, pack_factory(factory))
            for number, (factory, device) in enumerate(zip(factories, devices, strict=True))
        ]
        self._lock = threading.Lock()
        self._is_closed = False
        self._threads = max(1, usable_cpus() // len(self.slots))
        self._finalizer = weakref.finalize(self, _end_processes, self.slots, os.getpid())
        _groups.add(self)
        try:
            for slot in self.slots:  # the processes load at the same time
                slot.process = self._start(slot)
            descriptions = [self._description_of(slot) for slot in self.slots]
            self._check_equal(descriptions)
        except BaseException:  # includes KeyboardInterrupt
            self._finalizer()
            raise
        self.description = descriptions[0]
        self.dtype = descriptions[0].dtype

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.description.attributes.get("name", "The model"))

    def share_out(self, plan: Callable[[list[int]], list[Share]]) -> list[Share]:
        """Return the shares of a call, whose tokens are reserved on the devices. The caller then calls `run`.

        A concurrent call sees the tokens of all shares, so that the calls together use all devices evenly.

        Args:
            plan: Function that returns the shares for the number of tokens that each device is computing.
        """
        with self._lock:
            shares = plan([slot.load for slot in self.slots])
            for share in shares:
                if share.device is not None:
                    self.slots[share.device].load += share.cost
                    share.is_reserved = True
        return shares

    def run(self, shares: Sequence[Share], send: Send) -> list[Any]:
        """Compute the shares of a call and return the results in the order of the shares.

        Args:
            shares: The shares.
            send: Function that sends a share to the process of a slot and returns the future result.

        Raises:
            DeviceLostError: If the group is closed, or two processes ended while computing a share.
        """
        results: dict[int, Any] = {}
        waiting = dict(enumerate(shares))
        running: dict[Future[Any], tuple[int, DeviceSlot]] = {}
        counts = [0] * len(self.slots)
        try:
            while waiting or running:
                for number, share in list(waiting.items()):
                    slot = self._select(share, counts)
                    if slot is None:
                        continue
                    del waiting[number]
                    counts[slot.number] += 1
                    running[self._submit(slot, share, send)] = number, slot
                for future in wait(running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED).done:
                    number, slot = running[future]
                    try:
                        results[number] = future.result()
                    except ProcessLostError as exc:
                        results[number] = self._repeat(slot, shares[number], send, exc)
                    del running[future]
                    counts[slot.number] -= 1
        except BaseException as exc:
            if not isinstance(exc, Exception):  # Ctrl-C, for example: nobody waits for the results any longer
                for slot in {slot.number: slot for _, slot in running.values()}.values():
                    if slot.process is not None:
                        slot.process.kill()
            raise
        finally:
            for share in waiting.values():
                if share.is_reserved and share.device is not None:
                    self._unload(self.slots[share.device], share.cost)
        return [results[number] for number in range(len(shares))]

    def close(self) -> None:
        """End the processes. Calls that are running raise DeviceLostError."""
        self._is_closed = True
        self._finalizer()

    def forget(self) -> None:
        """Start processes of its own at the next call. Called in a forked process, which cannot use the pipes."""
        for slot in self.slots:
            if slot.process is not None:
                slot.process.abandon()
        self._finalizer.detach()
        self._lock = threading.Lock()
        self.slots = [DeviceSlot(slot.number, slot.device, slot.factory) for slot in self.slots]
        self._finalizer = weakref.finalize(self, _end_processes, self.slots, os.getpid())

    def _select(self, share: Share, counts: Sequence[int]) -> DeviceSlot | None:
        """Return the slot for a share; None if each suitable process has enough shares of the call."""
        if share.device is not None:
            slot = self.slots[share.device]
            return slot if counts[slot.number] < _SHARES_AHEAD else None
        free = [slot for slot in self.slots if counts[slot.number] < _SHARES_AHEAD]
        return min(free, key=lambda slot: (slot.load, slot.number), default=None)

    def _submit(self, slot: DeviceSlot, share: Share, send: Send) -> Future[Any]:
        with self._lock:
            if not share.is_reserved:
                slot.load += share.cost
            share.is_reserved = False
        try:
            self._revive(slot)
            future = send(slot, share)
        except BaseException:
            self._unload(slot, share.cost)
            raise
        future.add_done_callback(lambda _: self._unload(slot, share.cost))
        return future

    def _unload(self, slot: DeviceSlot, cost: int) -> None:
        with self._lock:
            slot.load -= cost

    def _repeat(self, slot: DeviceSlot, share: Share, send: Send, cause: ProcessLostError) -> Any:  # noqa: ANN401
        """Compute a share again in a new process."""
        with slot.repeating:
            self._check_open()
            _log.warning(
                "The process of %s on %s %s. A new process computes the inputs again.", self.name, slot.device, cause
            )
            try:
                return wait_for(self._submit(slot, share, send))
            except ProcessLostError as exc:
                self._check_open()
                raise DeviceLostError(
                    f"{self.name} on {slot.device}: two processes were lost with the same inputs; the second {exc}. "
                    "Lower batch_tokens or max_pixels, free memory, or omit the device."
                ) from exc

    def _revive(self, slot: DeviceSlot) -> None:
        """Start a new process if the process of a slot has ended."""
        with slot.starting:
            self._check_open()
            if slot.process is not None and slot.process.is_alive:
                return
            if slot.process is not None:
                slot.process.close()  # waits until the memory of the device is free
            slot.process = self._start(slot)
            if self._is_closed:  # closed after the check above
                slot.process.close()
            self._check_equal([self.description, self._description_of(slot)], [self.slots[0], slot])

    def _start(self, slot: DeviceSlot) -> DeviceProcess:
        return DeviceProcess(slot.factory, device=slot.device, threads=self._threads)

    def _description_of(self, slot: DeviceSlot) -> ModelDescription:
        assert slot.process is not None
        try:
            return slot.process.loaded()
        except ProcessLostError as exc:
            self._check_open()
            raise DeviceLostError(
                f"The process of {slot.device} {exc} while loading the model. Free memory, or omit the device."
            ) from exc

    def _check_equal(self, descriptions: Sequence[ModelDescription], slots: Sequence[DeviceSlot] | None = None) -> None:
        slots = slots or self.slots
        first = descriptions[0]
        for slot, description in zip(slots, descriptions, strict=True):
            if description.dtype != first.dtype:
                raise InvalidInputError(
                    f"The dtype of the weights is {first.dtype} on {slots[0].device} and {description.dtype} on "
                    f"{slot.device}. Pass a dtype that all devices support, for example dtype='float16' (--dtype)."
                )
            if (description.attributes, description.methods) != (first.attributes, first.methods):
                raise InvalidInputError(
                    f"The models on {slots[0].device} and {slot.device} differ "
                    f"({first.attributes.get('fingerprint')}, {description.attributes.get('fingerprint')}). Load the "
                    "same weights with the same settings on each device."
                )

    def _check_open(self) -> None:
        if self._is_closed:
            raise DeviceLostError(f"{self.name} is closed. Load the model again.")


_groups: weakref.WeakSet[DeviceGroup] = weakref.WeakSet()


def _forget_all() -> None:
    for group in list(_groups):
        group.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _end_processes(slots: Sequence[DeviceSlot], owner: int) -> None:
    """End the processes, unless this process is a forked copy of the process that started them."""
    if os.getpid() == owner:
        processes = [slot.process for slot in slots if slot.process is not None]
        for process in processes:
            process.kill()
        for process in processes:
            process.close()
