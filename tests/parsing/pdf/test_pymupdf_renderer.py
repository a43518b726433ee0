"""PyMuPDF renderer: rotation, words, limits, passwords and blank pages."""

from __future__ import annotations

import threading

import numpy as np
import pymupdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, LimitExceededError, PasswordRequiredError
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import SourceFile


def write(path, build, **save):
    with pymupdf.open() as document:
        build(document)
        document.save(path, **save)
    return SourceFile(path, path.parent, path.name, "pdf")


def page_of(path, build, settings=None, number=1):
    with open_document(write(path, build), settings) as document:
        return document.render(number)


def ink_box(image):
    """Return the bounding box of dark pixels, as fractions of the image."""
    dark = np.argwhere(np.asarray(image.convert("L")) < 128)
    (y0, x0), (y1, x1) = dark.min(axis=0), dark.max(axis=0) + 1
    return x0 / image.width, y0 / image.height, x1 / image.width, y1 / image.height


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_word_boxes_match_pixels_on_rotated_pages(tmp_path, rotation):
    def build(document):
        page = document.new_page(width=300, height=500)
        page.insert_text((40, 60), "HHHHHHHHHH", fontsize=20)
        page.set_rotation(rotation)

    page = page_of(tmp_path / "a.pdf", build)
    assert (page.screenshot.image.width > page.screenshot.image.height) == (rotation in (90, 270))
    (word,) = page.words
    ink = ink_box(page.screenshot.image)
    assert word.text == "HHHHHHHHHH"
    assert not word.ocr
    assert word.box[0] - 0.01 <= ink[0] < ink[2] <= word.box[2] + 0.01
    assert word.box[1] - 0.01 <= ink[1] < ink[3] <= word.box[3] + 0.01
    width, height = word.box[2] - word.box[0], word.box[3] - word.box[1]
    assert width * height < 3 * (ink[2] - ink[0]) * (ink[3] - ink[1])


def test_rendering_is_deterministic(tmp_path):
    def build(document):
        page = document.new_page(width=300, height=500)
        page.insert_text((40, 60), "again")
        page.set_rotation(90)

    with open_document(write(tmp_path / "a.pdf", build)) as document:
        first, second = document.render(1), document.render(1)
    assert first.words == second.words
    assert first.screenshot.image.tobytes() == second.screenshot.image.tobytes()


@given(
    size=st.tuples(st.integers(20, 900), st.integers(20, 900)),
    spots=st.lists(st.tuples(st.integers(-50, 950), st.integers(-50, 950)), max_size=6),
    rotation=st.sampled_from([0, 90, 180, 270]),
    crop=st.booleans(),
)
def test_boxes_are_ordered_and_within_page(tmp_path_factory, size, spots, rotation, crop):
    def build(document):
        page = document.new_page(width=size[0], height=size[1])
        for index, spot in enumerate(spots):
            page.insert_text(spot, f"word{index} more")
            page.draw_rect(pymupdf.Rect(*spot, spot[0] + 200, spot[1] + 90), color=(0, 0, 1))
        if crop:
            page.set_cropbox(pymupdf.Rect(size[0] / 4, size[1] / 4, size[0], size[1]))
        page.set_rotation(rotation)

    page = page_of(tmp_path_factory.mktemp("p") / "a.pdf", build, IngestSettings(dpi=36))
    for x0, y0, x1, y1 in [item.box for item in (*page.words, *page.regions)]:
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1


def test_screenshot_has_configured_dpi(tmp_path):
    page = page_of(tmp_path / "a.pdf", lambda d: d.new_page(width=144, height=72), IngestSettings(dpi=100))
    assert page.screenshot.image.size == (200, 100)
    assert page.screenshot.dpi == pytest.approx(100)
    assert page.screenshot.image.mode == "RGB"


def test_oversized_page_is_scaled_down_with_warning(tmp_path):
    settings = IngestSettings(limits=Limits(max_render_pixels=1_000_000))
    page = page_of(tmp_path / "a.pdf", lambda d: d.new_page(width=14400, height=7200), settings)
    assert 900_000 < page.screenshot.image.width * page.screenshot.image.height <= 1_010_000
    assert any("instead of 150" in warning for warning in page.warnings)
    assert page.screenshot.dpi < 10


