"""Page stream: order, page failures, OCR words, bounded look-ahead, and shutdown of the threads."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import replace

import pymupdf
import pytest
from PIL import Image

from jina_rag import config
from jina_rag.config import IngestSettings, Limits, usable_cpus
from jina_rag.errors import CheckpointError, DocumentError, InvalidInputError
from jina_rag.parsing import pages
from jina_rag.parsing.pages import DocumentEnd, DocumentStart, areas_to_read, read_pages
from jina_rag.parsing.pdf.pymupdf_renderer import PyMuPdfRenderer
from jina_rag.parsing.sources import SourceFile
from jina_rag.types import Failure, Page, PageScreenshot, Word

FAST = IngestSettings(dpi=40, ocr="never", isolate=False)


@pytest.fixture(autouse=True)
def _check_thread_leaks():
    earlier_threads = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while _new_threads(earlier_threads) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _new_threads(earlier_threads) == set()


def _new_threads(earlier_threads):
    """Return the threads started since `earlier_threads`, except the timer of idle workers."""
    return {thread for thread in set(threading.enumerate()) - earlier_threads if thread.name != "jina-rag-idle"}


def write_pdf(path, texts):
    with pymupdf.open() as document:
        for text in texts:
            document.new_page(width=300, height=200).insert_text((20, 40), text, fontsize=14)
        document.save(path)
    return SourceFile(path, path.parent, path.name, "pdf")


def summarize(events):
    summaries = []
    for event in events:
        match event:
            case DocumentStart():
                summaries.append(f"start {event.source.doc_id} {event.count}")
            case Page():
                summaries.append(f"{event.doc_id} {event.number}/{event.count} {event.text}")
            case Failure():
                summaries.append(f"failure {event.page}")
            case DocumentEnd():
                summaries.append(f"end {event.pages} {event.failed}")
    return summaries


def test_stream_keeps_order_of_documents_and_pages(tmp_path):
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.4 nothing")
    sources = [
        write_pdf(tmp_path / "a.pdf", ["one", "two"]),
        SourceFile(broken, tmp_path, "broken.pdf", "pdf"),
        write_pdf(tmp_path / "b.pdf", ["three"]),
    ]
    expected = ["start a.pdf 2", "a.pdf 1/2 one", "a.pdf 2/2 two", "end 2 0", "failure None"]
    expected += ["start b.pdf 1", "b.pdf 1/1 three", "end 1 0"]
    assert summarize(read_pages(sources, FAST)) == expected


def test_skip_pages_are_not_rendered(tmp_path):
    source = write_pdf(tmp_path / "a.pdf", ["one", "two", "three"])
    source = SourceFile(source.path, source.root, source.doc_id, source.kind, skip_pages=frozenset({2}))
    assert summarize(read_pages([source], FAST)) == [
        "start a.pdf 3",
        "a.pdf 1/3 one",
        "a.pdf 3/3 three",
        "end 2 0",
    ]


def test_failed_page_keeps_numbers_of_other_pages(tmp_path, monkeypatch):
    render = PyMuPdfRenderer.render_with_images

    def fail(self, number):
        if number == 2:
            raise DocumentError("The page is damaged.")
        return render(self, number)

    monkeypatch.setattr(PyMuPdfRenderer, "render_with_images", fail)
    settings = replace(FAST, renderer="pymupdf")
    events = list(read_pages([write_pdf(tmp_path / "a.pdf", ["one", "two", "three"])], settings))
    assert summarize(events) == ["start a.pdf 3", "a.pdf 1/3 one", "failure 2", "a.pdf 3/3 three", "end 2 1"]
    assert events[2].reason.startswith("The page is damaged.")


def test_closing_stream_stops_all_threads(tmp_path):
    source = write_pdf(tmp_path / "a.pdf", [f"page {n}" for n in range(60)])
    source_requests = []

    def endless():
        while True:
            source_requests.append(1)
            yield source

    with closing(read_pages(endless(), IngestSettings(dpi=40, ocr="always", workers=2, isolate=False))) as events:
        for event in events:
            if isinstance(event, Page):
                break
    assert len(source_requests) == 1  # the autouse fixture checks for leaked threads


def test_look_ahead_bounds_rendered_pages(tmp_path, monkeypatch):
    rendered_numbers = []
    render = PyMuPdfRenderer.render_with_images
    monkeypatch.setattr(
        PyMuPdfRenderer, "render_with_images", lambda self, n: (rendered_numbers.append(n), render(self, n))[1]
    )
    source = write_pdf(tmp_path / "a.pdf", ["x"] * 30)
    with closing(read_pages([source], IngestSettings(dpi=40, ocr="never", look_ahead=3, isolate=False))) as events:
        next(events)
        page_count = 0
        for _ in range(5):
            next(events)
            page_count += 1
            time.sleep(0.15)
            assert len(rendered_numbers) <= page_count + 4  # three pages in the queue and one in the rendering thread


def test_parallel_ocr_keeps_page_order(tmp_path, monkeypatch):
    barrier = threading.Barrier(2, timeout=20)

    def read(image, areas, **options):
        barrier.wait()
        return [Word(f"read{image.width}", (0, 0, 1, 1), ocr=True)]

    monkeypatch.setattr(pages, "read_areas", read)
    for number, width in enumerate((30, 40, 50, 60)):
        Image.new("RGB", (width, 20), "white").save(tmp_path / f"{number}.png")
    sources = [SourceFile(path, tmp_path, path.name, "image") for path in sorted(tmp_path.glob("*.png"))]
    settings = IngestSettings(workers=2, isolate=False)
    summaries = [event.text for event in read_pages(sources, settings) if isinstance(event, Page)]
    assert summaries == ["read30", "read40", "read50", "read60"]


def test_ocr_words_follow_text_layer_words(tmp_path):
    with pymupdf.open() as document:
        page = document.new_page(width=400, height=300)
        page.insert_text((30, 40), "Layer text", fontsize=16)
        with pymupdf.open() as other:
            other.new_page(width=300, height=60).insert_text((10, 35), "Pixels only", fontsize=24)
            page.insert_image((30, 150, 330, 210), pixmap=other[0].get_pixmap(dpi=150))
        document.save(tmp_path / "a.pdf")
    source = SourceFile(tmp_path / "a.pdf", tmp_path, "a.pdf", "pdf")
    (page,) = [event for event in read_pages([source]) if isinstance(event, Page)]
    assert page.text == "Layer text Pixels only"
    assert [word.ocr for word in page.words] == [False, False, True, True]
    box = page.words[2].box
    assert box[0] == pytest.approx(40 / 400, abs=0.03)
    assert box[1] == pytest.approx(165 / 300, abs=0.05)
    settings = IngestSettings(ocr="never", isolate=False)
    (page,) = [event for event in read_pages([source], settings) if isinstance(event, Page)]
    assert page.text == "Layer text"


def test_ocr_failure_keeps_page_with_warning(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pages, "read_areas", fail)
    source = write_pdf(tmp_path / "a.pdf", ["few words"])
    (page,) = [event for event in read_pages([source]) if isinstance(event, Page)]
    assert page.text == "few words"
    assert "out of memory" in page.warnings[0]


def test_errors_affecting_all_pages_are_raised(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise CheckpointError("damaged weights")

    monkeypatch.setattr(pages, "read_areas", fail)
    with pytest.raises(CheckpointError, match="damaged weights"):
        list(read_pages([write_pdf(tmp_path / "a.pdf", ["few words"])]))

    def sources():
        yield write_pdf(tmp_path / "b.pdf", ["one"])
        raise InvalidInputError("the walk failed")

    with pytest.raises(InvalidInputError, match="the walk failed"):
        list(read_pages(sources(), FAST))


def page_with_words(words=0):
    image = Image.new("RGB", (10, 10))
    word = Word("w", (0.0, 0.0, 0.1, 0.1))
    return Page("a", None, 1, 1, PageScreenshot(image, 72), words=(word,) * words)


@pytest.mark.parametrize(
    ("words", "images", "settings", "expected"),
    [
        (24, [], IngestSettings(), [(0.0, 0.0, 1.0, 1.0)]),
        (25, [], IngestSettings(), []),
        (25, [(0.0, 0.0, 0.3, 0.3)], IngestSettings(), []),
        (25, [(0.0, 0.0, 0.4, 0.4)], IngestSettings(), [(0.0, 0.0, 0.4, 0.4)]),
        (25, [(0.0, 0.0, 0.4, 0.4), (0.9, 0.9, 0.95, 0.95)], IngestSettings(), [(0.0, 0.0, 0.4, 0.4)]),
        (25, [(0.0, 0.0, 0.4, 0.4), (0.3, 0.3, 0.5, 0.4)], IngestSettings(), [(0.0, 0.0, 0.5, 0.4)]),
        (25, [(0.0, 0.0, 0.9, 0.9)], IngestSettings(), [(0.0, 0.0, 1.0, 1.0)]),
        (25, [(0.0, 0.0, 0.9, 0.9)], IngestSettings(ocr="never"), []),
        (0, [], IngestSettings(ocr="never"), []),
        (99, [], IngestSettings(ocr="always"), [(0.0, 0.0, 1.0, 1.0)]),
        (3, [], IngestSettings(ocr_min_words=3), []),
        (25, [(0.0, 0.0, 0.3, 0.3)], IngestSettings(ocr_image_share=0.05), [(0.0, 0.0, 0.3, 0.3)]),
    ],
)
def test_areas_to_read_by_settings(words, images, settings, expected):
    assert areas_to_read(page_with_words(words), images, settings) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"dpi": 0},
        {"dpi": 10_000},
        {"ocr": "sometimes"},
        {"ocr_image_share": 2},
        {"ocr_min_words": -1},
        {"jpeg_quality": 100},
        {"passwords": "secret"},
        {"workers": 0},
        {"look_ahead": 0},
        {"max_image_side": 0},
    ],
)
def test_invalid_settings_raise_invalid_input_error(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        IngestSettings(**options)


def test_invalid_limits_raise_invalid_input_error():
    with pytest.raises(InvalidInputError, match=r"Limits.max_pages"):
        Limits(max_pages=0)
    with pytest.raises(InvalidInputError, match=r"Limits.max_seconds is .* from 1 to 86,400"):
        Limits(max_seconds=10**20)
    assert IngestSettings(workers=3).ocr_threads == 3
    assert IngestSettings().ocr_threads == usable_cpus() >= 1


@pytest.mark.parametrize(
    ("cpus", "gibibytes", "processes"), [(1, 8, 1), (2, 8, 2), (12, 64, 12), (64, 256, 16), (16, 4, 4), (8, 0, 1)]
)
def test_number_of_processes_depends_on_cpus_and_memory(monkeypatch, cpus, gibibytes, processes):
    monkeypatch.setattr(config, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(config, "usable_memory", lambda: gibibytes * 2**30)
    assert IngestSettings().render_processes == processes
    assert IngestSettings(processes=20).render_processes == 20


def test_memory_limit_of_a_container_is_considered(monkeypatch, tmp_path):
    assert config.usable_memory() >= 2**27
    limits = (tmp_path / "memory.max", tmp_path / "missing")
    monkeypatch.setattr(config, "_MEMORY_LIMITS", limits)
    limits[0].write_text("134217728\n")
    assert config.usable_memory() == 134217728
    limits[0].write_text("max\n")
    assert config.usable_memory() > 134217728
