"""What a reranker keeps of pages that it has read: the most recent ones on its device, older ones in main memory.

`PrefixCache` says how much may be kept; `TwoTiers` keeps it. Both tiers are bounded in bytes and the least recently
used entry leaves first: from the device to main memory, from there for good. What an entry is made of is not known
here, only how to move it, so that all of this runs without a GPU.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar, get_args

from jina_rag._checks import check_whole_number
from jina_rag.errors import InvalidInputError

Stored = Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """How much a reranker may keep of the pages it has read.

    Attributes:
        device_bytes: On its device; None for a quarter of what is free there after loading. On the CPU, where device
            and main memory are one, None is 0.
        host_bytes: In main memory; None for a fifth of what is free there after loading.
        dtype: What keys and values are kept in: None for the model's own, in which scores are the same as without a
            memory; ``"bfloat16"`` or ``"float16"`` (also ``"bf16"``, ``"fp16"``) halve what a float32 model keeps, and
            raw scores differ (measured on a random model of middle size: by 4e-5 and 4e-6).
    """

    device_bytes: int | None = None
    host_bytes: int | None = None
    dtype: Stored | None = None

    def __post_init__(self) -> None:
        for name, value in (("device_bytes", self.device_bytes), ("host_bytes", self.host_bytes)):
            if value is not None:
                check_whole_number(f"PrefixCache.{name}", value, minimum=0)
        if self.dtype is not None and self.dtype not in get_args(Stored):
            raise InvalidInputError(f"PrefixCache.dtype is float32, bfloat16 or float16, got {self.dtype!r}.")


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a memory holds, and what it was good for so far.

    Attributes:
        hits: Pairs whose document was there.
        misses: Pairs whose document was read from its beginning, although it may be kept.
        device_entries: Documents on the device.
        device_bytes: Their bytes.
        host_entries: Documents in main memory.
        host_bytes: Their bytes.
    """

    hits: int
    misses: int
    device_entries: int
    device_bytes: int
    host_entries: int
    host_bytes: int


class Sized(Protocol):
    """What can be kept."""

    @property
    def bytes(self) -> int:
        """Of memory that it takes."""
        ...


CacheEntry = TypeVar("CacheEntry", bound=Sized)


class TwoTiers(Generic[CacheEntry]):
    """Entries by key, in two tiers of bounded size. Safe to share between threads."""

    def __init__(
        self,
        device_bytes: int,
        host_bytes: int,
        *,
        to_device: Callable[[CacheEntry], CacheEntry | None],
        to_host: Callable[[CacheEntry], CacheEntry | None],
    ) -> None:
        """An empty memory.

        Args:
            device_bytes: Of the first tier.
            host_bytes: Of the second.
            to_device: Copies an entry to the device; None if there is no room after all.
            to_host: Copies an entry to main memory; None if there is no room after all.
        """
        self._device: _Tier[CacheEntry] = _Tier(device_bytes)
        self._host: _Tier[CacheEntry] = _Tier(host_bytes)
        self._to_device, self._to_host = to_device, to_host
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    @property
    def capacity(self) -> int:
        """Bytes of both tiers."""
        return self._device.limit + self._host.limit

    @property
    def use(self) -> CacheUse:
        """What is held now, and hits and misses since the beginning."""
        with self._lock:
            return CacheUse(
                self._hits,
                self._misses,
                len(self._device.entries),
                self._device.bytes,
                len(self._host.entries),
                self._host.bytes,
            )

    def takes(self, size: int) -> bool:
        """Whether an entry of so many bytes can be kept at all."""
        return size <= max(self._device.limit, self._host.limit)

    def peek(self, key: bytes) -> CacheEntry | None:
        """The entry of a key, without counting as a use."""
        with self._lock:
            entry = self._device.entries.get(key)
            return self._host.entries.get(key) if entry is None else entry

    def get(self, key: bytes, *, bring: bool = True) -> CacheEntry | None:
        """The entry of a key, now the most recent one.

        Args:
            key: Of the entry.
            bring: Whether one in main memory comes onto the device if it fits there.
        """
        with self._lock:
            if key in self._device.entries:
                self._device.entries.move_to_end(key)
                return self._device.entries[key]
            entry = self._host.entries.get(key)
            if entry is None:
                return None
            self._host.entries.move_to_end(key)
            if bring and entry.bytes <= self._device.limit:
                on_device = self._to_device(entry)
                if on_device is not None:
                    self._host.take(key)
                    self._put_on_device(key, on_device)
                    return on_device
            return entry

    def put(self, key: bytes, entry: CacheEntry) -> bool:
        """Keep an entry in place of what the key had; whether it fits."""
        with self._lock:
            self._device.take(key)
            self._host.take(key)
            if entry.bytes <= self._device.limit:
                self._put_on_device(key, entry)
                return True
            return self._put_on_host(key, entry)

    def count(self, *, hits: int = 0, misses: int = 0) -> None:
        """Take note of how often the memory helped."""
        with self._lock:
            self._hits += hits
            self._misses += misses

    def leave_device(self) -> bool:
        """Send everything from the device to main memory; whether there was anything."""
        with self._lock:
            leaving = bool(self._device.entries)
            while self._device.entries:
                self._put_on_host(*self._device.oldest())
            return leaving

    def clear(self) -> bool:
        """Forget everything; whether there was anything. Counts stay."""
        with self._lock:
            was_filled = bool(self._device.entries or self._host.entries)
            self._device.clear()
            self._host.clear()
            return was_filled

    def _put_on_device(self, key: bytes, entry: CacheEntry) -> None:
        while self._device.bytes + entry.bytes > self._device.limit:
            self._put_on_host(*self._device.oldest())
        self._device.put(key, entry)

    def _put_on_host(self, key: bytes, entry: CacheEntry) -> bool:
        if entry.bytes > self._host.limit:
            return False
        while self._host.bytes + entry.bytes > self._host.limit:
            self._host.oldest()
        in_host = self._to_host(entry)
        if in_host is None:
            return False
        self._host.put(key, in_host)
        return True


class _Tier(Generic[CacheEntry]):
    """Entries with the least recently used one first, and the sum of their bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.entries: OrderedDict[bytes, CacheEntry] = OrderedDict()

    def put(self, key: bytes, entry: CacheEntry) -> None:
        self.entries[key] = entry
        self.bytes += entry.bytes

    def take(self, key: bytes) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.bytes

    def oldest(self) -> tuple[bytes, CacheEntry]:
        """Take the least recently used entry out."""
        key, entry = self.entries.popitem(last=False)
        self.bytes -= entry.bytes
        return key, entry

    def clear(self) -> None:
        self.entries.clear()
        self.bytes = 0
