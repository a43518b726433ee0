"""Coroutines of `DocumentIndex`: each coroutine runs a method in a thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextvars import ContextVar

import pytest

from jina_rag import DocumentIndex
from jina_rag.index.coroutines import coroutine_of
from jina_rag.testing import FakeEmbedder

COROUTINES = sorted(name for name, value in vars(DocumentIndex).items() if inspect.iscoroutinefunction(value))
_user: ContextVar[str] = ContextVar("user", default="nobody")


def test_every_public_method_has_a_coroutine():
    method_names = {
        "ingest", "add", "delete", "copy", "search", "search_many", "get", "nearest", "dense_vectors", "explain",
        "cite", "build_context", "documents", "verify", "info",
    }  # fmt: skip
    assert {f"a{verb}" for verb in method_names} == set(COROUTINES)


@pytest.mark.parametrize("name", COROUTINES)
def test_coroutine_has_the_signature_and_docstring_of_the_method(name):
    coroutine, method = getattr(DocumentIndex, name), getattr(DocumentIndex, name[1:])
    assert inspect.signature(coroutine) == inspect.signature(method)
    assert coroutine.__doc__ == method.__doc__
    assert coroutine.__qualname__ == f"DocumentIndex.{name}"


def test_coroutines_return_the_results_of_the_methods(tmp_path):
    async def main() -> None:
        with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
            [page_id] = await index.aadd(["whales sing"], ids=["song"])
            assert page_id == "song"
            [hit] = await index.asearch("whales", k=1)
            assert hit == index.search("whales", k=1)[0]
            assert (await index.acite("whales", hit)).text == index.cite("whales", hit).text
            assert (await index.ainfo()) == index.info()
            assert await index.averify() == []
            assert await index.acopy(tmp_path / "copy") == 1
            assert await index.adelete("song") == 1
            assert await index.adocuments() == []

    asyncio.run(main())


def test_coroutine_runs_in_a_thread_with_the_callers_context():
    class Owner:
        def user_and_thread(self) -> tuple[str, bool]:
            return _user.get(), threading.current_thread() is threading.main_thread()

        auser_and_thread = coroutine_of(user_and_thread)

    async def main() -> tuple[str, bool]:
        _user.set("ada")
        return await Owner().auser_and_thread()

    assert asyncio.run(main()) == ("ada", False)


def test_cancellation_sets_stop_and_waits_for_the_method():
    method_started, method_ended = threading.Event(), threading.Event()

    class Owner:
        def work(self, *, stop: threading.Event | None = None) -> None:
            assert stop is not None
            method_started.set()
            assert stop.wait(60)
            method_ended.set()

        awork = coroutine_of(work)

    async def main() -> None:
        task = asyncio.ensure_future(Owner().awork())
        while not method_started.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert method_ended.is_set()

    asyncio.run(main())
