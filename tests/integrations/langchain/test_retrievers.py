"""JinaPageRetriever: returned documents, search settings, async use, tracing, index handling and serialization."""

from __future__ import annotations

import datetime as dt
import gc
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from helpers.index_locks import is_locked
from helpers.langchain_fakes import PAGES, PLAIN, ThreadedEmbedder, ThreadedReranker, Trace, make_index, no_network
from langchain_core.load import dumps, loads
from langchain_core.runnables import ConfigurableField
from langchain_jina_rag import JinaLocalEmbeddings, JinaLocalRerank, JinaPageRetriever
from pydantic import ValidationError

from jina_rag import (
    Calibration,
    DocumentIndex,
    InvalidInputError,
    JinaRagError,
    Prefetch,
    Range,
    Rerank,
    Rescore,
    fit_calibration,
)
from jina_rag.testing import FakeEmbedder, FakeReranker, make_page, sample_pdf

KEY = "not-for-anybody"


@pytest.fixture(autouse=True)
def block_network():
    with no_network():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("retriever")


@pytest.fixture(scope="module")
def embedder():
    return ThreadedEmbedder()


@pytest.fixture(scope="module")
def index(folder, embedder):
    with make_index(folder, embedder) as index:
        sample_pdf(folder / "birds.pdf", ["birds sing in the morning", PAGES[0]])
        index.ingest(folder / "birds.pdf", metadata={"year": 2025}, settings=PLAIN)
        yield index


@pytest.fixture
def retriever(index):
    return JinaPageRetriever(index=index)


def test_documents_have_location_and_search_metadata(retriever, index, folder):
    docs = retriever.invoke("growth by region")
    best, hit = docs[0], index.search("growth by region")[0]
    assert best.page_content == PAGES[1]
    assert best.id == hit.page_id
    metadata = dict(best.metadata)
    assert metadata.pop("score") == pytest.approx(hit.score)
    assert metadata == {
        "source": str(folder / "animals.pdf"),
        "page": 1,
        "total_pages": 3,
        "doc_id": "animals.pdf",
        "stage": "rescore",
        "snippet": hit.snippet,
        "image": str(hit.image_path),
        "year": 2024,
        "meta.page": "front",  # a key of the document metadata, as in filters
    }
    assert hit.image_path.is_file()
    json.dumps([doc.metadata for doc in docs])


def test_region_metadata_is_json(tmp_path):
    from jina_rag import Region

    page = make_page("table of growth by region", regions=[Region("table", (0.0, 0.0, 1.0, 0.2), "Table 1")])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.add([page, "a text of no page"], ids=["p", "t"], metadata=[{"year": 1}, {"score": "mine", "page": 7}])
        docs = JinaPageRetriever(index=index).invoke("growth by region")
        hits = index.search("growth by region")
        text = JinaPageRetriever(index=index, k=1).invoke("text of no page")[0]
    region = docs[0].metadata["region"]
    assert region == {
        "kind": "table",
        "box": pytest.approx([0.0, 0.0, 1.0, 0.2], abs=1e-3),
        "caption": "Table 1",
        "image": str(hits[0].region.image_path),
    }
    assert Path(region["image"]).is_file()
    json.dumps(docs[0].metadata)
    assert docs[0].id == "p"
    assert docs[0].metadata["year"] == 1
    # A text keeps the metadata key "page". The metadata key "score" is reserved and gets the prefix "meta.".
    assert (text.id, text.page_content, text.metadata["page"]) == ("t", "a text of no page", 7)
    assert text.metadata["meta.score"] == "mine"
    assert isinstance(text.metadata["score"], float)
    assert "image" not in text.metadata


