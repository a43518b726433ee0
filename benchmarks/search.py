"""Measure the latency of a search relative to a direct call of the vector engine, and the time to open an index.

    python benchmarks/search.py [--pages 5000] [--rows 400] [--storage exact] [--index FOLDER]
    python benchmarks/search.py --pages 100000 --rows 50 --index big  # 10 minutes the first time, then half a minute

The benchmark writes pages with random multi-vectors of shape (400, 384), float16, to a temporary index with the
embedded engine. Then the benchmark runs several calls alternately and prints, for each call, the median wall time, the
median CPU time and both as multiples of the bare call. The bare call is a direct call of the engine (prefetch by dense
and lexical vector, then MaxSim). The other calls are the search of jina_rag with an encoded query, searches with a
metadata filter, with a code in the query, with dense scores and with a hubness correction, and `DocumentIndex.search`
with a fake embedder, without details and with snippets, one query and 20 queries at once. Finally, a new process opens
the index.

On a machine with other load, compare the multiples of the CPU time.
With --index, the benchmark keeps the index in this folder, and uses the pages that an earlier run has written there.

The time of writing includes the engine's rewriting of full segments; the longest store call is such a rewriting.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from jina_rag import DocumentIndex, Prefetch, Rescore, sparse
from jina_rag.catalog.manifest import DocumentRecord, PointRecord
from jina_rag.config import Storage
from jina_rag.scoring import normalise
from jina_rag.search.query import Query
from jina_rag.search.stages import Stages
from jina_rag.stores import schema
from jina_rag.stores.qdrant.codec import encode_sparse
from jina_rag.testing import FakeEmbedder
from jina_rag.types import Embeddings, Point, Range

POOL = Rescore().limit
PREFETCH = Prefetch()
DIM = 384
TOKENS = 16
YEARS = 10
BATCH = 20


class RandomEmbedder(FakeEmbedder):
    """An embedder that returns random query vectors. The cost of ranking does not depend on the vectors."""

    def __init__(self) -> None:
        super().__init__(dim=DIM, multi_dim=DIM, name="random")
        self.rng = np.random.default_rng(1)

    def encode_query(self, queries, **options):
        rows = [normalise(self.rng.normal(size=(TOKENS, DIM))) for _ in queries]
        return Embeddings(normalise(self.rng.normal(size=(len(queries), DIM))), rows, [None] * len(queries))


def word(number: int) -> str:
    """Return one of 17,576 invented words, without digits, because search treats words with digits as identifiers."""
    return "".join(chr(97 + number // 26**position % 26) for position in range(3))


def fill(index: DocumentIndex, pages: int, rows: int) -> list[float]:
    """Write documents of 100 pages each, and return the seconds of each store call.

    The metadata key ``year`` has 10 values, each on a tenth of the pages.
    """
    seconds = []
    rng = np.random.default_rng(0)
    handle = index._session.resources
    words = [word(n) for n in range(3000)]
    for first in range(0, pages, 100):
        sha256 = f"{first:064x}"
        record = DocumentRecord(f"document{first}.pdf", Path(f"/document{first}.pdf"), sha256, 1, 1)
        handle.manifest.begin(record)
        points = []
        for number in range(1, min(100, pages - first) + 1):
            text = " ".join(rng.choice(words, 300))
            vectors = normalise(rng.normal(size=(rows, DIM)))
            points.append(
                Point(
                    schema.point_id(sha256, number),
                    normalise(vectors.mean(axis=0)),
                    vectors,
                    sparse.document_vector(text),
                    {
                        schema.KIND: "page", schema.PAGE_ID: schema.point_id(sha256, number), schema.PAGE: number,
                        schema.PAGE_COUNT: 100, schema.REVISION: sha256, schema.IMAGE: f"00/{'0' * 64}.jpg",
                        schema.DOC_ID: [record.doc_id], schema.PATH: [str(record.path)], schema.TEXT: text,
                        schema.META: [{"year": 2000 + number % YEARS}], schema.BIAS: 0.0,
                    },
                )
            )  # fmt: skip
        handle.manifest.add_points(
            sha256, [PointRecord(point.id, point.payload[schema.PAGE], "page", None) for point in points]
        )
        for batch in schema.batches(points):
            start = time.perf_counter()
            handle.store.upsert(batch)
            seconds.append(time.perf_counter() - start)
        handle.manifest.finish(record)
    handle.store.flush()
    return seconds


def bare_call(index: DocumentIndex, dense, query: str, multi, limit: int):
    """Call the engine directly and return only ids and scores."""
    store = index._session.resources.store
    engine = store._types
    request = engine.QueryRequest(
        query=engine.Query.Nearest(multi.tolist(), using=schema.MULTI),
        prefetches=[
            engine.Prefetch(query=engine.Query.Nearest(dense.tolist(), using=schema.DENSE), limit=PREFETCH.limit),
            engine.Prefetch(
                query=engine.Query.Nearest(encode_sparse(engine, sparse.query_vector(query)), using=schema.LEXICAL),
                limit=PREFETCH.lexical_limit,
            ),
        ],
        limit=limit,
    )
    return store._shard.query(request)


OPEN = """
import json, sys, time, resource
from jina_rag import DocumentIndex
from jina_rag.testing import FakeEmbedder
embedder = FakeEmbedder(dim=384, multi_dim=384, name="random")
import qdrant_edge
def rss():
    lines = [line.split() for line in open("/proc/self/status")]
    return {line[0]: int(line[1]) / 1024 for line in lines if line[0] in ("VmRSS:", "RssAnon:")}
