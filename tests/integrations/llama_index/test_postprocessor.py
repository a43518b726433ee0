"""`JinaLocalRerank`: scores and inputs of texts and images, events, async use and serialization."""

from __future__ import annotations

import copy
import json
import pickle
import threading

import numpy as np
import pytest
from helpers.llama_index_fakes import Callbacks, ThreadedReranker, no_network, record_events
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.schema import ImageDocument, ImageNode, NodeWithScore, QueryBundle, TextNode
from llama_index.embeddings.jina_rag.node_inputs import IMAGE_HASH
from llama_index.postprocessor.jina_rag_rerank import JinaLocalRerank
from pydantic import ValidationError

import jina_rag
from jina_rag import InvalidInputError, save_page
from jina_rag.testing import make_page

QUERY = "growth by region"


class ImagePreferringReranker(ThreadedReranker):
    """Vision reranker that scores images above texts."""

    modality = "image"

    def score(self, query, documents):
        super().score("a word", documents)
        return np.array([0.2 if set(item) == {"text"} else 0.8 for item in documents], np.float32)


@pytest.fixture
def page(tmp_path):
    return save_page(make_page("growth by region"), tmp_path / "pages")


@pytest.fixture
def nodes(page):
    return [
        NodeWithScore(node=TextNode(text="list of authors", id_="authors"), score=0.9),
        NodeWithScore(node=ImageNode(text="growth by region", image_path=str(page), id_="page"), score=0.5),
        NodeWithScore(node=TextNode(text="growth of grass", id_="grass"), score=None),
    ]


def test_nodes_are_sorted_by_reranker_score(nodes):
    rerank = JinaLocalRerank(reranker=ThreadedReranker(), top_n=2)
    hits = rerank.postprocess_nodes(nodes, query_str=QUERY)
    assert [hit.node_id for hit in hits] == ["page", "grass"]
    assert [hit.score for hit in hits] == [1.0, pytest.approx(1 / 3)]
    assert rerank.reranker.history[0][1][1] == {"text": "growth by region"}


def test_input_nodes_are_not_modified(nodes):
    original = copy.deepcopy(nodes)
    hits = JinaLocalRerank(reranker=ThreadedReranker()).postprocess_nodes(nodes, query_str=QUERY)
    assert nodes == original
    assert not {id(hit) for hit in hits} & {id(hit) for hit in nodes}
    assert {id(hit.node) for hit in hits} == {id(hit.node) for hit in nodes}


def test_vision_reranker_inputs_of_images_and_texts(nodes, page, tmp_path):
    rerank = JinaLocalRerank(reranker=ImagePreferringReranker())
    missing_image = ImageNode(text="growth", image_path=str(tmp_path / "gone.jpg"), id_="gone")
    saved_page = ImageDocument(text="growth", image_path=str(page), metadata={IMAGE_HASH: page.stem}, id_="kept")
    all_nodes = [*nodes, NodeWithScore(node=missing_image), NodeWithScore(node=saved_page)]
    rerank.reranker.score = lambda query, documents: inputs.extend(documents) or np.zeros(len(documents), np.float32)
    inputs = []
    rerank.postprocess_nodes(all_nodes, query_str=QUERY)
    assert inputs[:4] == [{"text": "list of authors"}, {"image": page}, {"text": "growth of grass"}, {"text": "growth"}]
    assert isinstance(inputs[4], jina_rag.Page)


def test_missing_image_without_text_raises_error(tmp_path):
    missing_image = NodeWithScore(node=ImageNode(image_path=str(tmp_path / "gone.jpg")))
    with pytest.raises(jina_rag.JinaRagError, match=r"gone\.jpg"):
        JinaLocalRerank("lite").postprocess_nodes([missing_image], query_str=QUERY)


def test_embedded_metadata_is_part_of_reranker_input():
    node = TextNode(text="body", metadata={"title": "growth", "path": "region"}, excluded_embed_metadata_keys=["path"])
    rerank = JinaLocalRerank(reranker=ThreadedReranker())
    rerank.postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    assert rerank.reranker.history[0][1] == ({"text": "title: growth\n\nbody"},)


def test_query_may_be_an_image(nodes, page):
    queries = []
    reranker = ThreadedReranker()
    reranker.score = lambda query, documents: queries.append(query) or np.zeros(len(documents), np.float32)
    rerank = JinaLocalRerank(reranker=reranker)
    rerank.postprocess_nodes(nodes, QueryBundle("", image_path=str(page)))
    rerank.postprocess_nodes(nodes, QueryBundle("words", image_path=str(page)))
    assert queries == [{"image": page}, ["words", {"image": page}]]


def test_equal_scores_keep_order():
    hits = [NodeWithScore(node=TextNode(text="same", id_=str(i))) for i in range(5)]
    hits = JinaLocalRerank(reranker=ThreadedReranker()).postprocess_nodes(hits, query_str="same")
    assert [hit.node_id for hit in hits] == list("01234")


async def test_empty_nodes_and_missing_query(nodes):
    rerank = JinaLocalRerank(reranker=ThreadedReranker())
    with record_events() as event_recorder:
        assert rerank.postprocess_nodes([], query_str=QUERY) == []
        assert await rerank.apostprocess_nodes([], query_str=QUERY) == []
        with pytest.raises(ValueError, match="The query is missing"):
            rerank.postprocess_nodes(nodes)
        with pytest.raises(InvalidInputError, match="The query is empty"):
            await rerank.apostprocess_nodes(nodes, query_str=" ")
    assert not [name for name in event_recorder.names() if name.startswith("ReRank")]


