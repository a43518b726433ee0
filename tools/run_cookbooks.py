"""Run the cookbooks from top to bottom and keep what they print and draw.

    python tools/run_cookbooks.py                            # all of cookbooks/, outputs stored in place
    python tools/run_cookbooks.py cookbooks/01_quick_start.ipynb
    python tools/run_cookbooks.py --into DIR --offline       # as the tests do: stored elsewhere, without network

Each notebook runs in a kernel of its own whose working folder is empty, so it cannot count on where it was started, and
whatever it leaves there is an error. Times and the version of Python are not stored.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

COOKBOOKS = Path(__file__).resolve().parent.parent / "cookbooks"
SECONDS = 120
"""What a notebook may take, on two slow processors."""

# Python runs a sitecustomize.py that it finds on its path before anything else, in the kernel and in what it starts.
_NO_NETWORK = '''"""Refuses connections to other machines; the kernel's own, on this machine, are let through."""
import ipaddress
import socket


def _here(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


def _check(host):
    if not _here(host):
        raise ConnectionRefusedError(f"A cookbook wanted to reach {host}: they run without network.")


class _Socket(socket.socket):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        return super().connect(address)

    def connect_ex(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        return super().connect_ex(address)


_getaddrinfo = socket.getaddrinfo


def _lookup(host, *args, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if name is not None:
        _check(name)
    return _getaddrinfo(host, *args, **kwargs)


socket.socket = _Socket
socket.getaddrinfo = _lookup
'''


def run(path: Path, *, offline: bool = False, timeout: float = SECONDS) -> nbformat.NotebookNode:
    """Run a notebook and return it with its outputs.

    Args:
        path: The notebook; it is left as it is.
        offline: Whether its kernel, and processes that it starts, can reach this machine only.
        timeout: Seconds that it may take in all.

    Raises:
        CellExecutionError: If a cell fails.
        TimeoutError: If it takes longer.
        RuntimeError: If it leaves something in its working folder.
    """
    notebook = nbformat.read(path, as_version=4)
    started = time.monotonic()
    with _surroundings(offline) as (folder, environment):
        client = NotebookClient(
            notebook,
            timeout=timeout,
            startup_timeout=timeout,
            record_timing=False,
            km=AsyncKernelManager(
                kernel_name="python3",
                connection_file=str(folder.parent / "kernel.json"),
                # Sockets in the file system, where there are any: others on this machine can listen to TCP.
                transport="tcp" if sys.platform == "win32" else "ipc",
            ),
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            client.execute(cleanup_kc=True, env=environment)
        except CellTimeoutError as exc:
            raise TimeoutError(f"{path.name} takes more than {timeout:.0f} seconds.") from exc
        leftovers = sorted(entry.name for entry in folder.iterdir())
    if leftovers:
        raise RuntimeError(f"{path.name} leaves {', '.join(leftovers)} in the folder that it runs in.")
    seconds = time.monotonic() - started
    if seconds > timeout:
        raise TimeoutError(f"{path.name} takes {seconds:.0f} seconds, more than {timeout:.0f}.")
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


@contextmanager
def _surroundings(offline: bool) -> Iterator[tuple[Path, dict[str, str]]]:
    """An empty folder, and the environment of a kernel that leaves no traces with the user."""
    with tempfile.TemporaryDirectory(prefix="jina-rag-cookbook-") as scratch:
        folders = {name: Path(scratch) / name for name in ("work", "python", "ipython", "jupyter", "temporary")}
        for folder in folders.values():
            folder.mkdir()
        environment = os.environ | {
            "IPYTHONDIR": str(folders["ipython"]),
            "JUPYTER_CONFIG_DIR": str(folders["jupyter"]),
            "TMPDIR": str(folders["temporary"]),
            "HF_HUB_OFFLINE": "1",
            "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm, where there are no widgets
            "TERM": "dumb",
            "NO_COLOR": "1",
        }
        if offline:
            (folders["python"] / "sitecustomize.py").write_text(_NO_NETWORK, encoding="utf-8")
            before = environment.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join([str(folders["python"]), *([before] if before else [])])
        yield folders["work"], environment


def main() -> int:
    """Run what the command line names; the exit status is the number of notebooks that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", type=Path, nargs="*", help="all of cookbooks/ if none is named")
    parser.add_argument("--into", type=Path, help="an existing folder for the results; else they replace the notebooks")
    parser.add_argument("--offline", action="store_true", help="refuse connections to other machines")
    parser.add_argument("--timeout", type=float, default=SECONDS, help="seconds for each notebook")
    arguments = parser.parse_args()
    failed = 0
    for path in arguments.notebooks or sorted(COOKBOOKS.glob("*.ipynb")):
        started = time.monotonic()
        try:
            notebook = run(path, offline=arguments.offline, timeout=arguments.timeout)
        except (CellExecutionError, TimeoutError, RuntimeError) as exc:
            failed += 1
            print(f"{path.name} failed:\n{exc}", file=sys.stderr)
            continue
        target = (arguments.into or path.parent) / path.name
        nbformat.write(notebook, target)
        print(f"{path.name}: {time.monotonic() - started:.0f} s, {target.stat().st_size / 1e6:.2f} MB")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
