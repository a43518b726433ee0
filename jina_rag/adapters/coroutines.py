"""Coroutines of adapters' methods."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

Params = ParamSpec("Params")
Result = TypeVar("Result")


def in_thread(
    method: Callable[Concatenate[Any, Params], Result],
) -> Callable[Concatenate[Any, Params], Coroutine[Any, Any, Result]]:
    """Make the coroutine of a method: it calls the method in a thread, never on the thread of the event loop.

    >>> class Store:
    ...     def count(self) -> int:
    ...         return 3
    ...     acount = in_thread(count)
    >>> asyncio.run(Store().acount())
    3
    """

    @functools.wraps(method)
    async def call(self: Any, /, *args: Params.args, **kwargs: Params.kwargs) -> Result:  # noqa: ANN401
        # By its name: a subclass may override the method.
        bound: Callable[..., Result] = getattr(self, method.__name__)
        return await asyncio.to_thread(bound, *args, **kwargs)

    call.__doc__ = f"As `{method.__name__}`, in a thread."
    return call
