"""Checks of arguments that several rooms make."""

from __future__ import annotations

import sys
from typing import TypeGuard

from jina_rag.errors import InvalidInputError


def is_whole_number(value: object) -> TypeGuard[int]:
    """Whether a value is an int and no bool.

    >>> is_whole_number(3), is_whole_number(True), is_whole_number(3.0)
    (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is an int or a float that a finite float can hold, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_whole_number(name: str, value: object, *, minimum: int, maximum: int | None = None) -> int:
    """The value, if it is a whole number of at least `minimum` and at most `maximum`.

    Raises:
        InvalidInputError: Naming the argument, the value and the bounds.
    """
    if not is_whole_number(value) or value < minimum or (maximum is not None and value > maximum):
        bounds = f"of at least {minimum}" if maximum is None else f"between {minimum} and {maximum:,}"
        raise InvalidInputError(f"{name} is {value!r}; it must be a whole number {bounds}.")
    return value


def check_number(name: str, value: object, *, minimum: float) -> float:
    """The value, if it is a finite number of at least `minimum`.

    Raises:
        InvalidInputError: Naming the argument, the value and the minimum.
    """
    if not is_number(value) or value < minimum:
        raise InvalidInputError(f"{name} is {value!r}; it must be a number of at least {minimum}.")
    return value
