"""Measure the size on disk and the retrieval quality of each vector storage setting.

    python benchmarks/storage.py JUDGED_FOLDER [--index DIR] [--quick]

JUDGED_FOLDER is a judged folder of ``jina-rag evaluate``. The documents are embedded once, into the index DIR or a
temporary index. For each setting, the benchmark writes the vectors of the index to a store, closes and reopens the
store, measures the size, and searches all queries. Pages are scored by late interaction with the hubness correction,
without the score of the dense vector. Columns:

rows         multi-vector rows per page, including the rows of charts, tables and figures
KB per page  size on disk of all vector data: dense, multi (including second copies), lexical, and codes (sign codes
             and assignments of pooled rows, stored in the payload)
ratio        size of the vector data relative to "exact"
boxes        KB per page of token and word boxes, which are the same for every storage
log          KB per page of the engine's write-ahead log, which holds a second copy of the latest vectors
nDCG@5       mean, ratio to "exact", and 95 % interval of the difference from "exact" (paired bootstrap over queries)
heat map     mean correlation with the heat map of "exact" over the words of judged pages; in parentheses the
             correlation of the raw similarities, before smoothing over neighboring words
ms           median milliseconds of a search over all pages, without embedding the query
details ms   median milliseconds to read the data that locates the best match on each of 5 hits
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jina_rag import DocumentIndex
from jina_rag.catalog.manifest import peek_settings
from jina_rag.compression import encode_assignment, encode_signs, expand, pool_tokens
from jina_rag.config import Storage
from jina_rag.evaluation.datasets import JudgedFolder, read_folder
from jina_rag.evaluation.measures import DEPTH, measure
from jina_rag.explain.explanation import explain
from jina_rag.index.session import MANIFEST, VECTORS
from jina_rag.models.registry import load_embedder
from jina_rag.protocols import Embedder
from jina_rag.reference_queries import ReferenceQueries
from jina_rag.scoring import token_similarity
from jina_rag.search.fusion import Rescore
from jina_rag.stores import schema
from jina_rag.stores.qdrant.edge import EdgeStore
from jina_rag.types import Float32, Point

KINDS = ("dense", "multi", "lexical")

QUICK: dict[str, Storage] = {name: Storage.named(name) for name in ("exact", "balanced", "compact")}
ALL: dict[str, Storage] = QUICK | {
    "exact, no log": Storage(log=False),
    "int8": Storage("int8", log=False),
    **{
        f"{datatype}, pool {factor:g}": Storage(datatype, factor, sign_codes=False, log=False)
        for datatype, factor in (
            ("float16", 2), ("float16", 3), ("int8", 2), ("int8", 3),
            ("int4", 1), ("int4", 1.5), ("int4", 2), ("int4", 3), ("int4", 4), ("int4", 6),
        )
    },
    "float16 + binary": Storage(quantization="binary", log=False),
    "float16 + int8": Storage(quantization="int8", log=False),
}  # fmt: skip


@dataclass
class Result:
    """One line of the table. `ndcg` has a value per query, and `heat` has two arrays per query and judged page."""

    rows: float
    by_part: dict[str, int]
    codes: int
    box_bytes: int
    ndcg: np.ndarray
    heat: dict[str, tuple[Float32, Float32]]
    milliseconds: float
    details_ms: float

    @property
    def vectors(self) -> int:
        return sum(self.by_part[kind] for kind in KINDS) + self.codes


class StorageBenchmark:
    """A judged folder with its query vectors and its points in "exact" storage."""

    def __init__(self, folder: JudgedFolder, points: Sequence[Point], embedder: Embedder) -> None:
        self.folder, self.points, self.embedder = folder, points, embedder
        self.background = ReferenceQueries(embedder)
        encoded = embedder.encode_query([query.query for query in folder.queries], single=False)
        assert encoded.multi is not None
        self.queries = encoded.multi
        self.pages = {p.id: p for p in points if p.payload[schema.KIND] == "page"}
        self.grids = {
            key: schema.decode_grid(page.payload[schema.GRID])
            for key, page in self.pages.items()
            if page.multi is not None and schema.GRID in page.payload
        }

    def run(self, storage: Storage, folder: Path) -> Result:
        dims = {"dim": len(self._first(self.points, "dense")), "multi_dim": self._first(self.points, "multi").shape[1]}
        points_and_assignments = [self._stored_point(point, storage) for point in self.points]
        points = [point for point, _ in points_and_assignments]
        with EdgeStore.open(folder, **dims, storage=storage) as store:
            for batch in schema.batches(points):
                store.upsert(batch)
        assignments = {point.id: assignment for point, assignment in points_and_assignments}
        codes = sum(len(point.payload.get(key, "")) for point in points for key in (schema.SIGNS, schema.ASSIGNMENT))
        box_bytes = sum(len(point.payload.get(key, "")) for point in points for key in (schema.GRID, schema.WORDS))
        with EdgeStore.open(folder, **dims) as store:
            by_part = store.bytes_by_part()
            ndcg, milliseconds = self._search(store)
            heat = self._heat_maps(store, assignments)
            details = self._read_details(store, storage)
        count = sum(len(point.multi) for point in points if point.multi is not None)
        return Result(count / len(self.pages), by_part, codes, box_bytes, ndcg, heat, milliseconds, details)

    def _stored_point(self, point: Point, storage: Storage) -> tuple[Point, np.ndarray | None]:
        """Return the point in the form of `storage`, and the pooled row that each row of `point.multi` belongs to."""
        if point.multi is None:
            return point, None
        rows, assignment = pool_tokens(point.multi, storage.pool_factor)
        payload: dict[str, Any] = {**point.payload, schema.BIAS: self.background.bias(rows)}
        payload.pop(schema.SIGNS, None)
        if schema.GRID in payload:
            if len(rows) < len(assignment):
                payload[schema.ASSIGNMENT] = encode_assignment(assignment)
            if storage.sign_codes:
                payload[schema.SIGNS] = encode_signs(rows)
        return replace(point, multi=rows, payload=payload), assignment

    def _search(self, store: EdgeStore) -> tuple[np.ndarray, float]:
        """Return nDCG@5 of each query, shape (queries,), float64, and the median milliseconds per search."""
        run, seconds = {}, []
        for query, rows in zip(self.folder.queries, self.queries, strict=True):
            start = time.perf_counter()
            hits = store.search(rows, limit=Rescore().limit, where={schema.KIND: "page"}, keys=(schema.BIAS,))
            seconds.append(time.perf_counter() - start)
            scores = {h.id: h.score / len(rows) - self.embedder.hubness * h.payload[schema.BIAS] for h in hits}
            best = sorted(scores, key=lambda key: -scores[key])[:DEPTH]
            run[query.query_id] = [self._name(self.pages[key]) for key in best]
        measures = measure(self.folder.queries, run)
        return np.array([measures[qid]["nDCG@5"] for qid in sorted(measures)]), statistics.median(seconds) * 1e3

    def _heat_maps(
        self, store: EdgeStore, assignments: dict[str, np.ndarray | None]
    ) -> dict[str, tuple[Float32, Float32]]:
        """Return the raw similarities and the heat map weights of each query and judged page."""
        ids = {self._name(page): key for key, page in self.pages.items() if key in self.grids}
        heat = {}
        for query, rows in zip(self.folder.queries, self.queries, strict=True):
            for page in (page for page, grade in query.relevant.items() if grade > 0 and page in ids):
                key = ids[page]
                multi, assignment = store.fetch([key])[0].multi, assignments[key]
                assert multi is not None
                assert assignment is not None
                explanation = explain(rows, multi, self.grids[key], Path(), assignment=assignment)
                has_box = ~np.isnan(self.grids[key].boxes).any(axis=1)
                weights = expand(token_similarity(rows, multi), assignment)[has_box]
                heat[f"{query.query_id} {page}"] = weights, explanation.weights
        return heat

    def _read_details(self, store: EdgeStore, storage: Storage) -> float:
        """Return the median milliseconds to read the data that locates the best match on each of five pages."""
        seconds = []
        keys = list(self.grids)
        for first in range(0, len(keys) - 5, 5):
            start = time.perf_counter()
            store.fetch(keys[first : first + 5], vectors=not storage.sign_codes)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds) * 1e3

    def _name(self, page: Point) -> tuple[str, int]:
        doc_id = page.payload[schema.DOC_ID]
        first = doc_id if isinstance(doc_id, str) else doc_id[0]
        return PurePosixPath(first).stem, int(page.payload[schema.PAGE])

    @staticmethod
    def _first(points: Sequence[Point], name: str) -> Float32:
        return next(getattr(point, name) for point in points if getattr(point, name) is not None)


def line(name: str, result: Result, exact: Result, pages: int) -> str:
    difference = result.ndcg - exact.ndcg
    picks = np.random.default_rng(0).integers(0, len(difference), (5000, len(difference)))
    low, high = np.percentile(difference[picks].mean(axis=1), [2.5, 97.5])
    heat = [[_correlation(result.heat[key][i], exact.heat[key][i]) for key in exact.heat] for i in (1, 0)]
    parts = [result.by_part[kind] for kind in KINDS] + [result.codes]
    return " | ".join(
        [
            f"{name:<18}", f"{result.rows:5.0f}", f"{result.vectors / pages / 1e3:6.1f}",
            " + ".join(f"{part / pages / 1e3:.1f}" for part in parts).rjust(25),
            f"1/{exact.vectors / result.vectors:<5.2f}",
            f"{result.box_bytes / pages / 1e3:6.1f}", f"{result.by_part['log'] / pages / 1e3:5.0f}",
            f"{result.ndcg.mean():.3f}", f"{100 * result.ndcg.mean() / exact.ndcg.mean():5.1f} %",
            f"[{low:+.3f}, {high:+.3f}]", f"{np.mean(heat[0]):.3f} ({np.mean(heat[1]):.3f})",
            f"{sum(result.by_part.values()) / 1e6:6.1f}", f"{result.milliseconds:5.1f}", f"{result.details_ms:5.1f}",
        ]
    )  # fmt: skip


def _correlation(one: Float32, other: Float32) -> float:
    """Return Pearson's correlation of two heat maps: 1 if both maps are constant, 0 if only one map is constant."""
    if one.std() == 0 or other.std() == 0:
        return float(one.std() == other.std())
    return float(np.corrcoef(one, other)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, help="folder of the index, reused by later runs")
    parser.add_argument("--quick", action="store_true", help="measure only the presets")
    arguments = parser.parse_args()
    folder = read_folder(arguments.folder)
    with tempfile.TemporaryDirectory() as scratch:
        location = arguments.index or Path(scratch) / "index"
        with DocumentIndex.open(location, storage="exact") as index:
            index.ingest(list(folder.documents.values()))
        settings = peek_settings(location / MANIFEST)
        embedder = load_embedder(settings["embedder"])
        with EdgeStore.open(location / VECTORS, dim=settings["dim"], multi_dim=settings["multi_dim"]) as store:
            points = [point for hit in store.scroll() for point in store.fetch([hit.id])]
    bench = StorageBenchmark(folder, points, embedder)
    pages = len(bench.pages)
    print(f"{pages} pages, {len(points) - pages} charts, tables and figures, {len(folder.queries)} queries")
    print(
        "setting            |  rows | KB per page = dense + multi + lexical + codes | ratio   | boxes | log | nDCG@5 | "
        "of exact | difference | heat map | MB on disk | ms | details ms"
    )
    exact: Result | None = None
    for name, storage in (QUICK if arguments.quick else ALL).items():
        with tempfile.TemporaryDirectory() as scratch:
            result = bench.run(storage, Path(scratch) / "store")
        exact = exact or result
        print(line(name, result, exact, pages), flush=True)


if __name__ == "__main__":
    main()
