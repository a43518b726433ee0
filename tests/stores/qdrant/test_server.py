"""Server store: requests, collections, retries, API keys, URLs and gRPC."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import uuid

import grpc
import numpy as np
import pytest
from helpers.qdrant_stand_in import grpc_stand_in, rest_stand_in
from qdrant_client import QdrantClient, models

from jina_rag.errors import (
    IndexCorruptError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexStateError,
    InvalidInputError,
    MissingDependencyError,
)
from jina_rag.stores import schema
from jina_rag.stores.filters import with_filter_payload
from jina_rag.stores.qdrant import errors, retry, server_codec
from jina_rag.stores.qdrant.collection import read_facts
from jina_rag.stores.qdrant.server import QdrantConnection, QdrantStore
from jina_rag.types import Point, Prefetch, Range, SparseVector, StoreQuery

DIM, MULTI_DIM = 4, 8
SECRET = "a-very-secret-key"
FACTS = {"embedder": "lite", "fingerprint": "ab:cd", "settings": {"dim": None, "list": [1, 2.5, "é"]}}


def open_store(url, **changes):
    return QdrantStore.open(url, **{"collection": "kb", "dim": DIM, "multi_dim": MULTI_DIM, **changes})


def point(n, **payload):
    multi = np.full((2, MULTI_DIM), n, "f4")
    lexical = SparseVector(np.array([n + 1], "u4"), np.ones(1, "f4"))
    return Point(str(uuid.UUID(int=n + 1)), np.ones(DIM, "f4"), multi, lexical, {"n": n, **payload})


@pytest.fixture
def server():
    with rest_stand_in() as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Waits between attempts in seconds; the tests record them instead of sleeping."""
    waits = []
    monkeypatch.setattr(retry, "sleep", waits.append)
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    return waits


# Requests


