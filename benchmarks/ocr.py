"""What OCR costs: CPU seconds per page that needs it, and what of it goes where.

    python benchmarks/ocr.py FOLDER
    python benchmarks/ocr.py FOLDER --against-published
    python benchmarks/ocr.py FOLDER --against-published --text-layer 12

FOLDER holds PDFs and images. With ``--against-published`` the same pages are read by rapidocr's own stages in turn, as
its pipeline runs them and as jina_rag called them before: page by page one after the other, so that a busy machine
slows both. ``--text-layer`` also reads the pictures of so many pages that have a text layer, one of each document, and
compares with that. CPU seconds count all threads of the process.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import logging
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from jina_rag.config import IngestSettings
from jina_rag.ocr import lines, read_areas, weights
from jina_rag.ocr.detection import _tiles
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.pages import areas_to_read
from jina_rag.parsing.sources import SourceFile, find_sources
from jina_rag.types import Box, Page, Word

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
# Scripts that the network does not know: what is read there is by chance.
UNKNOWN = ("ARABIC", "CYRILLIC", "DEVANAGARI", "HANGUL", "HEBREW", "THAI")


def pages_of(folder: Path) -> Iterator[tuple[Path, Page, list[Box]]]:
    """Every page, and which parts of it OCR is to read."""
    settings = IngestSettings()
    for source in find_sources([folder]):
        if isinstance(source, SourceFile):
            with open_document(source, settings) as document:
                for number in range(1, document.page_count + 1):
                    page, images = document.render_with_images(number)
                    yield source.path, page, areas_to_read(page, images, settings)


class Published:
    """The stages of rapidocr as its pipeline has them: its networks, its batches, its settings.

    Kept as it was when jina_rag called it, so that figures stay comparable; nothing but the cutting into tiles is
    taken from jina_rag.
    """

    def __init__(self) -> None:
        from rapidocr import EngineType
        from rapidocr.ch_ppocr_det import TextDetector
        from rapidocr.ch_ppocr_rec import TextRecognizer

        class Settings(dict[str, Any]):
            def __getattr__(self, name: str) -> Any:
                return self[name]

        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        (package,) = importlib.util.find_spec("rapidocr").submodule_search_locations
        folder, release = Path(package) / "models", version("rapidocr")
        finder, reader = (weights._session(weights._verified_model(folder, task, release)) for task in ("det", "rec"))
        options = {"engine_type": EngineType.ONNXRUNTIME, "lang_type": "ch", "font_path": None}
        self.detector = TextDetector(Settings(options, session=finder, limit_side_len=0, limit_type="min"))
        self.recognizer = TextRecognizer(Settings(options, session=reader, rec_batch_num=6, rec_img_shape=(3, 48, 32)))

    def read(self, image: Image.Image, areas: Sequence[Box], word_boxes: Sequence[Box]) -> list[str]:
        """The words, in no particular order."""
        texts: list[str] = []
        width, height = image.size
        boxes = np.asarray(word_boxes, np.float32).reshape(-1, 4) * (width, height, width, height)
        for x0, y0, x1, y1 in areas:
            left, top = int(x0 * width), int(y0 * height)
            crop = image.crop((left, top, max(left + 1, round(x1 * width)), max(top + 1, round(y1 * height))))
            pixels = np.asarray(crop.convert("RGB"))[:, :, ::-1]
            rows = np.flatnonzero((self.spread(pixels, 1) >= 24).any(axis=1))
            columns = np.flatnonzero((self.spread(pixels, 0) >= 24).any(axis=1))
            if len(rows) == 0 or len(columns) == 0:
                continue
            x, y = max(int(columns[0]) - 16, 0), max(int(rows[0]) - 16, 0)
            pixels = np.ascontiguousarray(pixels[y : rows[-1] + 17, x : columns[-1] + 17])
            skip_boxes = (boxes - (left + x, top + y, left + x, top + y)).astype(np.float32)
            for text, score, _ in self.lines(pixels, skip_boxes):
                if score >= 0.6:
                    texts += text.split()
        return texts

    @staticmethod
    def spread(pixels: Any, axis: int) -> Any:
        image = np.ascontiguousarray(pixels)
        most, least = (cv2.reduce(image, axis, kind) for kind in (cv2.REDUCE_MAX, cv2.REDUCE_MIN))
        return np.squeeze(most - least, axis=axis)

    def lines(self, pixels: Any, skip_boxes: Any) -> list[tuple[str, float, Any]]:
        quads = [quad for quad in self.find(pixels) if lines._cover(quad, skip_boxes) < 0.3]
        level = self.recognise(pixels, [quad for quad in quads if not lines._is_vertical(quad)])
        if level and np.mean([score for _, score, _ in level]) < 0.8:
            level = self.surer_way(pixels, level)
        tall = self.recognise(pixels, [np.roll(quad, -1, axis=0) for quad in quads if lines._is_vertical(quad)])
        return level + (self.surer_way(pixels, tall) if tall else [])

    def find(self, pixels: Any) -> list[Any]:
        height, width = pixels.shape[:2]
        along = 1 if height >= width else 0
        quads_of_page = []
        for tile in _tiles(max(height, width), min(height, width)):
            part = pixels[tile.start : tile.end] if along else pixels[:, tile.start : tile.end]
            if np.ptp(part, axis=(0, 1)).max() < 24:
                continue
            high, wide = part.shape[:2]
            scale = min(1.0, 960 / max(high, wide))
            size = [max(32, round(side * scale / 32) * 32) for side in (wide, high)]
            small = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            detector = self.detector
            quads, _ = detector.postprocess_op(detector.session(detector.get_preprocess()(small)), (high, wide))
            for quad in np.asarray(quads, np.float32).reshape(-1, 4, 2):
                page_quad = quad + np.array((0, tile.start) if along else (tile.start, 0), np.float32)
                if tile.first <= page_quad[:, along].mean() < tile.last:
                    quads_of_page.append(page_quad)
        return quads_of_page

    def recognise(self, pixels: Any, quads: Sequence[Any]) -> list[tuple[str, float, Any]]:
        from rapidocr.ch_ppocr_rec import TextRecInput
        from rapidocr.utils.process_img import get_rotate_crop_image

        if not quads:
            return []
        crops = [get_rotate_crop_image(pixels, quad) for quad in quads]
        output = self.recognizer(TextRecInput(img=crops, return_word_box=True))
        return list(zip(output.txts, output.scores, quads, strict=True))

    def surer_way(self, pixels: Any, lines_read: list[tuple[str, float, Any]]) -> list[tuple[str, float, Any]]:
        sample = (
            lines_read if len(lines_read) <= 4 else sorted(lines_read, key=lambda line: len(line[0]), reverse=True)[:4]
        )
        other = self.recognise(pixels, [np.roll(quad, -2, axis=0) for _, _, quad in sample])
        if len(lines_read) <= 4:
            return [max(pair, key=lambda line: line[1]) for pair in zip(lines_read, other, strict=True)]
        if sum(line[1] for line in other) <= sum(line[1] for line in sample):
            return lines_read
        return self.recognise(pixels, [np.roll(quad, -2, axis=0) for _, _, quad in lines_read])


class Clocks:
    """CPU seconds of each network, and how many lines were read."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        names = ("detector", "encoder", "classifier")
        models = weights.load_models()
        weights._models = dataclasses.replace(
            models, **{name: _Clocked(getattr(models, name), name, self) for name in names}
        )


