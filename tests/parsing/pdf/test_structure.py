"""Broken page boxes and page trees: both renderers show what PDF viewers show."""

from __future__ import annotations

import time
from contextlib import suppress

import pymupdf
import pytest
from helpers.raw_pdf import FONT, LINES, one_page, page_tree, stream, text_content

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.pdf.page_boxes import LETTER, crop_to_contents, visible_box
from jina_rag.parsing.sources import SourceFile

RENDERERS = ("pymupdf", "pypdfium2")
WORDS = sum(len(line.split()) for line in LINES)
WRONG_COUNT = "The page tree of the file is damaged. The pages were counted again. Check the pages."
TREE = "/Kids[10 0 R 12 0 R]"
MANY_OBJECTS = {100 + number: f"<</A {number}>>" for number in range(300)}
PAGE = "/Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 11 0 R/Resources<</Font<</F1 5 0 R>>>>"


@pytest.fixture(params=RENDERERS)
def opened(request):
    def open_with(path):
        source = SourceFile(path, path.parent, path.name, "pdf")
        return open_document(source, IngestSettings(dpi=72, renderer=request.param))

    return open_with


def ink(page):
    """Return the box of the dark pixels."""
    return page.screenshot.image.convert("L").point(lambda value: 255 * (value < 128)).getbbox()


def words_box(page):
    width, height = page.screenshot.image.size
    x0, y0, x1, y1 = (list(sides) for sides in zip(*(word.box for word in page.words), strict=True))
    return min(x0) * width, min(y0) * height, max(x1) * width, max(y1) * height


@pytest.mark.parametrize(
    "boxes",
    [
        {"page": "/CropBox[0 0 0 0]"},
        {"page": "/CropBox[700 900 800 1000]"},
        {"page": "/CropBox[-700 -900 -100 -100]/Rotate 360"},
        {"page": "/CropBox[612 0 700 792]"},
        {"page": "/CropBox[0 400 612 400]"},
        {"page": "/CropBox[611.5 0 700 792]"},
        {"page": "/CropBox[612 792 0 0]"},
        {"page": "/CropBox[0 0 612]"},
        {"page": "/CropBox[/a /b /c /d]"},
        {"page": "/CropBox[(0)(0)(612)(792)]"},
        {"page": "/CropBox[0 0 nan nan]"},
        {"page": "/CropBox 5"},
        {"page": "/CropBox 99 0 R"},
        {"page": "/CropBox[-99999999999 -99999999999 99999999999 99999999999]"},
        {"media": "[0 0 0 0]"},
        {"media": "[612 792 0 0]"},
        {"media": "[0 0 612 0]"},
        {"media": "[0 0 0.5 0.5]"},
        {"media": "[0 0 nan nan]"},
        {"media": "[(a)(b)(c)(d)]"},
        {"media": "null"},
        {"media": "[0 0 0 0]", "page": "/CropBox[0 0 800 1000]"},
        {"media": "[0 0 99999999999 99999999999]"},
        {"page": "/UserUnit 0"},
        {"page": "/UserUnit -2"},
        {"page": "/UserUnit (x)"},
        {"page": "/UserUnit 0.0001"},
        {"page": "/UserUnit 100000"},
        {"page": "/Rotate 45"},
        {"page": "/Rotate(90)"},
        {"objects": {2: "<</Type/Pages/Kids[3 0 R]/Count 1/CropBox[700 900 800 1000]>>"}},
        {"objects": {2: "<</Type/Pages/Kids[3 0 R]/Count 1/CropBox[0 0 0 0]>>"}},
        {"media": "20 0 R", "objects": {20: "[0 0 21 0 R 792]", 21: "612"}},
    ],
    ids=str,
)
def test_invalid_boxes_show_the_whole_page(tmp_path, opened, boxes):
    with opened(one_page(tmp_path / "a.pdf", **boxes)) as document:
        page = document.render(1)
    assert page.screenshot.image.size == (612, 792)
    assert len(page.words) == WORDS
    x0, y0, x1, y1 = ink(page)
    assert words_box(page) == pytest.approx((x0, y0, x1, y1), abs=5)
    assert (x0, y0) == pytest.approx((72, 63), abs=2)


@pytest.mark.parametrize(
    ("boxes", "size"),
    [
        ({"page": "/CropBox[50 500 420 750]"}, (370, 250)),
        ({"page": "/CropBox[420 750 50 500]"}, (370, 250)),
        ({"page": "/CropBox[50 500 420 750]/Rotate 90"}, (250, 370)),
        ({"page": "/CropBox[50 500 420 750]/Rotate -90"}, (250, 370)),
        ({"page": "/CropBox[50 500 420 2000]/Rotate 180"}, (370, 292)),
        ({"page": "/CropBox[700 900 800 1000]/Rotate 90"}, (792, 612)),
        ({"media": "[-100 -100 512 792]"}, (612, 892)),
        ({"media": "[-100 -100 512 792]", "page": "/CropBox[700 900 800 1000]/Rotate 270"}, (892, 612)),
        ({"objects": {2: "<</Type/Pages/Kids[3 0 R]/Count 1/CropBox[50 500 420 750]/Rotate 90>>"}}, (250, 370)),
    ],
    ids=str,
)
def test_words_are_where_the_ink_is(tmp_path, opened, boxes, size):
    with opened(one_page(tmp_path / "a.pdf", **boxes)) as document:
        pages = [document.render(1), document.render(1)]
    for page in pages:
        assert page.screenshot.image.size == size
        assert len(page.words) > 0.8 * WORDS
        assert words_box(page) == pytest.approx(ink(page), abs=6)


