"""Helpers for the tests of the LlamaIndex adapters: fake models, event recorders, and blocked network access."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any

import pytest_socket
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import CustomLLM

from jina_rag.testing import FakeEmbedder, FakeReranker


class ThreadedEmbedder(FakeEmbedder):
    """Fake embedder that records the ids of the threads that call it."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.threads: set[int] = set()

    def encode_query(self, queries, **options):
        self.threads.add(threading.get_ident())
        return super().encode_query(queries, **options)

    def encode_document(self, documents, **options):
        self.threads.add(threading.get_ident())
        return super().encode_document(documents, **options)

    @property
    def documents(self) -> list:
        """All encoded documents."""
        return [item for kind, items in self.history if kind == "document" for item in items]


class ThreadedReranker(FakeReranker):
    """Fake reranker that records the ids of the threads that call it."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.threads: set[int] = set()

    def score(self, query, documents):
        self.threads.add(threading.get_ident())
        return super().score(query, documents)


class Recorder(BaseEventHandler):
    """Event handler that records the events of a dispatcher."""

    events: list[Any] = []

    @classmethod
    def class_name(cls) -> str:
        return "Recorder"

    def handle(self, event, **kwargs) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [event.class_name() for event in self.events]


@contextmanager
def record_events():
    """Record the events of LlamaIndex's root dispatcher."""
    recorder = Recorder(events=[])
    root = get_dispatcher()
    root.add_event_handler(recorder)
    try:
        yield recorder
    finally:
        root.event_handlers.remove(recorder)


class Callbacks(BaseCallbackHandler):
    """Callback handler that records (event type, payload) of each start and end."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.started: list[tuple[Any, Any]] = []
        self.ended: list[tuple[Any, Any]] = []

    def on_event_start(self, event_type, payload=None, event_id="", parent_id="", **kwargs) -> str:
        self.started.append((event_type, payload))
        return event_id

    def on_event_end(self, event_type, payload=None, event_id="", **kwargs) -> None:
        self.ended.append((event_type, payload))

    def start_trace(self, trace_id=None) -> None:
        pass

    def end_trace(self, trace_id=None, trace_map=None) -> None:
        pass

    @property
    def manager(self) -> CallbackManager:
        return CallbackManager([self])


class EchoingVisionModel(CustomLLM):
    """Chat model that answers with the number of images and records its requests."""

    requests: list[Any] = []

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True, model_name="echo")

    def chat(self, messages, **kwargs) -> ChatResponse:
        self.requests.append(list(messages))
        return ChatResponse(message=ChatMessage(role="assistant", content=f"{len(self.images)} images"))

    async def achat(self, messages, **kwargs) -> ChatResponse:
        return self.chat(messages, **kwargs)

    def complete(self, prompt, formatted=False, **kwargs) -> CompletionResponse:
        raise AssertionError("expected a chat request, not a completion")

    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise AssertionError("expected a chat request, not a completion")

    @property
    def blocks(self) -> list[Any]:
        return [block for messages in self.requests for message in messages for block in message.blocks]

    @property
    def images(self) -> list[Any]:
        return [block for block in self.blocks if block.block_type == "image"]


@contextmanager
def no_network():
    """Block all sockets except Unix sockets, which event loops and worker processes use."""
    pytest_socket.disable_socket(allow_unix_socket=True)
    try:
        yield
    finally:
        pytest_socket.enable_socket()
