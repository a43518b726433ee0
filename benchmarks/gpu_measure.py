"""Measurement of a device for `benchmarks/gpu.py`: times, memory, kernels, synchronisations and operation counts."""

from __future__ import annotations

import signal
import statistics
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from jina_rag.testing.checkpoint_shapes import shapes_of

ATTENTION_OPERATORS = (
    "aten::scaled_dot_product_attention", "torch_attn::_varlen_attn", "flash_attn::_flash_attn_forward",
    "flash_attn::_flash_attn_varlen_forward",
)  # fmt: skip
"""Operators of which the profiler records one call for each attention."""
_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
_SYNC_WARNING = "synchronizing CUDA operation"


@dataclass(eq=False)
class TimeLimit:
    """A limit of `time_limit`.

    Attributes:
        seconds: Time from the start of the context.
        deadline: End of the time, on the clock `time.monotonic`.
        is_over: Whether the context was interrupted at the deadline.
        is_active: Whether the context has not ended.
    """

    seconds: float
    deadline: float
    is_over: bool = False
    is_active: bool = True


class TimeLimitExceeded(Exception):
    """A measurement took longer than its time limit.

    Attributes:
        limit: The limit that was exceeded. It is still active if the exception belongs to an outer limit.
    """

    def __init__(self, limit: TimeLimit) -> None:
        super().__init__(f"stopped after the time limit of {limit.seconds:.3g} s")
        self.limit = limit


