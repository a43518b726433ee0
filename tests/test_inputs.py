"""Inputs of models: accepted types of texts and images, size limits, downloads and argument checks."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import DATA
from helpers.public_server import public_server, send
from PIL import Image

from jina_rag import fetch
from jina_rag.config import Limits
from jina_rag.errors import InvalidInputError, LimitExceededError
from jina_rag.images import LoadedImage, Opening, is_data_uri, open_image
from jina_rag.inputs import EncodeSettings, as_input_list, as_input_pairs, clean_text, parts_of, text_of
from jina_rag.testing import make_page


def png(image: Image.Image, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


@pytest.fixture
def image():
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3)
    return Image.fromarray(pixels)


def test_all_image_sources_give_same_pixels(image, tmp_path):
    data = png(image)
    path = tmp_path / "a b.png"
    path.write_bytes(data)
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    mappings = [{"image": source} for source in (image, data, path, str(path), uri)]
    for source in [image, data, bytearray(data), path, *mappings, {"image": make_page("x")}]:
        (part,) = parts_of(source, Opening())
        assert isinstance(part, LoadedImage)
        if not isinstance(source, dict) or "a b" in str(source):
            assert part.size == (6, 4)
            np.testing.assert_array_equal(np.asarray(part.load()), np.asarray(image))


def test_page_input_becomes_its_screenshot():
    page = make_page("one two", size=(17, 22))
    (part,) = parts_of(page, Opening())
    assert part.size == (17, 22)


@pytest.mark.parametrize(
    "text",
    ["", "data:image/png;base64,", "data:image/png;base64,AAAA", "data:image/png;base64,iVBORw0KGgo=",
     "see data:image/png;base64,AAAA", "https://a.b/c.png", "a.png"],
)  # fmt: skip
def test_str_input_is_a_text(text):
    """A text may come from another person, who must not make the program decode an image."""
    assert parts_of(text, Opening(allow_urls=True)) == [text]
    assert parts_of([text, {"text": text}], Opening(allow_urls=True)) == [text, text]
    assert text_of(text, "a model") == text


def test_is_data_uri_requires_whole_text():
    assert is_data_uri("data:image/png;base64,AAAA")
    assert is_data_uri("data:image/svg+xml;base64,AA\nAA==")
    assert not is_data_uri("data:image/png;base64,AAAA is a text")
    assert not is_data_uri("data:text/html;base64,AAAA")
    with pytest.raises(InvalidInputError, match=r"not valid base64|not a readable image"):
        parts_of({"image": "data:image/png;base64,AAA"}, Opening())


def test_exif_orientation_applies_to_size_before_decoding(image, tmp_path):
    """Batches are sized by the upright size, which is known before the image is decoded."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    path.write_bytes(png(image, exif=exif.tobytes()))
    loaded_image = open_image(path)
    assert loaded_image.size == (4, 6)
    assert loaded_image.load().size == (4, 6)
    np.testing.assert_array_equal(np.asarray(loaded_image.load()), np.rot90(np.asarray(image), -1))
    with Image.open(path) as pil_image:
        assert open_image(pil_image).size == (4, 6)


def test_load_alpha_drop_and_white():
    transparent = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert open_image(transparent).load().getpixel((0, 0)) == (10, 20, 30)
    assert open_image(transparent).load(alpha="white").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F", "I"])
def test_load_converts_every_mode_to_rgb(mode):
    assert open_image(Image.new(mode, (3, 2))).load().mode == "RGB"


def test_max_pixels_is_checked_before_decoding(image, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(LimitExceededError, match=r"6 x 4 pixels, more than the limit of 20"):
        open_image(png_header_only(6, 4), Opening(Limits(max_pixels=20)))


def png_header_only(width: int, height: int) -> bytes:
    """Return a PNG whose header states this size, without pixel data."""
    import struct
    import zlib

    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IEND"
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
        + struct.pack(">I", 0) + end + struct.pack(">I", zlib.crc32(end))
    )  # fmt: skip


def test_decompression_bomb_raises_limit_exceeded_error():
    with pytest.raises(LimitExceededError, match="pixels"):
        open_image(png_header_only(60_000, 60_000))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "not a readable image"),
        (b"%PDF-1.4", "not a readable image"),
        (Path("nowhere.png"), "cannot be read"),
        (Path("."), "is a folder"),
        ({"image": "nowhere.png"}, "cannot be read"),
        ({"image": "data:text/plain,hello"}, "data URI is invalid"),
        ({"image": "a\0b"}, "NUL"),
        ({"image": 3}, "An image is int"),
        ({"picture": "x"}, "one key"),
        ({"text": 3}, "one key"),
        ({"text": "a", "image": "b"}, "one key"),
        (3, "An input is int"),
        (None, "An input is NoneType"),
        ([], "at least one part"),
        ([["a"]], "A part of an input is a list; parts cannot be nested"),
    ],
)
def test_invalid_input_raises_invalid_input_error(source, message):
    with pytest.raises(InvalidInputError, match=message):
        parts_of(source, Opening())


