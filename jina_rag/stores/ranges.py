"""Ranges of numbers, dates and times in filters: validation, and conversion to intervals of numbers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from jina_rag._checks import is_number
from jina_rag.errors import InvalidInputError
from jina_rag.stores import dates
from jina_rag.types import Moment, Range

Kind: TypeAlias = Literal["number", "date", "time"]
"""Kind of the bounds of a range. A range matches only values of its kind."""

_Bound: TypeAlias = "float | Moment"
_End = TypeVar("_End")


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of numbers, with at most one lower and one upper bound, because an engine applies one per side.

    Attributes:
        gte: Lower bound, inclusive; None for no bound.
        lte: Upper bound, inclusive; None for no bound.
        gt: Lower bound, exclusive; None for no bound.
        lt: Upper bound, exclusive; None for no bound.
    """

    gte: float | None = None
    lte: float | None = None
    gt: float | None = None
    lt: float | None = None

    def __contains__(self, number: float) -> bool:
        """Return whether a number is in the interval."""
        return (
            (self.gte is None or number >= self.gte)
            and (self.lte is None or number <= self.lte)
            and (self.gt is None or number > self.gt)
            and (self.lt is None or number < self.lt)
        )

    @property
    def is_empty(self) -> bool:
        """Whether the interval contains no number. A store never passes an empty interval to an engine."""
        low = self.gt if self.gte is None else self.gte
        high = self.lt if self.lte is None else self.lte
        return low is not None and high is not None and (low > high or (low == high and low not in self))


def checked_range(key: str, limits: Range) -> Range:
    """Return a range with at most one lower and one upper bound, each a float or text in the format of RFC 3339.

    The result has the tighter bound of ``gte`` and ``gt``, and the tighter bound of ``lte`` and ``lt``. A date becomes
    a datetime in UTC: ``gte`` and ``lt`` the start of the day, ``gt`` and ``lte`` the start of the next day.

    Args:
        key: Filter key, for the error message.
        limits: Range with at least one bound.

    Raises:
        InvalidInputError: If the range has no bound, a bound is neither a finite number nor a date or time, or the
            bounds are of several kinds.
    """
    bounds = {name: _checked_bound(key, name, end) for name, end in asdict(limits).items() if end is not None}
    if not bounds:
        raise InvalidInputError(f"The range of {key!r} has no bounds. Pass at least one of gte, lte, gt and lt.")
    if len({_kind(bound) for bound in bounds.values()}) > 1:
        raise InvalidInputError(
            f"The range of {key!r} has bounds of several kinds: {limits}. Use only numbers, only dates or only times."
        )
    lower = [_lower(bounds[name], exclusive=name == "gt") for name in ("gte", "gt") if name in bounds]
    upper = [_upper(bounds[name], inclusive=name == "lte") for name in ("lte", "lt") if name in bounds]
    ends: dict[str, float | str] = {}
    if lower:
        low, exclusive = max(lower, key=_position)
        ends["gt" if exclusive else "gte"] = _normal_form(low)
    if upper:
        high, inclusive = min(upper, key=_position)
        ends["lte" if inclusive else "lt"] = _normal_form(high)
    return Range(**ends)


def interval_of(limits: Range) -> tuple[Kind, Interval]:
    """Return the kind of a range, and the interval of the numbers that represent its values (see `dates.number`).

    Args:
        limits: Result of `checked_range`.
    """
    kind: Kind = "number"
    numbers: dict[str, float] = {}
    for name, end in asdict(limits).items():
        moment = dates.parse(end) if isinstance(end, str) else None
        if moment is not None:
            kind = dates.kind_of(moment)
            numbers[name] = dates.number(moment)
        elif end is not None:
            numbers[name] = float(end)
    return kind, Interval(**numbers)


def intersection(key: str, ranges: Sequence[Range]) -> Range:
    """Return the range of the values that are in all of several ranges.

    Args:
        key: Filter key, for the error message.
        ranges: Ranges of one kind, at least one.

    Raises:
        InvalidInputError: If a range is invalid, or the ranges are of several kinds.
    """
    checked = [checked_range(key, limits) for limits in ranges]
    names = {"gte": max, "gt": max, "lte": min, "lt": min}
    ends = {}
    for name, tighter in names.items():
        bounds = [end for limits in checked if (end := getattr(limits, name)) is not None]
        if len({isinstance(end, str) for end in bounds}) > 1:
            raise InvalidInputError(f"The conditions on {key!r} mix numbers with dates. Use only one of them.")
        if bounds:
            ends[name] = tighter(bounds, key=lambda end: dates.number(_moment(end)) if isinstance(end, str) else end)
    return checked_range(key, Range(**ends))


def plain_scalar(value: object) -> object:
    """Return a NumPy scalar as a Python value; other values unchanged.

    Dates with nanoseconds are rounded down to microseconds. NumPy itself would return their number of nanoseconds.
    """
    if isinstance(value, np.datetime64):
        day = np.datetime_data(value.dtype)[0] in ("Y", "M", "W", "D")
        return value.astype("datetime64[D]" if day else "datetime64[us]").item()
    return value.item() if isinstance(value, np.generic) else value


def _checked_bound(key: str, name: str, value: object) -> _Bound:
    plain = plain_scalar(value)
    try:
        if is_number(plain):
            return float(plain)
        if isinstance(plain, dt.date | dt.time):
            plain = dates.to_text(plain)
    except (OverflowError, ValueError):  # an integer beyond the range of a float, or NaT
        plain = None
    moment = dates.parse(plain) if isinstance(plain, str) else None
    if moment is not None:
        return moment
    if isinstance(plain, str):
        raise InvalidInputError(
            f"The range of {key!r} has {name}={plain!r}; expected a number, or a date or time, for example 2024-01-31, "
            "2024-01-31T09:30:00Z or 09:30."
        )
    raise InvalidInputError(f"The range of {key!r} has {name}={value!r}; expected a finite number, a date or a time.")


def _moment(text: str) -> Moment:
    moment = dates.parse(text)
    assert moment is not None  # a bound that `checked_range` has returned
    return moment


def _kind(bound: _Bound) -> Kind:
    return "number" if isinstance(bound, float) else dates.kind_of(bound)


def _lower(bound: _Bound, *, exclusive: bool) -> tuple[_Bound, bool]:
    """Return a lower bound and whether the bound is exclusive. A date excludes the whole day."""
    if isinstance(bound, dt.date) and dates.is_day(bound):
        return (dates.end_of(bound), False) if exclusive else (dates.start_of(bound), False)
    return bound, exclusive


def _upper(bound: _Bound, *, inclusive: bool) -> tuple[_Bound, bool]:
    """Return an upper bound and whether the bound is inclusive. A date includes the whole day."""
    if isinstance(bound, dt.date) and dates.is_day(bound):
        return (dates.end_of(bound), False) if inclusive else (dates.start_of(bound), False)
    return bound, inclusive


def _position(end: tuple[_Bound, bool]) -> tuple[float, bool]:
    """Return the sort key of a bound. Of equal bounds, the maximum is exclusive below, and the minimum above."""
    bound, flag = end
    return (bound if isinstance(bound, float) else dates.number(bound)), flag


def _normal_form(bound: _Bound) -> float | str:
    return bound if isinstance(bound, float) else dates.to_text(bound)
