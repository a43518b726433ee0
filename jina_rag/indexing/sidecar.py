"""Metadata that stands beside a document: a small JSON object in a file named like it."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from jina_rag.errors import InvalidInputError
from jina_rag.stores import schema
from jina_rag.types import Failure

_MOST_BYTES = 64 * 1024
"""A larger JSON file beside a document is data of its own."""


def sidecars_of(path: Path) -> tuple[Path, Path]:
    """Where the metadata of a document may stand: ``report.pdf.json``, then ``report.json``."""
    return path.with_name(f"{path.name}.json"), path.with_suffix(".json")


def read_sidecar(path: Path, warnings: list[Failure]) -> dict[str, Any]:
    """The metadata beside a document; empty if there is none.

    Args:
        path: The document.
        warnings: Takes what is wrong with a file that looks like metadata and is none.
    """
    for sidecar in sidecars_of(path):
        try:
            text = _read_small(sidecar)
            if text is None:
                continue
            metadata = json.loads(text)
            if not isinstance(metadata, dict):
                raise InvalidInputError("it is not a JSON object")
            payload: dict[str, Any] = schema.clean_payload(metadata)
            return payload
        except (OSError, ValueError, RecursionError) as error:
            reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
            warnings.append(Failure(sidecar, f"It is not taken as metadata of {path.name}: {reason.rstrip('.')}."))
    return {}


def _read_small(path: Path) -> str | None:
    """A small file's text; None if it is not there, is large, or is anything but a file of its own.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not text.
    """
    try:
        # Not a link: it may lead out of the folder. And a pipe of that name must not stop the run.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
            return None
        raise
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        data = file.read(_MOST_BYTES + 1)
    return None if len(data) > _MOST_BYTES else data.decode("utf-8-sig")
