"""Numbers and names as a reader takes them: units, intervals, and text from documents made harmless."""

from __future__ import annotations

import math
from datetime import UTC, datetime

_INVISIBLE = frozenset("\u200c\u200d\u200e\u200f")
"""Joiners and marks that Persian, Hindi, Hebrew and Arabic are written with: they change no order but their own."""


def plain(text: object) -> str:
    r"""A text from outside for one line of a page: what would act on the line is written out.

    Control characters, line breaks, bidirectional overrides (which let a file name read backwards) and bytes that
    are no text become their escapes. Everything that a person can read stays.

    >>> plain("invoice\u202efdp.exe")
    'invoice\\u202efdp.exe'
    """
    return "".join(c if c.isprintable() or c in _INVISIBLE else _escape(c) for c in str(text))


def _escape(character: str) -> str:
    # Other spaces (a no-break space, the wide one of Chinese) are spaces to a reader.
    return " " if character.isspace() and character not in "\r\n" else character.encode("unicode_escape").decode()


def number(value: float, digits: int = 3) -> str:
    """A measure: ``0.488``."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign, a true minus; ``0.000`` has none."""
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return ("+" if value > 0 else "−") + text


def interval(ends: tuple[float, float] | None, digits: int = 3) -> str:
    """``0.41 to 0.57``; nothing where there is none."""
    return "" if ends is None else f"{number(ends[0], digits)} to {number(ends[1], digits)}"


def size(count: float) -> str:
    """Bytes in the unit a person would choose: ``820 B``, ``12.3 kB``, ``1.4 MB`` (thousands)."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def milliseconds(value: float) -> str:
    """``0.4 ms``, ``31 ms``, ``2.1 s``."""
    if value >= 999.5:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 9.95 else f"{value:.1f} ms"


def seconds(value: float) -> str:
    """``0.4 s``, ``1 min 15 s``, ``2 h 5 min``."""
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def moment(text: str) -> str:
    """An ISO 8601 time as a person reads it, ``2026-03-01 18:59 UTC``; what is none stays as it is."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    if when.tzinfo is None:
        return f"{when:%Y-%m-%d %H:%M}"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def count(number_of: int, one: str, many: str | None = None) -> str:
    """A number and its noun: ``1 page``, ``2 pages``."""
    return f"{number_of:,} {one if number_of == 1 else many or one + 's'}"


def listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
