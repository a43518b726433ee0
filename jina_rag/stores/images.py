"""Page screenshots and crops as files beside the index, named by what they hold."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jina_rag._files import write_whole
from jina_rag.errors import IndexCorruptError, IndexStateError, InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image

QUALITY = 85
"""JPEG quality; at 150 dpi text stays crisp at some 270 KB a page."""

_NAME = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})\.jpg")


class ImageFiles:
    """A folder of JPEG files; the name of each is the SHA-256 of its bytes.

    The same picture is kept once, a name never points to another picture, and writing one again changes
    nothing. Folder and files are readable by their owner only (where the system knows such modes).
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def put(self, image: Image, quality: int = QUALITY) -> str:
        """Keep a picture.

        Args:
            image: Converted to RGB where it is not.
            quality: JPEG quality, 1 to 100.

        Returns:
            Its name, ``"ab/abcdef….jpg"``, relative to the folder, with a forward slash.

        Raises:
            InvalidInputError: If the picture cannot be a JPEG (no pixels, more than 65,500 on a side).
            IndexStateError: If it cannot be written.
        """
        buffer = io.BytesIO()
        try:
            image.convert("RGB").save(buffer, "JPEG", quality=quality)
        except (OSError, ValueError, SystemError) as exc:
            raise InvalidInputError(
                f"A picture of {image.width} x {image.height} pixels cannot be kept as JPEG: {exc}"
            ) from exc
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:2]}/{digest}.jpg"
        try:
            if not self.is_intact(name):
                self._write(name, content)
        except OSError as exc:
            raise IndexStateError(
                f"A page image cannot be written to {self.folder}: {exc.strerror or exc}. "
                "Is the disk full or the folder read-only?"
            ) from exc
        return name

    def copy_from(self, file: Path, name: str) -> None:
        """Keep a copy of a picture that another index has under that name.

        Raises:
            IndexCorruptError: If the file does not hold what its name says.
            IndexStateError: If it cannot be read or written.
        """
        target = self.path(name)
        try:
            if self.is_intact(name):
                return
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != target.stem:
                raise IndexCorruptError(f"The page image {file} does not hold what it was made of: ingest it again.")
            self._write(name, content)
        except OSError as exc:
            raise IndexStateError(f"The page image {file} cannot be copied: {exc.strerror or exc}.") from exc

    def is_intact(self, name: str) -> bool:
        """Whether the picture of that name is there and holds what its name says."""
        target = self.path(name)
        try:
            return hashlib.sha256(target.read_bytes()).hexdigest() == target.stem
        except FileNotFoundError:
            return False

    def path(self, name: str) -> Path:
        """Where the picture of that name lies (or would lie).

        Raises:
            IndexCorruptError: If the name is not one that `put` makes; it never leads out of the folder.
        """
        if checked_name(name) is None:
            raise IndexCorruptError(f"{name!r} is not the name of a page image: ingest the document again.")
        return self.folder / name

    def delete(self, name: str) -> None:
        """Remove a picture; one that is not there is ignored.

        Raises:
            IndexCorruptError: If the name is not one that `put` makes.
            IndexStateError: If it cannot be removed.
        """
        target = self.path(name)
        try:
            target.unlink(missing_ok=True)
        except OSError as exc:
            raise IndexStateError(f"The page image {target} cannot be removed: {exc.strerror or exc}.") from exc

    def delete_unfinished(self) -> None:
        """Remove files that a killed process had begun to write."""
        for file in self.folder.glob("??/*.tmp"):
            file.unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """The names of all pictures, in no particular order."""
        for file in self.folder.glob("??/*.jpg"):
            name = f"{file.parent.name}/{file.name}"
            if _NAME.fullmatch(name):
                yield name

    def _write(self, name: str, content: bytes) -> None:
        target = self.folder / name
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(target, content)


def checked_name(name: object) -> str | None:
    """The name, if it is one that `ImageFiles.put` makes: it leads to a file within the folder and nowhere else."""
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None


def decode_errors() -> tuple[type[Exception], ...]:
    """What Pillow raises on files that are no pictures, or broken ones.

    MemoryError among them: a damaged length makes it ask for gigabytes.
    """
    from PIL.Image import DecompressionBombError

    builtin = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, MemoryError)
    return (*builtin, struct.error, zlib.error, DecompressionBombError)


def is_readable(path: Path) -> bool:
    """Whether a picture is there and can be decoded to its end."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except decode_errors():
        return False
    return True
