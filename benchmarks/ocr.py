"""Measure the CPU seconds of OCR per page and per network.

    python benchmarks/ocr.py FOLDER
    python benchmarks/ocr.py FOLDER --against-published
    python benchmarks/ocr.py FOLDER --against-published --text-layer 12

FOLDER holds PDFs and images. With ``--against-published``, the benchmark also reads each page with the stages of
rapidocr's pipeline, which earlier versions of jina_rag called. jina_rag and rapidocr read a page in immediate
succession, so that other load on the machine slows both readers.
``--text-layer N`` also reads the images of N pages with a text layer, one per document, and compares the words with the
text layer. CPU seconds count all threads of the process.
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
from jina_rag.ocr.tiles import tiles_of
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.pages import areas_to_read
from jina_rag.parsing.sources import SourceFile, find_sources
from jina_rag.types import Box, Page, Word

FULL_PAGE: Box = (0.0, 0.0, 1.0, 1.0)
# Unicode names of the scripts that the recognition network does not support.
UNSUPPORTED_SCRIPTS = ("ARABIC", "CYRILLIC", "DEVANAGARI", "HANGUL", "HEBREW", "THAI")


def pages_of(folder: Path) -> Iterator[tuple[Path, Page, list[Box]]]:
    """Yield the file, the page and the boxes that OCR reads, for each page."""
    settings = IngestSettings()
    for source in find_sources([folder]):
        if isinstance(source, SourceFile):
            with open_document(source, settings) as document:
                for number in range(1, document.page_count + 1):
                    page, images = document.render_with_images(number)
                    yield source.path, page, areas_to_read(page, images, settings)


class Published:
    """The stages of rapidocr's pipeline, with the networks, batches and settings of rapidocr.

    This class is the code of an earlier version of jina_rag, so that figures remain comparable between versions. Only
    the division of an image into tiles comes from the current version.
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
        """Return the words inside `areas`, in no particular order. Lines that `word_boxes` cover are skipped."""
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
        maximum, minimum = (cv2.reduce(image, axis, kind) for kind in (cv2.REDUCE_MAX, cv2.REDUCE_MIN))
        return np.squeeze(maximum - minimum, axis=axis)

    def lines(self, pixels: Any, skip_boxes: Any) -> list[tuple[str, float, Any]]:
        quads = [quad for quad in self.find(pixels) if lines._cover(quad, skip_boxes) < 0.3]
        horizontal = self.recognize(pixels, [quad for quad in quads if not lines._is_vertical(quad)])
        if horizontal and np.mean([score for _, score, _ in horizontal]) < 0.8:
            horizontal = self.best_direction(pixels, horizontal)
        vertical = self.recognize(pixels, [np.roll(quad, -1, axis=0) for quad in quads if lines._is_vertical(quad)])
        return horizontal + (self.best_direction(pixels, vertical) if vertical else [])

    def find(self, pixels: Any) -> list[Any]:
        height, width = pixels.shape[:2]
        tile_axis = 1 if height >= width else 0
        quads_of_page = []
        for tile in tiles_of(max(height, width), min(height, width)):
            crop = pixels[tile.start : tile.end] if tile_axis else pixels[:, tile.start : tile.end]
            if np.ptp(crop, axis=(0, 1)).max() < 24:
                continue
            crop_height, crop_width = crop.shape[:2]
            scale = min(1.0, 960 / max(crop_height, crop_width))
            size = [max(32, round(side * scale / 32) * 32) for side in (crop_width, crop_height)]
            small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            detector = self.detector
            output = detector.session(detector.get_preprocess()(small))
            quads, _ = detector.postprocess_op(output, (crop_height, crop_width))
            for quad in np.asarray(quads, np.float32).reshape(-1, 4, 2):
                page_quad = quad + np.array((0, tile.start) if tile_axis else (tile.start, 0), np.float32)
                if tile.first <= page_quad[:, tile_axis].mean() < tile.last:
                    quads_of_page.append(page_quad)
        return quads_of_page

    def recognize(self, pixels: Any, quads: Sequence[Any]) -> list[tuple[str, float, Any]]:
        from rapidocr.ch_ppocr_rec import TextRecInput
        from rapidocr.utils.process_img import get_rotate_crop_image

        if not quads:
            return []
        crops = [get_rotate_crop_image(pixels, quad) for quad in quads]
        output = self.recognizer(TextRecInput(img=crops, return_word_box=True))
        return list(zip(output.txts, output.scores, quads, strict=True))

    def best_direction(self, pixels: Any, lines_read: list[tuple[str, float, Any]]) -> list[tuple[str, float, Any]]:
        sample = (
            lines_read if len(lines_read) <= 4 else sorted(lines_read, key=lambda line: len(line[0]), reverse=True)[:4]
        )
        other = self.recognize(pixels, [np.roll(quad, -2, axis=0) for _, _, quad in sample])
        if len(lines_read) <= 4:
            return [max(pair, key=lambda line: line[1]) for pair in zip(lines_read, other, strict=True)]
        if sum(line[1] for line in other) <= sum(line[1] for line in sample):
            return lines_read
        return self.recognize(pixels, [np.roll(quad, -2, axis=0) for _, _, quad in lines_read])


