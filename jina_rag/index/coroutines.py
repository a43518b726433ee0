"""Coroutines made of methods, and the threads that they work in.

The threads are our own, so that a long ingestion keeps nobody else's work waiting.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

P = ParamSpec("P")
Result = TypeVar("Result")
Pool = Literal["search", "ingest"]


def coroutine_of(
    method: Callable[Concatenate[Any, P], Result], *, pool: Pool = "search"
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, Result]]:
    """The twin of a method for event loops: the same parameters, and the same work in a thread.

    Nothing is computed on the thread of the event loop, and the caller's context variables are seen. Where the method
    has a parameter `stop`, cancelling the coroutine sets it and waits until the method has ended.

    Args:
        method: Its owner may be used from several threads.
        pool: Which threads do the work.
    """
    can_stop = "stop" in inspect.signature(method).parameters

    @functools.wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Result:  # noqa: ANN401
        import asyncio  # here and below: a search from a command line does not wait for it

        stop: Any = kwargs.get("stop") or threading.Event()
        if can_stop:
            kwargs["stop"] = stop
        bound: Callable[..., Result] = getattr(self, method.__name__)  # a subclass may have its own
        work = functools.partial(contextvars.copy_context().run, bound, *args, **kwargs)
        future = asyncio.get_running_loop().run_in_executor(_threads(pool), work)
        if not can_stop:
            return await future
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            while not future.done():  # also where it is cancelled again meanwhile
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            future.exception()  # it has been looked at
            raise

    call.__name__ = f"a{method.__name__}"
    call.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.{call.__name__}"
    return call


@functools.cache
def _threads(pool: Pool) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    # As many searches at once as asyncio's own pool would take; ingestions of one index take turns anyway.
    return ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 4), thread_name_prefix=f"jina-rag-{pool}")
