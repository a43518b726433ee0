"""Messages between processes: each kind of input and result arrives as it was sent."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from jina_rag.models.runtime.process_messages import InvalidMessageError, MessageWriter, Packer, Unpacker, receive
from jina_rag.testing import make_page
from jina_rag.types import Attribution, Embeddings, TokenGrid, Word


def sent(value, pack=Packer.pack, *arguments):
    """Return a value as another process receives it."""
    packer, stream = Packer(), io.BytesIO()
    packed = pack(packer, value, *arguments)
    MessageWriter(stream).send({"value": packed}, packer.buffers)
    stream.seek(0)
    header, buffers = receive(io.BufferedReader(stream))
    return Unpacker(buffers).unpack(header["value"])


def noise(mode, size=(31, 17)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 2.5, "", "tea \ud800 茶", b"", b"\0\1", Path("a/b.png"), [1, "x", [b"y"]], ("a", 1), {"text": "x"}],
)
def test_plain_values_arrive_unchanged(value):
    assert sent(value) == value
    assert type(sent(value)) is (Path if isinstance(value, Path) else type(value)) or isinstance(value, Path)


def test_numbers_of_numpy_and_subclasses_of_str_arrive_as_plain_values():
    assert sent([np.int64(3), np.float32(0.5), np.bool_(True), np.str_("tea")]) == [3, 0.5, True, "tea"]
    assert sent(bytearray(b"ab")) == sent(memoryview(b"ab")) == b"ab"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK"])
def test_images_arrive_with_the_pixels_that_models_read(mode):
    image = noise(mode)
    received = sent(image)
    assert received.size == image.size
    np.testing.assert_array_equal(np.asarray(received.convert("RGB")), np.asarray(image.convert("RGB")))
    assert received.has_transparency_data == image.has_transparency_data


def test_transparent_color_arrives_as_alpha_channel():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 1
    assert sent(image).convert("RGBA").get_flattened_data() == image.convert("RGBA").get_flattened_data()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientation_of_an_image_arrives(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    noise("RGB").save(file, "PNG", exif=exif)
    with Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(sent(image))), expected)


def test_image_without_pixels_arrives():
    assert sent(Image.new("RGB", (0, 5))).size == (0, 5)


def test_repeated_object_is_sent_once_and_stays_one_object():
    image, data, page = noise("RGB"), b"x" * 1000, make_page("tea and milk")
    value = [[image, "a"], [image, data, page], {"image": image}, data, page, [page.screenshot.image]]
    packer = Packer()
    packed = packer.pack(value)
    assert len(packer.buffers) == 4  # pixels, bytes, pixels and boxes of the page
    first, second, third, fourth, fifth, sixth = Unpacker(
        [np.frombuffer(b, np.uint8) for b in map(bytes, packer.buffers)]
    ).unpack(packed)
    assert first[0] is second[0] is third["image"]
    assert second[1] is fourth
    assert second[2] is fifth
    assert sixth[0] is fifth.screenshot.image
    assert fifth.text == "tea and milk"


def test_page_arrives_with_the_part_that_the_model_reads():
    page = make_page("tea and milk", doc_id="a.pdf", number=3, path=Path("x/a.pdf"))
    text_page, image_page, whole_page = (
        sent(page, Packer.pack_input, "text"),
        sent(page, Packer.pack_input, "image"),
        sent(page),
    )
    assert text_page.words == whole_page.words == page.words
    assert image_page.words == ()
    assert text_page.screenshot.image.size == (1, 1)
    for received in (image_page, whole_page):
        assert received.screenshot.image.tobytes() == page.screenshot.image.tobytes()
    for received in (text_page, image_page, whole_page):
        assert (received.doc_id, received.path, received.number, received.count) == ("a.pdf", Path("x/a.pdf"), 3, 3)


def test_page_inside_an_input_arrives_whole():
    page = make_page("tea")
    (received,) = sent([page], Packer.pack_input, "text")
    assert received.words == page.words
    assert received.screenshot.image.size == page.screenshot.image.size


def test_words_of_ocr_keep_the_mark():
    page = make_page("tea")
    page = type(page)(page.doc_id, page.path, 1, 1, page.screenshot, (Word("tea", (0.1, 0.2, 0.3, 0.4), True),))
    assert sent(page).words == page.words


def test_other_objects_arrive_as_objects_of_a_class_of_the_same_name():
    class Strange:
        pass

    assert [type(item).__name__ for item in sent([Strange(), {1, 2}, 1j])] == ["Strange", "set", "complex"]


def test_results_arrive_unchanged():
    boxes = np.array([[0, 0, 1, 1], [np.nan] * 4], np.float32)
    result = Embeddings(
        single=np.ones((2, 3), np.float32),
        multi=[np.zeros((0, 4), np.float32), np.ones((2, 4), np.float32)[::2]],
        grids=[None, TokenGrid(boxes, "patches", np.array([0, -1], np.int32))],
        tokens=[("a", " b"), None],
        truncated=[True, False],
    )
    received = sent(result)
    np.testing.assert_array_equal(received.single, result.single)
    assert [rows.shape for rows in received.multi] == [(0, 4), (1, 4)]
    np.testing.assert_array_equal(received.grids[1].boxes, boxes)
    np.testing.assert_array_equal(received.grids[1].images, [0, -1])
    assert received.grids[0] is None
    assert received.grids[1].kind == "patches"
    assert (received.tokens, received.truncated) == (result.tokens, result.truncated)
    received.single[0] = 2  # arrays are writable
    attribution = sent(Attribution(boxes, np.ones(2, np.float32), np.zeros(2, np.int32), 0.25))
    assert attribution.score == 0.25


@pytest.mark.parametrize(
    "value",
    [
        {"array": 0, "dtype": "<f4", "shape": [9]},
        {"array": 0, "dtype": "O", "shape": [1]},
        {"array": 7, "dtype": "<f4", "shape": [2]},
        {"image": 0, "mode": "RGB", "size": [5, 5], "orientation": None},
        {"image": 0, "mode": "F", "size": [2, 1], "orientation": None},
        {"result": "Popen", "fields": {}},
        {"result": "Embeddings", "fields": {"no": 1}},
        {"same": 3},
        {"unknown": 1},
        {"page": []},
    ],
)
def test_invalid_values_are_rejected(value):
    with pytest.raises(InvalidMessageError):
        Unpacker([np.zeros(8, np.uint8)]).unpack(value)


def test_truncated_and_invalid_messages_are_rejected():
    stream = io.BytesIO()
    MessageWriter(stream).send({"a": 1}, [b"abc"])
    content = stream.getvalue()
    assert receive(io.BufferedReader(io.BytesIO(b""))) is None
    for length in (5, 18, 30, len(content) - 1):
        with pytest.raises(EOFError):
            receive(io.BufferedReader(io.BytesIO(content[:length])))
    for header in (b"[1]", b"{"):
        message = len(header).to_bytes(8, "little") + (0).to_bytes(8, "little") + header
        with pytest.raises(InvalidMessageError):
            receive(io.BufferedReader(io.BytesIO(message)))
    with pytest.raises(InvalidMessageError):
        receive(io.BufferedReader(io.BytesIO((1 << 40).to_bytes(8, "little") + bytes(8))))
