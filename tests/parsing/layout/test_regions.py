"""Detection of charts, tables and figures from vector shapes, images and pixels, including rotated pages."""

from __future__ import annotations

import time

import pymupdf
import pytest
from PIL import Image, ImageDraw

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.layout.boxes import area, iou, merge_boxes
from jina_rag.parsing.layout.scan_regions import find_regions_in_pixels
from jina_rag.parsing.sources import SourceFile
from jina_rag.types import Word

GRAY_IMAGE = pymupdf.Pixmap(pymupdf.csRGB, pymupdf.IRect(0, 0, 20, 20))
GRAY_IMAGE.clear_with(90)


def regions_of(tmp_path, build, rotation=0, settings=None):
    path = tmp_path / "a.pdf"
    with pymupdf.open() as document:
        page = document.new_page(width=600, height=800)
        build(page)
        page.set_rotation(rotation)
        document.save(path)
    with open_document(SourceFile(path, tmp_path, "a.pdf", "pdf"), settings or IngestSettings(dpi=72)) as document:
        return document.render(1).regions


def fractions(x0, y0, x1, y1):
    return x0 / 600, y0 / 800, x1 / 600, y1 / 800


def paragraph(page, top):
    text = "Running text that fills the width of the page and says nothing of what is drawn above or below. "
    page.insert_textbox((60, top, 540, top + 120), text * 5, fontsize=11)


def ruled_table(page):
    page.insert_text((100, 190), "Table 4: Harvest by year")
    for row in range(6):
        y = 200 + 30 * row
        page.draw_line((100, y), (500, y))
        if row < 5:
            for column, text in enumerate(("Year", "Berries", "Price")):
                page.insert_text((110 + 140 * column, y + 20), f"{text} {row}")


def chart(page):
    for bar, height in enumerate((60, 120, 90, 150)):
        page.draw_rect((130 + 80 * bar, 500 - height, 190 + 80 * bar, 500), fill=(0.2, 0.4, 0.8))
        page.insert_text((150 + 80 * bar, 515), str(2001 + bar), fontsize=9)
    page.draw_line((120, 500), (460, 500))
    page.draw_line((120, 340), (120, 500))
    page.insert_text((120, 540), "Figure 7. Rain in April")


def test_table_between_paragraphs_is_found(tmp_path):
    def build(page):
        paragraph(page, 50)
        ruled_table(page)
        paragraph(page, 380)

    (region,) = regions_of(tmp_path, build)
    assert region.kind == "table"
    assert iou(region.box, fractions(100, 200, 500, 350)) > 0.8
    assert region.caption == "Table 4: Harvest by year"


def test_frameless_table_with_three_rules_is_found(tmp_path):
    def build(page):
        paragraph(page, 50)
        for y in (200, 220, 320):
            page.draw_line((100, y), (500, y))
        for row in range(6):
            for column in range(3):
                page.insert_text((110 + 140 * column, 214 + 19 * row), f"cell{row}{column}", fontsize=9)

    (region,) = regions_of(tmp_path, build)
    assert region.kind == "table"
    assert iou(region.box, fractions(100, 200, 500, 320)) > 0.8


def test_rules_around_running_text_are_not_a_table(tmp_path):
    def build(page):
        page.draw_line((60, 45), (540, 45))
        paragraph(page, 50)
        page.draw_line((60, 170), (540, 170))

    assert regions_of(tmp_path, build) == ()


def test_chart_box_includes_axis_labels(tmp_path):
    (region,) = regions_of(tmp_path, lambda page: (chart(page), paragraph(page, 600)))
    assert region.kind == "chart"
    assert region.caption == "Figure 7. Rain in April"
    assert iou(region.box, fractions(120, 340, 460, 518)) > 0.8
    assert region.box[3] * 800 >= 515  # the box includes the labels below the axis


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_image_boxes_on_rotated_pages(tmp_path, rotation):
    corner = (60, 80, 260, 240)
    (region,) = regions_of(
        tmp_path, lambda page: page.insert_image(corner, pixmap=GRAY_IMAGE, keep_proportion=False), rotation
    )
    x0, y0, x1, y1 = fractions(*corner)
    expected = {
        0: (x0, y0, x1, y1),
        90: (1 - y1, x0, 1 - y0, x1),
        180: (1 - x1, 1 - y1, 1 - x0, 1 - y0),
        270: (y0, 1 - x1, y1, 1 - x0),
    }[rotation]
    assert region.kind == "figure"
    assert region.box == pytest.approx(expected, abs=0.01)


def test_logos_backgrounds_and_white_areas_are_dropped(tmp_path):
    def build(page):
        page.draw_rect((0, 0, 600, 800), fill=(0.9, 0.9, 1))
        page.draw_rect((50, 40, 550, 400), fill=(1, 1, 1), color=None)
        page.insert_image((20, 20, 50, 50), pixmap=GRAY_IMAGE)
        paragraph(page, 60)

    assert regions_of(tmp_path, build) == ()


def test_images_with_shared_caption_form_one_figure(tmp_path):
    def build(page):
        for left in (60, 240, 420):
            page.insert_image((left, 100, left + 120, 220), pixmap=GRAY_IMAGE)
        page.insert_text((200, 240), "Figure 3. Three views of the same juniper")

    (region,) = regions_of(tmp_path, build)
    assert iou(region.box, fractions(60, 100, 540, 220)) > 0.75


def test_separate_regions_are_sorted_top_to_bottom(tmp_path):
    def build(page):
        ruled_table(page)
        chart(page)

    regions = regions_of(tmp_path, build)
    assert [region.kind for region in regions] == ["table", "chart"]


