"""What every PDF renderer must do, and how far two of them may differ on the same page."""

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

BAD = DATA / "bad"
# Those of the set that are PDFs by content.
FILES = [
    entry
    for entry in json.loads((BAD / "manifest.json").read_text("utf-8"))["files"]
    if "pdf" in entry["file"].lower() and entry["file"] not in ("text_named.pdf", "zero_bytes.pdf")
]
RENDERERS = {"pymupdf": PyMuPdfRenderer, "pypdfium2": PdfiumRenderer}
SAMPLES = sorted((Path(jina_rag.__file__).parent / "samples" / "documents").glob("*.pdf"))
SOUND = [
    BAD / name
    for name in (
        "UPPER.PDF", "blank_pages.pdf", "corrupt_xref.pdf", "duplicate_a.pdf", "encrypted_owner_only.pdf",
        "huge_page_box.pdf", "pdf_without_extension", "prompt_injection.pdf", "rotated_90.pdf", "tiny_page_box.pdf",
    )
]  # fmt: skip
SMALL = IngestSettings(dpi=72)
# Of 255, mean over the page: letters are drawn with other edges.
PIXELS = 7.0
# Of the page.
PLACE = 0.01
# Reading marks beside columns of Chinese, which the two put into another order.
ODD = {"kanbun-ja.pdf": 0.65}


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
    """Box of everything dark, as fractions."""
    dark = np.argwhere(np.asarray(image.convert("L")) < 128)
    (y0, x0), (y1, x1) = dark.min(axis=0), dark.max(axis=0) + 1
    return x0 / image.width, y0 / image.height, x1 / image.width, y1 / image.height


def agreement(pages):
    """The share of words that both have; pages are pairs."""
    one, other = (Counter(word.text for pair in pages for word in pair[side].words) for side in (0, 1))
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 1.0


# --- two renderers, the same documents ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs():
    """The first pages of many documents through both: path → pairs of pages."""
    found = {}
    for path in (*SAMPLES, *SOUND):
        with PyMuPdfRenderer(source_of(path), SMALL) as one, PdfiumRenderer(source_of(path), SMALL) as other:
            assert one.page_count == other.page_count
            assert one.warnings == other.warnings
            numbers = range(1, min(one.page_count, 4) + 1)
            found[path] = [(one.render(number), other.render(number)) for number in numbers]
    return found


@pytest.mark.parametrize("path", [*SAMPLES, *SOUND], ids=lambda path: path.name)
def test_both_show_and_read_the_same(path, pairs):
    distances = []
    for one, other in pairs[path]:
        assert (one.number, one.count, one.doc_id, one.path) == (other.number, other.count, other.doc_id, other.path)
        assert one.warnings == other.warnings
        assert other.screenshot.image.mode == "RGB"
        assert other.screenshot.dpi == pytest.approx(one.screenshot.dpi)
        sizes = one.screenshot.image.size, other.screenshot.image.size
        assert max(abs(a - b) for a, b in zip(*sizes, strict=True)) <= 1
        same = other.screenshot.image.resize(sizes[0])
        pixels = [np.asarray(image, dtype=np.int16) for image in (one.screenshot.image, same)]
        assert np.abs(pixels[0] - pixels[1]).mean() < PIXELS
        counts = [Counter(word.text for word in page.words) for page in (one, other)]
        places = {word.text: word.box for word in one.words if counts[0][word.text] == counts[1][word.text] == 1}
        distances += [
            max(abs(a - b) for a, b in zip(word.box, places[word.text], strict=True))
            for word in other.words
            if word.text in places
        ]
    assert agreement(pairs[path]) >= ODD.get(path.name, 0.93)
    assert np.mean(np.array([*distances, 0.0]) <= PLACE) >= 0.99


def test_words_agree_on_average(pairs):
    assert np.mean([agreement(pages) for path, pages in pairs.items() if path.name not in ODD]) >= 0.98


# --- what each must do --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [False, True])
def test_words_lie_where_the_pixels_are_on_turned_and_cropped_pages(renderer, tmp_path, rotation, crop):
    def build(document):
        page = document.new_page(width=300, height=500)
        page.insert_text((40, 60), "HHHHHHHHHH", fontsize=20)
        if crop:
            page.set_cropbox(pymupdf.Rect(20, 10, 280, 400))
        page.set_rotation(rotation)

    page = page_of(renderer, tmp_path / "a.pdf", build, IngestSettings(dpi=150))
    wide, high = (260, 390) if crop else (300, 500)
    size = (high, wide) if rotation in (90, 270) else (wide, high)
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
def test_boxes_are_ordered_and_within_the_page(tmp_path_factory, size, spots, rotation):
    def build(document):
        page = document.new_page(width=size[0], height=size[1])
        for index, spot in enumerate(spots):
            page.insert_text(spot, f"word{index} more")
            page.draw_rect(pymupdf.Rect(*spot, spot[0] + 200, spot[1] + 90), color=(0, 0, 1))
        page.set_cropbox(pymupdf.Rect(size[0] / 4, size[1] / 4, size[0], size[1]))
        page.set_rotation(rotation)

    source = write(tmp_path_factory.mktemp("p") / "a.pdf", build)
    for each in RENDERERS.values():
        with each(source, IngestSettings(dpi=36)) as document:
            page, images = document.render_with_images(1)
        for x0, y0, x1, y1 in [*(item.box for item in (*page.words, *page.regions)), *images]:
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1


