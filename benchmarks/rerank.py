"""Measure the speedup of jina-reranker-m0 by the prefix cache, for 12 queries over 16 page images.

    python benchmarks/rerank.py [--device cpu|cuda] [--queries 12] [--pages 16] [--folder CHECKPOINT]

The checkpoint is random and of medium size (`jina_rag.testing.make_checkpoint`, size "mid"), with the proportions of
the real checkpoint. Pages are PNG files of 850 x 1100 pixels, passed as paths. The benchmark excludes images in memory,
because the cache key of such an image is a hash of the pixels, computed for each query, while an unchanged file is not
read again. A cached and an uncached reranker run alternately in one process, so that other load affects both rerankers.
Times are wall time per pair.

first    The first query scores one page per call, with the cached and the uncached reranker alternately. The figure is
         the median over pages of cached time / uncached time. `first_of_sums` is the ratio of the sums. The figure
         `first` must be at most 1.05.
later    Each later query scores all pages in one call with a filled cache. After each call, two pages are also scored
         uncached, because scoring all pages uncached would take minutes. `later_ms` is the median over queries,
         `scratch_ms` the median over uncached pairs, and the figure is scratch_ms / later_ms, which must be at
         least 30.
alone    The pairs that were scored uncached are also scored with a filled cache, one pair per call. The figure is
         scratch_ms / alone_ms.
at_once  All pairs of queries and pages are scored in one call, in shuffled order with a filled cache, in one run. The
         figure is scratch_ms / at_once_ms.
wrong    Largest absolute difference between a cached and the uncached raw score, over all pairs that were also scored
         uncached. With --dtype float32, the difference must be at most 1e-5.
bytes    Size of the keys and values of one page, in bytes.

Two more lines follow, for caches in bfloat16 and float16. For each line, one call scores all pairs of queries and 4
pages, in shuffled order:

new_ms   Milliseconds per pair with an initially empty cache. Each page is computed once, for the first query, and the
         other queries use the cache.
wrong    Largest absolute difference from the scores with a cache in the dtype of the model, without a limit.

The exit status is 1 if `first`, `later` or `wrong` of the first line is outside its limit.
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


def figures_outside_limits(figures: dict[str, Any], dtype: str) -> list[str]:
    """Return the names of the figures that are outside the limits in `BARS`."""
    wrong = dtype == "float32" and not figures["wrong"] <= BARS["wrong"]
    met = {"first": figures["first"] <= BARS["first"], "later": figures["later"] >= BARS["later"], "wrong": not wrong}
    return [name for name, is_met in met.items() if not is_met]


def seconds(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


class RerankBenchmark:
    """Cached and uncached rerankers on the same queries and pages."""

    def __init__(self, checkpoint: Path, scratch: Path, options: argparse.Namespace) -> None:
        self.checkpoint, self.device, self.dtype = checkpoint, options.device, options.dtype
        tokenizer = TextTokenizer(checkpoint, fallback="Qwen2Tokenizer")
        self.queries = texts(options.queries, 12, 0.4, 60, 2, lambda text: len(tokenizer.encode(text)))
        self.pages = []
        for number, image in enumerate(pages(options.pages, seed=1)):
            self.pages.append(scratch / f"{number}.png")
            image.save(self.pages[-1])
        self.uncached, self.cached = self.load(False), self.load(True)

    def load(self, prefix_cache: PrefixCache | bool) -> Any:
        return load_reranker(str(self.checkpoint), device=self.device, dtype=self.dtype, prefix_cache=prefix_cache)

    def score(self, model: Any, pairs: Sequence[tuple[str, Path]]) -> tuple[float, np.ndarray]:
        """Return the seconds per pair, and the raw scores."""
        elapsed, scores = seconds(lambda: model.score_pairs(pairs, raw=True), self.device)
        return elapsed / len(pairs), scores

    def run(self) -> dict[str, Any]:
        first, *others = self.queries
        for model in (self.uncached, self.load(True)):  # warm-up
            model.score(first, self.pages[:1])
        times: dict[str, list[float]] = {name: [] for name in ("first", "plain", "later", "scratch", "alone")}
        wrong = 0.0
        exact: dict[tuple[str, Path], float] = {}  # uncached scores
        for number, page in enumerate(self.pages):
            both = [("plain", self.uncached), ("first", self.cached)]
            scores = {}
            for name, model in both if number % 2 else reversed(both):
                elapsed, scores[name] = self.score(model, [(first, page)])
                times[name].append(elapsed)
            wrong = max(wrong, float(abs(scores["plain"] - scores["first"]).max()))
            exact[first, page] = float(scores["plain"][0])
        use = self.cached.prefix_cache.use
        assert use.device_entries + use.host_entries == len(self.pages), use
        for number, query in enumerate(others):
            elapsed, later_scores = self.score(self.cached, [(query, page) for page in self.pages])
            times["later"].append(elapsed)
            for position in (2 * number % len(self.pages), (2 * number + 1) % len(self.pages)):
                elapsed, scratch = self.score(self.uncached, [(query, self.pages[position])])
                times["scratch"].append(elapsed)
                exact[query, self.pages[position]] = float(scratch[0])
                wrong = max(wrong, float(abs(scratch[0] - later_scores[position])))
                elapsed, alone = self.score(self.cached, [(query, self.pages[position])])
                times["alone"].append(elapsed)
                wrong = max(wrong, float(abs(scratch[0] - alone[0])))
        assert self.cached.prefix_cache.use.misses == len(self.pages), self.cached.prefix_cache.use
        median = {name: float(np.median(values)) for name, values in times.items()}
        pairs = self._shuffled_pairs(self.pages)
        at_once, all_scores = self.score(self.cached, pairs)
        errors = [
            abs(float(score) - exact[pair]) for pair, score in zip(pairs, all_scores, strict=True) if pair in exact
        ]
        wrong = max(wrong, *errors)
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

    def run_with_cache_dtype(self, dtype: str) -> dict[str, Any]:
        """Score all pairs in one call, with an empty cache in `dtype`, and return score differences, bytes and time."""
        model = self.load(PrefixCache(dtype=dtype))
        pairs = self._shuffled_pairs(self.pages[:4])
        elapsed, scores = self.score(model, pairs)
        _, exact = self.score(self.cached, pairs)
        use = model.prefix_cache.use
        return {
            "cache": dtype,
            "wrong": float(abs(scores - exact).max()),
            "bytes": (use.device_bytes + use.host_bytes) // 4,
            "new_ms": round(1000 * elapsed, 1),
        }

    def _shuffled_pairs(self, paths: Sequence[Path]) -> list[tuple[str, Path]]:
        pairs = [(query, page) for query in self.queries for page in paths]
        return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--queries", type=int, default=12)
    parser.add_argument("--pages", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="folder of the checkpoint, reused by later runs")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="jina-rag-bench-") as scratch:
        checkpoint = options.folder or Path(scratch) / "m0"
        if not checkpoint.is_dir():
            make_checkpoint("m0", size="mid", path=checkpoint)
        bench = RerankBenchmark(checkpoint, Path(scratch), options)
        figures = bench.run()
        failures = figures_outside_limits(figures, options.dtype)
        print(json.dumps({"bars": BARS, **figures, "missed": failures}), flush=True)
        for dtype in ("bfloat16", "float16"):
            print(json.dumps(bench.run_with_cache_dtype(dtype)), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
