"""Measure how many words of long screenshots OCR reads: as an image file, as a page of a PDF, and in short pieces.

    python benchmarks/tall_images.py
    python benchmarks/tall_images.py --size 1920 9000 --font 16 --spacing 28
    python benchmarks/tall_images.py --size 16000 1080

The text is generated. Each line starts with its number, so that a line in the overlap of two pages counts once. The
pieces are images of at most 3,000 pixels of the same text, without a line across two pieces.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jina_rag import load_pages
from jina_rag.types import Page

WORDS = (
    "harbour lantern copper violin meadow granite falcon tunnel orchid pepper saddle timber market window basket "
    "candle dragon engine forest garden hammer island jacket kitten ladder magnet needle orange pencil rabbit"
).split()
PIECE_LENGTH = 3000


def draw(lines: Sequence[Sequence[str]], size: tuple[int, int], font_size: int, spacing: int) -> Image.Image:
    """Return an image of the lines, one below the other."""
    image = Image.new("RGB", size, "white")
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(size=font_size)
    for row, words in enumerate(lines):
        canvas.text((font_size, (row + 0.3) * spacing), " ".join(words), font=font, fill="black")
    return image


def make_lines(size: tuple[int, int], font_size: int, spacing: int) -> list[list[str]]:
    """Return numbered lines of random words that fill an image."""
    rng = np.random.default_rng(0)
    font = ImageFont.load_default(size=font_size)
    lines = []
    for row in range(size[1] // spacing):
        words = [f"{row + 1111}"]
        while font.getlength(" ".join(words)) < size[0] - 12 * font_size:
            words.append(str(rng.choice(WORDS)))
        lines.append(words)
    return lines


def words_right(lines: Sequence[Sequence[str]], pages: Iterable[Page]) -> int:
    """Return the number of words read right; a line on several pages counts on the page with most of its words."""
    expected = {line[0]: Counter(line) for line in lines}
    best: Counter[str] = Counter()
    for page in pages:
        found: dict[str, Counter[str]] = {}
        name = ""
        for word in page.words:
            if re.fullmatch(r"\d{4}", word.text):
                name = word.text
            found.setdefault(name, Counter())[word.text] += 1
        for name, words in found.items():
            best[name] = max(best[name], (words & expected.get(name, Counter())).total())
    return best.total()


def report(name: str, lines: Sequence[Sequence[str]], paths: Sequence[Path]) -> None:
    """Read the files and print the share of words read right."""
    start = time.perf_counter()
    pages = list(load_pages(paths))
    seconds = time.perf_counter() - start
    total = sum(map(len, lines))
    right = words_right(lines, pages)
    extra = sum(len(page.words) for page in pages) / total
    width, height = pages[0].screenshot.image.size
    print(
        f"{name:12} {len(pages):3} pages of {width} x {height}: {right} of {total} words right ({right / total:.2%}), "
        f"{extra:.2f} words read per word, {seconds:.0f} s; warnings: {sorted({w for p in pages for w in p.warnings})}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, default=(1080, 16_000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--font", type=int, default=36, metavar="PIXELS")
    parser.add_argument("--spacing", type=int, default=100, metavar="PIXELS")
    options = parser.parse_args()
    size, font, spacing = tuple(options.size), options.font, options.spacing
    lines = make_lines(size, font, spacing)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = draw(lines, size, font, spacing)
        image.save(folder / "tall.png")
        image.save(folder / "tall.pdf", resolution=300)
        report("image file", lines, [folder / "tall.png"])
        report("PDF page", lines, [folder / "tall.pdf"])
        if size[1] > size[0]:
            rows = PIECE_LENGTH // spacing
            pieces = [lines[start : start + rows] for start in range(0, len(lines), rows)]
            paths = [folder / f"{number:04}.png" for number in range(len(pieces))]
            for path, piece in zip(paths, pieces, strict=True):
                draw(piece, (size[0], rows * spacing), font, spacing).save(path)
            report("pieces", lines, paths)


if __name__ == "__main__":
    main()
