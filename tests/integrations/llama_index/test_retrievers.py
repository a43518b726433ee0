"""`JinaPageRetriever`: pages as nodes, search settings, filters, serialization and a multimodal query engine."""

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
    record_events,
)
from llama_index.core import get_response_synthesizer
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode, NodeRelationship, QueryBundle, TextNode
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.embeddings.jina_rag.node_inputs import query_input
from llama_index.postprocessor.jina_rag_rerank import JinaLocalRerank
from llama_index.retrievers.jina_rag import JinaPageRetriever
from llama_index.retrievers.jina_rag.filters import to_page_where, to_where
from llama_index.retrievers.jina_rag.nodes import hit_to_node
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
FAST_SETTINGS = IngestSettings(isolate=False)
YEARS = {"growth.pdf": 2023, "north [1].pdf": 2024, "nuts.pdf": 2025}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("docs")
    for name, pages in PAGES.items():
        sample_pdf(root / name, pages)
    return root


@pytest.fixture(scope="module")
def index(folder, tmp_path_factory):
    location = tmp_path_factory.mktemp("kb") / "kb"
    with DocumentIndex.open(location, embedder=ThreadedEmbedder()) as open_index:
        open_index.ingest(
            folder, metadata=lambda path: {"year": YEARS[path.name], "team": ["ops", path.stem]}, settings=FAST_SETTINGS
        )
        yield open_index


def page_names(hits) -> list[str]:
    return [f"{hit.metadata['file_name']} {hit.metadata['page_label']}" for hit in hits]


def build_filters(*filters, condition=FilterCondition.AND) -> MetadataFilters:
    items = [
        item if isinstance(item, MetadataFilters) else MetadataFilter(key=item[0], operator=item[1], value=item[2])
        for item in filters
    ]
    return MetadataFilters(filters=items, condition=condition)


def test_page_is_image_node_with_text_and_location(index, folder):
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
    other_hits = JinaPageRetriever(index, similarity_top_k=2).retrieve("north region")
    assert first.node_id in [hit.node_id for hit in other_hits]


def test_llm_metadata_excludes_local_paths(index, folder):
    node = JinaPageRetriever(index).retrieve("growth by region")[0].node
    llm_metadata = node.get_metadata_str(MetadataMode.LLM)
    assert llm_metadata == "file_name: growth.pdf\npage_label: 1\nyear: 2023\nteam: ['ops', 'growth']"
    assert node.get_metadata_str(MetadataMode.EMBED) == "file_name: growth.pdf\npage_label: 1"
    text, image = node.get_content_blocks(MetadataMode.LLM)
    assert isinstance(text, TextBlock)
    assert isinstance(image, ImageBlock)


def test_region_metadata_and_crop_image(tmp_path):
    page, crop = tmp_path / "page.jpg", tmp_path / "crop.jpg"
    region = Region("table", (0.1, 0.2, 0.3, 0.4000001), caption="Table 1. Growth", image_path=crop)
    hit = ScoredPage("a.pdf", Path("a.pdf"), 3, 0.5, region=region, image_path=page, page_id="p", other_pages=(1, 2))
    node = hit_to_node(hit)
    assert node.image_path == str(page)
    assert node.metadata["region_kind"] == "table"
    assert node.metadata["region_caption"] == "Table 1. Growth"
    assert node.metadata["region_box"] == [0.1, 0.2, 0.3, 0.4]
    assert node.metadata["region_image_path"] == str(crop)
    assert node.metadata["other_pages"] == [1, 2]
    assert "Table 1. Growth" in node.get_metadata_str(MetadataMode.LLM)
    assert str(tmp_path) not in node.get_metadata_str(MetadataMode.LLM)
    assert hit_to_node(hit, show="region").image_path == str(crop)
    assert hit_to_node(ScoredPage("a.pdf", Path("a.pdf"), 3, 0.5, image_path=page), show="region").image_path == str(
        page
    )


def test_page_without_local_image_is_text_node():
    node = hit_to_node(ScoredPage("a.pdf", Path("a.pdf"), 1, 0.5, text="words", page_id="p"))
    assert type(node) is TextNode
    assert node.get_content_blocks(MetadataMode.LLM)[-1].text == "words"


