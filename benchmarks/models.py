"""Compare jina-embeddings-v4 and jina-reranker-m0 in jina_rag with the published code, on the same weights and inputs.

    python benchmarks/models.py [--device cpu|cuda] [--rounds 4] [--only texts,queries,pages,pairs] [--no-memory]
                                [--count N]
    python benchmarks/models.py --against ../other-checkout [--only pages]

The checkpoints are random and of medium size (`jina_rag.testing.make_checkpoint`, size "mid"), with the proportions of
the real checkpoints: the vocabulary's share of the computation, the relative rank of the adapters, and the size of the
vision tower. The baseline is `benchmarks/published.py`. The baseline computes vocabulary logits for all tokens, stores
all hidden states, does not merge the adapter, and processes inputs in order in batches of eight. jina_rag and the
baseline run alternately in one process, and the speedup is the ratio of the median times. The peak memory in addition
to the weights is measured in two separate processes. On a busy machine, compare the CPU seconds, with one thread
(`OMP_NUM_THREADS=1`); they include the threads that prepare images.

With `--against`, the baseline is the jina_rag of another checkout, for example a git worktree of an earlier commit.
Both run in processes of their own, which take turns.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from published import PublishedM0, PublishedV4

from jina_rag import load_embedder, load_reranker
from jina_rag.testing import make_checkpoint

BARS = {
    "texts": "at least 3",
    "queries": "at least 1",
    "pages": "at least 1.35",
    "pairs": "at least 1.5",
}
CHECKOUT = Path(__file__).resolve().parent.parent
WORDS = (
    "the of region revenue table growth north chart data page year report model search value line error code".split()
)


def texts(
    count: int, median: float, sigma: float, longest: int, seed: int, count_tokens: Callable[[str], int]
) -> list[str]:
    """Return random texts whose lengths in tokens follow a lognormal distribution."""
    random = np.random.default_rng(seed)
    cost = {word: count_tokens(f" {word}") for word in WORDS}
    sentences = []
    for length in np.clip(random.lognormal(np.log(median), sigma, count), 2, longest).astype(int):
        words, tokens = [], 0
        while tokens < length:
            word = WORDS[random.integers(len(WORDS))]
            words.append(word)
            tokens += cost[word]
        sentences.append(" ".join(words))
    return sentences


def pages(count: int, seed: int) -> list[Any]:
    """Return page images of 850 x 1100 pixels (about 768 tokens), with lines of dark blocks that resemble text."""
    from PIL import Image

    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        pixels = np.full((1100, 850, 3), 255, dtype=np.uint8)
        for top in range(60, 1040, 18):
            for left in range(60, 780, 24):
                if random.random() < 0.8:
                    pixels[top : top + 10, left : left + int(random.integers(8, 22))] = random.integers(0, 120)
        images.append(Image.fromarray(pixels))
    return images


class Case:
    """A comparison of jina_rag with the published code for one model, kind of input, device and dtype."""

    def __init__(self, name: str, folders: dict[str, Path], options: argparse.Namespace) -> None:
        self.name = name
        self.family = "m0" if name == "pairs" else "v4"
        self.folder, self.device, self.dtype = folders[self.family], options.device, options.dtype
        self.count = options.count or (24 if name == "pages" else 200)
        self.inputs: Any = None

    def load(self, variant: str) -> Callable[[], Any]:
        """Load the model and return a function that runs the case once and returns the vectors or scores.

        Args:
            variant: ``"ours"`` for jina_rag, or ``"published"``.
        """
        torch_dtype = getattr(torch, self.dtype)
        if variant == "ours":
            load = load_reranker if self.family == "m0" else load_embedder
            model: Any = load(str(self.folder), device=self.device, dtype=self.dtype)
        else:
            model = (PublishedM0 if self.family == "m0" else PublishedV4)(self.folder, torch_dtype)
            if self.device != "cpu":
                model.to(self.device)
        inputs = self._inputs()
        if self.name == "pages":
            if variant == "ours":
                return lambda: model.encode_document(inputs, multi=False).single
            return lambda: model.encode_image(inputs)
        if self.name == "pairs":
            if variant == "ours":
                return lambda: model.score_pairs(inputs)
            return lambda: np.asarray(model.compute_score(inputs))
        if variant == "ours":
            return lambda: model.encode_query(inputs, multi=False).single
        return lambda: model.encode_text(inputs)

    def _inputs(self) -> Any:
        if self.inputs is None:
            from jina_rag.models.jina.text_tokens import TextTokenizer

            tokenizer = TextTokenizer(self.folder, fallback="Qwen2Tokenizer")

            def count(text: str) -> int:
                return len(tokenizer.encode(text))

            if self.name == "pages":
                self.inputs = pages(self.count, seed=1)
            elif self.name == "queries":
                self.inputs = texts(self.count, 12, 0.4, 60, 2, count)
            elif self.name == "pairs":
                documents = texts(self.count, 50, 1.1, 1500, 3, count)
                queries = texts(self.count, 12, 0.4, 60, 4, count)
                self.inputs = list(zip(queries, documents, strict=True))
            else:
                self.inputs = texts(self.count, 50, 1.1, 1500, 0, count)
        return self.inputs


def seconds(run: Callable[[], Any], device: str) -> tuple[dict[str, float], Any]:
    """Return the seconds and the CPU seconds of a call, and the result."""
    start, cpu_start = time.perf_counter(), time.process_time()
    result = run()
    if device != "cpu":
        torch.cuda.synchronize()
    return {"s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu_start}, result


def medians(rounds: Sequence[dict[str, dict[str, float]]], baseline: str) -> dict[str, Any]:
    """Return the median seconds and CPU seconds of each variant, and the speedups. The first round is a warm-up."""
    figures: dict[str, Any] = {}
    for unit in ("s", "cpu_s"):
        for variant in (baseline, "ours"):
            figures[f"{variant}_{unit}"] = float(np.median([turn[variant][unit] for turn in rounds[1:] or rounds]))
        name = "speed" if unit == "s" else "speed_cpu"
        figures[name] = figures[f"{baseline}_{unit}"] / figures[f"ours_{unit}"]
    return {key: round(value, 3) for key, value in figures.items()}


def compare(case: Case, rounds: int) -> dict[str, Any]:
    """Return the median seconds of both variants in alternating runs, the speedup, and the largest difference."""
    runs = {variant: case.load(variant) for variant in ("published", "ours")}
    results: dict[str, Any] = {}
    times: list[dict[str, dict[str, float]]] = []
    for _ in range(rounds):
        turn = {}
        for variant, run in runs.items():
            turn[variant], results[variant] = seconds(run, case.device)
        times.append(turn)
    return medians(times, "published") | {
        "difference": float(np.abs(np.asarray(results["published"]) - np.asarray(results["ours"])).max()),
    }


def serve(case: Case) -> None:
    """Run jina_rag in this process once for each line on stdin, and print the seconds and the file of the results."""
    import jina_rag

    run = case.load("ours")
    print(json.dumps({"package": str(Path(jina_rag.__file__).parent)}), flush=True)
    for line in sys.stdin:
        times, result = seconds(run, case.device)
        np.save(line.strip(), np.asarray(result))
        print(json.dumps(times), flush=True)


class Checkout:
    """A process that runs a case with the jina_rag of a checkout."""

    def __init__(self, path: Path, name: str, root: Path, options: argparse.Namespace) -> None:
        command = [*_command(root, options), "--serve", name]
        environment = {**os.environ, "PYTHONPATH": str(path.resolve())}
        self.results = root / f"results-{os.getpid()}-{path.resolve().name}.npy"
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        package = Path(self._answer()["package"])
        if package.parent != path.resolve():
            raise RuntimeError(f"The process imported {package} instead of the package in {path}. Is it a checkout?")

    def run(self) -> dict[str, float]:
        """Run the case once and return the seconds and the CPU seconds."""
        assert self.process.stdin is not None
        print(self.results, file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> np.ndarray:
        """End the process and return the results of the last run."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        results = np.load(self.results)
        self.results.unlink()
        return results

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The process of the benchmark ended with status {self.process.wait()}; see above.")
        return json.loads(line)


