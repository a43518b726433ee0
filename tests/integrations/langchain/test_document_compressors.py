"""JinaLocalRerank and JinaCompressionRetriever: scores, inputs, calibration, serialization and async use."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from helpers.langchain_fakes import PixelReranker, ThreadedEmbedder, ThreadedReranker, Trace, make_index, no_network
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.load import dumps, loads
from langchain_core.runnables import RunnableLambda
from langchain_jina_rag import JinaCompressionRetriever, JinaLocalRerank, JinaPageRetriever
from PIL import Image
from pydantic import ValidationError

from jina_rag import Calibration, fit_calibration
from jina_rag.testing import FakeReranker

QUERY = "which whales sing"
TEXTS = ["a tax report", "whales sing", "which whales sing at night", "singing"]


@pytest.fixture(autouse=True)
def block_network():
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


def test_compress_documents_sorts_by_score(docs):
    best = JinaLocalRerank(model=FakeReranker(), top_n=2).compress_documents(docs, QUERY)
    assert [(doc.id, doc.page_content) for doc in best] == [("2", TEXTS[2]), ("1", TEXTS[1])]
    assert [doc.metadata["relevance_score"] for doc in best] == pytest.approx([1.0, 2 / 3])
    assert all(type(doc.metadata["relevance_score"]) is float for doc in best)
    all_documents = JinaLocalRerank(model=FakeReranker(), top_n=None).compress_documents(docs, QUERY)
    assert [doc.id for doc in all_documents] == ["2", "1", "0", "3"]  # documents with equal scores keep the order
    assert len(JinaLocalRerank(model=FakeReranker()).compress_documents(docs, QUERY)) == 3
    with_threshold = JinaLocalRerank(model=FakeReranker(), top_n=None, score_threshold=0.6)
    assert [doc.id for doc in with_threshold.compress_documents(docs, QUERY)] == ["2", "1"]


def test_lite_reranker_scores_documents(docs):
    best = JinaLocalRerank(model="lite", top_n=1).compress_documents(docs, "Which animals make music?")
    assert best[0].page_content in TEXTS[1:]
    assert 0 < best[0].metadata["relevance_score"] < 1


def test_compress_documents_copies_documents(docs):
    original = copy.deepcopy(docs)
    best = JinaLocalRerank(model=FakeReranker()).compress_documents(docs, QUERY)
    best[0].metadata["deep"]["list"].append("changed")
    best[0].metadata["more"] = 1
    assert docs == original


def test_compress_documents_without_documents():
    reranker = FakeReranker()
    assert JinaLocalRerank(model=reranker).compress_documents([], QUERY) == []
    assert not reranker.history


def test_reranker_inputs_of_pages_and_texts(image, tmp_path):
    docs = [
        Document(page_content="whales sing", metadata={"image": str(image)}),
        Document(page_content="which whales sing"),
        Document(page_content="whales", metadata={"image": str(tmp_path / "gone.png")}),
        Document(page_content="sing", metadata={"image": "data:image/png;base64," + "A" * 10_000}),
        Document(page_content="", metadata={"scan": str(image)}),
        Document(page_content=" "),
    ]
    image_reranker, text_reranker = PixelReranker(), FakeReranker()
    results = JinaLocalRerank(model=image_reranker, top_n=None).compress_documents(docs, QUERY)
    expected_inputs = [{"image": image}, "which whales sing", "whales", "sing"]
    assert image_reranker.history == [(QUERY, tuple(expected_inputs))]
    assert [doc.metadata["relevance_score"] for doc in results] == pytest.approx([1, 0.75, 1 / 3, 1 / 3, 0, 0])
    JinaLocalRerank(model=text_reranker, image_key="scan").compress_documents(docs, QUERY)
    # A text reranker reads the text of a page. If the text is empty, the text is read from the image by OCR.
    assert text_reranker.history == [(QUERY, ("whales sing", "which whales sing", "whales", "sing", {"image": image}))]


def test_m0_scores_images_and_texts(tiny, one_thread, image):
    """Architecture of jina-reranker-m0 with random weights."""
    pytest.importorskip("torch")
    rerank = JinaLocalRerank(model=tiny["m0"], device="cpu", max_pixels=20_000, top_n=None)
    docs = [Document(page_content="whales sing"), Document(page_content="", metadata={"image": str(image)})]
    expected = rerank.reranker.score(QUERY, ["whales sing", {"image": image}])
    scores = {doc.page_content: doc.metadata["relevance_score"] for doc in rerank.compress_documents(docs, QUERY)}
    np.testing.assert_allclose([scores["whales sing"], scores[""]], expected, atol=1e-6)


def test_calibration_reorders_images_and_texts(image):
    labels = [("image", x / 20, x > 18) for x in range(26)] + [("text", x / 40, x > 9) for x in range(26)]
    calibration = fit_calibration([label for label in labels if label[1] <= 1])
    docs = [
        Document(page_content="a", metadata={"image": str(image)}),
        Document(page_content="whales sing"),
    ]
    uncalibrated = JinaLocalRerank(model=PixelReranker()).compress_documents(docs, QUERY)
    calibrated = JinaLocalRerank(model=PixelReranker(), calibration=calibration).compress_documents(docs, QUERY)
    assert [doc.page_content for doc in uncalibrated] == ["a", "whales sing"]
    assert [doc.page_content for doc in calibrated] == ["whales sing", "a"]
    restored = JinaLocalRerank.model_validate_json(JinaLocalRerank(calibration=calibration).model_dump_json())
    assert restored.calibration == calibration
    assert isinstance(restored.calibration, Calibration)


def test_model_is_loaded_with_field_options(monkeypatch, docs):
    calls = []
    monkeypatch.setattr(
        "jina_rag.adapters.models.load_reranker",
        lambda name, **options: calls.append((name, options)) or FakeReranker(),
    )
    rerank = JinaLocalRerank(
        model="jinaai/jina-reranker-m0", device="cuda", dtype="float16", max_pixels=9, max_length=8, revision="x"
    )
    assert not calls
    rerank.compress_documents(docs, QUERY)
    rerank.compress_documents(docs, QUERY)
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
def test_serialization_excludes_model():
    reranker = FakeReranker(name="lite")
    reranker.weights = bytes(100_000)
    rerank = JinaLocalRerank(model=reranker, top_n=5, score_threshold=0.25)
    pickled = pickle.dumps(rerank)
    assert len(pickled) < 1000
    assert "Fake" not in repr(rerank) + rerank.model_dump_json() + dumps(rerank)
    assert repr(rerank) == "JinaLocalRerank(model='lite', top_n=5, score_threshold=0.25)"
    expected = JinaLocalRerank(model="lite", top_n=5, score_threshold=0.25)
    allowed = {"valid_namespaces": ["langchain_jina_rag"], "allowed_objects": [JinaLocalRerank]}
    for restored in (
        pickle.loads(pickled),
        JinaLocalRerank(**rerank.model_dump()),
        JinaLocalRerank.model_validate_json(rerank.model_dump_json()),
        loads(dumps(rerank), **allowed),
    ):
        assert restored == expected
    assert copy.deepcopy(rerank).reranker is reranker
    assert JinaLocalRerank.model_json_schema()["properties"]["top_n"]


def test_invalid_fields_raise_validation_error():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        JinaLocalRerank(k=3)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        JinaLocalRerank(top_n=0)
    with pytest.raises(ValidationError, match="a folder or a reranker"):
        JinaLocalRerank(model=object())
    with pytest.raises(ValidationError, match="dtype cannot be set for 'fake', which is already loaded"):
        JinaLocalRerank(model=FakeReranker(), dtype="float16")


async def test_acompress_documents_runs_in_thread(docs):
    reranker = ThreadedReranker()
    rerank = JinaLocalRerank(model=reranker)
    best = await rerank.acompress_documents(docs, QUERY)
    assert reranker.threads
    assert threading.get_ident() not in reranker.threads
    assert best == rerank.compress_documents(docs, QUERY)


@pytest.fixture(scope="module")
def base_retriever(tmp_path_factory):
    with make_index(tmp_path_factory.mktemp("compression"), ThreadedEmbedder()) as index:
        yield JinaPageRetriever(index=index, k=3)


async def test_compression_retriever_equals_classic(base_retriever):
    ClassicRetriever = pytest.importorskip("langchain_classic.retrievers").ContextualCompressionRetriever
    parts = {"base_compressor": JinaLocalRerank(model=FakeReranker(), top_n=2), "base_retriever": base_retriever}
    classic, chain = ClassicRetriever(**parts), JinaCompressionRetriever(**parts)
    for query in ("whales sing", "dry desert", "growth in towns"):
        for options in ({}, {"k": 1}, {"filter": {"year": 1900}}):
            expected = classic.invoke(query, **options)
            assert chain.invoke(query, **options) == expected
            assert await chain.ainvoke(query, **options) == expected == await classic.ainvoke(query, **options)
    assert chain.invoke("whales sing", filter={"year": 1900}) == []
    trace, classic_trace = Trace(), Trace()
    chain.invoke("whales", {"callbacks": [trace]})
    classic.invoke("whales", {"callbacks": [classic_trace]})
    assert (
        [event[0] for event in trace.events]
        == [event[0] for event in classic_trace.events]
        == ["start"] * 2 + ["end"] * 2
    )
    assert [event[-1] is None for event in trace.events] == [
        True,
        False,
        False,
        True,
    ]  # the base retriever's run is a child


async def test_compression_retriever_accepts_any_runnable(docs):
    chain = JinaCompressionRetriever(
        base_retriever=RunnableLambda(lambda query: docs), base_compressor=JinaLocalRerank(model=FakeReranker())
    )
    assert [doc.id for doc in chain.invoke(QUERY)] == ["2", "1", "0"]
    assert await chain.ainvoke(QUERY) == chain.invoke(QUERY)


async def test_compressor_is_not_called_without_documents():
    class FailingCompressor(BaseDocumentCompressor):
        def compress_documents(self, documents, query, callbacks=None):
            raise AssertionError("nothing to compress")

    chain = JinaCompressionRetriever(
        base_retriever=RunnableLambda(lambda query_text: []), base_compressor=FailingCompressor()
    )
    assert chain.invoke(QUERY) == await chain.ainvoke(QUERY) == []


async def test_compression_retriever_runs_models_in_threads(base_retriever):
    reranker = ThreadedReranker()
    chain = JinaCompressionRetriever(base_retriever=base_retriever, base_compressor=JinaLocalRerank(model=reranker))
    base_retriever._index.external.embedder.threads.clear()
    assert len(await chain.ainvoke("whales sing")) == 3
    threads = base_retriever._index.external.embedder.threads | reranker.threads
    assert len(threads) >= 1
    assert threading.get_ident() not in threads


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_compression_retriever_serialization():
    chain = JinaCompressionRetriever(
        base_retriever=JinaPageRetriever(index="kb", api_key="for-nobody", k=9),
        base_compressor=JinaLocalRerank(top_n=2),
    )
    pickled = pickle.dumps(chain)
    assert b"for-nobody" not in pickled
    assert "for-nobody" not in repr(chain) + dumps(chain) + str(chain.model_dump()) + chain.model_dump_json()
    assert chain.model_dump()["base_compressor"]["top_n"] == 2
    assert chain.model_dump()["base_retriever"]["k"] == 9
    chain.base_retriever.api_key = None
    classes = [JinaCompressionRetriever, JinaPageRetriever, JinaLocalRerank]
    restored = loads(dumps(chain), valid_namespaces=["langchain_jina_rag"], allowed_objects=classes)
    assert restored == chain == pickle.loads(pickled)
    with pytest.raises(ValidationError, match="Extra inputs"):
        JinaCompressionRetriever(base_retriever=chain, base_compressor=JinaLocalRerank(), k=3)
