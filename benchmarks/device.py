"""Measure the ingestion against a stand-in for a device: pages per second, share of the device, CPU time of the host.

    python benchmarks/device.py [--shape one many some] [--rate 10 20 50 0] [--pages 400]
    python benchmarks/device.py --devices 2 --rate 10
    python benchmarks/device.py --memory

The stand-in has the shapes of jina-embeddings-v4 (dense vectors of length 1,024, multi-vectors of shape (730, 128) for
a page). Instead of running a model, the stand-in sleeps while it holds a lock. The sleep releases the interpreter's
lock, as a device does. At a rate of 10, the device takes 0.1 s for a page together with the crops of its regions. A
rate of 0 stands for a device that takes no time.

The documents are born-digital PDFs of A4 pages with text, a table and a chart, read without OCR: all pages in one
document (``one``), one document for each page (``many``), or documents of 10 pages (``some``). Each run is a separate
process, which indexes a few pages before the measurement, so that modules are imported and workers are started.

For each shape, the benchmark first measures the CPU time of the host stages, each timed alone: the rendering (worker
processes, and the thread that receives the pages), and the rest (planning, points, writing) with pages that were
rendered before. The maximum rate of the host is the number of CPUs divided by the CPU seconds per page of all stages.

Bars: at a rate of 10, at least 0.93 of the device; otherwise at least 0.85 of the smaller of device and host; at most
12 ms of CPU per page in the main process; with two devices at least 1.8 times the pages per second of one device;
with ``--memory``, at most 1.2 times the peak memory of 200 pages for 2,000 pages. Linux only, because the CPU time of
the worker processes is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pymupdf

from jina_rag import DocumentIndex
from jina_rag.config import IngestSettings, usable_cpus
from jina_rag.indexing import ingest
from jina_rag.models.runtime.multi_device import MultiDeviceEmbedder
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.sources import find_sources
from jina_rag.scoring import normalise
from jina_rag.testing import FakeEmbedder
from jina_rag.types import Embeddings, Page, TokenGrid

SHAPES = {"one": None, "many": 1, "some": 10}
"""Pages per document of each shape; None for all pages."""
ROWS, MULTI_DIM, DIM = 730, 128, 1024
SETTINGS = IngestSettings(ocr="never")
WARM_UP_PAGES = 16
WORDS = [
    a + b + c for a in ("sta", "mer", "lon", "vi", "dro") for b in ("ti", "ga", "ple") for c in ("on", "tes", "ra")
]
STAGE_PAGES = 48
"""Number of pages for the timing of the host stages. Rendered pages take 7 MB each."""


class StandInDevice(FakeEmbedder):
    """An embedder with the shapes of jina-embeddings-v4 that sleeps under a lock instead of running a model."""

    modality = "image"

    def __init__(self, pages_per_second: float) -> None:
        super().__init__(dim=DIM, multi_dim=MULTI_DIM, name="stand-in")
        self._seconds = 1 / pages_per_second if pages_per_second else 0.0
        self._lock = threading.Lock()
        self._random = np.random.default_rng(os.getpid())  # several stand-ins return different vectors
        self._rows = normalise(self._random.normal(size=(8 * ROWS, MULTI_DIM)))
        # One box for each cell of a grid of 27 x 27 patches, and none for a token of the prompt.
        corners = np.stack(np.meshgrid(np.arange(27), np.arange(27)), axis=-1).reshape(-1, 2)
        boxes = np.concatenate([corners, corners + 1], axis=1) / 27
        self._boxes = np.concatenate([np.full((1, 4), np.nan), boxes]).astype(np.float32)

    def encode_document(self, documents, **options):
        with self._lock:
            dense = normalise(self._random.standard_normal(size=(len(documents), DIM), dtype=np.float32))
            starts = self._random.integers(0, len(self._rows) - ROWS, size=len(documents))
            if self._seconds:
                time.sleep(self._seconds * sum(isinstance(document, Page) for document in documents))
        # The number of rows of a crop is proportional to the area of the crop.
        counts = [ROWS if isinstance(document, Page) else _crop_rows(document) for document in documents]
        rows = [self._rows[start : start + count] for start, count in zip(starts, counts, strict=True)]
        return Embeddings(dense, rows, [TokenGrid(self._boxes[:count], "patches") for count in counts])


def _crop_rows(image) -> int:
    return max(16, min(ROWS, ROWS * image.width * image.height // (1240 * 1754)))


def write_documents(folder: Path, pages: int, pages_per_document: int | None, first: int = 0) -> None:
    """Write PDF documents with different content on each page."""
    folder.mkdir(parents=True, exist_ok=True)
    step = pages_per_document or pages
    for start in range(first, first + pages, step):
        with pymupdf.open() as document:
            for number in range(start, min(start + step, first + pages)):
                _draw_page(document.new_page(width=595, height=842), number)
            document.save(folder / f"document{start:05d}.pdf")


def _draw_page(page, number: int) -> None:
    page.insert_text((60, 50), f"Report {number}: results of station {number * 7919 % 10007}", fontsize=14)
    for line in range(34):
        words = " ".join(f"{WORDS[(number * 7 + line * 13 + w * 29) % len(WORDS)]}" for w in range(12))
        page.insert_text((60, 75 + line * 12), f"{words} {number * 31 + line}.", fontsize=9)
    for bar in range(12):
        height = 10 + (number * 31 + bar * 17) % 90
        page.draw_rect(pymupdf.Rect(80 + bar * 30, 610 - height, 100 + bar * 30, 610), fill=(0.2, 0.4, 0.8))
    page.insert_text((80, 628), f"Figure {number}: measured values by month", fontsize=8)
    page.insert_text((60, 655), f"Table {number}: stations and values", fontsize=8)
    for row in range(9):
        page.draw_line((60, 665 + row * 15), (530, 665 + row * 15))
    for x in (60, 220, 380, 530):
        page.draw_line((x, 665), (x, 785))
    for row in range(8):
        for column in range(3):
            page.insert_text((65 + column * 160, 676 + row * 15), f"cell {number * row + column}", fontsize=8)


def worker_seconds() -> float:
    """Return the CPU seconds of the child processes, running and ended."""
    ticks = os.sysconf("SC_CLK_TCK")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        if int(fields[1]) == os.getpid():
            seconds += (int(fields[11]) + int(fields[12])) / ticks
    return seconds


def make_embedder(rate: float, devices: int):
    """Return a stand-in for one device, or the embedder of several stand-ins."""
    if devices == 1:
        return StandInDevice(rate)
    from device import StandInDevice as ImportedStandIn  # the processes import this file as a module

    return MultiDeviceEmbedder([partial(ImportedStandIn, rate)] * devices)


def measure_run(folder: Path, index: Path, rate: float, devices: int) -> dict[str, float]:
    """Ingest a folder in this process and return the figures."""
    embedder = make_embedder(rate, devices)
    with DocumentIndex.open(index, embedder=embedder) as document_index:
        document_index.ingest(folder / "warm-up", settings=SETTINGS)
        start, own, workers = time.monotonic(), time.process_time(), worker_seconds()
        report = document_index.ingest(folder / "docs", settings=SETTINGS)
        figures = {
            "seconds": time.monotonic() - start,
            "own": time.process_time() - own,
            "workers": worker_seconds() - workers,
            "pages": report.pages,
            "regions": report.regions,
        }
        assert not report.failed, report.failed
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def measure_stages(folder: Path, index: Path) -> dict[str, float]:
    """Return the CPU seconds per page of the host stages, each timed alone in this process."""
    events = defaultdict(list)

    def replay(sources, *args, **options):
        for source in sources:
            yield from events[source.path]

    with DocumentIndex.open(index, embedder=StandInDevice(0)) as document_index:
        document_index.ingest(folder / "warm-up", settings=SETTINGS)
        own, workers = time.process_time(), worker_seconds()
        with closing(read_pages(find_sources(folder / "stages"), SETTINGS, prepare=True)) as stream:
            for event in stream:
                events[getattr(event, "path", None) or event.source.path].append(event)
        receive, render = time.process_time() - own, worker_seconds() - workers
        ingest.read_pages = replay
        own = time.process_time()
        report = document_index.ingest(folder / "stages", settings=SETTINGS)
        rest = time.process_time() - own
        assert not report.failed, report.failed
    return {"render": render / report.pages, "receive": receive / report.pages, "rest": rest / report.pages}


def run_child(part: str, folder: Path, rate: float = 0, devices: int = 1) -> dict[str, float]:
    """Run a part of the benchmark in a new process and return the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = ["--child", part, str(folder), f"{scratch}/kb", "--rate", str(rate), "--devices", str(devices)]
        process = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def measure_shape(shape: str, options: argparse.Namespace) -> None:
    """Measure one shape at all rates and print the table."""
    cores = usable_cpus()
    pages_per_document = SHAPES[shape]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_documents(folder / "docs", options.pages, pages_per_document)
        write_documents(folder / "warm-up", WARM_UP_PAGES, None, first=100_000)
        write_documents(folder / "stages", STAGE_PAGES, pages_per_document, first=200_000)
        stages = run_child("stages", folder)
        host_seconds = sum(stages.values())
        print(
            f"{shape}: {options.pages} pages, {pages_per_document or options.pages} per document; CPU per page, each "
            f"stage alone: rendering {stages['render'] * 1e3:.1f} ms, receiving {stages['receive'] * 1e3:.1f} ms, "
            f"planning, points and writing {stages['rest'] * 1e3:.1f} ms; host at most {cores / host_seconds:.1f} "
            f"pages/s on {cores} CPUs"
        )
        for rate in options.rate:
            speeds = []
            for devices in (1, options.devices) if options.devices > 1 else (1,):
                figures = run_child("run", folder, rate, devices)
                assert figures["pages"] == options.pages, figures
                print_run(figures, rate * devices, cores / host_seconds, bar=0.93 if rate == 10 else 0.85)
                speeds.append(figures["pages"] / figures["seconds"])
            if len(speeds) > 1:
                print(f"    {options.devices} devices: {speeds[1] / speeds[0]:.2f} x the pages/s of one device")


