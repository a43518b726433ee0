"""Where a model runs and in which number format, and what one batch may cost there."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from jina_rag.errors import InvalidInputError

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
"""Number formats by the names that callers may use."""
_BF16_GAIN = 1.25
"""How much faster bfloat16 has to multiply before a CPU uses it: it costs accuracy."""
_MEMORY_SHARE = 0.7
_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a model runs.

    Attributes:
        device: The device.
        dtype: Of the weights and of what flows through them.
        batch_tokens: Tokens that go through at once, padding included, unless a call says otherwise.
    """

    device: torch.device
    dtype: torch.dtype
    batch_tokens: int


def place(device: str, dtype: str, *, weight_bytes: int = 0, stored_dtype: torch.dtype = torch.bfloat16) -> Placement:
    """Resolve ``"auto"``.

    Args:
        device: ``"auto"`` (CUDA, else MPS, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        dtype: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"float16"``. Auto is bfloat16 on a GPU that has it (float16
            on older ones, float32 on MPS); on the CPU whichever of float32 and bfloat16 multiplies faster there,
            and the stored one where float32 would not fit into memory.
        weight_bytes: Of the checkpoint, as stored.
        stored_dtype: Its dtype.

    Raises:
        InvalidInputError: If the device does not exist here or the dtype is unknown.
    """
    where = _device(device)
    _settle()
    if dtype != "auto":
        if dtype not in DTYPES:
            raise InvalidInputError(f"dtype is one of auto, {', '.join(DTYPES)}; got {dtype!r}.")
        return Placement(where, DTYPES[dtype], _batch_tokens(where))
    return Placement(where, _auto_dtype(where, weight_bytes, stored_dtype), _batch_tokens(where))


def release_memory(device: torch.device) -> None:
    """Give cached blocks back, after an out-of-memory error."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether an error says that the device's memory is full: CUDA, MPS and the CPU's allocator say it differently."""
    if isinstance(exc, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(exc).lower()
    return isinstance(exc, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "invalid buffer size" in text
    )


def own_precision(device: torch.device) -> torch.autocast:
    """A model's own number format, whatever `torch.autocast` its caller is in: kept keys must not depend on callers."""
    return torch.autocast(device.type, enabled=False)


def available_memory() -> int:
    """Bytes of main memory that can be used without swapping, or a guess of half of all; containers' limits count."""
    free = _numbers(_PROC / "meminfo").get("MemAvailable:")
    if free is not None:
        return max(0, min([free * 1024, *_left_in_groups()]))
    try:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        free = 8 * 1024**3
    return free


def _left_in_groups() -> Iterator[int]:
    """What is left to the control groups that this process is in, those of version 2 and of version 1."""
    for line in _text(_PROC / "self" / "cgroup").splitlines():
        _, kinds, path = line.split(":", 2) if line.count(":") > 1 else ("", "-", "")
        if not kinds:
            root, limit, usage, cache_names = _GROUPS, "memory.max", "memory.current", ("inactive_file", "active_file")
        elif "memory" in kinds.split(","):
            root, limit, usage = _GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache_names = ("total_inactive_file", "total_active_file")
        else:
            continue
        # Each group is bounded by those above it. In a container the path may be the one outside, and is not there.
        own = root / path.strip("/")
        for folder in (own, *own.parents):
            if not folder.is_relative_to(root):
                break
            bounds = _text(folder / limit).strip(), _text(folder / usage).strip()
            if all(bound.isdigit() for bound in bounds):
                # The cache of files counts as used, but makes room; without this, checkpoints would fill it.
                files = _numbers(folder / "memory.stat")
                yield int(bounds[0]) - int(bounds[1]) + sum(files.get(name, 0) for name in cache_names)


def _numbers(path: Path) -> dict[str, int]:
    """The numbers of a file of lines that begin with a name and a number; none if it does not exist."""
    fields = (line.split() for line in _text(path).splitlines())
    return {field[0]: int(field[1]) for field in fields if len(field) > 1 and field[1].isdigit()}


def _text(path: Path) -> str:
    """A file of the kernel; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def free_memory(device: torch.device) -> int:
    """Bytes of a device's memory that can be had: what its driver has left, and what PyTorch holds without using it."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return available_memory()


@functools.cache
def bfloat16_gain() -> float:
    """How much faster than float32 this CPU multiplies bfloat16 matrices, measured once (a few milliseconds)."""

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
def _settle() -> None:
    """Call the vector library once before anything counts on it.

    Seen with torch 2.13 on the CPU: about one process in fifteen got the cosines and sines of its first large call
    with an error of 1e-4, those of every later call right. A small call before it, on one thread, ends that.
    """
    torch.ones(8).cos()
    torch.ones(8).sin()


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise InvalidInputError(f"device is auto, cpu, cuda, cuda:N or mps; got {name!r}.") from exc
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise InvalidInputError(
            f"The device {name!r} does not exist here ({torch.cuda.device_count()} CUDA devices): use device='cpu', or "
            "install a PyTorch with CUDA."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InvalidInputError("There is no MPS device here: use device='cpu'.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InvalidInputError(f"device is auto, cpu, cuda, cuda:N or mps; got {name!r}.")
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
    # A CPU gains nothing from more, and its caches hold less: measured on texts and pages, 1,024 beats 2,048 by 5 and
    # 9 %, and that beats 4,096; each with less memory.
    return 1024 if device.type == "cpu" else 16_384


def device_facts() -> list[tuple[str, str]]:
    """What a bug report should say of the devices here: name and what is known of each."""
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
