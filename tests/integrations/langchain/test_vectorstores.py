"""JinaVectorStore: adding texts and pages, deleting, searching, async use, indexing API and serialization."""

from __future__ import annotations

import datetime as dt
import gc
import json
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from helpers.index_locks import is_locked
from helpers.langchain_fakes import PAGES, ThreadedEmbedder, Trace, make_index, no_network
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.indexing import index as sync_documents
from langchain_core.runnables import ConfigurableField
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_jina_rag import JinaLocalEmbeddings, JinaLocalRerank, JinaVectorStore
from PIL import Image

from jina_rag import DocumentIndex, InvalidInputError, JinaRagError, Prefetch, Range, Rerank
from jina_rag.errors import IndexNotFoundError
from jina_rag.testing import FakeEmbedder, FakeReranker, make_page

KEY = "not-for-anybody"
QUERY = "whales sing sea"
TEXTS = ["whales sing in the sea", "whales sing in the ocean", "the desert is dry", "growth by region"]
WHITESPACE_TEXT = "  two  spaces,\n\ttabs and a line\n"


@pytest.fixture(autouse=True)
def block_network():
    with no_network():
        yield


@pytest.fixture
def embedder():
    return ThreadedEmbedder()


@pytest.fixture
def store(tmp_path, embedder):
    with JinaVectorStore(tmp_path / "kb", JinaLocalEmbeddings(model=embedder)) as store:
        yield store


@pytest.fixture
def filled_store(store):
    store.add_texts(TEXTS, [{"n": n} for n in range(4)], ids=list("abcd"))
    return store


@pytest.fixture
def image(tmp_path):
    make_page("a list of authors").screenshot.image.save(tmp_path / "page.png")
    return tmp_path / "page.png"