def print_run(figures: dict[str, float], device: float, host: float, *, bar: float) -> None:
    """Print the figures of one run, next to the maximum rates of device and host in pages per second."""
    speed = figures["pages"] / figures["seconds"]
    limit = min(device or host, host)
    own, workers = (1e3 * figures[name] / figures["pages"] for name in ("own", "workers"))
    print(
        f"  device {f'{device:g} pages/s' if device else 'free':>11}: {speed:5.1f} pages/s"
        f"  {f'{speed / device:.2f} of the device' if device else ' ' * 18}"
        f"  {speed / limit:.2f} of the limit {limit:.1f} (at least {bar})"
        f"  CPU per page: main process {own:.1f} ms (at most 12), workers {workers:.1f} ms",
        flush=True,
    )


def measure_memory(counts: list[int]) -> None:
    """Print the peak memory of the main process for two numbers of pages."""
    peaks = []
    for pages in counts:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_documents(folder / "docs", pages, SHAPES["some"])
            write_documents(folder / "warm-up", WARM_UP_PAGES, None, first=100_000)
            figures = run_child("run", folder)
        peaks.append(figures["peak_mb"])
        print(f"{pages} pages: peak memory of the main process {figures['peak_mb']:.0f} MB", flush=True)
    print(f"ratio {peaks[-1] / peaks[0]:.2f} (at most 1.20)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rate", nargs="+", type=float, default=[10, 20, 50, 0], help="pages/s of one device; 0: free")
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--devices", type=int, default=1, help="also measure this number of devices, each in a process")
    parser.add_argument("--memory", nargs="*", type=int, metavar="PAGES", help="numbers of pages; default 200 2000")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        part, folder, index = options.child
        if part == "stages":
            figures = measure_stages(Path(folder), Path(index))
        else:
            figures = measure_run(Path(folder), Path(index), options.rate[0], options.devices)
        print(json.dumps(figures))
    elif options.memory is not None:
        measure_memory(options.memory or [200, 2000])
    else:
        for shape in options.shape:
            measure_shape(shape, options)


if __name__ == "__main__":
    main()
