"""Measure the time of `DocumentIndex.add` relative to its necessary parts.

    python benchmarks/add.py [--entries 1000] [--embedder lite] [--rounds 20]

The benchmark fills a temporary index with short texts. Then it adds 1, 3 and 100 new texts in turn, and runs the
necessary parts beside each call: embedding the texts, one upsert of the points in a store of the same size (a direct
call of the vector engine, without a sync), and one commit of one row in a SQLite file. The benchmark prints the median
times, and the ratio of the median of `add` to the sum of the medians of the parts. `add` syncs the log of the vector
store and commits twice, so that the entries survive a power failure; the time of a sync depends on the disk.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from jina_rag import DocumentIndex
from jina_rag.stores import schema
from jina_rag.stores.filters import with_filter_payload
from jina_rag.stores.qdrant.edge_codec import encode

BATCHES = (1, 3, 100)


def text(number: int) -> str:
    """Return a short text of 12 words."""
    return f"Entry {number} is about topic {number % 17}, as written by author {number % 31} last year."


def timed(times: list[float], call: Callable[[], object]) -> None:
    """Run a call and append its seconds to `times`."""
    start = time.perf_counter()
    call()
    times.append(time.perf_counter() - start)


def stored_points(index: DocumentIndex, ids: list[str]) -> list[object]:
    """Return the points of added entries as the engine types that a store writes."""
    resources = index._session.resources
    records = resources.manifest.documents_by_id(ids)
    point_ids = [schema.point_id(record.sha256, 1) for record in records]
    points = map(with_filter_payload, resources.store.fetch(point_ids))
    return [encode(resources.store._types, point) for point in points]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1000)
    parser.add_argument("--embedder", default="lite")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    first_texts = [text(number) for number in range(options.entries)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (
            DocumentIndex.open(folder / "kb", embedder=options.embedder) as index,
            DocumentIndex.open(folder / "other", embedder=options.embedder) as other,
            closing(sqlite3.connect(folder / "rows.sqlite3", isolation_level=None)) as database,
        ):
            database.execute("CREATE TABLE rows (value TEXT)")
            for each in (index, other):
                each.add(first_texts, ids=[str(number) for number in range(options.entries)])
            for size in BATCHES:
                report(size, measure(index, other, database, size, options.rounds))


def measure(
    index: DocumentIndex, other: DocumentIndex, database: sqlite3.Connection, size: int, rounds: int
) -> dict[str, float]:
    """Add batches and run the parts beside them; return the median seconds of each call.

    Args:
        index: The index to add to.
        other: An index of the same size, whose vector engine is called directly.
        database: A database with the table ``rows``.
        size: Number of texts of each batch.
        rounds: Number of batches.
    """
    shard, types = other._session.resources.store._shard, other._session.resources.store._types
    times: dict[str, list[float]] = {name: [] for name in ("add", "embedding", "upsert", "commit", "log sync")}

    def commit() -> None:
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO rows VALUES (?)", ("value",))
        database.execute("COMMIT")

    for turn in range(-2, rounds):  # two rounds are a warm-up
        if turn == 0:
            times = {name: [] for name in times}
        ids = [f"{size}-{turn}-{number}" for number in range(size)]
        texts = [f"{text(number)} Batch {turn} of {size}." for number in range(size)]
        timed(times["add"], lambda ids=ids, texts=texts: index.add(texts, ids=ids))
        timed(times["embedding"], lambda texts=texts: index.embedder.encode_document(texts))
        points = stored_points(index, ids)
        timed(times["upsert"], lambda points=points: shard.update(types.UpdateOperation.upsert_points(points)))
        timed(times["commit"], commit)
        timed(times["log sync"], other._session.resources.store.flush)
    return {name: statistics.median(values) for name, values in times.items()}


def report(size: int, times: dict[str, float]) -> None:
    """Print the times of one batch size."""
    parts = times["embedding"] + times["upsert"] + times["commit"]
    label = f"{size} text{'s' if size > 1 else ''}"
    print(f"{label}: add {times['add'] * 1000:.1f} ms, {times['add'] / parts:.2f} times the parts")
    for name in ("embedding", "upsert", "commit", "log sync"):
        note = "   (not counted as a part)" if name == "log sync" else ""
        print(f"    {name:12s} {times[name] * 1000:7.2f} ms{note}")


if __name__ == "__main__":
    main()
