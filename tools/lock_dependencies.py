"""Write the files with pinned and hashed versions of all dependencies: ``python tools/lock_dependencies.py``.

- ``constraints/locked-cpu.txt``: the extra dev with the CPU build of PyTorch, for Python 3.11 on Linux x86-64.
- ``constraints/locked-cuda.txt``: the extra all with the CUDA build of PyTorch, for all platforms and Python versions.

Install a file with ``pip install --require-hashes -r FILE``, then jina-rag itself with ``pip install --no-deps``. The
hashes are those of all files of a version, so that pip rejects a file that was replaced. The tool uv resolves the
versions. The CPU build of PyTorch is on the index of PyTorch, not on PyPI: ``--find-links`` names the address or a
folder with the wheel.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU_WHEELS = "https://download.pytorch.org/whl/cpu/torch/"


def lock(name: str, *options: str) -> None:
    """Resolve the versions and write a file.

    Args:
        name: Name of the file in the folder constraints.
        options: Options of ``uv pip compile``.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "-c", "constraints/cpu.txt"]
    command += ["--generate-hashes", "--no-annotate", "--upgrade", "--quiet", "--output-file", f"constraints/{name}"]
    environment = os.environ | {"UV_CUSTOM_COMPILE_COMMAND": "python tools/lock_dependencies.py"}
    subprocess.run([*command, *options], cwd=ROOT, env=environment, check=True)


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--find-links", default=CPU_WHEELS, help="address or folder of the CPU build of PyTorch")
    options = parser.parse_args()
    lock(
        "locked-cpu.txt", "--extra", "dev", "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28",
        "--find-links", options.find_links,
    )  # fmt: skip
    lock("locked-cuda.txt", "--extra", "all", "--universal", "--python-version", "3.11")


if __name__ == "__main__":
    main()
