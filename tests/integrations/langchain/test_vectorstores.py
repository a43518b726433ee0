"""JinaVectorStore: what comes back is what went in; pages with pictures; three ways to search; ids, and only ids."""

from __future__ import annotations

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
from helpers.langchain_fakes import PAGES, ThreadedEmbedder, Trace, fill, no_network
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.indexing import index as keep_in_step
from langchain_core.runnables import ConfigurableField
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_jina_rag import JinaLocalEmbeddings, JinaLocalRerank, JinaVectorStore
from PIL import Image

from jina_rag import DocumentIndex, InvalidInputError, JinaRagError, Prefetch, Rerank
from jina_rag.errors import IndexNotFoundError
from jina_rag.testing import FakeEmbedder, FakeReranker, make_page

KEY = "not-for-anybody"
ASKED = "whales sing sea"
TEXTS = ["whales sing in the sea", "whales sing in the ocean", "the desert is dry", "growth by region"]
ODD = "  two  spaces,\n\ttabs and a line\n"


@pytest.fixture(autouse=True)
def offline():
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
def filled(store):
    store.add_texts(TEXTS, [{"n": n} for n in range(4)], ids=list("abcd"))
    return store


@pytest.fixture
def image(tmp_path):
    make_page("a list of authors").screenshot.image.save(tmp_path / "page.png")
    return tmp_path / "page.png"


# -- adding ------------------------------------------------------------------------------------------------


def test_a_text_comes_back_to_the_letter(store):
    metadata = {"source": "a.txt", "page": 3, "score": "mine", "image": "nowhere.png", "nested": {"list": [1, None]}}
    docs = [
        Document(page_content=ODD, metadata=metadata, id="odd"),
        Document(page_content="data:image/png;base64,iVBORw0KGgo=", id="uri"),
        Document(page_content="plain"),
    ]
    ids = store.add_documents(docs)
    assert ids[:2] == ["odd", "uri"]
    expected = [*docs[:2], Document(page_content="plain", id=ids[2])]
    assert store.get_by_ids(ids) == expected
    assert store.similarity_search("two spaces", k=1) == [docs[0]]
    assert store.add_texts([ODD]) != store.add_texts([ODD])  # without ids they are two


def test_ids_replace_and_are_checked(filled, embedder):
    filled.add_texts(["birds sing"], [{"n": 9}], ids=["a"])
    assert filled.get_by_ids(["a"]) == [Document(page_content="birds sing", metadata={"n": 9}, id="a")]
    embedder.history.clear()
    filled.add_texts(["birds sing"], [{"n": 10}], ids=["a"])
    assert filled.get_by_ids(["a"])[0].metadata == {"n": 10}
    assert not embedder.history  # the same text is not embedded again
    with pytest.raises(InvalidInputError, match="2 texts and 1 metadatas"):
        filled.add_texts(["x", "y"], [{}])
    with pytest.raises(InvalidInputError, match="2 texts and 3 ids"):
        filled.add_texts(["x", "y"], ids=["1", "2", "3"])
    with pytest.raises(InvalidInputError, match="not bulk"):
        filled.add_texts(["x"], bulk=True)
    mixed = filled.add_documents([Document(page_content="x", id="x"), Document(page_content="y")])
    assert mixed[0] == "x"
    assert len(mixed[1]) == 36


def test_a_document_with_a_picture_is_a_page(store, image):
    doc = Document(page_content="a list of authors", metadata={"image": str(image), "year": 2024, "page": 4}, id="p")
    store.add_documents([doc, Document(page_content="growth", id="t")])
    hit_document = store.similarity_search("list of authors", k=1)[0]
    kept = Path(hit_document.metadata["image"])
    assert (hit_document.id, hit_document.page_content) == ("p", "a list of authors")
    assert (hit_document.metadata["year"], hit_document.metadata["page"]) == (2024, 4)
    assert kept != image
    with Image.open(kept) as copy, Image.open(image) as original:
        assert copy.size == original.size
    assert hit_document.metadata["stage"] == "rescore"
    json.dumps(hit_document.metadata)
    again = store.get_by_ids(["p"])[0]
    assert again.metadata["image"] == str(kept)
    assert "score" not in again.metadata
    # What was found can be put in again.
    assert store.add_documents([again]) == ["p"]
    assert store.get_by_ids(["p"])[0].page_content == "a list of authors"


