"""Names of attachments as part of a path. A file may store any name: with folders, ``..``, ``#``, empty, repeated."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from jina_rag.parsing.sources import printable

SEPARATOR = "#"
_MAX_LENGTH = 120
"""Maximum length of a name in characters. Longer names lose characters before the suffix."""
_MAX_SUFFIX = 12
# Characters that reverse or hide the following characters when the name is displayed.
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_REMOVED_CATEGORIES = ("Cc", "Zl", "Zp")


def attachment_path(container: Path, name: str) -> Path:
    """Return the path of an attachment: the path of the file that contains it, ``#`` and the name.

    Args:
        container: Path of the file.
        name: Name of the attachment, as returned by `attachment_names`.
    """
    return container.with_name(f"{container.name}{SEPARATOR}{name}")


def attachment_names(stored_names: Sequence[str], container: Path) -> list[str]:
    r"""Return a name for each attachment of a file. All names are different, and valid as the end of a file name.

    Of a stored name with folders, the last part is used. Control characters are removed, ``#`` becomes ``_``. An empty
    name becomes ``attachment 3``, counted from 1; a repeated name becomes ``name (2).pdf``. Names of existing files
    are not used, so that a file ``report.pdf#a.pdf`` next to ``report.pdf`` keeps its path.

    Args:
        stored_names: Names as stored in the file.
        container: Path of the file.

    >>> attachment_names(["../b/c.pdf", "c.pdf", "", "a#b"], Path("report.pdf"))
    ['c.pdf', 'c (2).pdf', 'attachment 3', 'a_b']
    """
    names: list[str] = []
    used: set[str] = set()
    counts: dict[str, int] = {}
    for number, stored_name in enumerate(stored_names, start=1):
        base = _clean(stored_name) or f"attachment {number}"
        name = base
        while name in used or os.path.lexists(attachment_path(container, name)):
            counts[base] = counts.get(base, 1) + 1
            stem, suffix = _split(base)
            name = f"{stem} ({counts[base]}){suffix}"
        used.add(name)
        names.append(name)
    return names


def temporary_name(name: str) -> str:
    """Return a file name for the content of an attachment, with the suffix of the attachment if it is harmless.

    Args:
        name: Name of the attachment.
    """
    suffix = Path(name).suffix.lower()
    return f"attachment{suffix}" if re.fullmatch(r"\.[a-z0-9]{1,12}", suffix) else "attachment"


def enumerate_names(names: Collection[str], limit: int) -> str:
    """Return names for a message, quoted and shortened: at most `limit` names and the number of the others.

    Args:
        names: The names.
        limit: Maximum number of names.
    """
    listed = ", ".join(f"'{name if len(name) <= 40 else name[:39] + '…'}'" for name in list(names)[:limit])
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit:,} more"


def _clean(stored_name: str) -> str:
    name = re.split(r"[/\\]", stored_name)[-1]
    name = "".join(
        character
        for character in name
        if unicodedata.category(character) not in _REMOVED_CATEGORIES and character not in _BIDI_CONTROLS
    )
    name = printable(name.replace(SEPARATOR, "_")).strip()
    if not name.strip("."):
        return ""
    if len(name) > _MAX_LENGTH:
        stem, suffix = _split(name)
        name = stem[: _MAX_LENGTH - len(suffix)] + suffix
    return name


def _split(name: str) -> tuple[str, str]:
    """Return the stem and the suffix of a name; no suffix if it is unusually long."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem and len(suffix) <= _MAX_SUFFIX else (name, "")
