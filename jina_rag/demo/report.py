"""A report that anyone can open: questions, the pages that answer them, and where on the page.

One HTML file with everything in it: pictures as data URIs, styles inline, no script, nothing fetched. What
comes from documents (names, snippets) is escaped, and a policy in the page itself forbids any request.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from urllib.parse import urlsplit

from jina_rag._version import __version__
from jina_rag.demo.images import InlineImage, around, inline_image
from jina_rag.demo.samples import SampleDocument
from jina_rag.index.document_index import IndexInfo
from jina_rag.types import Box, IngestReport, ScoredPage

_BEST = (900, 150_000)
_CLOSE_UP = (720, 80_000)
_OTHER = (500, 55_000)
"""Widths in pixels and bytes that fifteen pages and five close-ups can take within 3 MB of HTML."""


@dataclass(frozen=True, slots=True)
class ReportHit:
    """A page found for a question.

    Attributes:
        rank: 1 for the best.
        hit: The page; its region is framed.
        image: The page as PNG or JPEG, heat map and frame already drawn.
        focus: The place to show enlarged, with some of the page around it; the region if None.
    """

    rank: int
    hit: ScoredPage
    image: bytes
    focus: Box | None = None


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """A question and the pages found for it, best first.

    Attributes:
        query: As it was asked.
        kind: Where its answer stands (text, table, chart, scan, code), or any other short word.
        seconds: What the search took.
        hits: The pages.
        note: What is special about it; may be empty.
    """

    query: str
    kind: str
    seconds: float
    hits: tuple[ReportHit, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What was indexed, and how.

    Attributes:
        index: What the index holds.
        ingest: What this run's ingestion did.
        modality: ``"text"`` or ``"image"``: what the model looks at.
        sources: The documents, whose they are, and under which licence they are shown.
    """

    index: IndexInfo
    ingest: IngestReport
    modality: str
    sources: tuple[SampleDocument, ...] = ()


@dataclass(frozen=True, slots=True)
class _Card:
    """A hit as the template draws it."""

    rank: int
    hit: ScoredPage
    image: InlineImage
    close_up: InlineImage | None


def render_report(queries: tuple[ReportQuery, ...], summary: ReportSummary) -> str:
    """The report as one HTML text.

    Args:
        queries: In the order to show them.
        summary: What was indexed.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": duration, "count": count, "web_address": web_address}
    text = importlib.resources.files("jina_rag.demo").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        answers=[(query, [_card(hit) for hit in query.hits]) for query in queries], summary=summary, version=__version__
    )


def duration(seconds: float) -> str:
    """Seconds in the unit a person would choose."""
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number and its noun: ``1 page``, ``2 pages``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def web_address(text: str | None) -> str | None:
    """The address if it is one that a link may point to (http or https); None otherwise."""
    if not text:
        return None
    parts = urlsplit(text)
    return text if parts.scheme in {"http", "https"} and parts.netloc else None


def _card(hit: ReportHit) -> _Card:
    """Scale the pictures of one hit: the best page is shown large, with its best part enlarged."""
    width, weight = _BEST if hit.rank == 1 else _OTHER
    detail = _detail(hit) if hit.rank == 1 else None
    close_up = detail and inline_image(hit.image, max_width=_CLOSE_UP[0], max_bytes=_CLOSE_UP[1], crop=detail)
    return _Card(hit.rank, hit.hit, inline_image(hit.image, max_width=width, max_bytes=weight), close_up)


def _detail(hit: ReportHit) -> Box | None:
    """What to enlarge: the focus and its surroundings, or the region; nothing if that is most of the page."""
    if hit.focus is not None:
        box = around(hit.focus)
    elif hit.hit.region is not None:
        box = around(hit.hit.region.box, width=0.35, height=0.1)
    else:
        return None
    return box if (box[2] - box[0]) * (box[3] - box[1]) < 0.6 else None