def test_page_frame_is_split_into_its_images(tmp_path):
    def build(page):
        page.draw_rect((20, 20, 580, 780))
        page.insert_image((60, 100, 260, 300), pixmap=GRAY_IMAGE)
        page.insert_image((320, 100, 540, 300), pixmap=GRAY_IMAGE)
        page.insert_image((60, 420, 540, 700), pixmap=GRAY_IMAGE, keep_proportion=False)

    assert len(regions_of(tmp_path, build)) == 3


def test_shapes_outside_clip_path_are_ignored(tmp_path):
    def build(page):
        page.insert_image((60, 100, 200, 240), pixmap=GRAY_IMAGE)
        xref = page.get_contents()[0]
        stream = page.parent.xref_stream(xref) + b"\nq 300 500 100 100 re W n 0 0 1 rg 300 500 2000 200 re f Q"
        page.parent.update_stream(xref, stream)

    regions = regions_of(tmp_path, build)
    assert max(region.box[2] for region in regions) < 420 / 600


def test_background_of_text_page_is_not_a_region(tmp_path):
    def build(page):
        for step in range(60):  # the background consists of many stripes
            page.draw_rect((0, 13 * step, 600, 13 * step + 14), fill=(0.1, 0.2, step / 60), color=None)
        page.draw_line((0, 0), (600, 800))
        paragraph(page, 60)
        page.insert_image((60, 300, 360, 500), pixmap=GRAY_IMAGE, keep_proportion=False)

    (region,) = regions_of(tmp_path, build)
    assert iou(region.box, fractions(60, 300, 360, 500)) > 0.8


def test_page_of_shapes_without_text_is_one_region(tmp_path):
    def build(page):
        page.draw_oval((10, 10, 500, 700))
        page.draw_oval((100, 100, 590, 790))

    assert max(area(region.box) for region in regions_of(tmp_path, build)) > 0.8


def test_framed_sentence_is_not_a_figure(tmp_path):
    def build(page):
        page.draw_rect((60, 200, 540, 260), fill=(0.9, 0.95, 1))
        for row in range(2):
            page.insert_text(
                (70, 225 + 18 * row), "Every closed curve without crossings divides the plane in two parts."
            )

    assert regions_of(tmp_path, build) == ()


def test_line_drawing_is_a_figure_but_form_rules_are_not(tmp_path):
    def stairs(page):
        for step in range(8):
            x, y = 150 + 25 * step, 300 - 20 * step
            page.draw_line((x, y), (x + 25, y))
            page.draw_line((x + 25, y), (x + 25, y - 20))

    (region,) = regions_of(tmp_path, stairs)
    assert region.kind == "figure"
    assert iou(region.box, fractions(150, 140, 350, 300)) > 0.9

    def form(page):
        for row in range(6):
            page.draw_line((100, 200 + 30 * row), (500, 200 + 30 * row))
        for column in range(6):
            page.draw_line((100 + 80 * column, 200), (100 + 80 * column, 350))

    assert regions_of(tmp_path, form) == ()


def test_regions_false_disables_detection(tmp_path):
    assert regions_of(tmp_path, chart, settings=IngestSettings(regions=False, dpi=72)) == ()


def scanned_page():
    """Return (image of a page with a paragraph and a ruled table, OCR words of the image)."""
    image = Image.new("RGB", (1200, 1600), "white")
    draw = ImageDraw.Draw(image)
    words = []

    def write(text, x, y):
        draw.rectangle((x, y, x + 14 * len(text), y + 24), fill="black")
        words.append(Word(text, (x / 1200, y / 1600, (x + 14 * len(text)) / 1200, (y + 24) / 1600), ocr=True))

    for row in range(8):
        for column in range(10):
            write("words", 100 + 95 * column, 100 + 40 * row)
    for row in range(6):
        draw.line((200, 800 + 60 * row, 1000, 800 + 60 * row), fill="black", width=2)
        if row < 5:
            for column in range(3):
                write(f"cell{row}", 230 + 260 * column, 815 + 60 * row)
    return image, words


def test_table_on_scanned_page_is_found():
    (region,) = find_regions_in_pixels(*scanned_page())
    assert region.kind == "table"
    assert iou(region.box, (200 / 1200, 800 / 1600, 1000 / 1200, 1100 / 1600)) > 0.7


def test_noisy_scan_is_analyzed_within_two_seconds():
    image, words = scanned_page()
    draw = ImageDraw.Draw(image)
    for x in range(0, 1200, 26):
        for y in range(0, 1600, 26):
            draw.rectangle((x, y, x + 9, y + 9), fill="black")
    start = time.process_time()
    find_regions_in_pixels(image, words * 5)
    assert time.process_time() - start < 2


def test_photo_is_one_figure_and_blank_page_has_none():
    photo = Image.linear_gradient("L").convert("RGB")
    (region,) = find_regions_in_pixels(photo, [])
    assert (region.kind, region.box) == ("figure", (0.0, 0.0, 1.0, 1.0))
    assert find_regions_in_pixels(Image.new("RGB", (300, 200), "white"), []) == ()


def test_merged_boxes_do_not_touch():
    boxes = [(0.0, 0.0, 1.0, 1.0), (2.0, 0.0, 3.0, 1.0), (0.5, 0.5, 2.5, 0.6), (9.0, 9.0, 9.5, 9.5)]
    assert sorted(merge_boxes(boxes)) == [(0.0, 0.0, 3.0, 1.0), (9.0, 9.0, 9.5, 9.5)]
    assert len(merge_boxes(boxes, 10, 10)) == 1
    assert area((1.0, 1.0, 0.0, 2.0)) == 0
