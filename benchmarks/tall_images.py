"""Measure how many words of long screenshots OCR reads: as an image file, as a page of a PDF, and in short pieces.

    python benchmarks/tall_images.py
    python benchmarks/tall_images.py --size 1920 9000 --font 16 --spacing 28
    python benchmarks/tall_images.py --size 16000 1080 --columns 8 --format jpg --dark
    python benchmarks/tall_images.py --shift 20

The text is generated. A word is right if a page has the word at its place, so that a word in the overlap of two pages
counts once, and a box in the wrong place counts as an error. The pieces are images of at most 3,000 pixels of the same
text, without a line across two pieces. With `--shift N`, the text is drawn N times, each time a row of pixels lower, to
cut its lines at each place; only the image files are read.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from jina_rag import IngestSettings, load_pages
from jina_rag.parsing.slices import scaled_size, slice_boxes, slice_count, slice_scale
from jina_rag.types import Page

WORDS = (
    "harbour lantern copper violin meadow granite falcon tunnel orchid pepper saddle timber market window basket "
    "candle dragon engine forest garden hammer island jacket kitten ladder magnet needle orange pencil rabbit"
).split()
PIECE_LENGTH = 3000


@dataclass(frozen=True)
class PlacedWord:
    """A word and the position of its left edge and middle, in pixels of the whole image."""

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class File:
    """An image or PDF file with a part of the text.

    Attributes:
        path: Path of the file.
        size: Width and height in pixels.
        top: First row of the file in the whole image.
        is_image: Whether the file is an image file, which may be divided into slices.
    """

    path: Path
    size: tuple[int, int]
    top: int = 0
    is_image: bool = True


@dataclass(frozen=True)
class Layout:
    """Size of an image, and font size, distance of lines, columns and first row of its text, all in pixels."""

    size: tuple[int, int]
    font: int
    spacing: int
    columns: int = 1
    shift: int = 0


def place(layout: Layout) -> list[PlacedWord]:
    """Return random words that fill an image, with their positions."""
    rng = np.random.default_rng(0)
    font = ImageFont.load_default(size=layout.font)
    width = layout.size[0] // layout.columns
    words = []
    for row in range((layout.size[1] - layout.shift) // layout.spacing):
        y = layout.shift + (row + 0.3) * layout.spacing + layout.font / 2
        for column in range(layout.columns):
            x, end = float(column * width + layout.font), (column + 1) * width - layout.font
            while x + font.getlength(text := str(rng.choice(WORDS))) < end:
                words.append(PlacedWord(text, x, y))
                x += font.getlength(f"{text} ")
    return words


def draw(words: Iterable[PlacedWord], size: tuple[int, int], font_size: int, top: int = 0) -> Image.Image:
    """Return an image of the words whose first row is the row `top` of the whole image."""
    image = Image.new("RGB", size, "white")
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(size=font_size)
    for word in words:
        canvas.text((word.x, word.y - font_size / 2 - top), word.text, font=font, fill="black")
    return image


def placed_words(page: Page, file: File) -> Iterator[PlacedWord]:
    """Yield the words of a page with their positions in the whole image."""
    settings = IngestSettings()
    left = top = 0.0
    width, height = map(float, file.size)
    if file.is_image and slice_count(*file.size, settings) > 1:
        scale = slice_scale(*file.size, settings)
        box = slice_boxes(*scaled_size(*file.size, scale), settings)[page.number - 1]
        left, top, right, bottom = (edge / scale for edge in box)
        width, height = right - left, bottom - top
    for word in page.words:
        x0, y0, _, y1 = word.box
        yield PlacedWord(word.text, left + x0 * width, file.top + top + (y0 + y1) / 2 * height)


def words_right(words: Iterable[PlacedWord], words_read: Iterable[PlacedWord], layout: Layout) -> int:
    """Return the number of words that were read at their place, to within a letter or two."""
    by_text: dict[str, list[tuple[float, float]]] = {}
    for word in words_read:
        by_text.setdefault(word.text, []).append((word.x, word.y))
    positions = {text: np.array(places) for text, places in by_text.items()}
    tolerance = np.array([1.2 * layout.font, 0.5 * layout.spacing])
    return sum(
        word.text in positions and bool((abs(positions[word.text] - (word.x, word.y)) < tolerance).all(axis=1).any())
        for word in words
    )


def report(name: str, words: Sequence[PlacedWord], files: Sequence[File], layout: Layout) -> None:
    """Read the files and print the share of words read right."""
    start = time.process_time()
    words_read: list[PlacedWord] = []
    pages: list[Page] = []
    for file in files:
        for page in load_pages(file.path):
            pages.append(page)
            words_read += placed_words(page, file)
    seconds = time.process_time() - start
    right = words_right(words, words_read, layout)
    width, height = pages[0].screenshot.image.size
    print(
        f"{name:12} {len(pages):3} pages of {width} x {height}: {right} of {len(words)} words right "
        f"({right / len(words):.2%}), {len(words_read) / len(words):.2f} words read per word, {seconds:.0f} CPU s; "
        f"warnings: {sorted({w for p in pages for w in p.warnings})}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, default=(1080, 16_000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--font", type=int, default=36, metavar="PIXELS")
    parser.add_argument("--spacing", type=int, default=100, metavar="PIXELS")
    parser.add_argument("--columns", type=int, default=1)
    parser.add_argument("--format", choices=("png", "jpg", "webp"), default="png")
    parser.add_argument("--dark", action="store_true", help="light text on a dark background")
    parser.add_argument("--exif", type=int, choices=(3, 6, 8), help="EXIF orientation with which the image is saved")
    parser.add_argument("--shift", type=int, default=0, metavar="N", help="only image files, with N first rows")
    options = parser.parse_args()
    layout = Layout(tuple(options.size), options.font, options.spacing, options.columns)

    def save(image: Image.Image, path: Path) -> Path:
        exif = Image.Exif()
        if options.exif:
            exif[0x112] = options.exif
            turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
            image = image.transpose(turned[options.exif])
        image = ImageOps.colorize(image.convert("L"), "#d4d4d4", "#1e1e1e") if options.dark else image
        image.save(path, exif=exif, resolution=300)
        return path

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shift in range(options.shift):
            lower = replace(layout, shift=shift)
            words = place(lower)
            path = save(draw(words, lower.size, lower.font), folder / f"tall.{options.format}")
            report(f"shift {shift}", words, [File(path, lower.size)], lower)
        if options.shift:
            return
        words = place(layout)
        image = draw(words, layout.size, layout.font)
        path = save(image, folder / f"tall.{options.format}")
        report("image file", words, [File(path, layout.size)], layout)
        image.save(folder / "tall.pdf", resolution=300)
        report("PDF page", words, [File(folder / "tall.pdf", layout.size, is_image=False)], layout)
        if layout.size[1] > layout.size[0]:
            rows = PIECE_LENGTH // layout.spacing * layout.spacing
            pieces = []
            for top in range(0, layout.size[1], rows):
                piece = draw([w for w in words if top <= w.y < top + rows], (layout.size[0], rows), layout.font, top)
                path = save(piece, folder / f"{top:05}.{options.format}")
                pieces.append(File(path, piece.size, top))
            report("pieces", words, pieces, layout)


if __name__ == "__main__":
    main()