def test_ligatures_and_duplicate_words_are_cleaned(tmp_path):
    def build(document):
        page = document.new_page()
        writer = pymupdf.TextWriter(page.rect)
        writer.append((50, 50), "e\ufb03cient", font=pymupdf.Font("helv"))
        writer.write_text(page)
        page.insert_text((50, 80), "shadow")
        page.insert_text((50, 80), "shadow")
        page.insert_text((50, 110), "shadow")

    texts = [word.text for word in page_of(tmp_path / "a.pdf", build).words]
    assert texts.count("shadow") == 2
    assert texts[0] == "efficient"


def test_words_over_limit_are_dropped_with_warning(tmp_path):
    settings = IngestSettings(limits=Limits(max_words=3))
    page = page_of(tmp_path / "a.pdf", lambda d: d.new_page().insert_text((9, 50), "a b c d e"), settings)
    assert page.text == "a b c"
    assert any("5 words" in warning for warning in page.warnings)


def test_blank_render_warns_only_for_page_with_content(tmp_path):
    def build(document):
        document.new_page()
        document.new_page().insert_text((50, 50), "invisible", color=(1, 1, 1))

    with open_document(write(tmp_path / "a.pdf", build)) as document:
        assert document.render(1).warnings == ()
        assert any("blank" in warning for warning in document.render(2).warnings)


@pytest.mark.parametrize(("passwords", "opens"), [((), False), (("wrong",), False), (("wrong", "right"), True)])
def test_passwords_open_encrypted_document(tmp_path, passwords, opens):
    source = write(
        tmp_path / "a.pdf",
        lambda d: d.new_page(),
        encryption=pymupdf.PDF_ENCRYPT_AES_256,
        user_pw="right",
        owner_pw="owner",
    )
    settings = IngestSettings(passwords=passwords)
    if opens:
        with open_document(source, settings) as document:
            assert document.page_count == 1
    else:
        with pytest.raises(PasswordRequiredError, match="encrypted"):
            open_document(source, settings)
    assert "right" not in repr(settings)


def test_page_and_byte_limits_raise_limit_exceeded_error(tmp_path):
    source = write(tmp_path / "a.pdf", lambda d: [d.new_page() for _ in range(3)])
    with pytest.raises(LimitExceededError, match="3 pages"):
        open_document(source, IngestSettings(limits=Limits(max_pages=2)))
    with pytest.raises(LimitExceededError, match="bytes"):
        open_document(source, IngestSettings(limits=Limits(max_bytes=100)))


def test_errors_are_document_errors_without_path(tmp_path):
    source = write(tmp_path / "a.pdf", lambda d: d.new_page())
    with open_document(source) as document, pytest.raises(DocumentError, match="Page 2 does not exist"):
        document.render(2)
    source.path.write_bytes(b"%PDF-1.4\nnothing useful")
    with pytest.raises(DocumentError, match=r"cannot be repaired|no pages") as caught:
        open_document(source)
    assert str(tmp_path) not in str(caught.value)
    source.path.unlink()
    with pytest.raises(DocumentError, match="cannot be read"):
        open_document(source)


def test_mupdf_prints_nothing(tmp_path, capfd):
    source = write(tmp_path / "a.pdf", lambda d: d.new_page().insert_text((50, 50), "x"))
    data = source.path.read_bytes()
    source.path.write_bytes(data.replace(b"startxref", b"startxxxx")[: len(data) - 20])
    with open_document(source) as document:
        document.render(1)
        assert any("repaired" in warning for warning in document.warnings)
    assert capfd.readouterr() == ("", "")


def test_rendering_is_thread_safe(tmp_path):
    sources = [
        write(tmp_path / f"{i}.pdf", lambda d, i=i: d.new_page().insert_text((50, 50), f"text{i}")) for i in range(4)
    ]
    texts = {}

    def work(index):
        with open_document(sources[index], IngestSettings(dpi=50)) as document:
            texts[index] = [document.render(1).text for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {index: [f"text{index}"] * 10 for index in range(4)}