_limits: list[TimeLimit] = []
"""Active limits, the outermost first."""
_REPEAT_SECONDS = 5.0
"""Time after which a context that continues after the interruption is interrupted again."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the context after `seconds`, in the main thread. No limit on Windows, which has no interval timer.

    Limits may be nested: the limit that ends first interrupts. A call of a C++ function is interrupted only when it
    returns.

    Raises:
        TimeLimitExceeded: This limit or an outer limit is over.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    started = time.monotonic()
    limit = TimeLimit(seconds, started + seconds)
    previous_handler = signal.signal(signal.SIGALRM, _interrupt)
    foreign, _ = (0.0, 0.0) if _limits else signal.getitimer(signal.ITIMER_REAL)
    over: TimeLimit | None = None
    try:
        try:
            _limits.append(limit)
            _start_timer()
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Exception as exc:
        over = next((each for each in _limits if each.is_over), None)
        if over is None or (isinstance(exc, TimeLimitExceeded) and exc.limit is over):
            raise
        # The code in the context may have replaced the exception of the signal handler by its own exception.
        raise TimeLimitExceeded(over) from exc
    finally:
        limit.is_active = False
        _limits.remove(limit)
        signal.signal(signal.SIGALRM, previous_handler)
        if _limits:
            # The exception of an outer limit is on its way: the code that it passes has time to clean up.
            _start_timer(_REPEAT_SECONDS if over in _limits else 0)
        elif foreign:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, foreign - (time.monotonic() - started)))


def _first_limit() -> TimeLimit:
    """Return the active limit that ends first; of limits that end together, the outermost."""
    return min(_limits, key=lambda limit: limit.deadline)


def _start_timer(least: float = 0) -> None:
    """Start the timer for the limit that ends first, to fire after `least` seconds or later, and repeatedly."""
    remaining = _first_limit().deadline - time.monotonic()
    # Repeated, because the code in the context may catch the exception and continue.
    signal.setitimer(signal.ITIMER_REAL, max(0.01, least, remaining), _REPEAT_SECONDS)


def _interrupt(_signal: int, _frame: object) -> None:
    limit = _first_limit()
    limit.is_over = True
    raise TimeLimitExceeded(limit)


class Device:
    """The device to measure.

    Attributes:
        device: PyTorch's device.
        is_cuda: Whether the device is a CUDA device; the other measurable device is the CPU.
    """

    def __init__(self, name: str) -> None:
        self.device = torch.device(name)
        self.is_cuda = self.device.type == "cuda"
        if self.is_cuda:
            if not torch.cuda.is_available() or (self.device.index or 0) >= torch.cuda.device_count():
                raise SystemExit(
                    f"The device {name!r} does not exist here. Pass --device cpu, or use a CUDA build of torch."
                )
            torch.cuda.set_device(self.device)
            self.device = torch.device("cuda", torch.cuda.current_device())

    def synchronize(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        if self.is_cuda:
            torch.cuda.empty_cache()

    def seconds(self, run: Callable[[], Any]) -> float:
        """Return the wall time of one call, with all work of the device finished before and after."""
        self.synchronize()
        start = time.perf_counter()
        run()
        self.synchronize()
        return time.perf_counter() - start

    def median_seconds(self, run: Callable[[], Any], seconds: float, most: int = 5) -> float:
        """Return the median time of 1 to `most` calls, which take about `seconds` in total."""
        times: list[float] = []
        while not times or (sum(times) + times[-1] <= seconds and len(times) < most):
            times.append(self.seconds(run))
        return statistics.median(times)

    def mean_seconds(self, run: Callable[[], Any], seconds: float = 0.5) -> float:
        """Return the mean time of many calls without synchronisation in between, after two calls as a warm-up."""
        first = max(self.seconds(run), 1e-6)
        again = max(self.seconds(run), 1e-6)
        repeats = max(2, min(200, int(seconds / min(first, again))))

        def repeat() -> None:
            for _ in range(repeats):
                run()

        return self.seconds(repeat) / repeats

    def peak_bytes(self, run: Callable[[], Any]) -> int:
        """Return the peak of the memory allocated during a call, minus the memory allocated before (CUDA only)."""
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        run()
        self.synchronize()
        return torch.cuda.max_memory_allocated(self.device) - before


def matrix_rate(device: Device, dtype: torch.dtype, side: int) -> float:
    """Return the floating-point operations per second of products of two random square matrices."""
    left, right = (torch.randn(side, side, device=device.device).to(dtype) for _ in range(2))
    result = torch.empty_like(left)
    return 2 * side**3 / device.mean_seconds(lambda: torch.mm(left, right, out=result))


def copy_rates(device: Device, size: int = 256 * 1024**2) -> dict[str, float]:
    """Return the bytes per second of copies from the host to the device and within the device, by kind of copy."""
    pageable = torch.ones(size, dtype=torch.uint8)
    pinned = pageable.pin_memory()
    target, source = (torch.empty(size, dtype=torch.uint8, device=device.device) for _ in range(2))
    return {
        "host to device, pinned": size / device.mean_seconds(lambda: target.copy_(pinned, non_blocking=True)),
        "host to device, pageable": size / device.mean_seconds(lambda: target.copy_(pageable)),
        "device to device, bytes read and written": 2 * size / device.mean_seconds(lambda: target.copy_(source)),
    }


class StageTimes:
    """A context manager that measures the time of modules, by name, on the device (CUDA events) or the CPU.

    Attributes:
        calls: Number of calls of each module.
    """

    def __init__(self, device: Device, modules: Mapping[str, torch.nn.Module]) -> None:
        self._device, self._modules = device, modules
        self.calls: Counter[str] = Counter()
        self._spans: list[tuple[str, Any, Any]] = []
        self._starts: dict[str, Any] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> StageTimes:
        for name, module in self._modules.items():
            self._handles += [
                module.register_forward_pre_hook(lambda *_, name=name: self._start(name)),
                module.register_forward_hook(lambda *_, name=name: self._stop(name)),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def seconds(self) -> dict[str, float]:
        """Return the total seconds of each module; call after the context."""
        self._device.synchronize()
        totals = dict.fromkeys(self._modules, 0.0)
        for name, start, stop in self._spans:
            totals[name] += start.elapsed_time(stop) / 1000 if self._device.is_cuda else stop - start
        return totals

    def _now(self) -> Any:
        if not self._device.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _start(self, name: str) -> None:
        self._starts[name] = self._now()

    def _stop(self, name: str) -> None:
        self.calls[name] += 1
        self._spans.append((name, self._starts.pop(name), self._now()))


@dataclass
class Profile:
    """What PyTorch's profiler recorded during one call.

    Attributes:
        wall_seconds: Wall time of the call, profiler included.
        operators: Calls of PyTorch operators, nested calls included.
        attention_calls: Calls of attention operators.
        host_reads: Calls of ``aten::_local_scalar_dense``, each of which waits for the device.
        launches: Kernel launches by the host; a CUDA graph counts once.
        kernels: Kernels that the device ran.
        kernel_seconds: Total time of the kernels on the device.
        copy_seconds: Time on the device of the copies, by direction, for example ``"HtoD"``.
    """

    wall_seconds: float = 0.0
    operators: int = 0
    attention_calls: int = 0
    host_reads: int = 0
    launches: int = 0
    kernels: int = 0
    kernel_seconds: float = 0.0
    copy_seconds: Counter[str] = field(default_factory=Counter)


def profile(device: Device, run: Callable[[], Any]) -> Profile:
    """Run a call under PyTorch's profiler and return the counts."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.is_cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    result = Profile()
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        result.wall_seconds = device.seconds(run)
    for event in profiler.key_averages():
        on_device = event.device_type not in (torch.autograd.DeviceType.CPU, None)
        if on_device:
            seconds = event.self_device_time_total / 1e6
            if event.key.startswith("Memcpy"):
                result.copy_seconds[event.key.split()[1]] += seconds
            elif not event.key.startswith("Memset"):
                result.kernels += event.count
                result.kernel_seconds += seconds
            continue
        if "::" in event.key:
            result.operators += event.count
        if event.key in ATTENTION_OPERATORS:
            result.attention_calls += event.count
        if event.key == "aten::_local_scalar_dense":
            result.host_reads += event.count
        if event.key in _LAUNCHES:
            result.launches += event.count
    return result


