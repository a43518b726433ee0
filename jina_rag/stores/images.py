"""Page screenshots and region crops as JPEG files of the index, each named by the SHA-256 of the file content."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jina_rag._files import write_atomic
from jina_rag.errors import IndexCorruptError, IndexStateError
from jina_rag.images import encode_jpeg
from jina_rag.types import EncodedImage

if TYPE_CHECKING:
    from PIL.Image import Image

QUALITY = 85
"""Default JPEG quality, from 1 to 100. At 150 dpi, text stays sharp and a page takes about 270 KB."""

_NAME = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})\.jpg")


class ImageFiles:
    """A folder of JPEG files, each named by the SHA-256 of its bytes.

    Identical images are stored once, and rewriting an image is idempotent. Only the owner can read the folder and its
    files, on systems with POSIX permissions.

    Attributes:
        folder: Path of the folder; created by the first write.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def put(self, image: Image, quality: int = QUALITY) -> str:
        """Store an image as JPEG.

        Args:
            image: Image in any mode; converted to RGB.
            quality: JPEG quality, from 1 to 100.

        Returns:
            Name of the file relative to the folder, ``"ab/abcdef….jpg"``, with a forward slash.

        Raises:
            InvalidInputError: If JPEG does not support the image: no pixels, or a side above 65,500 pixels.
            IndexStateError: If the file cannot be written.
        """
        return self.put_encoded(encode_jpeg(image, quality))

    def put_encoded(self, image: EncodedImage) -> str:
        """Store the bytes of a JPEG file.

        Args:
            image: The encoded image. `put_encoded` does not decode the image, and trusts the hash.

        Returns:
            Name of the file relative to the folder, as returned by `put`.

        Raises:
            IndexStateError: If the file cannot be written.
        """
        name = image_name(image)
        try:
            if not self.is_intact(name):
                self._write(name, image.content)
        except OSError as exc:
            raise IndexStateError(
                f"Writing a page image to {self.folder} failed: {exc.strerror or exc}. "
                "Check the free disk space and the permissions of the folder."
            ) from exc
        return name

    def copy_from(self, file: Path, name: str) -> None:
        """Copy an image file of another index.

        Args:
            file: The image file to copy.
            name: Name of the image, as returned by `put`.

        Raises:
            IndexCorruptError: If the hash of the file does not match `name`.
            IndexStateError: If the file cannot be read or written.
        """
        target = self.path(name)
        try:
            if self.is_intact(name):
                return
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != target.stem:
                raise IndexCorruptError(
                    f"The page image {file} is damaged. Run `jina-rag verify` to find the document, then ingest the "
                    "document again with force=True (--force)."
                )
            self._write(name, content)
        except OSError as exc:
            raise IndexStateError(
                f"Copying the page image {file} failed: {exc.strerror or exc}. "
                "Check the permissions of the file and the free disk space."
            ) from exc

    def is_intact(self, name: str) -> bool:
        """Return whether the image file exists and the hash of the content matches `name`.

        Raises:
            IndexCorruptError: If `name` is not an image name as returned by `put`.
        """
        target = self.path(name)
        try:
            return hashlib.sha256(target.read_bytes()).hexdigest() == target.stem
        except FileNotFoundError:
            return False

    def path(self, name: str) -> Path:
        """Return the path of an existing or missing image; the path is always within the folder.

        Raises:
            IndexCorruptError: If `name` is not an image name as returned by `put`.
        """
        if checked_name(name) is None:
            raise IndexCorruptError(
                f"The index refers to the page image {name!r}, which is not a valid image name. Ingest the documents "
                "again with force=True (--force)."
            )
        return self.folder / name

    def delete(self, name: str) -> None:
        """Delete an image; a missing image is ignored.

        Raises:
            IndexCorruptError: If `name` is not an image name as returned by `put`.
            IndexStateError: If the file cannot be deleted.
        """
        target = self.path(name)
        try:
            target.unlink(missing_ok=True)
        except OSError as exc:
            raise IndexStateError(
                f"Deleting the page image {target} failed: {exc.strerror or exc}. Check the permissions of the folder."
            ) from exc

    def delete_unfinished(self) -> None:
        """Delete the temporary files of interrupted writes."""
        for file in self.folder.glob("??/*.tmp"):
            file.unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """Yield the names of all images, in arbitrary order."""
        for file in self.folder.glob("??/*.jpg"):
            name = f"{file.parent.name}/{file.name}"
            if _NAME.fullmatch(name):
                yield name

    def _write(self, name: str, content: bytes) -> None:
        target = self.folder / name
        try:
            write_atomic(target, content)
        except FileNotFoundError:  # the first image of a folder
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomic(target, content)


def image_name(image: EncodedImage) -> str:
    """Return the name under which `ImageFiles.put_encoded` stores an image."""
    return f"{image.sha256[:2]}/{image.sha256}.jpg"


def checked_name(name: object) -> str | None:
    """Return `name` if `name` has the form of an image name returned by `ImageFiles.put`, else None.

    A path built from a valid name is always inside the image folder.
    """
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None


def decode_errors() -> tuple[type[Exception], ...]:
    """Return the exception classes that Pillow raises for files that are damaged or not images.

    The result includes MemoryError, because a damaged length field makes Pillow allocate gigabytes.
    """
    from PIL.Image import DecompressionBombError

    builtin = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, MemoryError)
    return (*builtin, struct.error, zlib.error, DecompressionBombError)


def is_readable(path: Path) -> bool:
    """Return whether the image at `path` exists and decodes completely."""
    from PIL import Image

    try:
        with Image.open(path, formats=("JPEG",)) as image:
            image.load()
    except decode_errors():
        return False
    return True
