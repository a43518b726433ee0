"""Contract tests of the PDF renderers, and maximum differences between the two renderers on the same page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pymupdf
import pytest
from helpers.paths import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

import jina_rag
from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, LimitExceededError, MissingDependencyError, PasswordRequiredError
from jina_rag.parsing.layout.boxes import iou
from jina_rag.parsing.pdf.pdfium_renderer import PdfiumRenderer
from jina_rag.parsing.pdf.pymupdf_renderer import PyMuPdfRenderer
from jina_rag.parsing.sources import SourceFile, find_sources
from jina_rag.testing import sample_pdf

BAD_FILES = DATA / "bad"
# Files of the test set whose content is a PDF.
BAD_PDFS = [
    entry
    for entry in json.loads((BAD_FILES / "manifest.json").read_text("utf-8"))["files"]
    if "pdf" in entry["file"].lower() and entry["file"] not in ("text_named.pdf", "zero_bytes.pdf")
]
RENDERERS = {"pymupdf": PyMuPdfRenderer, "pypdfium2": PdfiumRenderer}
SAMPLES = sorted((Path(jina_rag.__file__).parent / "samples" / "documents").glob("*.pdf"))
INTACT_FILES = [
    BAD_FILES / name
    for name in (
        "UPPER.PDF", "blank_pages.pdf", "corrupt_xref.pdf", "duplicate_a.pdf", "encrypted_owner_only.pdf",
        "huge_page_box.pdf", "pdf_without_extension", "prompt_injection.pdf", "rotated_90.pdf", "tiny_page_box.pdf",
    )
]  # fmt: skip
SMALL = IngestSettings(dpi=72)
# Maximum mean difference of the pixel values (0 to 255), because the renderers anti-alias letters differently.
MAX_PIXEL_DIFFERENCE = 7.0
# Maximum distance of a box edge, as a fraction of the page.
BOX_TOLERANCE = 0.01
# File name → minimum word agreement. The renderers order the reading marks next to Chinese columns differently.
EXCEPTIONS = {"kanbun-ja.pdf": 0.65}


@pytest.fixture(params=RENDERERS)
def renderer(request):
    return RENDERERS[request.param]


def source_of(path):
    return SourceFile(path, path.parent, path.name, "pdf")


def write(path, build, **save):
    with pymupdf.open() as document:
        build(document)
        document.save(path, **save)
    return source_of(path)


def page_of(renderer, path, build, settings=SMALL, number=1):
    with renderer(write(path, build), settings) as document:
        return document.render(number)


def ink_box(image):
    """Return the bounding box of dark pixels, as fractions of the image."""
    dark = np.argwhere(np.asarray(image.convert("L")) < 128)
    (y0, x0), (y1, x1) = dark.min(axis=0), dark.max(axis=0) + 1
    return x0 / image.width, y0 / image.height, x1 / image.width, y1 / image.height


def word_agreement(pages):
    """Return the fraction of words that both renderers return, over pairs of pages."""
    first, second = (Counter(word.text for pair in pages for word in pair[side].words) for side in (0, 1))
    total = first.total() + second.total()
    return 2 * (first & second).total() / total if total else 1.0


@pytest.fixture(scope="module")
def page_pairs():
    """Return path → (PyMuPDF page, PDFium page) for the first four pages of many documents."""
    results = {}
    for path in (*SAMPLES, *INTACT_FILES):
        with PyMuPdfRenderer(source_of(path), SMALL) as first, PdfiumRenderer(source_of(path), SMALL) as second:
            assert first.page_count == second.page_count
            assert first.warnings == second.warnings
            numbers = range(1, min(first.page_count, 4) + 1)
            results[path] = [(first.render(number), second.render(number)) for number in numbers]
    return results


@pytest.mark.parametrize("path", [*SAMPLES, *INTACT_FILES], ids=lambda path: path.name)
def test_renderers_agree_on_pixels_and_words(path, page_pairs):
    distances = []
    for first, second in page_pairs[path]:
        assert (first.number, first.count, first.doc_id, first.path) == (
            second.number,
            second.count,
            second.doc_id,
            second.path,
        )
        assert first.warnings == second.warnings
        assert second.screenshot.image.mode == "RGB"
        assert second.screenshot.dpi == pytest.approx(first.screenshot.dpi)
        sizes = first.screenshot.image.size, second.screenshot.image.size
        assert max(abs(a - b) for a, b in zip(*sizes, strict=True)) <= 1
        resized_image = second.screenshot.image.resize(sizes[0])
        pixels = [np.asarray(image, dtype=np.int16) for image in (first.screenshot.image, resized_image)]
        assert np.abs(pixels[0] - pixels[1]).mean() < MAX_PIXEL_DIFFERENCE
        counts = [Counter(word.text for word in page.words) for page in (first, second)]
        boxes_by_word = {
            word.text: word.box for word in first.words if counts[0][word.text] == counts[1][word.text] == 1
        }
        distances += [
            max(abs(a - b) for a, b in zip(word.box, boxes_by_word[word.text], strict=True))
            for word in second.words
            if word.text in boxes_by_word
        ]
    assert word_agreement(page_pairs[path]) >= EXCEPTIONS.get(path.name, 0.93)
    assert np.mean(np.array([*distances, 0.0]) <= BOX_TOLERANCE) >= 0.99


def test_mean_word_agreement(page_pairs):
    assert np.mean([word_agreement(pages) for path, pages in page_pairs.items() if path.name not in EXCEPTIONS]) >= 0.98


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [False, True])
def test_word_boxes_match_pixels_on_rotated_cropped_pages(renderer, tmp_path, rotation, crop):
    def build(document):
        page = document.new_page(width=300, height=500)
        page.insert_text((40, 60), "HHHHHHHHHH", fontsize=20)
        if crop:
            page.set_cropbox(pymupdf.Rect(20, 10, 280, 400))
        page.set_rotation(rotation)

    page = page_of(renderer, tmp_path / "a.pdf", build, IngestSettings(dpi=150))
    width, height = (260, 390) if crop else (300, 500)
    size = (height, width) if rotation in (90, 270) else (width, height)
    assert page.screenshot.image.size == pytest.approx([side * 150 / 72 for side in size], abs=1)
    (word,) = page.words
    ink = ink_box(page.screenshot.image)
    assert word.text == "HHHHHHHHHH"
    assert not word.ocr
    assert word.box[0] - 0.01 <= ink[0] < ink[2] <= word.box[2] + 0.01
    assert word.box[1] - 0.01 <= ink[1] < ink[3] <= word.box[3] + 0.01
    assert (word.box[2] - word.box[0]) * (word.box[3] - word.box[1]) < 3 * (ink[2] - ink[0]) * (ink[3] - ink[1])


@settings(max_examples=15)
@given(
    size=st.tuples(st.integers(20, 900), st.integers(20, 900)),
    spots=st.lists(st.tuples(st.integers(-50, 950), st.integers(-50, 950)), max_size=6),
    rotation=st.sampled_from([0, 90, 180, 270]),
)
def test_boxes_are_ordered_and_within_page(tmp_path_factory, size, spots, rotation):
    def build(document):
        page = document.new_page(width=size[0], height=size[1])
        for index, spot in enumerate(spots):
            page.insert_text(spot, f"word{index} more")
            page.draw_rect(pymupdf.Rect(*spot, spot[0] + 200, spot[1] + 90), color=(0, 0, 1))
        page.set_cropbox(pymupdf.Rect(size[0] / 4, size[1] / 4, size[0], size[1]))
        page.set_rotation(rotation)

    source = write(tmp_path_factory.mktemp("p") / "a.pdf", build)
    for renderer_class in RENDERERS.values():
        with renderer_class(source, IngestSettings(dpi=36)) as document:
            page, images = document.render_with_images(1)
        for x0, y0, x1, y1 in [*(item.box for item in (*page.words, *page.regions)), *images]:
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1


def test_rendering_is_deterministic(renderer, tmp_path):
    source = write(tmp_path / "a.pdf", add_annotations)
    with renderer(source, SMALL) as document:
        first, second = document.render(1), document.render(1)
    assert (first.words, first.regions) == (second.words, second.regions)
    assert first.screenshot.image.tobytes() == second.screenshot.image.tobytes()


def test_oversized_page_is_scaled_down_with_warning(renderer, tmp_path):
    limits = IngestSettings(limits=Limits(max_render_pixels=1_000_000))
    page = page_of(renderer, tmp_path / "a.pdf", lambda d: d.new_page(width=14400, height=7200), limits)
    assert 900_000 < page.screenshot.image.width * page.screenshot.image.height <= 1_010_000
    assert page.warnings == ("The page measures 14400 x 7200 points and was rendered at 7 dpi instead of 150.",)


def test_transparency_is_flattened_onto_white(renderer, tmp_path):
    def build(document):
        page = document.new_page(width=100, height=100)
        page.draw_rect((0, 0, 100, 100), fill=(0, 0, 0), color=None, fill_opacity=0.5)

    pixels = np.asarray(page_of(renderer, tmp_path / "a.pdf", build).screenshot.image)
    assert np.median(pixels) == pytest.approx(127, abs=2)


def test_ligatures_soft_hyphens_and_shadows_are_cleaned(renderer, tmp_path):
    def build(document):
        page = document.new_page()
        writer = pymupdf.TextWriter(page.rect)
        for y, text in ((50, "e\ufb03cient"), (70, "soft\u00adware"), (90, "un\ufffdknown"), (110, "well-known")):
            writer.append((50, y), text, font=pymupdf.Font("helv"))
        writer.write_text(page)
        for y in (140, 140, 170):
            page.insert_text((50, y), "shadow")

    texts = [word.text for word in page_of(renderer, tmp_path / "a.pdf", build).words]
    assert texts[:2] == ["efficient", "software"]
    assert texts[3:] == ["well-known", "shadow", "shadow"]
    assert "\ufffd" not in texts[2]


def test_words_end_at_spaces_and_lines_not_font_changes(renderer, tmp_path):
    def build(document):
        page = document.new_page()
        page.insert_text((50, 50), "The area is 12 m")
        page.insert_text((50 + pymupdf.get_text_length("The area is 12 m"), 46), "2", fontsize=7)
        page.insert_text((50, 70), "and the next line is hyphen-")
        page.insert_text((50, 84), "ated")
        page.insert_text((50, 110), "year")
        page.insert_text((150, 110), "price")

    page = page_of(renderer, tmp_path / "a.pdf", build)
    assert page.text == "The area is 12 m2 and the next line is hyphen- ated year price"


def test_text_outside_page_is_not_read(renderer, tmp_path):
    def build(document):
        page = document.new_page(width=100, height=100)
        page.insert_text((49, 50), "inside outside", fontname="cour", fontsize=10)
        page.insert_text((20, 150), "below")

    assert page_of(renderer, tmp_path / "a.pdf", build).text == "inside ou"


def test_many_scripts_keep_text_order(renderer, tmp_path):
    texts = ["Straße naïve Łódź", "Привет мир", "東京タワーへ行く", "한국어 문서", "สวัสดี ชาวโลก"]
    with renderer(source_of(sample_pdf(tmp_path / "a.pdf", texts)), SMALL) as document:
        for number, text in enumerate(texts, start=1):
            assert document.render(number).text == text


def test_words_over_limit_are_dropped_with_warning(renderer, tmp_path):
    limits = IngestSettings(limits=Limits(max_words=3))
    page = page_of(renderer, tmp_path / "a.pdf", lambda d: d.new_page().insert_text((9, 50), "a b c d e"), limits)
    assert page.text == "a b c"
    (warning,) = page.warnings
    assert warning.startswith("The page has 5 words; words after the first 3 were dropped. Raise Limits.max_words")


def test_blank_render_warns_only_for_page_with_content(renderer, tmp_path):
    def build(document):
        document.new_page()
        document.new_page().insert_text((50, 50), "invisible", color=(1, 1, 1))
        # Operators without output do not count as content.
        page = document.new_page()
        page.insert_text((50, 50), "x")
        document.update_stream(page.get_contents()[0], b"q 1 0 0 1 0 0 cm BT /helv 12 Tf ET Q " * 20)

    with renderer(write(tmp_path / "a.pdf", build), SMALL) as document:
        warnings = [document.render(number).warnings for number in (1, 2, 3)]
    warning = "The page has content, but the screenshot is blank. Set another IngestSettings.renderer (--renderer)."
    assert warnings == [(), (warning,), ()]


def add_annotations(document):
    """Add a page with a filled form field, a note, a drawing and a hidden note."""
    page = document.new_page(width=300, height=300)
    page.insert_text((20, 50), "printed")
    field = pymupdf.Widget()
    field.field_type, field.rect = pymupdf.PDF_WIDGET_TYPE_TEXT, pymupdf.Rect(20, 80, 200, 110)
    field.field_name, field.field_value, field.text_fontsize = "name", "entered", 12
    page.add_widget(field)
    page.add_freetext_annot(pymupdf.Rect(20, 130, 200, 160), "remark", fontsize=12)
    page.add_rect_annot(pymupdf.Rect(20, 180, 120, 240)).update(fill_color=(0, 0, 0.8))
    page.add_freetext_annot(pymupdf.Rect(20, 260, 200, 290), "secret").set_flags(pymupdf.PDF_ANNOT_IS_HIDDEN)
    page.insert_link({"kind": pymupdf.LINK_URI, "from": pymupdf.Rect(20, 35, 80, 55), "uri": "https://example.org"})


def test_form_fields_and_notes_are_rendered_and_read(renderer, tmp_path):
    page = page_of(renderer, tmp_path / "a.pdf", add_annotations)
    assert sorted(word.text for word in page.words) == ["entered", "printed", "remark"]
    pixels = np.asarray(page.screenshot.image)
    for word in page.words:
        x0, y0, x1, y1 = (round(side * 300) for side in word.box)
        assert pixels[y0:y1, x0:x1].min() < 128, word.text
    assert pixels[210, 70].tolist() == pytest.approx([0, 0, 204], abs=3)


@pytest.mark.parametrize(("passwords", "opens"), [((), False), (("wrong",), False), (("wrong", "Schlüssel"), True)])
def test_passwords_open_encrypted_document(renderer, tmp_path, passwords, opens):
    source = write(
        tmp_path / "a.pdf",
        lambda d: d.new_page().insert_text((50, 50), "inside"),
        encryption=pymupdf.PDF_ENCRYPT_AES_256,
        user_pw="Schlüssel",
        owner_pw="owner",
    )
    if opens:
        for form in (passwords, {"*.pdf": passwords}):
            with renderer(source, IngestSettings(dpi=36, passwords=form)) as document:
                assert document.render(1).text == "inside"
    else:
        cause = "none of the configured passwords is valid" if passwords else "no password is configured"
        with pytest.raises(PasswordRequiredError, match=f"^The document is encrypted, and {cause}."):
            renderer(source, IngestSettings(passwords=passwords))


def test_page_and_byte_limits_raise_limit_exceeded_error(renderer, tmp_path):
    source = write(tmp_path / "a.pdf", lambda d: [d.new_page() for _ in range(3)])
    with pytest.raises(LimitExceededError, match="3 pages"):
        renderer(source, IngestSettings(limits=Limits(max_pages=2)))
    with pytest.raises(LimitExceededError, match="bytes"):
        renderer(source, IngestSettings(limits=Limits(max_bytes=100)))


def test_errors_are_document_errors_without_path(renderer, tmp_path):
    source = write(tmp_path / "a.pdf", lambda d: d.new_page())
    with renderer(source, SMALL) as document:
        for number in (0, 2):
            with pytest.raises(DocumentError, match=f"Page {number} does not exist; the last page is 1."):
                document.render(number)
    document.close()
    with pytest.raises(DocumentError, match="cannot be rendered"):
        document.render(1)
    for content, reason in ((b"%PDF-1.4\nnothing useful", "cannot be repaired|no pages"), (b"", "empty")):
        source.path.write_bytes(content)
        with pytest.raises(DocumentError, match=reason) as caught:
            renderer(source, SMALL)
        assert str(tmp_path) not in str(caught.value)
    source.path.unlink()
    with pytest.raises(DocumentError, match="cannot be read"):
        renderer(source, SMALL)


def test_repair_is_a_warning_without_output(renderer, tmp_path, capfd):
    source = write(tmp_path / "a.pdf", lambda d: d.new_page().insert_text((50, 50), "x"))
    data = source.path.read_bytes()
    source.path.write_bytes(data.replace(b"startxref", b"startxxxx")[: len(data) - 20])
    with renderer(source, SMALL) as document:
        assert document.render(1).text == "x"
        assert document.warnings == ("The file is damaged and was repaired as far as possible. Check the pages.",)
    assert capfd.readouterr() == ("", "")


def test_rendering_is_thread_safe(renderer, tmp_path):
    sources = [
        write(tmp_path / f"{i}.pdf", lambda d, i=i: d.new_page().insert_text((50, 50), f"text{i}")) for i in range(4)
    ]
    results = {}

    def work(index):
        with renderer(sources[index], IngestSettings(dpi=50)) as document:
            results[index] = [document.render(1).text for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {index: [f"text{index}"] * 10 for index in range(4)}


@pytest.mark.skipif(sys.platform != "linux", reason="requires undecodable file names and /proc")
def test_undecodable_name_opens_and_file_is_released(renderer, tmp_path):
    open_files = os.listdir("/proc/self/fd")
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.pdf"))
    with pymupdf.open() as document:
        add_annotations(document)
        path.write_bytes(document.tobytes())
    with renderer(source_of(path), SMALL) as document:
        assert "printed" in document.render(1).text
    document.close()
    assert os.listdir("/proc/self/fd") == open_files


def bar_chart(page):
    for bar, height in enumerate((60, 120, 90, 150)):
        page.draw_rect((130 + 80 * bar, 500 - height, 190 + 80 * bar, 500), fill=(0.2, 0.4, 0.8))
        page.insert_text((150 + 80 * bar, 515), str(2001 + bar), fontsize=9)
    page.draw_line((120, 500), (460, 500))
    page.draw_line((120, 340), (120, 500))
    page.insert_text((120, 540), "Figure 7. Rain in April")
    return "chart", (120, 340, 460, 518)


def ruled_table(page):
    page.insert_text((100, 190), "Table 4: Harvest by year")
    for row in range(6):
        y = 200 + 30 * row
        page.draw_line((100, y), (500, y))
        if row < 5:
            for column, text in enumerate(("Year", "Berries", "Price")):
                page.insert_text((110 + 140 * column, y + 20), f"{text} {row}")
    return "table", (100, 200, 500, 350)


def raster_image(page):
    pixels = pymupdf.Pixmap(pymupdf.csRGB, pymupdf.IRect(0, 0, 20, 20))
    pixels.clear_with(90)
    page.insert_image((60, 80, 260, 240), pixmap=pixels, keep_proportion=False)
    return "figure", (60, 80, 260, 240)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("build", [bar_chart, ruled_table, raster_image])
def test_regions_in_rotated_form_xobjects_are_found(renderer, tmp_path, build, rotation):
    """The form XObject is rotated against the page, so that the displayed content is upright."""
    with pymupdf.open() as form_document, pymupdf.open() as document:
        kind, box = build(form_document.new_page(width=600, height=800))
        size = (800, 600) if rotation in (90, 270) else (600, 800)
        page = document.new_page(width=size[0], height=size[1])
        page.show_pdf_page(page.rect, form_document, 0, rotate=rotation)
        page.set_rotation(rotation)
        document.save(tmp_path / "a.pdf")
    with renderer(source_of(tmp_path / "a.pdf"), SMALL) as document:
        page, images = document.render_with_images(1)
    expected = (box[0] / 600, box[1] / 800, box[2] / 600, box[3] / 800)
    assert page.screenshot.image.size == (600, 800)
    (region,) = page.regions
    assert region.kind == kind
    assert iou(region.box, expected) > 0.8
    assert len(images) == (build is raster_image)
    assert all(image == pytest.approx(expected, abs=BOX_TOLERANCE) for image in images)
    if kind != "figure":
        assert region.caption.startswith(("Figure 7.", "Table 4:"))


def test_invisible_shapes_are_ignored(renderer, tmp_path):
    def build(document):
        page = document.new_page(width=600, height=800)
        raster_image(page)
        page.draw_rect((50, 300, 550, 700), fill=(1, 1, 1), color=None)
        page.draw_rect((50, 300, 550, 700), fill=(0, 0, 1), color=None, fill_opacity=0)
        content = page.get_contents()[0]
        clipped_path = b"\nq 300 500 100 100 re W n 0 0 1 rg 300 500 2000 200 re f Q"
        document.update_stream(content, document.xref_stream(content) + clipped_path)

    regions = page_of(renderer, tmp_path / "a.pdf", build).regions
    assert max(region.box[2] for region in regions) < 420 / 600
    assert max(region.box[3] for region in regions) < 320 / 800


def test_regions_false_disables_detection(renderer, tmp_path):
    settings = IngestSettings(regions=False, dpi=72)
    assert (
        page_of(renderer, tmp_path / "a.pdf", lambda d: bar_chart(d.new_page(width=600, height=800)), settings).regions
        == ()
    )


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    """Return file name → source of all PDFs in the test set, including unusual names."""
    folder = tmp_path_factory.mktemp("bad")
    for path in BAD_FILES.iterdir():
        if path.name != "manifest.json":
            shutil.copy(path, folder)
    with zipfile.ZipFile(folder / "odd_names.zip") as archive:
        for name in archive.namelist():
            try:
                (folder / name).write_bytes(archive.read(name))
            except OSError:  # Windows does not allow < > " | in file names
                continue
    entries = find_sources([folder])
    return {entry.path.name: entry for entry in entries if isinstance(entry, SourceFile) and entry.kind == "pdf"}


def render_all(renderer, source, passwords=()):
    """Return the pages, failures and warnings of a file."""
    pages, failures = [], []
    try:
        with renderer(source, IngestSettings(dpi=50, passwords=passwords)) as document:
            warnings = list(document.warnings)
            for number in range(1, document.page_count + 1):
                try:
                    pages.append(document.render(number))
                except DocumentError as error:
                    failures.append(str(error))
    except DocumentError as error:
        return [], [str(error)], []
    return pages, failures, warnings + [warning for page in pages for warning in page.warnings]


@pytest.mark.parametrize("entry", BAD_PDFS, ids=lambda entry: entry["file"].encode("ascii", "replace").decode())
def test_bad_file_matches_manifest_outcome(entry, renderer, bad_files):
    if entry["file"] not in bad_files:
        pytest.skip("the file system does not allow the name")
    pages, failures, warnings = render_all(renderer, bad_files[entry["file"]])
    assert pages or failures, "the file has neither pages nor failures"
    if entry["should_index"] is True:
        assert len(pages) == {"1 or 2": 2}.get(entry["indexable_pages"], entry["indexable_pages"])
        assert not failures
    if entry["should_index"] is False or entry["should_index"] == "only with password":
        assert not pages
    for reason in (*failures, *warnings):
        assert reason.endswith(".")
        assert "/" not in reason
        assert "\n" not in reason
    for page in pages:
        assert page.screenshot.image.mode == "RGB"
        assert min(page.screenshot.image.size) >= 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("encrypted_known_password.pdf", "no password is configured"),
        ("encrypted_unknown_password.pdf", "no password is configured"),
        ("truncated.pdf", "damaged and cannot be repaired"),
        ("zero_pages.pdf", "no pages"),
    ],
)
def test_failure_reason_names_cause(name, reason, renderer, bad_files):
    _, (failure,), _ = render_all(renderer, bad_files[name])
    assert reason in failure


def test_repairs_and_blank_renders_are_warnings(renderer, bad_files):
    for name, warning in (
        ("broken_font.pdf", "repaired"),
        ("corrupt_xref.pdf", "repaired"),
        ("huge_page_box.pdf", "dpi"),
    ):
        assert any(warning in message for message in render_all(renderer, bad_files[name])[2]), name
    first, second = render_all(renderer, bad_files["one_bad_page.pdf"])[0]
    assert "blank" in first.warnings[0]
    assert (second.number, second.text, second.warnings) == (2, "Second page is fine juniper", ())
    # MuPDF decodes these streams and PDFium does not, so a blank page must have a warning.
    (page,), _, warnings = render_all(renderer, bad_files["brotli_streams.pdf"])
    assert bool(page.words) != any("blank" in warning for warning in warnings)
    assert len(render_all(renderer, bad_files["encrypted_known_password.pdf"], ("wrong", "secret123"))[0]) == 2


def test_pdfium_works_without_pymupdf():
    code = (
        "import sys, pathlib\n"
        "sys.modules['pymupdf'] = sys.modules['fitz'] = None\n"
        "import jina_rag.parsing.pages, jina_rag.parsing.pdf.pymupdf_renderer\n"
        "from jina_rag.config import IngestSettings\n"
        "from jina_rag.parsing.documents import open_document\n"
        "from jina_rag.parsing.sources import source_file\n"
        "with open_document(source_file(sys.argv[1]), IngestSettings(renderer='pypdfium2')) as document:\n"
        "    page = document.render(1)\n"
        "print(page.text, page.screenshot.image.size)"
    )
    path = BAD_FILES / "rotated_90.pdf"
    process = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert process.stdout == "Rotated juniper sheet page 1 (1755, 1240)\n"
    assert process.stderr == ""


def test_missing_pypdfium2_error_has_pip_command(monkeypatch):
    from jina_rag.parsing.pdf.pdfium_library import library

    library.cache_clear()
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(MissingDependencyError, match="pip install pypdfium2"):
        PdfiumRenderer(source_of(BAD_FILES / "rotated_90.pdf"), SMALL)
