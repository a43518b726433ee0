"""Names a document by what it says and shows, so that what was computed for it is found again, and never another's.

Pictures are named by the bytes of their file, or by their pixels where there is no file. A file is not read again as
long as its path, size, inode and times of change are those it was read with, unless it had been changed so shortly
before that another change could have left all of these as they are.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TypeAlias

from jina_rag.errors import InvalidInputError
from jina_rag.images import LoadedImage
from jina_rag.models.jina.vl_prompts import Prompt

_SETTLED_NS = 5 * 10**9
"""A file that was changed less than this before it was read may change again within one tick of its times."""
_REMEMBERED = 20_000
"""Files whose digests are kept: about 10 MB."""
_Stamp: TypeAlias = "tuple[int, int, int, int, int]"


class DocumentKeys:
    """Keys of documents. Safe to share between threads."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, tuple[_Stamp, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def key(self, prompt: Prompt) -> bytes:
        """The key of a document, as the beginning of a prompt that holds nothing else.

        Its tokens, and of each picture what it shows, where it stands and how far it is scaled down.

        Raises:
            InvalidInputError: If a picture's file cannot be read any more.
        """
        digest = hashlib.sha256(prompt.ids.tobytes())
        for image in prompt.images:
            digest.update(self.digest(image.image))
            digest.update(f"{image.start} {image.rows} {image.columns} {image.max_pixels}".encode())
        return digest.digest()

    def still(self, key: bytes, prompt: Prompt) -> bool:
        """Whether a document has the key that it had before: whether no file or image of it was changed meanwhile."""
        try:
            return self.key(prompt) == key
        except InvalidInputError:
            return False

    def digest(self, image: LoadedImage) -> bytes:
        """What a picture shows now, as 32 bytes.

        Raises:
            InvalidInputError: If its file cannot be read any more.
        """
        source = image.source
        if isinstance(source, bytes):
            return hashlib.sha256(source).digest()
        if isinstance(source, Path):
            try:
                return self._of_file(source)
            except OSError as exc:
                raise InvalidInputError(f"{image.name} cannot be read: {exc.strerror or exc}.") from exc
        pixels = hashlib.sha256(b"%d x %d pixels:" % image.size)
        pixels.update(image.load().tobytes())
        return pixels.digest()

    def _of_file(self, path: Path) -> bytes:
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
        # Times in the future, and those of a file that changed while it was read, are no reason to trust either.
        settled = _stamp(path) == stamp and max(stamp[3:]) < read_at - _SETTLED_NS
        with self._lock:
            self._files.pop(name, None)
            if settled:
                self._files[name] = stamp, digest
                while len(self._files) > _REMEMBERED:
                    self._files.popitem(last=False)
        return digest


def _stamp(path: Path) -> _Stamp:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
