"""Compare the time of a cold ``jina-rag search`` with the time to import the third-party modules of the search.

    python benchmarks/cold_search.py INDEX [QUERY]

The benchmark first runs a search to list the third-party modules that a search imports. The baseline process imports
the modules in the order of the list and exits. Then the search and the baseline process run alternately, and the
benchmark prints medians of wall time and CPU time. The processes use cached bytecode, even if PYTHONDONTWRITEBYTECODE
is set.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUNS = 7
QUERY = "growth by region"
_LIST_MODULES = """
import io, json, sys
sys.argv = ["jina-rag", *sys.argv[2:]]
stdout, sys.stdout = sys.stdout, io.TextIOWrapper(io.BytesIO())
from jina_rag.cli import main
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
excluded = sys.stdlib_module_names | {"__main__", "jina_rag"}
json.dump([name for name, module in sys.modules.items()
           if name.split(".")[0] not in excluded and getattr(module, "__spec__", None) and "<" not in name], stdout)
"""
_IMPORT_MODULES = """
import sys
from importlib import import_module
for name in sys.argv[1].split(","):
    try:
        import_module(name)
    except ImportError:
        pass
"""


def measure(index: str | os.PathLike[str], query: str = QUERY, runs: int = RUNS) -> dict[str, Any]:
    """Print and return the seconds of the search, the seconds of the imports, and the ratios of search to imports.

    Args:
        index: Folder of an existing index.
        query: The query.
        runs: Number of timed runs of each process, after one warm-up run.
    """
    arguments = ["search", query, "--index", os.fspath(index)]
    wall: dict[str, list[float]] = {"search": [], "imports": []}
    cpu: dict[str, list[float]] = {"search": [], "imports": []}
    with tempfile.TemporaryDirectory() as bytecode_folder:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = bytecode_folder
        listing = [sys.executable, "-c", _LIST_MODULES, "-", *arguments]
        modules = json.loads(subprocess.run(listing, env=env, capture_output=True, text=True, check=True).stdout)
        commands = {
            "search": [sys.executable, "-m", "jina_rag", *arguments],
            "imports": [sys.executable, "-c", _IMPORT_MODULES, ",".join(modules)],
        }
        for turn in range(runs + 1):
            for name, command in commands.items():
                wall_seconds, cpu_seconds = _run(command, env)
                if turn:
                    wall[name].append(wall_seconds)
                    cpu[name].append(cpu_seconds)
    figures = {
        "packages": sorted({name.split(".")[0] for name in modules}),
        "search_seconds": round(statistics.median(wall["search"]), 3),
        "imports_seconds": round(statistics.median(wall["imports"]), 3),
        "search_cpu_seconds": round(statistics.median(cpu["search"]), 3),
        "imports_cpu_seconds": round(statistics.median(cpu["imports"]), 3),
    }
    figures["ratio"] = round(figures["search_seconds"] / figures["imports_seconds"], 2)
    figures["cpu_ratio"] = round(figures["search_cpu_seconds"] / figures["imports_cpu_seconds"], 2)
    print(f"imports only ({', '.join(figures['packages'])})")
    print(f"  {figures['imports_seconds']:.2f} s, {figures['imports_cpu_seconds']:.2f} s CPU")
    print(f"cold search\n  {figures['search_seconds']:.2f} s, {figures['search_cpu_seconds']:.2f} s CPU")
    print(f"ratio {figures['ratio']:.2f} (wall), {figures['cpu_ratio']:.2f} (CPU); medians of {runs} alternating runs")
    return figures


def _run(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Return the wall seconds and CPU seconds of a process."""
    with tempfile.TemporaryFile() as stdout:
        before = os.times()
        start = time.perf_counter()
        subprocess.run(command, env=env, stdout=stdout, check=True)
        wall_seconds = time.perf_counter() - start
        after = os.times()
    cpu_seconds = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return wall_seconds, cpu_seconds


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(__doc__)
    measure(sys.argv[1], *sys.argv[2:])
