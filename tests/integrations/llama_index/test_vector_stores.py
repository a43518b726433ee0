"""`JinaVectorStore` and `JinaPageReader`: nodes in and out, questions, filters, and pipelines that track changes."""

from __future__ import annotations

import base64
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
from PIL import Image

from jina_rag import DocumentIndex, Embeddings, IngestSettings, InvalidInputError, Page
from jina_rag.errors import IndexNotFoundError
from jina_rag.testing import sample_pdf

QUICK = IngestSettings(isolate=False, ocr="never", dpi=60)


@pytest.fixture(autouse=True)
def _nothing_kept():
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
    return JinaPageReader(tmp_path / "pages", settings=QUICK, root=tmp_path)


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (60, 80), "navy").save(path)
    return path


def source(doc_id: str):
    return {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=doc_id)}


def texts(**text_by_id: str) -> list[TextNode]:
    return [TextNode(id_=name, text=text) for name, text in text_by_id.items()]


def only(key, value, operator="==") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def ask(query: str, k: int = 5, **more) -> VectorStoreQuery:
    return VectorStoreQuery(query_str=query, similarity_top_k=k, **more)


# -- nodes in and out ------------------------------------------------------------------------------------------


def test_nodes_come_out_as_they_went_in(store, image):
    code = base64.b64encode(image.read_bytes()).decode()
    nodes = [
        TextNode(
            id_="text",
            text="  two\nlines of words ",
            metadata={"year": 2024, "tags": ["a", "b"], "deep": {"x": None}, "doc_id": "mine", "page": 7, "has": "x"},
            excluded_embed_metadata_keys=["deep"],
            excluded_llm_metadata_keys=["year"],
            relationships=source("doc") | {NodeRelationship.NEXT: RelatedNodeInfo(node_id="n", metadata={"a": 1})},
            start_char_idx=3,
            end_char_idx=9,
            metadata_template="{key}={value}",
            text_template="{content} ({metadata_str})",
        ),
        ImageNode(id_="path", text="words of a picture", image_path=str(image), metadata={"year": 2023}),
        ImageNode(id_="data", text="words in base64", image=code),
        IndexNode(id_="index", text="a summary", index_id="elsewhere", obj=TextNode(id_="inner", text="inner")),
        Node(id_="node", text_resource=MediaResource(text="words of a node")),
    ]
    before = [node.model_copy(deep=True) for node in nodes]
    assert store.add(nodes) == ["text", "path", "data", "index", "node"]
    assert nodes == before
    stored = store.get_nodes(["node", "index", "missing", "data", "path", "text"])
    assert [type(node) for node in stored] == [Node, IndexNode, ImageNode, ImageNode, TextNode]
    assert stored[::-1] == before
    result = store.query(ask("two lines of words", k=9))
    assert sorted(result.ids) == sorted(node.node_id for node in before)
    assert {node.node_id: node for node in result.nodes} == {node.node_id: node for node in before}


def test_documents_come_out_as_nodes_of_their_kind(store, image):
    code = base64.b64encode(image.read_bytes()).decode()
    store.add(
        [
            Document(id_="a", text="words", metadata={"year": 1}),
            ImageDocument(id_="b", text="words", image_path=str(image), metadata={"year": 2}),
            ImageDocument(id_="c", text="words", image=code),
            Node(id_="d", image_resource=MediaResource(data=image.read_bytes(), mimetype="image/png")),
        ]
    )
    a, b, c, d = store.get_nodes(["a", "b", "c", "d"])
    assert (type(a), a.text, a.metadata) == (TextNode, "words", {"year": 1})
    assert (type(b), b.text, b.image_path, b.image_mimetype) == (ImageNode, "words", str(image), "image/png")
    assert (type(c), c.image) == (ImageNode, code)
    assert (type(d), d.image, d.image_mimetype) == (ImageNode, code, "image/png")


def test_what_is_embedded_of_a_text_is_what_llama_index_embeds(store, embedder):
    node = TextNode(text="body", metadata={"title": "growth", "path": "x"}, excluded_embed_metadata_keys=["path"])
    store.add([node])
    assert embedder.documents == [{"text": "title: growth\n\nbody"}]
    assert store.query(ask("growth")).nodes == [node]


