"""`JinaVectorStore` and `JinaPageReader`: adding, deleting, querying, serialization, reading and pipelines."""

from __future__ import annotations

import base64
import datetime as dt
import gc
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.index_locks import is_locked
from helpers.llama_index_fakes import EchoingVisionModel, ThreadedEmbedder, no_network
from llama_index.core import SimpleDirectoryReader, StorageContext, VectorStoreIndex, get_response_synthesizer
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.schema import (
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.embeddings.jina_rag import JinaLocalEmbedding, JinaPageEmbedding
from llama_index.embeddings.jina_rag.vector_cache import VECTOR_CACHE
from llama_index.readers.jina_rag import JinaPageReader
from llama_index.retrievers.jina_rag import JinaPageRetriever
from llama_index.vector_stores.jina_rag import JinaVectorStore
from PIL import Image, ImageDraw, ImageFont

from jina_rag import DocumentIndex, Embeddings, IngestSettings, InvalidInputError, Page
from jina_rag.errors import IndexNotFoundError
from jina_rag.testing import sample_pdf

FAST_SETTINGS = IngestSettings(isolate=False, ocr="never", dpi=60)


@pytest.fixture(autouse=True)
def empty_vector_cache():
    VECTOR_CACHE.clear()
    yield
    VECTOR_CACHE.clear()


@pytest.fixture
def embedder():
    return ThreadedEmbedder()


@pytest.fixture
def store(tmp_path, embedder):
    store = JinaVectorStore(tmp_path / "kb", embedder=embedder)
    yield store
    store.close()


@pytest.fixture
def reader(tmp_path):
    return JinaPageReader(tmp_path / "pages", settings=FAST_SETTINGS, root=tmp_path)


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "image.png"
    Image.new("RGB", (60, 80), "navy").save(path)
    return path


def test_dates_are_stored_as_text_and_filtered_by_value(store):
    when = dt.datetime(2025, 1, 31, 9, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    store.add([
        TextNode(id_="a", text="whales sing", metadata={"when": when, "deep": {"naive": [dt.datetime(2024, 1, 1)]}}),
        TextNode(id_="b", text="whales swim", metadata={"when": dt.date(2024, 5, 1)}),
    ])  # fmt: skip

    def ids(*conditions):
        filters = MetadataFilters(filters=[MetadataFilter(key=k, operator=op, value=v) for k, op, v in conditions])
        return store.query(VectorStoreQuery(query_str="whales", similarity_top_k=9, filters=filters)).ids

    assert ids(("when", ">=", "2025-01-01")) == ["a"]
    assert ids(("when", "<", "2025-01-01"), ("when", ">", "2024-01-01"), ("when", ">=", "2024-04-30T00:00Z")) == ["b"]
    assert ids(("when", "==", "2025-01-31")) == ids(("when", "==", "2025-01-31T08:30:00Z")) == ["a"]
    assert ids(("when", "in", ["2025-01-31", "2024-05-01T00:00:00Z"])) in (["a", "b"], ["b", "a"])
    assert ids(("deep.naive", "==", "2024-01-01 00:00")) == ["a"]
    stored = {entry.doc_id: entry.metadata for entry in store.client.documents()}
    assert stored["a"]["when"] == "2025-01-31T09:30:00+01:00"
    assert stored["a"]["deep"] == {"naive": ["2024-01-01T00:00:00+00:00"]}


def test_metadata_that_llama_index_cannot_serialize(store):
    store.add([TextNode(id_="a", text="x", metadata={"n": np.float32(1.5), "when": np.datetime64("2025-01-31")})])
    [entry] = store.client.documents()
    assert (entry.metadata["n"], entry.metadata["when"]) == (1.5, "2025-01-31")
    for value in (b"\xff", object()):
        node = TextNode(id_="b", text="x", metadata={"good": 1, "bad": value})
        with pytest.raises(InvalidInputError, match="metadata key 'bad' of 'b' cannot be stored"):
            store.add([node])


def test_ids_that_spell_dates_are_names(store):
    for name in ("2025-01-31", "2025-01-31T09:30:00"):
        store.add([TextNode(text=f"notes of {name}", relationships=source_relation(name))])
    store.delete("2025-01-31")
    [entry] = store.client.documents()
    assert entry.metadata["ref_doc_id"] == "2025-01-31T09:30:00"


def source_relation(doc_id: str):
    return {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=doc_id)}


def texts(**text_by_id: str) -> list[TextNode]:
    return [TextNode(id_=name, text=text) for name, text in text_by_id.items()]


def where_filter(key, value, operator="==") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def make_query(query: str, k: int = 5, **options) -> VectorStoreQuery:
    return VectorStoreQuery(query_str=query, similarity_top_k=k, **options)


def test_nodes_are_returned_unchanged(store, image):
    base64_text = base64.b64encode(image.read_bytes()).decode()
    nodes = [
        TextNode(
            id_="text",
            text="  two\nlines of words ",
            metadata={"year": 2024, "tags": ["a", "b"], "deep": {"x": None}, "doc_id": "mine", "page": 7, "has": "x"},
            excluded_embed_metadata_keys=["deep"],
            excluded_llm_metadata_keys=["year"],
            relationships=source_relation("doc")
            | {NodeRelationship.NEXT: RelatedNodeInfo(node_id="n", metadata={"a": 1})},
            start_char_idx=3,
            end_char_idx=9,
            metadata_template="{key}={value}",
            text_template="{content} ({metadata_str})",
        ),
        ImageNode(id_="path", text="words of an image", image_path=str(image), metadata={"year": 2023}),
        ImageNode(id_="data", text="words in base64", image=base64_text),
        IndexNode(id_="index", text="a summary", index_id="elsewhere", obj=TextNode(id_="inner", text="inner")),
        Node(id_="node", text_resource=MediaResource(text="words of a node")),
    ]
    original = [node.model_copy(deep=True) for node in nodes]
    assert store.add(nodes) == ["text", "path", "data", "index", "node"]
    assert nodes == original
    stored_nodes = store.get_nodes(["node", "index", "missing", "data", "path", "text"])
    assert [type(node) for node in stored_nodes] == [Node, IndexNode, ImageNode, ImageNode, TextNode]
    assert stored_nodes[::-1] == original
    result = store.query(make_query("two lines of words", k=9))
    assert sorted(result.ids) == sorted(node.node_id for node in original)
    assert {node.node_id: node for node in result.nodes} == {node.node_id: node for node in original}


def test_documents_become_text_or_image_nodes(store, image):
    base64_text = base64.b64encode(image.read_bytes()).decode()
    store.add(
        [
            Document(id_="a", text="words", metadata={"year": 1}),
            ImageDocument(id_="b", text="words", image_path=str(image), metadata={"year": 2}),
            ImageDocument(id_="c", text="words", image=base64_text),
            Node(id_="d", image_resource=MediaResource(data=image.read_bytes(), mimetype="image/png")),
        ]
    )
    a, b, c, d = store.get_nodes(["a", "b", "c", "d"])
    assert (type(a), a.text, a.metadata) == (TextNode, "words", {"year": 1})
    assert (type(b), b.text, b.image_path, b.image_mimetype) == (ImageNode, "words", str(image), "image/png")
    assert (type(c), c.image) == (ImageNode, base64_text)
    assert (type(d), d.image, d.image_mimetype) == (ImageNode, base64_text, "image/png")


def test_embedded_text_equals_llama_index_embed_text(store, embedder):
    node = TextNode(text="body", metadata={"title": "growth", "path": "x"}, excluded_embed_metadata_keys=["path"])
    store.add([node])
    assert embedder.documents == [{"text": "title: growth\n\nbody"}]
    assert store.query(make_query("growth")).nodes == [node]


def test_existing_id_is_replaced_and_unchanged_not_reembedded(store, embedder):
    store.add(texts(a="growth", b="authors"))
    store.add(texts(a="nuts", b="authors"))
    assert [item["text"] for item in embedder.documents] == ["growth", "authors", "nuts"]
    assert [node.text for node in store.get_nodes()] == ["nuts", "authors"]
    assert store.add([*texts(c="first"), *texts(c="second")]) == ["c", "c"]
    assert store.get_nodes(["c"])[0].text == "second"
    assert store.add([]) == []


def test_image_url_raises_invalid_input_error(store):
    with pytest.raises(InvalidInputError, match="URLs are not fetched"):
        store.add([ImageNode(image_url="https://example.org/a.png")])


def test_delete_by_document_id_node_id_and_filter(store):
    nodes = [TextNode(id_=f"{doc}{i}", text="words", relationships=source_relation(doc), metadata={"i": i})
             for doc in "ab" for i in range(3)]  # fmt: skip
    store.add([*nodes, Document(id_="whole", text="words")])

    def remaining_ids():
        return sorted(node.node_id for node in store.get_nodes())

    store.delete("a")
    assert remaining_ids() == ["b0", "b1", "b2", "whole"]
    store.delete("whole")
    store.delete("unknown")
    store.delete("b*")
    assert remaining_ids() == ["b0", "b1", "b2"]
    store.delete_nodes()
    store.delete_nodes([])
    store.delete_nodes(["b0", "b1"], filters=where_filter("i", 1))
    assert remaining_ids() == ["b0", "b2"]
    store.delete_nodes(filters=where_filter("i", 0, ">"))
    assert remaining_ids() == ["b0"]
    store.delete_nodes(["b0"])
    assert remaining_ids() == []


def test_delete_and_clear_keep_ingested_files(store, tmp_path):
    file = sample_pdf(tmp_path / "report.pdf", ["growth by region"])
    store.client.ingest(file, settings=FAST_SETTINGS, metadata={"_node_content": "untrusted metadata"})
    store.add(texts(a="growth"))
    page = next(node for node in store.query(make_query("growth by region")).nodes if node.node_id != "a")
    assert isinstance(page, ImageNode)
    assert page.metadata["file_name"] == "report.pdf"
    assert page.text == "growth by region"
    store.delete_nodes(["report.pdf", page.node_id])
    store.clear()
    assert store.get_nodes() == []
    assert [node.node_id for node in store.query(make_query("growth")).nodes] == [page.node_id]


def test_query_by_text_or_by_vector(store, embedder):
    store.add(texts(a="growth by region", b="list of authors"))
    result = store.query(make_query("which region", query_embedding=[0.0] * 128))
    assert result.ids[0] == "a"
    assert result.similarities == [hit.score for hit in store.client.search("which region")]
    vector = embedder.encode_query(["list of authors"]).single[0].tolist()
    nearest = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=1))
    assert (nearest.ids, nearest.similarities) == (["b"], [pytest.approx(1, abs=1e-3)])
    with pytest.raises(InvalidInputError, match="Pass query_str or query_embedding"):
        store.query(VectorStoreQuery(similarity_top_k=1))
    with pytest.raises(InvalidInputError, match="expected 128 finite numbers"):
        store.query(VectorStoreQuery(query_embedding=[1.0] * 1536, similarity_top_k=1))


