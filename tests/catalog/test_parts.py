"""Places, heat maps, hubness, sign codes and the manifest, each by itself on hand-sized input."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jina_rag import DocumentIndex
from jina_rag.catalog.manifest import DocumentRecord, Manifest, PointRecord
from jina_rag.compression import decode_signs, encode_signs
from jina_rag.config import IngestSettings
from jina_rag.errors import IndexCorruptError, IndexMismatchError, IndexStateError, InvalidInputError
from jina_rag.explain.explanation import Explanation, explain
from jina_rag.indexing.page_payload import describe
from jina_rag.reference_queries import ReferenceQueries
from jina_rag.scoring import normalise, token_similarity
from jina_rag.search import snippets
from jina_rag.search.snippets import find_place, region_of, words_of
from jina_rag.stores import schema
from jina_rag.testing import FakeEmbedder, make_page, sample_pdf
from jina_rag.types import Failure, Region, TokenGrid, Word

FOLDER = Path("images")
CROP = f"ab/{'ab' * 32}.jpg"


def place(page, query: str):
    """What the index would show of a page for a question."""
    embedder = FakeEmbedder()
    embedded = embedder.encode_document([page])
    payload = describe(page, embedded.multi[0], embedded.grids[0], [CROP] * len(page.regions))
    return find_place(embedder.encode_query([query]).multi[0], payload, FOLDER)


# make_page writes eight words a line; a line is 0.03 of the page high.
LEFT = (0.0, 0.0, 0.48, 0.2)
RIGHT = (0.48, 0.0, 1.0, 0.2)
WORDS = "sun sun sun sun rain rain rain rain"


def test_the_region_whose_words_match_is_named_with_its_crop():
    page = make_page(WORDS, regions=[Region("table", LEFT), Region("chart", RIGHT)])
    assert place(page, "rain").region.kind == "chart"
    found = place(page, "sun").region
    assert (found.kind, found.box, found.image_path) == ("table", LEFT, FOLDER / CROP)
    assert 0.3 < found.score < 1


@pytest.mark.parametrize("name", ["/etc/passwd", f"../{CROP}", "", None, 5, ["x"], "missing"])
def test_a_region_whose_picture_is_named_oddly_has_none(name):
    entry = {"kind": "chart", "box": [0, 0, 0.5, 0.5], "caption": "", "image": name}
    if name == "missing":
        del entry["image"]
    payload = {"text": "", "regions": [entry]}
    found = find_place(np.zeros((1, 4), dtype=np.float32), payload, FOLDER).region
    assert (found.kind, found.image_path) == ("chart", None)
    assert region_of(payload, [0, 0, 0.5, 0.5], FOLDER).image_path is None


def test_no_region_when_the_rest_of_the_page_matches_better():
    page = make_page(WORDS, regions=[Region("table", LEFT)])
    assert place(page, "rain").region is None


def test_a_frame_around_everything_points_at_nothing():
    page = make_page(WORDS, regions=[Region("table", (0.0, 0.0, 1.0, 1.0))])
    assert place(page, "sun").region is None


def test_a_picture_without_words_is_its_own_region():
    payload = describe(make_page("", regions=[Region("figure", (0, 0, 1, 1))]), np.zeros((0, 64), "f4"), None, [None])
    assert find_place(np.ones((1, 64), dtype=np.float32), payload, FOLDER).region.kind == "figure"


def test_the_snippet_is_cut_where_the_words_speak():
    text = " ".join(["filler"] * 200 + ["penguins", "walk", "on", "ice"] * 3 + ["padding"] * 200)
    snippet = place(make_page(text), "penguins on ice").snippet
    assert "penguins walk on ice" in snippet
    assert snippet.startswith("… ")
    assert snippet.endswith(" …")
    assert len(snippet.split()) < 50


def test_a_short_page_is_quoted_whole_and_a_long_line_is_cut():
    assert place(make_page("just a few words"), "words").snippet == "just a few words"
    assert len(place(make_page("語" * 5000), "語").snippet) < 320


def test_the_caption_says_what_a_chart_shows():
    page = make_page(WORDS + " x" * 60, regions=[Region("chart", RIGHT, caption="Figure 2: rain by month")])
    assert place(page, "rain").snippet.startswith("Figure 2: rain by month … ")


def test_merged_rows_of_a_very_long_page_give_no_region():
    page = make_page(WORDS, regions=[Region("table", LEFT)])
    embedded = FakeEmbedder().encode_document([page])
    payload = describe(page, embedded.multi[0][:4], embedded.grids[0], [None])
    assert find_place(embedded.multi[0], payload, FOLDER).region is None


def page_of(texts, boxes=None):
    boxes = boxes or [(0.0, i / len(texts), 0.5, (i + 0.5) / len(texts)) for i in range(len(texts))]
    return replace(make_page("x"), words=tuple(map(Word, texts, boxes)))


@given(st.lists(st.text(max_size=3), max_size=5))
def test_words_and_places_are_told_together_or_not_at_all(texts):
    page = page_of(texts)
    payload = describe(page, np.zeros((0, 4), "f4"), None, [])
    payload = json.loads(json.dumps(schema.clean_payload(payload)))
    found = words_of(payload)
    if texts and all(text.split() == [text] for text in texts):
        assert found[0] == [schema.clean_payload(text) for text in texts]
        np.testing.assert_allclose(found[1], [word.box for word in page.words], atol=1e-4)
    else:
        assert found is None


def test_a_text_that_somebody_has_changed_has_no_places():
    payload = describe(page_of(["two", "words"]), np.zeros((0, 4), "f4"), None, [])
    assert words_of({**payload, "text": "now three words"}) is None
    assert words_of({"text": "two words"}) is None
    with pytest.raises(IndexCorruptError, match="ingest the document again"):
        words_of({**payload, "words": "words:AAAA"})


def test_of_a_model_that_looks_at_pixels_the_words_under_the_brightest_patches_are_quoted():
    # Two columns: in reading order all of the left one comes first, in the patches' order the top of both does.
    left, right = ([f"{side}{n}" for n in range(100)] for side in ("left", "right"))
    boxes = [(0.5 * (n // 100) + 0.1, n % 100 / 100, 0.5 * (n // 100) + 0.4, n % 100 / 100 + 0.008) for n in range(200)]
    page = page_of([*left, *right], boxes)
    rows, columns = 10, 4
    y, x = np.mgrid[:rows, :columns]
    patches = np.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], axis=2).reshape(-1, 4)
    boxes = np.concatenate([np.full((3, 4), np.nan), patches]).astype("f4")  # the prompt's own words stand nowhere
    vectors = np.tile(np.array([[0.0, 1.0]], "f4"), (len(boxes), 1))
    lit = (patches[:, 0] >= 0.5) & (patches[:, 1] < 0.25)
    vectors[3:][lit] = [1.0, 0.0]  # the top of the right column
    query = np.array([[1.0, 0.0]], "f4")
    for options, rows_of in (({}, None), ({"signs": False}, vectors)):
        payload = describe(page, vectors, TokenGrid(boxes, "patches"), [], **options)
        quoted = find_place(query, payload, FOLDER, rows_of).snippet
        assert "right5" in quoted.split()
        assert "left90" not in quoted.split()
        del payload["words"]
        assert "right5" not in find_place(query, payload, FOLDER, rows_of).snippet.split(), "without places, roughly"


def test_a_word_beside_all_patches_speaks_least():
    patches = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5]], "f4")
    words = np.array([[0.1, 0.1, 0.2, 0.2], [0.4, 0.1, 0.6, 0.2], [0.7, 0.1, 0.8, 0.2], [0.1, 0.8, 0.2, 0.9]], "f4")
    np.testing.assert_allclose(snippets._under(words, patches, np.array([4, 2], "f4")), [4, 3, 2, 2])
    many = np.tile(words, (1500, 1))
    np.testing.assert_allclose(snippets._under(many, patches, np.array([4, 2], "f4")), [4, 3, 2, 2] * 1500)
    assert snippets._under(words, np.zeros((0, 4), "f4"), np.zeros(0, "f4")).tolist() == [0, 0, 0, 0]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_sign_codes_keep_the_side_of_the_centre(tokens, dim, seed):
    rows = np.random.default_rng(seed).normal(size=(tokens, dim)).astype(np.float32)
    back = decode_signs(encode_signs(rows), dim)
    assert back.shape == rows.shape
    assert ((back > 0) == (rows > rows.mean(axis=0))).all()
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, rtol=1e-5)


def test_sign_codes_rank_tokens_as_the_vectors_do():
    rng = np.random.default_rng(0)
    rows, query = normalise(rng.normal(size=(200, 384))), normalise(rng.normal(size=(8, 384)))
    exact, coded = token_similarity(query, rows), token_similarity(query, decode_signs(encode_signs(rows), 384))
    assert np.corrcoef(exact, coded)[0, 1] > 0.75


def test_broken_sign_codes_are_told():
    assert encode_signs(np.zeros((0, 8), dtype=np.float32)) == ""
    with pytest.raises(IndexCorruptError, match="ingest the document again"):
        decode_signs("AAA", 64)


def image(tmp_path) -> Path:
    Image.new("RGB", (200, 100), "white").save(tmp_path / "page.png")
    return tmp_path / "page.png"


def test_a_heat_map_shines_where_the_words_match(tmp_path):
    page = make_page("sun sun sun sun " + "moon " * 28)
    embedder = FakeEmbedder()
    embedded = embedder.encode_document([page])
    query = embedder.encode_query(["sun"]).multi[0]
    heat = explain(query, embedded.multi[0], embedded.grids[0], image(tmp_path))
    assert (heat.weights[:4] > 0.5).all()
    assert (heat.weights[4:] < 0.2).all()
    assert heat.brightest[2] < 0.5
    pixels = np.asarray(heat.image()).astype(int)
    redness = pixels[..., 0] - pixels[..., 2]
    assert redness[:10, :90].max() > 60
    assert redness[30:].max() < 10, "the empty part of the page stays white"


def test_boxes_without_a_place_are_left_out(tmp_path):
    boxes = np.array([[np.nan] * 4, [0.1, 0.1, 0.2, 0.2]], dtype=np.float32)
    heat = explain(np.eye(2, dtype="f4"), np.eye(2, dtype="f4"), TokenGrid(boxes, "words"), image(tmp_path))
    assert len(heat.boxes) == 1
    with pytest.raises(InvalidInputError, match="not of one page"):
        explain(np.eye(2, dtype="f4"), np.eye(2, dtype="f4"), TokenGrid(boxes[:1], "words"), image(tmp_path))


def test_a_frame_and_its_label_are_drawn_inside_the_picture(tmp_path):
    heat = Explanation.empty(image(tmp_path))
    framed = np.asarray(heat.image(frame=(0.0, 0.0, 1.0, 1.0), label="table")).astype(int)
    blue = (framed[..., 2] - framed[..., 0]) > 100
    assert blue[50, 0]
    assert blue.sum() > 4 * (200 + 100)
    heat.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as saved:
        assert saved.format == "PNG"


class Hub(FakeEmbedder):
    """An embedder with the correction switched on."""

    hubness = 0.5


def test_the_bias_of_a_page_is_its_mean_score_for_general_questions():
    embedder = FakeEmbedder()
    background = ReferenceQueries(embedder)
    [page] = embedder.encode_document(["what is the total amount of the invoice"]).multi
    [other] = embedder.encode_document(["zyx wvu tsr"]).multi
    assert background.bias(page) > background.bias(other)
    assert background.bias(page[:0]) == 0


def test_hubness_takes_a_page_that_resembles_everything_down(tmp_path):
    # The first page shares a word with the question and many with any question; the second only that one.
    sample_pdf(tmp_path / "hub.pdf", ["what is the total amount of who wrote this document when does it end ice"])
    sample_pdf(tmp_path / "ice.pdf", ["ice glacier"])
    scores = []
    for embedder in (FakeEmbedder(), Hub()):
        with DocumentIndex.open(tmp_path / f"kb{embedder.hubness}", embedder=embedder) as index:
            index.ingest([tmp_path / "hub.pdf", tmp_path / "ice.pdf"], settings=IngestSettings(ocr="never"))
            scores.append({hit.doc_id: hit.score for hit in index.search("ice", k=2)})
    plain, corrected = scores
    assert plain["hub.pdf"] == pytest.approx(plain["ice.pdf"], abs=1e-3)
    assert corrected["ice.pdf"] - corrected["hub.pdf"] > 0.05
    assert list(corrected) == ["ice.pdf", "hub.pdf"]


def record(doc_id: str = "a.pdf", sha: str = "1") -> DocumentRecord:
    return DocumentRecord(doc_id, Path("/docs") / doc_id, sha, 10, 20, metadata={"year": 2024})


def test_a_document_keeps_its_content_until_the_new_one_is_done(tmp_path):
    manifest = Manifest(tmp_path / "m.sqlite3")
    manifest.begin(record())
    manifest.add_parts("1", [PointRecord("p1", 1, "page", "x"), PointRecord("r1", 1, "table", "y")])
    assert [d.done for d in manifest.documents()] == [False]
    manifest.finish(record(), failures=[Failure(Path("/docs/a.pdf"), "torn", 2)])
    done = manifest.document("a.pdf")
    assert (done.pages, done.regions, done.done, done.metadata) == (1, 1, True, {"year": 2024})
    assert done.failures == (Failure(Path("/docs/a.pdf"), "torn", 2),)
    manifest.begin(record(sha="2"))
    manifest.add_parts("2", [PointRecord("p2", 1, "page", "x")])
    changing = manifest.document("a.pdf")
    assert (changing.sha256, changing.done, changing.pages) == ("1", False, 1)
    assert manifest.documents_of("2") == []
    assert [d.doc_id for d in manifest.documents_of("2", waiting=True)] == ["a.pdf"]
    assert manifest.orphans() == []
    manifest.finish(record(sha="2"))
    assert manifest.document("a.pdf").sha256 == "2"
    assert manifest.orphans() == ["1"]
    assert manifest.images_only_of("1") == ["y"]
    assert manifest.totals() == {"documents": 1, "pages": 1, "regions": 0}
    manifest.forget_content("1")
    assert manifest.unreferenced(["x", "y"]) == {"y"}
    assert manifest.contents() == [("2", True)]
    manifest.forget("a.pdf")
    assert manifest.orphans() == ["2"]
    manifest.close()


def test_copies_share_a_content(tmp_path):
    manifest = Manifest(tmp_path / "m.sqlite3")
    manifest.begin(record())
    manifest.add_parts("1", [PointRecord("p1", 1, "page", "x")])
    manifest.finish(record(), by_name=True)
    manifest.place(record("b.pdf"))
    assert [d.doc_id for d in manifest.documents_of("1")] == ["a.pdf", "b.pdf"]
    assert all(d.by_name for d in manifest.documents())
    assert manifest.totals() == {"documents": 2, "pages": 1, "regions": 0}
    manifest.place(record("c.pdf"), replacing="b.pdf")
    assert [d.doc_id for d in manifest.documents()] == ["a.pdf", "c.pdf"]
    manifest.forget("a.pdf")
    assert manifest.orphans() == []
    manifest.close()


def test_a_page_indexed_again_names_the_regions_it_no_longer_has(tmp_path):
    manifest = Manifest(tmp_path / "m.sqlite3")
    manifest.begin(record())
    manifest.add_parts("1", [PointRecord("p1", 1, "page", "x"), PointRecord("r1", 1, "table", "y")])
    assert [part.part_id for part in manifest.add_parts("1", [PointRecord("p1", 1, "page", "x")])] == ["r1"]
    assert [part.part_id for part in manifest.parts("1")] == ["p1"]
    manifest.close()


def test_a_manifest_that_is_no_database_is_told(tmp_path):
    (tmp_path / "m.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(IndexCorruptError, match="ingest again"):
        Manifest(tmp_path / "m.sqlite3")


def test_an_index_of_an_older_format_is_refused_with_the_way_out_and_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / "manifest.sqlite3")) as db:
        db.execute("CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        db.execute("CREATE TABLE documents (doc_id TEXT PRIMARY KEY, path BLOB)")
        db.executemany("INSERT INTO settings VALUES (?, ?)", [("schema", "1"), ("version", '"0.0.9"')])
        db.commit()
    before = (tmp_path / "manifest.sqlite3").read_bytes()
    with pytest.raises(IndexMismatchError, match=r"format 1 \(jina-rag 0.0.9\).*Ingest the documents again"):
        DocumentIndex.open(tmp_path, embedder=FakeEmbedder())
    assert (tmp_path / "manifest.sqlite3").read_bytes() == before


def test_a_manifest_that_cannot_be_written_is_told(tmp_path):
    manifest = Manifest(tmp_path / "m.sqlite3")
    other = sqlite3.connect(tmp_path / "m.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    manifest._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(IndexStateError, match="cannot be written"):
        manifest.begin(record())
    other.execute("ROLLBACK")
    other.close()
    manifest.begin(record())
    manifest.close()
