"""What jina-reranker-m0's page memory saves: 12 questions over 16 page images, with it and pair by pair from scratch.

    python benchmarks/rerank.py [--device cpu|cuda] [--questions 12] [--pages 16] [--folder CHECKPOINT]

A random checkpoint of a middle size with the proportions of the real one (`jina_rag.testing.make_checkpoint`, size
"mid"), pages of 850 x 1100 pixels as PNG files, passed as paths. Nothing here measures images in memory: those are
named by their pixels, which are hashed at each question, while a file that did not change is not read again. Both ways
run in one process, in turns, so that what else the machine does strikes both. Times are seconds of a call by its pairs.

first    The first question: each page is read, with a memory and without one, one after the other. The figure is the
         median of the pages' ratios, with / without; `first_of_sums` is the ratio of the sums. The bar is 1.05.
later    Every other question runs over all pages at once by what is kept; pairs from scratch are taken in between, two
         pages a question, because all of them would take minutes. `later_ms` is the median over questions, `scratch_ms`
         the median over pairs from scratch, the figure is scratch / later of these medians. The bar is 30.
alone    The pages that were taken from scratch, by what is kept, one page a call: median of scratch / median of alone.
at_once  All questions and pages in one call, in shuffled order, all pages known; one run. Median of scratch / its time.
wrong    Largest difference of raw scores from those from scratch: with a memory in `first`, and for the pairs that were
         taken from scratch in `later`, `alone` and `at_once`. Of other pairs no score from scratch is known. The bar is
         1e-5, for --dtype float32 only.
bytes    Keys and values of one page.

Then a line for each memory in a shorter dtype, over all questions and 4 pages in one shuffled call, one run:

new_ms   The memory is empty at first: each page is read once, its other questions follow on what is kept.
wrong    Largest difference from the scores of the memory above, in which the model's own dtype is kept. No bar.

The exit status is 1 if a bar is missed.
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
from jina_rag.models.jina.text_tokens import TextTokenizer
from jina_rag.models.runtime.prefix_cache import PrefixCache
from jina_rag.testing import make_checkpoint

BARS = {"first": 1.05, "later": 30, "wrong": 1e-5}


def missed(figures: dict[str, Any], dtype: str) -> list[str]:
    """The bars that were missed."""
    wrong = dtype == "float32" and not figures["wrong"] <= BARS["wrong"]
    held = {"first": figures["first"] <= BARS["first"], "later": figures["later"] >= BARS["later"], "wrong": not wrong}
    return [name for name, good in held.items() if not good]


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
        self.queries = texts(options.queries, 12, 0.4, 60, 2, lambda text: len(tokenizer.encode(text)))
        self.pages = []
        for number, image in enumerate(pages(options.pages, seed=1)):
            self.pages.append(scratch / f"{number}.png")
            image.save(self.pages[-1])
        self.without, self.kept = self.load(False), self.load(True)

    def load(self, prefix_cache: PrefixCache | bool) -> Any:
        return load_reranker(str(self.checkpoint), device=self.device, dtype=self.dtype, prefix_cache=prefix_cache)

    def timed(self, model: Any, pairs: Sequence[tuple[str, Path]]) -> tuple[float, np.ndarray]:
        """Seconds a pair, and raw scores."""
        took, scores = seconds(lambda: model.score_pairs(pairs, raw=True), self.device)
        return took / len(pairs), scores

    def run(self) -> dict[str, Any]:
        first, *others = self.queries
        for model in (self.without, self.load(True)):  # what runs for the first time is slow
            model.score(first, self.pages[:1])
        times: dict[str, list[float]] = {name: [] for name in ("first", "plain", "later", "scratch", "alone")}
        wrong = 0.0
        exact: dict[tuple[str, Path], float] = {}  # from scratch
        for number, page in enumerate(self.pages):
            both = [("plain", self.without), ("first", self.kept)]
            scores = {}
            for name, model in both if number % 2 else reversed(both):
                took, scores[name] = self.timed(model, [(first, page)])
                times[name].append(took)
            wrong = max(wrong, float(abs(scores["plain"] - scores["first"]).max()))
            exact[first, page] = float(scores["plain"][0])
        use = self.kept.prefix_cache.use
        assert use.device_entries + use.host_entries == len(self.pages), use
        for number, query in enumerate(others):
            took, later_scores = self.timed(self.kept, [(query, page) for page in self.pages])
            times["later"].append(took)
            for place in (2 * number % len(self.pages), (2 * number + 1) % len(self.pages)):
                took, scratch = self.timed(self.without, [(query, self.pages[place])])
                times["scratch"].append(took)
                exact[query, self.pages[place]] = float(scratch[0])
                wrong = max(wrong, float(abs(scratch[0] - later_scores[place])))
                took, alone = self.timed(self.kept, [(query, self.pages[place])])
                times["alone"].append(took)
                wrong = max(wrong, float(abs(scratch[0] - alone[0])))
        assert self.kept.prefix_cache.use.misses == len(self.pages), self.kept.prefix_cache.use
        median = {name: float(np.median(values)) for name, values in times.items()}
        pairs = self._shuffled(self.pages)
        at_once, all_scores = self.timed(self.kept, pairs)
        off = [abs(float(score) - exact[pair]) for pair, score in zip(pairs, all_scores, strict=True) if pair in exact]
        wrong = max(wrong, *off)
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
        model = self.load(PrefixCache(dtype=dtype))
        pairs = self._shuffled(self.pages[:4])
        took, scores = self.timed(model, pairs)
        _, exact = self.timed(self.kept, pairs)
        use = model.prefix_cache.use
        return {
            "cache": dtype,
            "wrong": float(abs(scores - exact).max()),
            "bytes": (use.device_bytes + use.host_bytes) // 4,
            "new_ms": round(1000 * took, 1),
        }

    def _shuffled(self, paths: Sequence[Path]) -> list[tuple[str, Path]]:
        pairs = [(query, page) for query in self.queries for page in paths]
        return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--questions", dest="queries", type=int, default=12)
    parser.add_argument("--pages", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is kept, to use it again")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="jina-rag-bench-") as scratch:
        checkpoint = options.folder or Path(scratch) / "m0"
        if not checkpoint.is_dir():
            make_checkpoint("m0", size="mid", path=checkpoint)
        bench = Bench(checkpoint, Path(scratch), options)
        figures = bench.run()
        failures = missed(figures, options.dtype)
        print(json.dumps({"bars": BARS, **figures, "missed": failures}), flush=True)
        for dtype in ("bfloat16", "float16"):
            print(json.dumps(bench.shorter(dtype)), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
