"""What cleaning finds in generated pairs with planted faults, and what it costs in time, memory and disk.

    python benchmarks/cleaning.py [--pairs 100000] [--compare 20000] [--seed 0] [--sample 2000]
    python benchmarks/cleaning.py --write pairs.jsonl --pairs 1000

The pairs are those of cleaning_pairs.py. Each size is cleaned in a process of its own, whose memory is watched. The
embedder of the consistency step is a stub: what is measured there is the step, not a model.
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
    """Share found of each kind, by its own step; false drops are good pairs that are gone, over all good pairs."""
    own = {"exact": "exact duplicates", "near": "near duplicates", "foreign": "languages", "wrong": "consistency"}
    by = {line["line"]: line for line in map(json.loads, dropped.open(encoding="utf-8"))}
    all_, drops, right_step, named_original = Counter(), Counter(), Counter(), Counter()
    by_step: Counter = Counter()
    for number, line in enumerate(source.open(encoding="utf-8"), start=1):
        record = json.loads(line)
        kind, how = record["kind"], record["how"]
        keys = [kind, f"{kind}: {how}"] if how else [kind]
        all_.update(keys)
        if number in by:
            drops.update(keys)
            by_step[f"{kind} by {by[number]['step']}"] += 1
            right_step.update(keys if by[number]["step"] == own.get(kind) else [])
            named_original.update([kind] if by[number].get("duplicate_of") == record["of"] else [])
    return {
        "pairs": dict(all_), "gone": {k: drops[k] / n for k, n in sorted(all_.items())},
        "by its own step": {k: right_step[k] / n for k, n in sorted(all_.items()) if k.split(":")[0] in own},
        "names the pair it repeats": {k: named_original[k] / drops[k] for k in ("exact", "near") if drops[k]},
        "false drops": drops["good"] / all_["good"], "drops": dict(by_step),
    }  # fmt: skip


class Watch(threading.Thread):
    """Looks at the process's memory, once a thousand pairs have passed: loading is not what may grow."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.passed, self.highest = 0, 0

    def look(self, step: str, count: int) -> None:
        self.passed = max(self.passed, count)

    def run(self) -> None:
        while True:
            time.sleep(0.02)
            if self.passed > 1000:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                self.highest = max(self.highest, pages * resource.getpagesize())


def measure(pairs: int, seed: int, sample: int, folder: Path) -> None:
    """In a process of its own: one JSON line."""
    watch = Watch()
    watch.start()
    source = folder / "pairs.jsonl"
    started = time.perf_counter()
    report = clean_file(
        source,
        folder / "kept.jsonl",
        steps(sample, seed),
        dropped=folder / "dropped.jsonl",
        progress=watch.look,
    )
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    measurement = {"seconds": seconds, "peak": peak, "working": watch.highest, "report": report.to_json()}
    print(json.dumps(measurement))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--compare", type=int, default=20_000, help="a second size, to see whether memory grows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, default=2000, help="passages that the consistency step ranks among")
    parser.add_argument("--write", type=Path, help="only write the pairs to this file")
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
            f"up to {peaks[pairs]:.1f} MiB at work, {measurement['peak'] / 2**20:.1f} MiB with loading"
        )
        for step in report["steps"]:
            disk = step["disk_bytes"] / step["read"]
            print(f"  {step['step']:<18} {step['seconds']:7.1f} s  {disk:6.0f} bytes of disk a pair  {step['dropped']}")
        print("  share found, by any step / by its own:")
        for kind, share in scores["gone"].items():
            own = f"  {scores['by its own step'][kind]:8.4f}" if kind in scores["by its own step"] else ""
            print(f"    {kind:<22} {scores['pairs'][kind]:>6}  {share:8.4f}{own}")
        print(f"  names the pair that it repeats: {scores['names the pair it repeats']}")
        print(f"  false drops: {scores['false drops']:.5f}   {scores['drops']}", flush=True)
    small, large = peaks
    print(f"\nmemory at work grows by {peaks[large] - peaks[small]:.1f} MiB from {small} to {large} pairs")


if __name__ == "__main__":
    main()
