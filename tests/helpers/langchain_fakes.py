"""Helpers for the tests of the LangChain adapter: fake models, a small index, and blocked network access."""

from __future__ import annotations

import threading
from contextlib import contextmanager

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pytest_socket import disable_socket, enable_socket

from jina_rag import DocumentIndex, IngestSettings
from jina_rag.testing import FakeEmbedder, FakeReranker, sample_pdf

PLAIN = IngestSettings(ocr="never", isolate=False)
PAGES = ["whales sing in the deep sea", "growth by region in northern towns", "the desert is dry and whales are rare"]


class ThreadedEmbedder(FakeEmbedder):
    """Fake embedder that records the ids of the threads that call it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.threads: set[int] = set()

    def _encode(self, *args):
        self.threads.add(threading.get_ident())
        return super()._encode(*args)


class ThreadedReranker(FakeReranker):
    """Fake reranker that records the ids of the threads that call it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.threads: set[int] = set()

    def score(self, query, documents):
        self.threads.add(threading.get_ident())
        return super().score(query, documents)


class PixelReranker(FakeReranker):
    """Fake image reranker that gives every image a score of 0.75."""

    modality = "image"

    def score(self, query, documents):
        scores = super().score(query, documents)
        for position, document in enumerate(documents):
            if isinstance(document, dict):
                scores[position] = 0.75
        return scores


class EchoChat(BaseChatModel):
    """Chat model that records its requests."""

    requests: list = []

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.requests.append(messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content="[1] it is"))])


class Trace(BaseCallbackHandler):
    """Callback handler that records retriever events."""

    def __init__(self):
        self.events: list[tuple] = []

    def on_retriever_start(self, serialized, query, *, run_id, parent_run_id=None, tags=None, metadata=None, **kwargs):
        self.events.append(("start", kwargs.get("name"), query, metadata, tags, parent_run_id))

    def on_retriever_end(self, documents, *, run_id, parent_run_id=None, **kwargs):
        self.events.append(("end", documents, parent_run_id))

    def on_retriever_error(self, error, *, run_id, parent_run_id=None, **kwargs):
        self.events.append(("error", error, parent_run_id))


@contextmanager
def no_network():
    """Block all sockets except Unix sockets, which event loops use."""
    disable_socket(allow_unix_socket=True)
    try:
        yield
    finally:
        enable_socket()


def make_index(folder, embedder, *, name="animals.pdf"):
    """Return an open index of one PDF with three pages; the caller closes the index."""
    folder.mkdir(parents=True, exist_ok=True)
    sample_pdf(folder / name, PAGES)
    index = DocumentIndex.open(folder / "kb", embedder=embedder)
    index.ingest(folder / name, metadata={"year": 2024, "page": "front"}, settings=PLAIN)
    return index
