"""Standard tests of langchain-tests without overrides and without network access."""

from __future__ import annotations

import socket

import pytest

pytest.importorskip("langchain_tests")

from helpers.langchain_fakes import make_index, no_network
from langchain_jina_rag import JinaLocalEmbeddings, JinaPageRetriever, JinaVectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pytest_socket import SocketBlockedError

from jina_rag import load_embedder
from jina_rag.testing import FakeEmbedder


@pytest.fixture(autouse=True)
def block_network():
    with no_network():
        yield


@pytest.fixture(scope="module", autouse=True)
def lite_embedder():
    """Hold a reference to the lite embedder, so that the module loads it once."""
    return load_embedder("lite")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    with make_index(tmp_path_factory.mktemp("standard"), FakeEmbedder()) as index:
        yield index


def test_network_is_blocked():
    with pytest.warns(UserWarning, match="A test tried to use socket"), pytest.raises(SocketBlockedError):
        socket.create_connection(("127.0.0.1", 9))


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return JinaLocalEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": "lite", "local_files_only": True}


class TestEmbeddingsIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return JinaLocalEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": "lite"}


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, index):
        self.index = index

    @property
    def retriever_constructor(self):
        return JinaPageRetriever

    @property
    def retriever_constructor_params(self):
        return {"index": self.index}

    @property
    def retriever_query_example(self):
        return "which whales sing?"


class TestRetrieverByLocation(TestRetriever):
    """Retriever with the folder of an index, the most common use."""

    @property
    def retriever_constructor_params(self):
        return {"index": str(self.index.location)}


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        with JinaVectorStore(tmp_path / "kb", JinaLocalEmbeddings(model=FakeEmbedder())) as store:
            yield store


class TestVectorStoreWithLite(VectorStoreIntegrationTests):
    """Vector store with the default model."""

    @pytest.fixture
    def vectorstore(self, tmp_path):
        with JinaVectorStore(tmp_path / "kb") as store:
            yield store


def test_no_standard_test_is_overridden():
    for suite in (
        TestEmbeddingsUnit,
        TestEmbeddingsIntegration,
        TestRetriever,
        TestRetrieverByLocation,
        TestVectorStore,
        TestVectorStoreWithLite,
    ):
        standard = next(base for base in suite.__mro__ if base.__module__.startswith("langchain_tests"))
        names = [name for name in dir(standard) if name.startswith("test_")]
        assert names
        assert all(getattr(suite, name) is getattr(standard, name) for name in names)
    assert all(
        getattr(TestVectorStore, f"has_{capability}").fget(None) for capability in ("sync", "async", "get_by_ids")
    )
