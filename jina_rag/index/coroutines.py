"""Coroutine versions of methods, and the thread pools that run the methods.

The thread pools are separate from asyncio's default pool, so that a long ingestion does not block other work in the
default pool.
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

from jina_rag._forks import after_fork_in_child

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

P = ParamSpec("P")
Result = TypeVar("Result")
Pool = Literal["search", "ingest"]


def coroutine_of(
    method: Callable[Concatenate[Any, P], Result], *, pool: Pool = "search"
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, Result]]:
    """Return the coroutine version of a method, with the parameters and the result of the method.

    The method runs in a thread with the caller's context variables. If the method has a parameter `stop`, cancelling
    the coroutine sets `stop` and waits until the method has returned.

    Args:
        method: A method of a thread-safe object.
        pool: Thread pool that runs the method.

    Returns:
        An async method, named like `method` with the prefix ``a``.
    """
    can_stop = "stop" in inspect.signature(method).parameters

    @functools.wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Result:  # noqa: ANN401
        import asyncio  # imported here, like concurrent.futures below, so that the command line starts faster

        stop: Any = kwargs.get("stop") or threading.Event()
        if can_stop:
            kwargs["stop"] = stop
        bound: Callable[..., Result] = getattr(self, method.__name__)  # a subclass may override the method
        work = functools.partial(contextvars.copy_context().run, bound, *args, **kwargs)
        future = asyncio.get_running_loop().run_in_executor(_threads(pool), work)
        if not can_stop:
            return await future
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            while not future.done():  # a second cancellation does not end the wait
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            future.exception()  # asyncio logs a warning if the exception is not retrieved
            raise

    call.__name__ = f"a{method.__name__}"
    call.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.{call.__name__}"
    return call


@functools.cache
def _threads(pool: Pool) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    # The pool is as large as asyncio's default pool. The write lock of an index runs ingestions into that index one by
    # one.
    return ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 4), thread_name_prefix=f"jina-rag-{pool}")


# A forked child has none of the threads, so tasks of the pools of its parent would never run.
after_fork_in_child(_threads.cache_clear)