class NetworkTimes:
    """CPU seconds and number of calls of each network."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        names = ("detector", "encoder", "classifier")
        models = weights.load_models()
        weights._models = dataclasses.replace(
            models, **{name: _TimedSession(getattr(models, name), name, self) for name in names}
        )


class _TimedSession:
    def __init__(self, session: Any, name: str, times: NetworkTimes) -> None:
        self._session, self._name, self._times = session, name, times
        self.get_inputs = session.get_inputs

    def run(self, *arguments: Any) -> Any:
        start = time.process_time()
        outputs = self._session.run(*arguments)
        self._times.seconds[self._name] += time.process_time() - start
        self._times.calls[self._name] += 1
        return outputs


def word_f1(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the F1 score of two bags of words, from 0 to 1."""
    total = len(first) + len(second)
    return 2 * sum((Counter(first) & Counter(second)).values()) / total if total else 1.0


def distance(a: str, b: str) -> int:
    """Return the Levenshtein distance with the bit-parallel algorithm of Myers and Hyyrö."""
    if not a or not b:
        return len(a) + len(b)
    positions: defaultdict[str, int] = defaultdict(int)
    for index, character in enumerate(a):
        positions[character] |= 1 << index
    mask, last, score = (1 << len(a)) - 1, 1 << (len(a) - 1), len(a)
    vertical_plus, vertical_minus = mask, 0
    for character in b:
        matches = positions[character]
        vertical = matches | vertical_minus
        diagonal = (((matches & vertical_plus) + vertical_plus) ^ vertical_plus) | matches
        plus, minus = vertical_minus | (~(diagonal | vertical_plus) & mask), vertical_plus & diagonal
        score += bool(plus & last) - bool(minus & last)
        plus, minus = ((plus << 1) | 1) & mask, (minus << 1) & mask
        vertical_plus, vertical_minus = minus | (~(vertical | plus) & mask), plus & vertical
    return score


def normalize(texts: Sequence[str]) -> str:
    return unicodedata.normalize("NFKC", "".join("".join(texts).split()))


def compare_with_text_layer(page: Page, texts: Sequence[str]) -> tuple[float, float]:
    """Return the F1 score of the words and the character error rate, with the text layer as the expected text.

    Words are sorted before the comparison, because the reading order of a page is ambiguous.
    """
    layer = [word.text for word in page.words]
    read, expected = sorted(normalize([text]) for text in texts), sorted(normalize([text]) for text in layer)
    return word_f1(read, expected), distance("".join(expected), "".join(read)) / max(1, len("".join(expected)))