def test_a_page_in_a_large_unit_has_its_real_size(tmp_path, opened):
    content = "BT /F1 1.2 Tf 1.6 TL 7.2 72 Td (first words) Tj T* (second words) Tj ET"
    path = one_page(tmp_path / "a.pdf", content, media="[0 0 61.2 79.2]", page="/UserUnit 10/Rotate 90")
    with opened(path) as document:
        for page in (document.render(1), document.render(1)):
            assert page.screenshot.image.size == (792, 612)
            assert words_box(page) == pytest.approx(ink(page), abs=8)


def test_a_page_of_kilometers_is_cropped_to_its_contents(tmp_path, opened):
    with opened(one_page(tmp_path / "a.pdf", media="[0 0 1000000 1000000]")) as document:
        page = document.render(1)
    assert max(page.screenshot.image.size) < 600
    assert len(page.words) == WORDS
    assert words_box(page) == pytest.approx(ink(page), abs=6)


def test_contents_of_a_huge_page_without_contents_are_the_page():
    page = (0.0, 0.0, 100_000.0, 100_000.0)
    assert crop_to_contents(page, []) == page
    assert crop_to_contents(page, [page]) == page
    assert crop_to_contents(page, [(10, 10, 50, 50), (500, 20, 600, 30)]) == (0, 0, 636, 86)


def test_visible_box_of_boxes_without_numbers_is_a_letter_page():
    assert visible_box(None, None) == LETTER
    assert visible_box([float("nan")] * 4, [float("inf")] * 4) == LETTER


