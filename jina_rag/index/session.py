"""What lies in an index folder, opened together and shared by every handle of the process.

kb/manifest.sqlite3   documents, settings        kb/vectors/      the store
kb/images/            screenshots and crops      kb/ocr.sqlite3   what OCR has read

With a Qdrant server the vectors are there, and the rest in a folder of files.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jina_rag._version import __version__
from jina_rag.catalog.maintenance import IndexResources, changing
from jina_rag.catalog.manifest import RATE, SCHEMA_VERSION, Manifest, peek_settings
from jina_rag.compression import kept_dim
from jina_rag.config import Storage
from jina_rag.errors import (
    IndexLockedError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexStateError,
    InvalidInputError,
)
from jina_rag.models.registry import load_embedder
from jina_rag.ocr.cache import OcrCache
from jina_rag.protocols import Embedder, MultiVectorStore
from jina_rag.stores.images import ImageFiles

MANIFEST = "manifest.sqlite3"
VECTORS = "vectors"
IMAGES = "images"
OCR = "ocr.sqlite3"
_FILES = {"images": IMAGES, "manifest": MANIFEST, "ocr": OCR}
DEFAULT_EMBEDDER = "lite"
DENSE_DIM = 1024


@dataclass
class Handle:
    """An open index.

    Attributes:
        location: Where it is, as a person calls it: the folder, or the server's address and the collection.
        root: The folder with manifest and images.
        parts: Its vectors, documents, pictures.
        settings: What it was built with.
        storage: How its vectors are kept.
        users: How many `DocumentIndex` objects share it.
        writing: Held by whoever changes the index.
        model: The model, where one was at hand when the index was opened.
        guard: Lock file that is held while an index on a server is changed; None for the embedded engine.
        guest: Whether the index's manifest is elsewhere: it can be searched, not changed.
    """

    location: str
    root: Path
    parts: IndexResources
    settings: dict[str, Any]
    storage: Storage = field(default_factory=Storage)
    users: int = 0
    writing: threading.Lock = field(default_factory=threading.Lock)
    model: Embedder | None = None
    guard: Path | None = None
    guest: bool = False

    @property
    def store(self) -> MultiVectorStore:
        """Its vectors."""
        return self.parts.store

    @property
    def manifest(self) -> Manifest:
        """Its documents."""
        return self.parts.manifest

    @property
    def images(self) -> ImageFiles:
        """Its pictures."""
        return self.parts.images

    def embedder(self) -> Embedder:
        """Load the model that the index was built with.

        Raises:
            IndexMismatchError: If this installation's model of that name makes other vectors.
        """
        # By the recorded name, not the asked one: "lite" stands for "lite-en" on some machines only.
        embedder = self.model or _load(self.settings)
        check_model(embedder, self)
        return embedder

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold this while the index is changed: one thread, and of a server's index one process, at a time.

        Raises:
            IndexLockedError: If another process changes the index.
            IndexStateError: If the index on a server was filled with another folder of files than this one.
        """
        if self.guest:
            raise IndexStateError(
                f"The index at {self.location} was filled with another folder of files than {self.root}: change it "
                "with that one (--assets-dir), or ingest into a collection of your own."
            )
        # The embedded engine has locked its folder itself.
        with self.writing, nullcontext() if self.guard is None else locked(self.guard, self.location):
            with changing(self.parts):
                yield

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes on disk: the parts of the store as far as it can tell, images, manifest, what OCR has read."""
        vectors = {f"vectors: {name}": size for name, size in self.store.bytes_by_part().items()}
        return {**vectors, **{name: size_on_disk(self.root / file) for name, file in _FILES.items()}}

    def release(self) -> None:
        """Flush and close everything."""
        try:
            self.store.close()
        finally:
            self.manifest.close()
            if self.parts.ocr is not None:
                self.parts.ocr.close()


def check_model(embedder: str | Embedder | None, handle: Handle) -> None:
    """Refuse a model whose vectors do not fit the index.

    Raises:
        IndexMismatchError: With the way out.
    """
    settings = handle.settings
    if embedder is None:
        return
    if isinstance(embedder, str):
        if embedder not in (settings["embedder"], settings["asked"]):
            raise IndexMismatchError(
                f"The index at {handle.location} was built with the model {settings['embedder']!r}, not with "
                f"{embedder!r}: open it without naming a model, or ingest into a new folder."
            )
    elif embedder.fingerprint != settings["fingerprint"]:
        raise IndexMismatchError(
            f"The index at {handle.location} was built with {settings['fingerprint']} "
            f"(jina-rag {settings['version']}), but the model at hand is {embedder.fingerprint}: pass an "
            "embedder that is loaded as that one was (task, max_pixels, revision), or ingest into a new folder."
        )


def open_handle(
    root: Path,
    embedder: str | Embedder | None,
    *,
    create: bool,
    storage: str | Storage | None = None,
    template: Mapping[str, Any] | None = None,
) -> Handle:
    """Open the index in the folder `root`, or make one; see `DocumentIndex.open`."""
    if root.exists() and not root.is_dir():
        raise InvalidInputError(f"{root} is a file; an index is a folder.")
    made_here = not (root / MANIFEST).is_file()
    if made_here and not create:
        raise IndexNotFoundError(f"There is no index at {root}: make one with `jina-rag ingest FOLDER --index {root}`.")
    if made_here and root.is_dir() and any(entry.name != VECTORS for entry in root.iterdir()):
        raise IndexStateError(f"{root} holds other files: choose an empty or a new folder for the index.")
    # Before anything is written, so that a misspelt model leaves no half-made index behind.
    fresh: tuple[dict[str, Any], Embedder | None] | None = None
    if made_here:
        fresh = (like(template), None) if template else fresh_settings(embedder, storage)
    manifest = open_manifest(root, private=made_here)
    try:
        return _open(root, manifest, fresh, embedder, storage)
    except BaseException:
        manifest.close()
        raise


def open_manifest(root: Path, *, private: bool) -> Manifest:
    """The manifest in a folder, which is made where there is none; with `private` for its owner's eyes only."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if private:
            root.chmod(0o700)
    except OSError as exc:
        raise IndexStateError(f"The index folder {root} cannot be made: {exc.strerror}.") from exc
    return Manifest(root / MANIFEST)