def test_filters_select_nodes_by_metadata(store):
    store.add(
        [
            TextNode(
                id_="a",
                text="words",
                metadata={"year": 2023, "page": 4, "doc_id": "x"},
                relationships=source_relation("A"),
            ),
            TextNode(
                id_="b",
                text="words",
                metadata={"year": 2024, "page": 5, "doc_id": "y"},
                relationships=source_relation("B"),
            ),
            TextNode(id_="c", text="words", metadata={"year": 2025, "tags": ["u", "v"]}),
        ]
    )

    def ids(filters=None, **options):
        node_ids = store.query(make_query("words", filters=filters, **options)).ids
        if not options:
            assert sorted(node.node_id for node in store.get_nodes(filters=filters)) == sorted(node_ids)
        return sorted(node_ids)

    assert ids(where_filter("year", 2024)) == ["b"]
    assert ids(where_filter("year", 2024, ">=")) == ["b", "c"]
    assert ids(where_filter("page", 4)) == ["a"]
    assert ids(where_filter("doc_id", ["x", "y"], "in")) == ["a", "b"]
    assert ids(where_filter("tags", "u", "contains")) == ["c"]
    assert ids(where_filter("ref_doc_id", "B")) == ["b"]
    assert ids(where_filter("nothing", 1)) == []
    assert ids(doc_ids=["A", "c"]) == ["a", "c"]
    assert ids(node_ids=["b", "c"]) == ["b", "c"]
    assert ids(where_filter("year", 2023, ">"), node_ids=["a", "b"]) == ["b"]
    either_year = MetadataFilters(
        filters=[MetadataFilter(key="year", value=year) for year in (2023, 2025)], condition=FilterCondition.OR
    )
    assert ids(either_year) == ["a", "c"]
    assert [node.node_id for node in store.get_nodes(["c", "b", "a"], either_year)] == ["c", "a"]
    for unsupported_filter in (where_filter("year", 2024, "!="), where_filter("year", [2024], "nin")):
        for call in (
            store.query,
            lambda q: store.get_nodes(filters=q.filters),
            lambda q: store.delete_nodes(filters=q.filters),
        ):
            with pytest.raises(InvalidInputError, match="cannot be translated"):
                call(make_query("words", filters=unsupported_filter))
    assert len(store.get_nodes()) == 3


