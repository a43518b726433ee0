"""`JinaPageRetriever`: pages as nodes, filters, questions of words and pictures, and a query engine that shows them."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from importlib.resources import files
from pathlib import Path

import pytest
from helpers.llama_index_fakes import (
    Callbacks,
    EchoingVisionModel,
    ThreadedEmbedder,
    ThreadedReranker,
    no_network,
    recorded,
)
from llama_index.core import get_response_synthesizer
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode, NodeRelationship, QueryBundle, TextNode
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.embeddings.jina_rag.node_inputs import query_of
from llama_index.postprocessor.jina_rag_rerank import JinaLocalRerank
from llama_index.retrievers.jina_rag import JinaPageRetriever
from llama_index.retrievers.jina_rag.filters import page_where, where_of
from llama_index.retrievers.jina_rag.nodes import node_of
from PIL import Image

from jina_rag import (
    DocumentIndex,
    IngestSettings,
    InvalidInputError,
    JinaRagError,
    Prefetch,
    Range,
    Region,
    Rerank,
    Rescore,
    ScoredPage,
)
from jina_rag.testing import FakeEmbedder, sample_pdf

PAGES = {
    "growth.pdf": ["growth by region in the north", "list of authors"],
    "north [1].pdf": ["north and south, region by region"],
    "nuts.pdf": ["self locking nuts and bolts"],
}
QUICK = IngestSettings(isolate=False)
YEARS = {"growth.pdf": 2023, "north [1].pdf": 2024, "nuts.pdf": 2025}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("docs")
    for name, pages in PAGES.items():
        sample_pdf(root / name, pages)
    return root


@pytest.fixture(scope="module")
def index(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("kb") / "kb"
    with DocumentIndex.open(place, embedder=ThreadedEmbedder()) as opened:
        opened.ingest(
            folder, metadata=lambda path: {"year": YEARS[path.name], "team": ["ops", path.stem]}, settings=QUICK
        )
        yield opened


def names(hits) -> list[str]:
    return [f"{hit.metadata['file_name']} {hit.metadata['page_label']}" for hit in hits]


def every(*filters, condition=FilterCondition.AND) -> MetadataFilters:
    listed = [
        item if isinstance(item, MetadataFilters) else MetadataFilter(key=item[0], operator=item[1], value=item[2])
        for item in filters
    ]
    return MetadataFilters(filters=listed, condition=condition)


# -- pages as nodes --------------------------------------------------------------------------------------------


def test_a_page_is_an_image_node_with_its_words_and_its_place(index, folder):
    hits = JinaPageRetriever(index, similarity_top_k=2).retrieve("growth by region")
    first = hits[0].node
    assert isinstance(first, ImageNode)
    assert first.text == "growth by region in the north"
    assert hits[0].text == first.text
    assert first.image_mimetype == "image/jpeg"
    with Image.open(first.image_path) as image:
        assert image.width > 100
    assert first.metadata == {
        "file_name": "growth.pdf",
        "page_label": "1",
        "file_path": str(folder / "growth.pdf"),
        "doc_id": "growth.pdf",
        "total_pages": 2,
        "snippet": "growth by region in the north",
        "year": 2023,
        "team": ["ops", "growth"],
    }
    assert first.relationships[NodeRelationship.SOURCE].node_id == first.ref_doc_id == "growth.pdf"
    assert hits[0].score > hits[1].score
    again = JinaPageRetriever(index, similarity_top_k=2).retrieve("north region")
    assert first.node_id in [hit.node_id for hit in again]


def test_a_model_is_told_where_a_page_comes_from_and_nothing_of_this_machine(index, folder):
    node = JinaPageRetriever(index).retrieve("growth by region")[0].node
    told = node.get_metadata_str(MetadataMode.LLM)
    assert told == "file_name: growth.pdf\npage_label: 1\nyear: 2023\nteam: ['ops', 'growth']"
    assert node.get_metadata_str(MetadataMode.EMBED) == "file_name: growth.pdf\npage_label: 1"
    text, image = node.get_content_blocks(MetadataMode.LLM)
    assert isinstance(text, TextBlock)
    assert isinstance(image, ImageBlock)


def test_the_region_that_answers_is_named_and_its_crop_can_be_shown(tmp_path):
    page, crop = tmp_path / "page.jpg", tmp_path / "crop.jpg"
    region = Region("table", (0.1, 0.2, 0.3, 0.4000001), caption="Table 1. Growth", image_path=crop)
    hit = ScoredPage("a.pdf", Path("a.pdf"), 3, 0.5, region=region, image_path=page, page_id="p", other_pages=(1, 2))
    node = node_of(hit)
    assert node.image_path == str(page)
    assert node.metadata["region_kind"] == "table"
    assert node.metadata["region_caption"] == "Table 1. Growth"
    assert node.metadata["region_box"] == [0.1, 0.2, 0.3, 0.4]
    assert node.metadata["region_image_path"] == str(crop)
    assert node.metadata["other_pages"] == [1, 2]
    assert "Table 1. Growth" in node.get_metadata_str(MetadataMode.LLM)
    assert str(tmp_path) not in node.get_metadata_str(MetadataMode.LLM)
    assert node_of(hit, show="region").image_path == str(crop)
    assert node_of(ScoredPage("a.pdf", Path("a.pdf"), 3, 0.5, image_path=page), show="region").image_path == str(page)


def test_a_page_whose_picture_is_elsewhere_is_a_text():
    node = node_of(ScoredPage("a.pdf", Path("a.pdf"), 1, 0.5, text="words", page_id="p"))
    assert type(node) is TextNode
    assert node.get_content_blocks(MetadataMode.LLM)[-1].text == "words"


def test_metadata_of_a_document_cannot_say_another_place():
    hit = ScoredPage("a.pdf", Path("a.pdf"), 3, 0.5, metadata={"page_label": "9", "file_name": "b.pdf", "year": 1})
    metadata = node_of(hit).metadata
    assert (metadata["page_label"], metadata["file_name"], metadata["year"]) == ("3", "a.pdf", 1)


def test_a_box_to_cite_is_found_where_it_is_asked_for(index):
    query = "growth by region"
    hit = JinaPageRetriever(index, cite=True).retrieve(query)[0]
    cited = index.cite(query, index.search(query, k=1)[0])
    assert hit.metadata["citation_box"] == [round(side, 5) for side in cited.box]
    assert "citation_box" not in hit.node.get_metadata_str(MetadataMode.LLM)
    assert "citation_box" not in JinaPageRetriever(index).retrieve(query)[0].metadata


# -- searching -------------------------------------------------------------------------------------------------


def test_settings_of_a_search_are_passed_on(index, monkeypatch):
    query = "region in the north"
    assert len(JinaPageRetriever(index, similarity_top_k=1).retrieve(query)) == 1
    by_document = JinaPageRetriever(index, similarity_top_k=9, group_by="document").retrieve(query)
    assert len({hit.metadata["doc_id"] for hit in by_document}) == len(by_document) == 3
    best = by_document[0].score
    assert [
        hit.score for hit in JinaPageRetriever(index, similarity_top_k=9, score_threshold=best).retrieve(query)
    ] == [best]
    stages = [Rescore(identifiers=0), Prefetch(limit=7)]
    retriever = JinaPageRetriever(index, stages=stages, dedup=True)
    seen = {}
    monkeypatch.setattr(index, "search", lambda query, **options: seen.update(options) or [])
    retriever.retrieve(query)
    assert (seen["stages"], seen["dedup"], seen["k"]) == (stages, True, 2)


def test_a_reranker_judges_the_best(index):
    reranker = ThreadedReranker()
    hits = JinaPageRetriever(index, reranker=reranker, similarity_top_k=2).retrieve("list of authors")
    assert names(hits)[0] == "growth.pdf 2"
    assert hits[0].score == 1.0
    assert reranker.history
    with pytest.raises(InvalidInputError, match="leave reranker out"):
        JinaPageRetriever(index, reranker="lite", stages=Rerank(limit=3))


async def test_the_coroutine_gives_the_same_and_encodes_elsewhere(index):
    retriever = JinaPageRetriever(index, similarity_top_k=3, cite=True)
    bundles = ["growth by region", QueryBundle("", embedding=index.embedder.encode_query(["north"]).single[0].tolist())]
    sync = [retriever.retrieve(copy.copy(bundle)) for bundle in bundles]
    index.embedder.threads.clear()
    assert [await retriever.aretrieve(copy.copy(bundle)) for bundle in bundles] == sync
    assert index.embedder.threads
    assert threading.get_ident() not in index.embedder.threads


def test_many_at_once_give_what_they_give_in_turn(index):
    retriever = JinaPageRetriever(index)
    queries = ["growth", "north", "nuts", "authors"] * 5

    async def all_of_them():
        return await asyncio.gather(*(retriever.aretrieve(query) for query in queries))

    assert asyncio.run(all_of_them()) == [retriever.retrieve(query) for query in queries]


async def test_events_and_callbacks_tell_of_it(index):
    callbacks = Callbacks()
    retriever = JinaPageRetriever(index, callback_manager=callbacks.manager)
    with recorded() as heard:
        hits = retriever.retrieve("growth")
        await retriever.aretrieve("growth")
    ours = [event for event in heard.events if event.class_name().startswith("Retrieval")]
    assert [event.class_name() for event in ours] == ["RetrievalStartEvent", "RetrievalEndEvent"] * 2
    assert ours[1].nodes == ours[3].nodes == hits
    assert [kind.value for kind, _ in callbacks.ended] == ["retrieve", "retrieve"]


def test_a_vector_alone_is_compared_with_the_dense_vectors(index):
    vector = index.embedder.encode_query(["self locking nuts"]).single[0].tolist()
    hits = JinaPageRetriever(index, similarity_top_k=1).retrieve(QueryBundle("", embedding=vector))
    assert names(hits) == ["nuts.pdf 1"]
    assert hits[0].score == pytest.approx(index.nearest(vector, k=1)[0].score)


def test_what_is_asked_with_a_query():
    image = {"image": Path("chart.png")}
    assert query_of(QueryBundle("growth")) == "growth"
    assert query_of(QueryBundle("", image_path="chart.png")) == image
    assert query_of(QueryBundle("growth", image_path="chart.png")) == ["growth", image]
    assert query_of(QueryBundle("growth", custom_embedding_strs=["a", "b"])) == ["a", "b"]
    for empty in (QueryBundle(""), QueryBundle(" \n"), QueryBundle("", embedding=[1.0])):
        with pytest.raises(InvalidInputError, match="The query is empty"):
            query_of(empty)


# -- filters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (every(("year", "==", 2024)), {"north [1].pdf 1"}),
        (every(("year", ">=", 2024)), {"north [1].pdf 1", "nuts.pdf 1"}),
        (every(("year", ">", 2023), ("year", "<", 2025)), {"north [1].pdf 1"}),
        (every(("year", "in", [2023, 2025])), {"growth.pdf 1", "growth.pdf 2", "nuts.pdf 1"}),
        (every(("team", "contains", "nuts")), {"nuts.pdf 1"}),
        (every(("team", "any", ["nuts", "growth"]), ("year", "<=", 2023)), {"growth.pdf 1", "growth.pdf 2"}),
        (every(("page_label", "==", "2")), {"growth.pdf 2"}),
        (every(("page_label", ">", 1)), {"growth.pdf 2"}),
        (every(("file_name", "==", "north [1].pdf")), {"north [1].pdf 1"}),
        (every(("doc_id", "in", ["nuts.pdf"])), {"nuts.pdf 1"}),
        (every(("year", "==", 2023), ("year", "==", 2025), condition=FilterCondition.OR),
         {"growth.pdf 1", "growth.pdf 2", "nuts.pdf 1"}),
        (every(every(("year", "==", 2023)), ("page", "==", 1)), {"growth.pdf 1"}),
        (every(("year", "==", 1999)), set()),
    ],
)  # fmt: skip
def test_filters_of_llama_index_hold(index, filters, expected):
    hits = JinaPageRetriever(index, similarity_top_k=9, filters=filters).retrieve("region of nuts")
    assert set(names(hits)) == expected


def test_a_file_is_meant_by_its_path(index, folder):
    filters = every(("file_path", "==", str(folder / "north [1].pdf")))
    assert names(JinaPageRetriever(index, similarity_top_k=9, filters=filters).retrieve("nuts")) == ["north [1].pdf 1"]


def test_both_kinds_of_filter_must_match(index):
    retriever = JinaPageRetriever(
        index, similarity_top_k=9, filters=every(("year", ">=", 2023)), filter={"page": 1, "team": ("growth", "nuts")}
    )
    assert set(names(retriever.retrieve("nuts"))) == {"growth.pdf 1", "nuts.pdf 1"}
    ranged = JinaPageRetriever(
        index, similarity_top_k=9, filters=every(("year", ">", 2023)), filter={"year": Range(lt=2025)}
    )
    assert names(ranged.retrieve("nuts")) == ["north [1].pdf 1"]
    with pytest.raises(InvalidInputError, match="two conditions on 'page'"):
        JinaPageRetriever(index, filters=every(("page", "==", 1)), filter={"page": 2})


@pytest.mark.parametrize(
    "filters",
    [
        every(("year", "!=", 2024)),
        every(("year", "nin", [2024])),
        every(("name", "text_match", "a")),
        every(("tags", "all", ["a", "b"])),
        every(("tags", "is_empty", None)),
        every(("year", "==", None)),
        every(("year", "==", [1, 2])),
        every(("year", "==", 1), ("year", "==", 2)),
        every(("a", "==", 1), ("b", "==", 2), condition=FilterCondition.OR),
        every(("a", ">", 1), ("a", "<", 0), condition=FilterCondition.OR),
        every(("a", "==", 1), condition=FilterCondition.NOT),
        every(every(("a", "==", 1)), ("a", "==", 2), condition=FilterCondition.OR),
        every(("file_name", ">", 2)),
    ],
)
def test_what_cannot_be_translated_is_refused_in_one_sentence(filters):
    with pytest.raises(InvalidInputError, match=r"^The filter .* cannot be translated: use ==.*\.$"):
        page_where(filters)


def test_every_operator_is_translated_or_refused():
    for operator in FilterOperator:
        value = ["a"] if operator.value in ("in", "nin", "any", "all") else 1
        try:
            assert where_of(every(("key", operator, value)))
        except InvalidInputError:
            assert operator.value in ("!=", "nin", "text_match", "text_match_insensitive", "is_empty")


# -- as an object ----------------------------------------------------------------------------------------------


def test_a_place_is_opened_and_what_is_not_there_is_said(index, tmp_path):
    place = index.info().location
    by_place = JinaPageRetriever(place, embedder=index.embedder)
    assert names(by_place.retrieve("nuts"))[0] == "nuts.pdf 1"
    by_place.index.close()
    with pytest.raises(JinaRagError, match="no index"):
        JinaPageRetriever(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(InvalidInputError, match="this index is open"):
        JinaPageRetriever(index, api_key="secret")
    with pytest.raises(InvalidInputError, match="'page' or 'region'"):
        JinaPageRetriever(index, show="all")


def test_it_is_pickled_by_its_place_without_secrets(tmp_path, folder):
    place = tmp_path / "kb"
    with DocumentIndex.open(place) as opened:
        opened.ingest(folder / "nuts.pdf", settings=QUICK)
        retriever = JinaPageRetriever(place, similarity_top_k=1, filters=every(("page", "==", 1)))
        stored = pickle.dumps(retriever)
        assert len(stored) < 4000
        again = pickle.loads(stored)
        assert again.retrieve("nuts") == retriever.retrieve("nuts")
        assert again.similarity_top_k == 1
        for one in (retriever, again):
            one.index.close()


def test_a_key_is_not_shown(monkeypatch, index):
    seen = {}

    def opened(location, **options):
        seen.update(options)
        return index

    monkeypatch.setattr(DocumentIndex, "open", opened)
    retriever = JinaPageRetriever("http://localhost:6333/kb", api_key="sesame")
    assert seen["api_key"] == "sesame"
    assert "sesame" not in repr(retriever) + str(vars(retriever))
    assert "similarity_top_k=2" in repr(retriever)


# -- in a query engine -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    place = tmp_path_factory.mktemp("samples") / "kb"
    documents = files("jina_rag") / "samples" / "documents"
    with DocumentIndex.open(place) as opened:
        names = ("faa-self-locking-nuts.pdf", "vote-line-chart.pdf")
        opened.ingest([str(documents / name) for name in names], settings=QUICK)
        yield opened


@pytest.mark.parametrize("as_coroutine", [False, True])
async def test_the_page_reaches_the_chat_model_as_a_picture_beside_its_citation(samples, as_coroutine):
    llm = EchoingVisionModel(shown=[])
    engine = RetrieverQueryEngine(
        JinaPageRetriever(samples, similarity_top_k=2),
        response_synthesizer=get_response_synthesizer(llm=llm, multimodal=True),
        node_postprocessors=[JinaLocalRerank("lite", top_n=1)],
    )
    query = "What keeps self-locking nuts from coming loose?"
    with no_network():
        answer = await engine.aquery(query) if as_coroutine else engine.query(query)
    assert str(answer) == "1 images"
    assert [hit.metadata["file_name"] for hit in answer.source_nodes] == ["faa-self-locking-nuts.pdf"]
    blocks = llm.blocks
    where = next(i for i, block in enumerate(blocks) if isinstance(block, ImageBlock))
    assert blocks[where - 1].text.endswith("file_name: faa-self-locking-nuts.pdf\npage_label: 1")
    shown = blocks[where].resolve_image().read()
    assert shown == Path(answer.source_nodes[0].node.image_path).read_bytes()
    assert query in blocks[where + 1].text


def test_leaving_a_block_releases_what_was_opened_here(index, tmp_path):
    with JinaPageRetriever(index) as retriever:
        assert retriever.retrieve("growth")
    assert index.search("growth")  # it was given open
    with DocumentIndex.open(tmp_path / "own", embedder=FakeEmbedder()) as own:
        own.add(["growth"], ids=["a"])
        with JinaPageRetriever(tmp_path / "own") as retriever:
            place = retriever.index
            assert len(retriever.retrieve("growth")) == 1
        with pytest.raises(JinaRagError, match="closed"):
            place.search("growth")