def test_search_settings_are_fields_and_call_arguments(index):
    retriever = JinaPageRetriever(index=index, k=2, filter={"year": 2025})
    assert [doc.metadata["year"] for doc in retriever.invoke("whales sing")] == [2025, 2025]
    assert [doc.metadata["year"] for doc in retriever.invoke("whales sing", filter={"year": 2024}, k=1)] == [2024]
    assert len(retriever.bind(k=1).invoke("whales sing")) == 1
    assert {doc.metadata["year"] for doc in retriever.invoke("whales sing", filter=None, k=9)} == {2024, 2025}
    assert not retriever.invoke("whales sing", filter={"year": Range(gt=2025)})
    assert not JinaPageRetriever(index=index, filter={"year": Range(gt=2025)}).invoke("whales sing")


def test_filter_by_dates_is_a_field_and_serializes(tmp_path):
    first, second = dt.date(2024, 5, 1), dt.date(2025, 1, 31)
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.add(["whales sing", "whales swim"], ids=["a", "b"], metadata=[{"when": first}, {"when": second}])
        for where in (Range(gt=first), Range(gte="2024-05-02T00:00:00+02:00"), "2025-01-31", second):
            retriever = JinaPageRetriever(index=index, filter={"when": where})
            assert [doc.metadata["when"] for doc in retriever.invoke("whales sing")] == ["2025-01-31"]
            fields = json.loads(retriever.model_dump_json())
            restored = JinaPageRetriever(index=index, filter=fields["filter"])
            assert [doc.id for doc in restored.invoke("whales sing")] == ["b"]


@pytest.mark.parametrize("bounds", [{"$gte": "2025-01-01"}, {"gte": 1, "max": 2}, {1: 2}])
def test_filter_with_operators_of_other_stores_names_the_range(tmp_path, bounds):
    with pytest.raises(ValidationError, match=r"The filter 'when' is .*Range of gte, lte, gt and lt"):
        JinaPageRetriever(index=str(tmp_path / "kb"), filter={"when": bounds})


def test_filter_uses_document_metadata_keys(index):
    retriever = JinaPageRetriever(index=index, k=9)
    for doc in retriever.invoke("growth by region"):
        where = {key: doc.metadata[key] for key in ("source", "page", "doc_id")}
        assert [match.id for match in retriever.invoke("growth by region", filter=where)] == [doc.id]
    pages = [doc.metadata["page"] for doc in retriever.invoke("growth by region", filter={"page": [1, 2]})]
    assert set(pages) == {1, 2}
    assert set(pages) == {doc.metadata["page"] for doc in retriever.invoke("growth", filter={"page": Range(gte=1)})}


@pytest.mark.parametrize(
    "page",
    [0, np.int64(0), range(0, 1), np.array([0]), (0,), {0}, [np.int32(0)], Range(lt=1), Range(lte=np.float64(0))],
)
def test_page_filter_is_zero_based_in_every_form(index, page):
    docs = JinaPageRetriever(index=index, k=9).invoke("growth by region", filter={"page": page})
    assert {doc.metadata["page"] for doc in docs} == {0}
    field = JinaPageRetriever(index=index, k=9, filter={"page": page}).invoke("growth by region")
    assert [doc.id for doc in field] == [doc.id for doc in docs]


async def test_unknown_setting_raises_invalid_input_error(retriever):
    with pytest.raises(InvalidInputError, match="'top_k' is not a search setting; expected one of k, "):
        retriever.invoke("whales sing", top_k=3)
    with pytest.raises(InvalidInputError, match="top_k"):
        await retriever.ainvoke("whales sing", top_k=3)


def test_group_by_dedup_and_score_threshold(index):
    by_page = JinaPageRetriever(index=index, k=9)
    by_document = JinaPageRetriever(index=index, k=9, group_by="document")
    assert len(by_page.invoke("whales sing")) == 5
    assert len(by_document.invoke("whales sing")) == len(by_page.invoke("whales sing", group_by="document")) == 2
    duplicates = [doc for doc in by_page.invoke("whales sing") if doc.page_content == PAGES[0]]
    folded_docs = JinaPageRetriever(index=index, k=9, dedup=True).invoke("whales sing")
    assert len(duplicates) == 2
    assert len([doc for doc in folded_docs if doc.page_content == PAGES[0]]) == 1
    assert len(by_page.invoke("whales sing", dedup=True)) == len(folded_docs)
    best = by_page.invoke("whales sing")[0].metadata["score"]
    assert not JinaPageRetriever(index=index, score_threshold=best + 1).invoke("whales sing")
    assert 0 < len(by_page.invoke("whales sing", score_threshold=best - 1e-6)) < 5