def synchronisations(device: Device, run: Callable[[], Any]) -> Counter[str]:
    """Return the number of operations during a call that made the host wait for the device, by place in the code."""
    device.synchronize()
    previous = torch.cuda.get_sync_debug_mode()
    was_always = torch.is_warn_always_enabled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.set_warn_always(True)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(previous)
            torch.set_warn_always(was_always)
    places = Counter[str]()
    for warning in caught:
        if _SYNC_WARNING in str(warning.message):
            parts = warning.filename.replace("\\", "/").split("/")
            places[f"{'/'.join(parts[-2:])}:{warning.lineno}"] += 1
    return places


class Operations:
    """Floating-point operations of a forward pass, counted by formula from the shapes of the weights.

    A product of matrices counts two operations for each weight and position. Attention counts two products of each
    query with the keys that it attends to: earlier tokens in the decoder, and the window in a windowed layer of the
    vision tower. Norms, activations and the unmerged adapters of the published way are not counted. The patch embedding
    counts both frames of a patch, as computed in half precision; in float32, jina_rag does half of these products.

    Args:
        family: ``"v4"`` or ``"m0"``.
        config: The config.json of the checkpoint.
    """

    def __init__(self, family: str, config: Mapping[str, Any]) -> None:
        def weights(prefix: str) -> int:
            return sum(
                torch.Size(shape).numel()
                for key, shape in shapes_of(family, config).items()
                if key.startswith(prefix) and len(shape) > 1
            )

        text, vision = config.get("text_config") or config, config["vision_config"]
        self._merged = vision["spatial_merge_size"] ** 2
        self._layers, self._hidden = text["num_hidden_layers"], text["hidden_size"]
        self._depth = vision["depth"]
        self._width = vision["hidden_size"] if family == "v4" else vision["embed_dim"]
        # Windowed layers attend within a square of `window_size` pixels; m0 has no windows.
        window = vision.get("window_size", 0) // vision["patch_size"] if family == "v4" else 0
        self._window = window**2
        self._full_layers = len(vision["fullatt_block_indexes"]) if window else self._depth
        self._token_weights = weights("model.layers.") + weights("multi_vector_projector")
        self._patch_weights = weights("visual.blocks.") + weights("visual.patch_embed.")
        self._merged_weights = weights("visual.merger.")

    def total(self, tokens: int, image_tokens: int = 0) -> int:
        """Return the operations for one input of `tokens` tokens, of which one image has `image_tokens`."""
        return self.linear(tokens, image_tokens) + self.attention(tokens, image_tokens)

    def linear(self, tokens: int, image_tokens: int = 0) -> int:
        """Return the operations of the products with weights; see `total`."""
        patches = image_tokens * self._merged
        products = self._token_weights * tokens + self._patch_weights * patches + self._merged_weights * image_tokens
        return 2 * products

    def attention(self, tokens: int, image_tokens: int = 0) -> int:
        """Return the operations of the attention; see `total`."""
        patches = image_tokens * self._merged
        keys = self._full_layers * patches + (self._depth - self._full_layers) * min(self._window, patches)
        return 2 * self._layers * self._hidden * tokens**2 + 4 * self._width * patches * keys