def test_rendering_twice_gives_the_same(renderer, tmp_path):
    source = write(tmp_path / "a.pdf", with_notes)
    with renderer(source, SMALL) as document:
        first, second = document.render(1), document.render(1)
    assert (first.words, first.regions) == (second.words, second.regions)
    assert first.screenshot.image.tobytes() == second.screenshot.image.tobytes()


def test_a_huge_page_is_rendered_smaller_and_says_so(renderer, tmp_path):
    limits = IngestSettings(limits=Limits(max_render_pixels=1_000_000))
    page = page_of(renderer, tmp_path / "a.pdf", lambda d: d.new_page(width=14400, height=7200), limits)
    assert 900_000 < page.screenshot.image.width * page.screenshot.image.height <= 1_010_000
    assert page.warnings == ("The page is 14400 x 7200 points large; it was rendered at 7 dpi instead of 150.",)


def test_transparency_lies_on_white(renderer, tmp_path):
    def build(document):
        page = document.new_page(width=100, height=100)
        page.draw_rect((0, 0, 100, 100), fill=(0, 0, 0), color=None, fill_opacity=0.5)

    pixels = np.asarray(page_of(renderer, tmp_path / "a.pdf", build).screenshot.image)
    assert np.median(pixels) == pytest.approx(127, abs=2)


def test_words_are_cleaned(renderer, tmp_path):
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


def test_words_end_at_spaces_and_lines_and_not_at_a_change_of_type(renderer, tmp_path):
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


def test_what_runs_off_the_page_is_not_read(renderer, tmp_path):
    def build(document):
        page = document.new_page(width=100, height=100)
        page.insert_text((49, 50), "inside outside", fontname="cour", fontsize=10)
        page.insert_text((20, 150), "below")

    assert page_of(renderer, tmp_path / "a.pdf", build).text == "inside ou"


def test_many_scripts_in_order(renderer, tmp_path):
    texts = ["Straße naïve Łódź", "Привет мир", "東京タワーへ行く", "한국어 문서", "สวัสดี ชาวโลก"]
    with renderer(source_of(sample_pdf(tmp_path / "a.pdf", texts)), SMALL) as document:
        for number, text in enumerate(texts, start=1):
            assert document.render(number).text == text


def test_too_many_words_are_cut_with_a_warning(renderer, tmp_path):
    limits = IngestSettings(limits=Limits(max_words=3))
    page = page_of(renderer, tmp_path / "a.pdf", lambda d: d.new_page().insert_text((9, 50), "a b c d e"), limits)
    assert page.text == "a b c"
    assert page.warnings == ("The page has 5 words; the first 3 were kept.",)


def test_a_white_page_with_content_warns_and_an_empty_one_does_not(renderer, tmp_path):
    def build(document):
        document.new_page()
        document.new_page().insert_text((50, 50), "invisible", color=(1, 1, 1))
        # Operators that paint nothing are no content.
        page = document.new_page()
        page.insert_text((50, 50), "x")
        document.update_stream(page.get_contents()[0], b"q 1 0 0 1 0 0 cm BT /helv 12 Tf ET Q " * 20)

    with renderer(write(tmp_path / "a.pdf", build), SMALL) as document:
        warnings = [document.render(number).warnings for number in (1, 2, 3)]
    assert warnings == [(), ("The page has content but renders blank; its screenshot is white.",), ()]


def with_notes(document):
    """A page with a filled form, a note and a drawing over it, and one that is hidden."""
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


def test_form_fields_and_notes_are_drawn_and_read(renderer, tmp_path):
    page = page_of(renderer, tmp_path / "a.pdf", with_notes)
    assert sorted(word.text for word in page.words) == ["entered", "printed", "remark"]
    pixels = np.asarray(page.screenshot.image)
    for word in page.words:
        x0, y0, x1, y1 = (round(side * 300) for side in word.box)
        assert pixels[y0:y1, x0:x1].min() < 128, word.text
    assert pixels[210, 70].tolist() == pytest.approx([0, 0, 204], abs=3)