def test_document_metadata_cannot_override_location():
    hit = ScoredPage("a.pdf", Path("a.pdf"), 3, 0.5, metadata={"page_label": "9", "file_name": "b.pdf", "year": 1})
    metadata = hit_to_node(hit).metadata
    assert (metadata["page_label"], metadata["file_name"], metadata["year"]) == ("3", "a.pdf", 1)


def test_cite_adds_citation_box(index):
    query = "growth by region"
    hit = JinaPageRetriever(index, cite=True).retrieve(query)[0]
    citation = index.cite(query, index.search(query, k=1)[0])
    assert hit.metadata["citation_box"] == [round(side, 5) for side in citation.box]
    assert "citation_box" not in hit.node.get_metadata_str(MetadataMode.LLM)
    assert "citation_box" not in JinaPageRetriever(index).retrieve(query)[0].metadata


def test_search_settings_are_passed_to_index(index, monkeypatch):
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
    search_options = {}
    monkeypatch.setattr(index, "search", lambda query, **options: search_options.update(options) or [])
    retriever.retrieve(query)
    assert (search_options["stages"], search_options["dedup"], search_options["k"]) == (stages, True, 2)


def test_reranker_scores_pages(index):
    reranker = ThreadedReranker()
    hits = JinaPageRetriever(index, reranker=reranker, similarity_top_k=2).retrieve("list of authors")
    assert page_names(hits)[0] == "growth.pdf 2"
    assert hits[0].score == 1.0
    assert reranker.history
    with pytest.raises(InvalidInputError, match="Omit reranker"):
        JinaPageRetriever(index, reranker="lite", stages=Rerank(limit=3))


async def test_aretrieve_equals_retrieve_and_encodes_in_thread(index):
    retriever = JinaPageRetriever(index, similarity_top_k=3, cite=True)
    bundles = ["growth by region", QueryBundle("", embedding=index.embedder.encode_query(["north"]).single[0].tolist())]
    expected = [retriever.retrieve(copy.copy(bundle)) for bundle in bundles]
    index.embedder.threads.clear()
    assert [await retriever.aretrieve(copy.copy(bundle)) for bundle in bundles] == expected
    assert index.embedder.threads
    assert threading.get_ident() not in index.embedder.threads


def test_concurrent_aretrieve_equals_sequential(index):
    retriever = JinaPageRetriever(index)
    queries = ["growth", "north", "nuts", "authors"] * 5

    async def gather_retrievals():
        return await asyncio.gather(*(retriever.aretrieve(query) for query in queries))

    assert asyncio.run(gather_retrievals()) == [retriever.retrieve(query) for query in queries]


async def test_retrieve_dispatches_events_and_callbacks(index):
    callbacks = Callbacks()
    retriever = JinaPageRetriever(index, callback_manager=callbacks.manager)
    with record_events() as event_recorder:
        hits = retriever.retrieve("growth")
        await retriever.aretrieve("growth")
    retrieval_events = [event for event in event_recorder.events if event.class_name().startswith("Retrieval")]
    assert [event.class_name() for event in retrieval_events] == ["RetrievalStartEvent", "RetrievalEndEvent"] * 2
    assert retrieval_events[1].nodes == retrieval_events[3].nodes == hits
    assert [kind.value for kind, _ in callbacks.ended] == ["retrieve", "retrieve"]


def test_embedding_only_query_searches_dense_vectors(index):
    vector = index.embedder.encode_query(["self locking nuts"]).single[0].tolist()
    hits = JinaPageRetriever(index, similarity_top_k=1).retrieve(QueryBundle("", embedding=vector))
    assert page_names(hits) == ["nuts.pdf 1"]
    assert hits[0].score == pytest.approx(index.nearest(vector, k=1)[0].score)


