"""Measure the check of the text layer on generated pages: 60 pages with a wrong text layer, and sound pages.

    python benchmarks/garbled.py
    python benchmarks/garbled.py --renderer pypdfium2

A wrong page is recognized if words of its text layer are replaced by OCR. The words that the page shows are compared
with the words after OCR, letters and digits only, each word as often as the page shows it; Chinese and Japanese pages
are compared by character. A sound page is a false alarm if a word was replaced or the page has a warning. The cost is
the CPU time of the search for suspect words on the sound pages, without rendering.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

from jina_rag import IngestSettings, load_pages
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.pdf import base
from jina_rag.parsing.sources import SourceFile
from jina_rag.types import Page

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.garbled_pages import GarbledPage, garbled_pages, sound_pages


def read_page(path: Path, content: bytes, renderer: str) -> Page:
    """Return the page of a PDF with the words of OCR."""
    path.write_bytes(content)
    settings = IngestSettings(renderer=renderer, regions=False, isolate=False)
    return next(iter(load_pages(path, settings=settings)))


def counts(texts: Iterable[str], *, by_character: bool) -> Counter[str]:
    """Return the number of each word, or of each character, without punctuation and case."""
    words = [re.sub(r"\W", "", text.casefold()) for text in texts]
    return Counter("".join(words) if by_character else filter(None, words))


def right_shares(expected: GarbledPage, page: Page) -> tuple[float, float]:
    """Return the share of right words, and the share among the words that the text layer has wrong."""
    by_character = expected.name.split()[1] in ("zh", "ja")
    shown, wrong = (counts(texts, by_character=by_character) for texts in (expected.words, expected.wrong))
    missing = shown - counts((word.text for word in page.words), by_character=by_character)
    return 1 - missing.total() / shown.total(), 1 - (missing & wrong).total() / wrong.total()


def cost_of_check(path: Path, content: bytes, renderer: str) -> float:
    """Return the CPU seconds of the search for suspect words of a page, the second time that the page is read."""
    path.write_bytes(content)
    seconds = 0.0
    find = base.PdfRenderer._suspects

    def timed(*arguments):
        nonlocal seconds
        start = time.process_time()
        suspects = find(*arguments)
        seconds = time.process_time() - start
        return suspects

    settings = IngestSettings(renderer=renderer, regions=False)
    with (
        mock.patch.object(base.PdfRenderer, "_suspects", timed),
        open_document(SourceFile(path, path.parent, path.name, "pdf"), settings) as document,
    ):
        document.render(1)
        document.render(1)
    return seconds


def measure(folder: Path, renderer: str) -> None:
    """Print the results of one renderer."""
    shares, recognized = [], 0
    for number, expected in enumerate(garbled_pages()):
        page = read_page(folder / f"wrong-{number}.pdf", expected.content, renderer)
        is_recognized = any(word.ocr for word in page.words)
        recognized += is_recognized
        shares.append(right_shares(expected, page))
        if not is_recognized or min(shares[-1]) < 0.9:
            print(f"  {expected.name}: right words {shares[-1][0]:.0%}, of the wrong ones {shares[-1][1]:.0%}")
    alarms, seconds = [], []
    for number, (name, content) in enumerate(sound_pages()):
        path = folder / f"sound-{number}.pdf"
        page = read_page(path, content, renderer)
        if page.warnings or any(word.ocr for word in page.words):
            alarms.append(name)
        seconds.append(cost_of_check(path, content, renderer))
    all_words, wrong_words = (sum(values) / len(shares) for values in zip(*shares, strict=True))
    print(f"{renderer}: {recognized} of {len(shares)} wrong pages recognized")
    print(f"  words right after OCR: {all_words:.1%}; of the wrong words: {wrong_words:.1%} (mean over the pages)")
    print(f"  false alarms: {len(alarms)} of {len(seconds)} sound pages {alarms or ''}")
    print(f"  check: {1000 * sum(seconds) / len(seconds):.2f} ms a page, mean over the sound pages")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--renderer", choices=("pymupdf", "pypdfium2"), help="PDF renderer (default: both)")
    renderers = [renderer] if (renderer := parser.parse_args().renderer) else ["pymupdf", "pypdfium2"]
    with tempfile.TemporaryDirectory() as folder:
        for renderer in renderers:
            measure(Path(folder), renderer)


if __name__ == "__main__":
    main()
