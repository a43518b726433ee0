"""Glob patterns with the same rules for ingestion, sync, filters, deletion and passwords.

``*`` and ``?`` match within one folder, ``**`` matches across folders, and ``[abc]`` matches one of the listed
characters. A name that starts with a dot matches only if the part of the pattern for this name also starts with a dot.
A pattern that matches a folder selects all files in the folder. A name equal to the pattern always matches.

Names are compared as written and, where this differs, in the spelling of `jina_rag.normalization.name_form`: a file
that macOS named in NFD is found by a pattern typed in NFC. A pattern without wildcards that is the exact name of a file
selects only this file, so that two files whose names differ only in the spelling stay two documents.

File names may contain wildcard characters. Ingestion, sync, deletion and filters therefore share one rule: a pattern
equal to the name of an existing file or folder selects only that file or folder. The rule also covers ids and
paths of documents and folders that are or were in the index, even after the files were deleted. Ingestion looks up the
pattern as a name on disk; sync, deletion and filters look up the pattern on disk and in the index
(`jina_rag.catalog.document_filter.resolve`).
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from jina_rag.normalization import name_form, pattern_form, same_name

has_wildcards = glob.has_magic
escape = glob.escape


class ExactPattern(str):
    """A pattern that matches names only as written, because it is the exact name of a document, file or folder."""

    __slots__ = ()


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern selects a document.

    Args:
        name: Id or absolute path of the document, with forward slashes.
        pattern: The glob. Relative globs match ids, absolute globs match paths, and globs that start with ``**/`` match
            both.

    >>> matches("reports/2019.pdf", "reports/*"), matches("reports/old/2019.pdf", "reports/*.pdf")
    (True, False)
    >>> matches("reports/old/2019.pdf", "reports/old"), matches("reports/old/2019.pdf", "**/2019*")
    (True, True)
    """
    if name == pattern:
        return True
    parts = _split(pattern)
    states = _skip_double_stars(parts, {0})
    for component in name.split("/"):
        if len(parts) in states:
            return True
        states = _next_states(parts, states, component)
    return len(parts) in states


def find(pattern: str, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Iterate over the files and folders on disk that match a pattern.

    Args:
        pattern: The glob.
        check: Function that is called for every visited folder entry. An exception from `check` stops the search.

    Yields:
        Matching paths. The contents of a matching folder are not listed separately.
    """
    start = Path(pattern)
    parts = _split(start.relative_to(start.anchor).as_posix())
    pending = [(Path(start.anchor), _skip_double_stars(parts, {0}))]
    visited: set[tuple[str, frozenset[int]]] = set()
    while pending:
        folder, states = pending.pop()
        if len(parts) in states:
            yield folder
            continue
        key = (os.path.realpath(folder), frozenset(states))
        if key in visited:  # already visited: a symbolic link forms a cycle
            continue
        visited.add(key)
        children = []
        for name, is_folder in _candidates(folder, [parts[state] for state in states], check):
            reached = _next_states(parts, states, name)
            if len(parts) in reached or (reached and is_folder):
                children.append((folder / name, reached))
        pending.extend(reversed(children))


def _candidates(folder: Path, parts: list[str], check: Callable[[], None]) -> list[tuple[str, bool]]:
    """Return the sorted entries that may match, as (name, is a folder). Without wildcards, do not list the folder."""
    if not any(map(has_wildcards, parts)):
        check()
        names = [name for part in sorted(set(parts)) for name in on_disk(folder, part, check)]
        return [(name, (folder / name).is_dir()) for name in names]
    try:
        return [(entry.name, os.path.isdir(entry.path)) for entry in list_folder(folder, check)]
    except OSError:
        return []


def on_disk(folder: Path, name: str, check: Callable[[], None] = lambda: None) -> list[str]:
    """Return the name as the entry of a folder, or else the entries with the same name in another spelling.

    Args:
        folder: Path of the folder.
        name: Name of a file or folder, without wildcards.
        check: Function that is called for every entry that is compared.
    """
    if os.path.lexists(folder / name):
        return [name]
    try:
        return [entry.name for entry in list_folder(folder, check) if same_name(entry.name, name)]
    except OSError:
        return []


def matched_part(path: Path, pattern: str) -> Path:
    """Return the first components of a path: as many as the pattern has before the first ``**``.

    Args:
        path: An absolute path that matches the pattern.
        pattern: An absolute glob.
    """
    parts = _split(pattern)
    return Path(*path.parts[: parts.index("**") if "**" in parts else len(parts)])


def list_folder(folder: Path, check: Callable[[], None] = lambda: None) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted by name.

    Args:
        folder: Path of the folder.
        check: Function that is called for every entry. An exception from `check` stops the listing.

    Raises:
        OSError: If the folder cannot be listed.
    """
    entries = []
    with os.scandir(folder) as iterator:
        for entry in iterator:
            check()
            entries.append(entry)
    return sorted(entries, key=lambda entry: entry.name)


@functools.lru_cache(maxsize=256, typed=True)
def _split(pattern: str) -> tuple[str, ...]:
    first, *rest = pattern.replace(os.sep, "/").split("/")
    parts = [first] * (first != ".") + [part for part in rest if part not in ("", ".")]
    while parts and parts[-1] == "**":  # a pattern that matches a folder selects all files in the folder
        parts.pop()
    return tuple(map(ExactPattern, parts)) if isinstance(pattern, ExactPattern) else tuple(parts)


def _next_states(parts: tuple[str, ...], states: set[int], name: str) -> set[int]:
    """Return the pattern positions that the path component `name` reaches from the positions `states`."""
    reached = set()
    for state in states:
        if parts[state] == "**":
            if not name.startswith("."):
                reached.add(state)
        elif _component_matches(name, parts[state]):
            reached.add(state + 1)
    return _skip_double_stars(parts, reached)


def _skip_double_stars(parts: tuple[str, ...], states: Iterable[int]) -> set[int]:
    """Return `states` and the positions after each ``**``, because ``**`` also matches zero folders."""
    reached = set(states)
    for state in sorted(reached):
        while state < len(parts) and parts[state] == "**":
            state += 1
            reached.add(state)
    return reached


def _component_matches(name: str, part: str) -> bool:
    is_hidden = name.startswith(".") and not part.startswith(".")
    if name == part or (bool(name) and not is_hidden and fnmatch.fnmatch(name, part)):
        return True
    if is_hidden or (name.isascii() and part.isascii()) or isinstance(part, ExactPattern):
        return False
    return fnmatch.fnmatch(name_form(name), pattern_form(part))
