"""What is loaded or opened when it is first used, and travels neither with a copy's bytes nor with a pickle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lazy(Generic[T]):
    """A value that several threads may ask for first: it is made once.

    A copy shares the value, a pickle is without it (a model is gigabytes, a connection means nothing elsewhere). Two
    are equal unless the caller's own object stands in one: what was loaded by a name says no more than the name.

    Attributes:
        given: Whether the value is the caller's own object.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: T | None = None
        self.given = False

    def give(self, value: T) -> None:
        """Take the caller's own object as the value."""
        self._value = value
        self.given = True

    def peek(self) -> T | None:
        """The value if it is there."""
        return self._value

    def get(self, make: Callable[[], T]) -> T:
        """The value, made by `make` if it is not there."""
        with self._lock:
            if self._value is None:
                self._value = make()
            return self._value

    def take(self) -> T | None:
        """Take out what was made here, for it to be closed; the caller's own object stays."""
        if self.given:
            return None
        with self._lock:
            value, self._value = self._value, None
            return value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lazy):
            return NotImplemented
        return (self._value is other._value) if self.given or other.given else True

    __hash__ = None  # type: ignore[assignment]  # equal to others that later are not

    def __copy__(self) -> Lazy[T]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Lazy[T]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'there' if self._value is not None else 'not yet'})"


class LazyIndex(Lazy[T]):
    """As `Lazy`, for an index: one that the caller gave can be pickled itself, and opens again where it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._value if self.given else None,)


def _restored(value: Any) -> LazyIndex[Any]:  # noqa: ANN401  # whatever was pickled
    restored: LazyIndex[Any] = LazyIndex()
    if value is not None:
        restored.give(value)
    return restored
