"""Tiny checkpoints with random weights in the published layout, with expected outputs of the published code."""

from __future__ import annotations

import zipfile
from pathlib import Path

from jina_rag.errors import InvalidInputError

TINY_FAMILIES = ("v4", "m0", "colbert-v2", "v1")
_FOLDER = Path(__file__).parent / "_assets" / "tiny"


def tiny_archive(family: str) -> Path:
    """Return the path of the zip archive of a family's tiny checkpoint.

    Args:
        family: One of `TINY_FAMILIES`.

    Raises:
        InvalidInputError: If `family` is unknown.
    """
    if family not in TINY_FAMILIES:
        raise InvalidInputError(f"family is {family!r}; expected one of {', '.join(TINY_FAMILIES)}.")
    return _FOLDER / f"{family}.zip"


def unpack_tiny(family: str, folder: Path) -> Path:
    """Unpack a tiny checkpoint into a folder, without the test images and the expected outputs.

    Args:
        family: One of `TINY_FAMILIES`.
        folder: Target folder, created if missing.

    Returns:
        `folder`, which now contains the checkpoint.

    Raises:
        InvalidInputError: If `family` is unknown.
    """
    with zipfile.ZipFile(tiny_archive(family)) as archive:
        for name in archive.namelist():
            if not name.startswith(("images/", "expected.")):
                archive.extract(name, folder)  # strips absolute and parent paths from member names
    return folder