def test_dates_are_stored_as_text_and_filtered_by_value(store):
    when = dt.datetime(2025, 1, 31, 9, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    store.add_documents([
        Document(page_content="whales sing", metadata={"when": when}, id="a"),
        Document(page_content="whales swim", metadata={"when": dt.date(2024, 5, 1), "naive": dt.datetime(2024, 1, 1)}),
    ])  # fmt: skip
    [doc] = store.similarity_search(QUERY, filter={"when": Range(gte="2025-01-01")})
    assert (doc.id, doc.metadata["when"]) == ("a", "2025-01-31T09:30:00+01:00")
    for where in (when, dt.date(2025, 1, 31), "2025-01-31T08:30:00Z", Range(gt=dt.date(2024, 5, 1))):
        assert [doc.id for doc in store.similarity_search(QUERY, filter={"when": where})] == ["a"]
    [doc] = store.similarity_search(QUERY, filter={"naive": Range(lte=dt.date(2024, 1, 1))})
    assert doc.metadata["naive"] == "2024-01-01T00:00:00+00:00"
    assert doc.metadata["when"] == "2024-05-01"
    with pytest.raises(InvalidInputError, match="metadata key 'score' of 'b' cannot be stored"):
        store.add_documents([Document(page_content="x", metadata={"score": float("nan")}, id="b")])


def test_text_is_returned_unchanged(store):
    metadata = {"source": "a.txt", "page": 3, "score": "mine", "image": "nowhere.png", "nested": {"list": [1, None]}}
    docs = [
        Document(page_content=WHITESPACE_TEXT, metadata=metadata, id="odd"),
        Document(page_content="data:image/png;base64,iVBORw0KGgo=", id="uri"),
        Document(page_content="plain"),
    ]
    ids = store.add_documents(docs)
    assert ids[:2] == ["odd", "uri"]
    expected = [*docs[:2], Document(page_content="plain", id=ids[2])]
    assert store.get_by_ids(ids) == expected
    assert store.similarity_search("two spaces", k=1) == [docs[0]]
    assert store.add_texts([WHITESPACE_TEXT]) != store.add_texts([WHITESPACE_TEXT])  # random ids differ


def test_existing_id_is_replaced_and_lengths_checked(filled_store, embedder):
    filled_store.add_texts(["birds sing"], [{"n": 9}], ids=["a"])
    assert filled_store.get_by_ids(["a"]) == [Document(page_content="birds sing", metadata={"n": 9}, id="a")]
    embedder.history.clear()
    filled_store.add_texts(["birds sing"], [{"n": 10}], ids=["a"])
    assert filled_store.get_by_ids(["a"])[0].metadata == {"n": 10}
    assert not embedder.history  # an unchanged text is not re-embedded
    with pytest.raises(InvalidInputError, match="metadatas has length 1; expected 2"):
        filled_store.add_texts(["x", "y"], [{}])
    with pytest.raises(InvalidInputError, match="ids has length 3; expected 2"):
        filled_store.add_texts(["x", "y"], ids=["1", "2", "3"])
    with pytest.raises(InvalidInputError, match="does not support bulk"):
        filled_store.add_texts(["x"], bulk=True)
    ids = filled_store.add_documents([Document(page_content="x", id="x"), Document(page_content="y")])
    assert ids[0] == "x"
    assert len(ids[1]) == 36


def test_document_with_image_is_added_as_page(store, image):
    doc = Document(page_content="a list of authors", metadata={"image": str(image), "year": 2024, "page": 4}, id="p")
    store.add_documents([doc, Document(page_content="growth", id="t")])
    hit_document = store.similarity_search("list of authors", k=1)[0]
    stored_image = Path(hit_document.metadata["image"])
    assert (hit_document.id, hit_document.page_content) == ("p", "a list of authors")
    assert (hit_document.metadata["year"], hit_document.metadata["page"]) == (2024, 4)
    assert stored_image != image
    with Image.open(stored_image) as copy, Image.open(image) as original:
        assert copy.size == original.size
    assert hit_document.metadata["stage"] == "rescore"
    json.dumps(hit_document.metadata)
    fetched_page = store.get_by_ids(["p"])[0]
    assert fetched_page.metadata["image"] == str(stored_image)
    assert "score" not in fetched_page.metadata
    # A returned page can be added again.
    assert store.add_documents([fetched_page]) == ["p"]
    assert store.get_by_ids(["p"])[0].page_content == "a list of authors"


def test_image_key_selects_image_metadata(tmp_path, image):
    with JinaVectorStore(tmp_path / "kb", JinaLocalEmbeddings(model=FakeEmbedder()), image_key="scan") as store:
        store.add_texts(["authors", "authors"], [{"scan": str(image)}, {"image": str(image)}], ids=["a", "b"])
        page, text = store.get_by_ids(["a", "b"])
    assert Path(page.metadata["scan"]).is_file()
    assert page.metadata["scan"] != str(image)
    assert text.metadata == {"image": str(image)}


def test_changed_text_replaces_saved_words(store, tmp_path):
    from jina_rag import save_page

    saved_image = save_page(make_page("a list of authors"), tmp_path / "pages")
    store.add_texts(["a list of painters", "a list of authors"], [{"image": str(saved_image)}] * 2, ids=["new", "old"])
    changed_page, unchanged_page = store.get_by_ids(["new", "old"])
    assert (changed_page.page_content, unchanged_page.page_content) == ("a list of painters", "a list of authors")
    hits = {hit.doc_id: hit for hit in store.index.search("list of authors", k=2)}
    x0, y0, x1, y1 = store.index.cite("authors", hits["old"]).box  # the word boxes are stored
    assert (x1 - x0) * (y1 - y0) < 0.5


def test_from_texts_and_from_documents(tmp_path):
    embeddings = JinaLocalEmbeddings(model=FakeEmbedder())
    with JinaVectorStore.from_texts(
        ["a b", "c"], embeddings, [{"n": 1}, {"n": 2}], ids=["1", "2"], index=tmp_path / "x"
    ) as store:
        assert store.get_by_ids(["1"]) == [Document(page_content="a b", metadata={"n": 1}, id="1")]
        assert store.embeddings is embeddings
        with JinaVectorStore.from_documents([Document(page_content="d", id="3")], None, index=store.index) as reopened:
            assert [doc.page_content for doc in reopened.get_by_ids(["3", "1"])] == ["d", "a b"]
    with pytest.raises(InvalidInputError, match="index is missing"):
        JinaVectorStore.from_texts(["a"], embeddings)


def test_other_embeddings_raise_invalid_input_error(tmp_path, store, embedder):
    with pytest.raises(InvalidInputError, match=r"is a DeterministicFakeEmbedding, which returns one vector per text"):
        JinaVectorStore(tmp_path / "other", DeterministicFakeEmbedding(size=4))
    with pytest.raises(ValueError, match="was built with the model 'fake', not with 'other'"):
        JinaVectorStore(store.index, JinaLocalEmbeddings(model=FakeEmbedder(name="other")))
    with pytest.raises(InvalidInputError, match="already open"):
        JinaVectorStore(store.index, reranker="lite")
    assert JinaVectorStore(store.index, JinaLocalEmbeddings(model=embedder)).index is store.index


def test_delete_treats_ids_literally(store):
    store.add_texts(TEXTS, ids=["a", "ab", "a*", "*"])
    assert store.delete(["a*", "unknown"]) is True
    assert [doc.id for doc in store.get_by_ids(["a", "ab", "a*", "*"])] == ["a", "ab", "*"]
    assert store.delete(["*"]) is True
    assert store.delete([]) is True
    assert [doc.id for doc in store.get_by_ids(["*", "ab", "a"])] == ["ab", "a"]
    with pytest.raises(InvalidInputError, match="ids is missing"):
        store.delete()
    with pytest.raises(InvalidInputError, match="does not support where"):
        store.delete(["a"], where={})


def test_ingested_files_are_searchable_and_not_deletable(tmp_path):
    with make_index(tmp_path, FakeEmbedder()) as index:
        store = JinaVectorStore(index)
        store.add_texts(["whales are mammals"], ids=["mine"])
        docs = store.similarity_search("whales", k=9)
        page = next(doc for doc in docs if doc.page_content == PAGES[0])
        assert page.metadata["source"] == str(tmp_path / "animals.pdf")
        assert store.get_by_ids([page.id])[0].page_content == PAGES[0]
        assert len(docs) == 4
        with pytest.raises(InvalidInputError, match=r"is a page of the ingested file .*animals\.pdf"):
            store.delete(["mine", page.id])
        assert store.delete(["animals.pdf"]) is True  # the document id of a file is not the id of an added entry
        assert len(store.similarity_search("whales", k=9)) == 4


def test_filter_uses_added_metadata(store, image):
    store.add_texts(["whales sing", "whales swim"], [{"page": 3, "source": "a.txt"}, {"page": 0}], ids=["a", "b"])
    store.add_texts(["authors"], [{"image": str(image), "page": 3, "doc_id": "album"}], ids=["c"])
    for where, ids in (
        ({"page": 3}, {"a", "c"}),
        ({"page": 0}, {"b"}),
        ({"source": "a.txt"}, {"a"}),
        ({"doc_id": "album"}, {"c"}),
    ):
        assert {doc.id for doc in store.similarity_search("whales authors", filter=where)} == ids
    vector = store.embeddings.embed_query("whales")
    assert [doc.id for doc in store.similarity_search_by_vector(vector, filter={"page": 0})] == ["b"]
    assert [doc.id for doc in store.max_marginal_relevance_search("whales", filter={"page": 0})] == ["b"]


def test_unknown_setting_raises_invalid_input_error(filled_store):
    with pytest.raises(InvalidInputError, match="'fliter' is not a search setting"):
        filled_store.similarity_search(QUERY, fliter={"n": 1})
    with pytest.raises(InvalidInputError, match="'stages' is not a search setting; expected one of filter"):
        filled_store.similarity_search_by_vector([0.0] * filled_store.index.dim, stages=[])


async def test_from_documents_without_embedding(tmp_path, embedder):
    docs = [Document(page_content="whales sing", id="a", metadata={"n": 1}), Document(page_content="the desert")]
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        assert JinaVectorStore.from_documents(docs, index=index).get_by_ids(["a"]) == docs[:1]
        async_store = await JinaVectorStore.afrom_documents(docs[:1], index=index)
        assert async_store.similarity_search("whales", k=1) == docs[:1]


def test_scores_filters_and_relevance_scores(filled_store):
    docs_and_scores = filled_store.similarity_search_with_score(QUERY, k=4)
    assert [doc.id for doc, _ in docs_and_scores][:2] == ["a", "b"]
    assert [score for _, score in docs_and_scores] == sorted((score for _, score in docs_and_scores), reverse=True)
    assert [score for _, score in docs_and_scores] == [hit.score for hit in filled_store.index.search(QUERY, k=4)]
    assert [doc.id for doc in filled_store.similarity_search(QUERY, k=4, filter={"n": [1, 2]})] == ["b", "c"]
    assert filled_store.similarity_search(QUERY, filter={"n": 7}) == []
    assert len(filled_store.similarity_search(QUERY, score_threshold=docs_and_scores[0][1] - 1e-6)) < 4
    relevance_scores = filled_store.similarity_search_with_relevance_scores(QUERY, k=4)
    assert [score for _, score in relevance_scores] == [min(1.0, max(0.0, score)) for _, score in docs_and_scores]
    clamp = filled_store._select_relevance_score_fn()
    assert [clamp(score) for score in (-0.4, 0.3, 1.4)] == [0.0, 0.3, 1.0]


def test_stages_and_reranker(filled_store, embedder):
    reranker = FakeReranker()
    docs_and_scores = filled_store.similarity_search_with_score(
        "dry desert", k=2, stages=[Prefetch(), Rerank(model=reranker)]
    )
    assert docs_and_scores[0][1] == 1.0
    filled_store.close()
    reopened = JinaVectorStore(
        filled_store._opening.location, JinaLocalEmbeddings(model=embedder), reranker=JinaLocalRerank(model=reranker)
    )
    with reopened:
        assert reopened.similarity_search_with_score("dry desert", k=2)[0][1] == 1.0
    assert len(reranker.history) == 2


def test_similarity_search_by_vector(filled_store, embedder):
    vector = filled_store.embeddings.embed_query("dry desert")
    assert filled_store.similarity_search_by_vector(vector, k=2)[0].id == "c"
    assert [doc.id for doc in filled_store.similarity_search_by_vector(vector, k=2, filter={"n": 0})] == ["a"]
    with pytest.raises(InvalidInputError, match="expected 128 finite numbers"):
        filled_store.similarity_search_by_vector(vector[:5])


def test_max_marginal_relevance_search_diversifies(filled_store):
    nearest_ids = [doc.id for doc in filled_store.similarity_search(QUERY, k=2)]
    diverse = filled_store.max_marginal_relevance_search(QUERY, k=2, fetch_k=4, lambda_mult=0.1)
    assert nearest_ids == ["a", "b"]
    assert diverse[0].id == "a"
    assert diverse[1].id not in nearest_ids
    most_relevant = filled_store.max_marginal_relevance_search(QUERY, k=2, fetch_k=4, lambda_mult=1.0)
    assert [doc.id for doc in most_relevant] == nearest_ids
    # MMR selects only among the candidates of late interaction.
    assert [
        d.id for d in filled_store.max_marginal_relevance_search(QUERY, k=2, fetch_k=2, lambda_mult=0.1)
    ] == nearest_ids
    assert len(filled_store.max_marginal_relevance_search("whales", k=3, fetch_k=1)) == 3
    vector = filled_store.embeddings.embed_query(QUERY)
    by_vector = filled_store.max_marginal_relevance_search_by_vector(vector, k=2, fetch_k=4, lambda_mult=0.1)
    assert [doc.id for doc in by_vector] == [doc.id for doc in diverse]
    filtered_docs = filled_store.max_marginal_relevance_search("whales", k=3, filter={"n": [2, 3]})
    assert {doc.id for doc in filtered_docs} == {"c", "d"}
    assert filled_store.max_marginal_relevance_search("whales", filter={"n": 77}) == []


def test_as_retriever_search_types(filled_store):
    similarity = filled_store.as_retriever(search_kwargs={"k": 2})
    assert isinstance(similarity, VectorStoreRetriever)
    assert [doc.id for doc in similarity.invoke(QUERY)] == ["a", "b"]
    assert len(similarity.invoke(QUERY, k=3)) == 3
    mmr = filled_store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 4, "lambda_mult": 0.1})
    assert [doc.id for doc in mmr.invoke(QUERY)] != ["a", "b"]
    threshold = filled_store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9}
    )
    assert [doc.id for doc in threshold.invoke(QUERY)] == ["a"]