def test_the_key_of_the_picture_can_be_another(tmp_path, image):
    with JinaVectorStore(tmp_path / "kb", JinaLocalEmbeddings(model=FakeEmbedder()), image_key="scan") as store:
        store.add_texts(["authors", "authors"], [{"scan": str(image)}, {"image": str(image)}], ids=["a", "b"])
        page, text = store.get_by_ids(["a", "b"])
    assert Path(page.metadata["scan"]).is_file()
    assert page.metadata["scan"] != str(image)
    assert text.metadata == {"image": str(image)}


def test_words_that_were_changed_since_they_were_kept_count(store, tmp_path):
    from jina_rag import save_page

    kept = save_page(make_page("a list of authors"), tmp_path / "pages")
    store.add_texts(["a list of painters", "a list of authors"], [{"image": str(kept)}] * 2, ids=["new", "old"])
    new, old = store.get_by_ids(["new", "old"])
    assert (new.page_content, old.page_content) == ("a list of painters", "a list of authors")
    hits = {hit.doc_id: hit for hit in store.index.search("list of authors", k=2)}
    x0, y0, x1, y1 = store.index.cite("authors", hits["old"]).box  # the words have kept their places
    assert (x1 - x0) * (y1 - y0) < 0.5


def test_from_texts_and_from_documents(tmp_path):
    embeddings = JinaLocalEmbeddings(model=FakeEmbedder())
    with JinaVectorStore.from_texts(
        ["a b", "c"], embeddings, [{"n": 1}, {"n": 2}], ids=["1", "2"], index=tmp_path / "x"
    ) as one:
        assert one.get_by_ids(["1"]) == [Document(page_content="a b", metadata={"n": 1}, id="1")]
        assert one.embeddings is embeddings
        with JinaVectorStore.from_documents([Document(page_content="d", id="3")], None, index=one.index) as two:
            assert [doc.page_content for doc in two.get_by_ids(["3", "1"])] == ["d", "a b"]
    with pytest.raises(InvalidInputError, match="Say where the index is to be"):
        JinaVectorStore.from_texts(["a"], embeddings)


def test_other_embeddings_are_refused_in_a_sentence(tmp_path, store, embedder):
    with pytest.raises(
        InvalidInputError, match=r"needs one vector per token .* and DeterministicFakeEmbedding gives one"
    ):
        JinaVectorStore(tmp_path / "other", DeterministicFakeEmbedding(size=4))
    with pytest.raises(ValueError, match="was built with the model 'fake', not with 'other'"):
        JinaVectorStore(store.index, JinaLocalEmbeddings(model=FakeEmbedder(name="other")))
    with pytest.raises(InvalidInputError, match="this one is open"):
        JinaVectorStore(store.index, reranker="lite")
    assert JinaVectorStore(store.index, JinaLocalEmbeddings(model=embedder)).index is store.index


# -- deleting and getting ----------------------------------------------------------------------------------


def test_only_the_very_ids_are_deleted(store):
    store.add_texts(TEXTS, ids=["a", "ab", "a*", "*"])
    assert store.delete(["a*", "unknown"]) is True
    assert [doc.id for doc in store.get_by_ids(["a", "ab", "a*", "*"])] == ["a", "ab", "*"]
    assert store.delete(["*"]) is True
    assert store.delete([]) is True
    assert [doc.id for doc in store.get_by_ids(["*", "ab", "a"])] == ["ab", "a"]
    with pytest.raises(InvalidInputError, match="Say what to delete"):
        store.delete()
    with pytest.raises(InvalidInputError, match="knows ids only, not where"):
        store.delete(["a"], where={})


def test_files_are_found_and_not_deleted(tmp_path):
    with fill(tmp_path, FakeEmbedder()) as index:
        store = JinaVectorStore(index)
        store.add_texts(["whales are mammals"], ids=["mine"])
        docs = store.similarity_search("whales", k=9)
        page = next(doc for doc in docs if doc.page_content == PAGES[0])
        assert page.metadata["source"] == str(tmp_path / "animals.pdf")
        assert store.get_by_ids([page.id])[0].page_content == PAGES[0]
        assert len(docs) == 4
        with pytest.raises(InvalidInputError, match=r"is a page of the ingested file .*animals\.pdf"):
            store.delete(["mine", page.id])
        assert store.delete(["animals.pdf"]) is True  # the id of a file is none of an entry
        assert len(store.similarity_search("whales", k=9)) == 4


# -- searching ---------------------------------------------------------------------------------------------


def test_a_filter_is_over_the_metadata_that_were_given(store, image):
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


