"""An index on a Qdrant server: the behavior of a folder index, URLs, and the assets folder.

Runs against the client's in-memory mode, and against a real server if JINA_RAG_TEST_QDRANT_URL is set.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from jina_rag import DocumentIndex
from jina_rag.config import IngestSettings
from jina_rag.errors import (
    IndexCorruptError,
    IndexLockedError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexStateError,
    InvalidInputError,
)
from jina_rag.index import qdrant_server
from jina_rag.index.qdrant_server import Address
from jina_rag.stores.qdrant.client import QdrantConnection
from jina_rag.testing import FakeEmbedder, sample_pdf

NO_OCR = IngestSettings(ocr="never", isolate=False, dpi=60)
SERVER_URL = os.environ.get("JINA_RAG_TEST_QDRANT_URL")


@pytest.fixture(
    params=["in-memory", pytest.param("real", marks=pytest.mark.skipif(not SERVER_URL, reason="no server"))]
)
def url(request, monkeypatch):
    """Yield the URL of a new collection."""
    from qdrant_client import QdrantClient

    name = f"jina-rag-test-{uuid.uuid4().hex[:8]}"
    if request.param == "real":
        yield f"{SERVER_URL.rstrip('/')}/{name}"
        QdrantClient(SERVER_URL, api_key=os.environ.get("QDRANT_API_KEY")).delete_collection(name)
        return
    client = QdrantClient(location=":memory:")
    monkeypatch.setattr(qdrant_server, "_client", client)
    yield f"http://localhost:6333/{name}"
    client.close()


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    sample_pdf(folder / "animals.pdf", ["cats and dogs sleep all day", "whales sing in the deep sea"])
    sample_pdf(folder / "energy.pdf", ["solar power grew in Spain"])
    return folder


def open_index(url, tmp_path, **options):
    return DocumentIndex.open(url, assets_dir=tmp_path / "files", **options)


def test_server_index_ingests_searches_explains_and_deletes(url, docs, tmp_path):
    embedder = FakeEmbedder()
    with open_index(url, tmp_path, embedder=embedder) as index:
        report = index.ingest(docs, settings=NO_OCR, metadata={"year": 2024})
        assert (report.documents, report.pages, report.failed) == (2, 3, ())
        assert index.ingest(docs, settings=NO_OCR).unchanged == 2
        hit = index.search("whales", k=1)[0]
        assert (hit.doc_id, hit.page, hit.metadata, hit.path) == (
            "animals.pdf", 2, {"year": 2024}, docs / "animals.pdf",
        )  # fmt: skip
        assert hit.image_path.is_file()
        assert index.explain("whales sing", hit).brightest is not None
        assert index.search("whales", filter={"path": "ener*"})[0].doc_id == "energy.pdf"
        (docs / "animals.pdf").rename(docs / "beasts.pdf")
        assert index.ingest(docs, settings=NO_OCR).moved == 1
        sample_pdf(docs / "energy.pdf", ["wind power grew in Denmark"])
        assert index.ingest(docs, settings=NO_OCR).documents == 1
        assert index.search("wind", k=1)[0].doc_id == "energy.pdf"
        assert index.delete("energy.pdf") == 1
        assert index.verify() == []
        index_info = index.info()
        assert (index_info.documents, index_info.pages, index_info.embedder) == (1, 2, "fake")
        assert index_info.location == url
        assert str(index.location) == str(tmp_path / "files")
        assert url in repr(index)
    with open_index(url, tmp_path, embedder=embedder, create=False) as index:
        assert index.search("whales", k=1)[0].doc_id == "beasts.pdf"


def test_server_index_is_searchable_without_its_assets(url, docs, tmp_path):
    embedder = FakeEmbedder()
    with open_index(url, tmp_path, embedder=embedder) as index:
        index.ingest(docs, settings=NO_OCR, metadata={"year": 2024})
    with DocumentIndex.open(url, embedder=embedder, create=False, assets_dir=tmp_path / "elsewhere") as index:
        hit = index.search("whales", k=1, filter={"year": 2024})[0]
        assert (hit.doc_id, hit.page, hit.path, hit.metadata) == (
            "animals.pdf", 2, Path(docs / "animals.pdf"), {"year": 2024},
        )  # fmt: skip
        assert "whales sing" in hit.snippet
        assert not hit.image_path.is_file()


def test_other_model_or_storage_raises_mismatch_error(url, docs, tmp_path):
    with open_index(url, tmp_path, embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR)
    with pytest.raises(IndexMismatchError, match="built with"):
        open_index(url, tmp_path, embedder=FakeEmbedder(name="other"))
    with pytest.raises(IndexMismatchError, match="built with storage exact, not compact"):
        open_index(url, tmp_path, embedder=FakeEmbedder(), storage="compact")


def test_assets_folder_of_another_index_raises(url, docs, tmp_path):
    with open_index(url, tmp_path, embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR)
    with open_index(f"{url}-2", tmp_path / "second", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR)
    with pytest.raises(IndexMismatchError, match="belongs to an index other than"):
        DocumentIndex.open(f"{url}-2", assets_dir=tmp_path / "files", embedder=FakeEmbedder())
    with pytest.raises(IndexCorruptError, match="no longer exists"):
        DocumentIndex.open(f"{url}-3", assets_dir=tmp_path / "files", embedder=FakeEmbedder())


def test_missing_collection_raises_index_not_found_error(url, tmp_path):
    with pytest.raises(IndexNotFoundError, match="jina-rag ingest"):
        open_index(url, tmp_path, create=False)
    assert not (tmp_path / "files").exists()


def test_second_writing_process_gets_index_locked_error(url, docs, tmp_path):
    from filelock import FileLock

    with open_index(url, tmp_path, embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR)
        with FileLock(tmp_path / "files" / "lock"):  # the lock of another process
            with pytest.raises(IndexLockedError, match="locked by this process"):
                index.ingest(docs, settings=NO_OCR)
            with pytest.raises(IndexLockedError):
                index.delete("animals.pdf")
            assert index.search("whales")
        assert index.ingest(docs, settings=NO_OCR).unchanged == 2


def test_copy_from_folder_to_server_and_back(url, docs, tmp_path):
    embedder = FakeEmbedder()
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        index.ingest(docs, settings=NO_OCR, metadata={"year": 2024})
        expected_hits = [(hit.doc_id, hit.page) for hit in index.search("whales sing in the deep", k=9)[:1]]
        embedder.history.clear()
        assert index.copy(url, assets_dir=tmp_path / "files") == 3
        assert index.copy(url, assets_dir=tmp_path / "files") == 0
    with open_index(url, tmp_path, embedder=embedder, create=False) as index:
        assert [(hit.doc_id, hit.page) for hit in index.search("whales sing in the deep", k=9)[:1]] == expected_hits
        assert index.search("whales", k=1)[0].image_path.is_file()
        assert index.verify() == []
        assert index.ingest(docs, settings=NO_OCR).unchanged == 2
        index.copy(tmp_path / "back")
    with DocumentIndex.open(tmp_path / "back", embedder=embedder, create=False) as index:
        assert [(hit.doc_id, hit.page) for hit in index.search("whales sing in the deep", k=9)[:1]] == expected_hits
        assert index.verify() == []
    assert not any(side == "document" for side, _ in embedder.history)


def test_address_parse_reads_options_and_rejects_invalid_addresses():
    address = Address.parse(
        "https://host.example/prefix/my%20docs?grpc=true&timeout=12.5&shards=3&replicas=2&retries=0&grpc_port=7000"
    )
    assert (address.server, address.collection) == ("https://host.example/prefix", "my docs")
    assert str(address) == "https://host.example/prefix/my docs"
    connection = QdrantConnection(**address.connection)
    assert (connection.prefer_grpc, connection.timeout, connection.shard_number) == (True, 12.5, 3)
    assert (connection.replication_factor, connection.retries, connection.grpc_port) == (2, 0, 7000)
    assert address.assets_dir.name == "host.example_6333_prefix_my_docs"
    for invalid, message in [
        ("http://host:6333", "has no collection name"),
        ("http://host:6333/", "has no collection name"),
        ("ftp://host/x", "not an index URL"),
        ("http://host/x?colour=red", "Unknown option"),
        ("http://local host/x", "expected http"),
        ("http://a<b/x", "expected http"),
        ("http://host/x?timeout=soon", "expected a number"),
        ("http://host/x?grpc=perhaps", "true or false"),
        ("http://user:secret@host/x", "must not contain a user"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            DocumentIndex.open(invalid)
    for invalid in (
        "http://user:s3cret@host:6333",
        "https://user:s3cret@host/x?y=1",
        "ftp://user:s3cret@h/c",
        "http://user@h",
    ):
        with pytest.raises(InvalidInputError, match="must not contain a user") as error:
            Address.parse(invalid)
        assert not any(part in str(error.value) for part in ("s3cret", "user:", "host"))
    with pytest.raises(InvalidInputError, match="apply only to an index on a Qdrant server"):
        DocumentIndex.open("kb", assets_dir="x")


@pytest.mark.parametrize(
    "spelling",
    ["http://LOCALHOST:6333/docs", "HTTP://localhost/docs", "http://localhost:6333/docs/", "http://localhost/docs?"],
)
def test_all_spellings_of_an_address_have_one_canonical_form(spelling):
    assert Address.parse(spelling).canonical == Address.parse("http://localhost:6333/docs?timeout=30").canonical
    assert Address.parse(spelling).assets_dir == Address.parse("http://localhost:6333/docs").assets_dir
    for other in ("http://localhost:80/docs", "https://localhost:6333/docs", "http://localhost:6333/x/docs"):
        assert Address.parse(spelling).canonical != Address.parse(other).canonical


def test_open_collection_is_shared_and_rejects_other_options(url, docs, tmp_path):
    embedder = FakeEmbedder()
    with open_index(f"{url}?timeout=30", tmp_path, embedder=embedder) as index:
        for spelling in (url, f"{url}/", url.replace("http://l", "HTTP://L"), f"{url}?timeout=30.0"):
            with DocumentIndex.open(spelling) as other:
                assert other._session is index._session
        with open_index(url, tmp_path) as other:
            assert other._session is index._session
        with pytest.raises(IndexStateError, match=r"open in this process with another timeout\. Close the open index"):
            DocumentIndex.open(f"{url}?timeout=31")
        with pytest.raises(IndexStateError, match="open in this process with another api_key") as error:
            DocumentIndex.open(url, api_key="s3cret")
        assert "s3cret" not in str(error.value)
        with pytest.raises(IndexStateError, match=r"open in this process with assets_dir=.*files"):
            DocumentIndex.open(url, assets_dir=tmp_path / "elsewhere")
        assert index.ingest(docs, settings=NO_OCR).pages == 3
    with DocumentIndex.open(f"{url}?timeout=31", assets_dir=tmp_path / "elsewhere", embedder=embedder) as guest_index:
        assert guest_index.search("whales")


def test_unreachable_server_raises(tmp_path):
    with pytest.raises(IndexStateError, match="No Qdrant server answers"):
        DocumentIndex.open("http://127.0.0.1:9/docs?retries=0&timeout=2", assets_dir=tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_index_with_other_assets_is_read_only(url, docs, tmp_path):
    embedder = FakeEmbedder()
    with open_index(url, tmp_path, embedder=embedder) as index:
        index.ingest(docs, settings=NO_OCR)
    with DocumentIndex.open(url, embedder=embedder, create=False, assets_dir=tmp_path / "elsewhere") as guest_index:
        hit = guest_index.search("whales sing", k=1)[0]
        assert guest_index.explain("whales sing", hit).brightest is not None
        for attempt in (
            lambda: guest_index.ingest(docs, settings=NO_OCR),
            lambda: guest_index.delete("animals.pdf"),
            lambda: guest_index.copy(tmp_path / "copy"),
        ):
            with pytest.raises(IndexStateError, match="manifest is in an assets folder other than"):
                attempt()
        with pytest.raises(InvalidInputError, match="manifest is in another assets folder"):
            guest_index.search("whales", filter={"path": "*"})
        (problem,) = guest_index.verify()
        assert "another assets folder" in problem.message
    with open_index(url, tmp_path, embedder=embedder) as index:
        assert index.verify() == []
        assert index.ingest(docs, settings=NO_OCR).unchanged == 2


def test_server_options_raise_for_a_folder(tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        for options in ({"api_key": "k"}, {"assets_dir": tmp_path / "files"}):
            with pytest.raises(InvalidInputError, match="apply only to an index on a Qdrant server"):
                index.copy(tmp_path / "copy", **options)
            with pytest.raises(InvalidInputError, match="apply only to an index on a Qdrant server"):
                DocumentIndex.open(tmp_path / "kb", **options)