async def test_tracing_does_not_open_index_or_load_model(tmp_path):
    opening_threads = []

    class RecordingStore(JinaVectorStore):
        @property
        def index(self):
            opening_threads.append(threading.get_ident())
            return super().index

    with RecordingStore(tmp_path / "kb", JinaLocalEmbeddings(model=FakeEmbedder())) as store:
        await store.aadd_texts(TEXTS)
        assert threading.get_ident() not in opening_threads
        opening_threads.clear()
        retriever = store.as_retriever(tags=["mine"])
        assert not opening_threads
        trace = Trace()
        assert len(await retriever.ainvoke(QUERY, {"callbacks": [trace]})) == 4
        assert threading.get_ident() not in opening_threads  # the search opens the index in a thread
    (_, name, _, metadata, tags, _), _ = trace.events
    assert name == "JinaVectorStoreRetriever"
    assert tags == ["mine"]
    assert metadata["ls_vector_store_provider"] == "RecordingStore"
    assert metadata["ls_embedding_provider"] == "JinaLocalEmbeddings"
    assert store.as_retriever().tags == ["RecordingStore", "JinaLocalEmbeddings"]


def test_embeddings_match_index_dimension(tmp_path):
    embedder = FakeEmbedder()
    # The index stores vectors of the full length of the model.
    embeddings = JinaLocalEmbeddings(model=embedder, truncate_dim=64)
    with JinaVectorStore(tmp_path / "kb", embeddings) as store:
        store.add_texts(TEXTS, ids=list("abcd"))
        assert store.embeddings.embedder is embedder
        vector = store.embeddings.embed_query("dry desert")
        assert len(vector) == store.index.dim == 128
        assert store.similarity_search_by_vector(vector, k=1)[0].id == "c"
        assert store.max_marginal_relevance_search("dry desert", k=1)[0].id == "c"