def compare_checkouts(name: str, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the median seconds of this checkout and of another one in alternating runs, and the speedup."""
    checkouts = {"against": options.against, "ours": CHECKOUT}
    processes = {variant: Checkout(path, name, root, options) for variant, path in checkouts.items()}
    rounds = [{variant: process.run() for variant, process in processes.items()} for _ in range(options.rounds)]
    results = [process.close() for process in processes.values()]
    return medians(rounds, "against") | {"difference": float(np.abs(results[0] - results[1]).max())}


def peak(case: Case, variant: str) -> int:
    """Return the peak memory of one run, minus the memory before the run, in bytes. Call once per process."""
    run = case.load(variant)
    if case.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        bytes_before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - bytes_before
    # Return freed memory to the system. A run that reuses freed memory would have a lower peak.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    bytes_before = _status("VmRSS")
    run()
    return _status("VmHWM") - bytes_before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}. Run the benchmark on Linux, or pass --no-memory.")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--count", type=int, default=0, help="inputs of each case (default: 24 pages, 200 others)")
    parser.add_argument("--only", default=",".join(BARS))
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="checkout whose jina_rag is the baseline")
    parser.add_argument("--serve", metavar="CASE", help=argparse.SUPPRESS)
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "VARIANT"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="folder of the checkpoints, reused by later runs")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="jina-rag-bench-") as scratch:
        root = options.folder or Path(scratch)
        folders = {family: root / family for family in ("v4", "m0")}
        for family, folder in folders.items():
            if not folder.is_dir():
                make_checkpoint(family, size="mid", path=folder)
        if options.peak:
            print(peak(Case(options.peak[0], folders, options), options.peak[1]))
            return
        if options.serve:
            serve(Case(options.serve, folders, options))
            return
        for name in options.only.split(","):
            if options.against:
                print(json.dumps({"case": name, **compare_checkouts(name, root, options)}), flush=True)
                continue
            figures = compare(Case(name, folders, options), options.rounds)
            if options.memory and name != "queries":
                peaks = {
                    variant: _peak_in_new_process(name, variant, root, options) for variant in ("published", "ours")
                }
                figures |= {f"{variant}_peak_mb": round(value / 1e6) for variant, value in peaks.items()}
                figures["memory"] = round(peaks["ours"] / peaks["published"], 2)
            print(json.dumps({"case": name, **figures, "bar": BARS[name]}), flush=True)


def _peak_in_new_process(name: str, variant: str, root: Path, options: argparse.Namespace) -> int:
    command = [*_command(root, options), "--peak", name, variant]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(process.stdout.splitlines()[-1])


def _command(root: Path, options: argparse.Namespace) -> list[str]:
    return [
        sys.executable, __file__, "--folder", str(root), "--device", options.device, "--dtype", options.dtype,
        "--count", str(options.count),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
