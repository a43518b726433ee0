"""Optimization of a closed shard in another process.

The engine holds the interpreter lock for the whole optimization and maps the old and the new files of the segments into
memory. In another process, the threads of this process go on in the meantime, for example those that render and embed
pages, and the mapped files do not count as memory of this process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

_BOOT: Final = (
    "import sys, json; path, *options = json.loads(sys.argv[1]); sys.path[:] = path; "
    "from jina_rag.stores.qdrant.edge_optimization import main; main(*options)"
)
_PR_SET_PDEATHSIG: Final = 1


class OptimizationError(Exception):
    """The optimization failed. The message has no final period, because callers embed the message."""


def optimize_closed_shard(shard: Path) -> None:
    """Optimize and flush a closed shard in another process, and wait for the end of the process.

    The settings of the optimization are those with which the shard was last opened. If the wait is interrupted, for
    example by Ctrl-C, the other process is killed. The shard then remains usable.

    Args:
        shard: Folder of the shard.

    Raises:
        OptimizationError: If the optimization fails, for example on a full disk. The shard remains usable.
        OSError: If the operating system cannot start the process.
    """
    options = json.dumps([sys.path, str(shard), os.getpid()])
    # With -P, no module is imported from the working directory, which may contain untrusted documents.
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-c", _BOOT, options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is handled by this process, which kills the other one
    )
    try:
        _, output = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
    if process.returncode:
        reason = " ".join(output.split())[-300:] or f"exit code {process.returncode}"
        raise OptimizationError(f"the optimization failed: {reason}")


def main(shard: str, parent: int) -> None:
    """Optimize a shard; the main program of the other process.

    Args:
        shard: Folder of the shard.
        parent: Id of the process that waits for this process.
    """
    _exit_with_parent(parent)
    import qdrant_edge

    try:
        optimized = qdrant_edge.EdgeShard.load(shard)
        try:
            optimized.optimize()
            optimized.flush()
        finally:
            optimized.close()
    except BaseException as exc:  # including panics of the engine; the parent process raises the message
        sys.exit(str(exc) or type(exc).__name__)


def _exit_with_parent(parent: int) -> None:
    """Let the operating system kill this process when the parent process ends.

    This process could not notice it, because the engine holds the interpreter lock. Without this, a killed parent could
    not be started again on the same folder until the optimization ends. Other systems than Linux have no such call.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.name == "posix" and os.getppid() != parent:
        os._exit(1)
