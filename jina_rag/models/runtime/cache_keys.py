"""Content-based cache keys for documents, so that a cached prefix is reused only for the same document.

An image is identified by the bytes of the image file, or by the pixels if the image has no file. A file is reread only
if the path, size, inode or timestamps changed, or if the last change is so recent that another change could have the
same timestamp.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from pathlib import Path
from typing import TypeAlias

from jina_rag._forks import RenewedLock
from jina_rag.errors import InvalidInputError
from jina_rag.images import LoadedImage
from jina_rag.models.jina.vl_prompts import Prompt

_MIN_FILE_AGE_NS = 5 * 10**9
"""Minimum time since the last change of a file, in nanoseconds; digests of files that changed more recently
are not cached."""
_MAX_CACHED_FILES = 20_000
"""Maximum number of cached file digests, which use about 10 MB of host memory."""
_Stamp: TypeAlias = "tuple[int, int, int, int, int]"


class DocumentKeys:
    """Computes the cache keys of documents. Thread-safe."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, tuple[_Stamp, bytes]] = OrderedDict()
        self._lock = RenewedLock()

    def key(self, prompt: Prompt) -> bytes:
        """Return the cache key of a document, 32 bytes.

        The key covers the token ids and, for each image, the content, the position in the prompt, the token grid and
        the pixel limit.

        Args:
            prompt: Beginning of a prompt, up to the end of the document.

        Raises:
            InvalidInputError: If the file of an image can no longer be read.
        """
        digest = hashlib.sha256(prompt.ids.tobytes())
        for image in prompt.images:
            digest.update(self.digest(image.image))
            digest.update(f"{image.start} {image.rows} {image.columns} {image.max_pixels}".encode())
        return digest.digest()

    def is_unchanged(self, key: bytes, prompt: Prompt) -> bool:
        """Return whether `key` is still the key of a document; False if an image changed or can no longer be read."""
        try:
            return self.key(prompt) == key
        except InvalidInputError:
            return False

    def digest(self, image: LoadedImage) -> bytes:
        """Return the SHA-256 digest of an image's current content, 32 bytes.

        Raises:
            InvalidInputError: If the image's file can no longer be read.
        """
        source = image.source
        if isinstance(source, bytes):
            return hashlib.sha256(source).digest()
        if isinstance(source, Path):
            try:
                return self._file_digest(source)
            except OSError as exc:
                raise InvalidInputError(f"{image.name} cannot be read: {exc.strerror or exc}. Check the path.") from exc
        pixels = hashlib.sha256(b"%d x %d pixels:" % image.size)
        pixels.update(image.load().tobytes())
        return pixels.digest()

    def _file_digest(self, path: Path) -> bytes:
        name = str(path.absolute())
        stamp = _stamp(path)
        with self._lock:
            entry = self._files.get(name)
            if entry is not None and entry[0] == stamp:
                self._files.move_to_end(name)
                return entry[1]
        read_at = time.time_ns()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        # Do not cache the digest if the file changed during the read, or if a timestamp is recent or in the future: a
        # later change could leave that timestamp unchanged.
        is_settled = _stamp(path) == stamp and max(stamp[3:]) < read_at - _MIN_FILE_AGE_NS
        with self._lock:
            self._files.pop(name, None)
            if is_settled:
                self._files[name] = stamp, digest
                while len(self._files) > _MAX_CACHED_FILES:
                    self._files.popitem(last=False)
        return digest


def _stamp(path: Path) -> _Stamp:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