def test_a_node_with_a_known_id_takes_its_place_and_the_same_is_not_embedded_again(store, embedder):
    store.add(texts(a="growth", b="authors"))
    store.add(texts(a="nuts", b="authors"))
    assert [item["text"] for item in embedder.documents] == ["growth", "authors", "nuts"]
    assert [node.text for node in store.get_nodes()] == ["nuts", "authors"]
    assert store.add([*texts(c="first"), *texts(c="second")]) == ["c", "c"]
    assert store.get_nodes(["c"])[0].text == "second"
    assert store.add([]) == []


def test_a_picture_at_an_address_is_not_fetched(store):
    with pytest.raises(InvalidInputError, match="addresses are not followed"):
        store.add([ImageNode(image_url="https://example.org/a.png")])


def test_nodes_are_deleted_by_document_id_and_filter(store):
    nodes = [TextNode(id_=f"{doc}{i}", text="words", relationships=source(doc), metadata={"i": i})
             for doc in "ab" for i in range(3)]  # fmt: skip
    store.add([*nodes, Document(id_="whole", text="words")])

    def left():
        return sorted(node.node_id for node in store.get_nodes())

    store.delete("a")
    assert left() == ["b0", "b1", "b2", "whole"]
    store.delete("whole")
    store.delete("nobody")
    store.delete("b*")
    assert left() == ["b0", "b1", "b2"]
    store.delete_nodes()
    store.delete_nodes([])
    store.delete_nodes(["b0", "b1"], filters=only("i", 1))
    assert left() == ["b0", "b2"]
    store.delete_nodes(filters=only("i", 0, ">"))
    assert left() == ["b0"]
    store.delete_nodes(["b0"])
    assert left() == []


def test_clearing_and_deleting_leave_ingested_files_alone(store, tmp_path):
    file = sample_pdf(tmp_path / "report.pdf", ["growth by region"])
    store.client.ingest(file, settings=QUICK, metadata={"_node_content": "what a stranger wrote beside the file"})
    store.add(texts(a="growth"))
    page = next(node for node in store.query(ask("growth by region")).nodes if node.node_id != "a")
    assert isinstance(page, ImageNode)
    assert page.metadata["file_name"] == "report.pdf"
    assert page.text == "growth by region"
    store.delete_nodes(["report.pdf", page.node_id])
    store.clear()
    assert store.get_nodes() == []
    assert [node.node_id for node in store.query(ask("growth")).nodes] == [page.node_id]


# -- asking ----------------------------------------------------------------------------------------------------


def test_a_question_is_compared_word_by_word_and_a_vector_by_itself(store, embedder):
    store.add(texts(a="growth by region", b="list of authors"))
    result = store.query(ask("which region", query_embedding=[0.0] * 128))
    assert result.ids[0] == "a"
    assert result.similarities == [hit.score for hit in store.client.search("which region")]
    vector = embedder.encode_query(["list of authors"]).single[0].tolist()
    near = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=1))
    assert (near.ids, near.similarities) == (["b"], [pytest.approx(1, abs=1e-3)])
    with pytest.raises(InvalidInputError, match="nothing to search by"):
        store.query(VectorStoreQuery(similarity_top_k=1))
    with pytest.raises(InvalidInputError, match="expected 128 finite numbers"):
        store.query(VectorStoreQuery(query_embedding=[1.0] * 1536, similarity_top_k=1))