def test_stages_and_reranker(index, folder):
    reranker = FakeReranker()
    reranked_docs = JinaPageRetriever(index=index, stages=Rerank(model=reranker, limit=2)).invoke("whales sing")
    assert [doc.metadata["stage"] for doc in reranked_docs] == ["rerank", "rerank", "rescore", "rescore", "rescore"]
    docs = JinaPageRetriever(index=index).invoke("whales sing", stages=[Rescore(), Rerank(model=reranker, limit=1)])
    assert [doc.metadata["stage"] for doc in docs][:2] == ["rerank", "rescore"]
    with JinaPageRetriever(index=folder / "kb", reranker=reranker) as retriever:
        assert retriever.invoke("whales sing")[0].metadata["stage"] == "rerank"
    with JinaPageRetriever(index=folder / "kb", reranker=JinaLocalRerank(model=reranker)) as retriever:
        assert retriever.invoke("whales sing")[0].metadata["stage"] == "rerank"
    assert len(reranker.history) == 4


async def test_invoke_image_searches_by_image(tmp_path):
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (700, 90), "white")
    ImageDraw.Draw(image).text((10, 10), "whales sing in the sea", fill="black", font=ImageFont.load_default(48))
    image.save(tmp_path / "query.png")
    with DocumentIndex.open(tmp_path / "kb") as index:
        index.add(["the desert is dry", "whales sing", "tax report"], ids=["a", "b", "c"])
        retriever = JinaPageRetriever(index=index, k=1)
        assert retriever.invoke_image(str(tmp_path / "query.png"))[0].id == "b"
        assert retriever.invoke_image((tmp_path / "query.png").read_bytes(), k=2)[0].id == "b"
        assert retriever.invoke("report of taxes and", image=image, k=3)[0].id in "bc"
        image_path = str(tmp_path / "query.png")
        assert await retriever.ainvoke_image(image_path, k=2) == retriever.invoke_image(image_path, k=2)
        expected = index.search(["tax", {"image": image}], k=3)
        assert [doc.id for doc in retriever.invoke("tax", image=image, k=3)] == [hit.doc_id for hit in expected]


def test_empty_query_raises_value_error(retriever):
    with pytest.raises(ValueError, match="query is empty"):
        retriever.invoke("")


def test_invalid_fields_raise_validation_error(index):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        JinaPageRetriever(index="kb", top_k=3)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        JinaPageRetriever(index="kb", k=0)
    with pytest.raises(ValidationError, match="expected a Prefetch, a Rescore or a Rerank"):
        JinaPageRetriever(index="kb", stages=["rerank"])
    with pytest.raises(ValidationError, match="embedder cannot be set for an index that is already open"):
        JinaPageRetriever(index=index, embedder="lite")
    with pytest.raises(ValidationError, match="index"):
        JinaPageRetriever()
    with pytest.raises(ValidationError, match="index"):
        JinaPageRetriever(index=3)


async def test_async_methods_run_in_threads(folder, index, embedder):
    embedder.threads.clear()
    reranker = ThreadedReranker()
    retriever = JinaPageRetriever(index=index, stages=Rerank(model=reranker), k=3)
    assert await retriever.ainvoke("whales sing") == retriever.invoke("whales sing")
    main_thread = threading.get_ident()
    assert main_thread in embedder.threads  # invoke encodes in this thread, so the fakes record it
    assert main_thread in reranker.threads
    embedder.threads.clear()
    reranker.threads.clear()
    docs = await retriever.ainvoke("whales sing", k=2, filter={"year": 2024})
    assert len(docs) == 2
    await retriever.abatch(["whales", "birds"])
    await retriever.acontext("whales sing", docs)
    assert embedder.threads
    assert reranker.threads
    assert main_thread not in embedder.threads | reranker.threads


