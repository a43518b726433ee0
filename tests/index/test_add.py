"""`DocumentIndex.add`, `get` and `nearest`: texts, images and pages under ids that the caller chooses."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from jina_rag import DocumentIndex, InvalidInputError, Rerank, load_pages, save_page
from jina_rag.errors import IndexStateError
from jina_rag.indexing import add
from jina_rag.reference_queries import QUERIES
from jina_rag.testing import FakeEmbedder, FakeReranker, make_page, sample_pdf


@pytest.fixture
def embedder():
    return FakeEmbedder()


@pytest.fixture
def index(tmp_path, embedder):
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as document_index:
        yield document_index


def encoded_count(embedder) -> int:
    return sum(len(inputs) for kind, inputs in embedder.history if kind == "document")


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


def doc_ids(hits) -> list[str]:
    return [hit.doc_id for hit in hits]


def test_added_text_is_found_and_stored_verbatim(index):
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


def test_snippet_of_a_long_text_matches_the_query(index):
    filler = " ".join(f"word{i}" for i in range(200))
    index.add([f"{filler} the turbine overheated in march {filler}"], ids=["long"])
    assert "turbine overheated" in index.search("turbine overheated", k=1)[0].snippet


def test_equal_texts_with_different_ids_are_two_entries(index):
    index.add(["the same words", "the same words"], ids=["a", "b"])
    assert sorted(doc_ids(index.search("same words"))) == ["a", "b"]


def test_add_without_ids_creates_unique_ids(index):
    new_ids = index.add(["one", "two"])
    assert len(set(new_ids)) == 2
    assert [hit.text for hit in index.get(new_ids)] == ["one", "two"]


def test_last_of_two_entries_with_the_same_id_wins(index):
    index.add(["first", "second"], ids=["a", "a"])
    assert [hit.text for hit in index.get(["a"])] == ["second"]
    assert index.info().documents == 1


def test_new_content_replaces_the_old_content(index):
    index.add(["old words"], ids=["a"])
    index.add(["new words"], ids=["a"])
    assert [hit.text for hit in index.search("words", k=5)] == ["new words"]
    assert index.verify() == []


def test_re_adding_the_old_content_after_an_interruption_restores_it(index, monkeypatch):
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


def test_unchanged_content_gets_new_metadata_without_embedding(index, embedder):
    index.add(["words"], ids=["a"], metadata=[{"year": 2023}])
    count_before = encoded_count(embedder)
    index.add(["words"], ids=["a"], metadata=[{"year": 2024}])
    assert encoded_count(embedder) == count_before
    assert doc_ids(index.search("words", filter={"year": 2024})) == ["a"]
    assert index.search("words", filter={"year": 2023}) == []


def test_empty_text_is_stored_but_never_found(index):
    index.add([""], ids=["empty"])
    assert index.get(["empty"])[0].text == ""
    assert index.search("anything") == []


def test_text_that_looks_like_a_data_uri_is_stored_as_text(index):
    index.add([{"text": "data:image/png;base64,AAAA"}], ids=["a"])
    assert index.get(["a"])[0].text == "data:image/png;base64,AAAA"


def test_many_texts_keep_their_ids_and_vectors(index):
    index.add([f"number n{i} of many" for i in range(50)], ids=[f"t{i}" for i in range(50)])
    for i in (0, 15, 16, 49):
        assert index.search(f"n{i}", k=1)[0].doc_id == f"t{i}"


def test_saved_page_is_added_with_words_and_boxes(tmp_path, index):
    file = sample_pdf(tmp_path / "report.pdf", ["Growth by region", "Costs by quarter"])
    saved_pages = [save_page(page, tmp_path / "pages") for page in load_pages(file)]
    index.add(saved_pages, ids=["p1", "p2"])
    hit = index.search("quarter costs", k=1)[0]
    assert (hit.doc_id, hit.page, hit.page_count, hit.path) == ("p2", 2, 2, file)
    assert hit.image_path.is_file()
    assert "Costs by quarter" in hit.text
    assert len(index.explain("costs", hit).boxes)
    assert index.cite("costs", hit).text


def test_image_with_known_text_skips_ocr(index, monkeypatch):
    monkeypatch.setattr("jina_rag.parsing.pages.read_areas", None)  # OCR would call this object and fail
    image = Image.new("RGB", (80, 60), "white")
    index.add([{"image": image, "text": "a blank sheet"}], ids=["sheet"])
    hit = index.search("blank sheet", k=1)[0]
    assert (hit.text, hit.image_path.is_file()) == ("a blank sheet", True)
    assert index.build_context("blank", [hit]).images


def test_add_accepts_images_as_bytes_files_pil_images_and_pages(tmp_path, index):
    file = tmp_path / "p.png"
    Image.new("RGB", (40, 30), "red").save(file)
    index.add([file, file.read_bytes(), Image.open(file), make_page("some words")], ids=["a", "b", "c", "d"])
    assert [hit.image_path is not None for hit in index.get(["a", "b", "c", "d"])] == [True] * 4
    assert index.get(["a"])[0].path == file


def test_precomputed_vectors_are_stored_without_embedding(index, embedder):
    page = make_page("growth by region")
    vectors = embedder.encode_document([page, "costs"], truncate_dim=index.dim)
    count_before = encoded_count(embedder)
    index.add([page, "costs"], ids=["a", "b"], vectors=vectors)
    assert encoded_count(embedder) == count_before
    assert doc_ids(index.search("region growth", k=1)) == ["a"]
    np.testing.assert_allclose(index.dense_vectors(index.get(["b"])), vectors.single[1:], atol=1e-6)


def test_vectors_of_wrong_length_or_count_raise(index, embedder):
    with pytest.raises(InvalidInputError, match="expected 128 and at least"):
        index.add(["a"], vectors=FakeEmbedder(dim=16).encode_document(["a"]))
    with pytest.raises(InvalidInputError, match="expected 1 dense vectors"):
        index.add(["a"], vectors=embedder.encode_document(["a", "b"]))
    assert index.info().documents == 0


def test_get_finds_pages_of_files_by_page_id_only(tmp_path, index):
    index.ingest([sample_pdf(tmp_path / "report.pdf", ["Growth by region"])])
    hit = index.search("growth", k=1)[0]
    assert not hit.added
    assert hit.text == "Growth by region"
    assert [page.doc_id for page in index.get([hit.page_id, "report.pdf", "nothing"])] == ["report.pdf"]


def test_nearest_ranks_by_cosine_and_applies_the_filter(index, embedder):
    index.add(["growth by region", "growth"], ids=["a", "b"], metadata=[{"k": 1}, {"k": 2}])
    vector = embedder.encode_query(["growth"], multi=False).single[0]
    hits = index.nearest(3 * vector, k=2)
    assert [(hit.doc_id, hit.stage) for hit in hits] == [("b", "dense"), ("a", "dense")]
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    assert doc_ids(index.nearest(vector, filter={"k": 1})) == ["a"]
    assert index.nearest(np.zeros(index.dim)) == []


@pytest.mark.parametrize("vector", [np.zeros(3), np.full(128, np.nan), np.zeros((1, 128))])
def test_nearest_rejects_wrong_shapes_and_nan(index, vector):
    with pytest.raises(InvalidInputError, match="128 finite numbers"):
        index.nearest(vector)


def test_nearest_accepts_large_k_and_vectors_of_any_norm(index, embedder):
    index.add(["growth", "costs"], ids=["a", "b"])
    vector = embedder.encode_query(["growth"], multi=False).single[0].astype(np.float64)
    assert (
        doc_ids(index.nearest(vector * 1e200, k=10**30)) == doc_ids(index.nearest(vector * 1e-200, k=2)) == ["a", "b"]
    )


@pytest.mark.parametrize("vector", ["growth", [None] * 128, [10**400] * 128])
def test_nearest_rejects_non_numeric_vectors(index, vector):
    with pytest.raises(InvalidInputError, match="128 finite numbers"):
        index.nearest(vector)


def test_get_rejects_ids_that_are_not_strings(index):
    with pytest.raises(InvalidInputError, match="ids contains 7"):
        index.get([7])
    with pytest.raises(InvalidInputError, match="list of ids"):
        index.get("a")


def test_delete_by_doc_id_filter_does_not_expand_globs(index):
    index.add(["one", "two", "three"], ids=["a*", "ab", "ac"])
    assert index.delete(filter={"doc_id": ["a*"]}) == 1
    assert sorted(record.doc_id for record in index.documents()) == ["ab", "ac"]
    assert index.verify() == []


@pytest.mark.parametrize(
    ("where", "remaining"),
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
def test_delete_and_search_select_the_same_entries_by_filter(index, where, remaining):
    metadata = [{"by": 'Änn "x"', "year": 2024}, {"by": ["Bo"], "year": 2025}, {"deep": {"by": "Cy"}, "note": "Bo"}]
    index.add(["one", "two", "three"], ids=["a", "b", "c"], metadata=metadata)
    found_ids = sorted(doc_ids(index.search("one two three", filter=where)))
    index.delete(filter=where)
    assert sorted(record.doc_id for record in index.documents()) == remaining
    assert found_ids == sorted({"a", "b", "c"} - set(remaining))


def test_ids_of_files_and_entries_never_collide(docs, index):
    file = sample_pdf(docs / "report.pdf", ["Growth by region"])
    index.ingest([file.parent])
    with pytest.raises(InvalidInputError, match="Choose another id"):
        index.add(["words"], ids=["report.pdf"])
    index.add(["words"], ids=["other.pdf"])
    sample_pdf(docs / "other.pdf", ["Costs"])
    index.ingest([file.parent])
    assert sorted(record.doc_id for record in index.documents()) == ["docs/other.pdf", "other.pdf", "report.pdf"]
    assert index.get(["other.pdf"])[0].text == "words"


def test_sync_keeps_added_entries(docs, index):
    file = sample_pdf(docs / "report.pdf", ["Growth by region"])
    page = next(load_pages(file))
    index.add(["words", page], ids=[str(file.parent / "gone"), "page"])
    file.rename(docs / "renamed.pdf")
    report = index.ingest([file.parent], sync=True)
    assert (report.documents, report.removed) == (1, 0)
    assert len(index.documents()) == 3


def test_copy_includes_added_entries(tmp_path, index, embedder):
    index.add(["words", make_page("a page")], ids=["a", "b"], metadata=[{"k": 1}, {}])
    index.copy(tmp_path / "copy")
    with DocumentIndex.open(tmp_path / "copy", embedder=embedder) as copy:
        assert [(hit.doc_id, hit.text, hit.added) for hit in copy.get(["a", "b"])] == [
            ("a", "words", True),
            ("b", "a page", True),
        ]
        assert copy.verify() == []


def test_image_reranker_receives_the_text_of_an_added_text(index):
    class ImageReranker(FakeReranker):
        modality = "image"

    reranker = ImageReranker()
    index.add(["growth by region", make_page("growth")], ids=["text", "page"])
    hits = index.search("growth", stages=Rerank(model=reranker))
    assert sorted(hit.stage for hit in hits) == ["rerank", "rerank"]
    documents = [document for _, documents in reranker.history for document in documents]
    assert {"text": "growth by region"} in documents
    assert any(isinstance(document, Path) for document in documents)


def test_added_text_has_no_boxes_and_no_image(index):
    index.add(["growth by region"], ids=["a"])
    hit = index.search("growth", k=1)[0]
    explanation = index.explain("growth", hit)
    assert not len(explanation.boxes)
    with pytest.raises(IndexStateError, match="without a page image"):
        explanation.image()
    context = index.build_context("growth", [hit])
    assert context.omissions == ()
    assert context.sources[0].label == index.cite("growth", hit).label == "a"
    assert "growth by region" in str(context.blocks())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (1, "type int"),
        (b"no picture", "is not supported. Convert"),
        (Path("nowhere.png"), "does not exist"),
        ({"image": "https://example.org/a.png"}, "URLs are not supported"),
        ({"image": "a.png"}, "pathlib.Path"),
        ({"words": "a"}, "expected a text"),
        ([], "type list"),
    ],
)
def test_add_rejects_unsupported_content_and_names_the_id(index, content, message):
    with pytest.raises(InvalidInputError, match=message) as error:
        index.add([content], ids=["the-id"])
    assert "the-id" in str(error.value)
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
def test_invalid_add_arguments_raise_before_writing(index, arguments):
    with pytest.raises(InvalidInputError):
        index.add(["text"], **arguments)
    assert index.info().documents == 0


def test_add_rejects_a_document_of_several_pages(tmp_path, index):
    with pytest.raises(InvalidInputError, match="more than one page"):
        index.add([sample_pdf(tmp_path / "report.pdf", ["one", "two"])], ids=["a"])


def tall_image(*words):
    """Return an image of 240 x 2800 pixels, two slices long, with words from top to bottom."""
    image = Image.new("RGB", (240, 2800), "white")
    draw = ImageDraw.Draw(image)
    for number, word in enumerate(words):
        top = 20 + number * 2700 // max(len(words) - 1, 1)
        draw.text((10, top), word, font=ImageFont.load_default(size=32), fill="black")
    return image


@pytest.mark.parametrize("kind", ["path", "bytes", "image"])
def test_tall_image_has_one_page_per_slice(tmp_path, index, kind):
    image = tall_image("harbour", "violin")
    image.save(tmp_path / "a.png")
    content = {"path": tmp_path / "a.png", "bytes": (tmp_path / "a.png").read_bytes(), "image": image}[kind]
    index.add(["granite", content], ids=["text", "tall"], metadata=[{}, {"year": 2024}])
    assert index.info().pages == 3
    hit = index.search("violin", k=1)[0]
    assert (hit.doc_id, hit.page, hit.page_count, hit.text) == ("tall", 2, 2, "violin")
    assert hit.metadata == {"year": 2024}
    assert index.search("harbour", k=1)[0].page == 1
    assert [entry.page for entry in index.get(["tall"])] == [1]
    index.add(["granite", content], ids=["text", "tall"])
    assert index.info().pages == 3
    assert index.verify() == []
    assert index.delete("tall") == 1
    assert index.info().pages == 1


def test_replaced_tall_image_leaves_no_page(index):
    index.add([tall_image("harbour", "violin")], ids=["a"])
    index.add(["granite"], ids=["a"])
    assert index.info().pages == 1
    assert [hit.text for hit in index.search("harbour violin granite", k=5)] == ["granite"]
    assert index.verify() == []


def test_tall_image_with_a_text_or_vectors_stays_one_page(index, embedder):
    image = tall_image("harbour", "violin")
    index.add([{"image": image, "text": "orchid"}], ids=["text"])
    vectors = embedder.encode_document(["harbour violin"])
    index.add([image], ids=["vectors"], vectors=vectors)
    assert index.info().pages == 2
    assert {(hit.doc_id, hit.page_count, hit.text) for hit in index.search("orchid violin", k=5)} == {
        ("text", 1, "orchid"),
        ("vectors", 1, "harbour violin"),
    }
    with Image.open(index.get(["vectors"])[0].image_path) as stored:
        assert stored.size == image.size  # the slices that OCR reads have the full size


def test_frames_of_tiff_are_pages_of_one_entry(tmp_path, index):
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    index.add([tmp_path / "a.tif"], ids=["a"])
    assert index.info().pages == 2
    with pytest.raises(InvalidInputError, match="more than one page"):
        index.add([{"image": tmp_path / "a.tif", "text": "one text"}], ids=["b"])


def test_image_entries_of_many_pages_are_written_in_several_batches(index, monkeypatch):
    monkeypatch.setattr(add, "_MAX_PAGES", 2)
    index.add([tall_image(word) for word in ("harbour", "violin", "granite")] + ["orchid"], ids=["a", "b", "c", "d"])
    assert index.info().pages == 7
    assert {hit.doc_id for hit in index.search("harbour violin granite orchid", k=10)} == {"a", "b", "c", "d"}
    assert index.verify() == []


def test_entries_before_a_damaged_image_are_indexed(tmp_path, index):
    with pytest.raises(InvalidInputError, match="'b'"):
        index.add(["first", b"damaged", "last"], ids=["a", "b", "c"])
    assert [record.doc_id for record in index.documents()] == ["a"]
    assert index.verify() == []


@pytest.mark.parametrize(
    ("resource", "method"),
    [("images", "put_encoded"), ("store", "upsert"), ("store", "flush"), ("manifest", "add_points")],
)
def test_next_add_deletes_the_remains_of_an_interrupted_add(index, monkeypatch, resource, method):
    index.add(["old words"], ids=["a"])
    cls = type(getattr(index._session.resources, resource))
    call = getattr(cls, method)

    def crash(*args):
        call(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cls, method, crash)
        with pytest.raises(KeyboardInterrupt):
            index.add(["new words", make_page("a page")], ids=["a", "b"])
    assert doc_ids(index.search("words", k=5)) == ["a"]
    index.add(["new words", make_page("a page")], ids=["a", "b"])
    assert sorted((hit.doc_id, hit.text) for hit in index.get(["a", "b"])) == [("a", "new words"), ("b", "a page")]
    assert index.verify() == []


def test_add_and_lookup_coroutines_match_the_methods(index, embedder):
    threads = set()
    encode = embedder.encode_document
    embedder.encode_document = lambda *args, **options: (threads.add(threading.get_ident()), encode(*args, **options))[
        1
    ]

    async def run():
        new_ids = await index.aadd(["growth", "costs"], ids=["a", "b"])
        vector = embedder.encode_query(["growth"]).single[0]
        pages = await index.aget(new_ids)
        return pages, await index.anearest(vector, k=1), await index.adense_vectors(pages), vector

    pages, nearest, vectors, vector = asyncio.run(run())
    assert pages == index.get(["a", "b"])
    assert nearest == index.nearest(vector, k=1)
    np.testing.assert_array_equal(vectors, index.dense_vectors(pages))
    assert threads
    assert threading.get_ident() not in threads


class CallCounter:
    """Counts the calls of the methods of an object that it wraps."""

    def __init__(self, wrapped):
        self._wrapped, self.calls = wrapped, Counter()

    def __getattr__(self, name):
        self.calls[name] += 1
        return getattr(self._wrapped, name)


@pytest.mark.parametrize("count", [1, 3, 100])
def test_batch_takes_two_transactions_and_one_store_call(index, monkeypatch, count):
    index.add(["first"], ids=["a"])
    resources = index._session.resources
    statements, store_calls = [], []
    resources.manifest._connection.set_trace_callback(statements.append)
    for name in ("upsert", "flush", "delete", "update_payload"):
        method = getattr(resources.store, name)
        monkeypatch.setattr(
            resources.store, name, lambda *args, name=name, method=method: (store_calls.append(name), method(*args))[1]
        )
    shard = resources.store._shard = CallCounter(resources.store._shard)
    index.add([f"text {n} of the batch" for n in range(count)], ids=[f"b{n}" for n in range(count)])
    resources.manifest._connection.set_trace_callback(None)
    assert [statement for statement in statements if statement == "COMMIT"] == ["COMMIT"] * 2
    assert [name for name in store_calls if name != "delete"] == ["upsert", "flush"]
    assert shard.calls["update"] == 1
    if sys.platform == "linux":
        assert shard.calls["flush"] == 0, "the log is synced instead of all segments"
    assert index.info().documents == count + 1


def test_failed_embedding_leaves_no_record(index, embedder, monkeypatch):
    index.add(["old words"], ids=["a"])
    monkeypatch.setattr(embedder, "encode_document", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        index.add(["new words", "more"], ids=["a", "b"])
    assert [(hit.doc_id, hit.text) for hit in index.search("words", k=5)] == [("a", "old words")]
    assert index.info().pending == 0
    assert index.verify() == []


def test_failed_record_stores_nothing(index, monkeypatch):
    manifest = index._session.resources.manifest
    monkeypatch.setattr(manifest, "begin", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        index.add(["words"], ids=["a"])
    assert index._session.resources.store.count() == 0


def test_large_texts_are_added_in_several_batches(index, embedder, monkeypatch):
    monkeypatch.setattr(add, "BATCH_SIZE", 1000)
    texts = [f"text {n} " + "word " * 40 for n in range(7)]
    index.add(texts, ids=[str(n) for n in range(7)])
    assert [len(inputs) for kind, inputs in embedder.history if kind == "document"] == [2, 2, 2, 1]
    assert [hit.text for hit in index.get([str(n) for n in range(7)])] == texts


def test_unchanged_entries_write_nothing(index):
    index.add(["words", "more"], ids=["a", "b"])
    statements = []
    index._session.resources.manifest._connection.set_trace_callback(statements.append)
    index.add(["words", "more"], ids=["a", "b"])
    assert not [statement for statement in statements if not statement.lstrip().startswith("SELECT")]


def test_reference_queries_are_encoded_once(index, embedder):
    embedder.hubness = 0.5
    for text in ("one", "two", "three"):
        index.add([text])
    assert [len(inputs) for kind, inputs in embedder.history if kind == "query"] == [len(QUERIES)]


ADDER = """
import sys
from jina_rag import DocumentIndex
from jina_rag.testing import FakeEmbedder, make_page