def test_filters_are_over_the_metadata_of_nodes(store):
    store.add(
        [
            TextNode(
                id_="a", text="words", metadata={"year": 2023, "page": 4, "doc_id": "x"}, relationships=source("A")
            ),
            TextNode(
                id_="b", text="words", metadata={"year": 2024, "page": 5, "doc_id": "y"}, relationships=source("B")
            ),
            TextNode(id_="c", text="words", metadata={"year": 2025, "tags": ["u", "v"]}),
        ]
    )

    def ids(filters=None, **more):
        node_ids = store.query(ask("words", filters=filters, **more)).ids
        if not more:
            assert sorted(node.node_id for node in store.get_nodes(filters=filters)) == sorted(node_ids)
        return sorted(node_ids)

    assert ids(only("year", 2024)) == ["b"]
    assert ids(only("year", 2024, ">=")) == ["b", "c"]
    assert ids(only("page", 4)) == ["a"]
    assert ids(only("doc_id", ["x", "y"], "in")) == ["a", "b"]
    assert ids(only("tags", "u", "contains")) == ["c"]
    assert ids(only("ref_doc_id", "B")) == ["b"]
    assert ids(only("nothing", 1)) == []
    assert ids(doc_ids=["A", "c"]) == ["a", "c"]
    assert ids(node_ids=["b", "c"]) == ["b", "c"]
    assert ids(only("year", 2023, ">"), node_ids=["a", "b"]) == ["b"]
    both = MetadataFilters(
        filters=[MetadataFilter(key="year", value=year) for year in (2023, 2025)], condition=FilterCondition.OR
    )
    assert ids(both) == ["a", "c"]
    assert [node.node_id for node in store.get_nodes(["c", "b", "a"], both)] == ["c", "a"]
    for refused in (only("year", 2024, "!="), only("year", [2024], "nin")):
        for call in (
            store.query,
            lambda q: store.get_nodes(filters=q.filters),
            lambda q: store.delete_nodes(filters=q.filters),
        ):
            with pytest.raises(InvalidInputError, match="cannot be translated"):
                call(ask("words", filters=refused))
    assert len(store.get_nodes()) == 3


def test_a_diverse_result_has_less_of_the_same(store):
    store.add(texts(a="growth by region north", b="growth by region north south", c="growth of grass", d=""))
    plain = store.query(ask("growth by region", k=2))
    assert set(plain.ids) == {"a", "b"}
    diverse = ask("growth by region", k=2, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.3)
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
def test_other_modes_are_refused(store, mode):
    with pytest.raises(InvalidInputError, match=f"mode '{mode.value}' is not there"):
        store.query(ask("words", mode=mode))


def test_options_of_a_search_are_passed_on(store):
    store.add(texts(a="growth by region", b="authors"))
    assert store.query(ask("growth by region"), score_threshold=0.5).ids == ["a"]


async def test_coroutines_give_the_same_and_encode_elsewhere(tmp_path):
    def emptied(name):
        return JinaVectorStore(tmp_path / name, embedder=ThreadedEmbedder())

    one, other = emptied("one"), emptied("other")
    nodes = [
        TextNode(id_=c, text=f"words {c}", metadata={"i": i}, relationships=source(c)) for i, c in enumerate("abcd")
    ]
    queries = [
        ask("words b"),
        ask("words c", mode=VectorStoreQueryMode.MMR, k=2),
        VectorStoreQuery(query_embedding=one.client.embedder.encode_query(["words d"]).single[0].tolist()),
    ]
    assert await other.async_add(nodes) == one.add(nodes)
    for query in queries:
        assert await other.aquery(query) == one.query(query)
    assert await other.aget_nodes(["b", "a"]) == one.get_nodes(["b", "a"])
    assert await other.aget_nodes(filters=only("i", 2, "<")) == one.get_nodes(filters=only("i", 2, "<"))
    one.delete("a")
    await other.adelete("a")
    one.delete_nodes(["b"], only("i", 1))
    await other.adelete_nodes(["b"], only("i", 1))
    assert await other.aget_nodes() == one.get_nodes() == nodes[2:]
    one.clear()
    await other.aclear()
    assert await other.aget_nodes() == one.get_nodes() == []
    assert other.client.embedder.threads
    assert threading.get_ident() not in other.client.embedder.threads
    one.close()
    other.close()


# -- as an object ----------------------------------------------------------------------------------------------


