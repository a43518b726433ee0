"""File helpers: atomic writes, lock files and disk usage."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from jina_rag.errors import IndexLockedError

if TYPE_CHECKING:
    from filelock import BaseFileLock


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file atomically.

    Args:
        path: Path of the file, in an existing folder.
        content: Complete new content of the file.
        mode: Permission bits of the file. Default: readable and writable by the owner only.

    Raises:
        OSError: If the file cannot be written.
    """
    with open_atomic(path, mode=mode) as stream:
        stream.write(content)


@contextmanager
def open_atomic(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open a file for an atomic write: readers see either the previous or the complete new content.

    The content is written to a temporary file in the folder of `path`. At the end, the file is renamed to `path`.

    Args:
        path: Path of the file, in an existing folder.
        mode: Permission bits of the file. Default: readable and writable by the owner only.

    Yields:
        The binary stream to write to.

    Raises:
        OSError: If the file cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def acquire_lock(path: Path, message: Callable[[], str]) -> BaseFileLock:
    """Acquire and return a file lock, which is held until the lock is released or the process exits.

    Releasing the lock is idempotent.

    Args:
        path: Path of the lock file, in an existing folder.
        message: Function that returns the message of the IndexLockedError.

    Raises:
        IndexLockedError: If this process or another process already holds the lock.
        OSError: If the lock file cannot be created.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as exc:
        raise IndexLockedError(message()) from exc
    return lock


@contextmanager
def locked(path: Path, message: Callable[[], str]) -> Iterator[None]:
    """Hold a file lock for the duration of the context.

    Args:
        path: Path of the lock file, in an existing folder.
        message: Function that returns the message of the IndexLockedError.

    Raises:
        IndexLockedError: If this process or another process already holds the lock.
        OSError: If the lock file cannot be created.
    """
    lock = acquire_lock(path, message)
    try:
        yield
    finally:
        lock.release()


def size_on_disk(path: Path) -> int:
    """Return the disk usage in bytes: for each file, the length or the allocated blocks, whichever is smaller."""
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        with suppress(OSError):  # a file may be removed during the listing
            if file.is_file():
                total += _allocated(file.stat())
    return total


def _allocated(status: os.stat_result) -> int:
    blocks: int | None = getattr(status, "st_blocks", None)  # Windows does not report blocks
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)
