"""Files on disk, once each: whole-file writes, lock files, sizes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from jina_rag.errors import IndexLockedError

if TYPE_CHECKING:
    from filelock import BaseFileLock


def write_whole(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file that appears whole or not at all; arguments and errors are those of `open_whole`."""
    with open_whole(path, mode=mode) as stream:
        stream.write(content)


@contextmanager
def open_whole(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Write beside `path`, then rename: neither a reader nor a crash leaves half a file.

    Args:
        path: The file; its folder exists.
        mode: Permissions of the file; by default only its owner can read it.

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


def acquire_lock(path: Path, message: str) -> BaseFileLock:
    """Acquire a lock file, until the lock is released or the process ends; releasing it twice is fine.

    Args:
        path: The file; its folder exists.
        message: Of the error.

    Raises:
        IndexLockedError: If the lock is held already, by another process or elsewhere in this one.
        OSError: If the file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as exc:
        raise IndexLockedError(message) from exc
    return lock


@contextmanager
def locked(path: Path, message: str) -> Iterator[None]:
    """Hold a lock file; the arguments and errors are those of `acquire_lock`."""
    lock = acquire_lock(path, message)
    try:
        yield
    finally:
        lock.release()


def size_on_disk(path: Path) -> int:
    """Bytes that a file or folder takes on disk; sparse files take less than their length."""
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        with suppress(OSError):  # removed meanwhile
            if file.is_file():
                total += _allocated(file.stat())
    return total


def _allocated(status: os.stat_result) -> int:
    blocks: int | None = getattr(status, "st_blocks", None)  # Windows has none
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)