def test_mmr_query_diversifies(store):
    store.add(texts(a="growth by region north", b="growth by region north south", c="growth of grass", d=""))
    similar = store.query(make_query("growth by region", k=2))
    assert set(similar.ids) == {"a", "b"}
    diverse = make_query("growth by region", k=2, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.3)
    result = store.query(diverse)
    assert result.ids == ["a", "c"]
    assert result.similarities[0] > result.similarities[1]
    by_vector = VectorStoreQuery(
        query_embedding=store.client.embedder.encode_query(["growth by region"]).single[0].tolist(),
        similarity_top_k=2,
        mode=VectorStoreQueryMode.MMR,
        mmr_threshold=0.3,
    )
    assert store.query(by_vector).ids == ["a", "c"]
    assert set(store.query(diverse, mmr_prefetch_k=2).ids) == {"a", "b"}
    store.clear()
    assert store.query(diverse).ids == []


@pytest.mark.parametrize("mode", [mode for mode in VectorStoreQueryMode if mode.value not in ("default", "mmr")])
def test_other_query_modes_raise_invalid_input_error(store, mode):
    with pytest.raises(InvalidInputError, match=f"mode is '{mode.value}'; expected DEFAULT"):
        store.query(make_query("words", mode=mode))


def test_search_settings_are_passed_to_index(store):
    store.add(texts(a="growth by region", b="authors"))
    assert store.query(make_query("growth by region"), score_threshold=0.5).ids == ["a"]


