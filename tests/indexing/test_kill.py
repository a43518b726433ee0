"""Ingestion after SIGKILL: the next run stores every page once and deletes incomplete entries."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pymupdf
import pytest
from helpers.paths import ROOT
from helpers.portfolios import portfolio

from jina_rag import DocumentIndex
from jina_rag.testing import FakeEmbedder, sample_pdf

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")

DOCUMENTS, PAGES = 8, 3


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    for d in range(DOCUMENTS):
        texts = [f"document {d} page {p}: " + f"words of chapter {d * PAGES + p} " * 3 for p in range(1, PAGES + 1)]
        sample_pdf(folder / f"doc{d}.pdf", texts)
    return folder


def command(docs: Path, index: Path) -> list[str]:
    return [
        sys.executable, "-m", "jina_rag", "ingest", str(docs), "--index", str(index), "--ocr", "never", "--json",
    ]  # fmt: skip


def run(docs: Path, index: Path) -> dict:
    process = subprocess.run(command(docs, index), capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def page_state(index: Path) -> tuple[Counter, set[str], set[str], int]:
    """Return (pages in the store, image files, images in the manifest, number of pending documents)."""
    with DocumentIndex.open(index, create=False) as document_index:
        handle = document_index._session.resources
        assert document_index.verify() == []
        pages = Counter((*hit.payload["doc_id"], hit.payload["page"]) for hit in handle.store.scroll())
        return pages, set(handle.images.names()), handle.manifest.images(), document_index.info().pending


@pytest.fixture(scope="module")
def uninterrupted_run(docs, tmp_path_factory):
    """Return (state of the index after an uninterrupted run, duration of the run in seconds)."""
    index = tmp_path_factory.mktemp("undisturbed") / "kb"
    start_time = time.monotonic()
    report = run(docs, index)
    assert (report["documents"], report["pages"]) == (DOCUMENTS, DOCUMENTS * PAGES)
    return page_state(index), time.monotonic() - start_time


def kill_when(process: subprocess.Popen, condition, timeout: float) -> bool:
    """Kill the process as soon as `condition` returns True; return False if the process ended before."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline and not condition():
        time.sleep(0.002)
    ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return not ended


def kill_conditions(index: Path, seed: int):
    """Yield conditions that depend on the files on disk, so that fast and slow runs are killed at the same point."""
    rng = random.Random(seed)

    def images(minimum: int):
        return lambda: sum(1 for _ in (index / "images").rglob("*.jpg")) >= minimum

    yield (index / "manifest.sqlite3").exists
    yield images(1)
    for minimum in sorted(rng.sample(range(2, DOCUMENTS * PAGES), 2)):
        yield images(minimum)


def target_command(docs: Path, index: Path) -> list[str]:
    return [sys.executable, str(ROOT / "tests" / "helpers" / "kill_target.py"), str(docs), str(index)]


