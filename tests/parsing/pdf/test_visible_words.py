"""Words of a page: text that is drawn again, hidden, clipped or in a note, and vertical text, with both renderers."""

from __future__ import annotations

import pytest
from helpers.raw_pdf import LINES, one_page, stream, text_content

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.pdf.vertical_text import join_columns
from jina_rag.parsing.sources import SourceFile

RENDERERS = ["pymupdf", "pypdfium2"]
WORDS = " ".join(LINES).split()
COLUMNS = ("港湾局長が灯台日誌を保管する", "有機交流電燈の青い照明は因果", "第三四半期の売上高は七億円")


def words_of(path, renderer):
    source = SourceFile(path, path.parent, path.name, "pdf")
    with open_document(source, IngestSettings(dpi=72, ocr="never", renderer=renderer)) as document:
        return [word.text for word in document.render(1).words]


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("shift", [0, 0.05, 0.1, 0.3, 0.5, -0.2])
@pytest.mark.parametrize("times", [1, 3])
def test_text_drawn_again_within_half_a_point_is_one_text(tmp_path, renderer, shift, times):
    part = shift / times
    again = f"1 0 0 1 {part:.3f} {part:.3f} cm\n{text_content()}" * times
    assert words_of(one_page(tmp_path / "a.pdf", text_content() + again), renderer) == WORDS


@pytest.mark.parametrize("renderer", RENDERERS)
def test_text_repeated_in_another_place_is_two_texts(tmp_path, renderer):
    path = one_page(tmp_path / "a.pdf", text_content() + f"1 0 0 1 0 -300 cm\n{text_content()}")
    assert words_of(path, renderer) == 2 * WORDS


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize(
    ("state", "is_visible"),
    [
        ("/D<</OFF[10 0 R]>>", False),
        ("/D<</BaseState/OFF>>", False),
        ("/D<</BaseState/OFF/ON[10 0 R]>>", True),
        ("/D<<>>", True),
    ],
)
def test_text_of_a_layer_is_a_word_if_the_layer_is_on(tmp_path, renderer, state, is_visible):
    path = one_page(
        tmp_path / "a.pdf",
        text_content() + "/OC /M BDC\nBT /F1 12 Tf 72 300 Td (LAYERED) Tj ET\nEMC\n",
        resources="/Properties<</M 10 0 R>>",
        objects={
            1: f"<</Type/Catalog/Pages 2 0 R/OCProperties<</OCGs[10 0 R]{state}>>>>",
            10: "<</Type/OCG/Name(Layer)>>",
        },
    )
    assert words_of(path, renderer) == WORDS + ["LAYERED"] * is_visible


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize(("clip", "is_visible"), [("72 100 50 20", False), ("72 290 200 40", True), ("0 0 0 0", False)])
def test_text_outside_the_clipping_path_is_no_word(tmp_path, renderer, clip, is_visible):
    clipped = f"q {clip} re W n BT /F1 12 Tf 72 300 Td (CLIPPED) Tj ET Q\n"
    path = one_page(tmp_path / "a.pdf", text_content() + clipped)
    assert words_of(path, renderer) == WORDS + ["CLIPPED"] * is_visible


@pytest.mark.parametrize("renderer", RENDERERS)
def test_text_of_a_note_without_appearance_is_read(tmp_path, renderer):
    note = (
        "<</Type/Annot/Subtype/FreeText/Rect[72 400 400 430]/Contents(NOTE please pay)/DA(/Helv 12 Tf 1 0 0 rg)/F 4>>"
    )
    path = one_page(tmp_path / "a.pdf", page="/Annots[10 0 R]", objects={10: note})
    assert words_of(path, renderer) == [*WORDS, "NOTE", "please", "pay"]


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("mode", ["H", "V"])
def test_lines_of_japanese_are_words_in_both_writing_modes(tmp_path, renderer, mode):
    """Columns are read from right to left, in any order of drawing."""
    pymupdf = pytest.importorskip("pymupdf")
    font = pymupdf.Font("japan")
    letters = sorted(set("".join(COLUMNS)))
    codes = {letter: f"{font.has_glyph(ord(letter)):04x}" for letter in letters}
    mapping = "".join(f"<{codes[letter]}> <{ord(letter):04x}>\n" for letter in letters)
    lines = list(enumerate(COLUMNS))
    shown = "".join(
        f"1 0 0 1 {500 - 40 * at if mode == 'V' else 72} {740 if mode == 'V' else 740 - 40 * at} Tm "
        f"<{''.join(codes[letter] for letter in line)}> Tj\n"
        for at, line in (reversed(lines) if mode == "V" else lines)
    )
    system = "/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>/CIDToGIDMap/Identity"
    path = one_page(
        tmp_path / "a.pdf",
        f"BT /F2 18 Tf\n{shown}ET",
        fonts="/F2 10 0 R",
        objects={
            10: f"<</Type/Font/Subtype/Type0/BaseFont/Droid/Encoding/Identity-{mode}/DescendantFonts[11 0 R]"
            "/ToUnicode 14 0 R>>",
            11: f"<</Type/Font/Subtype/CIDFontType2/BaseFont/Droid{system}/DW 1000/FontDescriptor 12 0 R>>",
            12: "<</Type/FontDescriptor/FontName/Droid/Flags 4/FontBBox[0 -200 1000 900]/ItalicAngle 0/Ascent 800"
            "/Descent -200/CapHeight 700/StemV 80/FontFile2 13 0 R>>",
            13: stream(font.buffer),
            14: stream(
                "/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n/CMapName /X def /CMapType 2 def\n"
                "1 begincodespacerange <0000> <FFFF> endcodespacerange\n"
                f"{len(letters)} beginbfchar\n{mapping}endbfchar\nendcmap end end"
            ),
        },
    )
    assert words_of(path, renderer) == list(COLUMNS)


@pytest.mark.parametrize("is_joined", [True, False])
def test_columns_are_ordered_from_right_to_left_whether_the_library_joins_them_or_not(is_joined):
    """PDFium returns some columns as one word, and the leftmost column first."""
    words = []
    for left, text in ((0, "東京湾岸署"), (40, "移転計画"), (80, "について")):
        letters = [(letter, (left, 20 * at, left + 20, 20 * at + 20)) for at, letter in enumerate(text)]
        words += [(text, (left, 0, left + 20, 20 * len(text)))] if is_joined else letters
    assert [text for text, _ in join_columns(words)] == ["について", "移転計画", "東京湾岸署"]
