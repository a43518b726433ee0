"""What is put into an index by a program, under ids of its own: texts, pictures, pages."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jina_rag import DocumentIndex, InvalidInputError, Rerank, load_pages, save_page
from jina_rag.errors import IndexStateError
from jina_rag.testing import FakeEmbedder, FakeReranker, make_page, sample_pdf


@pytest.fixture
def embedder():
    return FakeEmbedder()


@pytest.fixture
def index(tmp_path, embedder):
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as opened:
        yield opened


def encoded(embedder) -> int:
    return sum(len(inputs) for kind, inputs in embedder.history if kind == "document")


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


def ids(hits) -> list[str]:
    return [hit.doc_id for hit in hits]


# -- texts -------------------------------------------------------------------------------------------------


def test_a_text_is_found_and_kept_to_the_letter(index):
    text = "  Growth\n\tin the north\u00a0region:  12 %  "
    assert index.add([text, "Something else"], ids=["a", "b"], metadata=[{"year": 2024, "by": ["Ann"]}, {}]) == [
        "a",
        "b",
    ]
    hit = index.search("growth north", k=1)[0]
    assert (hit.doc_id, hit.text, hit.added, hit.page, hit.page_count) == ("a", text, True, 1, 1)
    assert dict(hit.metadata) == {"year": 2024, "by": ["Ann"]}
    assert hit.image_path is None
    assert "north" in hit.snippet


def test_the_snippet_of_a_long_text_is_about_the_question(index):
    filler = " ".join(f"word{i}" for i in range(200))
    index.add([f"{filler} the turbine overheated in march {filler}"], ids=["long"])
    assert "turbine overheated" in index.search("turbine overheated", k=1)[0].snippet


def test_two_texts_that_say_the_same_are_two(index):
    index.add(["the same words", "the same words"], ids=["a", "b"])
    assert sorted(ids(index.search("same words"))) == ["a", "b"]


def test_without_ids_each_has_one_of_its_own(index):
    given = index.add(["one", "two"])
    assert len(set(given)) == 2
    assert [hit.text for hit in index.get(given)] == ["one", "two"]


def test_of_two_of_the_same_id_the_last_counts(index):
    index.add(["first", "second"], ids=["a", "a"])
    assert [hit.text for hit in index.get(["a"])] == ["second"]
    assert index.info().documents == 1


def test_a_new_content_takes_the_place_of_the_old_one(index):
    index.add(["old words"], ids=["a"])
    index.add(["new words"], ids=["a"])
    assert [hit.text for hit in index.search("words", k=5)] == ["new words"]
    assert index.verify() == []


def test_an_old_content_that_comes_back_while_a_new_one_is_unfinished_is_the_one_that_counts(index, monkeypatch):
    index.add(["old words"], ids=["a"])
    with monkeypatch.context() as patch:
        patch.setattr(
            type(index._session.resources.store), "flush", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            index.add(["new words"], ids=["a"])
    index.add(["old words"], ids=["a"])
    assert index.get(["a"])[0].text == "old words"
    assert index.info().pending == 0
    assert index.verify() == []


def test_what_is_known_is_not_embedded_again_and_its_metadata_are_new(index, embedder):
    index.add(["words"], ids=["a"], metadata=[{"year": 2023}])
    before = encoded(embedder)
    index.add(["words"], ids=["a"], metadata=[{"year": 2024}])
    assert encoded(embedder) == before
    assert ids(index.search("words", filter={"year": 2024})) == ["a"]
    assert index.search("words", filter={"year": 2023}) == []


def test_a_text_without_words_is_kept_although_nothing_finds_it(index):
    index.add([""], ids=["empty"])
    assert index.get(["empty"])[0].text == ""
    assert index.search("anything") == []


def test_a_text_that_looks_like_the_address_of_a_picture_is_a_text(index):
    index.add([{"text": "data:image/png;base64,AAAA"}], ids=["a"])
    assert index.get(["a"])[0].text == "data:image/png;base64,AAAA"


def test_many_texts_keep_their_order_and_their_vectors(index):
    index.add([f"number n{i} of many" for i in range(50)], ids=[f"t{i}" for i in range(50)])
    for i in (0, 15, 16, 49):
        assert index.search(f"n{i}", k=1)[0].doc_id == f"t{i}"


# -- pictures and pages ------------------------------------------------------------------------------------


def test_a_page_that_was_kept_comes_back_with_its_words_and_places(tmp_path, index):
    file = sample_pdf(tmp_path / "report.pdf", ["Growth by region", "Costs by quarter"])
    kept = [save_page(page, tmp_path / "pages") for page in load_pages(file)]
    index.add(kept, ids=["p1", "p2"])
    hit = index.search("quarter costs", k=1)[0]
    assert (hit.doc_id, hit.page, hit.page_count, hit.path) == ("p2", 2, 2, file)
    assert hit.image_path.is_file()
    assert "Costs by quarter" in hit.text
    assert len(index.explain("costs", hit).boxes)
    assert index.cite("costs", hit).text


def test_a_picture_with_known_words_is_not_read(index, monkeypatch):
    monkeypatch.setattr("jina_rag.parsing.pages.read_areas", None)  # would be called
    image = Image.new("RGB", (80, 60), "white")
    index.add([{"image": image, "text": "a blank sheet"}], ids=["sheet"])
    hit = index.search("blank sheet", k=1)[0]
    assert (hit.text, hit.image_path.is_file()) == ("a blank sheet", True)
    assert index.build_context("blank", [hit]).images


def test_pictures_come_as_bytes_files_images_and_pages(tmp_path, index):
    file = tmp_path / "p.png"
    Image.new("RGB", (40, 30), "red").save(file)
    index.add([file, file.read_bytes(), Image.open(file), make_page("some words")], ids=["a", "b", "c", "d"])
    assert [hit.image_path is not None for hit in index.get(["a", "b", "c", "d"])] == [True] * 4
    assert index.get(["a"])[0].path == file


def test_vectors_made_elsewhere_are_taken(index, embedder):
    page = make_page("growth by region")
    vectors = embedder.encode_document([page, "costs"], truncate_dim=index.dim)
    before = encoded(embedder)
    index.add([page, "costs"], ids=["a", "b"], vectors=vectors)
    assert encoded(embedder) == before
    assert ids(index.search("region growth", k=1)) == ["a"]
    np.testing.assert_allclose(index.dense_vectors(index.get(["b"])), vectors.single[1:], atol=1e-6)


def test_vectors_that_do_not_fit_are_refused(index, embedder):
    with pytest.raises(InvalidInputError, match="128 numbers"):
        index.add(["a"], vectors=FakeEmbedder(dim=16).encode_document(["a"]))
    with pytest.raises(InvalidInputError, match="1 entries"):
        index.add(["a"], vectors=embedder.encode_document(["a", "b"]))
    assert index.info().documents == 0


# -- out again ---------------------------------------------------------------------------------------------


def test_pages_of_files_are_got_by_their_page_id_only(tmp_path, index):
    index.ingest([sample_pdf(tmp_path / "report.pdf", ["Growth by region"])])
    hit = index.search("growth", k=1)[0]
    assert not hit.added
    assert hit.text == "Growth by region"
    assert [page.doc_id for page in index.get([hit.page_id, "report.pdf", "nothing"])] == ["report.pdf"]


def test_nearest_ranks_by_the_dense_vector_under_a_filter(index, embedder):
    index.add(["growth by region", "growth"], ids=["a", "b"], metadata=[{"k": 1}, {"k": 2}])
    vector = embedder.encode_query(["growth"], multi=False).single[0]
    found = index.nearest(3 * vector, k=2)
    assert [(hit.doc_id, hit.stage) for hit in found] == [("b", "dense"), ("a", "dense")]
    assert found[0].score == pytest.approx(1, abs=1e-3)
    assert ids(index.nearest(vector, filter={"k": 1})) == ["a"]
    assert index.nearest(np.zeros(index.dim)) == []


@pytest.mark.parametrize("vector", [np.zeros(3), np.full(128, np.nan), np.zeros((1, 128))])
def test_nearest_refuses_what_is_no_vector_of_the_index(index, vector):
    with pytest.raises(InvalidInputError, match="128 finite numbers"):
        index.nearest(vector)


def test_more_than_there_is_may_be_asked_for_and_vectors_of_any_length(index, embedder):
    index.add(["growth", "costs"], ids=["a", "b"])
    vector = embedder.encode_query(["growth"], multi=False).single[0].astype(np.float64)
    assert ids(index.nearest(vector * 1e200, k=10**30)) == ids(index.nearest(vector * 1e-200, k=2)) == ["a", "b"]


@pytest.mark.parametrize("vector", ["growth", [None] * 128, [10**400] * 128])
def test_what_is_no_vector_at_all_is_refused(index, vector):
    with pytest.raises(InvalidInputError, match="128 finite numbers"):
        index.nearest(vector)


def test_ids_are_texts(index):
    with pytest.raises(InvalidInputError, match="ids contains 7"):
        index.get([7])
    with pytest.raises(InvalidInputError, match="list of ids"):
        index.get("a")


def test_ids_are_deleted_to_the_letter(index):
    index.add(["one", "two", "three"], ids=["a*", "ab", "ac"])
    assert index.delete(filter={"doc_id": ["a*"]}) == 1
    assert sorted(record.doc_id for record in index.documents()) == ["ab", "ac"]
    assert index.verify() == []


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ({"by": 'Änn "x"'}, ["b", "c"]),
        ({"by": ["Bo", 'Änn "x"']}, ["c"]),
        ({"doc_id": ["a", "c", "zz"]}, ["b"]),
        ({"year": 2024}, ["b", "c"]),
        ({"deep.by": "Cy"}, ["a", "b"]),
        ({"by": "B"}, ["a", "b", "c"]),
        ({"year": 2025, "by": "Bo"}, ["a", "c"]),
    ],
)
def test_a_filter_deletes_what_it_finds(index, where, left):
    metadata = [{"by": 'Änn "x"', "year": 2024}, {"by": ["Bo"], "year": 2025}, {"deep": {"by": "Cy"}, "note": "Bo"}]
    index.add(["one", "two", "three"], ids=["a", "b", "c"], metadata=metadata)
    found = sorted(ids(index.search("one two three", filter=where)))
    index.delete(filter=where)
    assert sorted(record.doc_id for record in index.documents()) == left
    assert found == sorted({"a", "b", "c"} - set(left))


# -- beside documents --------------------------------------------------------------------------------------


def test_the_id_of_an_ingested_file_is_refused_and_a_file_gets_another(docs, index):
    file = sample_pdf(docs / "report.pdf", ["Growth by region"])
    index.ingest([file.parent])
    with pytest.raises(InvalidInputError, match="Choose another id"):
        index.add(["words"], ids=["report.pdf"])
    index.add(["words"], ids=["other.pdf"])
    sample_pdf(docs / "other.pdf", ["Costs"])
    index.ingest([file.parent])
    assert sorted(record.doc_id for record in index.documents()) == ["docs/other.pdf", "other.pdf", "report.pdf"]
    assert index.get(["other.pdf"])[0].text == "words"


def test_entries_stay_when_folders_are_synchronised(docs, index):
    file = sample_pdf(docs / "report.pdf", ["Growth by region"])
    page = next(load_pages(file))
    index.add(["words", page], ids=[str(file.parent / "gone"), "page"])
    file.rename(docs / "renamed.pdf")
    report = index.ingest([file.parent], sync=True)
    assert (report.documents, report.removed) == (1, 0)
    assert len(index.documents()) == 3


def test_an_index_with_entries_is_copied_whole(tmp_path, index, embedder):
    index.add(["words", make_page("a page")], ids=["a", "b"], metadata=[{"k": 1}, {}])
    index.copy(tmp_path / "copy")
    with DocumentIndex.open(tmp_path / "copy", embedder=embedder) as copy:
        assert [(hit.doc_id, hit.text, hit.added) for hit in copy.get(["a", "b"])] == [
            ("a", "words", True),
            ("b", "a page", True),
        ]
        assert copy.verify() == []


def test_a_reranker_that_looks_at_pixels_is_shown_the_words_of_a_text(index):
    class Looks(FakeReranker):
        modality = "image"

    reranker = Looks()
    index.add(["growth by region", make_page("growth")], ids=["text", "page"])
    found = index.search("growth", stages=Rerank(model=reranker))
    assert sorted(hit.stage for hit in found) == ["rerank", "rerank"]
    shown = [document for _, documents in reranker.history for document in documents]
    assert {"text": "growth by region"} in shown
    assert any(isinstance(document, Path) for document in shown)


def test_a_text_has_no_place_to_point_at(index):
    index.add(["growth by region"], ids=["a"])
    hit = index.search("growth", k=1)[0]
    explanation = index.explain("growth", hit)
    assert not len(explanation.boxes)
    with pytest.raises(IndexStateError, match="no picture"):
        explanation.image()
    context = index.build_context("growth", [hit])
    assert context.omissions == ()
    assert context.sources[0].label == index.cite("growth", hit).label == "a"
    assert "growth by region" in str(context.blocks())


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (1, "kind int"),
        (b"no picture", "no image of a known kind"),
        (Path("nowhere.png"), "no file"),
        ({"image": "https://example.org/a.png"}, "not followed"),
        ({"image": "a.png"}, "pathlib.Path"),
        ({"words": "a"}, "kind"),
        ([], "kind list"),
    ],
)
def test_what_cannot_be_added_is_said_with_its_id(index, content, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        index.add([content], ids=["the-id"])
    assert "the-id" in str(caught.value)
    assert index.info().documents == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"ids": ["a", "b"]},
        {"ids": [""]},
        {"ids": [7]},
        {"metadata": [1]},
        {"metadata": [{"a": float("nan")}]},
        {"metadata": [{"a": object()}]},
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_written(index, arguments):
    with pytest.raises(InvalidInputError):
        index.add(["text"], **arguments)
    assert index.info().documents == 0


def test_a_document_of_many_pages_is_no_picture(tmp_path, index):
    with pytest.raises(InvalidInputError, match="more than one page"):
        index.add([sample_pdf(tmp_path / "report.pdf", ["one", "two"])], ids=["a"])


def test_what_stands_before_a_damaged_picture_is_in_the_index(tmp_path, index):
    with pytest.raises(InvalidInputError, match="'b'"):
        index.add(["first", b"damaged", "last"], ids=["a", "b", "c"])
    assert [record.doc_id for record in index.documents()] == ["a"]
    assert index.verify() == []


# -- crashes, threads, pickles -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["upsert", "flush"])
def test_what_a_crash_leaves_is_cleared_by_the_next_change(index, monkeypatch, where):
    index.add(["old words"], ids=["a"])
    store = index._session.resources.store

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(store), where, crash)
        with pytest.raises(KeyboardInterrupt):
            index.add(["new words", make_page("a page")], ids=["a", "b"])
    assert ids(index.search("words", k=5)) in (["a"], ["b", "a"], ["a", "b"])
    index.add(["new words", make_page("a page")], ids=["a", "b"])
    assert sorted((hit.doc_id, hit.text) for hit in index.get(["a", "b"])) == [("a", "new words"), ("b", "a page")]
    assert index.verify() == []


def test_coroutines_work_in_threads_and_give_the_same(index, embedder):
    threads = set()
    encode = embedder.encode_document
    embedder.encode_document = lambda *args, **options: (threads.add(threading.get_ident()), encode(*args, **options))[
        1
    ]

    async def run():
        given = await index.aadd(["growth", "costs"], ids=["a", "b"])
        vector = embedder.encode_query(["growth"]).single[0]
        got = await index.aget(given)
        return got, await index.anearest(vector, k=1), await index.adense_vectors(got), vector

    got, near, vectors, vector = asyncio.run(run())
    assert got == index.get(["a", "b"])
    assert near == index.nearest(vector, k=1)
    np.testing.assert_array_equal(vectors, index.dense_vectors(got))
    assert threads
    assert threading.get_ident() not in threads
