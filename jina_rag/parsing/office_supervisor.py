"""Program that runs LibreOffice within limits, and stops LibreOffice when the process that started the program ends.

`jina_rag.parsing.office` runs this file as a script, with an interpreter that imports only the standard library::

    python -I -S office_supervisor.py PARENT MEMORY FILE_SIZE FOLDER PROGRAM [ARGUMENT …]

Standard input is a pipe that the parent process never writes to. At the end of the pipe, or if the parent dies, all
processes of LibreOffice are killed and FOLDER, which contains a copy of the document, is deleted. LibreOffice starts
processes of its own, so that a signal at the death of the parent would not reach all of them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_FAILED = 1
CANNOT_START = 127
"""Exit status if LibreOffice cannot be started, as in shells."""


def run(parent: int, memory: int, file_size: int, folder: str, command: list[str]) -> int:
    """Run LibreOffice, and return its exit status; 128 plus the number of the signal if LibreOffice was killed.

    Args:
        parent: Process id of the process that started this program.
        memory: Maximum private memory of each process, in bytes.
        file_size: Maximum size of each file that is written, in bytes.
        folder: Working folder, which is deleted if the parent ends.
        command: Program and arguments.
    """
    _limit(memory, file_size)
    null = subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, cwd=folder, stdin=null, stdout=null, stderr=null, start_new_session=True)  # noqa: S603
    except OSError:
        return CANNOT_START

    def abort(*_: object) -> None:
        _kill_group(process.pid)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(_FAILED)

    signal.signal(signal.SIGTERM, abort)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # the parent ended before the call
            abort()

    def wait_for_end_of_pipe() -> None:
        with suppress(OSError):
            while os.read(sys.stdin.fileno(), 1024):
                pass
        abort()

    threading.Thread(target=wait_for_end_of_pipe, daemon=True).start()
    status = process.wait()
    _kill_group(process.pid)  # processes that LibreOffice left behind
    return status if status >= 0 else 128 - status


def _limit(memory: int, file_size: int) -> None:
    import resource

    for limit, value in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        maximum = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):  # macOS does not support all limits
            resource.setrlimit(limit, (maximum, maximum))


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:]))