async def test_async_methods_run_in_threads(tmp_path, monkeypatch):
    working_threads: set[int] = set()

    def record_thread(method):
        def call(self, *args, **options):
            working_threads.add(threading.get_ident())
            return method(self, *args, **options)

        return call

    for name in ("add", "get", "search", "nearest", "dense_vectors", "delete"):
        monkeypatch.setattr(DocumentIndex, name, record_thread(getattr(DocumentIndex, name)))
    results, vector = {}, FakeEmbedder().encode_query(["whales"]).single[0].tolist()
    calls = [
        ("add_texts", (TEXTS[:2],), {"ids": ["a", "b"]}),
        ("add_documents", ([Document(page_content=text, id=text[:3]) for text in TEXTS[2:]],), {}),
        ("get_by_ids", (["b", "gro", "none"],), {}),
        ("similarity_search", (QUERY,), {"k": 3}),
        ("similarity_search_with_score", (QUERY,), {"k": 3, "filter": {"n": [0, 7]}}),
        ("similarity_search_with_relevance_scores", (QUERY,), {"k": 3}),
        ("similarity_search_by_vector", (vector,), {"k": 3, "filter": {"n": [1, 7]}}),
        ("max_marginal_relevance_search", (QUERY,), {"k": 2, "lambda_mult": 0.1}),
        ("max_marginal_relevance_search_by_vector", (vector,), {"k": 2, "lambda_mult": 0.1}),
        ("search", (QUERY, "mmr"), {"k": 2}),
        ("search", (QUERY, "similarity_score_threshold"), {"score_threshold": 0.5}),
        ("delete", (["a"],), {}),
    ]
    main_thread = threading.get_ident()
    for mode in ("sync", "async"):
        embedder = ThreadedEmbedder()
        with JinaVectorStore(tmp_path / mode, JinaLocalEmbeddings(model=embedder)) as store:
            values = []
            for name, args, options in calls:
                if mode == "sync":
                    values.append(getattr(store, name)(*args, **options))
                else:
                    values.append(await getattr(store, f"a{name}")(*args, **options))
            results[mode] = values
        assert (main_thread in embedder.threads) == (main_thread in working_threads) == (mode == "sync")
        assert embedder.threads
        working_threads.clear()
    assert results["sync"] == results["async"]
    pairs = {name for name in dir(JinaVectorStore) if f"a{name}" in dir(JinaVectorStore)} - {"s_retriever"}
    assert pairs == {name for name, *_ in calls} | {"from_texts", "from_documents"}


