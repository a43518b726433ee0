"""Sidecars: JSON files with the metadata of a document, for example ``report.json`` for ``report.pdf``."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from jina_rag.stores import schema
from jina_rag.types import Failure

_MAX_BYTES = 64 * 1024
"""Maximum size of a sidecar in bytes. A larger JSON file is not read as metadata."""


def sidecars_of(path: Path) -> tuple[Path, Path]:
    """Return the possible sidecar paths of a document: ``report.pdf.json``, then ``report.json``."""
    return path.with_name(f"{path.name}.json"), path.with_suffix(".json")


def read_sidecar(path: Path, warnings: list[Failure]) -> dict[str, Any]:
    """Return the metadata in the sidecar of a document; empty if no valid sidecar exists.

    Args:
        path: The document.
        warnings: List to which a warning is appended for each invalid sidecar.
    """
    for sidecar in sidecars_of(path):
        try:
            text = _read_small(sidecar)
            if text is None:
                continue
            metadata = json.loads(text)
            if not isinstance(metadata, dict):
                raise ValueError("the file is not a JSON object")
            payload: dict[str, Any] = schema.clean_payload(metadata)
            return payload
        except (OSError, ValueError, RecursionError) as error:
            reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
            warnings.append(Failure(sidecar, f"Ignored as metadata of {path.name}: {reason.rstrip('.')}."))
    return {}


def _read_small(path: Path) -> str | None:
    """Return the text of a regular file of at most 64 KiB; None if the file is missing, larger or not regular.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is not UTF-8 text.
    """
    try:
        # O_NOFOLLOW rejects links, which may point outside the folder. O_NONBLOCK prevents a named pipe from blocking.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
            return None
        raise
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        data = file.read(_MAX_BYTES + 1)
    return None if len(data) > _MAX_BYTES else data.decode("utf-8-sig")
