"""Dates and times in metadata and filters: their text, and their numbers for comparison.

Metadata is JSON, so dates and times are stored as text: a date as ``2025-01-31``, a datetime in the format of RFC 3339
with its offset, ``2025-01-31T09:30:00+01:00``, and a time of day as ``09:30:00``. A datetime without an offset counts
as UTC, so that an index gives the same answers on every machine.

Text in these formats is compared by value: ``2025-01-31T09:30:00+01:00`` equals ``2025-01-31T08:30:00Z``. A stored date
counts as midnight UTC. A date in a filter covers the whole day in UTC. Text at keys of names and ids is compared as
text (see `filters.moment_of`).
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Literal

from jina_rag.types import Moment

_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII | re.IGNORECASE
)
_TIME = re.compile(r"\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?", re.ASCII)
_MAX_LENGTH = len("2025-01-31T09:30:00.123456789+01:00")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ONE_DAY = dt.timedelta(days=1)


def to_text(value: Moment) -> str:
    """Return a date, datetime or time as text in the format of RFC 3339. A datetime without an offset gets UTC.

    Args:
        value: The date, datetime or time. Subclasses, for example pandas timestamps, are accepted.

    Raises:
        ValueError: If the value is not a moment, for example pandas' ``NaT``.

    >>> to_text(dt.datetime(2025, 1, 31, 9, 30)), to_text(dt.date(2025, 1, 31))
    ('2025-01-31T09:30:00+00:00', '2025-01-31')
    """
    if value != value:  # NaT is a datetime, and differs from itself
        raise ValueError("not a date")
    # The methods of the base classes: subclasses may write nanoseconds.
    if isinstance(value, dt.datetime):
        return dt.datetime.isoformat(_aware(value))
    return dt.date.isoformat(value) if isinstance(value, dt.date) else dt.time.isoformat(value)


def parse(text: str) -> Moment | None:
    """Return the date, datetime or time that a text spells, in UTC; None for other text.

    Args:
        text: ``2025-01-31``, ``2025-01-31T09:30:00+01:00``, ``2025-01-31 09:30`` or ``09:30:00``. A datetime without an
            offset is in UTC.

    >>> parse("2025-01-31T09:30+01:00"), parse("2025-02-30"), parse("31.1.2025")
    (datetime.datetime(2025, 1, 31, 8, 30, tzinfo=datetime.timezone.utc), None, None)
    """
    if not 5 <= len(text) <= _MAX_LENGTH or not (text[2] == ":" or text[4] == "-"):
        return None  # most strings of a payload, without the cost of a regular expression
    try:
        if _TIME.fullmatch(text):
            return dt.time.fromisoformat(text)
        if not _DATE.fullmatch(text):
            return None
        if len(text) == len("2025-01-31"):
            return dt.date.fromisoformat(text)
        return _aware(dt.datetime.fromisoformat(text.upper())).astimezone(dt.UTC)
    except (ValueError, OverflowError):  # no such day, or beyond the years 1 to 9999
        return None


def in_utc(value: Moment) -> Moment:
    """Return a datetime in UTC; dates and times unchanged.

    Raises:
        OverflowError: If the datetime in UTC is beyond the years 1 to 9999.
    """
    return _aware(value).astimezone(dt.UTC) if isinstance(value, dt.datetime) else value


def number(value: Moment) -> float:
    """Return the number that represents a moment in comparisons, in seconds.

    Args:
        value: A time of day; a date, which counts as midnight UTC; or a datetime.

    Returns:
        For a time, the seconds since midnight; otherwise, the seconds since 1970-01-01 UTC.
    """
    if isinstance(value, dt.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1_000_000
    return (start_of(value) - _EPOCH).total_seconds()


def start_of(value: dt.date) -> dt.datetime:
    """Return the datetime at which a date starts, in UTC; a datetime unchanged, with UTC as its default offset."""
    if isinstance(value, dt.datetime):
        return _aware(value)
    return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)


def end_of(value: dt.date) -> dt.datetime:
    """Return the datetime at which the day after a date starts, in UTC; for the last date, its last microsecond."""
    try:
        return start_of(value + _ONE_DAY)
    except OverflowError:
        return dt.datetime.max.replace(tzinfo=dt.UTC)


def kind_of(value: Moment) -> Literal["date", "time"]:
    """Return the kind of a moment. Only moments of the same kind are comparable."""
    return "time" if isinstance(value, dt.time) else "date"


def is_day(value: Moment) -> bool:
    """Return whether a moment is a date without a time of day."""
    return isinstance(value, dt.date) and not isinstance(value, dt.datetime)


def _aware(value: dt.datetime) -> dt.datetime:
    """Return a datetime with an offset of whole minutes, as RFC 3339 requires."""
    offset = value.utcoffset()
    if offset is None:
        return value.replace(tzinfo=dt.UTC)
    return value.astimezone(dt.UTC) if offset % dt.timedelta(minutes=1) else value
