"""Formatting of numbers, units, intervals and times."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def number(value: float, digits: int = 3) -> str:
    """Return a value with `digits` decimals, for example ``0.488``; ``–`` for NaN and infinity."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def signed(value: float, digits: int = 3) -> str:
    """Return a difference with ``+`` or ``−`` (U+2212) and `digits` decimals; ``0.000`` has no sign."""
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return ("+" if value > 0 else "−") + text


def interval(ends: tuple[float, float] | None, digits: int = 3) -> str:
    """Return an interval, for example ``0.41 to 0.57``; empty for None."""
    return "" if ends is None else f"{number(ends[0], digits)} to {number(ends[1], digits)}"


def size(count: float) -> str:
    """Return a number of bytes in decimal units, for example ``820 B``, ``12.3 kB`` or ``1.4 MB``."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def milliseconds(value: float) -> str:
    """Return a duration in milliseconds as text, for example ``0.4 ms``, ``31 ms`` or ``2.1 s``."""
    if value >= 999.5:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 9.95 else f"{value:.1f} ms"


def seconds(value: float) -> str:
    """Return a duration in seconds as text, for example ``0.4 s``, ``1 min 15 s`` or ``2 h 5 min``."""
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def timestamp(text: str) -> str:
    """Return an ISO 8601 time in the form ``2026-03-01 18:59 UTC``; other text is returned unchanged."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    if time.tzinfo is None:
        return f"{time:%Y-%m-%d %H:%M}"
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def count(number_of: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun, for example ``1 page`` or ``2 pages``; `many` defaults to `one` + ``s``."""
    return f"{number_of:,} {one if number_of == 1 else many or one + 's'}"


def join_names(names: list[str]) -> str:
    """Return the names as an enumeration: ``a``, ``a and b`` or ``a, b and c``."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
