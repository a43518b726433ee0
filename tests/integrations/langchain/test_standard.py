"""The standard suites of langchain-tests, none overridden, without a network."""

from __future__ import annotations

import socket

import pytest

pytest.importorskip("langchain_tests")

from helpers.langchain_fakes import fill, no_network
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
def offline():
    with no_network():
        yield


@pytest.fixture(scope="module", autouse=True)
def lite():
    """Kept here, so that it is loaded once and not by each test."""
    return load_embedder("lite")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    with fill(tmp_path_factory.mktemp("standard"), FakeEmbedder()) as index:
        yield index


def test_the_network_is_off_here():
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
    """As it is mostly used: the index is named by its folder, and opened by the retriever."""

    @property
    def retriever_constructor_params(self):
        return {"index": str(self.index.location)}


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        with JinaVectorStore(tmp_path / "kb", JinaLocalEmbeddings(model=FakeEmbedder())) as store:
            yield store


class TestVectorStoreWithLite(VectorStoreIntegrationTests):
    """With the model that is the default."""

    @pytest.fixture
    def vectorstore(self, tmp_path):
        with JinaVectorStore(tmp_path / "kb") as store:
            yield store


def test_every_standard_test_ran_as_it_is():
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
    assert all(getattr(TestVectorStore, f"has_{what}").fget(None) for what in ("sync", "async", "get_by_ids"))
