"""OCR: words, boxes and reading order of rotated pages, verified weights, no network access and no output."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pymupdf
import pytest
from helpers.paths import DATA
from PIL import Image

from jina_rag.errors import CheckpointError
from jina_rag.ocr import lines, read_areas, read_words, recognition, weights
from jina_rag.ocr.detection import _contrast, _spread, content_bounds, find_lines
from jina_rag.ocr.lines import Line
from jina_rag.ocr.onnx_graph import Graph
from jina_rag.ocr.reading_order import reading_order

BAD = DATA / "bad"


def text_image(*lines, size=(500, 220), fontsize=22, fontname="helv", rotate=0):
    """Return a white image with one line of text for each (x, y, text)."""
    with pymupdf.open() as document:
        page = document.new_page(width=size[0], height=size[1])
        for x, y, text in lines:
            page.insert_text((x, y), text, fontsize=fontsize, fontname=fontname, rotate=rotate)
        pixmap = page.get_pixmap()
        return Image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)


PAGE = text_image(
    (40, 50, "The juniper berry harvest"), (40, 100, "began in October 1972"), (40, 150, "near Lake Erie")
)
TEXT = "The juniper berry harvest began in October 1972 near Lake Erie"


def texts(words):
    return " ".join(word.text for word in words)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_words_of_rotated_page_in_reading_order(rotation):
    image = PAGE.rotate(rotation, expand=True)
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
    # The boxes cover the dark pixels and few other pixels.
    assert dark[covered].sum() > 0.93 * dark.sum()
    assert covered.mean() < 0.25


def test_word_boxes_match_text_layer():
    words = {word.text: word.box for word in read_words(PAGE)}
    reference = pymupdf.open()
    page = reference.new_page(width=500, height=220)
    page.insert_text((40, 50), "The juniper berry harvest", fontsize=22)
    for x0, _, x1, _, text, *_ in page.get_text("words"):
        assert words[text][0] == pytest.approx(x0 / 500, abs=0.015)
        assert words[text][2] == pytest.approx(x1 / 500, abs=0.015)
    reference.close()


def test_read_areas_gives_boxes_of_whole_image():
    (word, *_) = read_areas(PAGE, [(0, 0.55, 1, 0.8)])
    assert word.text == "near"
    boxes = {word.text: word.box for word in read_words(PAGE)}
    assert word.box == pytest.approx(boxes["near"], abs=0.02)


def test_skip_boxes_skip_known_lines():
    skip_boxes = [word.box for word in read_words(PAGE) if word.text in ("began", "in", "October", "1972")]
    assert texts(read_areas(PAGE, [(0, 0, 1, 1)], skip_boxes=skip_boxes)) == "The juniper berry harvest near Lake Erie"


def test_light_text_on_dark_grayscale_image():
    negative = Image.eval(PAGE, lambda value: 255 - value)
    assert texts(read_words(negative.convert("L"))) == TEXT


@pytest.mark.parametrize("size", [(1, 1), (2500, 1), (3, 900), (200, 200)])
def test_images_without_words(size):
    assert read_words(Image.new("RGB", size, "white")) == []
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    read_words(Image.fromarray(noise))  # must not raise an error


def test_lines_below_min_score_are_dropped():
    assert read_words(PAGE, min_score=1.01) == []


def test_long_page_is_read_in_tiles():
    lines = [(20, y, f"row {y} juniper") for y in range(40, 4000, 330)]
    words = texts(read_words(text_image(*lines, size=(220, 4000), fontsize=16)))
    assert words == " ".join(text for _, _, text in lines)


def test_content_bounds_exclude_margins_and_blank_images():
    pixels = np.full((400, 300, 3), 255, np.uint8)
    assert content_bounds(pixels) is None
    pixels[100:120, 50:80] = 0
    assert content_bounds(pixels) == (34, 84, 96, 136)
    pixels[:] = (200, 0, 200)
    pixels[100:120, 50:80] = (200, 0, 60)  # text that differs from the background in color only
    assert content_bounds(pixels) == (34, 84, 96, 136)


def line(text, x0, y0, x1, y1, rotation=0):
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)
    return Line(text, 1.0, np.roll(corners, -rotation, axis=0), tuple(np.linspace(0, 1, len(text) + 1)))


def texts_in_order(lines):
    return "".join(lines[index].text for index in reading_order(lines))


def test_reading_order_of_columns():
    lines = [
        line(text, x, y, x + 200, y + 12)
        for x, column_texts in ((0, "abc"), (230, "def"))
        for y, text in zip((0, 20, 40), column_texts, strict=True)
    ]
    assert texts_in_order(lines[::-1]) == "abcdef"


def test_reading_order_of_table_rows():
    lines = [
        line(text, x, y, x + 40, y + 12)
        for text, x, y in zip("acebdf", (0, 0, 0, 200, 200, 200), (0, 20, 40, 2, 21, 39), strict=True)
    ]
    assert texts_in_order(lines) == "abcdef"


def test_reading_order_of_vertical_columns_starts_at_right():
    assert texts_in_order([line("a", 100, 0, 115, 200, rotation=1), line("b", 60, 0, 75, 200, rotation=1)]) == "ab"
    assert texts_in_order([line("b", 60, 0, 75, 200, rotation=1), line("a", 100, 0, 115, 200, rotation=1)]) == "ab"


def test_damaged_or_missing_weights_raise_checkpoint_error(tmp_path):
    folder = weights._folder()
    for path in folder.glob("*.onnx"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (detector_file,) = tmp_path.glob("*_det_*.onnx")
    data = bytearray(detector_file.read_bytes())
    data[len(data) // 2] ^= 1
    detector_file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="damaged or altered"):
        weights._verified_model(tmp_path, "det", "3.10.0")
    assert weights._verified_model(tmp_path, "det", "9.9")  # an unknown version is accepted unverified
    detector_file.unlink()
    with pytest.raises(CheckpointError, match="has 0 model files"):
        weights._verified_model(tmp_path, "det", "3.10.0")


def test_hashes_of_installed_rapidocr_are_pinned():
    from importlib.metadata import version

    assert version("rapidocr") in weights._SHA256, "pin the hashes of the new wheel in ocr/weights.py"


def test_ocr_uses_no_network_and_prints_nothing(tmp_path):
    """OCR runs in a separate process, because the models stay loaded after the first use."""
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
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_import_loads_no_heavy_packages():
    program = "import sys, jina_rag.ocr, jina_rag.parsing.pages; print([m for m in ('cv2', 'onnxruntime', 'pymupdf', 'rapidocr', 'PIL.Image') if m in sys.modules])"  # noqa: E501
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_find_lines_of_one_pixel_image():
    assert find_lines(weights.load_models(), np.zeros((1, 1, 3), np.uint8), max_side=960) == []


CHINESE = [
    "价值就是一物和另一物的交换比例",
    "商品首先是一个外界的对象",
    "每一种有用物都可以从两个角度来考察",
    "物的有用性使物成为使用价值",
    "使用价值只是在使用或消费中得到实现",
    "交换价值首先表现为一种量的关系",
    "在商品中的劳动的量成正比",
]


class WidthRecorder:
    """An encoder that records the width of each input."""

    def __init__(self, session):
        self.session, self.widths = session, []

    def run(self, outputs, inputs):
        self.widths.append(inputs["x"].shape[3])
        return self.session.run(outputs, inputs)


@pytest.fixture
def widths(monkeypatch):
    models = weights.load_models()
    encoder = WidthRecorder(models.encoder)
    monkeypatch.setattr(weights, "_models", dataclasses.replace(models, encoder=encoder))
    return encoder.widths


def test_chinese_lines_are_scaled_down_horizontally(widths, monkeypatch):
    rows = [(30, 50 + 44 * row, text) for row, text in enumerate(CHINESE)]
    image = text_image(*rows, size=(620, 360), fontsize=28, fontname="china-s")
    assert texts(read_words(image)) == " ".join(CHINESE)
    scaled_width = sum(widths)
    widths.clear()
    monkeypatch.setattr(recognition, "_MAX_SCALE", 0)
    assert texts(read_words(image)) == " ".join(CHINESE)
    assert scaled_width < 0.85 * sum(widths)


def test_small_letters_among_wide_characters_read_at_full_width(monkeypatch):
    small = "a line of small letters, ill in the lily villa"
    rows = [(30, 50 + 44 * row, text) for row, text in enumerate(CHINESE)]
    image = text_image(*rows, size=(620, 420), fontsize=28, fontname="china-s")
    image.paste(text_image((30, 40, small), size=(620, 60)), (0, 360))
    assert texts(read_words(image)) == " ".join([*CHINESE, small])


def test_vertical_japanese_read_from_right_to_left():
    columns = ["日本語の文章は縦に書くことができる", "列は右から左へと順に並んでいる", "句読点は右上に置かれる"]
    rows = [
        (420 - 60 * column, 50 + 32 * row, character)
        for column, text in enumerate(columns)
        for row, character in enumerate(text)
    ]
    image = text_image(*rows, size=(500, 620), fontsize=28, fontname="japan")
    assert texts(read_words(image)) == " ".join(columns)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_sample_decides_direction_of_rotated_lines(rotation, widths):
    rows = [f"{word} harvest of the year {1970 + n}" for n, word in enumerate("one two three four five six".split())]
    image = text_image(*[(20, 40 + 40 * n, text) for n, text in enumerate(rows)], size=(520, 260))
    assert texts(read_words(image.rotate(rotation, expand=True))) == " ".join(rows)
    # Each line is read once, and the sample of four lines also in the other direction. All upside-down lines are read
    # twice.
    assert len(widths) <= (6 + 4 if rotation != 180 else 6 + 6 + 4)


def test_axis_labels_next_to_horizontal_text_read_once(widths):
    image = text_image((120, 50, "Diagram of the harvest"), (120, 360, "1972 1973 1974"), size=(500, 400))
    labels = ["Juniper", "Lavender", "Rosemary", "Marjoram", "Coriander", "Fenugreek"]
    labels_image = text_image(*[(10, 30 + 40 * n, text) for n, text in enumerate(labels)], size=(160, 260), fontsize=24)
    image.paste(labels_image.rotate(90, expand=True), (130, 100))
    words = texts(read_words(image)).split()
    assert sorted(words) == sorted([*"Diagram of the harvest 1972 1973 1974".split(), *labels])
    # The first direction has a high score, so each line is read once.
    assert len(widths) == 2 + len(labels)


def test_few_vertical_lines_each_read_in_own_direction():
    image = Image.new("RGB", (400, 400), "white")
    for x, rotation, text in ((40, 90, "running upwards"), (280, 270, "running downwards")):
        image.paste(text_image((10, 30, text), size=(300, 44)).rotate(rotation, expand=True), (x, 50))
    assert sorted(texts(read_words(image)).split()) == ["downwards", "running", "running", "upwards"]


def test_recognition_matches_unsplit_published_model():
    """Recognition splits the graph before the softmax, runs the graph line by line and skips blank time steps."""
    import onnxruntime

    models = weights.load_models()
    published_model = onnxruntime.InferenceSession(weights._verified_model(weights._folder(), "rec", "3.10.0"))
    for text in ("The juniper berry harvest", "October 1972", "il1 lily bookkeeper 1000"):
        crop = np.asarray(text_image((10, 30, text), size=(14 * len(text), 40)))
        (reading,) = recognition.read_crops(models, [crop])
        image, line_fraction = recognition._image(crop, 1.0)
        assert not image[..., -32:].any()  # the blank columns of the training lines
        probabilities = published_model.run(None, {"x": image})[0][0]
        best = probabilities.argmax(axis=1)
        starts = np.flatnonzero((best != 0) & (best != np.append(0, best[:-1])))
        assert reading.text == "".join(models.characters[index] for index in best[starts]) == text
        assert reading.score == pytest.approx(probabilities[starts, best[starts]].mean(), abs=1e-4)
        assert reading.centers == pytest.approx((starts + 0.5) / (len(best) * line_fraction))
        assert 0 < reading.centers[0] < reading.centers[-1] < 1


def test_blank_steps_are_not_classified():
    models = weights.load_models()
    crop = np.asarray(text_image((10, 30, "The juniper berry harvest"), size=(330, 40)))
    batch_sizes = []

    class CountingClassifier:
        def run(self, outputs, inputs):
            batch_sizes.extend(len(rows) for rows in inputs.values())
            return models.classifier.run(outputs, inputs)

        get_inputs = models.classifier.get_inputs

    counting_models = dataclasses.replace(models, classifier=CountingClassifier())
    (partial_reading,) = recognition.read_crops(counting_models, [crop])
    classified_count = sum(batch_sizes)
    batch_sizes.clear()
    # Zero blank weights, as for unknown versions of rapidocr, classify every step.
    (complete_reading,) = recognition.read_crops(
        dataclasses.replace(counting_models, blank=np.zeros_like(models.blank)), [crop]
    )
    assert (complete_reading.text, complete_reading.centers) == (partial_reading.text, partial_reading.centers)
    assert complete_reading.score == pytest.approx(partial_reading.score, abs=1e-5)
    assert classified_count < 0.9 * sum(batch_sizes)


def test_flush_denormals_leaves_outputs_unchanged():
    import onnxruntime

    data = weights._verified_model(weights._folder(), "det", "3.10.0")
    graph = Graph(data)
    assert graph.flush_denormals() > 200_000
    assert Graph(graph.to_bytes()).flush_denormals() == 0
    image = np.asarray(PAGE.resize((160, 96)), np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    expected = onnxruntime.InferenceSession(data).run(None, {"x": image})[0]
    assert np.array_equal(weights.load_models().detector.run(None, {"x": image})[0], expected)


def test_loaded_models_have_no_denormals(monkeypatch):
    models, session = [], weights._session
    monkeypatch.setattr(weights, "_session", lambda data: models.append(data) or session(data))
    weights._load(weights._folder(), "3.10.0")
    assert len(models) == 3
    assert sum(Graph(data).flush_denormals() for data in models) == 0


def test_unknown_model_graph_raises_checkpoint_error():
    detector_graph = Graph(weights._verified_model(weights._folder(), "det", "3.10.0"))
    with pytest.raises(CheckpointError, match="unknown graph"):
        weights._head(detector_graph, "3.10.1")
    with pytest.raises(CheckpointError, match="5 outputs"):
        weights._characters(weights.load_models().encoder, 5, "3.10.1")


def test_subgraph_is_a_valid_onnx_file():
    onnx = pytest.importorskip("onnx")
    graph = Graph(weights._verified_model(weights._folder(), "rec", "3.10.0"))
    head = weights._head(graph, "3.10.0")
    subgraph = graph.subgraph({head.vectors: ("n", 120)}, {head.values: ("n", "characters")})
    model = onnx.load_from_string(subgraph)
    onnx.checker.check_model(model)
    assert {node.op_type for node in model.graph.node} <= {"Identity", "MatMul", "Add"}
    assert len(subgraph) < 0.5 * len(graph.to_bytes())
    assert graph.weight("nothing") is None


@pytest.mark.parametrize("data", [b"\x3a\x7f", b"\x3b", b"\x3a\x02\x0a\x05", b"\x3a\x80"])
def test_invalid_onnx_data_raises_value_error(data):
    with pytest.raises(ValueError, match="not an ONNX file"):
        Graph(data)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (130, 65), (63, 64), (200, 333)])
def test_contrast_and_spread_match_numpy_ptp(shape):
    pixels = np.random.default_rng(0).integers(40, 200, (*shape, 3), dtype=np.uint8)
    for axis in (0, 1):
        assert np.array_equal(_spread(pixels, axis), np.ptp(pixels, axis=axis))
    assert _contrast(pixels) == np.ptp(pixels, axis=(0, 1)).max()


def test_crop_of_upright_line_matches_general_crop():
    from rapidocr.utils.process_img import get_rotate_crop_image

    pixels = np.random.default_rng(0).integers(0, 255, (90, 300, 3), dtype=np.uint8)
    quad = np.array([(10, 20), (210, 20), (210, 60), (10, 60)], np.float32)
    assert np.array_equal(lines._crop(pixels, quad), get_rotate_crop_image(pixels, quad))
    for corners in (lines._rotate(quad, 2), quad + np.array([(0, 0), (0, 3), (0, 3), (0, 0)], np.float32)):
        assert np.array_equal(lines._crop(pixels, corners), get_rotate_crop_image(pixels, corners))