class _Clocked:
    def __init__(self, session: Any, name: str, clocks: Clocks) -> None:
        self._session, self._name, self._clocks = session, name, clocks
        self.get_inputs = session.get_inputs

    def run(self, *arguments: Any) -> Any:
        start = time.process_time()
        outputs = self._session.run(*arguments)
        self._clocks.seconds[self._name] += time.process_time() - start
        self._clocks.calls[self._name] += 1
        return outputs


def word_f1(ours: Sequence[str], others: Sequence[str]) -> float:
    """How far two bags of words agree: 1 if they are the same."""
    total = len(ours) + len(others)
    return 2 * sum((Counter(ours) & Counter(others)).values()) / total if total else 1.0


def distance(a: str, b: str) -> int:
    """Levenshtein's, a column of the table at once in the bits of a number (Myers, Hyyrö)."""
    if not a or not b:
        return len(a) + len(b)
    places: defaultdict[str, int] = defaultdict(int)
    for index, character in enumerate(a):
        places[character] |= 1 << index
    mask, last, score = (1 << len(a)) - 1, 1 << (len(a) - 1), len(a)
    more, less = mask, 0
    for character in b:
        same = places[character]
        vertical = same | less
        level = (((same & more) + more) ^ more) | same
        up, down = less | (~(level | more) & mask), more & level
        score += bool(up & last) - bool(down & last)
        up, down = ((up << 1) | 1) & mask, (down << 1) & mask
        more, less = down | (~(vertical | up) & mask), up & vertical
    return score


