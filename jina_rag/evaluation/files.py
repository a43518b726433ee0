"""The text files of an evaluation: read and written whole, with errors that name the file and the line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jina_rag._files import write_whole
from jina_rag.errors import InvalidInputError
from jina_rag.types import Failure

READABLE = 0o644
"""Permissions of files that are for others to read."""


@contextmanager
def explain_os_errors(what: str) -> Iterator[None]:
    """Raise errors of the system as an `InvalidInputError` that begins with `what`: ``"a.csv cannot be read"``."""
    try:
        yield
    except OSError as exc:
        raise InvalidInputError(f"{what}: {exc.strerror or exc}.") from exc


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        InvalidInputError: If it cannot be read, or is not UTF-8.
    """
    try:
        with explain_os_errors(f"{path} cannot be read"):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{path} is not UTF-8 text (byte {exc.start}).") from exc


def write_text(path: Path, text: str, *, what: str) -> None:
    """Write a text file that appears whole or not at all.

    Args:
        path: Where; a file there is replaced.
        text: Its content; what UTF-8 cannot encode is escaped.
        what: What it is, for the message: ``"rankings"``.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    with explain_os_errors(f"The {what} cannot be written to {path}"):
        write_whole(path, text.encode("utf-8", "backslashreplace"), mode=READABLE)


def write_lines(path: Path, entries: Iterable[Any], *, what: str) -> None:
    """Write one JSON value a line; arguments and errors as those of `write_text`."""
    write_text(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), what=what)


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file with one JSON object a line, with the numbers of their lines.

    Raises:
        InvalidInputError: If the file or a line cannot be read.
    """
    entries = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as exc:
            raise InvalidInputError(f"{path}, line {number}: not JSON ({exc.msg}, column {exc.colno}).") from exc
        except (ValueError, RecursionError) as exc:
            raise InvalidInputError(f"{path}, line {number}: not JSON.") from exc
        if not isinstance(entry, dict):
            raise InvalidInputError(f"{path}, line {number}: expected a JSON object.")
        entries.append((number, entry))
    return entries


def make_folder(path: Path, *, what: str) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        InvalidInputError: If it cannot be made.
    """
    with explain_os_errors(f"{what} {path} cannot be made"):
        path.mkdir(parents=True, exist_ok=True)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits.

    Raises:
        InvalidInputError: If it cannot be read.
    """
    with explain_os_errors(f"{path} cannot be read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def failures_json(failures: Iterable[Failure]) -> list[dict[str, Any]]:
    """Files and pages that failed, as JSON objects."""
    return [asdict(failure) | {"path": str(failure.path)} for failure in failures]
