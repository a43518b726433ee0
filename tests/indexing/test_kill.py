"""A run killed at any moment, then the same command again: every page is there once, and nothing is left over."""

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
    done = subprocess.run(command(docs, index), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def contents(index: Path) -> tuple[Counter, set[str], set[str], int]:
    """Pages in the store, image files, images that the manifest knows, unfinished documents."""
    with DocumentIndex.open(index, create=False) as opened:
        handle = opened._session.resources
        assert opened.verify() == []
        pages = Counter((*hit.payload["doc_id"], hit.payload["page"]) for hit in handle.store.scroll())
        return pages, set(handle.images.names()), handle.manifest.images(), opened.info().pending


@pytest.fixture(scope="module")
def undisturbed(docs, tmp_path_factory):
    """What an undisturbed run leaves, and how long it takes."""
    index = tmp_path_factory.mktemp("undisturbed") / "kb"
    started = time.monotonic()
    report = run(docs, index)
    assert (report["documents"], report["pages"]) == (DOCUMENTS, DOCUMENTS * PAGES)
    return contents(index), time.monotonic() - started


def kill_when(process: subprocess.Popen, reached, timeout: float) -> bool:
    """Kill as soon as `reached` holds; False if the run ended before."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline and not reached():
        time.sleep(0.002)
    ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return not ended


def moments(index: Path, seed: int):
    """Moments by what lies on the disk, so that slow and quick machines are killed at the same ones."""
    rng = random.Random(seed)

    def images(least: int):
        return lambda: sum(1 for _ in (index / "images").rglob("*.jpg")) >= least

    yield (index / "manifest.sqlite3").exists
    yield images(1)
    for least in sorted(rng.sample(range(2, DOCUMENTS * PAGES), 2)):
        yield images(least)


def target(docs: Path, index: Path) -> list[str]:
    return [sys.executable, str(ROOT / "tests" / "helpers" / "kill_target.py"), str(docs), str(index)]


@pytest.fixture
def changing(tmp_path):
    """A folder whose documents have regions and copies, and change half-way; `change()` changes it."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for d in range(10):
        sample_pdf(folder / f"doc{d}.pdf", [f"document {d} page {p} " + f"word{d * 7 + p} " * 30 for p in range(7)])
    shutil.copy(folder / "doc1.pdf", folder / "copy.pdf")
    with pymupdf.open() as document:
        for n in range(4):
            page = document.new_page()
            for bar in range(8):
                page.draw_rect(pymupdf.Rect(80 + bar * 40, 500 - bar * n * 8 - 30, 110 + bar * 40, 500), fill=(0, 0, 1))
            page.insert_text((80, 530), f"Figure {n}: bars")
        document.save(folder / "charts.pdf")

    def change():
        for d in (2, 5, 6):
            sample_pdf(folder / f"doc{d}.pdf", [f"another {d} page {p} " + f"term{d * 9 + p} " * 30 for p in range(9)])
        (folder / "doc3.pdf").rename(folder / "moved.pdf")

    return folder, change


def everything(index: Path) -> tuple:
    """All that an index holds, to be compared: documents, points with their payloads, images."""
    with DocumentIndex.open(index, embedder=FakeEmbedder(), create=False) as opened:
        assert opened.verify() == []
        points = {hit.id: hit.payload for hit in opened._session.resources.store.scroll()}
        vectors = {
            point.id: point.multi.shape
            for point in opened._session.resources.store.fetch(list(points))
            if len(point.multi)
        }
        records = [(r.doc_id, r.path, r.sha256, r.pages, r.regions, r.is_complete) for r in opened.documents()]
        return records, points, vectors, set(opened._session.resources.images.names())


def test_killed_at_twenty_random_moments(changing, tmp_path):
    """Kills spread over first runs and runs after a change; what is left is what an undisturbed run leaves."""
    docs, change = changing
    rng = random.Random(20)
    index, killed = tmp_path / "kb", 0

    def images():
        return sum(1 for _ in (index / "images").rglob("*.jpg"))

    for attempt in range(20):
        if attempt == 12:
            subprocess.run(target(docs, index), check=True, capture_output=True, timeout=120)
            change()
        # Moments by what lies on the disk, and a little later: slow and quick machines are killed at the same ones.
        enough, later = images() + rng.randint(0, 3), rng.uniform(0, 0.15)
        process = subprocess.Popen(target(docs, index), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def reached(enough=enough, later=later):
            if images() < enough or not (index / "manifest.sqlite3").exists():
                return False
            time.sleep(later)
            return True

        killed += kill_when(process, reached, 60)
    assert killed >= 15, "the runs ended before they could be killed"
    subprocess.run(target(docs, index), check=True, capture_output=True, timeout=120)
    undisturbed = tmp_path / "undisturbed"
    subprocess.run(target(docs, undisturbed), check=True, capture_output=True, timeout=120)
    mine, theirs = everything(index), everything(undisturbed)
    for part, expected in zip(mine, theirs, strict=True):
        assert part == expected


def test_killed_again_and_again_then_run_to_the_end(docs, undisturbed, tmp_path):
    """One index survives all of the kills, the way a flaky machine would do it."""
    index = tmp_path / "kb"
    killed = 0
    for reached in moments(index, seed=7):
        process = subprocess.Popen(command(docs, index), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if reached():  # of an earlier round: let it work for a moment on top of that
            time.sleep(0.3)
        killed += kill_when(process, reached, 60)
    assert killed >= 3, "the runs ended before they could be killed"
    # Before the next run the index can be opened, and says what is unfinished.
    with DocumentIndex.open(index, create=False) as opened:
        assert opened.info().pending > 0
        opened.search("chapter")
    report = run(docs, index)
    assert report["failed"] == []
    assert report["documents"] + report["unchanged"] == DOCUMENTS
    assert contents(index) == undisturbed[0]
    with DocumentIndex.open(index, create=False) as opened:
        hits = opened.search("words of chapter", k=DOCUMENTS * PAGES + 5)
        assert Counter((hit.doc_id, hit.page) for hit in hits) == undisturbed[0][0]
        assert all(hit.image_path.is_file() for hit in hits)


@pytest.mark.parametrize("share", [0.8, 0.95])
def test_killed_late(share, docs, undisturbed, tmp_path):
    """Around the flush and the marking as done, where time is the only way to aim."""
    index = tmp_path / "kb"
    process = subprocess.Popen(command(docs, index), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + undisturbed[1] * share
    kill_when(process, lambda: time.monotonic() >= end, 60)
    run(docs, index)
    pages, images, known, pending = contents(index)
    assert pages == {(f"doc{d}.pdf", p): 1 for d in range(DOCUMENTS) for p in range(1, PAGES + 1)}
    assert images == known
    assert pending == 0
    assert (pages, images, known, pending) == undisturbed[0]