@pytest.mark.parametrize(("passwords", "opens"), [((), False), (("wrong",), False), (("wrong", "Schlüssel"), True)])
def test_passwords(renderer, tmp_path, passwords, opens):
    source = write(
        tmp_path / "a.pdf",
        lambda d: d.new_page().insert_text((50, 50), "inside"),
        encryption=pymupdf.PDF_ENCRYPT_AES_256,
        user_pw="Schlüssel",
        owner_pw="owner",
    )
    if opens:
        for given_as in (passwords, {"*.pdf": passwords}):
            with renderer(source, IngestSettings(dpi=36, passwords=given_as)) as document:
                assert document.render(1).text == "inside"
    else:
        tried = "none of the given passwords opens it" if passwords else "no password was given"
        with pytest.raises(PasswordRequiredError, match=f"^The document is encrypted and {tried}.$"):
            renderer(source, IngestSettings(passwords=passwords))


def test_limits_on_pages_and_bytes(renderer, tmp_path):
    source = write(tmp_path / "a.pdf", lambda d: [d.new_page() for _ in range(3)])
    with pytest.raises(LimitExceededError, match="3 pages"):
        renderer(source, IngestSettings(limits=Limits(max_pages=2)))
    with pytest.raises(LimitExceededError, match="bytes"):
        renderer(source, IngestSettings(limits=Limits(max_bytes=100)))


def test_errors_are_ours_and_leave_out_the_path(renderer, tmp_path):
    source = write(tmp_path / "a.pdf", lambda d: d.new_page())
    with renderer(source, SMALL) as document:
        for number in (0, 2):
            with pytest.raises(DocumentError, match=f"There is no page {number}: the document has 1."):
                document.render(number)
    document.close()
    with pytest.raises(DocumentError, match="cannot be rendered"):
        document.render(1)
    for content, reason in ((b"%PDF-1.4\nnothing useful", "beyond repair|no pages"), (b"", "empty")):
        source.path.write_bytes(content)
        with pytest.raises(DocumentError, match=reason) as caught:
            renderer(source, SMALL)
        assert str(tmp_path) not in str(caught.value)
    source.path.unlink()
    with pytest.raises(DocumentError, match="cannot be read"):
        renderer(source, SMALL)


def test_nothing_is_printed_and_repairs_are_told(renderer, tmp_path, capfd):
    source = write(tmp_path / "a.pdf", lambda d: d.new_page().insert_text((50, 50), "x"))
    data = source.path.read_bytes()
    source.path.write_bytes(data.replace(b"startxref", b"startxxxx")[: len(data) - 20])
    with renderer(source, SMALL) as document:
        assert document.render(1).text == "x"
        assert document.warnings == ("The file is damaged; it was repaired as far as possible.",)
    assert capfd.readouterr() == ("", "")