def test_it_is_put_away_as_a_place_without_secrets(tmp_path):
    store = JinaVectorStore(tmp_path / "kb", storage="balanced")
    store.add(texts(a="growth"))
    told = store.to_dict()
    assert told == {
        "index": str(tmp_path / "kb"),
        "assets_dir": None,
        "stores_text": True,
        "is_embedding_query": False,
        "class_name": "JinaVectorStore",
    }
    again = [
        JinaVectorStore.from_dict(told),
        JinaVectorStore.from_json(store.to_json()),
        pickle.loads(pickle.dumps(store)),
    ]
    assert json.loads(store.model_dump_json()) == told
    for other in again:
        assert other.get_nodes() == store.get_nodes()
        assert other.query(ask("growth")) == store.query(ask("growth"))
        other.close()
    store.close()
    assert store.get_nodes(["a"])
    store.close()


def test_threads_share_one_handle_and_closing_releases_it(tmp_path):
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.add(["growth"], ids=["a"])
    with JinaVectorStore(tmp_path / "kb") as original:
        store = pickle.loads(pickle.dumps(original))
    barrier, clients = threading.Barrier(6), []

    def ask():
        barrier.wait()
        clients.append(store.client)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(clients) == 6
    assert len({id(client) for client in clients}) == 1
    assert is_locked(tmp_path / "kb")
    store.close()
    assert not is_locked(tmp_path / "kb")


def test_unpickled_where_no_index_is_it_says_so_and_makes_none(tmp_path):
    store = JinaVectorStore(tmp_path / "kb")
    stored = pickle.dumps(store)
    store.close()
    (tmp_path / "kb").rename(tmp_path / "moved")
    again = pickle.loads(stored)
    for call in (lambda: again.client, lambda: again.query(ask("growth")), lambda: again.add(texts(a="growth"))):
        with pytest.raises(IndexNotFoundError, match=f"No index at {tmp_path / 'kb'}"):
            call()
    assert not (tmp_path / "kb").exists()


def test_the_folder_is_free_when_stores_and_retrievers_are_gone(tmp_path):
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


def test_a_key_is_neither_shown_nor_dumped_nor_pickled(monkeypatch, store):
    seen = {}

    def opened(location, **options):
        seen.update(options)
        return store.client

    monkeypatch.setattr(DocumentIndex, "open", opened)
    remote = JinaVectorStore("http://localhost:6333/kb", api_key="sesame", assets_dir="pages")
    assert seen["api_key"] == "sesame"
    assert remote.index == "http://localhost:6333/kb"
    for text in (repr(remote), str(remote), str(remote.to_dict()), remote.model_dump_json(), str(pickle.dumps(remote))):
        assert "sesame" not in text
    assert pickle.loads(pickle.dumps(remote)).assets_dir == str(Path("pages").absolute())


def test_an_open_index_is_shared(store):
    shared = JinaVectorStore(store.client)
    assert shared.client is store.client
    assert shared.index == store.index
    shared.close()
    assert store.get_nodes() == []
    with pytest.raises(InvalidInputError, match="this index is open"):
        JinaVectorStore(store.client, storage="exact")
    with pytest.raises(InvalidInputError, match="embeds questions itself"):
        JinaVectorStore(store.client, is_embedding_query=True)


# -- with LlamaIndex's index -----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_coroutine", [False, True])
async def test_an_index_over_the_store_answers_with_pages(tmp_path, store, embedder, reader, as_coroutine):
    file = sample_pdf(tmp_path / "report.pdf", ["growth by region in the north", "list of authors"])
    store.add(reader.load_data(file))
    index = VectorStoreIndex.from_vector_store(store, embed_model=JinaLocalEmbedding(embedder=embedder))
    llm = EchoingVisionModel(shown=[])
    engine = index.as_query_engine(
        llm=llm, similarity_top_k=1, response_synthesizer=get_response_synthesizer(llm=llm, multimodal=True)
    )
    embedder.history.clear()
    embedder.threads.clear()
    with no_network():
        answer = await engine.aquery("Which region?") if as_coroutine else engine.query("Which region?")
    assert str(answer) == "1 images"
    assert answer.source_nodes[0].metadata["page_label"] == "1"
    where = next(i for i, block in enumerate(llm.blocks) if block.block_type == "image")
    assert llm.blocks[where - 1].text.endswith("file_name: report.pdf\npage_label: 1")
    assert [kind for kind, _ in embedder.history] == ["query"]  # once, and not by LlamaIndex
    assert as_coroutine == (threading.get_ident() not in embedder.threads)


