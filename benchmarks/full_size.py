"""The models at their real size, on a CPU: does it load, what memory does it take, how long does one input need?

    python benchmarks/full_size.py [v4] [m0] [--folder DIR] [--page-seconds 600]

Random weights with the real numbers (`jina_rag.testing.make_checkpoint`, size "full": 7.9 GB on disk for
jina-embeddings-v4 with its adapters, 4.4 GB for jina-reranker-m0), loaded in their stored bfloat16. Each model runs in
a process of its own. Prints one JSON object a model: private memory (RssAnon) at its peak while loading and after,
as a share of the weights, and the seconds for one query or pair, and for one page image if it ends in time.
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

QUESTION = "Which region grew fastest?"


def page() -> Image.Image:
    """A page of about 768 tokens."""
    image = Image.new("RGB", (850, 1100), "white")
    draw = ImageDraw.Draw(image)
    for line in range(40):
        draw.text((60, 60 + 24 * line), f"Line {line}: revenue in the north grew by {line} percent.", fill="black")
    return image


def private() -> int:
    """Private memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not tell what memory is private")


class Peak:
    """The greatest private memory while the block runs."""

    def __enter__(self) -> Peak:
        self.value, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.value = max(self.value, private())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def measure(family: str, folder: Path) -> None:
    """Load and run one model; prints a line of JSON after each step, so that a stop loses only what was left."""
    import torch  # noqa: F401  # its own memory is not the model's

    from jina_rag import load_embedder, load_reranker

    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    base = private()
    start = time.perf_counter()
    with Peak() as peak:
        load: Any = load_reranker if family == "m0" else load_embedder
        model = load(str(folder), device="cpu", dtype="bfloat16")
    figures: dict[str, Any] = {
        "model": family,
        "weights_gb": round(weights / 1e9, 2),
        "load_s": round(time.perf_counter() - start, 1),
        "private_after_load_gb": round((private() - base) / 1e9, 2),
        "private_peak_while_loading_gb": round((peak.value - base) / 1e9, 2),
        "share_of_weights": round((max(peak.value, private()) - base) / weights, 2),
    }
    print(json.dumps(figures), flush=True)
    for name, item in (("text_s", "Revenue grew by 12 % in the north."), ("page_s", page())):
        start = time.perf_counter()
        if family == "m0":
            model.score(QUESTION, [item])
        elif name == "text_s":
            model.encode_query([QUESTION])
        else:
            model.encode_document([item])
        figures[name] = round(time.perf_counter() - start, 1)
        print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=["v4", "m0"])
    parser.add_argument("--folder", type=Path, help="where the checkpoints are kept, to use them again")
    parser.add_argument("--page-seconds", type=float, default=600, help="how long loading and a page may take")
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
