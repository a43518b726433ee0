"""Selection of a model's device, dtype and batch size, asynchronous copies, and the free memory of devices."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import torch

from jina_rag.errors import InvalidInputError

_log = logging.getLogger("jina_rag")

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
"""Dtypes by the names that callers may pass."""
_BF16_GAIN = 1.25
"""Minimum speed of bfloat16 on a CPU, as a multiple of the speed of float32. Below this speed, float32 is selected,
which is more accurate."""
_MEMORY_SHARE = 0.7
_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Placement:
    """Device, dtype and token budget of a model.

    Attributes:
        device: Device of the weights.
        dtype: Dtype of weights and activations.
        batch_tokens: Default number of tokens in a batch, padding included.
    """

    device: torch.device
    dtype: torch.dtype
    batch_tokens: int


def place(device: str, dtype: str, *, weight_bytes: int = 0, stored_dtype: torch.dtype = torch.bfloat16) -> Placement:
    """Return the placement of a model, with ``"auto"`` resolved.

    Args:
        device: ``"auto"`` (CUDA, else MPS, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        dtype: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"float16"``. On CUDA, auto selects bfloat16, or float16 if
            the GPU does not support bfloat16; on MPS, float32. On the CPU, auto selects the stored dtype if the weights
            in float32 would exceed 70 % of the available memory; else bfloat16 if bfloat16 matrix products are at
            least 1.25 times as fast as float32 matrix products; else float32.
        weight_bytes: Size of the checkpoint as stored, in bytes.
        stored_dtype: Dtype of the checkpoint as stored.

    Raises:
        InvalidInputError: If the device does not exist on this machine or the dtype is unknown.
    """
    target = _resolve_device(device)
    _warm_up_math_library()
    if dtype != "auto":
        if dtype not in DTYPES:
            raise InvalidInputError(f"dtype is {dtype!r}; expected one of auto, {', '.join(DTYPES)}.")
        return Placement(target, DTYPES[dtype], _batch_tokens(target))
    return Placement(target, _auto_dtype(target, weight_bytes, stored_dtype), _batch_tokens(target))


def release_memory(device: torch.device) -> None:
    """Free the unused memory that PyTorch's allocator holds on a device, so that other programs can use the memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_out_of_memory(exc: BaseException) -> bool:
    """Return whether an error of PyTorch reports that the memory of the CPU, a CUDA device or MPS is exhausted."""
    if isinstance(exc, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(exc).lower()
    return isinstance(exc, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "invalid buffer size" in text
    )


def no_autocast(device: torch.device) -> torch.autocast:
    """Return a context that disables the caller's `torch.autocast`, because autocast would change the results."""
    return torch.autocast(device.type, enabled=False)


def empty_in_host_memory(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialized tensor in host memory, to be filled and then copied to a device.

    For CUDA, the memory is pinned, so that `to_device` copies the tensor while the host continues. If the system has no
    more memory that can be pinned, the memory is ordinary memory; the copy is then slower, with the same result.

    Args:
        shape: Shape of the tensor.
        dtype: Dtype of the tensor.
        device: Device that the tensor will be copied to.
    """
    if device.type == "cuda":
        try:
            return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)
        except RuntimeError as exc:
            _log.debug("Host memory cannot be pinned (%s); ordinary memory is used.", exc)
    return torch.empty(tuple(shape), dtype=dtype)


def in_host_memory(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array as a tensor of equal shape and dtype in host memory, to be copied to a device.

    For CUDA, the tensor is a copy in pinned memory; see `empty_in_host_memory`. For other devices, the tensor shares
    the memory of the array.

    Args:
        array: Array of any shape, and of a dtype that torch supports.
        device: Device that the tensor will be copied to.
    """
    tensor = torch.from_numpy(array)
    return empty_in_host_memory(tensor.shape, tensor.dtype, device).copy_(tensor) if device.type == "cuda" else tensor


def to_device(data: torch.Tensor | npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return a tensor or an array on a device. On CUDA, the host does not wait for the copy or for earlier kernels.

    Args:
        data: Tensor in host memory, for example from `empty_in_host_memory`, or array; of any shape.
        device: Device to copy to. On the CPU, the result shares the memory of `data`.

    Returns:
        Tensor in the shape and dtype of `data`.
    """
    tensor = data if isinstance(data, torch.Tensor) else in_host_memory(data, device)
    # Only on CUDA: on MPS, an asynchronous copy could read host memory that was already freed.
    return tensor.to(device, non_blocking=device.type == "cuda")


class Event(Protocol):
    """A point in the work of a device."""

    def synchronize(self) -> None:
        """Wait until the device has finished the work that was submitted before the event."""
        ...


class HostCopy:
    """Copies of device tensors in host memory, which the device may still write until `read` returns.

    On CUDA, the constructor submits the copies behind the kernels that compute the tensors and returns at once. On
    other devices, the constructor waits for the tensors.

    Args:
        tensors: Tensors of one device, of any shape, in a dtype that NumPy supports.
    """

    def __init__(self, *tensors: torch.Tensor) -> None:
        self._copies, self._event = _start_copies(tensors)

    def read(self) -> list[npt.NDArray[Any]]:
        """Wait for the copies and return the values, in the shape and dtype of the tensors.

        The arrays share the memory of the copies, which is pinned on CUDA. Copy what outlives the batch.
        """
        if self._event is not None:
            self._event.synchronize()
        return [copy.numpy() for copy in self._copies]


def _start_copies(tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], Event | None]:
    """Submit copies of tensors to host memory; return the copies and the event after the copies, None if complete."""
    if not tensors or tensors[0].device.type != "cuda":
        return [tensor.cpu() for tensor in tensors], None
    device = tensors[0].device
    copies = [
        empty_in_host_memory(tensor.shape, tensor.dtype, device).copy_(tensor, non_blocking=True) for tensor in tensors
    ]
    # A blocking event waits without using a CPU core, which prepares other batches meanwhile.
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return copies, event


def available_memory() -> int:
    """Return the bytes of host memory available without swapping, limited by control groups.

    Without ``/proc/meminfo``, the result is half of the physical memory, or 8 GiB if the size of the physical memory is
    unknown.
    """
    free = _read_numbers(_PROC / "meminfo").get("MemAvailable:")
    if free is not None:
        return max(0, min([free * 1024, *_cgroup_headroom()]))
    try:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # no sysconf on Windows
        free = 8 * 1024**3
    return free


def _cgroup_headroom() -> Iterator[int]:
    """Yield the free bytes of each control group (version 1 or 2) that limits this process, parent groups included."""
    for line in _read_text(_PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2) if line.count(":") > 1 else ("", "-", "")
        if not controllers:
            root, limit, usage, cache_names = _CGROUP, "memory.max", "memory.current", ("inactive_file", "active_file")
        elif "memory" in controllers.split(","):
            root, limit, usage = _CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache_names = ("total_inactive_file", "total_active_file")
        else:
            continue
        # Limits of parent groups also apply. In a container, `path` may be a path on the host, so missing files are
        # skipped.
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            values = _read_text(folder / limit).strip(), _read_text(folder / usage).strip()
            if all(bound.isdigit() for bound in values):
                # Add the size of cached file contents, which count as used memory, but can be reclaimed. After a
                # checkpoint is loaded, several gigabytes may be cached.
                memory_stat = _read_numbers(folder / "memory.stat")
                yield int(values[0]) - int(values[1]) + sum(memory_stat.get(name, 0) for name in cache_names)


def _read_numbers(path: Path) -> dict[str, int]:
    """Return the numbers by name in a file of "name number" lines; an empty dict if the file cannot be read."""
    fields = (line.split() for line in _read_text(path).splitlines())
    return {field[0]: int(field[1]) for field in fields if len(field) > 1 and field[1].isdigit()}


def _read_text(path: Path) -> str:
    """Return the content of a file in /proc or /sys; an empty string if the file cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes.

    On CUDA, the memory that PyTorch's allocator has reserved but does not use counts as free. On MPS, the result is the
    driver's recommended maximum minus the memory that PyTorch has allocated. On the CPU, the result equals
    `available_memory()`.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return available_memory()


@functools.cache
def bfloat16_gain() -> float:
    """Return the speed of bfloat16 matrix products on this CPU as a multiple of the speed of float32.

    The measurement runs once per process and takes a few milliseconds.
    """

    def seconds(dtype: torch.dtype) -> float:
        left, right = torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            torch.mm(left, right)
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.float32) / max(seconds(torch.bfloat16), 1e-9)


@functools.cache
def _warm_up_math_library() -> None:
    """Call the CPU's vector math library once, before a model uses cosines and sines.

    With torch 2.13 on the CPU, about one process in fifteen computed the cosines and sines of the first large call
    with an error of 1e-4; all later calls were correct. A small single-threaded call beforehand avoids the error.
    """
    torch.ones(8).cos()
    torch.ones(8).sin()


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise InvalidInputError(f"device is {name!r}; expected one of auto, cpu, cuda, cuda:N, mps.") from exc
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise InvalidInputError(
            f"The device {name!r} does not exist here ({torch.cuda.device_count()} CUDA devices). Pass "
            "device='cpu' (--device cpu), or install PyTorch with CUDA."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InvalidInputError("The device 'mps' does not exist here. Pass device='cpu' (--device cpu).")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InvalidInputError(f"device is {name!r}; expected one of auto, cpu, cuda, cuda:N, mps.")
    return device


def _auto_dtype(device: torch.device, weight_bytes: int, stored_dtype: torch.dtype) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float32
    as_float32 = weight_bytes * 4 // stored_dtype.itemsize
    if stored_dtype != torch.float32 and as_float32 > _MEMORY_SHARE * available_memory():
        return stored_dtype
    return torch.bfloat16 if bfloat16_gain() >= _BF16_GAIN else torch.float32


def _batch_tokens(device: torch.device) -> int:
    # On a CPU, use small batches, because CPU caches are small: batches of 1,024 tokens were faster than batches of
    # 2,048 tokens, by 5 % on texts and 9 % on pages (measured), and batches of 2,048 tokens were faster than batches of
    # 4,096 tokens. Small batches also need less memory.
    return 1024 if device.type == "cpu" else 16_384


def device_facts() -> list[tuple[str, str]]:
    """Return the name of each device, and a description that includes the memory, for bug reports."""
    facts = [
        ("cpu", f"{available_memory() / 1e9:.1f} GB free, bfloat16 at {bfloat16_gain():.1f} x the speed of float32")
    ]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        kind = torch.cuda.get_device_name(index)
        facts.append((f"cuda:{index}", f"{kind}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"))
    if torch.backends.mps.is_available():
        facts.append(("mps", f"{torch.mps.recommended_max_memory() / 1e9:.1f} GB recommended"))
    return facts
