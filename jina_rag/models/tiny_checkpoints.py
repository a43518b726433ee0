"""Tiny random checkpoints in the real layout, with what the published code made of them; they come with the package."""

from __future__ import annotations

import zipfile
from pathlib import Path

from jina_rag.errors import InvalidInputError

TINY_FAMILIES = ("v4", "m0", "colbert-v2", "v1")
_FOLDER = Path(__file__).parent / "_assets" / "tiny"


def tiny_archive(family: str) -> Path:
    """The zip of a family's tiny checkpoint.

    Raises:
        InvalidInputError: If there is no such family.
    """
    if family not in TINY_FAMILIES:
        raise InvalidInputError(f"There is no family {family!r}; there are {', '.join(TINY_FAMILIES)}.")
    return _FOLDER / f"{family}.zip"


def unpack_tiny(family: str, folder: Path) -> Path:
    """Unpack a tiny checkpoint into a folder, which is made.

    Returns:
        The folder, as a checkpoint to load.

    Raises:
        InvalidInputError: If there is no such family.
    """
    with zipfile.ZipFile(tiny_archive(family)) as archive:
        for name in archive.namelist():
            if not name.startswith(("images/", "expected.")):
                archive.extract(name, folder)  # never leaves the folder, whatever the name says
    return folder
