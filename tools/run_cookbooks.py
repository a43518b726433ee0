"""Run the cookbooks and store their outputs.

    python tools/run_cookbooks.py                            # all of cookbooks/, outputs stored in place
    python tools/run_cookbooks.py cookbooks/01_quick_start.ipynb
    python tools/run_cookbooks.py --into DIR --offline       # like the tests: other folder, without network

Each notebook runs in a separate kernel with an empty working folder. A notebook that leaves files in this folder fails.
The stored notebooks contain no execution times and no Python version.
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
"""Default time limit of a notebook in seconds, which is sufficient on two slow CPUs."""

# Python imports sitecustomize.py from sys.path at startup, so the code runs in the kernel and in child processes.
_NO_NETWORK = '''"""Refuse connections to other machines; allow connections to the kernel on this machine."""
import ipaddress
import socket


def _is_local(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


def _check(host):
    if not _is_local(host):
        raise ConnectionRefusedError(f"A cookbook tried to connect to {host}; cookbooks run without network.")


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
        path: Path of the notebook, which is not modified.
        offline: Whether to refuse connections of the kernel and its child processes to other machines.
        timeout: Time limit of the notebook in seconds.

    Raises:
        CellExecutionError: If a cell fails.
        TimeoutError: If the notebook exceeds the time limit.
        RuntimeError: If the notebook leaves files in its working folder.
    """
    notebook = nbformat.read(path, as_version=4)
    started = time.monotonic()
    with _kernel_environment(offline) as (folder, environment):
        client = NotebookClient(
            notebook,
            timeout=timeout,
            startup_timeout=timeout,
            record_timing=False,
            km=AsyncKernelManager(
                kernel_name="python3",
                connection_file=str(folder.parent / "kernel.json"),
                # Use a socket in a private folder, because other users of the machine could connect to a TCP socket.
                transport="tcp" if sys.platform == "win32" else "ipc",
            ),
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            client.execute(cleanup_kc=True, env=environment)
        except CellTimeoutError as exc:
            raise TimeoutError(f"{path.name} exceeded {timeout:.0f} seconds. Raise --timeout.") from exc
        leftover_files = sorted(entry.name for entry in folder.iterdir())
    if leftover_files:
        raise RuntimeError(
            f"{path.name} leaves {', '.join(leftover_files)} in the working folder. "
            "Add a cell to the notebook that deletes the files."
        )
    seconds = time.monotonic() - started
    if seconds > timeout:
        raise TimeoutError(
            f"{path.name} took {seconds:.0f} seconds, above the limit of {timeout:.0f}. Raise --timeout."
        )
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


@contextmanager
def _kernel_environment(offline: bool) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield an empty working folder, and environment variables that keep all kernel files in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="jina-rag-cookbook-") as temporary:
        folders = {name: Path(temporary) / name for name in ("work", "python", "ipython", "jupyter", "temporary")}
        for folder in folders.values():
            folder.mkdir()
        environment = os.environ | {
            "IPYTHONDIR": str(folders["ipython"]),
            "JUPYTER_CONFIG_DIR": str(folders["jupyter"]),
            "TMPDIR": str(folders["temporary"]),
            "HF_HUB_OFFLINE": "1",
            "PYTHONWARNINGS": "ignore:IProgress not found",  # a warning of tqdm without ipywidgets
            "TERM": "dumb",
            "NO_COLOR": "1",
        }
        if offline:
            (folders["python"] / "sitecustomize.py").write_text(_NO_NETWORK, encoding="utf-8")
            python_path = environment.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join(
                [str(folders["python"]), *([python_path] if python_path else [])]
            )
        yield folders["work"], environment


def main() -> int:
    """Run the notebooks on the command line and return the number of failed notebooks as exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", type=Path, nargs="*", help="notebooks to run (default: all of cookbooks/)")
    parser.add_argument("--into", type=Path, help="existing folder for the results (default: replace the notebooks)")
    parser.add_argument("--offline", action="store_true", help="refuse connections to other machines")
    parser.add_argument(
        "--timeout", type=float, default=SECONDS, help="time limit per notebook in seconds (default: 120)"
    )
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