async def test_async_methods_equal_sync_and_encode_in_threads(tmp_path):
    def new_store(name):
        return JinaVectorStore(tmp_path / name, embedder=ThreadedEmbedder())

    sync_store, async_store = new_store("one"), new_store("other")
    nodes = [
        TextNode(id_=c, text=f"words {c}", metadata={"i": i}, relationships=source_relation(c))
        for i, c in enumerate("abcd")
    ]
    queries = [
        make_query("words b"),
        make_query("words c", mode=VectorStoreQueryMode.MMR, k=2),
        VectorStoreQuery(query_embedding=sync_store.client.embedder.encode_query(["words d"]).single[0].tolist()),
    ]
    assert await async_store.async_add(nodes) == sync_store.add(nodes)
    for query in queries:
        assert await async_store.aquery(query) == sync_store.query(query)
    assert await async_store.aget_nodes(["b", "a"]) == sync_store.get_nodes(["b", "a"])
    assert await async_store.aget_nodes(filters=where_filter("i", 2, "<")) == sync_store.get_nodes(
        filters=where_filter("i", 2, "<")
    )
    sync_store.delete("a")
    await async_store.adelete("a")
    sync_store.delete_nodes(["b"], where_filter("i", 1))
    await async_store.adelete_nodes(["b"], where_filter("i", 1))
    assert await async_store.aget_nodes() == sync_store.get_nodes() == nodes[2:]
    sync_store.clear()
    await async_store.aclear()
    assert await async_store.aget_nodes() == sync_store.get_nodes() == []
    assert async_store.client.embedder.threads
    assert threading.get_ident() not in async_store.client.embedder.threads
    sync_store.close()
    async_store.close()


def test_store_serialization_round_trips(tmp_path):
    store = JinaVectorStore(tmp_path / "kb", storage="balanced")
    store.add(texts(a="growth"))
    settings_dict = store.to_dict()
    assert settings_dict == {
        "index": str(tmp_path / "kb"),
        "assets_dir": None,
        "stores_text": True,
        "is_embedding_query": False,
        "class_name": "JinaVectorStore",
    }
    copies = [
        JinaVectorStore.from_dict(settings_dict),
        JinaVectorStore.from_json(store.to_json()),
        pickle.loads(pickle.dumps(store)),
    ]
    assert json.loads(store.model_dump_json()) == settings_dict
    for copy in copies:
        assert copy.get_nodes() == store.get_nodes()
        assert copy.query(make_query("growth")) == store.query(make_query("growth"))
        copy.close()
    store.close()
    assert store.get_nodes(["a"])
    store.close()