async def test_ainvoke_opens_index_in_thread(folder, index, monkeypatch):
    threads = []
    real_open = DocumentIndex.open

    def counting_open(*args, **options):
        threads.append(threading.get_ident())
        return real_open(*args, **options)

    monkeypatch.setattr(DocumentIndex, "open", counting_open)
    retriever = JinaPageRetriever(index=folder / "kb", k=1)
    assert len(await retriever.ainvoke("whales")) == 1
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    retriever.close()


async def test_run_is_traced_as_retriever(index):
    trace = Trace()
    retriever = JinaPageRetriever(index=index, tags=["mine"], metadata={"team": "a"})
    docs = retriever.invoke("whales sing", {"callbacks": [trace]}, k=2)
    await retriever.ainvoke("whales sing", {"callbacks": [trace], "run_name": "named"}, k=1)
    (_, name, query, metadata, tags, _), end_event, (_, second_name, *_), second_end = trace.events
    assert (name, query, tags) == ("JinaPageRetriever", "whales sing", ["mine"])
    assert metadata == {
        "team": "a",
        "ls_retriever_name": "jinapage",
        "ls_vector_store_provider": "jina_rag",
        "ls_embedding_provider": "jina_rag",
    }
    assert end_event[:2] == ("end", docs)
    assert second_name == "named"
    assert len(second_end[1]) == 1
    with pytest.raises(ValueError, match="empty"):
        retriever.invoke("", {"callbacks": [trace]})
    assert trace.events[-1][0] == "error"


def test_trace_contains_embedder_name():
    trace = JinaPageRetriever(index="kb", embedder="lite")._get_ls_params()
    assert trace["ls_embedding_model"] == "lite"
    passed_params = JinaPageRetriever(index="kb", embedder=FakeEmbedder(name="mine"))._get_ls_params()
    assert passed_params["ls_embedding_model"] == "mine"


def test_index_is_opened_at_first_query_and_closed(tmp_path):
    embedder = FakeEmbedder()
    make_index(tmp_path, embedder).close()
    retriever = JinaPageRetriever(index=tmp_path / "kb", embedder=embedder, k=1)
    assert not is_locked(tmp_path / "kb")
    with retriever:
        retriever.invoke("whales")
        assert is_locked(tmp_path / "kb")
    assert not is_locked(tmp_path / "kb")
    assert len(retriever.invoke("whales")) == 1  # reopened
    retriever.close()
    retriever.close()
    assert not is_locked(tmp_path / "kb")


async def test_deleted_retrievers_release_index_lock(tmp_path):
    """LangChain creates a new retriever for each call with configurable fields and closes none of them."""
    with DocumentIndex.open(tmp_path / "kb") as filled:
        filled.add(["whales sing", "the desert is dry"], ids=["a", "b"])
    retriever = JinaPageRetriever(index=tmp_path / "kb")
    chain = retriever.configurable_fields(k=ConfigurableField(id="pages"))
    configured_chain = chain.with_config({"configurable": {"pages": 1}})
    assert len(chain.invoke("whales", {"configurable": {"pages": 2}})) == 2
    assert len(configured_chain.invoke("whales")) == len(await configured_chain.ainvoke("whales")) == 1
    assert len(retriever.model_copy(update={"k": 1}).invoke("whales")) == 1
    assert is_locked(tmp_path / "kb")
    del retriever, chain, configured_chain
    gc.collect()
    assert not is_locked(tmp_path / "kb")


def test_passed_index_stays_open(retriever, index):
    with retriever:
        retriever.invoke("whales")
    assert index.search("whales")
    retriever.close()
    assert retriever.invoke("whales")


