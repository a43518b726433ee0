"""Functions that read and atomically write the text files of an evaluation."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jina_rag._files import write_atomic
from jina_rag.errors import InvalidInputError
from jina_rag.types import Failure

FILE_MODE = 0o644
"""Permissions of output files: readable by all users, writable by the owner."""


@contextmanager
def explain_os_errors(message: str) -> Iterator[None]:
    """Context manager that converts an `OSError` of the ``with`` block into an `InvalidInputError`.

    The message of the new error ends with the reason that the operating system states, and with a way out.

    Args:
        message: Beginning of the message, for example ``"a.csv cannot be read"``.

    Raises:
        InvalidInputError: If the ``with`` block raises an `OSError`.
    """
    try:
        yield
    except OSError as exc:
        way_out = "Free disk space." if exc.errno == errno.ENOSPC else "Check the path and the permissions."
        raise InvalidInputError(f"{message}: {exc.strerror or exc}. {way_out}") from exc


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without its byte-order mark.

    Args:
        path: Path of the file.

    Raises:
        InvalidInputError: If the file cannot be read, or is not valid UTF-8.
    """
    try:
        with explain_os_errors(f"{path} cannot be read"):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{path} is not UTF-8 text (byte {exc.start}). Save the file as UTF-8.") from exc


def write_text(path: Path, text: str, *, label: str) -> None:
    """Write a text file atomically, in UTF-8.

    Args:
        path: Path of the file; an existing file is replaced.
        text: Content. Characters that UTF-8 cannot encode are escaped with a backslash.
        label: Noun for the content in the error message, for example ``"rankings"``.

    Raises:
        InvalidInputError: If the file cannot be written.
    """
    with explain_os_errors(f"The {label} cannot be written to {path}"):
        write_atomic(path, text.encode("utf-8", "backslashreplace"), mode=FILE_MODE)


def write_lines(path: Path, entries: Iterable[Any], *, label: str) -> None:
    """Write a JSON Lines file atomically.

    Args:
        path: Path of the file; an existing file is replaced.
        entries: JSON values, one per line.
        label: Noun for the content in the error message, for example ``"rankings"``.

    Raises:
        InvalidInputError: If the file cannot be written.
    """
    write_text(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), label=label)


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the (line number, object) pairs of a file with one JSON object per line; empty lines are skipped.

    Args:
        path: Path of the file.

    Raises:
        InvalidInputError: If the file cannot be read, or a line is not a JSON object.
    """
    entries = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as exc:
            raise InvalidInputError(
                f"{path}, line {number}: not JSON ({exc.msg}, column {exc.colno}); expected a JSON object per line."
            ) from exc
        except (ValueError, RecursionError) as exc:
            raise InvalidInputError(f"{path}, line {number}: not JSON; expected a JSON object per line.") from exc
        if not isinstance(entry, dict):
            raise InvalidInputError(f"{path}, line {number}: expected a JSON object per line.")
        entries.append((number, entry))
    return entries


def make_folder(path: Path, *, label: str) -> None:
    """Create a folder and its parents; an existing folder is left unchanged.

    Args:
        path: Path of the folder.
        label: Noun phrase that begins the error message, for example ``"The folder"``.

    Raises:
        InvalidInputError: If the folder cannot be created.
    """
    with explain_os_errors(f"{label} {path} cannot be created"):
        path.mkdir(parents=True, exist_ok=True)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Args:
        path: Path of the file.

    Raises:
        InvalidInputError: If the file cannot be read.
    """
    with explain_os_errors(f"{path} cannot be read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def failures_json(failures: Iterable[Failure]) -> list[dict[str, Any]]:
    """Return failed files and pages as JSON objects with ``path``, ``reason`` and ``page``.

    Args:
        failures: Failures of an ingestion.
    """
    return [asdict(failure) | {"path": str(failure.path)} for failure in failures]