def test_query_input_of_query_bundles():
    image = {"image": Path("chart.png")}
    assert query_input(QueryBundle("growth")) == "growth"
    assert query_input(QueryBundle("", image_path="chart.png")) == image
    assert query_input(QueryBundle("growth", image_path="chart.png")) == ["growth", image]
    assert query_input(QueryBundle("growth", custom_embedding_strs=["a", "b"])) == ["a", "b"]
    for empty in (QueryBundle(""), QueryBundle(" \n"), QueryBundle("", embedding=[1.0])):
        with pytest.raises(InvalidInputError, match="The query is empty"):
            query_input(empty)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (build_filters(("year", "==", 2024)), {"north [1].pdf 1"}),
        (build_filters(("year", ">=", 2024)), {"north [1].pdf 1", "nuts.pdf 1"}),
        (build_filters(("year", ">", 2023), ("year", "<", 2025)), {"north [1].pdf 1"}),
        (build_filters(("year", "in", [2023, 2025])), {"growth.pdf 1", "growth.pdf 2", "nuts.pdf 1"}),
        (build_filters(("team", "contains", "nuts")), {"nuts.pdf 1"}),
        (build_filters(("team", "any", ["nuts", "growth"]), ("year", "<=", 2023)), {"growth.pdf 1", "growth.pdf 2"}),
        (build_filters(("page_label", "==", "2")), {"growth.pdf 2"}),
        (build_filters(("page_label", ">", 1)), {"growth.pdf 2"}),
        (build_filters(("file_name", "==", "north [1].pdf")), {"north [1].pdf 1"}),
        (build_filters(("doc_id", "in", ["nuts.pdf"])), {"nuts.pdf 1"}),
        (build_filters(("year", "==", 2023), ("year", "==", 2025), condition=FilterCondition.OR),
         {"growth.pdf 1", "growth.pdf 2", "nuts.pdf 1"}),
        (build_filters(build_filters(("year", "==", 2023)), ("page", "==", 1)), {"growth.pdf 1"}),
        (build_filters(("year", "==", 1999)), set()),
    ],
)  # fmt: skip
def test_metadata_filters_select_pages(index, filters, expected):
    hits = JinaPageRetriever(index, similarity_top_k=9, filters=filters).retrieve("region of nuts")
    assert set(page_names(hits)) == expected


def test_file_path_filter_is_literal(index, folder):
    filters = build_filters(("file_path", "==", str(folder / "north [1].pdf")))
    assert page_names(JinaPageRetriever(index, similarity_top_k=9, filters=filters).retrieve("nuts")) == [
        "north [1].pdf 1"
    ]


def test_filters_and_filter_are_combined(index):
    retriever = JinaPageRetriever(
        index,
        similarity_top_k=9,
        filters=build_filters(("year", ">=", 2023)),
        filter={"page": 1, "team": ("growth", "nuts")},
    )
    assert set(page_names(retriever.retrieve("nuts"))) == {"growth.pdf 1", "nuts.pdf 1"}
    range_retriever = JinaPageRetriever(
        index, similarity_top_k=9, filters=build_filters(("year", ">", 2023)), filter={"year": Range(lt=2025)}
    )
    assert page_names(range_retriever.retrieve("nuts")) == ["north [1].pdf 1"]
    with pytest.raises(InvalidInputError, match="two conditions on 'page'"):
        JinaPageRetriever(index, filters=build_filters(("page", "==", 1)), filter={"page": 2})


@pytest.mark.parametrize(
    "filters",
    [
        build_filters(("year", "!=", 2024)),
        build_filters(("year", "nin", [2024])),
        build_filters(("name", "text_match", "a")),
        build_filters(("tags", "all", ["a", "b"])),
        build_filters(("tags", "is_empty", None)),
        build_filters(("year", "==", None)),
        build_filters(("year", "==", [1, 2])),
        build_filters(("year", "==", 1), ("year", "==", 2)),
        build_filters(("a", "==", 1), ("b", "==", 2), condition=FilterCondition.OR),
        build_filters(("a", ">", 1), ("a", "<", 0), condition=FilterCondition.OR),
        build_filters(("a", "==", 1), condition=FilterCondition.NOT),
        build_filters(build_filters(("a", "==", 1)), ("a", "==", 2), condition=FilterCondition.OR),
        build_filters(("file_name", ">", 2)),
    ],
)
def test_unsupported_filters_raise_invalid_input_error(filters):
    with pytest.raises(InvalidInputError, match=r"^The filter .* cannot be translated\. Use ==.*\.$"):
        to_page_where(filters)


