"""Memory that a worker process shares with the parent process, so that a page leaves the worker without the pipe.

A pipe transfers a page in about 100 parts, and after each part the reading thread waits for its turn in the parent
process. From shared memory, the parent process reads a page at once. Only Linux has sealed memory, which the worker
cannot shrink: reading memory that no longer exists would end the parent process. Elsewhere, the pipe transfers pages.
"""

from __future__ import annotations

import mmap
import os
import sys

SIZE = 32 * 2**20
"""Size of the shared memory of a worker in bytes. The operating system provides only the parts that were written."""


def create() -> int | None:
    """Return the file descriptor of new shared memory of `SIZE` bytes; None if the system has no sealed memory."""
    if sys.platform != "linux":
        return None
    import fcntl

    descriptor = -1
    try:
        descriptor = os.memfd_create("jina-rag", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, SIZE)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:  # for example in a sandbox that forbids the system call
        if descriptor >= 0:
            os.close(descriptor)
        return None
    return descriptor


def open_for_reading(descriptor: int) -> mmap.mmap:
    """Return the shared memory as read-only memory of this process. The caller still owns `descriptor`.

    Args:
        descriptor: The file descriptor returned by `create`.
    """
    return mmap.mmap(descriptor, SIZE, access=mmap.ACCESS_READ)


def open_for_writing(descriptor: int) -> mmap.mmap:
    """Return the shared memory as writable memory of this process, and close the file descriptor.

    Args:
        descriptor: The file descriptor returned by `create`.
    """
    try:
        return mmap.mmap(descriptor, SIZE)
    finally:
        os.close(descriptor)