def test_threads_share_one_handle_and_close_releases_lock(tmp_path):
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.add(["growth"], ids=["a"])
    with JinaVectorStore(tmp_path / "kb") as original:
        store = pickle.loads(pickle.dumps(original))
    barrier, clients = threading.Barrier(6), []

    def open_client():
        barrier.wait()
        clients.append(store.client)

    threads = [threading.Thread(target=open_client) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(clients) == 6
    assert len({id(client) for client in clients}) == 1
    assert is_locked(tmp_path / "kb")
    store.close()
    assert not is_locked(tmp_path / "kb")


def test_unpickled_store_does_not_recreate_index(tmp_path):
    store = JinaVectorStore(tmp_path / "kb")
    pickled = pickle.dumps(store)
    store.close()
    (tmp_path / "kb").rename(tmp_path / "moved")
    restored = pickle.loads(pickled)
    for call in (
        lambda: restored.client,
        lambda: restored.query(make_query("growth")),
        lambda: restored.add(texts(a="growth")),
    ):
        with pytest.raises(IndexNotFoundError, match=f"No index at {tmp_path / 'kb'}"):
            call()
    assert not (tmp_path / "kb").exists()


def test_deleted_stores_and_retrievers_release_index_lock(tmp_path):
    store = JinaVectorStore(tmp_path / "kb")
    store.add(texts(a="growth"))
    retriever = JinaPageRetriever(tmp_path / "kb")
    assert len(retriever.retrieve("growth")) == 1
    assert is_locked(tmp_path / "kb")
    del store
    gc.collect()
    assert is_locked(tmp_path / "kb")
    del retriever
    gc.collect()
    assert not is_locked(tmp_path / "kb")


def test_api_key_is_excluded_from_repr_dump_and_pickle(monkeypatch, store):
    open_options = {}

    def fake_open(location, **options):
        open_options.update(options)
        return store.client

    monkeypatch.setattr(DocumentIndex, "open", fake_open)
    server_store = JinaVectorStore("http://localhost:6333/kb", api_key="sesame", assets_dir="pages")
    assert open_options["api_key"] == "sesame"
    assert server_store.index == "http://localhost:6333/kb"
    for text in (
        repr(server_store),
        str(server_store),
        str(server_store.to_dict()),
        server_store.model_dump_json(),
        str(pickle.dumps(server_store)),
    ):
        assert "sesame" not in text
    assert pickle.loads(pickle.dumps(server_store)).assets_dir == str(Path("pages").absolute())


def test_passed_open_index_is_shared(store):
    shared_store = JinaVectorStore(store.client)
    assert shared_store.client is store.client
    assert shared_store.index == store.index
    shared_store.close()
    assert store.get_nodes() == []
    with pytest.raises(InvalidInputError, match="already open"):
        JinaVectorStore(store.client, storage="exact")
    with pytest.raises(InvalidInputError, match="stores texts and embeds queries"):
        JinaVectorStore(store.client, is_embedding_query=True)


@pytest.mark.parametrize("as_coroutine", [False, True])
async def test_vector_store_index_answers_with_page_images(tmp_path, store, embedder, reader, as_coroutine):
    file = sample_pdf(tmp_path / "report.pdf", ["growth by region in the north", "list of authors"])
    store.add(reader.load_data(file))
    index = VectorStoreIndex.from_vector_store(store, embed_model=JinaLocalEmbedding(embedder=embedder))
    llm = EchoingVisionModel(requests=[])
    engine = index.as_query_engine(
        llm=llm, similarity_top_k=1, response_synthesizer=get_response_synthesizer(llm=llm, multimodal=True)
    )
    embedder.history.clear()
    embedder.threads.clear()
    with no_network():
        response = await engine.aquery("Which region?") if as_coroutine else engine.query("Which region?")
    assert str(response) == "1 images"
    assert response.source_nodes[0].metadata["page_label"] == "1"
    image_position = next(i for i, block in enumerate(llm.blocks) if block.block_type == "image")
    assert llm.blocks[image_position - 1].text.endswith("file_name: report.pdf\npage_label: 1")
    assert [kind for kind, _ in embedder.history] == ["query"]  # only the index encodes the query, and only once
    assert as_coroutine == (threading.get_ident() not in embedder.threads)


def test_vector_store_index_inserts_and_deletes_nodes(store):
    index = VectorStoreIndex(
        nodes=texts(a="growth by region"),
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=MockEmbedding(1),
    )
    index.insert_nodes(texts(b="list of authors"))
    retriever = index.as_retriever(similarity_top_k=1, vector_store_kwargs={"score_threshold": 0.1})
    assert [hit.node_id for hit in retriever.retrieve("authors")] == ["b"]
    index.delete_nodes(["b"])
    assert [hit.node_id for hit in index.as_retriever(similarity_top_k=9).retrieve("authors")] == ["a"]


def test_page_retriever_returns_added_nodes(store):
    nodes = texts(a="growth by region")
    store.add(nodes)
    hits = JinaPageRetriever(store.client, cite=False).retrieve("growth")
    assert [hit.node for hit in hits] == nodes


async def test_reader_returns_one_document_per_page(tmp_path, reader):
    file = sample_pdf(
        tmp_path / "docs" / "report.pdf" if (tmp_path / "docs").mkdir() is None else "", ["one", "two words"]
    )
    documents = reader.load_data(file, extra_info={"year": 2024})
    assert [type(document) for document in documents] == [ImageDocument] * 2
    second = documents[1]
    assert second.id_ == "docs/report.pdf#p0002"
    assert second.text == "two words"
    image = Path(second.image_path)
    assert image.is_relative_to(tmp_path / "pages")
    assert second.image_mimetype == "image/jpeg"
    assert second.metadata == {
        "file_name": "report.pdf",
        "page_label": "2",
        "year": 2024,
        "file_path": str(file),
        "doc_id": "docs/report.pdf",
        "image_sha256": image.stem,
    }
    assert second.ref_doc_id is None
    assert second.get_metadata_str(MetadataMode.LLM) == "file_name: report.pdf\npage_label: 2\nyear: 2024"
    assert reader.load_data([file], {"year": 2024}) == documents
    assert await reader.aload_data(file, extra_info={"year": 2024}) == documents
    assert list(await reader.alazy_load_data(file, extra_info={"year": 2024})) == documents
    assert list(reader.lazy_load_data(str(file), {"year": 2024})) == documents


def test_document_ids_are_absolute_without_root(tmp_path):
    reader = JinaPageReader(tmp_path / "pages", settings=FAST_SETTINGS)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sample_pdf(tmp_path / name / "report.pdf", ["same"])
    ids = [document.id_ for name in ("a", "b") for document in reader.load_data(tmp_path / name / "report.pdf")]
    assert ids == [f"{(tmp_path / name / 'report.pdf').as_posix()}#p0001" for name in ("a", "b")]


def test_lazy_load_data_reads_pages_on_demand(tmp_path, reader, monkeypatch):
    file = sample_pdf(tmp_path / "report.pdf", ["one", "two"])
    saved_pages = []
    module = "jina_rag.adapters.pages"
    from jina_rag import save_page

    monkeypatch.setattr(f"{module}.save_page", lambda page, folder: saved_pages.append(page) or save_page(page, folder))
    pages = reader.lazy_load_data(file)
    next(iter(pages))
    assert len(saved_pages) == 1


def test_unreadable_files_are_listed_and_reported(tmp_path, caplog):
    broken_file = tmp_path / "bad.pdf"
    broken_file.write_bytes(b"%PDF-1.7 broken")
    readable_file = sample_pdf(tmp_path / "good.pdf", ["words"])
    reported = []
    reader = JinaPageReader(tmp_path / "pages", settings=FAST_SETTINGS, on_failure=reported.append)
    assert len(reader.load_data([broken_file, readable_file])) == 1
    assert [failure.path for failure in reader.failures] == [broken_file]
    assert reported == reader.failures
    assert "bad.pdf" not in caplog.text
    reader.on_failure = None
    reader.load_data(broken_file)
    assert "bad.pdf" in caplog.text
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "notes.xyz").write_text("text")
    caplog.clear()
    reader.load_data(tmp_path / "docs")
    assert [file.path.name for file in reader.skipped] == ["notes.xyz"]
    assert f"notes.xyz): {reader.skipped[0].reason}" in caplog.text
    reader.load_data(readable_file)
    assert reader.failures == reader.skipped == []
    with pytest.raises(InvalidInputError):
        reader.load_data(tmp_path / "missing.pdf")
    with pytest.raises(InvalidInputError, match="Download the files first"):
        reader.load_data(readable_file, fs=object())


