"""Citations: the passage around the brightest place, whole charts and tables, their pictures and words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.explain.citation_span import LINES, are_patches, blob, paragraph
from jina_rag.explain.citations import LEAST, Citation, cite
from jina_rag.explain.explanation import Explanation
from jina_rag.types import Region, ScoredPage

HIT = ScoredPage(doc_id="a/report.pdf", path=Path("/docs/a/report.pdf"), page=3, score=0.7, image_path=None)


def lines(text, x=0.1, y=0.1, *, height=0.015, pitch=0.02, width=0.012):
    """Words with boxes: a line of print for each line of text, each word as long as it is."""
    words, boxes = [], []
    for number, line in enumerate(text.splitlines()):
        at = x
        for word in line.split():
            words.append(word)
            boxes.append((at, y + number * pitch, at + width * len(word), y + number * pitch + height))
            at = boxes[-1][2] + width
    return words, boxes


def page(*parts):
    words = [word for part in parts for word in part[0]]
    boxes = np.array([box for part in parts for box in part[1]], dtype=np.float32)
    return words, boxes


def heat(words, boxes, bright, image=Path("page.png")):
    """A heat map in which some words are bright: word → weight."""
    return Explanation(boxes, np.array([bright.get(word, 0) for word in words], dtype=np.float32), image)


LEFT = lines("alpha beta gamma\ndelta epsilon zeta\neta theta", 0.1, 0.2)
NEXT = lines("iota kappa\nlambda mu", 0.1, 0.4)
RIGHT = lines("nu xi omicron\npi rho sigma\ntau", 0.6, 0.2)
HEADING = lines("HEADING", 0.1, 0.155, height=0.035, pitch=0.05)
PAGE = page(HEADING, LEFT, NEXT, RIGHT)


def text_for(word, **options):
    return cite(HIT, heat(*PAGE, {word: 1.0}), words=PAGE, **options).text


@pytest.mark.parametrize("word", ["alpha", "epsilon", "theta"])
def test_a_passage_is_the_paragraph_around_the_brightest_word(word):
    assert text_for(word) == "alpha beta gamma delta epsilon zeta eta theta"


def test_other_paragraphs_columns_and_headings_are_no_part_of_it():
    assert text_for("xi") == "nu xi omicron pi rho sigma tau"
    assert text_for("kappa") == "iota kappa lambda mu"
    assert text_for("HEADING").startswith("HEADING")


def test_of_a_long_paragraph_the_lines_that_speak_most():
    long = page(lines("\n".join(f"word{i} of line{i}" for i in range(30))))
    bright = {"word20": 1.0, **{f"line{i}": 0.5 for i in range(20, 28)}}
    cited = cite(HIT, heat(*long, bright), words=long)
    assert [word for word in cited.text.split() if word.startswith("word")] == [f"word{i}" for i in range(20, 28)]
    assert LINES == 8
    assert cited.weight == pytest.approx((1.0 + 8 * 0.5) / 24)


def test_without_words_the_places_tell_the_box_and_there_is_no_text():
    cited = cite(HIT, heat(*PAGE, {"epsilon": 1.0}))
    assert cited.text == ""
    assert cited.box[1] < 0.2 < 0.255 < cited.box[3] < 0.3
    assert cited.box == cite(HIT, heat(*PAGE, {"epsilon": 1.0}), words=PAGE).box


def test_words_come_from_the_index_and_weights_from_the_tokens():
    """The words of the page are more than its tokens: stop words have none, long words have several."""
    tokens = np.array([PAGE[1][PAGE[0].index(word)] for word in ("beta", "zeta", "nu")])
    cited = cite(HIT, Explanation(tokens, np.array([0.2, 1, 0], dtype=np.float32), Path("x")), words=PAGE)
    assert cited.text == "alpha beta gamma delta epsilon zeta eta theta"
    assert cited.weight == pytest.approx(0.6)


def test_a_box_can_be_read_and_lies_on_the_page():
    corner = page(lines("x", 0.97, 0.985))
    cited = cite(HIT, heat(*corner, {"x": 1.0}), words=corner)
    x0, y0, x1, y1 = cited.box
    assert (x1, y1) == (1, 1)
    assert (x1 - x0, y1 - y0) == pytest.approx(LEAST)


TABLE = Region("table", (0.55, 0.15, 0.95, 0.3), "Table 1: Greek letters")


def test_a_table_is_cited_as_a_whole_where_it_covers_the_brightest_word():
    cited = cite(HIT, heat(*PAGE, {"xi": 1.0}), words=PAGE, regions=[TABLE])
    assert (cited.kind, cited.box, cited.caption) == ("table", TABLE.box, "Table 1: Greek letters")
    assert cited.text == "nu xi omicron pi rho sigma tau"
    assert cite(HIT, heat(*PAGE, {"beta": 1.0}), words=PAGE, regions=[TABLE]).kind is None


def test_the_smallest_region_counts_and_a_frame_around_the_page_does_not():
    inner = Region("chart", (0.58, 0.18, 0.9, 0.25))
    frame = Region("figure", (0.0, 0.0, 1.0, 1.0))
    bright = heat(*PAGE, {"xi": 1.0})
    assert cite(HIT, bright, words=PAGE, regions=[TABLE, inner, frame]).kind == "chart"
    assert cite(HIT, bright, words=PAGE, regions=[frame]).kind is None


def test_the_hits_own_region_is_cited_unless_it_is_dark():
    own = replace(HIT, region=TABLE)
    assert cite(own, heat(*PAGE, {"beta": 1.0, "xi": 0.4}), words=PAGE).kind == "table"
    assert cite(own, heat(*PAGE, {"beta": 1.0, "xi": 0.1}), words=PAGE).kind is None


def test_a_bright_caption_leads_to_its_table():
    caption = lines("Table 1: Greek letters", 0.55, 0.33)
    with_caption = page(LEFT, RIGHT, caption)
    bright = heat(*with_caption, {"Greek": 1.0})
    assert cite(HIT, bright, words=with_caption, regions=[TABLE]).kind == "table"
    assert cite(HIT, bright, regions=[TABLE]).kind is None  # where words stand is not known


def patches(columns=10, rows=12):
    return np.array(
        [(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows) for y in range(rows) for x in range(columns)],
        dtype=np.float32,
    )


def test_patches_that_hang_together_are_cited():
    weights = np.zeros(120, dtype=np.float32)
    weights[[33, 34, 44, 54, 55, 56]] = [0.6, 1.0, 0.7, 0.6, 0.55, 0.5]
    weights[[99, 57]] = [0.9, 0.3]  # bright but elsewhere; there but dark
    cited = cite(HIT, Explanation(patches(), weights, Path("x")), words=PAGE)
    x0, y0, x1, y1 = cited.box
    assert (x0, x1) == pytest.approx((0.3, 0.7), abs=0.01)
    assert (y0, y1) == pytest.approx((3 / 12, 6 / 12), abs=0.01)
    assert "xi" not in cited.text.split()


def grown(boxes, weights, bright):
    """What `blob` finds, each box compared with each."""
    lit = weights >= 0.5 * weights[bright]
    found = np.arange(len(boxes)) == bright
    while True:
        low, high = boxes[found, None, :2] - np.float32(1e-3), boxes[found, None, 2:] + np.float32(1e-3)
        touched = found | (lit & ((boxes[:, :2] <= high) & (boxes[:, 2:] >= low)).all(axis=2).any(axis=0))
        if (touched == found).all():
            return (*boxes[found, :2].min(axis=0).tolist(), *boxes[found, 2:].max(axis=0).tolist())
        found = touched


SIDES = st.one_of(st.sampled_from([0, 0.1, 0.2, 0.25, 0.3, 0.301, 0.5, 1]), st.floats(-0.5, 1.5, width=32))


@given(st.lists(st.tuples(SIDES, SIDES, SIDES, SIDES, st.sampled_from([0.1, 0.6, 1.0])), min_size=1, max_size=30))
def test_patches_hang_together_as_if_each_were_compared_with_each(given_boxes):
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, _ in given_boxes], dtype=np.float32)
    weights = np.array([weight for *_, weight in given_boxes], dtype=np.float32)
    bright = int(weights.argmax())
    assert blob(boxes, weights, bright) == grown(boxes, weights, bright)


def test_a_patch_is_compared_with_its_neighbours_only():
    """A maze of 30 x 30 patches, and forty thousand that are all lit."""
    maze = (np.random.default_rng(0).random(900) < 0.6).astype(np.float32)
    maze[0] = 1
    assert blob(patches(30, 30), maze, 0) == grown(patches(30, 30), maze, 0)
    assert blob(patches(200, 200), np.ones(40_000, dtype=np.float32), 7) == (0, 0, 1, 1)


def test_words_without_a_proper_box_are_nowhere():
    odd = np.array([[np.nan] * 4, [0.5, 0.5, 0.4, 0.4], [0, 0, np.inf, 1], [-np.inf] * 4], dtype=np.float32)
    words = ([*PAGE[0], "nan", "inverted", "endless", "far"], np.concatenate([PAGE[1], odd]))
    bright = heat(*PAGE, {"epsilon": 1.0})
    assert cite(HIT, bright, words=words) == cite(HIT, bright, words=PAGE)
    alone = cite(HIT, bright, words=(["nan", "a", "b", "c"], odd))
    assert (alone.text, alone.box) == ("", cite(HIT, bright).box)


@pytest.mark.parametrize("empty", [np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32)])
def test_a_page_whose_words_are_none_is_cited_by_its_places(empty):
    bright = heat(*PAGE, {"epsilon": 1.0})
    assert cite(HIT, bright, words=([], empty)) == cite(HIT, bright)


def test_words_are_not_taken_for_patches():
    assert are_patches(patches())
    assert not are_patches(PAGE[1])
    assert not are_patches(patches()[:3])
    assert not are_patches(patches()[::2])


def test_a_page_without_places_is_cited_as_a_whole():
    cited = cite(HIT, Explanation.empty(Path("x")), words=PAGE)
    assert (cited.box, cited.weight, cited.kind) == ((0, 0, 1, 1), 0, None)
    assert cited.text == " ".join(PAGE[0])
    assert cite(replace(HIT, region=TABLE), Explanation.empty(Path("x"))).box == TABLE.box


def test_places_that_are_all_alike_point_at_nothing():
    assert cite(HIT, heat(*PAGE, {})).box == (0, 0, 1, 1)


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4, st.floats(0, 1, width=32)), min_size=1, max_size=40))
def test_any_boxes_give_a_box_on_the_page(given_boxes):
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, _ in given_boxes], dtype=np.float32)
    weights = np.array([weight for *_, weight in given_boxes], dtype=np.float32)
    cited = cite(HIT, Explanation(boxes, weights, Path("x")), words=([str(i) for i in range(len(boxes))], boxes))
    x0, y0, x1, y1 = cited.box
    assert 0 <= x0 < x1 <= 1
    assert 0 <= y0 < y1 <= 1
    assert 0 <= cited.weight <= 1


def test_a_page_of_thousands_of_words_gives_the_column_of_the_word():
    many = page(*[lines("\n".join(["w"] * 100), x, 0, pitch=0.01, height=0.006) for x in np.arange(0, 0.95, 0.05)])
    box = paragraph(many[1], 700, np.ones(len(many[1]), dtype=np.float32))
    assert box[0] <= many[1][700][0]
    assert box[2] <= many[1][700][2] + 1e-6
    assert box[3] >= many[1][700][3]


def test_boxes_that_do_not_fit_are_refused():
    with pytest.raises(InvalidInputError, match="not of one page"):
        cite(HIT, heat(*PAGE, {"xi": 1}), words=(["one"], PAGE[1]))
    with pytest.raises(InvalidInputError, match="not of one page"):
        cite(HIT, Explanation(PAGE[1], np.zeros(2, dtype=np.float32), Path("x")))


def test_the_picture_of_a_citation(tmp_path):
    file = tmp_path / "page.png"
    image = Image.new("RGB", (200, 400), "white")
    image.paste((255, 0, 0), (100, 100, 200, 200))
    image.save(file)
    cited = Citation("a.pdf", Path("/docs/a.pdf"), 2, (0.5, 0.25, 1.0, 0.5), image_path=file)
    assert cited.label == "a.pdf, page 2"
    assert cited.crop().size == (100, 100)
    assert cited.crop().getcolors() == [(10_000, (255, 0, 0))]
    assert cited.crop(max_side=50).size == (50, 50)
    cited.save(tmp_path / "crop.png")
    with Image.open(tmp_path / "crop.png") as saved:
        assert (saved.format, saved.size) == ("PNG", (100, 100))
    assert replace(cited, box=(1.0, 1.0, 1.0, 1.0)).crop().size == (1, 1)


def test_a_picture_that_is_not_there_is_said(tmp_path):
    cited = Citation("a.pdf", Path("/docs/a.pdf"), 2, (0, 0, 1, 1))
    with pytest.raises(IndexStateError, match=r"a\.pdf, page 2"):
        cited.crop()
    with pytest.raises(IndexStateError, match=r"^a\.pdf, page 2: .*gone\.jpg is missing or damaged"):
        replace(cited, image_path=tmp_path / "gone.jpg").crop()
