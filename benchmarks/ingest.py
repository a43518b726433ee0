"""Measure the memory of an ingestion, the overlap of rendering and embedding, and the time of a repeated ingestion.

    python benchmarks/ingest.py [--pages 200 2000] [--per-document 20] [--embed-ms 60]

The benchmark ingests generated documents (text, a table and a vector chart on each page), in a separate process for
each number of pages. The embedder is a fake with the shapes of the default embedder (dense vectors of length 384, and
multi-vectors of shape (400, 384) with boxes) that consumes the CPU time of a small model. The benchmark prints the peak
memory (RSS) of the process and of the render workers, the wall time relative to the best possible time on two
processors, and the time of a second ingestion of the unchanged folder.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pymupdf
from threadpoolctl import threadpool_limits

from jina_rag import DocumentIndex
from jina_rag.config import IngestSettings
from jina_rag.scoring import normalise
from jina_rag.testing import FakeEmbedder
from jina_rag.types import Embeddings, TokenGrid

PAGES_PER_DOCUMENT = 20
ROWS, DIM = 400, 384


class BusyEmbedder(FakeEmbedder):
    """A fake embedder with real vector shapes that consumes the CPU time of a model."""

    def __init__(self, milliseconds: float) -> None:
        super().__init__(dim=DIM, multi_dim=DIM, name="burning")
        self.milliseconds = milliseconds
        self.embedded = 0

    def encode_document(self, documents, **options):
        rng = np.random.default_rng(self.embedded)
        self.embedded += len(documents)
        matrix = rng.normal(size=(192, 192)).astype(np.float32)
        end = time.thread_time() + self.milliseconds / 1000 * len(documents)
        with threadpool_limits(1):  # one BLAS thread, because other threads would wait busily and use CPU time
            while time.thread_time() < end:
                matrix = np.tanh(matrix @ matrix / 200)
        multi = [normalise(rng.normal(size=(ROWS, DIM))) for _ in documents]
        corners = rng.uniform(0, 0.95, size=(len(documents), ROWS, 2)).astype(np.float32)
        grids = [TokenGrid(np.concatenate([corner, corner + 0.05], axis=1), "words") for corner in corners]
        return Embeddings(normalise(rng.normal(size=(len(documents), DIM))), multi, grids)


def write(folder: Path, pages: int, per_document: int = PAGES_PER_DOCUMENT) -> None:
    """Write PDF documents with different content on each page."""
    for first in range(0, pages, per_document):
        with pymupdf.open() as document:
            for number in range(first, min(first + per_document, pages)):
                page = document.new_page()
                for line in range(30):
                    words = f"Page {number} line {line}: " + " ".join(
                        f"word{(number * 7 + line * 3 + w) % 997}" for w in range(8)
                    )
                    page.insert_text((60, 60 + line * 12), words, fontsize=9)
                for bar in range(12):
                    height = 10 + (number * 31 + bar * 17) % 90
                    page.draw_rect(pymupdf.Rect(80 + bar * 30, 600 - height, 100 + bar * 30, 600), fill=(0.2, 0.4, 0.8))
                for row in range(8):
                    page.draw_line((60, 640 + row * 15), (530, 640 + row * 15))
                    page.insert_text((65, 637 + row * 15), f"row {row}", fontsize=8)
                    page.insert_text((300, 637 + row * 15), f"{number * row}", fontsize=8)
            document.save(folder / f"document{first:05d}.pdf")


def child(folder: Path, index: Path, milliseconds: float) -> None:
    """Ingest a folder twice in this process and print the figures as JSON."""
    embedder = BusyEmbedder(milliseconds)
    figures = {}
    with DocumentIndex.open(index, embedder=embedder) as document_index:
        for name in ("first", "second"):
            before, start, cpu = embedder.embedded, time.monotonic(), time.process_time()
            report = document_index.ingest(folder, settings=IngestSettings(ocr="never"))
            assert not report.failed, report.failed
            figures[name] = {
                "wall": time.monotonic() - start,
                "own_cpu": time.process_time() - cpu,
                "embedded": embedder.embedded - before,
                "unchanged": report.unchanged,
            }
    from jina_rag.parsing.workers import pool

    pool._IDLE_WORKERS.close()  # RUSAGE_CHILDREN counts only processes that have ended
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures["worker_cpu"] = workers.ru_utime + workers.ru_stime
    figures["worker_rss_mb"] = workers.ru_maxrss / 1024
    figures["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--per-document", type=int, default=PAGES_PER_DOCUMENT, help="pages per document")
    parser.add_argument("--embed-ms", type=float, default=60.0, help="CPU milliseconds per page of the fake embedder")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.embed_ms)
        return
    memory = []
    for pages in options.pages:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "docs"
            folder.mkdir()
            write(folder, pages, options.per_document)
            command = [
                sys.executable,
                __file__,
                "--embed-ms",
                str(options.embed_ms),
                "--child",
                folder,
                f"{scratch}/kb",
            ]
            process = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        figures = json.loads(process.stdout.splitlines()[-1])
        first, second = figures["first"], figures["second"]
        best = max((first["own_cpu"] + figures["worker_cpu"]) / 2, first["own_cpu"], figures["worker_cpu"])
        memory.append(figures["rss_mb"])
        print(f"{pages} pages, {options.per_document} per document")
        print(f"  peak memory {figures['rss_mb']:.0f} MB, render worker {figures['worker_rss_mb']:.0f} MB")
        print(
            f"  wall {first['wall']:.1f} s; CPU: rendering {figures['worker_cpu']:.1f} s, "
            f"main process {first['own_cpu']:.1f} s; "
            f"{first['wall'] / best:.2f} times the best possible time on two processors (at most 1.20)"
        )
        print(
            f"  second run: {second['wall']:.2f} s, {second['wall'] / first['wall']:.2%} of the first (at most 2 %), "
            f"{second['embedded']} pages embedded, {second['unchanged']} documents unchanged"
        )
    if len(memory) > 1:
        print(f"ratio of peak memory, most pages to fewest pages: {memory[-1] / memory[0]:.2f} (at most 1.20)")


if __name__ == "__main__":
    main()