def test_upsert_requests_stay_below_the_byte_limit(server):
    """200 pages of 768 x 128 numbers; a batch of 64 pages, the default of the client, takes 51 to 130 MB."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(768, 128)).astype("f4")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pages = [
        Point(
            str(uuid.UUID(int=n + 1)), np.full(384, n, "f4"), np.roll(rows, n, axis=0), None, {"n": n, "text": "é" * n}
        )
        for n in range(200)
    ]
    with open_store(server.url, dim=384, multi_dim=128) as store:
        server.discard_points = True
        store.upsert(pages)
        put_requests = [request for request in server.requests_to("/points") if request.method == "PUT"]
        assert max(request.bytes for request in put_requests) <= schema.BATCH_BYTES
        assert min(request.bytes for request in put_requests[:-1]) > schema.BATCH_BYTES - 10**6, (
            "requests are almost full"
        )
        assert 8 < len(put_requests) < 16
        assert sum(request.raw.count(b'"id":') for request in put_requests) == len(pages)
        # Convert numbers as the server does: to float32 first, then to float16.
        sent_points = [item for request in (put_requests[0], put_requests[-1]) for item in request.body["points"]]
        for item in (sent_points[0], sent_points[5], sent_points[-1]):
            page = pages[item["payload"]["n"]]
            assert item["id"] == page.id
            assert item["payload"]["text"] == page.payload["text"]
            np.testing.assert_array_equal(np.asarray(item["vector"]["dense"], "f4"), page.dense)
            float16_rows = np.asarray(item["vector"]["multi"], "f4").astype("f2")
            np.testing.assert_array_equal(float16_rows, page.multi.astype("f2"))
        assert sent_points[-1]["id"] == pages[-1].id


def test_page_above_the_limit_is_sent_alone(server, monkeypatch):
    monkeypatch.setattr(schema, "BATCH_BYTES", 6000)
    with open_store(server.url) as store:
        store.upsert([point(0), point(1, text="x" * 9000), point(2), point(3)])
        counts = [len(request.body["points"]) for request in server.requests_to("/points") if request.method == "PUT"]
        assert counts == [1, 1, 2]
        assert store.count() == 4


def test_fp16_rows_are_the_shortest_decimals_of_each_float16():
    float16_values = np.arange(65536, dtype="u2").view("f2")
    finite = float16_values[np.isfinite(float16_values)].astype("f4")[None]
    decimals = np.array(server_codec.fp16_rows(finite))
    np.testing.assert_array_equal(decimals.astype("f4").astype("f2"), finite.astype("f2"))
    assert max(len(json.dumps(number)) for number in decimals[0].tolist()) <= 11
    assert server_codec.fp16_rows(np.array([[1e9, -1e9, 0.1]], "f4")) == [[65500.0, -65500.0, 0.1]], (
        "clipped to the float16 range"
    )


def test_size_function_matches_the_request_size(server):
    with open_store(server.url) as store:
        size = server_codec.size_function(models, grpc=False)
        points = [with_filter_payload(point(n, text='é\n"' * n, none=None)) for n in range(5)]
        expected = sum(size(server_codec.encode(models, item)) for item in points)
        store.upsert([point(n, text='é\n"' * n, none=None) for n in range(5)])
        (request,) = [request for request in server.requests_to("/points") if request.method == "PUT"]
        assert request.bytes == expected + len('{"points":[]}') - 1
        assert store.fetch([point(1).id])[0].payload == {"n": 1, "text": 'é\n"', "none": None}


def test_search_is_one_request_without_filter_keys(server):
    with open_store(server.url) as store:
        store.upsert([point(n, doc_id="a") for n in range(5)])
        server.requests.clear()
        hits = store.search(
            np.ones((1, MULTI_DIM), "f4"),
            limit=3,
            dense=np.ones(DIM, "f4"),
            lexical=SparseVector(np.array([1], "u4"), np.ones(1, "f4")),
            prefetch=Prefetch(4, 2, 0),
            where={"doc_id": "a"},
            keys=("n",),
        )
        assert [hit.payload for hit in hits] == [{"n": 4}, {"n": 3}, {"n": 2}]
        (request,) = server.requests
        (body,) = request.body["searches"]
        assert [(stage["using"], stage["limit"]) for stage in body["prefetch"]] == [("dense", 4), ("lexical", 2)]
        assert body["using"] == "multi"
        assert body["prefetch"][0]["filter"] == body["prefetch"][1]["filter"] == body["filter"]
        store.search(np.ones((1, MULTI_DIM), "f4"), limit=3)
        (body,) = server.requests[-1].body["searches"]
        assert "prefetch" not in body
        assert body["with_payload"] == {"exclude": ["_where", "_numbers"]}


def test_query_batch_is_one_request_and_large_batches_are_split(server):
    image_query = np.ones((400_000 // MULTI_DIM, MULTI_DIM), "f4")
    with open_store(server.url) as store:
        store.upsert([point(n) for n in range(5)])
        server.requests.clear()
        small = [StoreQuery(np.ones(DIM, "f4"), 2), StoreQuery(np.ones((1, MULTI_DIM), "f4"), 3)]
        assert [len(hits) for hits in store.query_batch(small)] == [2, 3]
        assert len(server.requests) == 1
        large = [StoreQuery(image_query, n + 1) for n in range(4)]
        assert [len(hits) for hits in store.query_batch(large)] == [1, 2, 3, 4]
        sizes = [request.bytes for request in server.requests[1:]]
        assert len(sizes) == 2
        assert max(sizes) <= schema.BATCH_BYTES
        assert store.query_batch([StoreQuery(np.ones(DIM, "f4"), 2, ids=[]), small[0]])[0] == []
        assert len(server.requests[-1].body["searches"]) == 1, "a query that cannot match is not sent"


def test_number_indexes_are_created_once(server):
    with open_store(server.url) as store:
        store.upsert([point(n, page=n, meta=[{"a.b": 1}, {"by": "Ann"}]) for n in range(3)])
        store.upsert([point(7, page=2)])
        requests = [request.body for request in server.requests_to("/index")][1:]
        assert {request["field_schema"] for request in requests} == {"float"}
        assert len({request["field_name"] for request in requests}) == len(requests) == 3
        store.update_payload({point(7).id: {"meta": [{"year": 2024}], "page": 5}})
        assert len(server.requests_to("/index")) == 5
        server.requests.clear()
        assert store.count({"meta.year": Range(gte=2024), "page": Range(lt=6)}) == 1
        assert store.count({"page": Range(gt=6, lt=5)}) == store.count({"page": Range(gt=6, lte=6)}) == 0
        (request,) = server.requests  # a filter that matches nothing sends no request
        assert [condition["range"] for condition in request.body["filter"]["must"]] == [
            {"gte": 2024.0},
            {"lt": 6.0},
        ]
    with open_store(server.url) as store:
        store.upsert([point(1, page=3)])
        store.update_payload({point(1).id: {"page": 4}})
        assert server.requests_to("/index") == [], "the collection reports its indexes"


def test_number_indexes_stop_at_the_limit(server, monkeypatch):
    monkeypatch.setattr("jina_rag.stores.qdrant.base.MAX_INDEXED_KEYS", 2)
    with open_store(server.url) as store:
        store.upsert([point(1, a=1, b=2, c=3)])
        assert len(server.requests_to("/index")) == 3
        assert store.count({"c": Range(gte=3)}) == 1


def test_update_payload_transfers_no_vectors_or_texts(server):
    with open_store(server.url) as store:
        store.upsert([point(n, text="x" * 10_000, doc_id="a") for n in range(3)])
        server.requests.clear()
        store.update_payload({point(n).id: {"doc_id": "b", "gone": None} for n in range(4)})
        assert sum(request.bytes for request in server.requests) < 2000
        assert store.count({"doc_id": "b"}) == 3
        assert len(store.fetch([point(0).id])[0].payload["text"]) == 10_000


def test_large_fetch_and_delete_are_split_into_requests(server, monkeypatch):
    with open_store(server.url) as store:
        store.upsert([point(n) for n in range(40)])
        ids = [point(n).id for n in reversed(range(40))]
        assert [stored_point.payload["n"] for stored_point in store.fetch(ids)] == list(reversed(range(40)))
        assert [len(one.body["ids"]) for one in server.requests_to("/points") if one.method == "POST"] == [16, 16, 8]
        monkeypatch.setattr("jina_rag.stores.base.DELETE_BATCH", 30)
        store.delete(ids)
        assert len(server.requests_to("/points/delete")) == 2
        assert store.count() == 0


# Collections


@pytest.mark.parametrize(("version", "location"), [("1.20.1", {"memory": "cold"}), ("1.16.0", {"on_disk": True})])
def test_collection_is_created_once_with_version_specific_options(server, version, location):
    server.version = version
    connection = QdrantConnection(shard_number=2, replication_factor=3, write_consistency=2)
    with open_store(server.url, connection=connection, facts=FACTS) as store:
        assert read_facts(store._remote) == FACTS
    request = server.created["kb"]
    assert request["vectors"] == {
        "dense": {"size": DIM, "distance": "Dot"},
        "multi": {
            "size": MULTI_DIM,
            "distance": "Dot",
            "datatype": "float16",
            "multivector_config": {"comparator": "max_sim"},
            "hnsw_config": {"m": 0},
            **location,
        },
    }
    assert request["sparse_vectors"] == {"lexical": {"modifier": "idf"}}
    assert (request["shard_number"], request["replication_factor"], request["write_consistency_factor"]) == (2, 3, 2)
    (index,) = server.requests_to("/index")
    assert (index.body, index.path) == (
        {"field_name": "_where", "field_schema": "keyword"},
        "/collections/kb/index?wait=true",
    )
    server.requests.clear()
    with open_store(server.url, facts={"other": 1}) as store:
        assert read_facts(store._remote) == FACTS, "facts of an existing collection stay unchanged"
    assert {request.method for request in server.requests} == {"GET"}


def test_facts_coexist_with_metadata_of_other_programs(server):
    with open_store(server.url, facts=FACTS) as store:
        server.client.update_collection("kb", metadata={"theirs": 1})
        assert read_facts(store._remote) == FACTS
    with pytest.raises(IndexStateError, match="is closed"):
        read_facts(store._remote)
    with open_store(server.url, collection="bare") as store:
        assert read_facts(store._remote) == {}
    with pytest.raises(InvalidInputError, match="JSON"):
        open_store(server.url, collection="never", facts={"x": float("nan")})
    assert not server.client.collection_exists("never")


def test_open_without_create_creates_nothing(server):
    with pytest.raises(IndexNotFoundError, match="ingest"):
        open_store(server.url, create=False)
    assert not server.client.collection_exists("kb")
    open_store(server.url).close()
    server.indexed.clear()
    with open_store(server.url, create=False) as store:
        assert store.count() == 0
    assert len(server.requests_to("/index")) == 1, "opening without create makes no payload index"
    open_store(server.url).close()
    assert len(server.requests_to("/index")) == 2


def test_foreign_or_mismatched_collection_raises_an_index_error(server):
    server.client.create_collection("theirs", vectors_config=models.VectorParams(size=3, distance=models.Distance.DOT))
    with pytest.raises(IndexMismatchError, match="not created by jina-rag"):
        open_store(server.url, collection="theirs")
    open_store(server.url).close()
    for dims in ({"dim": 5}, {"multi_dim": 9}):
        with pytest.raises(IndexMismatchError, match="4 and 8 dimensions"):
            open_store(server.url, **dims)
    server.client.update_collection("kb", metadata={"jina_rag": {"format": 99, "facts": {}}})
    with pytest.raises(IndexMismatchError, match="another jina-rag version"):
        open_store(server.url)
    # Points of format 1 have no numbers for range filters, which would silently match nothing.
    server.client.update_collection("kb", metadata={"jina_rag": {"format": 1, "facts": {}}})
    with pytest.raises(IndexMismatchError, match="another jina-rag version"):
        open_store(server.url)
    server.client.update_collection("theirs", metadata={"jina_rag": {"format": 2, "facts": {}}})
    with pytest.raises(IndexCorruptError, match="lacks a vector"):
        open_store(server.url, collection="theirs")


def test_old_server_version_raises_index_state_error(server):
    server.version = "1.15.9"
    with pytest.raises(IndexStateError, match=r"version 1\.15\.9; jina-rag requires 1\.16"):
        open_store(server.url)
    server.version = "dev-build"
    open_store(server.url).close()


def test_collection_created_by_a_lost_response_is_used(server):
    # The requests ask for the version, look up the collection and create the collection; the first response to the
    # creation is lost.
    server.faults = [None, None, "late"]
    with open_store(server.url, facts=FACTS) as store:
        assert read_facts(store._remote) == FACTS
    assert len([one for one in server.requests if (one.method, one.path) == ("PUT", "/collections/kb")]) == 2


def test_stores_share_a_client_without_closing_it():
    client = QdrantClient(location=":memory:")
    with open_store(":memory:", client=client, facts=FACTS) as first, open_store(":memory:", client=client) as second:
        first.upsert([point(1)])
        assert second.count() == 1
        assert read_facts(second._remote) == FACTS
        with open_store(":memory:", collection="other", client=client) as third:
            assert third.count() == 0
        with pytest.raises(IndexMismatchError):
            open_store(":memory:", client=client, dim=9)
    assert client.count("kb").count == 1
    client.close()


# Failures


def test_unreachable_server_raises_after_retries(waits, caplog):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(IndexStateError, match=f"No Qdrant server answers at {url}.*start the server") as caught:
            open_store(url)
    assert caught.value.__cause__ is not None
    assert len(waits) == 5
    assert all(0 <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))
    assert caplog.text.count("no answer") == 5
    waits.clear()
    with pytest.raises(IndexStateError):
        open_store(url, connection=QdrantConnection(retries=0))
    assert not waits


def test_temporary_failures_are_retried(server, waits):
    with open_store(server.url) as store:
        message = {"status": {"error": "Write rate limit exceeded"}}
        server.faults = [
            "drop",
            (503, {}, b""),
            (429, {"retry-after": "7"}, message),
            (429, {}, message),
            (502, {}, b"<html>"),
        ]
        store.upsert([point(1)])
        assert store.count() == 1
        assert len(waits) == 5
        assert waits[2] == 7
        server.faults = [(503, {"Retry-After": "11"}, b"")]
        store.upsert([point(2)])
        assert waits[5:] == [11]


def test_long_retry_after_raises_without_waiting(server, waits):
    with open_store(server.url) as store:
        server.faults = [(429, {"retry-after": "3600"}, {"status": {"error": "Read rate limit exceeded"}})]
        with pytest.raises(IndexStateError, match=r"rate limit of the server.*Read rate limit exceeded"):
            store.count()
        server.faults = [(429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, {})] * 6
        with pytest.raises(IndexStateError, match="rate limit of the server"):
            store.count()
        assert len(waits) == 5


@pytest.mark.parametrize(
    ("status", "message", "error_type", "match"),
    [
        (400, "Bad request: vector", IndexStateError, "could not be written to .Bad request: vector"),
        (401, "Invalid API key or JWT", IndexStateError, "requires an API key.*QDRANT_API_KEY"),
        (403, "Forbidden: read-only", IndexStateError, "requires an API key"),
        (404, "Not found: Collection `kb` doesn't exist!", IndexNotFoundError, "ingest"),
        (404, "Not found: No point with id 7", IndexStateError, "No point with id 7"),
        (400, "JSON payload is larger than allowed (limit: 1)", IndexStateError, "exceeds the size limit"),
        (413, "no", IndexStateError, "exceeds the size limit"),
        (500, "No space left on device", IndexStateError, "No space left"),
    ],
)
def test_permanent_failures_are_not_retried(server, waits, status, message, error_type, match):
    with open_store(server.url) as store:
        server.requests.clear()
        server.faults = [(status, {}, {"status": {"error": message}})]
        with pytest.raises(IndexStateError, match=match) as caught:
            store.upsert([point(1)])
        assert type(caught.value) is error_type
        assert caught.value.__cause__ is not None
        assert server.url in str(caught.value)
        assert "'kb'" in str(caught.value)
        assert len(server.requests) == 1
        assert not waits


@pytest.mark.parametrize(
    "response",
    [
        (200, {}, b"<html>hello</html>"),
        (200, {}, {"hello": "world"}),
        (404, {}, b"<html>nginx</html>"),
        (302, {"location": "https://elsewhere"}, b""),
    ],
)
def test_response_of_another_server_raises_index_state_error(server, response):
    server.faults = [response]
    with pytest.raises(IndexStateError, match="is not a Qdrant server"):
        open_store(server.url)


def test_slow_server_raises_timeout_error(server):
    with open_store(server.url, connection=QdrantConnection(timeout=0.3, retries=0)) as store, server.lock:
        with pytest.raises(IndexStateError, match="did not answer within 1 s"):
            store.count()


def test_api_key_is_sent_but_not_in_messages(server, caplog, monkeypatch):
    connection = QdrantConnection(api_key=SECRET)
    assert SECRET not in repr(connection)
    with open_store(server.url, connection=connection) as store:
        assert {request.headers["api-key"] for request in server.requests} == {SECRET}
        server.faults = [(403, {}, {"status": {"error": f"the key {SECRET} is read-only"}})]
        with pytest.raises(IndexStateError, match="rejected the API key") as caught:
            store.upsert([point(1)])
    assert SECRET not in str(caught.value) + caplog.text + repr(vars(store)) + repr(store._remote.address)
    assert not caplog.records, "a loopback connection needs no encryption"
    monkeypatch.setenv("QDRANT_API_KEY", " from-the-environment\n")
    open_store(server.url).close()
    assert server.requests[-1].headers["api-key"] == "from-the-environment"
    monkeypatch.setenv("QDRANT_API_KEY", "two words")
    with pytest.raises(InvalidInputError, match="QDRANT_API_KEY is not a valid API key") as caught:
        open_store(server.url)
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "is_warning_expected"),
    [
        ("http://192.0.2.1:1", True),
        ("https://192.0.2.1:1", False),
        ("http://[::1]:1", False),
        ("http://localhost:1", False),
    ],
)
def test_unencrypted_api_key_logs_a_warning(monkeypatch, caplog, url, is_warning_expected):
    # No request is sent to these URLs.
    monkeypatch.setattr("jina_rag.stores.qdrant.server.open_collection", lambda *_, **__: None)
    with caplog.at_level(logging.WARNING):
        open_store(url, connection=QdrantConnection(api_key=SECRET)).close()
    assert ("unencrypted" in caplog.text) is is_warning_expected
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url",
    ["localhost:6333", "ftp://h", "http://", "kb", "", "http://h:99999", "http://h:x", "http://[::1", "http://h?q=1"],
)
def test_invalid_address_raises_invalid_input_error(url):
    with pytest.raises(InvalidInputError, match="URL of"):
        open_store(url)


@pytest.mark.parametrize("url", [f"https://me:{SECRET}@h", f"https://{SECRET}@h", f"https://h?api-key={SECRET}"])
def test_address_with_secret_raises_without_showing_it(url):
    with pytest.raises(InvalidInputError, match="must not contain a user") as caught:
        open_store(url)
    assert SECRET not in str(caught.value)


def test_address_gets_the_default_port(server, monkeypatch):
    urls = []
    monkeypatch.setattr(
        "jina_rag.stores.qdrant.server.open_collection", lambda remote, *_, **__: urls.append(remote.address.url)
    )
    for url in ("http://h", "https://H:443/", "http://[::1]", "https://h/qdrant/"):
        open_store(url).close()
    assert urls == ["http://h:6333", "https://h:443", "http://[::1]:6333", "https://h:6333/qdrant"]


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": ""},
        {"api_key": "x\ny"},
        {"grpc_port": 0},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"retries": -1},
        {"shard_number": 0},
        {"replication_factor": 0},
        {"write_consistency": 0},
        {"verify": "/no/such/file.pem"},
        {"verify": False, "prefer_grpc": True},
    ],
)
def test_invalid_connection_setting_raises_invalid_input_error(settings):
    with pytest.raises(InvalidInputError):
        QdrantConnection(**settings)


@pytest.mark.parametrize("changes", [{"dim": 0}, {"multi_dim": -1}, {"collection": "a/b"}, {"collection": ""}])
def test_invalid_open_argument_raises_invalid_input_error(changes):
    with pytest.raises(InvalidInputError):
        open_store(":memory:", **changes)


def test_invalid_certificate_file_raises_invalid_input_error(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(InvalidInputError, match=r"certificate file .*ca\.pem is unreadable"):
        open_store("https://localhost:1", connection=QdrantConnection(verify=tmp_path / "ca.pem"))


def test_untrusted_certificate_is_not_retried():
    httpx = pytest.importorskip("httpx")
    failure = errors.classify_error(httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"))
    assert not retry.is_retryable(failure)
    address = errors.Address("https://h:6333", "kb")
    assert "`verify`" in str(errors.to_index_error(failure, address, "be opened"))


def test_client_is_imported_lazily_and_missing_client_raises(monkeypatch):
    script = (
        "import sys, jina_rag, jina_rag.stores.qdrant.server\n"
        "sys.exit(bool({'qdrant_client', 'tenacity', 'grpc', 'httpx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(MissingDependencyError, match=r"jina-rag\[qdrant\]"):
        open_store(":memory:")


# gRPC


class FakeRpcError(grpc.RpcError):
    def __init__(self, code, details=None):
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


@pytest.mark.parametrize(
    ("code", "message", "is_retried", "match"),
    [
        ("UNAVAILABLE", "failed to connect", True, "No Qdrant server answers"),
        ("UNAVAILABLE", "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", False, "not trusted"),
        ("DEADLINE_EXCEEDED", "", True, "did not answer within"),
        ("RESOURCE_EXHAUSTED", "rate limit", True, "rate limit"),
        ("UNAUTHENTICATED", "no", False, "API key"),
        ("NOT_FOUND", "Not found: Collection `kb` doesn't exist!", False, "ingest"),
        ("NOT_FOUND", "Not found: No point with id", False, "No point"),
        ("OUT_OF_RANGE", "message length too large", False, "exceeds the size limit"),
        ("UNIMPLEMENTED", "", False, "is not a Qdrant server"),
        ("INTERNAL", "", False, "INTERNAL"),
    ],
)
def test_grpc_status_codes_map_to_index_errors(code, message, is_retried, match):
    failure = errors.classify_error(FakeRpcError(getattr(grpc.StatusCode, code), message))
    assert retry.is_retryable(failure) is is_retried
    address = errors.Address("http://h:6333", "kb")
    with pytest.raises(IndexStateError, match=match):
        raise errors.to_index_error(failure, address, "be searched")


def test_grpc_requests_respect_the_byte_limit_and_send_the_key(waits):
    rows = np.random.default_rng(0).normal(size=(768, 128)).astype("f4")
    pages = [Point(str(uuid.UUID(int=n + 1)), multi=rows, payload={"n": n}) for n in range(50)]
    with grpc_stand_in() as (server, port):
        connection = QdrantConnection(prefer_grpc=True, grpc_port=port, api_key=SECRET)
        with open_store(server.url, multi_dim=128, connection=connection, facts=FACTS) as store:
            assert read_facts(store._remote) == FACTS
            store.upsert(pages)
            sizes = [request.bytes for request in server.requests_to("Upsert")]
            assert len(sizes) == 2
            assert schema.BATCH_BYTES - 500_000 < sizes[0] <= schema.BATCH_BYTES
            np.testing.assert_array_equal(store.fetch([pages[7].id])[0].multi.astype("f2"), rows.astype("f2"))
            assert {request.headers["api-key"] for request in server.requests} == {SECRET}
            server.faults = [(grpc.StatusCode.UNAVAILABLE, "later"), (grpc.StatusCode.RESOURCE_EXHAUSTED, "slower")]
            assert store.count() == 50
            assert len(waits) == 2
            server.faults = [(grpc.StatusCode.PERMISSION_DENIED, f"not with {SECRET}")]
            with pytest.raises(IndexStateError, match="rejected the API key") as caught:
                store.count()
            assert SECRET not in str(caught.value)
            store.update_payload({page.id: {"n": -1} for page in pages})
            assert store.count({"n": -1}) == 50
        with pytest.raises(IndexStateError, match="is closed"):
            store.count()