async def test_reader_works_as_file_extractor(tmp_path, reader):
    (tmp_path / "docs").mkdir()
    sample_pdf(tmp_path / "docs" / "report.pdf", ["one", "two"])

    def directory():
        return SimpleDirectoryReader(
            tmp_path / "docs", file_extractor={".pdf": reader}, file_metadata=lambda path: {"team": "ops"}
        )

    documents = directory().load_data()
    assert [document.id_ for document in documents] == ["docs/report.pdf#p0001", "docs/report.pdf#p0002"]
    assert documents[0].metadata["team"] == "ops"
    assert await directory().aload_data() == documents


class RecordingEmbedder(ThreadedEmbedder):
    """Embedder that records the encoded texts."""

    def take_documents(self) -> list[str]:
        contents = [item.text if isinstance(item, Page) else item["text"] for item in self.documents]
        self.history.clear()
        return contents


@pytest.fixture
def pipeline(tmp_path):
    embedder = RecordingEmbedder()
    store = JinaVectorStore(tmp_path / "kb", embedder=embedder)
    yield IngestionPipeline(
        transformations=[JinaPageEmbedding(embedder=embedder, batch_size=2)],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    store.close()


@pytest.mark.parametrize("as_coroutine", [False, True])
async def test_pipeline_reembeds_changed_and_deletes_removed_pages(tmp_path, reader, pipeline, as_coroutine):
    (tmp_path / "docs").mkdir()
    file, second_file = tmp_path / "docs" / "a.pdf", tmp_path / "docs" / "b.pdf"
    store, embedder = pipeline.vector_store, pipeline.transformations[0].embed_model.embedder

    async def run():
        documents = reader.load_data(tmp_path / "docs")
        nodes = await pipeline.arun(documents=documents) if as_coroutine else pipeline.run(documents=documents)
        return [node.node_id for node in nodes]

    def stored_texts():
        return {node.node_id.removeprefix("docs/"): node.text for node in store.get_nodes()}

    sample_pdf(file, ["growth by region", "list of authors", "nuts and bolts"])
    sample_pdf(second_file, ["north and south"])
    assert len(await run()) == 4
    # Each page is encoded once, because the store uses the vectors from the pipeline.
    assert sorted(embedder.take_documents()) == [
        "growth by region",
        "list of authors",
        "north and south",
        "nuts and bolts",
    ]
    assert len(VECTOR_CACHE) == 0
    assert stored_texts() == {
        "a.pdf#p0001": "growth by region",
        "a.pdf#p0002": "list of authors",
        "a.pdf#p0003": "nuts and bolts",
        "b.pdf#p0001": "north and south",
    }

    assert await run() == []
    assert embedder.take_documents() == []

    sample_pdf(file, ["growth by region", "list of editors", "nuts and bolts", "one page more"])
    assert await run() == ["docs/a.pdf#p0002", "docs/a.pdf#p0004"]
    assert embedder.take_documents() == ["list of editors", "one page more"]
    assert stored_texts()["a.pdf#p0002"] == "list of editors"
    assert len(stored_texts()) == 5
    assert store.query(make_query("authors", k=1)).nodes[0].text != "list of authors"

    sample_pdf(file, ["growth by region"])
    second_file.unlink()
    assert await run() == []
    assert embedder.take_documents() == []
    assert stored_texts() == {"a.pdf#p0001": "growth by region"}
    assert store.query(make_query("growth by region")).ids == ["docs/a.pdf#p0001"]


def test_pipeline_reembeds_changed_image_with_same_text(tmp_path, reader, pipeline):
    """LlamaIndex's pipeline cache is keyed by text and metadata, which include the image hash."""
    file = tmp_path / "scan.png"
    embedder = pipeline.transformations[0].embed_model.embedder
    for color in ("white", "black", "black"):
        Image.new("RGB", (60, 80), color).save(file)
        pipeline.run(documents=reader.load_data(file))
    assert embedder.take_documents() == ["", ""]
    pixels = [Image.open(node.image_path).getpixel((5, 5)) for node in pipeline.vector_store.get_nodes()]
    assert pixels == [(0, 0, 0)]


def test_cached_vectors_equal_index_vectors(tmp_path, reader):
    file = sample_pdf(tmp_path / "report.pdf", ["growth by region", "list of authors"])
    documents = [*reader.load_data(file), TextNode(id_="text", text="nuts and bolts")]
    results = []
    for name, step in (("one", True), ("other", False)):
        embedder = ThreadedEmbedder()
        store = JinaVectorStore(tmp_path / name, embedder=embedder)
        store.add(JinaPageEmbedding(embedder=embedder)(documents) if step else documents)
        result = store.query(make_query("growth by authors of bolts"))
        pages = store.client.get(result.ids)
        boxes = [store.client.cite("growth by authors of bolts", page).box for page in pages[:2]]
        results.append((result, store.client.dense_vectors(pages), boxes))
        store.close()
    assert results[0][0] == results[1][0]
    assert np.array_equal(results[0][1], results[1][1])
    assert results[0][2] == results[1][2]


def test_uncached_nodes_are_embedded_by_store(store, embedder):
    nodes = texts(a="growth", b="authors")
    JinaPageEmbedding(embedder=embedder)(nodes)
    VECTOR_CACHE.drop(next(iter(VECTOR_CACHE._vectors)))
    embedder.history.clear()
    assert store.add(nodes) == ["a", "b"]
    assert embedder.documents == [{"text": "growth"}]
    assert store.get_nodes(["a", "b"])[1].text == "authors"


def test_cached_vectors_of_another_model_are_ignored(store, embedder):
    nodes = texts(a="growth")
    JinaPageEmbedding(embedder=ThreadedEmbedder(name="another"))(nodes)
    store.add(nodes)
    assert embedder.documents == [{"text": "growth"}]


def test_cached_vectors_below_index_dimension_are_ignored(store, embedder):
    """A `JinaPageEmbedding` with a smaller truncate_dim caches short vectors with an equal fingerprint."""
    nodes = texts(a="growth")
    short_embedder = ThreadedEmbedder()
    JinaPageEmbedding(embedder=short_embedder)(nodes)
    key = next(iter(VECTOR_CACHE._vectors))
    cached = VECTOR_CACHE.get(key)
    VECTOR_CACHE.put(key, Embeddings(single=cached.single[:, :8], multi=cached.multi, grids=cached.grids))
    store.add(nodes)
    assert embedder.documents == [{"text": "growth"}]


@pytest.mark.usefixtures("one_thread")
def test_v4_encodes_each_page_once(tmp_path, tiny, reader, monkeypatch):
    """Tiny checkpoint of the jina-embeddings-v4 architecture."""
    model = JinaLocalEmbedding(tiny["v4"], max_pixels=28 * 28 * 16, dtype="float32", device="cpu")
    encoded = []
    encode = model.embedder.encode_document
    monkeypatch.setattr(
        model.embedder, "encode_document", lambda docs, **options: encoded.extend(docs) or encode(docs, **options)
    )
    store = JinaVectorStore(tmp_path / "kb", embedder=model.embedder)
    documents = reader.load_data(sample_pdf(tmp_path / "report.pdf", ["growth by region", "list of authors"]))
    store.add(JinaPageEmbedding(embed_model=model)([*documents, TextNode(id_="text", text="nuts and bolts")]))
    assert [type(item) for item in encoded] == [Page, Page, dict]
    by_text = store.query(make_query("growth"))
    by_vector = store.query(VectorStoreQuery(query_embedding=model.get_query_embedding("growth"), similarity_top_k=5))
    assert set(by_text.ids) == set(by_vector.ids) == {"report.pdf#p0001", "report.pdf#p0002", "text"}
    assert len(JinaLocalEmbedding(tiny["v4"], truncate_dim=32).get_text_embedding("a")) == 32
    store.close()


def test_closed_store_reopens_with_same_model(store, embedder):
    store.add(texts(a="growth by region"))
    store.close()
    assert store.query(make_query("growth")).ids == ["a"]
    assert store.client.embedder is embedder


@pytest.mark.parametrize("moved", ["index", "assets_dir"])
def test_copy_with_changed_location_is_another_store(store, tmp_path, embedder, moved):
    store.add(texts(a="growth by region"))
    if moved == "assets_dir":
        with pytest.raises(InvalidInputError, match="assets_dir"):
            store.model_copy(update={"assets_dir": str(tmp_path)}).get_nodes()
        return
    with JinaVectorStore(tmp_path / "other", embedder=embedder) as other_store:
        other_store.add(texts(b="growth by region"))
    copied = store.model_copy(update={"index": str(tmp_path / "other")})
    assert copied.query(make_query("growth")).ids == ["b"]
    assert store.query(make_query("growth")).ids == ["a"]
    shared_store = JinaVectorStore(store.client).model_copy(update={"index": str(tmp_path / "nowhere")})
    assert shared_store.get_nodes() == []
    assert shared_store.client.info().location == str(tmp_path / "nowhere")
    shared_store.close()
    assert store.query(make_query("growth")).ids == ["a"]


def test_closed_store_reopens_with_same_options(monkeypatch, store, tmp_path):
    calls = []

    class Handle:
        close = info = lambda self: None

    def fake_open(location, **options):
        calls.append((location, options))
        return Handle()

    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DocumentIndex, "open", fake_open)
    server_store = JinaVectorStore(
        "http://localhost:6333/kb", embedder="model", storage="compact", assets_dir="pages", api_key="sesame"
    )
    server_store.close()
    monkeypatch.chdir("/")
    assert isinstance(server_store.client, Handle)
    (first, options), (second, options_again) = calls
    assert first == second == "http://localhost:6333/kb"
    assert options == {
        "embedder": str((tmp_path / "model").resolve()),
        "reranker": None,
        "storage": "compact",
        "create": True,
        "assets_dir": str(tmp_path / "pages"),
        "api_key": "sesame",
    }
    assert options_again == options | {"create": False}
    assert "sesame" not in repr(server_store) + str(vars(server_store)) + str(server_store.__pydantic_private__)
    assert b"sesame" not in pickle.dumps(server_store)


