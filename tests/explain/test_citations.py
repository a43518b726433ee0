"""Citations: boxes, images and words of cited passages, charts and tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.explain.citation_span import MAX_LINES, are_patches, paragraph_box, patch_box
from jina_rag.explain.citations import MIN_SIZE, Citation, cite
from jina_rag.explain.explanation import Explanation
from jina_rag.types import Region, ScoredPage

HIT = ScoredPage(doc_id="a/report.pdf", path=Path("/docs/a/report.pdf"), page=3, score=0.7, image_path=None)


def text_lines(text, x=0.1, y=0.1, *, height=0.015, pitch=0.02, width=0.012):
    """Return the words of a text and the boxes of the words; the width of a box is proportional to the word length."""
    words, boxes = [], []
    for number, line in enumerate(text.splitlines()):
        at = x
        for word in line.split():
            words.append(word)
            boxes.append((at, y + number * pitch, at + width * len(word), y + number * pitch + height))
            at = boxes[-1][2] + width
    return words, boxes


def join_lines(*parts):
    words = [word for part in parts for word in part[0]]
    boxes = np.array([box for part in parts for box in part[1]], dtype=np.float32)
    return words, boxes


def heat_map(words, boxes, bright, image=Path("page.png")):
    """Return a heat map with the weights in `bright` (word → weight) and 0 for all other words."""
    return Explanation(boxes, np.array([bright.get(word, 0) for word in words], dtype=np.float32), image)


LEFT_PARAGRAPH = text_lines("alpha beta gamma\ndelta epsilon zeta\neta theta", 0.1, 0.2)
SECOND_PARAGRAPH = text_lines("iota kappa\nlambda mu", 0.1, 0.4)
RIGHT_COLUMN = text_lines("nu xi omicron\npi rho sigma\ntau", 0.6, 0.2)
HEADING = text_lines("HEADING", 0.1, 0.155, height=0.035, pitch=0.05)
PAGE = join_lines(HEADING, LEFT_PARAGRAPH, SECOND_PARAGRAPH, RIGHT_COLUMN)


def cited_text(word, **options):
    return cite(HIT, heat_map(*PAGE, {word: 1.0}), words=PAGE, **options).text


@pytest.mark.parametrize("word", ["alpha", "epsilon", "theta"])
def test_cited_passage_is_paragraph_of_top_word(word):
    assert cited_text(word) == "alpha beta gamma delta epsilon zeta eta theta"


def test_cited_passage_excludes_other_paragraphs_columns_and_headings():
    assert cited_text("xi") == "nu xi omicron pi rho sigma tau"
    assert cited_text("kappa") == "iota kappa lambda mu"
    assert cited_text("HEADING").startswith("HEADING")


def test_long_paragraph_is_cut_to_most_relevant_lines():
    long = join_lines(text_lines("\n".join(f"word{i} of line{i}" for i in range(30))))
    bright = {"word20": 1.0, **{f"line{i}": 0.5 for i in range(20, 28)}}
    citation = cite(HIT, heat_map(*long, bright), words=long)
    assert [word for word in citation.text.split() if word.startswith("word")] == [f"word{i}" for i in range(20, 28)]
    assert MAX_LINES == 8
    assert citation.weight == pytest.approx((1.0 + 8 * 0.5) / 24)


def test_citation_without_words_has_box_and_no_text():
    citation = cite(HIT, heat_map(*PAGE, {"epsilon": 1.0}))
    assert citation.text == ""
    assert citation.box[1] < 0.2 < 0.255 < citation.box[3] < 0.3
    assert citation.box == cite(HIT, heat_map(*PAGE, {"epsilon": 1.0}), words=PAGE).box


def test_citation_text_uses_index_words_and_token_weights():
    """Words and tokens differ in number: a stop word has no token, and a long word has several tokens."""
    tokens = np.array([PAGE[1][PAGE[0].index(word)] for word in ("beta", "zeta", "nu")])
    citation = cite(HIT, Explanation(tokens, np.array([0.2, 1, 0], dtype=np.float32), Path("x")), words=PAGE)
    assert citation.text == "alpha beta gamma delta epsilon zeta eta theta"
    assert citation.weight == pytest.approx(0.6)


def test_citation_box_has_minimum_size_inside_page():
    corner = join_lines(text_lines("x", 0.97, 0.985))
    citation = cite(HIT, heat_map(*corner, {"x": 1.0}), words=corner)
    x0, y0, x1, y1 = citation.box
    assert (x1, y1) == (1, 1)
    assert (x1 - x0, y1 - y0) == pytest.approx(MIN_SIZE)


TABLE = Region("table", (0.55, 0.15, 0.95, 0.3), "Table 1: Greek letters")


def test_table_containing_top_word_is_cited_whole():
    citation = cite(HIT, heat_map(*PAGE, {"xi": 1.0}), words=PAGE, regions=[TABLE])
    assert (citation.kind, citation.box, citation.caption) == ("table", TABLE.box, "Table 1: Greek letters")
    assert citation.text == "nu xi omicron pi rho sigma tau"
    assert cite(HIT, heat_map(*PAGE, {"beta": 1.0}), words=PAGE, regions=[TABLE]).kind is None


def test_smallest_region_is_cited_and_page_sized_region_ignored():
    inner = Region("chart", (0.58, 0.18, 0.9, 0.25))
    frame = Region("figure", (0.0, 0.0, 1.0, 1.0))
    explanation = heat_map(*PAGE, {"xi": 1.0})
    assert cite(HIT, explanation, words=PAGE, regions=[TABLE, inner, frame]).kind == "chart"
    assert cite(HIT, explanation, words=PAGE, regions=[frame]).kind is None


def test_hit_region_is_cited_above_minimum_weight():
    hit_with_region = replace(HIT, region=TABLE)
    assert cite(hit_with_region, heat_map(*PAGE, {"beta": 1.0, "xi": 0.4}), words=PAGE).kind == "table"
    assert cite(hit_with_region, heat_map(*PAGE, {"beta": 1.0, "xi": 0.1}), words=PAGE).kind is None


def test_top_word_in_caption_cites_its_table():
    caption = text_lines("Table 1: Greek letters", 0.55, 0.33)
    with_caption = join_lines(LEFT_PARAGRAPH, RIGHT_COLUMN, caption)
    explanation = heat_map(*with_caption, {"Greek": 1.0})
    assert cite(HIT, explanation, words=with_caption, regions=[TABLE]).kind == "table"
    assert cite(HIT, explanation, regions=[TABLE]).kind is None  # the index stores no word boxes


def patches(columns=10, rows=12):
    return np.array(
        [(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows) for y in range(rows) for x in range(columns)],
        dtype=np.float32,
    )


def test_connected_patches_are_cited():
    weights = np.zeros(120, dtype=np.float32)
    weights[[33, 34, 44, 54, 55, 56]] = [0.6, 1.0, 0.7, 0.6, 0.55, 0.5]
    # Patch 99 has a high weight, but is not connected; patch 57 is connected, but has a low weight.
    weights[[99, 57]] = [0.9, 0.3]
    citation = cite(HIT, Explanation(patches(), weights, Path("x")), words=PAGE)
    x0, y0, x1, y1 = citation.box
    assert (x0, x1) == pytest.approx((0.3, 0.7), abs=0.01)
    assert (y0, y1) == pytest.approx((3 / 12, 6 / 12), abs=0.01)
    assert "xi" not in citation.text.split()


def brute_force_patch_box(boxes, weights, peak):
    """Compute `patch_box` by pairwise comparison of all boxes."""
    bright_mask = weights >= 0.5 * weights[peak]
    members = np.arange(len(boxes)) == peak
    while True:
        low, high = boxes[members, None, :2] - np.float32(1e-3), boxes[members, None, 2:] + np.float32(1e-3)
        reachable = members | (bright_mask & ((boxes[:, :2] <= high) & (boxes[:, 2:] >= low)).all(axis=2).any(axis=0))
        if (reachable == members).all():
            return (*boxes[members, :2].min(axis=0).tolist(), *boxes[members, 2:].max(axis=0).tolist())
        members = reachable


SIDES = st.one_of(st.sampled_from([0, 0.1, 0.2, 0.25, 0.3, 0.301, 0.5, 1]), st.floats(-0.5, 1.5, width=32))


@given(st.lists(st.tuples(SIDES, SIDES, SIDES, SIDES, st.sampled_from([0.1, 0.6, 1.0])), min_size=1, max_size=30))
def test_patch_box_equals_brute_force(box_tuples):
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, _ in box_tuples], dtype=np.float32)
    weights = np.array([weight for *_, weight in box_tuples], dtype=np.float32)
    peak = int(weights.argmax())
    assert patch_box(boxes, weights, peak) == brute_force_patch_box(boxes, weights, peak)


def test_patch_box_of_many_patches_equals_brute_force():
    """A random maze of 30 x 30 patches, and 40,000 patches of equal weight."""
    maze = (np.random.default_rng(0).random(900) < 0.6).astype(np.float32)
    maze[0] = 1
    assert patch_box(patches(30, 30), maze, 0) == brute_force_patch_box(patches(30, 30), maze, 0)
    assert patch_box(patches(200, 200), np.ones(40_000, dtype=np.float32), 7) == (0, 0, 1, 1)


def test_words_with_invalid_box_are_ignored():
    invalid_boxes = np.array([[np.nan] * 4, [0.5, 0.5, 0.4, 0.4], [0, 0, np.inf, 1], [-np.inf] * 4], dtype=np.float32)
    words = ([*PAGE[0], "nan", "inverted", "infinite", "far"], np.concatenate([PAGE[1], invalid_boxes]))
    explanation = heat_map(*PAGE, {"epsilon": 1.0})
    assert cite(HIT, explanation, words=words) == cite(HIT, explanation, words=PAGE)
    only_invalid = cite(HIT, explanation, words=(["nan", "a", "b", "c"], invalid_boxes))
    assert (only_invalid.text, only_invalid.box) == ("", cite(HIT, explanation).box)


@pytest.mark.parametrize("empty", [np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32)])
def test_empty_words_fall_back_to_heat_map_boxes(empty):
    explanation = heat_map(*PAGE, {"epsilon": 1.0})
    assert cite(HIT, explanation, words=([], empty)) == cite(HIT, explanation)


def test_are_patches_rejects_words_and_gaps():
    assert are_patches(patches())
    assert not are_patches(PAGE[1])
    assert not are_patches(patches()[:3])
    assert not are_patches(patches()[::2])


def test_page_without_boxes_is_cited_whole():
    citation = cite(HIT, Explanation.empty(Path("x")), words=PAGE)
    assert (citation.box, citation.weight, citation.kind) == ((0, 0, 1, 1), 0, None)
    assert citation.text == " ".join(PAGE[0])
    assert cite(replace(HIT, region=TABLE), Explanation.empty(Path("x"))).box == TABLE.box


def test_uniform_weights_cite_whole_page():
    assert cite(HIT, heat_map(*PAGE, {})).box == (0, 0, 1, 1)


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4, st.floats(0, 1, width=32)), min_size=1, max_size=40))
def test_citation_box_is_inside_page_for_any_boxes(box_tuples):
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, _ in box_tuples], dtype=np.float32)
    weights = np.array([weight for *_, weight in box_tuples], dtype=np.float32)
    citation = cite(HIT, Explanation(boxes, weights, Path("x")), words=([str(i) for i in range(len(boxes))], boxes))
    x0, y0, x1, y1 = citation.box
    assert 0 <= x0 < x1 <= 1
    assert 0 <= y0 < y1 <= 1
    assert 0 <= citation.weight <= 1


def test_paragraph_box_stays_in_column_on_dense_page():
    columns = [text_lines("\n".join(["w"] * 100), x, 0, pitch=0.01, height=0.006) for x in np.arange(0, 0.95, 0.05)]
    _, boxes = join_lines(*columns)
    box = paragraph_box(boxes, 700, np.ones(len(boxes), dtype=np.float32))
    assert box[0] <= boxes[700][0]
    assert box[2] <= boxes[700][2] + 1e-6
    assert box[3] >= boxes[700][3]


def test_mismatched_boxes_raise_invalid_input_error():
    with pytest.raises(InvalidInputError, match="expected one box per word"):
        cite(HIT, heat_map(*PAGE, {"xi": 1}), words=(["one"], PAGE[1]))
    with pytest.raises(InvalidInputError, match="expected one box per weight"):
        cite(HIT, Explanation(PAGE[1], np.zeros(2, dtype=np.float32), Path("x")))


def test_citation_crop_and_save(tmp_path):
    file = tmp_path / "page.png"
    image = Image.new("RGB", (200, 400), "white")
    image.paste((255, 0, 0), (100, 100, 200, 200))
    image.save(file)
    citation = Citation("a.pdf", Path("/docs/a.pdf"), 2, (0.5, 0.25, 1.0, 0.5), image_path=file)
    assert citation.label == "a.pdf, page 2"
    assert citation.crop().size == (100, 100)
    assert citation.crop().getcolors() == [(10_000, (255, 0, 0))]
    assert citation.crop(max_side=50).size == (50, 50)
    citation.save(tmp_path / "crop.png")
    with Image.open(tmp_path / "crop.png") as saved:
        assert (saved.format, saved.size) == ("PNG", (100, 100))
    assert replace(citation, box=(1.0, 1.0, 1.0, 1.0)).crop().size == (1, 1)


def test_missing_screenshot_raises_index_state_error(tmp_path):
    citation = Citation("a.pdf", Path("/docs/a.pdf"), 2, (0, 0, 1, 1))
    with pytest.raises(IndexStateError, match=r"a\.pdf, page 2"):
        citation.crop()
    with pytest.raises(IndexStateError, match=r"^a\.pdf, page 2: .*gone\.jpg is missing or damaged"):
        replace(citation, image_path=tmp_path / "gone.jpg").crop()