before = rss()
start = time.perf_counter()
with DocumentIndex.open(sys.argv[1], embedder=embedder, create=False) as index:
    seconds = time.perf_counter() - start
    index._session.resources.store.count()
    after = rss()
growth = {name: after[name] - before[name] for name in after}
print(json.dumps({"seconds": seconds, "rss_mb": growth["VmRSS:"], "anonymous_mb": growth["RssAnon:"]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--storage", default="exact")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--index", type=Path)
    options = parser.parse_args()
    embedder = RandomEmbedder()
    with tempfile.TemporaryDirectory() as scratch:
        location = options.index or Path(scratch) / "kb"
        with DocumentIndex.open(location, embedder=embedder, storage=Storage.named(options.storage)) as index:
            if index.info().pages != options.pages:
                start, cpu = time.perf_counter(), time.process_time()
                calls = fill(index, options.pages, options.rows)
                print(
                    f"{options.pages} pages written in {time.perf_counter() - start:.0f} s "
                    f"({time.process_time() - cpu:.0f} s of CPU), of which store calls {sum(calls):.0f} s; "
                    f"longest store call {max(calls):.1f} s (at most 5)"
                )
            times = measure(index, embedder, options.rounds)
        process = subprocess.run(
            [sys.executable, "-c", OPEN, str(location)], capture_output=True, text=True, check=True
        )
    opening = json.loads(process.stdout)
    (wall_base, cpu_base) = times["bare call"]
    for name, (wall, cpu) in times.items():
        print(
            f"{name:44s} {wall * 1000:7.1f} ms   {wall / wall_base:.2f} times the bare call   CPU {cpu * 1000:7.1f} ms"
            f"   {cpu / cpu_base:.2f} times"
        )
    print(f"filtered / unfiltered: {times['search, filtered'][1] / times['search'][1]:.2f} of the CPU (at most 1.20)")
    print(
        f"opening {opening['seconds']:.2f} s (at most 1.5); memory after opening +{opening['rss_mb']:.0f} MB, "
        f"of which {opening['anonymous_mb']:.0f} MB not mapped (at most 250)"
    )


def measure(index: DocumentIndex, embedder: RandomEmbedder, rounds: int) -> dict[str, tuple[float, float]]:
    """Run the calls alternately and return the median wall and CPU seconds of each call, per query."""
    searcher = index._searcher
    no_filter, year = {}, {f"{schema.META}.year": 2003}
    years = {f"{schema.META}.year": Range(gte=2003, lt=2005)}
    times: dict[str, list[tuple[float, float]]] = {}
    for turn in range(rounds + 2):
        if turn == 2:
            times.clear()  # the first two rounds are a warm-up
        encoded = embedder.encode_query(["x"])
        query = " ".join(word(n % 3000) for n in (turn, turn * 7, turn * 31))
        dense, multi = encoded.single[0], encoded.multi[0]
        batch = [f"{query} {word(n)}" for n in range(BATCH)]
        plain = Query(query, query, dense, multi)
        coded = Query(query, f"{query} AB-{turn}-X", dense, multi)
        fused, corrected = Stages(rescore=Rescore(dense=0.3)), Stages(rescore=Rescore(hubness=0.5))
        rank = searcher._ranker.rank
        calls = {
            "bare call": partial(bare_call, index, dense, query, multi, POOL),
            "search": partial(rank, plain, no_filter, 5, Stages()),
            "search, filtered": partial(rank, plain, year, 5, Stages()),
            "search, filtered by a range": partial(rank, plain, years, 5, Stages()),
            "search, query with a code": partial(rank, coded, no_filter, 5, Stages()),
            "search, dense scores added": partial(rank, plain, no_filter, 5, fused),
            "search, hubness corrected": partial(rank, plain, no_filter, 5, corrected),
            "index.search, without details": partial(index.search, query, k=5, details=False),
            "index.search, with snippets": partial(index.search, query, k=5),
            f"index.search_many, {BATCH} queries": partial(index.search_many, batch, k=5),
        }
        names = list(calls)
        # The first call of a round reads the rows of the candidates from main memory, the others from the processor
        # cache. Each call is first in some rounds.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            call, count = calls[name], BATCH if "search_many" in name else 1
            start, cpu_start = time.perf_counter(), time.process_time()
            call()
            spent = (time.perf_counter() - start) / count, (time.process_time() - cpu_start) / count
            times.setdefault(name, []).append(spent)
    return {
        name: (statistics.median(wall for wall, _ in times[name]), statistics.median(cpu for _, cpu in times[name]))
        for name in calls
    }


if __name__ == "__main__":
    main()
