"""What lies in an index folder, opened together and shared by every handle of the process.

kb/manifest.sqlite3   documents, settings        kb/vectors/   the store
kb/images/            screenshots and crops
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jina_rag._version import __version__
from jina_rag.errors import (
    IndexCorruptError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexStateError,
    InvalidInputError,
)
from jina_rag.models.registry import load_embedder
from jina_rag.protocols import Embedder, MultiVectorStore
from jina_rag.retrieval.manifest import SCHEMA_VERSION, Manifest, peek_settings
from jina_rag.stores.images import ImageFiles

MANIFEST = "manifest.sqlite3"
VECTORS = "vectors"
IMAGES = "images"
DEFAULT_EMBEDDER = "lite"
DENSE_DIM = 1024


@dataclass
class Handle:
    """An open index folder.

    Attributes:
        root: The folder.
        store: Its vectors.
        manifest: Its documents.
        images: Its pictures.
        settings: What it was built with.
        users: How many `DocumentIndex` objects share it.
        writing: Held by whoever changes the index.
        model: The model, where one was at hand when the index was opened.
    """

    root: Path
    store: MultiVectorStore
    manifest: Manifest
    images: ImageFiles
    settings: dict[str, Any]
    users: int = 0
    writing: threading.Lock = field(default_factory=threading.Lock)
    model: Embedder | None = None

    def embedder(self) -> Embedder:
        """Load the model that the index was built with.

        Raises:
            IndexMismatchError: If this installation's model of that name makes other vectors.
        """
        # By the recorded name, not the asked one: "lite" stands for "lite-en" on some machines only.
        embedder = self.model or _load(self.settings)
        check_model(embedder, self)
        return embedder

    def release(self) -> None:
        """Flush and close everything."""
        self.store.close()
        self.manifest.close()


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
                f"The index at {handle.root} was built with the model {settings['embedder']!r}, not with {embedder!r}: "
                "open it without naming a model, or ingest into a new folder."
            )
    elif embedder.fingerprint != settings["fingerprint"]:
        raise IndexMismatchError(
            f"The index at {handle.root} was built with {settings['fingerprint']} (jina-rag {settings['version']}), "
            f"but the model at hand is {embedder.fingerprint}: ingest into a new folder."
        )


def open_handle(root: Path, embedder: str | Embedder | None, *, create: bool) -> Handle:
    """Open the index in `root`, or make one; see `DocumentIndex.open`."""
    if root.exists() and not root.is_dir():
        raise InvalidInputError(f"{root} is a file; an index is a folder.")
    made_here = not (root / MANIFEST).is_file()
    if made_here and not create:
        raise IndexNotFoundError(f"There is no index at {root}: make one with `jina-rag ingest FOLDER --index {root}`.")
    if made_here and root.is_dir() and any(entry.name != VECTORS for entry in root.iterdir()):
        raise IndexStateError(f"{root} holds other files: choose an empty or a new folder for the index.")
    # Before anything is written, so that a misspelt model leaves no half-made index behind.
    fresh = _fresh(embedder) if made_here else None
    try:
        root.mkdir(parents=True, exist_ok=True)
        if made_here:
            root.chmod(0o700)
    except OSError as exc:
        raise IndexStateError(f"The index folder {root} cannot be made: {exc.strerror}.") from exc
    manifest = Manifest(root / MANIFEST)
    try:
        return _open(root, manifest, fresh, embedder)
    except BaseException:
        manifest.close()
        raise


def _open(
    root: Path,
    manifest: Manifest,
    fresh: tuple[dict[str, Any], Embedder] | None,
    embedder: str | Embedder | None,
) -> Handle:
    settings, model = manifest.settings(), None
    if not settings:  # a new index, or one that a process left that was killed here
        settings, model = fresh or _fresh(embedder)
    if settings.get("schema") != SCHEMA_VERSION:
        raise IndexCorruptError(
            f"The index at {root} has the format {settings.get('schema')!r}; this version of jina-rag reads "
            f"{SCHEMA_VERSION}. Ingest the documents again into a new folder."
        )
    # Imported here: `import jina_rag` must not load the engine.
    from jina_rag.stores.qdrant_edge import EdgeStore

    store = EdgeStore.open(root / VECTORS, dim=settings["dim"], multi_dim=settings["multi_dim"])
    handle = Handle(root, store, manifest, ImageFiles(root / IMAGES), settings, model=model)
    try:
        check_model(embedder, handle)
        if not manifest.settings():
            manifest.write_settings(settings)
    except BaseException:
        store.close()
        raise
    return handle


def load_recorded(root: Path) -> Embedder | None:
    """Load the model of an index without opening it; None where there is no index.

    For a head start: whoever holds the result shares its weights with a handle that is opened meanwhile.
    """
    settings = peek_settings(root / MANIFEST)
    return _load(settings) if settings else None


def _load(settings: Mapping[str, Any]) -> Embedder:
    """The recorded model, at the commit that was recorded: a branch of the hub may have moved on."""
    return load_embedder(settings["embedder"], revision=settings.get("revision"))


def _fresh(embedder: str | Embedder | None) -> tuple[dict[str, Any], Embedder]:
    """What a new index records about its model, and that model."""
    asked = embedder if embedder is not None else DEFAULT_EMBEDDER
    model = load_embedder(asked) if isinstance(asked, str) else asked
    settings = {
        "schema": SCHEMA_VERSION,
        "version": __version__,
        "asked": asked if isinstance(asked, str) else model.name,
        "embedder": model.name,
        "fingerprint": model.fingerprint,
        "dim": _dense_dim(model),
        "multi_dim": model.multi_dim,
        "revision": getattr(model, "revision", None),
    }
    return settings, model


def _dense_dim(model: Embedder) -> int:
    """Length of the dense vectors that an index keeps: cut to 1,024 where the model was trained for it.

    They only pick candidates; half the memory loses next to nothing.
    """
    dims: Sequence[int] = getattr(model, "matryoshka_dims", ())
    return DENSE_DIM if model.dim > DENSE_DIM and DENSE_DIM in dims else model.dim
