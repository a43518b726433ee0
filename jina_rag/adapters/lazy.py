"""Models and indexes that adapters create at first use."""

from __future__ import annotations

import os
from typing import Any, Generic, TypeVar

from jina_rag.errors import InvalidInputError

T = TypeVar("T")


class Lazy(Generic[T]):
    """A model or index that is created at first use or passed by the caller.

    Copies of a `Lazy` share the model or index. Pickles exclude the model or index, because models take gigabytes and
    connections cannot be pickled. Two `Lazy` objects are equal if the caller passed one object to each, and the passed
    objects are identical, or if the caller passed no object to either.

    Attributes:
        external: Model or index passed by the caller; None if the model or index is created at first use.
    """

    def __init__(self, external: T | None = None) -> None:
        """Create the object without loading a model or opening an index.

        Args:
            external: Model or index passed by the caller; None to create the model or index at first use.
        """
        self.external = external

    def __eq__(self, other: object) -> bool:
        return self.external is other.external if isinstance(other, Lazy) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Lazy[T]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def check_not_empty(**arguments: object) -> None:
    """Raise an error for empty names and paths, because an empty path would mean the current folder.

    Args:
        arguments: Values by argument name; values that are neither strings nor paths are ignored.

    Raises:
        InvalidInputError: If a value is empty or whitespace.
    """
    for name, value in arguments.items():
        if isinstance(value, str | os.PathLike) and not os.fspath(value).strip():
            raise InvalidInputError(f'{name} is empty; expected a name or a path. Pass "." for the current folder.')
