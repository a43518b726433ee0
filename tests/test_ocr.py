"""OCR: words with boxes out of pixels, whichever way the page is turned, without network or output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pymupdf
import pytest
from PIL import Image

from jina_rag.errors import CheckpointError
from jina_rag.ocr import read_areas, read_words, weights
from jina_rag.ocr.find import find_lines, written_part
from jina_rag.ocr.lines import Line
from jina_rag.ocr.order import reading_order

BAD = Path(__file__).parent / "data" / "bad"


def text_image(*lines, size=(500, 220), fontsize=22):
    """White paper with one line of text for each (x, y, text)."""
    with pymupdf.open() as document:
        page = document.new_page(width=size[0], height=size[1])
        for x, y, text in lines:
            page.insert_text((x, y), text, fontsize=fontsize)
        pixmap = page.get_pixmap()
        return Image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)


PAGE = text_image(
    (40, 50, "The juniper berry harvest"), (40, 100, "began in October 1972"), (40, 150, "near Lake Erie")
)
TEXT = "The juniper berry harvest began in October 1972 near Lake Erie"


def texts(words):
    return " ".join(word.text for word in words)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_words_are_read_in_order_however_the_page_is_turned(turn):
    image = PAGE.rotate(turn, expand=True)
    words = read_words(image)
    assert texts(words) == TEXT
    assert all(word.ocr for word in words)
    dark = np.asarray(image.convert("L")) < 128
    covered = np.zeros_like(dark)
    for word in words:
        x0, y0, x1, y1 = word.box
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        box = np.s_[
            int(y0 * image.height) : int(y1 * image.height) + 1,
            int(x0 * image.width) : int(x1 * image.width) + 1,
        ]
        assert dark[box].any()
        covered[box] = True
    # The boxes hold the ink and little else.
    assert dark[covered].sum() > 0.93 * dark.sum()
    assert covered.mean() < 0.25


def test_each_word_has_its_own_place_on_the_line():
    words = {word.text: word.box for word in read_words(PAGE)}
    reference = pymupdf.open()
    page = reference.new_page(width=500, height=220)
    page.insert_text((40, 50), "The juniper berry harvest", fontsize=22)
    for x0, _, x1, _, text, *_ in page.get_text("words"):
        assert words[text][0] == pytest.approx(x0 / 500, abs=0.015)
        assert words[text][2] == pytest.approx(x1 / 500, abs=0.015)
    reference.close()


def test_only_the_given_areas_are_read_and_boxes_stay_those_of_the_image():
    (word, *_) = read_areas(PAGE, [(0, 0.55, 1, 0.8)])
    assert word.text == "near"
    whole = {word.text: word.box for word in read_words(PAGE)}
    assert word.box == pytest.approx(whole["near"], abs=0.02)


def test_lines_that_are_known_are_not_read():
    known = [word.box for word in read_words(PAGE) if word.text in ("began", "in", "October", "1972")]
    assert texts(read_areas(PAGE, [(0, 0, 1, 1)], known=known)) == "The juniper berry harvest near Lake Erie"


def test_dark_paper_and_grey_modes():
    negative = Image.eval(PAGE, lambda value: 255 - value)
    assert texts(read_words(negative.convert("L"))) == TEXT


@pytest.mark.parametrize("size", [(1, 1), (2500, 1), (3, 900), (200, 200)])
def test_pictures_without_words(size):
    assert read_words(Image.new("RGB", size, "white")) == []
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    read_words(Image.fromarray(noise))  # whatever it reads, it does not fail


def test_unsure_lines_are_dropped():
    assert read_words(PAGE, min_score=1.01) == []


def test_a_long_page_is_read_in_tiles():
    lines = [(20, y, f"row {y} juniper") for y in range(40, 4000, 330)]
    found = texts(read_words(text_image(*lines, size=(220, 4000), fontsize=16)))
    assert found == " ".join(text for _, _, text in lines)


def test_written_part_leaves_out_margins_and_blank_images():
    pixels = np.full((400, 300, 3), 255, np.uint8)
    assert written_part(pixels) is None
    pixels[100:120, 50:80] = 0
    assert written_part(pixels) == (34, 84, 96, 136)
    pixels[:] = (200, 0, 200)
    pixels[100:120, 50:80] = (200, 0, 60)  # letters that differ from the paper in colour alone
    assert written_part(pixels) == (34, 84, 96, 136)


def line(text, x0, y0, x1, y1, turn=0):
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)
    return Line(text, 1.0, np.roll(corners, -turn, axis=0), tuple(np.linspace(0, 1, len(text) + 1)))


def ordered(lines):
    return "".join(lines[index].text for index in reading_order(lines))


def test_columns_of_text_are_read_one_after_the_other():
    lines = [
        line(text, x, y, x + 200, y + 12)
        for x, texts_ in ((0, "abc"), (230, "def"))
        for y, text in zip((0, 20, 40), texts_, strict=True)
    ]
    assert ordered(lines[::-1]) == "abcdef"


def test_rows_of_a_table_are_read_row_by_row():
    lines = [
        line(text, x, y, x + 40, y + 12)
        for text, x, y in zip("acebdf", (0, 0, 0, 200, 200, 200), (0, 20, 40, 2, 21, 39), strict=True)
    ]
    assert ordered(lines) == "abcdef"


def test_vertical_columns_are_read_from_the_right():
    assert ordered([line("a", 100, 0, 115, 200, turn=1), line("b", 60, 0, 75, 200, turn=1)]) == "ab"
    assert ordered([line("b", 60, 0, 75, 200, turn=1), line("a", 100, 0, 115, 200, turn=1)]) == "ab"


def test_weights_are_checked(tmp_path):
    folder = weights._folder()
    for path in folder.glob("*.onnx"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (finder,) = tmp_path.glob("*_det_*.onnx")
    data = bytearray(finder.read_bytes())
    data[len(data) // 2] ^= 1
    finder.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="damaged or altered"):
        weights._verified(tmp_path, "det", "3.10.0")
    assert weights._verified(tmp_path, "det", "9.9")  # unknown: noted, not refused
    finder.unlink()
    with pytest.raises(CheckpointError, match="holds 0"):
        weights._verified(tmp_path, "det", "3.10.0")


def test_every_released_version_we_know_is_pinned():
    from importlib.metadata import version

    assert version("rapidocr") in weights._SHA256, "pin the hashes of the new wheel in ocr/weights.py"


def test_no_output_and_no_network(tmp_path):
    """In a process of its own, because what is loaded once stays."""
    program = f"""
import socket
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse
from PIL import Image
from jina_rag.ocr import read_words
words = read_words(Image.open({str(BAD / "rgba_transparent.png")!r}).convert("L").point(lambda v: 255 - v))
import sys
sys.exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_importing_is_light():
    program = "import sys, jina_rag.ocr, jina_rag.ingestion.pages; print([m for m in ('cv2', 'onnxruntime', 'pymupdf', 'rapidocr', 'PIL.Image') if m in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_finding_lines_needs_no_minimal_size():
    assert find_lines(weights.models(), np.zeros((1, 1, 3), np.uint8), max_side=960) == []
