"""Measure the cost of the default embedder "lite": CPU seconds per page and query, memory, and time of a cold search.

    python benchmarks/lite.py FOLDER

FOLDER holds PDFs and images. The benchmark measures each part of the ingestion alone over the same pages, and then the
complete ingestion with ``DocumentIndex.ingest``. The complete ingestion must take at most 1.10 times the sum of the CPU
seconds of the parts. CPU seconds count all threads of the process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cold_search
import lite_embed

from jina_rag import DocumentIndex, load_embedder
from jina_rag.catalog.manifest import DocumentRecord
from jina_rag.catalog.near_duplicates.finder import NearDuplicateFinder
from jina_rag.config import IngestSettings
from jina_rag.indexing.ingest import BATCH_PAGES
from jina_rag.indexing.point_builder import PointBuilder
from jina_rag.ocr import read_areas
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.layout.regions import find_regions
from jina_rag.parsing.layout.text_lines import text_lines
from jina_rag.parsing.pages import areas_to_read
from jina_rag.parsing.pdf.pymupdf_renderer import PyMuPdfRenderer
from jina_rag.parsing.pdf.pymupdf_shapes import find_drawings
from jina_rag.parsing.sources import SourceFile, find_sources
from jina_rag.reference_queries import QUERIES, ReferenceQueries
from jina_rag.stores import schema
from jina_rag.types import Page


def clock(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result and the CPU seconds of a call."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


class Parts:
    """CPU seconds of each part of the ingestion, from rendering to storing, over all pages."""

    def __init__(self, sources: list[SourceFile]) -> None:
        self.sources = sources
        self.settings = IngestSettings()
        self.seconds: dict[str, float] = {}
        self.ocr_pages = 0

    def run(self) -> int:
        """Measure every part and return the number of pages."""
        self._render()
        self._words()
        self._regions()
        pages = self._ocr()
        self._embed_and_store(pages)
        return len(pages)

    def _documents(self) -> list[Any]:
        return [open_document(source, self.settings) for source in self.sources]

    def _render(self) -> None:
        def call() -> None:
            for document in self._documents():
                with document:
                    for number in range(document.page_count):
                        if isinstance(document, PyMuPdfRenderer):
                            page = document._document.load_page(number)
                            document._screenshot(page, page.rect.width, page.rect.height, [])
                        else:
                            document.render(number + 1)

        self.seconds["render"] = clock(call)[1]

    def _pdf_pages(self, call: Callable[[PyMuPdfRenderer, Any], None]) -> None:
        for document in self._documents():
            with document:
                if isinstance(document, PyMuPdfRenderer):
                    for number in range(document.page_count):
                        call(document, document._document.load_page(number))

    def _words(self) -> None:
        def words(document: PyMuPdfRenderer, page: Any) -> None:
            document._words(page, page.rotation_matrix, page.rect.width, page.rect.height)

        self.seconds["words"] = clock(lambda: self._pdf_pages(words))[1]

    def _regions(self) -> None:
        # Excludes the time to read words and images, which other stages of this benchmark measure.
        cpu_seconds = 0.0

        def regions(document: PyMuPdfRenderer, page: Any) -> None:
            nonlocal cpu_seconds
            width, height = page.rect.width, page.rect.height
            matrix = page.rotation_matrix
            contents = document._read(page.number + 1, [])
            start = time.process_time()
            page.get_image_info()
            find_drawings(page, matrix, width, height)
            find_regions(contents.shapes, text_lines(contents.words, width, height))
            cpu_seconds += time.process_time() - start

        self._pdf_pages(regions)
        self.seconds["regions"] = cpu_seconds

    def _ocr(self) -> list[Page]:
        pages, cpu_seconds = [], 0.0
        for document in self._documents():
            with document:
                for number in range(1, document.page_count + 1):
                    page, images = document.render_with_images(number)
                    areas = areas_to_read(page, images, self.settings)
                    if areas:
                        start = time.process_time()
                        words = read_areas(page.screenshot.image, areas, skip_boxes=[word.box for word in page.words])
                        cpu_seconds += time.process_time() - start
                        self.ocr_pages += 1
                        page = replace(page, words=(*page.words, *words))
                    pages.append(page)
        self.seconds["ocr"] = cpu_seconds
        return pages

    def _embed_and_store(self, pages: list[Page]) -> None:
        embedder = load_embedder("lite")
        batches = [pages[i : i + BATCH_PAGES] for i in range(0, len(pages), BATCH_PAGES)]
        with tempfile.TemporaryDirectory() as scratch, DocumentIndex.open(Path(scratch) / "kb") as index:
            resources = index._session.resources
            builder = PointBuilder(embedder, resources.images, dim=embedder.dim, quality=self.settings.jpeg_quality)

            def embed() -> list[Any]:
                builder._reference_queries = ReferenceQueries(embedder)
                return [builder.encode([builder.input_of(page) for page in batch]) for batch in batches]

            encoded_batches, self.seconds["embed"] = clock(embed)

            def store() -> None:
                near = NearDuplicateFinder(resources.store, resources.images)
                for batch, vectors in zip(batches, encoded_batches, strict=True):
                    points = []
                    for page, page_vectors in zip(batch, vectors, strict=True):
                        sha256 = hashlib.sha256(page.doc_id.encode()).hexdigest()
                        near.find([(schema.point_id(sha256, page.number), page, page_vectors.dense)])
                        record = DocumentRecord(page.doc_id, page.path, sha256, 0, 0)
                        points += [point for point, _ in builder.build([record], [(page, page_vectors)], {})]
                    for point_batch in schema.batches(points):
                        resources.store.upsert(point_batch)
                resources.store.flush()

            self.seconds["store"] = clock(store)[1]


def warm_query(index: DocumentIndex, queries: list[str]) -> dict[str, float]:
    """Return the CPU milliseconds per query, for ranking only, and for ranking with regions and snippets."""
    index.search(queries[0])
    figures = {"pages": float(index.info().pages)}
    for name, details in (("rank", False), ("rank_and_show", True)):
        start = time.process_time()
        for query in queries:
            index.search(query, details=details)
        figures[f"{name}_cpu_ms"] = (time.process_time() - start) / len(queries) * 1000
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=20_000, help="tokens to compare with the float32 export")
    arguments = parser.parse_args()
    sources = [entry for entry in find_sources([arguments.folder]) if isinstance(entry, SourceFile)]
    parts = Parts(sources)
    pages = parts.run()
    with tempfile.TemporaryDirectory() as scratch:
        with DocumentIndex.open(Path(scratch) / "kb") as index:
            # Without isolation, rendering runs in this process, so the CPU time of rendering is counted.
            settings = IngestSettings(isolate=False)
            report, ingest_seconds = clock(lambda: index.ingest([source.path for source in sources], settings=settings))
            assert report.pages == pages, report
            query = warm_query(index, list(QUERIES))
        cold = cold_search.measure(Path(scratch) / "kb")
        cold.pop("packages")
    total = sum(parts.seconds.values())
    print(f"{pages} pages, {parts.ocr_pages} of them with OCR; CPU seconds per page")
    for name, seconds in parts.seconds.items():
        print(f"  {name:8s} {seconds / pages:.4f}")
    print(f"  OCR, per page that requires OCR: {parts.seconds['ocr'] / max(1, parts.ocr_pages):.2f}")
    print(f"  sum      {total / pages:.4f}")
    print(f"  ingest   {ingest_seconds / pages:.4f}   {ingest_seconds / total:.3f} of the sum (at most 1.10)")
    print("warm query", json.dumps(query), "(rank_cpu_ms at most 80 over 190 pages)")
    print("cold search", json.dumps(cold), "(ratio at most 2)")
    texts = lite_embed.read_pages(arguments.folder)
    print("encoder", json.dumps(lite_embed.measure_speed(texts, tokens=arguments.tokens)), "(ratio at least 1.2)")
    print("memory", json.dumps(lite_embed.measure_memory("lite")), "(load_mb at most 350)")


if __name__ == "__main__":
    main()
