"""What jina-reranker-m0's page memory saves: 12 questions over 16 page images, with it and pair by pair from scratch.

    python benchmarks/rerank.py [--device cpu|cuda] [--questions 12] [--pages 16] [--folder CHECKPOINT]

A random checkpoint of a middle size with the proportions of the real one (`jina_rag.testing.make_checkpoint`, size
"mid"), pages of 850 x 1100 pixels as PNG files. Both ways run in one process, in turns, so that what else the machine
does strikes both; figures are medians, and ratios are of medians.

first    The first question: each page is read, with a memory and without one, one after the other. The bar is 1.05.
later    Every other question runs over all pages at once by what is kept; pairs from scratch are taken in between, two
         pages a question, because all of them would take minutes. The bar is 30.
alone    The same as `later`, one page a call.
at once  All questions and pages in one call, in shuffled order, all pages known.
new      The same on an empty memory: each page is read once. On 4 pages.
wrong    Largest difference of raw scores from those from scratch: all pairs of `first`, those drawn in `later`. The bar
         is 1e-5 in float32. For caches in bfloat16 and float16 the difference from the float32 cache, on 4 pages.
bytes    Keys and values of one page.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from models import pages, texts

from jina_rag import load_reranker
from jina_rag.models.page_memory import PageMemory
from jina_rag.models.text_tokens import TextTokenizer
from jina_rag.testing import make_checkpoint


def seconds(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


class Bench:
    """Both ways, on the same questions and pages."""

    def __init__(self, checkpoint: Path, scratch: Path, options: argparse.Namespace) -> None:
        self.checkpoint, self.device, self.dtype = checkpoint, options.device, options.dtype
        tokenizer = TextTokenizer(checkpoint, fallback="Qwen2Tokenizer")
        self.questions = texts(options.questions, 12, 0.4, 60, 2, lambda text: len(tokenizer.encode(text)))
        self.pages = []
        for number, image in enumerate(pages(options.pages, seed=1)):
            self.pages.append(scratch / f"{number}.png")
            image.save(self.pages[-1])
        self.without, self.kept = self.load(False), self.load(True)

    def load(self, page_memory: PageMemory | bool) -> Any:
        return load_reranker(str(self.checkpoint), device=self.device, dtype=self.dtype, page_memory=page_memory)

    def timed(self, model: Any, pairs: Sequence[tuple[str, Path]]) -> tuple[float, np.ndarray]:
        """Seconds a pair, and raw scores."""
        took, scores = seconds(lambda: model.score_pairs(pairs, raw=True), self.device)
        return took / len(pairs), scores

    def run(self) -> dict[str, Any]:
        first, *others = self.questions
        for model in (self.without, self.load(True)):  # what runs for the first time is slow
            model.score(first, self.pages[:1])
        times: dict[str, list[float]] = {name: [] for name in ("first", "plain", "later", "scratch", "alone")}
        wrong = 0.0
        for number, page in enumerate(self.pages):
            both = [("plain", self.without), ("first", self.kept)]
            scores = {}
            for name, model in both if number % 2 else reversed(both):
                took, scores[name] = self.timed(model, [(first, page)])
                times[name].append(took)
            wrong = max(wrong, float(abs(scores["plain"] - scores["first"]).max()))
        use = self.kept.page_memory.use
        assert use.device_entries + use.host_entries == len(self.pages), use
        for number, question in enumerate(others):
            took, known = self.timed(self.kept, [(question, page) for page in self.pages])
            times["later"].append(took)
            for place in (2 * number % len(self.pages), (2 * number + 1) % len(self.pages)):
                took, scratch = self.timed(self.without, [(question, self.pages[place])])
                times["scratch"].append(took)
                wrong = max(wrong, float(abs(scratch[0] - known[place])))
                took, alone = self.timed(self.kept, [(question, self.pages[place])])
                times["alone"].append(took)
                wrong = max(wrong, float(abs(scratch[0] - alone[0])))
        assert self.kept.page_memory.use.misses == len(self.pages), self.kept.page_memory.use
        median = {name: float(np.median(values)) for name, values in times.items()}
        at_once, _ = self.timed(self.kept, self._shuffled(self.pages))
        return {
            "first": round(float(np.median(np.divide(times["first"], times["plain"]))), 3),
            "first_of_sums": round(sum(times["first"]) / sum(times["plain"]), 3),
            "scratch_ms": round(1000 * median["scratch"], 1),
            "later_ms": round(1000 * median["later"], 1),
            "alone_ms": round(1000 * median["alone"], 1),
            "at_once_ms": round(1000 * at_once, 1),
            "later": round(median["scratch"] / median["later"], 1),
            "alone": round(median["scratch"] / median["alone"], 1),
            "at_once": round(median["scratch"] / at_once, 1),
            "wrong": wrong,
            "bytes": (use.device_bytes + use.host_bytes) // len(self.pages),
        }

    def shorter(self, dtype: str) -> dict[str, Any]:
        """A cache in half the bytes: how far its scores are off; and all pairs at once on an empty memory."""
        model = self.load(PageMemory(dtype=dtype))
        pairs = self._shuffled(self.pages[:4])
        took, found = self.timed(model, pairs)
        _, exact = self.timed(self.kept, pairs)
        use = model.page_memory.use
        return {
            "cache": dtype,
            "wrong": float(abs(found - exact).max()),
            "bytes": (use.device_bytes + use.host_bytes) // 4,
            "new_ms": round(1000 * took, 1),
        }

    def _shuffled(self, chosen: Sequence[Path]) -> list[tuple[str, Path]]:
        pairs = [(question, page) for question in self.questions for page in chosen]
        return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--pages", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is kept, to use it again")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="jina-rag-bench-") as scratch:
        checkpoint = options.folder or Path(scratch) / "m0"
        if not checkpoint.is_dir():
            make_checkpoint("m0", size="mid", path=checkpoint)
        bench = Bench(checkpoint, Path(scratch), options)
        print(json.dumps({"bars": {"first": 1.05, "later": 30, "wrong": 1e-5}, **bench.run()}), flush=True)
        for dtype in ("bfloat16", "float16"):
            print(json.dumps(bench.shorter(dtype)), flush=True)


if __name__ == "__main__":
    main()