def test_missing_index_raises_and_is_not_created(tmp_path):
    with pytest.raises(JinaRagError, match="No index at"):
        JinaPageRetriever(index=tmp_path / "nowhere").invoke("whales")
    assert not (tmp_path / "nowhere").exists()


def test_embedder_accepts_local_embeddings(tmp_path):
    embedder = FakeEmbedder()
    make_index(tmp_path, embedder).close()
    with JinaPageRetriever(index=tmp_path / "kb", embedder=JinaLocalEmbeddings(model=embedder)) as retriever:
        assert retriever.invoke("whales")
    with (
        JinaPageRetriever(index=tmp_path / "kb", embedder=FakeEmbedder(name="other")) as retriever,
        pytest.raises(JinaRagError, match="was built with"),
    ):
        retriever.invoke("whales")


def full_retriever(index="http://localhost:6333/pages"):
    calibration = fit_calibration([("image", x / 20, x > 9) for x in range(20)])
    assert not calibration.is_identity
    return JinaPageRetriever(
        index=index,
        k=7,
        filter={"year": Range(gte=2020), "path": ["a*", "b*"]},
        stages=[Prefetch(limit=9), Rerank(model="lite", shows=("page", "text"), calibration=calibration)],
        group_by="document",
        dedup=True,
        score_threshold=0.1,
        embedder="lite",
        reranker="lite",
        assets_dir="files",
        api_key=KEY,
    )


def test_api_key_is_excluded_from_dump_repr_and_pickle():
    retriever = full_retriever()
    assert retriever.api_key.get_secret_value() == KEY
    texts = [repr(retriever), str(retriever), str(retriever.model_dump()), retriever.model_dump_json()]
    texts += [dumps(retriever), str(retriever.__getstate__()), str(retriever._opening)]
    assert not any(KEY in text for text in texts)
    assert KEY.encode() not in pickle.dumps(retriever)
    assert retriever.api_key.get_secret_value() == KEY
    # A masked value ("****") would be loaded as a key.
    assert JinaPageRetriever.model_validate_json(retriever.model_dump_json()).api_key is None
    assert json.loads(dumps(retriever))["kwargs"]["api_key"] == {"lc": 1, "type": "secret", "id": ["QDRANT_API_KEY"]}


def test_api_key_is_passed_to_index_open(monkeypatch):
    arguments = {}
    monkeypatch.setattr(DocumentIndex, "open", lambda location, **options: arguments.update(options, at=location))
    retriever = full_retriever()
    with pytest.raises(AttributeError):
        retriever.invoke("whales")  # the fake `open` returns no index
    assert arguments["at"] == "http://localhost:6333/pages"
    assert arguments["api_key"] == KEY
    assert (arguments["embedder"], arguments["reranker"], arguments["assets_dir"], arguments["create"]) == (
        "lite",
        "lite",
        "files",
        False,
    )


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_serialization_round_trips():
    retriever = full_retriever()
    retriever.api_key = None
    assert JinaPageRetriever(**retriever.model_dump()) == retriever
    assert JinaPageRetriever.model_validate_json(retriever.model_dump_json()) == retriever
    assert pickle.loads(pickle.dumps(retriever)) == retriever
    assert isinstance(retriever.stages[1].calibration, Calibration)
    text = dumps(retriever)
    restored = loads(text, valid_namespaces=["langchain_jina_rag"], allowed_objects=[JinaPageRetriever])
    assert restored == retriever
    assert JinaPageRetriever.model_json_schema()["properties"]["k"]
    # The key is restored from the secrets.
    restored_with_secret = loads(
        dumps(full_retriever()),
        valid_namespaces=["langchain_jina_rag"],
        allowed_objects=[JinaPageRetriever],
        secrets_map={"QDRANT_API_KEY": KEY},
    )
    assert restored_with_secret.api_key.get_secret_value() == KEY


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_model_objects_are_serialized_by_name(index):
    reranker = FakeReranker(name="lite")
    reranker.weights = bytes(100_000)
    retriever = JinaPageRetriever(
        index=str(index.location), embedder=FakeEmbedder(name="lite"), reranker=reranker, stages=Rerank(model=reranker)
    )
    pickled = pickle.dumps(retriever)
    assert len(pickled) < 3000
    assert b"Fake" not in pickled
    assert "Fake" not in retriever.model_dump_json() + dumps(retriever)
    restored = pickle.loads(pickled)
    assert restored.stages == [Rerank(model="lite")]
    assert restored.embedder.model == restored.reranker.model == "lite"
    classes = [JinaPageRetriever, JinaLocalEmbeddings, JinaLocalRerank]
    loaded_retriever = loads(dumps(retriever), valid_namespaces=["langchain_jina_rag"], allowed_objects=classes)
    assert loaded_retriever.reranker.model == "lite"
    assert loaded_retriever.stages == [Rerank(model="lite")]