async def test_apostprocess_nodes_equals_sync_and_runs_in_thread(nodes):
    rerank = JinaLocalRerank(reranker=ThreadedReranker())
    expected = rerank.postprocess_nodes(nodes, query_str=QUERY)
    rerank.reranker.threads.clear()
    assert await rerank.apostprocess_nodes(nodes, query_str=QUERY) == expected
    assert rerank.reranker.threads
    assert threading.get_ident() not in rerank.reranker.threads


async def test_rerank_dispatches_events_and_callbacks(nodes):
    callbacks = Callbacks()
    rerank = JinaLocalRerank(reranker=ThreadedReranker(), top_n=2, callback_manager=callbacks.manager)
    with record_events() as event_recorder:
        hits = rerank.postprocess_nodes(nodes, query_str=QUERY)
        await rerank.apostprocess_nodes(nodes, query_str=QUERY)
    assert event_recorder.names() == ["ReRankStartEvent", "ReRankEndEvent"] * 2
    start, end = event_recorder.events[:2]
    assert (start.query.query_str, start.top_n, start.model_name) == (QUERY, 2, "fake")
    assert [hit.node_id for hit in start.nodes] == ["authors", "page", "grass"]
    assert [hit.node_id for hit in end.nodes] == ["page", "grass"]
    assert callbacks.started[0][0] == CBEventType.RERANKING
    assert callbacks.started[0][1][EventPayload.TOP_K] == 2
    assert callbacks.ended[0][1][EventPayload.NODES] == hits


def test_lite_reranker_works_offline(nodes):
    with no_network():
        hits = JinaLocalRerank("lite", top_n=1).postprocess_nodes(nodes, query_str="What grew by region?")
    assert hits[0].node_id == "page"
    assert 0 <= hits[0].score <= 1


def test_settings_are_passed_to_load_reranker(monkeypatch, nodes):
    arguments = {}
    monkeypatch.setattr(
        "jina_rag.adapters.models.load_reranker",
        lambda name, **settings: arguments.update(settings, name=name) or ThreadedReranker(),
    )
    settings = {
        "device": "cuda",
        "dtype": "float16",
        "max_pixels": 9,
        "max_length": 8,
        "revision": "abc",
        "local_files_only": True,
    }
    JinaLocalRerank("jinaai/jina-reranker-m0", **settings).postprocess_nodes(nodes, query_str=QUERY)
    assert arguments == {**settings, "name": "jinaai/jina-reranker-m0"}
    with pytest.raises(InvalidInputError, match="model cannot be set for 'fake', which is already loaded"):
        JinaLocalRerank("lite", reranker=ThreadedReranker(), device="cpu")
    with pytest.raises(ValidationError, match="top_m"):
        JinaLocalRerank(top_m=3)
    with pytest.raises(ValidationError, match="top_n"):
        JinaLocalRerank(top_n=0)


def test_loaded_model_is_available_while_another_loads(monkeypatch):
    loading, proceed, names = threading.Event(), threading.Event(), []

    def load(name, **settings):
        if name == "slow":
            loading.set()
            assert proceed.wait(30)
        return ThreadedReranker(name=name)

    monkeypatch.setattr("jina_rag.adapters.models.load_reranker", load)
    loaded, slow = JinaLocalRerank("loaded"), JinaLocalRerank("slow")
    assert loaded.reranker.name == "loaded"
    threads = [
        threading.Thread(target=lambda: slow.reranker),
        threading.Thread(target=lambda: names.append(loaded.reranker)),
    ]
    threads[0].start()
    try:
        assert loading.wait(30)
        threads[1].start()
        threads[1].join(10)
        assert names == [loaded.reranker]
    finally:
        proceed.set()
        threads[0].join(30)


def test_rerank_serialization_round_trips(nodes):
    class Unpicklable(ThreadedReranker):
        def __reduce__(self):
            raise AssertionError("weights must not be pickled")

    rerank = JinaLocalRerank("lite", top_n=2, max_length=128)
    hits = rerank.postprocess_nodes(nodes, query_str=QUERY)
    for restored in (
        JinaLocalRerank.from_dict(rerank.to_dict()),
        JinaLocalRerank.from_json(rerank.to_json()),
        pickle.loads(pickle.dumps(rerank)),
        copy.deepcopy(rerank),
    ):
        assert (restored.model, restored.top_n, restored.max_length) == ("lite", 2, 128)
        assert restored.postprocess_nodes(nodes, query_str=QUERY) == hits
    assert json.loads(rerank.model_dump_json())["class_name"] == "JinaLocalRerank"
    passed_model = JinaLocalRerank(reranker=Unpicklable(name="lite"))
    assert pickle.loads(pickle.dumps(passed_model))._lazy_model.external is None
    assert copy.deepcopy(passed_model).reranker is passed_model.reranker


@pytest.mark.usefixtures("one_thread")
def test_m0_scores_texts_and_images(tiny, nodes):
    """The tiny checkpoint has random weights, so only the presence and range of scores are checked."""
    hits = JinaLocalRerank(tiny["m0"], max_pixels=28 * 28 * 16).postprocess_nodes(nodes, query_str=QUERY)
    assert {hit.node_id for hit in hits} == {"authors", "page", "grass"}
    assert all(0 <= hit.score <= 1 for hit in hits)