def test_a_misspelt_setting_is_named(filled):
    with pytest.raises(InvalidInputError, match="'fliter' is no setting"):
        filled.similarity_search(ASKED, fliter={"n": 1})
    with pytest.raises(InvalidInputError, match="'stages' is not a search setting; expected one of filter"):
        filled.similarity_search_by_vector([0.0] * filled.index.dim, stages=[])


async def test_documents_make_a_store_without_an_embedding(tmp_path, embedder):
    docs = [Document(page_content="whales sing", id="a", metadata={"n": 1}), Document(page_content="the desert")]
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        assert JinaVectorStore.from_documents(docs, index=index).get_by_ids(["a"]) == docs[:1]
        again = await JinaVectorStore.afrom_documents(docs[:1], index=index)
        assert again.similarity_search("whales", k=1) == docs[:1]


def test_scores_filters_and_relevance(filled):
    scored = filled.similarity_search_with_score(ASKED, k=4)
    assert [doc.id for doc, _ in scored][:2] == ["a", "b"]
    assert [score for _, score in scored] == sorted((score for _, score in scored), reverse=True)
    assert [score for _, score in scored] == [hit.score for hit in filled.index.search(ASKED, k=4)]
    assert [doc.id for doc in filled.similarity_search(ASKED, k=4, filter={"n": [1, 2]})] == ["b", "c"]
    assert filled.similarity_search(ASKED, filter={"n": 7}) == []
    assert len(filled.similarity_search(ASKED, score_threshold=scored[0][1] - 1e-6)) < 4
    relevant = filled.similarity_search_with_relevance_scores(ASKED, k=4)
    assert [score for _, score in relevant] == [min(1.0, max(0.0, score)) for _, score in scored]
    clamp = filled._select_relevance_score_fn()
    assert [clamp(score) for score in (-0.4, 0.3, 1.4)] == [0.0, 0.3, 1.0]


def test_stages_and_a_reranker(filled, embedder):
    reranker = FakeReranker()
    scored = filled.similarity_search_with_score("dry desert", k=2, stages=[Prefetch(), Rerank(model=reranker)])
    assert scored[0][1] == 1.0
    filled.close()
    opened = JinaVectorStore(
        filled._opening.location, JinaLocalEmbeddings(model=embedder), reranker=JinaLocalRerank(model=reranker)
    )
    with opened:
        assert opened.similarity_search_with_score("dry desert", k=2)[0][1] == 1.0
    assert len(reranker.history) == 2


def test_the_dense_vector_alone(filled, embedder):
    vector = filled.embeddings.embed_query("dry desert")
    assert filled.similarity_search_by_vector(vector, k=2)[0].id == "c"
    assert [doc.id for doc in filled.similarity_search_by_vector(vector, k=2, filter={"n": 0})] == ["a"]
    with pytest.raises(InvalidInputError, match="expected 128 finite numbers"):
        filled.similarity_search_by_vector(vector[:5])


def test_marginal_relevance_takes_what_differs(filled):
    near = [doc.id for doc in filled.similarity_search(ASKED, k=2)]
    far = filled.max_marginal_relevance_search(ASKED, k=2, fetch_k=4, lambda_mult=0.1)
    assert near == ["a", "b"]
    assert far[0].id == "a"
    assert far[1].id not in near
    same = filled.max_marginal_relevance_search(ASKED, k=2, fetch_k=4, lambda_mult=1.0)
    assert [doc.id for doc in same] == near
    # Whoever is no candidate is not taken, however different.
    assert [d.id for d in filled.max_marginal_relevance_search(ASKED, k=2, fetch_k=2, lambda_mult=0.1)] == near
    assert len(filled.max_marginal_relevance_search("whales", k=3, fetch_k=1)) == 3
    vector = filled.embeddings.embed_query(ASKED)
    by_vector = filled.max_marginal_relevance_search_by_vector(vector, k=2, fetch_k=4, lambda_mult=0.1)
    assert [doc.id for doc in by_vector] == [doc.id for doc in far]
    only = filled.max_marginal_relevance_search("whales", k=3, filter={"n": [2, 3]})
    assert {doc.id for doc in only} == {"c", "d"}
    assert filled.max_marginal_relevance_search("whales", filter={"n": 77}) == []


def test_three_kinds_of_retriever(filled):
    plain = filled.as_retriever(search_kwargs={"k": 2})
    assert isinstance(plain, VectorStoreRetriever)
    assert [doc.id for doc in plain.invoke(ASKED)] == ["a", "b"]
    assert len(plain.invoke(ASKED, k=3)) == 3
    mmr = filled.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 4, "lambda_mult": 0.1})
    assert [doc.id for doc in mmr.invoke(ASKED)] != ["a", "b"]
    threshold = filled.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9})
    assert [doc.id for doc in threshold.invoke(ASKED)] == ["a"]