index = DocumentIndex.open(sys.argv[1], embedder=FakeEmbedder())
for n in range(10**6):
    contents = [f"text {n}", make_page(f"page {n}")]
    index.add(contents, ids=[f"text-{n}", f"page-{n}"])
    print(n, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("acknowledged_calls", [0, 7])
def test_killed_process_loses_no_entry_of_a_returned_add(tmp_path, embedder, acknowledged_calls):
    with subprocess.Popen(
        [sys.executable, "-c", ADDER, str(tmp_path / "kb")], stdout=subprocess.PIPE, text=True
    ) as adder:
        last = next(int(line) for line in adder.stdout if int(line) >= acknowledged_calls)
        adder.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in adder.stdout if line.endswith("\n"))])
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        for n in range(last + 1):
            assert [hit.text for hit in index.get([f"text-{n}", f"page-{n}"])] == [f"text {n}", f"page {n}"]
        index.add(["next"], ids=["next"])  # deletes what the killed call left
        assert all(record.is_complete for record in index.documents())
        assert index.verify() == []
        assert {hit.doc_id for hit in index.search("next text", k=3)}


KILLED_ADDER = """
import os, signal, sys
from jina_rag import DocumentIndex
from jina_rag.testing import FakeEmbedder, make_page

index = DocumentIndex.open(sys.argv[1], embedder=FakeEmbedder())
index.add(["old green house"], ids=["replaced"])
store = index._session.resources.store
flush = store.flush
store.flush = lambda: (flush(), os.kill(os.getpid(), signal.SIGKILL))
index.add(["half written", make_page("half drawn"), "new red house"], ids=["text", "page", "replaced"])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_entries_of_a_killed_add_are_never_found_and_then_deleted(tmp_path, embedder):
    process = subprocess.run([sys.executable, "-c", KILLED_ADDER, str(tmp_path / "kb")], check=False, timeout=120)
    assert process.returncode == -signal.SIGKILL
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        resources = index._session.resources
        assert resources.store.count() == 4, "the killed call had written all points"
        for query in ("half written", "half drawn", "new red house"):
            hits = index.search(query, k=9)
            assert [(hit.doc_id, hit.text) for hit in hits] == [("replaced", "old green house")]
        assert doc_ids(index.nearest(embedder.encode_query([{"text": "half written"}]).single[0], k=9)) == ["replaced"]
        assert index.info().pending == 3
        index.add(["next"], ids=["next"])
        assert [(record.doc_id, record.is_complete) for record in index.documents()] == [
            ("next", True), ("replaced", True),
        ]  # fmt: skip
        assert [hit.text for hit in index.get(["replaced", "next"])] == ["old green house", "next"]
        assert (index.info().pending, resources.store.count(), list(resources.images.names())) == (0, 2, [])
        assert index.verify() == []
        assert not resources.manifest.has_incomplete()


def test_failed_write_is_deleted_by_the_next_change_and_can_be_repeated(index, monkeypatch):
    def fail(*_):
        raise IndexStateError("disk full")

    store = index._session.resources.store
    index.add(["old words"], ids=["a"])
    for contents in (["new words", "other words"], ["third words", "other words"]):
        with monkeypatch.context() as patch:
            patch.setattr(type(store), "flush", fail)
            with pytest.raises(IndexStateError, match="disk full"):
                index.add(contents, ids=["a", "b"])
        assert [hit.text for hit in index.search("words", k=9)] == ["old words"]
    assert index.delete("unknown") == 0
    assert [(record.doc_id, record.is_complete) for record in index.documents()] == [("a", True)]
    assert store.count() == 1
    assert index.verify() == []
    index.add(["new words", "other words"], ids=["a", "b"])
    assert [hit.text for hit in index.get(["a", "b"])] == ["new words", "other words"]
    assert index.verify() == []