def _open(
    root: Path,
    manifest: Manifest,
    fresh: tuple[dict[str, Any], Embedder | None] | None,
    embedder: str | Embedder | None,
    storage: str | Storage | None,
) -> Handle:
    settings, model = manifest.settings(), None
    if not settings:  # a new index, or one that a process left that was killed here
        settings, model = fresh or fresh_settings(embedder, storage)
    kept = Storage.from_json(settings["storage"])
    check_storage(storage, kept, str(root))
    # Imported here: `import jina_rag` must not load the engine.
    from jina_rag.stores.qdrant.edge import EdgeStore

    store = EdgeStore.open(root / VECTORS, dim=settings["dim"], multi_dim=settings["multi_dim"], storage=kept)
    try:
        parts = IndexResources(store, manifest, ImageFiles(root / IMAGES), OcrCache(root / OCR))
        handle = Handle(str(root), root, parts, settings, storage=kept, model=model)
        check_model(embedder, handle)
        if not manifest.settings():
            manifest.write_settings(settings)
    except BaseException:
        store.close()
        raise
    return handle


def check_storage(asked: str | Storage | None, kept: Storage, location: str) -> None:
    """Refuse another way of keeping vectors than the index has.

    Raises:
        IndexMismatchError: With the way out.
    """
    if asked is not None and named_storage(asked) != kept:
        raise IndexMismatchError(
            f"The index at {location} keeps its vectors as {kept}, not as {named_storage(asked)}: open it without "
            "naming a storage, or ingest into a new place."
        )


def named_storage(storage: str | Storage | None) -> Storage:
    """A storage by its name, ``"exact"`` if there is none."""
    if isinstance(storage, Storage):
        return storage
    return Storage.named(storage or "exact")


def load_recorded(root: Path) -> Embedder | None:
    """Load the model of an index without opening it; None where there is no index.

    For a head start: whoever holds the result shares its weights with a handle that is opened meanwhile.
    """
    settings = peek_settings(root / MANIFEST)
    return _load(settings) if settings else None


def _load(settings: Mapping[str, Any]) -> Embedder:
    """The recorded model, at the commit that was recorded: a branch of the hub may have moved on."""
    return load_embedder(settings["embedder"], revision=settings.get("revision"))


def fresh_settings(embedder: str | Embedder | None, storage: str | Storage | None) -> tuple[dict[str, Any], Embedder]:
    """What a new index records about its model, and that model."""
    asked = embedder if embedder is not None else DEFAULT_EMBEDDER
    kept = named_storage(storage)
    model = load_embedder(asked) if isinstance(asked, str) else asked
    settings = {
        "schema": SCHEMA_VERSION,
        "version": __version__,
        "asked": asked if isinstance(asked, str) else model.name,
        "embedder": model.name,
        "fingerprint": model.fingerprint,
        "dim": _dense_dim(model),
        "multi_dim": kept_dim(model, kept.multi_dim),
        "revision": model.revision,
        "storage": kept.to_json(),
        "id": uuid.uuid4().hex,
    }
    return settings, model


def like(template: Mapping[str, Any]) -> dict[str, Any]:
    """What an index records that is made to be a copy of another one."""
    copied = {key: value for key, value in template.items() if key != RATE}
    return copied | {"id": uuid.uuid4().hex, "version": __version__}


def _dense_dim(model: Embedder) -> int:
    """Length of the dense vectors that an index keeps: cut to 1,024 where the model was trained for it.

    They only pick candidates; half the memory loses next to nothing.
    """
    return DENSE_DIM if model.dim > DENSE_DIM and DENSE_DIM in model.matryoshka_dims else model.dim


@contextmanager
def locked(file: Path, location: str) -> Iterator[None]:
    """Hold a lock file.

    Raises:
        IndexLockedError: If another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(file, timeout=0, thread_local=False):
            yield
    except Timeout as exc:
        raise IndexLockedError(
            f"The index at {location} is being changed by another process, which uses {file.parent}: try again later."
        ) from exc


def size_on_disk(path: Path) -> int:
    """Bytes of a file or folder on disk; the engine's files are sparse, so that their lengths would tell too much."""
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        with suppress(OSError):  # somebody has just removed it
            if file.is_file():
                total += _allocated(file.stat())
    return total


def _allocated(status: os.stat_result) -> int:
    blocks: int | None = getattr(status, "st_blocks", None)  # Windows has none
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)