@pytest.fixture
def changing_docs(tmp_path):
    """Return a folder with regions and copies, and a function that changes, renames and replaces files."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for d in range(8):
        sample_pdf(folder / f"doc{d}.pdf", [f"document {d} page {p} " + f"word{d * 7 + p} " * 30 for p in range(7)])
    shutil.copy(folder / "doc1.pdf", folder / "copy.pdf")
    with pymupdf.open() as document:
        for n in range(4):
            page = document.new_page()
            for bar in range(8):
                page.draw_rect(pymupdf.Rect(80 + bar * 40, 500 - bar * n * 8 - 30, 110 + bar * 40, 500), fill=(0, 0, 1))
            page.insert_text((80, 530), f"Figure {n}: bars")
        document.save(folder / "charts.pdf")

    def write_portfolio(numbers):
        attachments = []
        for n in numbers:
            path = sample_pdf(
                tmp_path / "attached.pdf", [f"attached {n} page {p} " + f"text{n * 4 + p} " * 30 for p in range(4)]
            )
            attachments.append((f"{n}.pdf", path.read_bytes()))
        portfolio(folder / "bundle.pdf", attachments, text=f"Cover of {len(attachments)}")

    write_portfolio(range(3))

    def change():
        write_portfolio((0, 2, 5))
        for d in (2, 5, 6):
            sample_pdf(folder / f"doc{d}.pdf", [f"another {d} page {p} " + f"term{d * 9 + p} " * 30 for p in range(9)])
        (folder / "doc3.pdf").rename(folder / "moved.pdf")

    return folder, change


def index_state(index: Path) -> tuple:
    """Return (documents, points, vector shapes, image names) of an index, for comparison."""
    with DocumentIndex.open(index, embedder=FakeEmbedder(), create=False) as document_index:
        assert document_index.verify() == []
        points = {hit.id: hit.payload for hit in document_index._session.resources.store.scroll()}
        vectors = {
            point.id: point.multi.shape
            for point in document_index._session.resources.store.fetch(list(points))
            if len(point.multi)
        }
        records = [(r.doc_id, r.path, r.sha256, r.pages, r.regions, r.is_complete) for r in document_index.documents()]
        return records, points, vectors, set(document_index._session.resources.images.names())


def test_runs_killed_at_twenty_random_moments_leave_the_same_index(changing_docs, tmp_path):
    """First runs and runs after a change are killed. The final index equals the index of an uninterrupted run."""
    docs, change = changing_docs
    rng = random.Random(20)
    index, kill_count = tmp_path / "kb", 0

    def images():
        return sum(1 for _ in (index / "images").rglob("*.jpg"))

    for attempt in range(20):
        if attempt == 12:
            subprocess.run(target_command(docs, index), check=True, capture_output=True, timeout=120)
            change()
        # Wait for a number of images and a delay, so that runs on fast and slow machines are killed at similar points.
        image_count, delay = images() + rng.randint(0, 3), rng.uniform(0, 0.15)
        process = subprocess.Popen(target_command(docs, index), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def condition(image_count=image_count, delay=delay):
            if images() < image_count or not (index / "manifest.sqlite3").exists():
                return False
            time.sleep(delay)
            return True

        kill_count += kill_when(process, condition, 60)
    assert kill_count >= 15, "the runs ended before they could be killed"
    subprocess.run(target_command(docs, index), check=True, capture_output=True, timeout=120)
    uninterrupted_run = tmp_path / "undisturbed"
    subprocess.run(target_command(docs, uninterrupted_run), check=True, capture_output=True, timeout=120)
    actual, expected_state = index_state(index), index_state(uninterrupted_run)
    for part, expected in zip(actual, expected_state, strict=True):
        assert part == expected


def test_run_after_repeated_kills_completes_the_index(docs, uninterrupted_run, tmp_path):
    """All killed runs and the final run write to the same index."""
    index = tmp_path / "kb"
    kill_count = 0
    for condition in kill_conditions(index, seed=7):
        process = subprocess.Popen(command(docs, index), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if condition():  # the condition is already true after an earlier kill, so wait for progress of the run
            time.sleep(0.3)
        kill_count += kill_when(process, condition, 60)
    assert kill_count >= 3, "the runs ended before they could be killed"
    # The killed index can be opened, searched, and reports pending documents.
    with DocumentIndex.open(index, create=False) as document_index:
        assert document_index.info().pending > 0
        document_index.search("chapter")
    report = run(docs, index)
    assert report["failed"] == []
    assert report["documents"] + report["unchanged"] == DOCUMENTS
    assert page_state(index) == uninterrupted_run[0]
    with DocumentIndex.open(index, create=False) as document_index:
        hits = document_index.search("words of chapter", k=DOCUMENTS * PAGES + 5)
        assert Counter((hit.doc_id, hit.page) for hit in hits) == uninterrupted_run[0][0]
        assert all(hit.image_path.is_file() for hit in hits)


@pytest.mark.parametrize("fraction", [0.8, 0.95])
def test_run_killed_near_its_end_is_completed_by_the_next_run(fraction, docs, uninterrupted_run, tmp_path):
    """The moment of the kill is selected by elapsed time, because no file marks the end of a run."""
    index = tmp_path / "kb"
    process = subprocess.Popen(command(docs, index), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + uninterrupted_run[1] * fraction
    kill_when(process, lambda: time.monotonic() >= end, 60)
    run(docs, index)
    pages, images, manifest_images, pending = page_state(index)
    assert pages == {(f"doc{d}.pdf", p): 1 for d in range(DOCUMENTS) for p in range(1, PAGES + 1)}
    assert images == manifest_images
    assert pending == 0
    assert (pages, images, manifest_images, pending) == uninterrupted_run[0]