@pytest.mark.parametrize("name", ["index", "embedder", "assets_dir"])
def test_empty_values_raise_invalid_input_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=f"{name} is empty"):
        JinaVectorStore(**{"index": "kb", "embedder": ThreadedEmbedder(), name: ""})
    if name != "assets_dir":
        with pytest.raises(InvalidInputError, match=f"{name} is empty"):
            JinaPageRetriever(**{"index": "kb", name: ""})
    with pytest.raises(InvalidInputError, match="reranker is empty"):
        JinaPageRetriever("kb", reranker="")
    with pytest.raises(InvalidInputError, match="image_folder is empty"):
        JinaPageReader("")
    with pytest.raises(InvalidInputError, match="root is empty"):
        JinaPageReader(root="")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def tall_image(tmp_path):
    """Return the path of an image of two pages with one word each."""
    image = Image.new("RGB", (240, 2800), "white")
    for word, top in (("harbour", 20), ("violin", 2700)):
        ImageDraw.Draw(image).text((10, top), word, font=ImageFont.load_default(size=32), fill="black")
    image.save(tmp_path / "tall.png")
    return tmp_path / "tall.png"


def test_reader_returns_one_document_per_slice_of_a_tall_image(tmp_path, tall_image):
    documents = JinaPageReader(tmp_path / "pages").load_data(tall_image)
    assert [(document.text, document.metadata["page_label"]) for document in documents] == [
        ("harbour", "1"),
        ("violin", "2"),
    ]
    assert len({document.id_ for document in documents}) == 2


def test_node_of_several_pages_is_returned_once(store, tmp_path, tall_image):
    store.add([ImageNode(id_="tall", image_path=str(tmp_path / "tall.png")), TextNode(id_="text", text="harbour")])
    assert store.client.info().pages == 3
    result = store.query(VectorStoreQuery(query_str="harbour violin", similarity_top_k=5))
    assert sorted(result.ids) == ["tall", "text"]
    assert len(result.nodes) == len(result.similarities) == 2
    store.delete_nodes(["tall"])
    assert store.client.info().pages == 1