async def test_async_constructors(tmp_path):
    embedder = ThreadedEmbedder()
    embeddings = JinaLocalEmbeddings(model=embedder)
    with await JinaVectorStore.afrom_texts(TEXTS, embeddings, ids=list("abcd"), index=tmp_path / "a") as store:
        assert (await store.asimilarity_search("dry desert", k=1))[0].id == "c"
    documents = [Document(page_content=text) for text in TEXTS]
    with await JinaVectorStore.afrom_documents(documents, embeddings, index=tmp_path / "b") as store:
        assert (await store.asimilarity_search("dry desert", k=1))[0].page_content == TEXTS[2]
    assert embedder.threads
    assert threading.get_ident() not in embedder.threads


def test_langchain_indexing_api_syncs_documents(store, embedder):
    records = InMemoryRecordManager("test")
    records.create_schema()
    docs = [Document(page_content=text, metadata={"source": f"{n}.txt"}) for n, text in enumerate(TEXTS)]
    options = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
    assert sync_documents(docs, records, store, **options)["num_added"] == 4
    embedder.history.clear()
    docs[0].page_content = "birds sing"
    result = sync_documents(docs[:3], records, store, **options)
    assert {name: result[name] for name in ("num_added", "num_skipped", "num_deleted")} == {
        "num_added": 1,
        "num_skipped": 2,
        "num_deleted": 2,
    }
    assert {doc.page_content for doc in store.similarity_search("sing", k=9)} == {"birds sing", *TEXTS[1:3]}
    assert len([entry for entry in embedder.history if entry[0] == "document"]) == 1


