"""Measure memory and time of jina-embeddings-v4 and jina-reranker-m0 at full size on a CPU.

    python benchmarks/full_size.py [v4] [m0] [--folder DIR] [--page-seconds 600]

The checkpoints have random weights in the real shapes (`jina_rag.testing.make_checkpoint`, size "full"): 7.9 GB on disk
for jina-embeddings-v4 with adapters, 4.4 GB for jina-reranker-m0. The checkpoints are loaded in the stored dtype,
bfloat16. Each model runs in a separate process. The benchmark prints one JSON object per model: the private memory
(RssAnon) after loading, the peak private memory while loading, the ratio of the peak to the size of the weights, and
the seconds for one query or (query, text) pair. If the process finishes within --page-seconds, the object also has the
seconds for one page image.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

QUERY = "Which region grew fastest?"


def page() -> Image.Image:
    """Return a page image of about 768 tokens."""
    image = Image.new("RGB", (850, 1100), "white")
    draw = ImageDraw.Draw(image)
    for line in range(40):
        draw.text((60, 60 + 24 * line), f"Line {line}: revenue in the north grew by {line} percent.", fill="black")
    return image


def private_memory() -> int:
    """Return the private memory of this process (RssAnon), in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon. Run the benchmark on Linux.")


class PeakMemory:
    """A context manager that records the peak private memory of the ``with`` block, in bytes."""

    def __enter__(self) -> PeakMemory:
        self.value, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.value = max(self.value, private_memory())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def measure(family: str, folder: Path) -> None:
    """Load and run one model, and print the figures after each step, so that a timeout loses only one step."""
    import torch  # noqa: F401  # imported first, so that the figures exclude the memory of torch

    from jina_rag import load_embedder, load_reranker

    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    base = private_memory()
    start = time.perf_counter()
    with PeakMemory() as peak:
        load: Any = load_reranker if family == "m0" else load_embedder
        model = load(str(folder), device="cpu", dtype="bfloat16")
    figures: dict[str, Any] = {
        "model": family,
        "weights_gb": round(weights / 1e9, 2),
        "load_s": round(time.perf_counter() - start, 1),
        "private_after_load_gb": round((private_memory() - base) / 1e9, 2),
        "private_peak_while_loading_gb": round((peak.value - base) / 1e9, 2),
        "share_of_weights": round((max(peak.value, private_memory()) - base) / weights, 2),
    }
    print(json.dumps(figures), flush=True)
    for name, item in (("text_s", "Revenue grew by 12 % in the north."), ("page_s", page())):
        start = time.perf_counter()
        if family == "m0":
            model.score(QUERY, [item])
        elif name == "text_s":
            model.encode_query([QUERY])
        else:
            model.encode_document([item])
        figures[name] = round(time.perf_counter() - start, 1)
        print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=["v4", "m0"])
    parser.add_argument("--folder", type=Path, help="folder of the checkpoints, reused by later runs")
    parser.add_argument("--page-seconds", type=float, default=600, help="time limit of each model, in seconds")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.families[0], options.measure)
        return
    from jina_rag.testing import make_checkpoint

    with tempfile.TemporaryDirectory(prefix="jina-rag-full-") as scratch:
        for family in options.families:
            folder = (options.folder or Path(scratch)) / family
            if not folder.is_dir():
                make_checkpoint(family, "full", folder)
            command = [sys.executable, __file__, family, "--measure", str(folder)]
            try:
                process = subprocess.run(
                    command, capture_output=True, text=True, timeout=options.page_seconds, check=False
                )
                lines, note = process.stdout, process.stderr[-300:] if process.returncode else ""
            except subprocess.TimeoutExpired as exc:
                lines = (exc.stdout or b"").decode()
                note = f"stopped after {options.page_seconds:.0f} s"
            print(lines.splitlines()[-1] if lines else "{}", note, flush=True)


if __name__ == "__main__":
    main()