def test_documents_may_be_rendered_from_many_threads(renderer, tmp_path):
    sources = [
        write(tmp_path / f"{i}.pdf", lambda d, i=i: d.new_page().insert_text((50, 50), f"text{i}")) for i in range(4)
    ]
    found = {}

    def work(index):
        with renderer(sources[index], IngestSettings(dpi=50)) as document:
            found[index] = [document.render(1).text for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {index: [f"text{index}"] * 10 for index in range(4)}


@pytest.mark.skipif(sys.platform != "linux", reason="needs names of any bytes, and /proc")
def test_names_that_are_no_text_and_files_are_let_go(renderer, tmp_path):
    before = os.listdir("/proc/self/fd")
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.pdf"))
    with pymupdf.open() as document:
        with_notes(document)
        path.write_bytes(document.tobytes())
    with renderer(source_of(path), SMALL) as document:
        assert "printed" in document.render(1).text
    document.close()
    assert os.listdir("/proc/self/fd") == before


# --- regions ------------------------------------------------------------------------------------------------------


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


def raster_picture(page):
    pixels = pymupdf.Pixmap(pymupdf.csRGB, pymupdf.IRect(0, 0, 20, 20))
    pixels.clear_with(90)
    page.insert_image((60, 80, 260, 240), pixmap=pixels, keep_proportion=False)
    return "figure", (60, 80, 260, 240)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("build", [bar_chart, ruled_table, raster_picture])
def test_regions_are_found_on_turned_pages_within_forms(renderer, tmp_path, build, rotation):
    """The content lies in a form XObject, turned against the page, so that it is upright when displayed."""
    with pymupdf.open() as drawn, pymupdf.open() as document:
        kind, box = build(drawn.new_page(width=600, height=800))
        size = (800, 600) if rotation in (90, 270) else (600, 800)
        page = document.new_page(width=size[0], height=size[1])
        page.show_pdf_page(page.rect, drawn, 0, rotate=rotation)
        page.set_rotation(rotation)
        document.save(tmp_path / "a.pdf")
    with renderer(source_of(tmp_path / "a.pdf"), SMALL) as document:
        page, images = document.render_with_images(1)
    expected = (box[0] / 600, box[1] / 800, box[2] / 600, box[3] / 800)
    assert page.screenshot.image.size == (600, 800)
    (region,) = page.regions
    assert region.kind == kind
    assert iou(region.box, expected) > 0.8
    assert len(images) == (build is raster_picture)
    assert all(image == pytest.approx(expected, abs=PLACE) for image in images)
    if kind != "figure":
        assert region.caption.startswith(("Figure 7.", "Table 4:"))


def test_white_clipped_and_unpainted_shapes_do_not_count(renderer, tmp_path):
    def build(document):
        page = document.new_page(width=600, height=800)
        raster_picture(page)
        page.draw_rect((50, 300, 550, 700), fill=(1, 1, 1), color=None)
        page.draw_rect((50, 300, 550, 700), fill=(0, 0, 1), color=None, fill_opacity=0)
        content = page.get_contents()[0]
        clipped = b"\nq 300 500 100 100 re W n 0 0 1 rg 300 500 2000 200 re f Q"
        document.update_stream(content, document.xref_stream(content) + clipped)

    regions = page_of(renderer, tmp_path / "a.pdf", build).regions
    assert max(region.box[2] for region in regions) < 420 / 600
    assert max(region.box[3] for region in regions) < 320 / 800


def test_regions_can_be_switched_off(renderer, tmp_path):
    off = IngestSettings(regions=False, dpi=72)
    assert (
        page_of(renderer, tmp_path / "a.pdf", lambda d: bar_chart(d.new_page(width=600, height=800)), off).regions == ()
    )


# --- files that are bad on purpose --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    """Every PDF of the set, odd names included, by its name."""
    folder = tmp_path_factory.mktemp("bad")
    for path in BAD.iterdir():
        if path.name != "manifest.json":
            shutil.copy(path, folder)
    with zipfile.ZipFile(folder / "odd_names.zip") as archive:
        for name in archive.namelist():
            try:
                (folder / name).write_bytes(archive.read(name))
            except OSError:  # Windows forbids < > " | in names
                continue
    entries = find_sources([folder])
    return {entry.path.name: entry for entry in entries if isinstance(entry, SourceFile) and entry.kind == "pdf"}


def outcome(renderer, source, passwords=()):
    """Pages, failures and warnings of one file."""
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


@pytest.mark.parametrize("entry", FILES, ids=lambda entry: entry["file"].encode("ascii", "replace").decode())
def test_each_bad_file_ends_as_the_manifest_says(entry, renderer, bad_files):
    if entry["file"] not in bad_files:
        pytest.skip("this system does not allow the name")
    pages, failures, warnings = outcome(renderer, bad_files[entry["file"]])
    assert pages or failures, "lost silently"
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
        ("encrypted_known_password.pdf", "no password was given"),
        ("encrypted_unknown_password.pdf", "no password was given"),
        ("truncated.pdf", "damaged beyond repair"),
        ("zero_pages.pdf", "no pages"),
    ],
)
def test_reasons_name_the_cause(name, reason, renderer, bad_files):
    _, (failure,), _ = outcome(renderer, bad_files[name])
    assert reason in failure


def test_what_was_mended_or_is_missing_is_said(renderer, bad_files):
    for name, warning in (
        ("broken_font.pdf", "repaired"),
        ("corrupt_xref.pdf", "repaired"),
        ("huge_page_box.pdf", "dpi"),
    ):
        assert any(warning in said for said in outcome(renderer, bad_files[name])[2]), name
    first, second = outcome(renderer, bad_files["one_bad_page.pdf"])[0]
    assert "blank" in first.warnings[0]
    assert (second.number, second.text, second.warnings) == (2, "Second page is fine juniper", ())
    # PDFium cannot decode these streams, and MuPDF can: a blank picture is never silent.
    (page,), _, warnings = outcome(renderer, bad_files["brotli_streams.pdf"])
    assert bool(page.words) != any("blank" in warning for warning in warnings)
    assert len(outcome(renderer, bad_files["encrypted_known_password.pdf"], ("wrong", "secret123"))[0]) == 2


# --- one without the other ----------------------------------------------------------------------------------------


def test_pdfium_works_where_pymupdf_is_not_installed():
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
    path = BAD / "rotated_90.pdf"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "Rotated juniper sheet page 1 (1755, 1240)\n"
    assert done.stderr == ""


def test_a_missing_pypdfium2_is_said_with_the_way_out(monkeypatch):
    from jina_rag.parsing.pdf.pdfium_library import library

    library.cache_clear()
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(MissingDependencyError, match="pip install pypdfium2"):
        PdfiumRenderer(source_of(BAD / "rotated_90.pdf"), SMALL)
