"""The threads that coroutines work in: their own, so that a long ingestion keeps nobody else's work waiting."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")
Kind = Literal["search", "ingest"]


async def in_thread(
    kind: Kind, function: Callable[Given, Result], *args: Given.args, **options: Given.kwargs
) -> Result:
    """Call a function in a thread for searches or for ingestions, with the caller's context variables."""
    call = partial(contextvars.copy_context().run, partial(function, *args, **options))
    return await asyncio.get_running_loop().run_in_executor(_pool(kind), call)


@functools.cache
def _pool(kind: Kind) -> ThreadPoolExecutor:
    # As many searches at once as asyncio's own pool would take; ingestions of one index take turns anyway.
    threads = min(32, (os.cpu_count() or 1) + 4)
    return ThreadPoolExecutor(threads, thread_name_prefix=f"jina-rag-{kind}")
