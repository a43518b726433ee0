"""Measure the accuracy, time, memory and disk usage of pair cleaning on generated pairs with planted faults.

    python benchmarks/cleaning.py [--pairs 100000] [--compare 20000] [--seed 0] [--sample 2000]
    python benchmarks/cleaning.py --write pairs.jsonl --pairs 1000

cleaning_pairs.py generates the pairs. For each of the two numbers of pairs (--compare and --pairs), a separate process
cleans the pairs and samples the memory of the process. The consistency step uses a fake embedder, so the figures
exclude the cost of a model.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from cleaning_pairs import WordStub, write

from jina_rag.evaluation.cleaning import (
    Complete,
    Consistency,
    ExactDuplicates,
    Languages,
    NearDuplicates,
    clean_file,
)


def steps(sample: int, seed: int = 0) -> list:
    return [
        Complete(),
        ExactDuplicates(),
        Languages(("en",)),
        NearDuplicates(seed=seed),
        Consistency(WordStub(), sample=sample, seed=seed),
    ]


def score(source: Path, dropped: Path) -> dict:
    """Return the fractions of dropped pairs by kind of fault.

    "dropped" counts drops by any step, and "by the step" counts drops by the step that handles the kind of fault.
    "correct original" is the fraction of dropped duplicates that report the correct original. "false drops" is the
    fraction of good pairs that were dropped.
    """
    step_of = {"exact": "exact duplicates", "near": "near duplicates", "foreign": "languages", "wrong": "consistency"}
    dropped_lines = {line["line"]: line for line in map(json.loads, dropped.open(encoding="utf-8"))}
    totals, drops, correct_step, correct_original = Counter(), Counter(), Counter(), Counter()
    by_step: Counter = Counter()
    for number, line in enumerate(source.open(encoding="utf-8"), start=1):
        record = json.loads(line)
        kind, variant = record["kind"], record["how"]
        keys = [kind, f"{kind}: {variant}"] if variant else [kind]
        totals.update(keys)
        if number in dropped_lines:
            drops.update(keys)
            by_step[f"{kind} by {dropped_lines[number]['step']}"] += 1
            correct_step.update(keys if dropped_lines[number]["step"] == step_of.get(kind) else [])
            correct_original.update([kind] if dropped_lines[number].get("duplicate_of") == record["of"] else [])
    return {
        "pairs": dict(totals), "dropped": {k: drops[k] / n for k, n in sorted(totals.items())},
        "by the step": {k: correct_step[k] / n for k, n in sorted(totals.items()) if k.split(":")[0] in step_of},
        "correct original": {k: correct_original[k] / drops[k] for k in ("exact", "near") if drops[k]},
        "false drops": drops["good"] / totals["good"], "drops": dict(by_step),
    }  # fmt: skip


class MemorySampler(threading.Thread):
    """A thread that samples the memory of the process after the first 1,000 pairs, when all modules are loaded."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.pair_count, self.peak = 0, 0

    def on_progress(self, step: str, count: int) -> None:
        self.pair_count = max(self.pair_count, count)

    def run(self) -> None:
        while True:
            time.sleep(0.02)
            if self.pair_count > 1000:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                self.peak = max(self.peak, pages * resource.getpagesize())


def measure(pairs: int, seed: int, sample: int, folder: Path) -> None:
    """Clean ``pairs.jsonl`` in `folder` and print the figures as one line of JSON.

    The benchmark calls this function in a separate process.
    """
    sampler = MemorySampler()
    sampler.start()
    source = folder / "pairs.jsonl"
    start = time.perf_counter()
    report = clean_file(
        source,
        folder / "kept.jsonl",
        steps(sample, seed),
        dropped=folder / "dropped.jsonl",
        progress=sampler.on_progress,
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    measurement = {"seconds": seconds, "peak": peak, "working": sampler.peak, "report": report.to_json()}
    print(json.dumps(measurement))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--compare", type=int, default=20_000, help="second number of pairs, to measure memory growth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, default=2000, help="passages in the sample of the consistency step")
    parser.add_argument("--write", type=Path, help="write the generated pairs to this file and exit")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write, options.pairs, options.seed)
        return
    if options.inside:
        measure(options.pairs, options.seed, options.sample, options.inside)
        return
    peaks = {}
    for pairs in (options.compare, options.pairs):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write(folder / "pairs.jsonl", pairs, options.seed)
            command = [sys.executable, __file__, "--inside", scratch, "--pairs", str(pairs)]
            command += ["--seed", str(options.seed), "--sample", str(options.sample)]
            measurement = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            report, scores = measurement["report"], score(folder / "pairs.jsonl", folder / "dropped.jsonl")
            bytes_read = (folder / "pairs.jsonl").stat().st_size
        peaks[pairs] = measurement["working"] / 2**20
        print(
            f"\n{pairs} pairs, {bytes_read / 1e6:.0f} MB, seed {options.seed}: {measurement['seconds']:.1f} s, memory "
            f"up to {peaks[pairs]:.1f} MiB while cleaning, {measurement['peak'] / 2**20:.1f} MiB including loading"
        )
        for step in report["steps"]:
            disk = step["disk_bytes"] / step["read"]
            print(
                f"  {step['step']:<18} {step['seconds']:7.1f} s  {disk:6.0f} bytes on disk per pair  {step['dropped']}"
            )
        print("  fraction of pairs dropped by any step, and by the step that handles the kind of fault:")
        for kind, fraction in scores["dropped"].items():
            by_the_step = f"  {scores['by the step'][kind]:8.4f}" if kind in scores["by the step"] else ""
            print(f"    {kind:<22} {scores['pairs'][kind]:>6}  {fraction:8.4f}{by_the_step}")
        print(f"  duplicates that report the correct original: {scores['correct original']}")
        print(f"  false drops: {scores['false drops']:.5f}   {scores['drops']}", flush=True)
    small, large = peaks
    print(f"\nmemory while cleaning grows by {peaks[large] - peaks[small]:.1f} MiB from {small} to {large} pairs")


if __name__ == "__main__":
    main()