async def test_a_retriever_is_traced_without_loading_anything(tmp_path):
    opened = []

    class Watched(JinaVectorStore):
        @property
        def index(self):
            opened.append(threading.get_ident())
            return super().index

    with Watched(tmp_path / "kb", JinaLocalEmbeddings(model=FakeEmbedder())) as store:
        await store.aadd_texts(TEXTS)
        assert threading.get_ident() not in opened
        opened.clear()
        retriever = store.as_retriever(tags=["mine"])
        assert not opened
        trace = Trace()
        assert len(await retriever.ainvoke(ASKED, {"callbacks": [trace]})) == 4
        assert threading.get_ident() not in opened  # the search opens it, in a thread
    (_, name, _, metadata, tags, _), _ = trace.events
    assert name == "JinaVectorStoreRetriever"
    assert tags == ["mine"]
    assert metadata["ls_vector_store_provider"] == "Watched"
    assert metadata["ls_embedding_provider"] == "JinaLocalEmbeddings"
    assert store.as_retriever().tags == ["Watched", "JinaLocalEmbeddings"]


def test_the_embeddings_are_those_of_the_index(tmp_path):
    embedder = FakeEmbedder()
    embeddings = JinaLocalEmbeddings(model=embedder, truncate_dim=64)  # the index keeps what the model itself gives
    with JinaVectorStore(tmp_path / "kb", embeddings) as store:
        store.add_texts(TEXTS, ids=list("abcd"))
        assert store.embeddings.embedder is embedder
        vector = store.embeddings.embed_query("dry desert")
        assert len(vector) == store.index.dim == 128
        assert store.similarity_search_by_vector(vector, k=1)[0].id == "c"
        assert store.max_marginal_relevance_search("dry desert", k=1)[0].id == "c"


# -- async -------------------------------------------------------------------------------------------------


async def test_async_gives_the_same_and_never_encodes_on_the_loops_thread(tmp_path, monkeypatch):
    working: set[int] = set()

    def watched(method):
        def call(self, *args, **options):
            working.add(threading.get_ident())
            return method(self, *args, **options)

        return call

    for name in ("add", "get", "search", "nearest", "dense_vectors", "delete"):
        monkeypatch.setattr(DocumentIndex, name, watched(getattr(DocumentIndex, name)))
    results, vector = {}, FakeEmbedder().encode_query(["whales"]).single[0].tolist()
    calls = [
        ("add_texts", (TEXTS[:2],), {"ids": ["a", "b"]}),
        ("add_documents", ([Document(page_content=text, id=text[:3]) for text in TEXTS[2:]],), {}),
        ("get_by_ids", (["b", "gro", "none"],), {}),
        ("similarity_search", (ASKED,), {"k": 3}),
        ("similarity_search_with_score", (ASKED,), {"k": 3, "filter": {"n": [0, 7]}}),
        ("similarity_search_with_relevance_scores", (ASKED,), {"k": 3}),
        ("similarity_search_by_vector", (vector,), {"k": 3, "filter": {"n": [1, 7]}}),
        ("max_marginal_relevance_search", (ASKED,), {"k": 2, "lambda_mult": 0.1}),
        ("max_marginal_relevance_search_by_vector", (vector,), {"k": 2, "lambda_mult": 0.1}),
        ("search", (ASKED, "mmr"), {"k": 2}),
        ("search", (ASKED, "similarity_score_threshold"), {"score_threshold": 0.5}),
        ("delete", (["a"],), {}),
    ]
    own = threading.get_ident()
    for way in ("sync", "async"):
        embedder = ThreadedEmbedder()
        with JinaVectorStore(tmp_path / way, JinaLocalEmbeddings(model=embedder)) as store:
            values = []
            for name, args, options in calls:
                if way == "sync":
                    values.append(getattr(store, name)(*args, **options))
                else:
                    values.append(await getattr(store, f"a{name}")(*args, **options))
            results[way] = values
        assert (own in embedder.threads) == (own in working) == (way == "sync")
        assert embedder.threads
        working.clear()
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


# -- the rest ----------------------------------------------------------------------------------------------