@pytest.mark.parametrize(
    ("count", "objects"),
    [
        ("/Count 0", {}), ("", {}), ("/Count(2)", {}), ("/Count -1", {}), ("/Count/x", {}), ("/Count 99 0 R", {}),
        ("/Count 1", {}), ("/Count 14", {}), ("/Count 3", MANY_OBJECTS), ("/Count 99", MANY_OBJECTS),
        ("/Count 2147483647", {}), ("/Count 2.7", {}), ("/Count true", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_pages_are_counted(tmp_path, opened, count, objects):
    with opened(page_tree(tmp_path / "a.pdf", TREE + count, objects)) as document:
        assert [document.render(number).words[0].text for number in range(1, document.page_count + 1)] == [
            "PAGE1MARK",
            "PAGE2MARK",
        ]
        assert set(document.warnings) <= {WRONG_COUNT}


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("count", [1, 9])
def test_a_wrong_count_is_a_warning(tmp_path, renderer, count):
    path = page_tree(tmp_path / "a.pdf", f"{TREE}/Count {count}", MANY_OBJECTS)
    source = SourceFile(path, path.parent, path.name, "pdf")
    with open_document(source, IngestSettings(renderer=renderer)) as document:
        assert document.warnings == (WRONG_COUNT,)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_pages_in_object_streams_beyond_the_count_are_read(tmp_path, renderer):
    with pymupdf.open() as document:
        for number in range(3):
            document.new_page().insert_text((72, 72), f"PAGE{number + 1}MARK")
        root = document.xref_get_key(document.pdf_catalog(), "Pages")[1]
        document.xref_set_key(int(root.split()[0]), "Count", "1")
        document.save(tmp_path / "a.pdf", use_objstms=1, deflate=True)
    source = SourceFile(tmp_path / "a.pdf", tmp_path, "a.pdf", "pdf")
    with open_document(source, IngestSettings(dpi=72, renderer=renderer)) as document:
        assert [document.render(number).text for number in (1, 2, 3)] == ["PAGE1MARK", "PAGE2MARK", "PAGE3MARK"]


def test_deleted_pages_stay_deleted(tmp_path, opened):
    """A page object that the page tree does not contain is no page."""
    path = page_tree(tmp_path / "a.pdf", "/Kids[10 0 R]/Count 1", pages=3)
    with opened(path) as document:
        assert (document.page_count, document.warnings) == (1, ())


@pytest.mark.parametrize(
    ("root", "objects", "texts"),
    [
        ("/Kids[10 0 R 2 0 R 12 0 R]/Count 20", MANY_OBJECTS, "12"),
        ("/Kids[10 0 R 20 0 R]/Count 2", {20: "<</Type/Pages/Parent 2 0 R/Kids[12 0 R 14 0 R]/Count 1>>"}, "123"),
        ("/Kids[10 0 R 20 0 R]/Count 3", {20: "<</Type/Pages/Parent 2 0 R/Kids[12 0 R 14 0 R]/Count 77>>"}, "123"),
        ("/Kids[20 0 R 10 0 R 12 0 R]/Count 3", {20: "<</Type/Pages/Parent 2 0 R/Kids[]/Count 1>>"}, "12"),
        ("/Kids[20 0 R 12 0 R]/Count 3", {20: "<</Type/Page/Parent 2 0 R/Kids[10 0 R 14 0 R]/Count 2>>"}, "132"),
        (f"/Kids[<<{PAGE}>> 12 0 R]/Count 9", {}, "12"),
        ("/Kids[10 0 R 12 0 R 10 0 R]/Count 3", {}, "121"),
        ("/Kids[20 0 R 20 0 R]", {20: "<</Type/Pages/Parent 2 0 R/Kids[10 0 R 12 0 R]>>"}, "1212"),
        ("/Kids 30 0 R/Count 7", {30: "[10 0 R 12 0 R]"}, "12"),
        ("/Kids[20 0 R 12 0 R]/Count 2", {20: f"<<{PAGE.replace('/Type/Page', '')}>>"}, "12"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_trees_are_read(tmp_path, opened, root, objects, texts):
    with opened(page_tree(tmp_path / "a.pdf", root, objects, pages=3)) as document:
        numbers = range(1, document.page_count + 1)
        marks = [document.render(number).words[0].text for number in numbers]
    assert marks == [f"PAGE{text}MARK" for text in texts]


@pytest.mark.parametrize(
    "kids", ["[10 0 R null 12 0 R 14 0 R]", "[10 0 R 99 0 R 12 0 R 14 0 R]", "[10 0 R 7 12 0 R 14 0 R]"]
)
@pytest.mark.parametrize("count", [4, 5, 9])
def test_entries_that_are_no_page_cost_no_other_page(tmp_path, opened, kids, count):
    texts = []
    with opened(page_tree(tmp_path / "a.pdf", f"/Kids{kids}/Count {count}", pages=3)) as document:
        for number in range(1, document.page_count + 1):
            with suppress(DocumentError):
                texts += [word.text for word in document.render(number).words[:1]]
    assert texts == ["PAGE1MARK", "PAGE2MARK", "PAGE3MARK"]


@pytest.mark.parametrize(
    ("catalog", "root", "texts"),
    [
        ("<</Type/Catalog>>", TREE, "12"),
        ("<</Type/Catalog/Pages 99 0 R>>", TREE, "12"),
        ("<</Type/Catalog/Pages 10 0 R>>", TREE, "1"),
        ("<</Type/Catalog/Pages 2 0 R>>", "/Count 2", "12"),
        ("<</Type/Catalog/Pages 2 0 R>>", "/Kids null/Count 2", "12"),
        ("<</Type/Catalog/Pages 2 0 R>>", "/Kids[10 0 R null 12 0 R 7]/Count 4", "12"),
        ("<</Type/Catalog/Pages 2 0 R>>", "/Kids[20 0 R 12 0 R]/Count 2", "12"),
    ],
)
def test_mupdf_reads_the_pages_of_a_file_without_page_tree(tmp_path, catalog, root, texts):
    wrong_type = f"<<{PAGE.replace('/Type/Page', '/Type/Pages')}>>"
    path = page_tree(tmp_path / "a.pdf", root, {1: catalog, **({20: wrong_type} if "20 0" in root else {})})
    source = SourceFile(path, path.parent, path.name, "pdf")
    with open_document(source, IngestSettings(dpi=72, renderer="pymupdf")) as document:
        marks = [document.render(number).words[0].text for number in range(1, document.page_count + 1)]
        assert (marks, document.warnings) == ([f"PAGE{text}MARK" for text in texts], (WRONG_COUNT,))


def test_inherited_entries_survive_the_repair(tmp_path, opened):
    root = "/Kids[20 0 R]/Count 9/Resources<</Font<</F1 5 0 R>>>>/MediaBox[0 0 300 792]/Rotate 90"
    objects = {20: "<</Type/Page/Parent 2 0 R/Contents 21 0 R>>", 21: stream(text_content(["words"])), 5: FONT}
    with opened(page_tree(tmp_path / "a.pdf", root, {**objects, **MANY_OBJECTS}, pages=0)) as document:
        page = document.render(1)
        assert (document.page_count, page.screenshot.image.size, page.text) == (1, (792, 300), "words")


def test_a_tree_that_refers_to_itself_many_times_is_read_once(tmp_path, opened):
    objects = {20 + level: f"<</Type/Pages/Kids[{f'{21 + level} 0 R ' * 10}]/Count 10>>" for level in range(9)}
    objects[29] = f"<<{PAGE}>>"
    start = time.process_time()
    with opened(page_tree(tmp_path / "a.pdf", "/Kids[20 0 R 20 0 R]/Count 2", objects)) as document:
        assert document.render(1).words[0].text == "PAGE1MARK"
    assert time.process_time() - start < 60  # without the limit, 10^9 nodes
