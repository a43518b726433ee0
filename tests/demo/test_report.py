"""Demo: the HTML report is self-contained, small, and escapes text from documents."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jina_rag.demo.images import around, inline_image
from jina_rag.demo.report import (
    ReportHit,
    ReportQuery,
    ReportSummary,
    count,
    duration,
    render_report,
    web_address,
)
from jina_rag.demo.samples import SampleDocument
from jina_rag.index.document_index import IndexInfo
from jina_rag.types import Failure, IngestReport, Region, ScoredPage

EVIL = "\"><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>.pdf"


class Page(HTMLParser):
    """Parsed HTML of a report."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags[-1:] != [("style", {})]:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def jpeg(width: int, height: int, *, noise: bool = False) -> bytes:
    if noise:
        pixels = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
    else:
        image = Image.new("RGB", (width, height), "white")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG" if not noise else "JPEG", quality=95)
    return buffer.getvalue()


def hit(rank: int, image: bytes, focus=None, **fields) -> ReportHit:
    values = {"doc_id": "report.pdf", "page": 2, "page_count": 7, "score": 0.876, "snippet": "some words"}
    return ReportHit(rank, ScoredPage(path=Path("report.pdf"), **{**values, **fields}), image, focus)


def summary(*, pages=36, failed=(), modality="text", sources=(), **fields) -> ReportSummary:
    values = {"location": "kb", "documents": 10, "pages": 36, "regions": 40, "pending": 0, "embedder": "lite"}
    values |= {"fingerprint": "lite@1", "version": "0.0", "storage": "exact"}
    ingest = IngestReport(pages=pages, failed=failed, seconds=71.0)
    return ReportSummary(IndexInfo(**values | fields), ingest, modality, sources)


def test_report_contains_queries_and_hits():
    region = Region("table", (0.1, 0.4, 0.9, 0.6))
    query = ReportQuery(
        "What does it cost?",
        "table",
        0.031,
        (hit(1, jpeg(400, 500), region=region), hit(2, jpeg(300, 400), doc_id="other.png", page_count=1)),
        note="A note.",
    )
    page = Page(render_report((query,), summary()))
    text = " ".join(page.text.split())
    assert "Search results for 1 query" in text
    for expected in (
        "What does it cost?",
        "31 ms",
        "report.pdf",
        "page 2 of 7",
        "score 0.876",
        "table framed",
    ):
        assert expected in text
    assert "A note." in text
    assert "other.png" in text
    assert len(page.all("img")) == 3  # two pages and the close-up of the table
    assert text.count(" framed") == 1


def test_report_renders_without_hits_or_regions():
    empty = ReportQuery("Nothing?", "text", 2.5, ())
    bare = ReportQuery("Bare?", "text", 75.0, (hit(1, jpeg(60, 40), snippet="", page_count=0),))
    text = " ".join(Page(render_report((empty, bare), summary(pages=0, modality="image"))).text.split())
    assert "No hits." in text
    assert "1 min 15 s" in text
    assert "to check for changes" in text
    assert "page 2 score" in text
    assert "A vision model encodes the screenshot" in text
    assert "not pixels" not in text


def test_hostile_names_are_escaped():
    failure = Failure(Path(EVIL), EVIL, page=3)
    source = SampleDocument(EVIL, EVIL, 1, EVIL, EVIL, url="javascript:alert(1)")
    region = Region("chart", (0, 0, 1, 0.3), caption=EVIL)
    query = ReportQuery(EVIL, EVIL, 0.1, (hit(1, jpeg(50, 70), doc_id=EVIL, snippet=EVIL, region=region),), EVIL)
    html = render_report((query,), summary(sources=(source,), failed=(failure,), embedder=EVIL))
    page = Page(html)
    assert not page.all("script")
    assert "<script" not in html
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert all((attrs["src"] or "").startswith("data:image/jpeg;base64,") for attrs in page.all("img"))
    assert all((attrs.get("href") or "").startswith("#") for attrs in page.all("a"))
    assert EVIL in page.text


def test_report_is_self_contained():
    source = SampleDocument("a.pdf", "A", 1, "MIT", "someone", url="https://example.org/a")
    query = ReportQuery("Which?", "text", 0.1, (hit(1, jpeg(50, 70)),))
    html = render_report((query,), summary(sources=(source,)))
    page = Page(html)
    policy = [attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for tag in ("script", "link", "iframe", "object", "embed", "video", "audio", "base", "form"):
        assert not page.all(tag)
    assert not re.search(r"url\(|@import", html)
    assert {attrs["href"] for attrs in page.all("a")} == {"#q1", "https://example.org/a"}


def test_fifteen_noise_images_stay_below_three_megabytes():
    image = jpeg(1275, 1650, noise=True)
    hits = tuple(hit(rank, image, focus=(0.4, 0.4, 0.5, 0.45)) for rank in (1, 2, 3))
    queries = tuple(ReportQuery(f"Question {n}?", "text", 0.1, hits) for n in range(5))
    html = render_report(queries, summary())
    assert len(Page(html).all("img")) == 20
    assert len(html.encode()) < 3_000_000


def test_images_are_scaled_down_but_not_up():
    small = inline_image(jpeg(300, 200), max_width=900, max_bytes=100_000)
    assert (small.width, small.height) == (300, 200)
    large = inline_image(jpeg(1800, 1000), max_width=900, max_bytes=100_000)
    assert (large.width, large.height) == (900, 500)
    tall = inline_image(jpeg(400, 4000), max_width=200, max_bytes=100_000)
    assert tall.height == 320


def test_crop_contains_the_box():
    image = Image.new("RGB", (200, 100), "white")
    image.paste("black", (100, 50, 200, 100))
    output = inline_image(image, max_width=500, max_bytes=100_000, crop=(0.5, 0.5, 1.0, 1.0))
    content = base64.b64decode(output.uri.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    assert pixels.shape == (50, 100, 3)
    assert pixels.max() < 10
    tiny = inline_image(image, max_width=500, max_bytes=100_000, crop=(1.0, 1.0, 1.0, 1.0))
    assert (tiny.width, tiny.height) == (1, 1)


@pytest.mark.parametrize("box", [(0, 0, 0.01, 0.01), (0.99, 0.99, 1, 1), (0.4, 0.5, 0.5, 0.6), (0, 0, 1, 1)])
def test_enlarged_box_contains_the_box_and_stays_on_the_page(box):
    x0, y0, x1, y1 = around(box)
    assert 0 <= x0 <= box[0]
    assert 0 <= y0 <= box[1]
    assert box[2] <= x1 <= 1 + 1e-9
    assert box[3] <= y1 <= 1 + 1e-9
    assert x1 - x0 >= 0.7 - 1e-9


def test_page_sized_region_has_no_close_up():
    query = ReportQuery("Q?", "chart", 0.1, (hit(1, jpeg(50, 70), region=Region("chart", (0, 0, 1, 1))),))
    assert len(Page(render_report((query,), summary())).all("img")) == 1


def test_numbers_have_nouns_and_units():
    assert duration(0.0001) == "1 ms"
    assert duration(12.34) == "12.3 s"
    assert count(1, "page") == "1 page"
    assert count(2000, "page") == "2,000 pages"
    assert count(2, "box", "boxes") == "2 boxes"


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "https:", "", None]
)
def test_only_web_urls_become_links(address):
    assert web_address(address) is None


def test_web_url_becomes_a_link():
    assert web_address("https://example.org/x?y=1") == "https://example.org/x?y=1"
