"""``pages.html``: all pages of a folder, small, each with the doc and page to write into the sheet of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from jina_rag.evaluation.files import write_text

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Pages to judge</title><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}
h2{font-size:1.1rem;margin:2rem 0 .5rem;border-top:1px solid #ccc;padding-top:1rem;overflow-wrap:anywhere}
section{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0;width:220px}
img,.none{width:100%;border:1px solid #ccc;box-sizing:border-box}
.none{padding:3rem 1rem;color:#666}
figcaption{font-size:.85rem;overflow-wrap:anywhere}
code{user-select:all}
</style></head><body><h1>Pages to judge</h1>
<p>Look at a page, think of a question that it answers, and write the question with the page's doc and page number on a
row of queries.csv. Click on a page to see it larger. Use words of your own: what is copied is found by any search.
Look at the neighbouring pages, too: if one answers as well, it gets a row.</p>
<ul>
"""


@dataclass(frozen=True, slots=True)
class ContactSheetDocument:
    """A document and its pages.

    Attributes:
        doc: What judgements call it.
        images: A picture for each page, as a path relative to the sheet; None for a page that cannot be shown.
    """

    doc: str
    images: tuple[str | None, ...]


def write_contact_sheet(path: Path, documents: Sequence[ContactSheetDocument]) -> None:
    """Write the sheet. It has no script, and fetches nothing but the pictures beside it.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    parts = [_HEAD]
    for number, document in enumerate(documents):
        parts.append(f'<li><a href="#d{number}">{escape(document.doc)}</a>, {len(document.images)} p.</li>\n')
    parts.append("</ul>\n")
    for number, document in enumerate(documents):
        parts.append(f'<h2 id="d{number}">{escape(document.doc)}</h2>\n<section>\n')
        parts += [_figure(document.doc, page, image) for page, image in enumerate(document.images, start=1)]
        parts.append("</section>\n")
    parts.append("</body></html>\n")
    write_text(path, "".join(parts), what="sheet of pages")


def _figure(doc: str, page: int, image: str | None) -> str:
    caption = f"<figcaption>doc <code>{escape(doc)}</code> page <code>{page}</code></figcaption>"
    if image is None:
        return f'<figure><div class="none">This page cannot be shown.</div>{caption}</figure>\n'
    address = escape(quote(image))
    return (
        f'<figure><a href="{address}"><img src="{address}" loading="lazy" alt="{escape(doc)}, page {page}"></a>'
        f"{caption}</figure>\n"
    )
