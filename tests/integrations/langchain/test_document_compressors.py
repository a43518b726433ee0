"""JinaLocalRerank and JinaCompressionRetriever: texts and pages in one list, originals untouched, as the classic."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from helpers.langchain_fakes import PixelReranker, ThreadedEmbedder, ThreadedReranker, Trace, fill, no_network
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.load import dumps, loads
from langchain_core.runnables import RunnableLambda
from langchain_jina_rag import JinaCompressionRetriever, JinaLocalRerank, JinaPageRetriever
from PIL import Image
from pydantic import ValidationError

from jina_rag import Calibration, fit_calibration
from jina_rag.testing import FakeReranker

QUESTION = "which whales sing"
TEXTS = ["a tax report", "whales sing", "which whales sing at night", "singing"]


@pytest.fixture(autouse=True)
def offline():
    with no_network():
        yield


@pytest.fixture
def docs():
    return [
        Document(page_content=text, metadata={"n": n, "deep": {"list": [n]}}, id=str(n)) for n, text in enumerate(TEXTS)
    ]


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (20, 20), "white").save(tmp_path / "page.png")
    return tmp_path / "page.png"


def test_the_best_come_first_with_their_scores(docs):
    best = JinaLocalRerank(model=FakeReranker(), top_n=2).compress_documents(docs, QUESTION)
    assert [(doc.id, doc.page_content) for doc in best] == [("2", TEXTS[2]), ("1", TEXTS[1])]
    assert [doc.metadata["relevance_score"] for doc in best] == pytest.approx([1.0, 2 / 3])
    assert all(type(doc.metadata["relevance_score"]) is float for doc in best)
    everything = JinaLocalRerank(model=FakeReranker(), top_n=None).compress_documents(docs, QUESTION)
    assert [doc.id for doc in everything] == ["2", "1", "0", "3"]  # equal ones in the order they had
    assert len(JinaLocalRerank(model=FakeReranker()).compress_documents(docs, QUESTION)) == 3
    enough = JinaLocalRerank(model=FakeReranker(), top_n=None, score_threshold=0.6)
    assert [doc.id for doc in enough.compress_documents(docs, QUESTION)] == ["2", "1"]


def test_with_the_embedded_model(docs):
    best = JinaLocalRerank(model="lite", top_n=1).compress_documents(docs, "Which animals make music?")
    assert best[0].page_content in TEXTS[1:]
    assert 0 < best[0].metadata["relevance_score"] < 1


def test_originals_are_untouched(docs):
    before = copy.deepcopy(docs)
    best = JinaLocalRerank(model=FakeReranker()).compress_documents(docs, QUESTION)
    best[0].metadata["deep"]["list"].append("changed")
    best[0].metadata["more"] = 1
    assert docs == before


def test_nothing_in_nothing_out():
    reranker = FakeReranker()
    assert JinaLocalRerank(model=reranker).compress_documents([], QUESTION) == []
    assert not reranker.history


def test_pages_and_texts_in_one_list(image, tmp_path):
    docs = [
        Document(page_content="whales sing", metadata={"image": str(image)}),
        Document(page_content="which whales sing"),
        Document(page_content="whales", metadata={"image": str(tmp_path / "gone.png")}),
        Document(page_content="sing", metadata={"image": "data:image/png;base64," + "A" * 10_000}),
        Document(page_content="", metadata={"scan": str(image)}),
        Document(page_content=" "),
    ]
    pixels, words = PixelReranker(), FakeReranker()
    scored = JinaLocalRerank(model=pixels, top_n=None).compress_documents(docs, QUESTION)
    shown = [{"image": image}, "which whales sing", "whales", "sing"]
    assert pixels.history == [(QUESTION, tuple(shown))]
    assert [doc.metadata["relevance_score"] for doc in scored] == pytest.approx([1, 0.75, 1 / 3, 1 / 3, 0, 0])
    JinaLocalRerank(model=words, image_key="scan").compress_documents(docs, QUESTION)
    # A reader of words gets words; of a page that has none, the picture, for OCR.
    assert words.history == [(QUESTION, ("whales sing", "which whales sing", "whales", "sing", {"image": image}))]


def test_a_reranker_of_pixels_is_given_pixels(tiny, one_thread, image):
    """The architecture of jina-reranker-m0, with random weights."""
    pytest.importorskip("torch")
    rerank = JinaLocalRerank(model=tiny["m0"], device="cpu", max_pixels=20_000, top_n=None)
    docs = [Document(page_content="whales sing"), Document(page_content="", metadata={"image": str(image)})]
    expected = rerank.reranker.score(QUESTION, ["whales sing", {"image": image}])
    scores = {doc.page_content: doc.metadata["relevance_score"] for doc in rerank.compress_documents(docs, QUESTION)}
    np.testing.assert_allclose([scores["whales sing"], scores[""]], expected, atol=1e-6)


def test_a_calibration_makes_images_and_texts_comparable(image):
    labels = [("image", x / 20, x > 18) for x in range(26)] + [("text", x / 40, x > 9) for x in range(26)]
    calibration = fit_calibration([label for label in labels if label[1] <= 1])
    docs = [
        Document(page_content="a", metadata={"image": str(image)}),
        Document(page_content="whales sing"),
    ]
    plain = JinaLocalRerank(model=PixelReranker()).compress_documents(docs, QUESTION)
    fair = JinaLocalRerank(model=PixelReranker(), calibration=calibration).compress_documents(docs, QUESTION)
    assert [doc.page_content for doc in plain] == ["a", "whales sing"]
    assert [doc.page_content for doc in fair] == ["whales sing", "a"]
    again = JinaLocalRerank.model_validate_json(JinaLocalRerank(calibration=calibration).model_dump_json())
    assert again.calibration == calibration
    assert isinstance(again.calibration, Calibration)


def test_the_model_is_loaded_as_the_fields_say(monkeypatch, docs):
    calls = []
    monkeypatch.setattr(
        "jina_rag.adapters.models.load_reranker",
        lambda name, **options: calls.append((name, options)) or FakeReranker(),
    )
    rerank = JinaLocalRerank(
        model="jinaai/jina-reranker-m0", device="cuda", dtype="float16", max_pixels=9, max_length=8, revision="x"
    )
    assert not calls
    rerank.compress_documents(docs, QUESTION)
    rerank.compress_documents(docs, QUESTION)
    options = {
        "device": "cuda",
        "dtype": "float16",
        "max_pixels": 9,
        "max_length": 8,
        "revision": "x",
        "local_files_only": False,
    }
    assert calls == [("jinaai/jina-reranker-m0", options)]


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_round_trips_without_the_model():
    reranker = FakeReranker(name="lite")
    reranker.weights = bytes(100_000)
    rerank = JinaLocalRerank(model=reranker, top_n=5, score_threshold=0.25)
    kept = pickle.dumps(rerank)
    assert len(kept) < 1000
    assert "Fake" not in repr(rerank) + rerank.model_dump_json() + dumps(rerank)
    assert repr(rerank) == "JinaLocalRerank(model='lite', top_n=5, score_threshold=0.25)"
    by_name = JinaLocalRerank(model="lite", top_n=5, score_threshold=0.25)
    allowed = {"valid_namespaces": ["langchain_jina_rag"], "allowed_objects": [JinaLocalRerank]}
    for again in (
        pickle.loads(kept),
        JinaLocalRerank(**rerank.model_dump()),
        JinaLocalRerank.model_validate_json(rerank.model_dump_json()),
        loads(dumps(rerank), **allowed),
    ):
        assert again == by_name
    assert copy.deepcopy(rerank).reranker is reranker
    assert JinaLocalRerank.model_json_schema()["properties"]["top_n"]


def test_mistakes_are_told_when_it_is_made():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        JinaLocalRerank(k=3)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        JinaLocalRerank(top_n=0)
    with pytest.raises(ValidationError, match="a folder or a reranker"):
        JinaLocalRerank(model=object())
    with pytest.raises(ValidationError, match="dtype applies only to loading a model; 'fake' is loaded"):
        JinaLocalRerank(model=FakeReranker(), dtype="float16")


async def test_async_gives_the_same_in_a_thread(docs):
    reranker = ThreadedReranker()
    rerank = JinaLocalRerank(model=reranker)
    best = await rerank.acompress_documents(docs, QUESTION)
    assert reranker.threads
    assert threading.get_ident() not in reranker.threads
    assert best == rerank.compress_documents(docs, QUESTION)


# -- a retriever and a compressor --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    with fill(tmp_path_factory.mktemp("compression"), ThreadedEmbedder()) as index:
        yield JinaPageRetriever(index=index, k=3)


async def test_it_gives_what_the_classic_one_gives(base):
    classic = pytest.importorskip("langchain_classic.retrievers").ContextualCompressionRetriever
    parts = {"base_compressor": JinaLocalRerank(model=FakeReranker(), top_n=2), "base_retriever": base}
    theirs, ours = classic(**parts), JinaCompressionRetriever(**parts)
    for query in ("whales sing", "dry desert", "growth in towns"):
        for options in ({}, {"k": 1}, {"filter": {"year": 1900}}):
            expected = theirs.invoke(query, **options)
            assert ours.invoke(query, **options) == expected
            assert await ours.ainvoke(query, **options) == expected == await theirs.ainvoke(query, **options)
    assert ours.invoke("whales sing", filter={"year": 1900}) == []
    ran, compared = Trace(), Trace()
    ours.invoke("whales", {"callbacks": [ran]})
    theirs.invoke("whales", {"callbacks": [compared]})
    assert [event[0] for event in ran.events] == [event[0] for event in compared.events] == ["start"] * 2 + ["end"] * 2
    assert [event[-1] is None for event in ran.events] == [True, False, False, True]  # the base's run is a child


async def test_any_runnable_can_be_the_base(docs):
    chain = JinaCompressionRetriever(
        base_retriever=RunnableLambda(lambda query: docs), base_compressor=JinaLocalRerank(model=FakeReranker())
    )
    assert [doc.id for doc in chain.invoke(QUESTION)] == ["2", "1", "0"]
    assert await chain.ainvoke(QUESTION) == chain.invoke(QUESTION)


async def test_a_compressor_is_not_asked_about_nothing():
    class Strict(BaseDocumentCompressor):
        def compress_documents(self, documents, query, callbacks=None):
            raise AssertionError("nothing to compress")

    chain = JinaCompressionRetriever(base_retriever=RunnableLambda(lambda query_text: []), base_compressor=Strict())
    assert chain.invoke(QUESTION) == await chain.ainvoke(QUESTION) == []


async def test_no_model_works_on_the_loops_thread(base):
    reranker = ThreadedReranker()
    chain = JinaCompressionRetriever(base_retriever=base, base_compressor=JinaLocalRerank(model=reranker))
    base._index.external.embedder.threads.clear()
    assert len(await chain.ainvoke("whales sing")) == 3
    threads = base._index.external.embedder.threads | reranker.threads
    assert len(threads) >= 1
    assert threading.get_ident() not in threads


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_the_compression_retriever_round_trips():
    chain = JinaCompressionRetriever(
        base_retriever=JinaPageRetriever(index="kb", api_key="for-nobody", k=9),
        base_compressor=JinaLocalRerank(top_n=2),
    )
    kept = pickle.dumps(chain)
    assert b"for-nobody" not in kept
    assert "for-nobody" not in repr(chain) + dumps(chain) + str(chain.model_dump()) + chain.model_dump_json()
    assert chain.model_dump()["base_compressor"]["top_n"] == 2
    assert chain.model_dump()["base_retriever"]["k"] == 9
    chain.base_retriever.api_key = None
    classes = [JinaCompressionRetriever, JinaPageRetriever, JinaLocalRerank]
    again = loads(dumps(chain), valid_namespaces=["langchain_jina_rag"], allowed_objects=classes)
    assert again == chain == pickle.loads(kept)
    with pytest.raises(ValidationError, match="Extra inputs"):
        JinaCompressionRetriever(base_retriever=chain, base_compressor=JinaLocalRerank(), k=3)