def test_every_filter_operator_is_translated_or_raises():
    for operator in FilterOperator:
        value = ["a"] if operator.value in ("in", "nin", "any", "all") else 1
        try:
            assert to_where(build_filters(("key", operator, value)))
        except InvalidInputError:
            assert operator.value in ("!=", "nin", "text_match", "text_match_insensitive", "is_empty")


def test_retriever_opens_location_and_raises_if_missing(index, tmp_path):
    location = index.info().location
    location_retriever = JinaPageRetriever(location, embedder=index.embedder)
    assert page_names(location_retriever.retrieve("nuts"))[0] == "nuts.pdf 1"
    location_retriever.index.close()
    with pytest.raises(JinaRagError, match="No index at"):
        JinaPageRetriever(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(InvalidInputError, match="already open"):
        JinaPageRetriever(index, api_key="secret")
    with pytest.raises(InvalidInputError, match="expected one of page, region"):
        JinaPageRetriever(index, show="all")


def test_pickle_contains_location_only(tmp_path, folder):
    location = tmp_path / "kb"
    with DocumentIndex.open(location) as open_index:
        open_index.ingest(folder / "nuts.pdf", settings=FAST_SETTINGS)
        retriever = JinaPageRetriever(location, similarity_top_k=1, filters=build_filters(("page", "==", 1)))
        pickled = pickle.dumps(retriever)
        assert len(pickled) < 4000
        restored = pickle.loads(pickled)
        assert restored.retrieve("nuts") == retriever.retrieve("nuts")
        assert restored.similarity_top_k == 1
        for each in (retriever, restored):
            each.index.close()


def test_api_key_is_excluded_from_repr(monkeypatch, index):
    open_options = {}

    def fake_open(location, **options):
        open_options.update(options)
        return index

    monkeypatch.setattr(DocumentIndex, "open", fake_open)
    retriever = JinaPageRetriever("http://localhost:6333/kb", api_key="sesame")
    assert open_options["api_key"] == "sesame"
    assert "sesame" not in repr(retriever) + str(vars(retriever))
    assert "similarity_top_k=2" in repr(retriever)


@pytest.fixture(scope="module")
def sample_index(tmp_path_factory):
    location = tmp_path_factory.mktemp("samples") / "kb"
    documents = files("jina_rag") / "samples" / "documents"
    with DocumentIndex.open(location) as open_index:
        names = ("faa-self-locking-nuts.pdf", "vote-line-chart.pdf")
        open_index.ingest([str(documents / name) for name in names], settings=FAST_SETTINGS)
        yield open_index


@pytest.mark.parametrize("as_coroutine", [False, True])
async def test_query_engine_sends_image_after_citation(sample_index, as_coroutine):
    llm = EchoingVisionModel(requests=[])
    engine = RetrieverQueryEngine(
        JinaPageRetriever(sample_index, similarity_top_k=2),
        response_synthesizer=get_response_synthesizer(llm=llm, multimodal=True),
        node_postprocessors=[JinaLocalRerank("lite", top_n=1)],
    )
    query = "What keeps self-locking nuts from coming loose?"
    with no_network():
        response = await engine.aquery(query) if as_coroutine else engine.query(query)
    assert str(response) == "1 images"
    assert [hit.metadata["file_name"] for hit in response.source_nodes] == ["faa-self-locking-nuts.pdf"]
    blocks = llm.blocks
    image_position = next(i for i, block in enumerate(blocks) if isinstance(block, ImageBlock))
    assert blocks[image_position - 1].text.endswith("file_name: faa-self-locking-nuts.pdf\npage_label: 1")
    image_bytes = blocks[image_position].resolve_image().read()
    assert image_bytes == Path(response.source_nodes[0].node.image_path).read_bytes()
    assert query in blocks[image_position + 1].text


def test_context_manager_closes_own_index_only(index, tmp_path):
    with JinaPageRetriever(index) as retriever:
        assert retriever.retrieve("growth")
    assert index.search("growth")  # the caller passed an open index
    with DocumentIndex.open(tmp_path / "own", embedder=FakeEmbedder()) as own_index:
        own_index.add(["growth"], ids=["a"])
        with JinaPageRetriever(tmp_path / "own") as retriever:
            opened_index = retriever.index
            assert len(retriever.retrieve("growth")) == 1
        with pytest.raises(JinaRagError, match="closed"):
            opened_index.search("growth")