def test_nodes_that_are_inserted_into_an_index_are_found(store):
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


def test_the_page_retriever_finds_nodes_as_they_are(store):
    nodes = texts(a="growth by region")
    store.add(nodes)
    hits = JinaPageRetriever(store.client, cite=False).retrieve("growth")
    assert [hit.node for hit in hits] == nodes


# -- pages from a reader ---------------------------------------------------------------------------------------


async def test_a_reader_gives_a_document_for_each_page(tmp_path, reader):
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


def test_ids_are_absolute_without_a_root_and_never_the_same_for_two_files(tmp_path):
    reader = JinaPageReader(tmp_path / "pages", settings=QUICK)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sample_pdf(tmp_path / name / "report.pdf", ["same"])
    ids = [document.id_ for name in ("a", "b") for document in reader.load_data(tmp_path / name / "report.pdf")]
    assert ids == [f"{(tmp_path / name / 'report.pdf').as_posix()}#p0001" for name in ("a", "b")]


def test_reading_is_lazy(tmp_path, reader, monkeypatch):
    file = sample_pdf(tmp_path / "report.pdf", ["one", "two"])
    saved = []
    module = "jina_rag.adapters.pages"
    from jina_rag import save_page

    monkeypatch.setattr(f"{module}.save_page", lambda page, folder: saved.append(page) or save_page(page, folder))
    pages = reader.lazy_load_data(file)
    next(iter(pages))
    assert len(saved) == 1


def test_what_cannot_be_read_is_listed_and_told_of(tmp_path, caplog):
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"%PDF-1.7 broken")
    good = sample_pdf(tmp_path / "good.pdf", ["words"])
    told = []
    reader = JinaPageReader(tmp_path / "pages", settings=QUICK, on_failure=told.append)
    assert len(reader.load_data([bad, good])) == 1
    assert [failure.path for failure in reader.failures] == [bad]
    assert told == reader.failures
    assert "bad.pdf" not in caplog.text
    reader.on_failure = None
    reader.load_data(bad)
    assert "bad.pdf" in caplog.text
    reader.load_data(good)
    assert reader.failures == []
    with pytest.raises(InvalidInputError):
        reader.load_data(tmp_path / "missing.pdf")
    with pytest.raises(InvalidInputError, match="fetch them first"):
        reader.load_data(good, fs=object())


async def test_it_reads_files_for_the_directory_reader(tmp_path, reader):
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


# -- pipelines that keep track ---------------------------------------------------------------------------------


class Counting(ThreadedEmbedder):
    """Names what was embedded."""

    def taken(self) -> list[str]:
        contents = [item.text if isinstance(item, Page) else item["text"] for item in self.documents]
        self.history.clear()
        return contents


