"""Argument checks shared by several packages."""

from __future__ import annotations

import sys
from typing import TypeGuard

from jina_rag.errors import InvalidInputError


def is_whole_number(value: object) -> TypeGuard[int]:
    """Return whether a value is an int and not a bool.

    >>> is_whole_number(3), is_whole_number(True), is_whole_number(3.0)
    (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is an int or float within the range of finite floats, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_whole_number(name: str, value: object, *, minimum: int, maximum: int | None = None) -> int:
    """Return `value` if the value is an integer from `minimum` to `maximum`.

    Args:
        name: Name of the argument, for the error message.
        value: Value of the argument, of any type.
        minimum: Lower bound, inclusive.
        maximum: Upper bound, inclusive; None for no bound.

    Raises:
        InvalidInputError: If the value is not an integer or is out of bounds.
    """
    if not is_whole_number(value) or value < minimum or (maximum is not None and value > maximum):
        bounds = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum:,}"
        raise InvalidInputError(f"{name} is {value!r}; expected an integer {bounds}.")
    return value


def check_number(name: str, value: object, *, minimum: float) -> float:
    """Return `value` if the value is a finite number of at least `minimum`.

    Args:
        name: Name of the argument, for the error message.
        value: Value of the argument, of any type.
        minimum: Lower bound, inclusive.

    Raises:
        InvalidInputError: If the value is not a finite number or is below `minimum`.
    """
    if not is_number(value) or value < minimum:
        raise InvalidInputError(f"{name} is {value!r}; expected a number of at least {minimum}.")
    return value