def test_pickle_excludes_key_and_models(filled_store, embedder, tmp_path):
    assert isinstance(filled_store, VectorStore)
    server_store = JinaVectorStore("http://localhost:6333/pages", api_key=KEY, assets_dir="files")
    assert KEY not in repr(server_store) + str(vars(server_store))
    pickled = pickle.dumps(server_store)
    assert KEY.encode() not in pickled
    assert pickle.loads(pickled)._opening.assets_dir == str(Path("files").absolute())
    assert server_store._opening.api_key.get_secret_value() == KEY
    pickled = pickle.dumps(filled_store)
    assert b"Fake" not in pickled
    restored = pickle.loads(pickled)
    restored._opening = filled_store._opening  # the fake embedder cannot be loaded by name
    assert restored.similarity_search("whales", k=2) == filled_store.similarity_search("whales", k=2)
    restored.close()
    with DocumentIndex.open(tmp_path / "named") as index:
        shared_store = pickle.loads(pickle.dumps(JinaVectorStore(index)))
        assert shared_store.add_texts(TEXTS[:1], ids=["a"]) == ["a"]
        assert [hit.doc_id for hit in index.get(["a"])] == ["a"]
        shared_store.index.close()


async def test_deleted_stores_release_index_lock(tmp_path):
    store = JinaVectorStore(tmp_path / "kb")
    await store.aadd_texts(TEXTS, ids=list("abcd"))
    retriever = store.as_retriever(search_kwargs={"k": 1})
    chain = retriever.configurable_fields(search_kwargs=ConfigurableField(id="search"))
    assert len(await chain.ainvoke(QUERY, {"configurable": {"search": {"k": 2}}})) == 2
    assert len(store.max_marginal_relevance_search(QUERY, k=2)) == 2
    assert is_locked(tmp_path / "kb")
    del store, retriever, chain
    gc.collect()
    assert not is_locked(tmp_path / "kb")


def test_create_false_requires_existing_index(tmp_path):
    with pytest.raises(JinaRagError, match="No index at"):
        JinaVectorStore(tmp_path / "none", create=False).get_by_ids(["a"])
    with JinaVectorStore(tmp_path / "small", storage="compact") as store:
        compact = store.index.info().storage
    with JinaVectorStore(tmp_path / "large") as store:
        assert compact != store.index.info().storage


def test_unpickled_store_does_not_recreate_index(tmp_path):
    with JinaVectorStore(tmp_path / "kb") as store:
        store.add_texts(["whales sing"])
        pickled = pickle.dumps(store)
    shutil.rmtree(tmp_path / "kb")
    for restored in (pickle.loads(pickled), store):
        with pytest.raises(IndexNotFoundError, match="No index at"):
            restored.similarity_search("whales")
    assert not (tmp_path / "kb").exists()


def test_empty_values_raise_invalid_input_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("index", "reranker", "assets_dir"):
        with pytest.raises(InvalidInputError, match=f"{name} is empty"):
            JinaVectorStore(**{"index": "kb", name: ""})
    with pytest.raises(InvalidInputError, match="index is empty"):
        JinaVectorStore.from_texts(TEXTS, index=" ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.array([1, 2]), np.array(1), np.int64(1), [np.int64(1)], range(1, 3)])
def test_filter_accepts_numpy_values(store, value):
    store.add_texts(TEXTS, [{"n": n, "page": n} for n in range(4)], ids=list("abcd"))
    for key in ("n", "page"):
        hits = store.similarity_search(QUERY, k=4, filter={key: value})
        assert {doc.id for doc in hits} == ({"b", "c"} if np.size(value) == 2 else {"b"})
    assert len(store.max_marginal_relevance_search(QUERY, filter={"n": value})) == len(hits)
    assert len(store.similarity_search_by_vector([1.0] * 128, filter={"n": value})) == len(hits)
