"""Globs with one meaning everywhere: paths to ingest and to sync, filters, names to delete, passwords.

``*`` and ``?`` stay within one folder and ``**`` crosses folders. ``[abc]`` is one of the characters in it. A wildcard
does not match a name that begins with a dot, unless the pattern begins with one there, too. A pattern that matches a
folder stands for everything in it, and a name that is spelled like the pattern matches it.

Names may hold wildcards themselves. One rule for ingestion, sync, deletion and filters: a pattern that is, character by
character, the name of a file or folder that exists, or the id or path of a document (or of a folder of documents) that
the index has or had, means only that one, also after it is gone. Ingestion, which only reads, asks the disk; the others
ask disk and index (`jina_rag.catalog.document_filter.resolve`).
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

has_wildcards = glob.has_magic
escape = glob.escape


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern stands for a document.

    Args:
        name: An id or an absolute path, with forward slashes.
        pattern: A glob; relative ones match ids, absolute ones match paths. One that begins with ``**/`` matches both.

    >>> matches("reports/2019.pdf", "reports/*"), matches("reports/old/2019.pdf", "reports/*.pdf")
    (True, False)
    >>> matches("reports/old/2019.pdf", "reports/old"), matches("reports/old/2019.pdf", "**/2019*")
    (True, True)
    """
    if name == pattern:
        return True
    parts = _split(pattern)
    states = _skip_stars(parts, {0})
    for component in name.split("/"):
        if len(parts) in states:
            return True
        states = _step(parts, states, component)
    return len(parts) in states


def find(pattern: str, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """The files and folders that a pattern matches on the disk; what lies in one of the folders does not come again.

    Args:
        pattern: A glob.
        check: Called for every entry that is looked at; what it raises ends the search.
    """
    start = Path(pattern)
    parts = _split(start.relative_to(start.anchor).as_posix())
    pending = [(Path(start.anchor), _skip_stars(parts, {0}))]
    visited: set[tuple[str, frozenset[int]]] = set()
    while pending:
        folder, states = pending.pop()
        if len(parts) in states:
            yield folder
            continue
        key = (os.path.realpath(folder), frozenset(states))
        if key in visited:  # a link leads back
            continue
        visited.add(key)
        children = []
        for name, is_folder in _candidates(folder, [parts[state] for state in states], check):
            reached = _step(parts, states, name)
            if len(parts) in reached or (reached and is_folder):
                children.append((folder / name, reached))
        pending.extend(reversed(children))


def _candidates(folder: Path, parts: list[str], check: Callable[[], None]) -> list[tuple[str, bool]]:
    """Names in a folder that may match, sorted, and whether they are folders; it is listed only where it must be."""
    if not any(map(has_wildcards, parts)):
        check()
        return [(part, (folder / part).is_dir()) for part in sorted(set(parts)) if os.path.lexists(folder / part)]
    try:
        return [(entry.name, os.path.isdir(entry.path)) for entry in list_folder(folder, check)]
    except OSError:
        return []


def matched_part(path: Path, pattern: str) -> Path:
    """The part of a path that an absolute pattern reaches before its first ``**``: a folder that it stands for."""
    parts = _split(pattern)
    return Path(*path.parts[: parts.index("**") if "**" in parts else len(parts)])


def list_folder(folder: Path, check: Callable[[], None] = lambda: None) -> list[os.DirEntry[str]]:
    """The entries of a folder by name; `check` is called for each of them.

    Raises:
        OSError: If it cannot be listed.
    """
    entries = []
    with os.scandir(folder) as iterator:
        for entry in iterator:
            check()
            entries.append(entry)
    return sorted(entries, key=lambda entry: entry.name)


@functools.lru_cache(maxsize=256)
def _split(pattern: str) -> tuple[str, ...]:
    first, *rest = pattern.replace(os.sep, "/").split("/")
    parts = [first] * (first != ".") + [part for part in rest if part not in ("", ".")]
    while parts and parts[-1] == "**":  # all that lies in a folder is what the folder stands for
        parts.pop()
    return tuple(parts)


def _step(parts: tuple[str, ...], states: set[int], name: str) -> set[int]:
    """Where in the pattern a name leads to, from several places in it."""
    reached = set()
    for state in states:
        if parts[state] == "**":
            if not name.startswith("."):
                reached.add(state)
        elif _fits(name, parts[state]):
            reached.add(state + 1)
    return _skip_stars(parts, reached)


def _skip_stars(parts: tuple[str, ...], states: Iterable[int]) -> set[int]:
    """Add the places behind each ``**``, which may stand for no folder at all."""
    reached = set(states)
    for state in sorted(reached):
        while state < len(parts) and parts[state] == "**":
            state += 1
            reached.add(state)
    return reached


def _fits(name: str, part: str) -> bool:
    is_hidden = name.startswith(".") and not part.startswith(".")
    return name == part or (bool(name) and not is_hidden and fnmatch.fnmatch(name, part))