def test_retriever_over_open_index_can_be_pickled(tmp_path, retriever):
    with DocumentIndex.open(tmp_path / "kb") as open_index:
        open_index.add(["whales sing", "the desert is dry"], ids=["a", "b"])
        open_retriever = JinaPageRetriever(index=open_index)
        restored = pickle.loads(pickle.dumps(open_retriever))
        assert restored.index == str(tmp_path / "kb")
        assert restored.invoke("whales sing", k=2) == open_retriever.invoke("whales sing", k=2)
        restored._index.external.close()
    with pytest.raises(InvalidInputError, match="cannot be pickled, because the embedder is an object"):
        pickle.dumps(retriever)


def test_configurable_fields(retriever):
    configurable = retriever.configurable_fields(k=ConfigurableField(id="pages"))
    assert len(configurable.invoke("whales", {"configurable": {"pages": 1}})) == 1
    assert len(configurable.invoke("whales", {"configurable": {"pages": 3}})) == 3


def test_copy_with_changed_index_searches_that_index(tmp_path):
    embedder = FakeEmbedder()
    for name in ("a", "b"):
        with DocumentIndex.open(tmp_path / name, embedder=embedder) as index:
            index.add([f"whales sing {name}"], ids=[name])

    def ids(retriever):
        return [doc.id for doc in retriever.invoke("whales sing")]

    with JinaPageRetriever(index=str(tmp_path / "a"), embedder=embedder) as retriever:
        assert ids(retriever) == ["a"]
        copied = retriever.model_copy(update={"index": str(tmp_path / "b")})
        assert (ids(copied), ids(retriever)) == (["b"], ["a"])
        reranking_retriever = retriever.model_copy(update={"reranker": JinaLocalRerank(model=FakeReranker())})
        assert reranking_retriever.invoke("whales sing")[0].metadata["stage"] == "rerank"
        retriever.index = str(tmp_path / "b")
        assert ids(retriever) == ["b"]
    assert not is_locked(tmp_path / "a")
    assert not is_locked(tmp_path / "b")
    with DocumentIndex.open(tmp_path / "a", embedder=embedder) as index:
        open_retriever = JinaPageRetriever(index=index)
        with open_retriever.model_copy(update={"index": str(tmp_path / "b"), "embedder": embedder}) as copied:
            assert (ids(copied), ids(open_retriever)) == (["b"], ["a"])


@pytest.mark.parametrize("name", ["index", "embedder", "reranker", "assets_dir"])
def test_empty_values_raise_validation_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValidationError, match=f"{name} is empty"):
        JinaPageRetriever(**{"index": "kb", name: ""})
    retriever = JinaPageRetriever(index="kb")
    setattr(retriever, name, "")
    with pytest.raises(InvalidInputError, match=f"{name} is empty"):
        retriever.invoke("whales")
    assert not list(tmp_path.iterdir())


def test_filter_accepts_numpy_arrays(retriever):
    assert retriever.invoke("whales", filter={"year": np.array([2025])})
    assert retriever.invoke("whales", filter={"year": np.array([2025])}) == retriever.invoke(
        "whales", filter={"year": [2025]}
    )