def plain(texts: Sequence[str]) -> str:
    return unicodedata.normalize("NFKC", "".join("".join(texts).split()))


def against_layer(page: Page, texts: Sequence[str]) -> tuple[float, float]:
    """Word F1 with the text layer, and wrong characters; in order of the words, as pages are read in many ways."""
    layer = [word.text for word in page.words]
    ours, truth = sorted(plain([text]) for text in texts), sorted(plain([text]) for text in layer)
    return word_f1(ours, truth), distance("".join(truth), "".join(ours)) / max(1, len("".join(truth)))


def is_known(page: Page) -> bool:
    text = "".join(word.text for word in page.words[:400])
    return sum(unicodedata.name(letter, "").startswith(UNKNOWN) for letter in text) < 0.05 * len(text)


def texts_of(words: Sequence[Word]) -> list[str]:
    return [word.text for word in words]


def clock(call: Any, *arguments: Any) -> tuple[list[str], float]:
    start = time.process_time()
    result = call(*arguments)
    return result, time.process_time() - start


def ours(image: Image.Image, areas: Sequence[Box], word_boxes: Sequence[Box]) -> list[str]:
    return texts_of(read_areas(image, areas, skip_boxes=word_boxes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against-published", action="store_true", help="read the same pages the stock way, too")
    parser.add_argument("--text-layer", type=int, default=0, metavar="PAGES", help="compare with text layers")
    parser.add_argument("--verbose", action="store_true", help="a line for each page")
    arguments = parser.parse_args()
    clocks = Clocks()
    published = Published() if arguments.against_published else None
    warm = Image.new("RGB", (320, 96), "white")
    cv2.putText(pixels := np.array(warm), "warm up", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 0), 2)
    for read in filter(None, (ours, published and published.read)):
        read(Image.fromarray(pixels), [WHOLE], [])
    clocks.seconds.clear(), clocks.calls.clear()

    seconds, theirs, scores, sizes, layers = 0.0, 0.0, [], [], []
    documents: set[Path] = set()
    for path, page, areas in pages_of(arguments.folder):
        image, word_boxes = page.screenshot.image, [word.box for word in page.words]
        if areas:
            texts, spent = clock(ours, image, areas, word_boxes)
            seconds += spent
            sizes.append(len(texts))
            if published:
                others, spent_there = clock(published.read, image, areas, word_boxes)
                theirs += spent_there
                scores.append(word_f1(texts, others))
                if arguments.verbose:
                    print(f"{path.name} {page.number}: {spent:.2f} s, {spent_there:.2f} s, F1 {scores[-1]:.3f}")
        elif (
            len(documents) < arguments.text_layer and path not in documents and len(page.words) > 80 and is_known(page)
        ):
            documents.add(path)
            before = dict(clocks.seconds), dict(clocks.calls)
            pair = [against_layer(page, ours(image, [WHOLE], []))]
            clocks.seconds, clocks.calls = Counter(before[0]), Counter(before[1])
            pair += [against_layer(page, published.read(image, [WHOLE], []))] if published else []
            layers.append(pair)
    pages = max(1, len(sizes))
    print(
        f"{len(sizes)} pages need OCR; {sum(sizes) / pages:.0f} words, {clocks.calls['encoder'] / pages:.1f} lines each"
    )
    print(f"CPU seconds per page: {seconds / pages:.3f}")
    for name, spent in clocks.seconds.items():
        print(f"  {name:10s} {spent / seconds:.0%}")
    if published:
        print(f"the published way: {theirs / pages:.3f}; ratio {seconds / theirs:.3f} (at most 0.5)")
        micro = np.average(scores, weights=[size + 1e-9 for size in sizes])
        print(f"word F1 of both: mean over pages {np.mean(scores):.4f}, over words {micro:.4f} (at least 0.96)")
    for index, name in enumerate(("here", "published")[: 2 if published else 1]):
        if layers:
            f1, wrong = np.mean([pair[index] for pair in layers], axis=0)
            print(f"{len(layers)} pages with a text layer, {name}: word F1 {f1:.4f}, wrong characters {wrong:.4f}")


if __name__ == "__main__":
    main()
