"""Measure the effect of each search option on nDCG@5, as paired differences on a judged folder.

    python benchmarks/stages.py FOLDER --index DIR [--embedder lite-en] [--rerank] [--only WORD]

FOLDER holds docs.jsonl and queries.jsonl (see `jina-rag evaluate --help`). A missing index is created. Each printed
line is one change of the default stages, measured over the same queries. A line has nDCG@5, the mean difference from
the default with the paired 95 % bootstrap interval, and the median time per query. An option is a default only if the
lower end of the interval is at least -0.01. --rerank also measures the embedded reranker, which takes several minutes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

from jina_rag import DocumentIndex, Prefetch, Rerank, Rescore
from jina_rag.evaluation.datasets import read_folder
from jina_rag.evaluation.measures import DEPTH, mean, measure
from jina_rag.evaluation.significance import difference
from jina_rag.search.stages import default_stages

TWO_STAGES = {"exhaustive": 0}


def variants(base: Rescore, embedder: str, rerank: bool) -> dict[str, list]:
    def rescore(**changes):
        return replace(base, **changes)

    stages = {
        "two stages for any index size": [Prefetch(**TWO_STAGES)],
        "… without exact terms": [Prefetch(**TWO_STAGES, lexical=False)],
        "… without regions": [Prefetch(**TWO_STAGES, regions=False)],
        "… 30 candidates by the dense vector": [Prefetch(**TWO_STAGES, limit=30)],
        "no hubness correction": [rescore(hubness=0.0)],
        "hubness 0.25": [rescore(hubness=0.25)],
        "hubness 0.75": [rescore(hubness=0.75)],
        "no identifiers": [rescore(identifiers=0.0)],
        "identifiers 1": [rescore(identifiers=1.0)],
        "no dense": [rescore(dense=0.0)],
        "dense 0.2": [rescore(dense=0.2)],
        "dense 0.3": [rescore(dense=0.3)],
        "dense 0.5": [rescore(dense=0.5)],
    }
    if rerank:
        for limit in (5, 10):
            stages[f"rerank the top {limit} with {embedder}"] = [base, Rerank(model=embedder, limit=limit)]
    return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--embedder", default="lite")
    parser.add_argument("--rerank", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    folder = read_folder(options.folder)
    names = {path.resolve(): doc for doc, path in folder.documents.items()}
    with DocumentIndex.open(options.index, embedder=options.embedder) as index:
        index.ingest(list(folder.documents.values()))
        base = default_stages(index.embedder, reranker=False).rescore

        def run(stages):
            ranking, times = {}, []
            for query in folder.queries:
                start = time.perf_counter()
                hits = index.search(query.query, k=DEPTH, stages=stages, details=False)
                times.append(time.perf_counter() - start)
                ranking[query.query_id] = [
                    (names[path.resolve()], hit.page)
                    for hit in hits
                    for path in (hit.path, *(copy.path for copy in hit.copies))
                ]
            measures = measure(folder.queries, ranking)
            ndcg = {query_id: values["nDCG@5"] for query_id, values in measures.items()}
            return ndcg, mean(list(measures.values())), statistics.median(times) * 1000

        run(None)  # warm-up
        first, means, milliseconds = run(None)
        print(f"default of {options.embedder}: {base}")
        print(f"{'default':42s} nDCG@5 {means['nDCG@5']:.3f}   {milliseconds:.0f} ms", flush=True)
        for name, stages in variants(base, options.embedder, options.rerank).items():
            if options.only in name:
                second, means, milliseconds = run(stages)
                print(f"{name:42s} nDCG@5 {means['nDCG@5']:.3f}   {difference(first, second)}   {milliseconds:.0f} ms",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
