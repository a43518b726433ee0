"""The HTML report of the demo: queries, their hits, and the matching regions of each page.

The report is one self-contained file: images are data URIs, styles are inline, and scripts are absent. File names and
snippets are escaped, and a content security policy blocks all requests.
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
"""(maximum width in pixels, maximum bytes) of each image, so that 15 pages and 5 close-ups fit into 3 MB of HTML."""


@dataclass(frozen=True, slots=True)
class ReportHit:
    """One hit of a query.

    Attributes:
        rank: Rank of the hit, from 1.
        hit: The page, with the best-matching region if any.
        image: PNG or JPEG file content of the page image, with heat map and region frame.
        focus: Box to enlarge, as fractions of the page; None for the box of the region.
    """

    rank: int
    hit: ScoredPage
    image: bytes
    focus: Box | None = None


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """One query and its hits.

    Attributes:
        query: The query text.
        kind: Label of the query, for example "text", "table", "chart", "scan" or "code".
        seconds: Wall time of the search in seconds.
        hits: The hits in rank order.
        note: Remark shown below the query; may be empty.
    """

    query: str
    kind: str
    seconds: float
    hits: tuple[ReportHit, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """Summary of the index and its documents.

    Attributes:
        index: Contents and size of the index.
        ingest: Report of the ingestion of this run.
        modality: Input of the model: ``"text"`` or ``"image"``.
        sources: The documents with their sources and licenses.
    """

    index: IndexInfo
    ingest: IngestReport
    modality: str
    sources: tuple[SampleDocument, ...] = ()


@dataclass(frozen=True, slots=True)
class _Card:
    """A hit with its images, scaled for the template."""

    rank: int
    hit: ScoredPage
    image: InlineImage
    close_up: InlineImage | None


def render_report(queries: tuple[ReportQuery, ...], summary: ReportSummary) -> str:
    """Return the report as HTML.

    Args:
        queries: The queries and their hits, in display order.
        summary: Summary of the index.
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
    """Format seconds as ms, s or min.

    Args:
        seconds: Duration in seconds.
    """
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 page``, ``2 pages``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def web_address(text: str | None) -> str | None:
    """Return `text` if it is an http or https URL, None otherwise."""
    if not text:
        return None
    parts = urlsplit(text)
    return text if parts.scheme in {"http", "https"} and parts.netloc else None


def _card(hit: ReportHit) -> _Card:
    """Scale the images of a hit. The hit of rank 1 gets a larger image and a close-up."""
    width, max_bytes = _BEST if hit.rank == 1 else _OTHER
    detail = _detail(hit) if hit.rank == 1 else None
    close_up = detail and inline_image(hit.image, max_width=_CLOSE_UP[0], max_bytes=_CLOSE_UP[1], crop=detail)
    return _Card(hit.rank, hit.hit, inline_image(hit.image, max_width=width, max_bytes=max_bytes), close_up)


def _detail(hit: ReportHit) -> Box | None:
    """Return the box to enlarge around the focus or the region; None if the box covers most of the page."""
    if hit.focus is not None:
        box = around(hit.focus)
    elif hit.hit.region is not None:
        box = around(hit.hit.region.box, width=0.35, height=0.1)
    else:
        return None
    return box if (box[2] - box[0]) * (box[3] - box[1]) < 0.6 else None