def test_langchains_own_indexing_keeps_it_in_step(store, embedder):
    records = InMemoryRecordManager("test")
    records.create_schema()
    docs = [Document(page_content=text, metadata={"source": f"{n}.txt"}) for n, text in enumerate(TEXTS)]
    options = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
    assert keep_in_step(docs, records, store, **options)["num_added"] == 4
    embedder.history.clear()
    docs[0].page_content = "birds sing"
    result = keep_in_step(docs[:3], records, store, **options)
    assert {name: result[name] for name in ("num_added", "num_skipped", "num_deleted")} == {
        "num_added": 1,
        "num_skipped": 2,
        "num_deleted": 2,
    }
    assert {doc.page_content for doc in store.similarity_search("sing", k=9)} == {"birds sing", *TEXTS[1:3]}
    assert len([entry for entry in embedder.history if entry[0] == "document"]) == 1


def test_pickling_and_no_secret(filled, embedder, tmp_path):
    assert isinstance(filled, VectorStore)
    secret = JinaVectorStore("http://localhost:6333/pages", api_key=KEY, assets_dir="files")
    assert KEY not in repr(secret) + str(vars(secret))
    kept = pickle.dumps(secret)
    assert KEY.encode() not in kept
    assert pickle.loads(kept)._opening.assets_dir == str(Path("files").absolute())
    assert secret._opening.api_key.get_secret_value() == KEY
    kept = pickle.dumps(filled)
    assert b"Fake" not in kept
    again = pickle.loads(kept)
    again._opening = filled._opening  # the fake is in no registry
    assert again.similarity_search("whales", k=2) == filled.similarity_search("whales", k=2)
    again.close()
    with DocumentIndex.open(tmp_path / "named") as index:
        shared = pickle.loads(pickle.dumps(JinaVectorStore(index)))
        assert shared.add_texts(TEXTS[:1], ids=["a"]) == ["a"]
        assert [hit.doc_id for hit in index.get(["a"])] == ["a"]
        shared.index.close()


async def test_the_folder_is_free_when_stores_and_their_retrievers_are_gone(tmp_path):
    store = JinaVectorStore(tmp_path / "kb")
    await store.aadd_texts(TEXTS, ids=list("abcd"))
    retriever = store.as_retriever(search_kwargs={"k": 1})
    chain = retriever.configurable_fields(search_kwargs=ConfigurableField(id="search"))
    assert len(await chain.ainvoke(ASKED, {"configurable": {"search": {"k": 2}}})) == 2
    assert len(store.max_marginal_relevance_search(ASKED, k=2)) == 2
    assert is_locked(tmp_path / "kb")
    del store, retriever, chain
    gc.collect()
    assert not is_locked(tmp_path / "kb")


def test_it_must_exist_if_it_is_not_to_be_made(tmp_path):
    with pytest.raises(JinaRagError, match="no index"):
        JinaVectorStore(tmp_path / "none", create=False).get_by_ids(["a"])
    with JinaVectorStore(tmp_path / "small", storage="compact") as store:
        compact = store.index.info().storage
    with JinaVectorStore(tmp_path / "large") as store:
        assert compact != store.index.info().storage


def test_unpickled_where_no_index_is_it_says_so_and_makes_none(tmp_path):
    with JinaVectorStore(tmp_path / "kb") as store:
        store.add_texts(["whales sing"])
        stored = pickle.dumps(store)
    shutil.rmtree(tmp_path / "kb")
    for again in (pickle.loads(stored), store):
        with pytest.raises(IndexNotFoundError, match="No index at"):
            again.similarity_search("whales")
    assert not (tmp_path / "kb").exists()


def test_nothing_empty_is_taken_for_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("index", "reranker", "assets_dir"):
        with pytest.raises(InvalidInputError, match=f"{name} is empty"):
            JinaVectorStore(**{"index": "kb", name: ""})
    with pytest.raises(InvalidInputError, match="index is empty"):
        JinaVectorStore.from_texts(TEXTS, index=" ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.array([1, 2]), np.array(1), np.int64(1), [np.int64(1)], range(1, 3)])
def test_a_filter_may_be_of_numpy(store, value):
    store.add_texts(TEXTS, [{"n": n, "page": n} for n in range(4)], ids=list("abcd"))
    for key in ("n", "page"):
        hits = store.similarity_search(ASKED, k=4, filter={key: value})
        assert {doc.id for doc in hits} == ({"b", "c"} if np.size(value) == 2 else {"b"})
    assert len(store.max_marginal_relevance_search(ASKED, filter={"n": value})) == len(hits)
    assert len(store.similarity_search_by_vector([1.0] * 128, filter={"n": value})) == len(hits)
