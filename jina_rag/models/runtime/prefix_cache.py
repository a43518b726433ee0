"""Two-tier LRU cache for the prefixes of a reranker: recent entries in device memory, older entries in host memory.

`PrefixCache` holds the limits, and `TwoTiers` implements the cache. Each tier is limited in bytes. If the device tier
is full, the least recently used entry moves to host memory. If the host tier is full, the least recently used entry is
dropped. The caller passes the functions that copy an entry between the tiers, so the cache also works without a GPU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar, get_args

from jina_rag._checks import check_whole_number
from jina_rag._forks import RenewedLock
from jina_rag.errors import InvalidInputError

StoredDtype = Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """Limits of a reranker's prefix cache, which stores the keys and values of scored documents.

    Attributes:
        device_bytes: Maximum device memory in bytes; None for a quarter of the memory that is free after loading. On
            the CPU, where device and host memory are the same, None gives 0.
        host_bytes: Maximum host memory in bytes; None for a fifth of the memory that is free after loading.
        dtype: Dtype of the stored keys and values. None for the dtype of the model, which leaves scores unchanged. For
            a float32 model, ``"bfloat16"`` and ``"float16"`` (aliases ``"bf16"``, ``"fp16"``) halve the size of the
            cache and change raw scores by 4e-5 and 4e-6 respectively (measured on a medium-sized model with random
            weights).

    Raises:
        InvalidInputError: If a limit is negative or not an integer, or the dtype is unknown.
    """

    device_bytes: int | None = None
    host_bytes: int | None = None
    dtype: StoredDtype | None = None

    def __post_init__(self) -> None:
        for name, value in (("device_bytes", self.device_bytes), ("host_bytes", self.host_bytes)):
            if value is not None:
                check_whole_number(f"PrefixCache.{name}", value, minimum=0)
        if self.dtype is not None and self.dtype not in get_args(StoredDtype):
            raise InvalidInputError(f"PrefixCache.dtype is {self.dtype!r}; expected float32, bfloat16 or float16.")


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Statistics of a prefix cache.

    Attributes:
        hits: Number of scored pairs whose document was cached.
        misses: Number of scored pairs whose document was cacheable but not in the cache.
        device_entries: Number of documents in device memory.
        device_bytes: Size in bytes of the keys and values in device memory.
        host_entries: Number of documents in host memory.
        host_bytes: Size in bytes of the keys and values in host memory.
    """

    hits: int
    misses: int
    device_entries: int
    device_bytes: int
    host_entries: int
    host_bytes: int


class SizedEntry(Protocol):
    """A cache entry with a size in bytes."""

    @property
    def bytes(self) -> int:
        """Memory of the entry in bytes."""
        ...


CacheEntry = TypeVar("CacheEntry", bound=SizedEntry)


class TwoTiers(Generic[CacheEntry]):
    """Two-tier LRU cache, each tier limited in bytes. Thread-safe."""

    def __init__(
        self,
        device_bytes: int,
        host_bytes: int,
        *,
        to_device: Callable[[CacheEntry], CacheEntry | None],
        to_host: Callable[[CacheEntry], CacheEntry | None],
    ) -> None:
        """Create an empty cache.

        Args:
            device_bytes: Limit of the device tier in bytes.
            host_bytes: Limit of the host tier in bytes.
            to_device: Function that copies an entry to the device, or returns None if device memory is exhausted.
            to_host: Function that copies an entry to host memory, or returns None if host memory is exhausted.
        """
        self._device: _Tier[CacheEntry] = _Tier(device_bytes)
        self._host: _Tier[CacheEntry] = _Tier(host_bytes)
        self._to_device, self._to_host = to_device, to_host
        self._lock = RenewedLock()
        self._hits = self._misses = 0

    @property
    def capacity(self) -> int:
        """Sum of the limits of the device tier and the host tier in bytes."""
        return self._device.limit + self._host.limit

    @property
    def use(self) -> CacheUse:
        """Current number and size of the entries, and the hits and misses since the cache was created."""
        with self._lock:
            return CacheUse(
                self._hits,
                self._misses,
                len(self._device.entries),
                self._device.bytes,
                len(self._host.entries),
                self._host.bytes,
            )

    def accepts(self, size: int) -> bool:
        """Return whether an entry of `size` bytes fits into one of the tiers."""
        return size <= max(self._device.limit, self._host.limit)

    def peek(self, key: bytes) -> CacheEntry | None:
        """Return the entry of a key without marking the entry as used; None if the key is not cached."""
        with self._lock:
            entry = self._device.entries.get(key)
            return self._host.entries.get(key) if entry is None else entry

    def get(self, key: bytes, *, promote: bool = True) -> CacheEntry | None:
        """Return the entry of a key and mark the entry as most recently used; None if the key is not cached.

        Args:
            key: Key of the entry.
            promote: Whether to move an entry from host memory to the device if the device tier has room for the entry.
        """
        with self._lock:
            if key in self._device.entries:
                self._device.entries.move_to_end(key)
                return self._device.entries[key]
            entry = self._host.entries.get(key)
            if entry is None:
                return None
            self._host.entries.move_to_end(key)
            if promote and entry.bytes <= self._device.limit:
                on_device = self._to_device(entry)
                if on_device is not None:
                    self._host.remove(key)
                    self._put_on_device(key, on_device)
                    return on_device
            return entry

    def put(self, key: bytes, entry: CacheEntry) -> bool:
        """Store an entry, replacing any entry with an equal key, and return whether the new entry was stored."""
        with self._lock:
            self._device.remove(key)
            self._host.remove(key)
            if entry.bytes <= self._device.limit:
                self._put_on_device(key, entry)
                return True
            return self._put_on_host(key, entry)

    def count(self, *, hits: int = 0, misses: int = 0) -> None:
        """Add to the number of hits and to the number of misses."""
        with self._lock:
            self._hits += hits
            self._misses += misses

    def move_to_host(self) -> bool:
        """Move all entries from the device to host memory, and return whether any entry was on the device."""
        with self._lock:
            had_entries = bool(self._device.entries)
            while self._device.entries:
                self._put_on_host(*self._device.pop_oldest())
            return had_entries

    def clear(self) -> bool:
        """Drop all entries and return whether the cache had any entries; the numbers of hits and misses are kept."""
        with self._lock:
            had_entries = bool(self._device.entries or self._host.entries)
            self._device.clear()
            self._host.clear()
            return had_entries

    def _put_on_device(self, key: bytes, entry: CacheEntry) -> None:
        while self._device.bytes + entry.bytes > self._device.limit:
            self._put_on_host(*self._device.pop_oldest())
        self._device.put(key, entry)

    def _put_on_host(self, key: bytes, entry: CacheEntry) -> bool:
        if entry.bytes > self._host.limit:
            return False
        while self._host.bytes + entry.bytes > self._host.limit:
            self._host.pop_oldest()
        in_host = self._to_host(entry)
        if in_host is None:
            return False
        self._host.put(key, in_host)
        return True


class _Tier(Generic[CacheEntry]):
    """Entries of one tier, the least recently used entry first, and the total size of the entries in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.entries: OrderedDict[bytes, CacheEntry] = OrderedDict()

    def put(self, key: bytes, entry: CacheEntry) -> None:
        self.entries[key] = entry
        self.bytes += entry.bytes

    def remove(self, key: bytes) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.bytes

    def pop_oldest(self) -> tuple[bytes, CacheEntry]:
        """Remove and return the least recently used entry."""
        key, entry = self.entries.popitem(last=False)
        self.bytes -= entry.bytes
        return key, entry

    def clear(self) -> None:
        self.entries.clear()
        self.bytes = 0