@pytest.fixture
def pipeline(tmp_path):
    embedder = Counting()
    store = JinaVectorStore(tmp_path / "kb", embedder=embedder)
    yield IngestionPipeline(
        transformations=[JinaPageEmbedding(embedder=embedder, batch_size=2)],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    store.close()


@pytest.mark.parametrize("as_coroutine", [False, True])
async def test_changed_pages_are_embedded_again_unchanged_skipped_and_gone_ones_removed(
    tmp_path, reader, pipeline, as_coroutine
):
    (tmp_path / "docs").mkdir()
    file, other = tmp_path / "docs" / "a.pdf", tmp_path / "docs" / "b.pdf"
    store, embedder = pipeline.vector_store, pipeline.transformations[0].embed_model.embedder

    async def run():
        documents = reader.load_data(tmp_path / "docs")
        done = await pipeline.arun(documents=documents) if as_coroutine else pipeline.run(documents=documents)
        return [node.node_id for node in done]

    def held():
        return {node.node_id.removeprefix("docs/"): node.text for node in store.get_nodes()}

    sample_pdf(file, ["growth by region", "list of authors", "nuts and bolts"])
    sample_pdf(other, ["north and south"])
    assert len(await run()) == 4
    # Once each: what the pipeline has embedded is what the store keeps.
    assert sorted(embedder.taken()) == ["growth by region", "list of authors", "north and south", "nuts and bolts"]
    assert len(VECTOR_CACHE) == 0
    assert held() == {
        "a.pdf#p0001": "growth by region",
        "a.pdf#p0002": "list of authors",
        "a.pdf#p0003": "nuts and bolts",
        "b.pdf#p0001": "north and south",
    }

    assert await run() == []
    assert embedder.taken() == []

    sample_pdf(file, ["growth by region", "list of editors", "nuts and bolts", "one page more"])
    assert await run() == ["docs/a.pdf#p0002", "docs/a.pdf#p0004"]
    assert embedder.taken() == ["list of editors", "one page more"]
    assert held()["a.pdf#p0002"] == "list of editors"
    assert len(held()) == 5
    assert store.query(ask("authors", k=1)).nodes[0].text != "list of authors"

    sample_pdf(file, ["growth by region"])
    other.unlink()
    assert await run() == []
    assert embedder.taken() == []
    assert held() == {"a.pdf#p0001": "growth by region"}
    assert store.query(ask("growth by region")).ids == ["docs/a.pdf#p0001"]


def test_a_picture_that_changes_under_the_same_words_is_embedded_again(tmp_path, reader, pipeline):
    """LlamaIndex's cache of a pipeline goes by texts and metadata: the hash of the picture is among these."""
    file = tmp_path / "scan.png"
    embedder = pipeline.transformations[0].embed_model.embedder
    for colour in ("white", "black", "black"):
        Image.new("RGB", (60, 80), colour).save(file)
        pipeline.run(documents=reader.load_data(file))
    assert embedder.taken() == ["", ""]
    shown = [Image.open(node.image_path).getpixel((5, 5)) for node in pipeline.vector_store.get_nodes()]
    assert shown == [(0, 0, 0)]


def test_vectors_that_came_with_the_pipeline_are_those_the_index_would_make(tmp_path, reader):
    file = sample_pdf(tmp_path / "report.pdf", ["growth by region", "list of authors"])
    documents = [*reader.load_data(file), TextNode(id_="text", text="nuts and bolts")]
    results = []
    for name, step in (("one", True), ("other", False)):
        embedder = ThreadedEmbedder()
        store = JinaVectorStore(tmp_path / name, embedder=embedder)
        store.add(JinaPageEmbedding(embedder=embedder)(documents) if step else documents)
        result = store.query(ask("growth by authors of bolts"))
        pages = store.client.get(result.ids)
        boxes = [store.client.cite("growth by authors of bolts", page).box for page in pages[:2]]
        results.append((result, store.client.dense_vectors(pages), boxes))
        store.close()
    assert results[0][0] == results[1][0]
    assert np.array_equal(results[0][1], results[1][1])
    assert results[0][2] == results[1][2]


def test_what_did_not_wait_is_embedded_by_the_store(store, embedder):
    nodes = texts(a="growth", b="authors")
    JinaPageEmbedding(embedder=embedder)(nodes)
    VECTOR_CACHE.drop(next(iter(VECTOR_CACHE._vectors)))
    embedder.history.clear()
    assert store.add(nodes) == ["a", "b"]
    assert embedder.documents == [{"text": "growth"}]
    assert store.get_nodes(["a", "b"])[1].text == "authors"


def test_vectors_of_another_model_are_not_taken(store, embedder):
    nodes = texts(a="growth")
    JinaPageEmbedding(embedder=ThreadedEmbedder(name="another"))(nodes)
    store.add(nodes)
    assert embedder.documents == [{"text": "growth"}]


def test_vectors_that_are_too_short_are_not_taken(store, embedder):
    """As by a step whose model was loaded with a smaller truncate_dim: the fingerprint does not say so."""
    nodes = texts(a="growth")
    short = ThreadedEmbedder()
    JinaPageEmbedding(embedder=short)(nodes)
    key = next(iter(VECTOR_CACHE._vectors))
    kept = VECTOR_CACHE.get(key)
    VECTOR_CACHE.put(key, Embeddings(single=kept.single[:, :8], multi=kept.multi, grids=kept.grids))
    store.add(nodes)
    assert embedder.documents == [{"text": "growth"}]


@pytest.mark.usefixtures("one_thread")
def test_a_model_that_looks_at_pixels_sees_each_page_once(tmp_path, tiny, reader, monkeypatch):
    """On the tiny checkpoint of jina-embeddings-v4."""
    model = JinaLocalEmbedding(tiny["v4"], max_pixels=28 * 28 * 16, dtype="float32", device="cpu")
    seen = []
    encode = model.embedder.encode_document
    monkeypatch.setattr(
        model.embedder, "encode_document", lambda docs, **more: seen.extend(docs) or encode(docs, **more)
    )
    store = JinaVectorStore(tmp_path / "kb", embedder=model.embedder)
    documents = reader.load_data(sample_pdf(tmp_path / "report.pdf", ["growth by region", "list of authors"]))
    store.add(JinaPageEmbedding(embed_model=model)([*documents, TextNode(id_="text", text="nuts and bolts")]))
    assert [type(item) for item in seen] == [Page, Page, dict]
    by_words = store.query(ask("growth"))
    by_vector = store.query(VectorStoreQuery(query_embedding=model.get_query_embedding("growth"), similarity_top_k=5))
    assert set(by_words.ids) == set(by_vector.ids) == {"report.pdf#p0001", "report.pdf#p0002", "text"}
    assert len(JinaLocalEmbedding(tiny["v4"], truncate_dim=32).get_text_embedding("a")) == 32
    store.close()


# -- closed and opened again -----------------------------------------------------------------------------------


def test_closed_it_opens_again_with_the_model_it_had(store, embedder):
    store.add(texts(a="growth by region"))
    store.close()
    assert store.query(ask("growth")).ids == ["a"]
    assert store.client.embedder is embedder


@pytest.mark.parametrize("moved", ["index", "assets_dir"])
def test_a_copy_with_another_place_is_another_store(store, tmp_path, embedder, moved):
    store.add(texts(a="growth by region"))
    if moved == "assets_dir":
        with pytest.raises(InvalidInputError, match="assets_dir"):
            store.model_copy(update={"assets_dir": str(tmp_path)}).get_nodes()
        return
    with JinaVectorStore(tmp_path / "other", embedder=embedder) as other:
        other.add(texts(b="growth by region"))
    copied = store.model_copy(update={"index": str(tmp_path / "other")})
    assert copied.query(ask("growth")).ids == ["b"]
    assert store.query(ask("growth")).ids == ["a"]
    shared = JinaVectorStore(store.client).model_copy(update={"index": str(tmp_path / "nowhere")})
    assert shared.get_nodes() == []
    assert shared.client.info().location == str(tmp_path / "nowhere")
    shared.close()
    assert store.query(ask("growth")).ids == ["a"]


def test_closed_it_opens_again_with_all_it_was_opened_with(monkeypatch, store, tmp_path):
    calls = []

    class Handle:
        close = info = lambda self: None

    def opened(location, **options):
        calls.append((location, options))
        return Handle()

    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DocumentIndex, "open", opened)
    remote = JinaVectorStore(
        "http://localhost:6333/kb", embedder="model", storage="compact", assets_dir="pages", api_key="sesame"
    )
    remote.close()
    monkeypatch.chdir("/")
    assert isinstance(remote.client, Handle)
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
    assert "sesame" not in repr(remote) + str(vars(remote)) + str(remote.__pydantic_private__)
    assert b"sesame" not in pickle.dumps(remote)


@pytest.mark.parametrize("name", ["index", "embedder", "assets_dir"])
def test_nothing_empty_is_taken_for_the_current_folder(tmp_path, monkeypatch, name):
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