def can_read(page: Page) -> bool:
    """Return whether more than 95 % of the characters of a page are in supported scripts."""
    text = "".join(word.text for word in page.words[:400])
    return sum(unicodedata.name(letter, "").startswith(UNSUPPORTED_SCRIPTS) for letter in text) < 0.05 * len(text)


def texts_of(words: Sequence[Word]) -> list[str]:
    return [word.text for word in words]


def clock(call: Any, *arguments: Any) -> tuple[list[str], float]:
    start = time.process_time()
    result = call(*arguments)
    return result, time.process_time() - start


def read_with_jina_rag(image: Image.Image, areas: Sequence[Box], word_boxes: Sequence[Box]) -> list[str]:
    return texts_of(read_areas(image, areas, skip_boxes=word_boxes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against-published", action="store_true", help="also read the pages with rapidocr's pipeline")
    parser.add_argument("--text-layer", type=int, default=0, metavar="PAGES", help="pages to compare with text layers")
    parser.add_argument("--verbose", action="store_true", help="print a line for each page")
    arguments = parser.parse_args()
    network_times = NetworkTimes()
    published = Published() if arguments.against_published else None
    blank = Image.new("RGB", (320, 96), "white")
    cv2.putText(pixels := np.array(blank), "warm up", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 0), 2)
    for read in filter(None, (read_with_jina_rag, published and published.read)):
        read(Image.fromarray(pixels), [FULL_PAGE], [])
    network_times.seconds.clear(), network_times.calls.clear()

    seconds, published_seconds, scores, sizes, layers = 0.0, 0.0, [], [], []
    documents: set[Path] = set()
    for path, page, areas in pages_of(arguments.folder):
        image, word_boxes = page.screenshot.image, [word.box for word in page.words]
        if areas:
            texts, cpu = clock(read_with_jina_rag, image, areas, word_boxes)
            seconds += cpu
            sizes.append(len(texts))
            if published:
                published_texts, published_cpu = clock(published.read, image, areas, word_boxes)
                published_seconds += published_cpu
                scores.append(word_f1(texts, published_texts))
                if arguments.verbose:
                    print(f"{path.name} {page.number}: {cpu:.2f} s, {published_cpu:.2f} s, F1 {scores[-1]:.3f}")
        elif (
            len(documents) < arguments.text_layer and path not in documents and len(page.words) > 80 and can_read(page)
        ):
            documents.add(path)
            before = dict(network_times.seconds), dict(network_times.calls)
            pair = [compare_with_text_layer(page, read_with_jina_rag(image, [FULL_PAGE], []))]
            network_times.seconds, network_times.calls = Counter(before[0]), Counter(before[1])
            pair += [compare_with_text_layer(page, published.read(image, [FULL_PAGE], []))] if published else []
            layers.append(pair)
    pages = max(1, len(sizes))
    print(
        f"{len(sizes)} pages with OCR; per page {sum(sizes) / pages:.0f} words, "
        f"{network_times.calls['encoder'] / pages:.1f} lines"
    )
    print(f"CPU seconds per page: {seconds / pages:.3f}")
    for name, network_seconds in network_times.seconds.items():
        print(f"  {name:10s} {network_seconds / seconds:.0%}")
    if published:
        print(f"rapidocr: {published_seconds / pages:.3f}; ratio {seconds / published_seconds:.3f} (at most 0.5)")
        micro = np.average(scores, weights=[size + 1e-9 for size in sizes])
        print(f"word F1 of jina_rag and rapidocr: {np.mean(scores):.4f} by page, {micro:.4f} by word (at least 0.96)")
    for index, name in enumerate(("jina_rag", "rapidocr")[: 2 if published else 1]):
        if layers:
            f1, wrong = np.mean([pair[index] for pair in layers], axis=0)
            print(f"{len(layers)} pages with a text layer, {name}: word F1 {f1:.4f}, wrong characters {wrong:.4f}")


if __name__ == "__main__":
    main()
