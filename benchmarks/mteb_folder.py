"""Evaluate a judged folder with mteb, and compare the score of the search pipeline with the score of `evaluate`.

    python benchmarks/mteb_folder.py FOLDER --output results

The PyTorch models are tiny random checkpoints, which test only that the wrappers run. The scores of these checkpoints
have no meaning. The checkpoints embed page images, and images take more time than text. The checkpoints are therefore
evaluated on the first documents of the folder only (``--tiny-documents``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from jina_rag import DocumentIndex
from jina_rag.evaluation.datasets import read_folder
from jina_rag.evaluation.mteb import BenchmarkSetting, ModelOptions, run_benchmark
from jina_rag.evaluation.runner import evaluate
from jina_rag.models.tiny_checkpoints import unpack_tiny


def first_documents(folder: Path, count: int, target: Path) -> Path:
    """Write a judged folder with the first documents, and the queries whose judged pages are all in these documents."""
    target.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in (folder / "docs.jsonl").read_text(encoding="utf-8").splitlines() if line]
    documents = [line | {"file": str((folder / line["file"]).resolve())} for line in lines[:count]]
    names = {line["doc"] for line in documents}
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines() if line]
    queries = [line for line in queries if {page["doc"] for page in line["relevant"]} <= names]
    for name, rows in (("docs.jsonl", documents), ("queries.jsonl", queries)):
        (target / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="judged folder with docs.jsonl, queries.jsonl and the documents")
    parser.add_argument("--output", type=Path, help="folder of results and cached vectors; default: a temporary folder")
    parser.add_argument("--index", type=Path, help="index with the embedder lite for `evaluate`; created if missing")
    parser.add_argument("--tiny-documents", type=int, default=6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jina-rag-") as scratch:
        output = arguments.output or Path(scratch) / "results"
        few = first_documents(arguments.folder, arguments.tiny_documents, Path(scratch) / "few")
        tiny = {family: unpack_tiny(family, Path(scratch) / f"tiny-{family}") for family in ("v4", "colbert-v2", "m0")}
        options = ModelOptions(max_pixels=50_000, dtype="float32")
        runs = [
            ("lite, MaxSim", arguments.folder, BenchmarkSetting(model="lite")),
            ("lite, search pipeline", arguments.folder, BenchmarkSetting(model="lite", pipeline=True)),
            ("tiny v4, dense", few, BenchmarkSetting(model=tiny["v4"], options=options)),
            ("tiny v4, MaxSim", few, BenchmarkSetting(model=tiny["v4"], vectors="multi", options=options)),
            ("tiny colbert-v2", few, BenchmarkSetting(model=tiny["colbert-v2"], options=ModelOptions(dtype="float32"))),
            ("lite, then tiny m0", few, BenchmarkSetting(reranker=tiny["m0"], rerank_top=5, options=options)),
        ]
        for name, folder, setting in runs:
            start = time.monotonic()
            run = run_benchmark(folder=folder, setting=setting, output=output)
            for task, reason in run.failed.items():
                print(f"{name:24} {task}: {reason}")
            for outcome in run.outcomes:
                print(
                    f"{name:24} {outcome.measure} {outcome.value:.2f}, {outcome.queries} queries, {run.embedded} "
                    f"embedded, {time.monotonic() - start:.0f} s{', resumed' if outcome.resumed else ''}",
                    flush=True,
                )
        judged_folder = read_folder(arguments.folder)
        with DocumentIndex.open(arguments.index or Path(scratch) / "index", embedder="lite") as index:
            measures = evaluate(judged_folder, index).measures
        print(f"{'evaluate, lite':24} nDCG@5 {100 * measures['nDCG@5']:.2f}")


if __name__ == "__main__":
    main()