def test_damaged_image_raises_invalid_input_error_on_load():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))
    image = open_image(png(noise)[:9000])
    with pytest.raises(InvalidInputError, match=r"cannot be read|not a readable image"):
        image.load()


@pytest.mark.parametrize("name", ["animated.gif", "multipage.tiff", "image.webp"])
def test_load_closes_multi_frame_files(name):
    """An open file raises a ResourceWarning when the image is collected; pytest turns the warning into an error."""
    path = DATA / "bad" / name
    image = open_image(path).load()
    assert image.mode == "RGB"
    assert getattr(image, "fp", None) is None


def test_parts_of_keeps_order(image):
    parts = parts_of(["before", image, {"text": "after"}], Opening())
    assert [type(part) for part in parts] == [str, LoadedImage, str]


def test_text_of_accepts_texts_and_pages(image):
    assert text_of(make_page("one two"), "m") == "one two"
    assert text_of({"text": "a"}, "m") == "a"
    assert text_of(["a", {"text": "b"}], "m") == "a\nb"
    for source in (image, b"x", {"image": image}, ["a", image]):
        with pytest.raises(InvalidInputError, match="accepts texts and pages"):
            text_of(source, "m")


def test_clean_text_replaces_lone_surrogates():
    assert clean_text("a\ud83dz") == "a\ufffdz"
    assert clean_text("\ud83d\ude80") == "🚀"


@pytest.mark.parametrize("single", ["text", b"bytes", {"text": "x"}, make_page("x"), 3])
def test_single_input_instead_of_list_raises_invalid_input_error(single):
    with pytest.raises(InvalidInputError, match="Pass a list of queries"):
        as_input_list(single, "queries")


@pytest.fixture
def server(image, monkeypatch):
    """A server with an image and a long answer, under the name of a public host."""

    def answer(handler):
        send(handler, {"/image.png": png(image), "/large": b"x" * 5000}.get(handler.path, b""))

    with public_server(answer) as running:
        monkeypatch.setattr(fetch, "_resolve", running.resolve)
        monkeypatch.setattr(fetch, "_connect", running.connect)
        yield running.url


def test_url_without_allow_urls_raises_invalid_input_error(server):
    with pytest.raises(InvalidInputError, match="allow_urls=True"):
        parts_of({"image": f"{server}/image.png"}, Opening())


def test_url_with_allow_urls_is_downloaded(server):
    (image,) = parts_of({"image": f"{server}/image.png"}, Opening(allow_urls=True))
    assert image.size == (6, 4)


def test_failed_download_raises_invalid_input_error(server):
    with pytest.raises(InvalidInputError, match="unknown"):
        open_image("http://unknown.example/image.png", Opening(allow_urls=True))
    with pytest.raises(InvalidInputError, match="not a readable image"):
        open_image(f"{server}/empty.png", Opening(allow_urls=True))


def test_large_download_raises_limit_exceeded_error(server, monkeypatch):
    from jina_rag import images

    monkeypatch.setattr(images, "_DOWNLOAD_BYTES", 1000)
    with pytest.raises(LimitExceededError, match="1,000 bytes"):
        open_image(f"{server}/large", Opening(allow_urls=True))


@pytest.mark.parametrize("name", ["truncate_dim", "max_length", "max_pixels", "batch_tokens"])
@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3"])
def test_invalid_encode_options_raise_invalid_input_error(name, value):
    with pytest.raises(InvalidInputError, match=f"{name} is {value!r}; expected an integer of at least 1"):
        EncodeSettings(**{name: value})


def test_encode_settings_defaults_and_unknown_option():
    assert EncodeSettings() == EncodeSettings(
        single=True, multi=True, truncate_dim=None, max_length=None, max_pixels=None, batch_tokens=None
    )
    with pytest.raises(TypeError, match="max_tokens"):
        EncodeSettings(max_tokens=3)


def test_as_input_pairs_accepts_iterators_and_requires_pairs():
    assert as_input_pairs(("q", text) for text in ("a", "b")) == [("q", "a"), ("q", "b")]
    for invalid in ("ab", [("q",)], ["qa"]):
        with pytest.raises(InvalidInputError, match=r"list of pairs|not two inputs"):
            as_input_pairs(invalid)
