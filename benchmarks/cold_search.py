"""A cold ``jina-rag search`` against a process that only imports what the search imports.

    python benchmarks/cold_search.py INDEX [QUESTION]

The bare process imports the same third-party modules as the search had loaded at its end, in the same order (asked
of the search itself, so that the list cannot go stale), and does nothing else. Both are run in turns; medians of
wall time and of processor time. Both find their modules compiled, as on any machine where they ran before, also
where the environment forbids Python to keep what it compiles.
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
QUESTION = "growth by region"
_LIST = """
import io, json, sys
sys.argv = ["jina-rag", *sys.argv[2:]]
real, sys.stdout = sys.stdout, io.TextIOWrapper(io.BytesIO())
from jina_rag.cli import main
try:
    main()
except SystemExit as left:
    assert not left.code, left.code
ours = sys.stdlib_module_names | {"__main__", "jina_rag"}
json.dump([name for name, module in sys.modules.items()
           if name.split(".")[0] not in ours and getattr(module, "__spec__", None) and "<" not in name], real)
"""
_IMPORT = """
import sys
from importlib import import_module
for name in sys.argv[1].split(","):
    try:
        import_module(name)
    except ImportError:
        pass
"""


def measure(index: str | os.PathLike[str], query: str = QUESTION, runs: int = RUNS) -> dict[str, Any]:
    """Seconds of both and their ratio, printed and returned.

    Args:
        index: An existing index.
        query: What is asked.
        runs: Runs of each, in turns, after one of each that is not counted.
    """
    arguments = ["search", query, "--index", os.fspath(index)]
    wall: dict[str, list[float]] = {"search": [], "imports": []}
    cpu: dict[str, list[float]] = {"search": [], "imports": []}
    with tempfile.TemporaryDirectory() as bytecode_folder:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = bytecode_folder
        listing = [sys.executable, "-c", _LIST, "-", *arguments]
        modules = json.loads(subprocess.run(listing, env=env, capture_output=True, text=True, check=True).stdout)
        commands = {
            "search": [sys.executable, "-m", "jina_rag", *arguments],
            "imports": [sys.executable, "-c", _IMPORT, ",".join(modules)],
        }
        for turn in range(runs + 1):
            for name, command in commands.items():
                seconds, busy = _timed(command, env)
                if turn:
                    wall[name].append(seconds)
                    cpu[name].append(busy)
    figures = {
        "packages": sorted({name.split(".")[0] for name in modules}),
        "search_seconds": round(statistics.median(wall["search"]), 3),
        "imports_seconds": round(statistics.median(wall["imports"]), 3),
        "search_cpu_seconds": round(statistics.median(cpu["search"]), 3),
        "imports_cpu_seconds": round(statistics.median(cpu["imports"]), 3),
    }
    figures["ratio"] = round(figures["search_seconds"] / figures["imports_seconds"], 2)
    figures["cpu_ratio"] = round(figures["search_cpu_seconds"] / figures["imports_cpu_seconds"], 2)
    print(f"bare imports ({', '.join(figures['packages'])})")
    print(f"  {figures['imports_seconds']:.2f} s, {figures['imports_cpu_seconds']:.2f} s CPU")
    print(f"cold search\n  {figures['search_seconds']:.2f} s, {figures['search_cpu_seconds']:.2f} s CPU")
    print(f"ratio {figures['ratio']:.2f} (wall), {figures['cpu_ratio']:.2f} (CPU); medians of {runs} runs in turns")
    return figures


def _timed(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    with tempfile.TemporaryFile() as sink:
        before = os.times()
        start = time.perf_counter()
        subprocess.run(command, env=env, stdout=sink, check=True)
        seconds = time.perf_counter() - start
        after = os.times()
    busy = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return seconds, busy


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(__doc__)
    measure(sys.argv[1], *sys.argv[2:])
