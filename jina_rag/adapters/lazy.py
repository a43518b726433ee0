"""What an adapter makes at its first use."""

from __future__ import annotations

import os
from typing import Any, Generic, TypeVar

from jina_rag.errors import InvalidInputError

T = TypeVar("T")


class Lazy(Generic[T]):
    """A model or an index that is made at its first use, or was passed by the caller.

    Copies share it and pickles are without it: a model is gigabytes, and a connection means nothing elsewhere. Two are
    equal if the caller passed the same object to both, or none to either.

    Attributes:
        external: The caller's own object; None for one that is made here.
    """

    def __init__(self, external: T | None = None) -> None:
        self.external = external

    def __eq__(self, other: object) -> bool:
        return self.external is other.external if isinstance(other, Lazy) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Lazy[T]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def check_not_empty(**arguments: object) -> None:
    """Refuse empty names and paths: an empty path would be the current folder.

    Raises:
        InvalidInputError: If an argument is an empty text.
    """
    for name, value in arguments.items():
        if isinstance(value, str | os.PathLike) and not os.fspath(value).strip():
            raise InvalidInputError(f'{name} is empty: give a name or a path, or "." for the current folder.')
