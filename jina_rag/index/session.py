"""What a process holds of an open index, shared by every `DocumentIndex` on it.

kb/manifest.sqlite3   documents, settings        kb/vectors/      the store
kb/images/            screenshots and crops      kb/ocr.sqlite3   what OCR has read

With a Qdrant server the vectors are there, and the rest in a folder of files.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from jina_rag._files import locked, size_on_disk
from jina_rag._version import __version__
from jina_rag.catalog.maintenance import write_session
from jina_rag.catalog.manifest import SCHEMA_VERSION, Manifest, peek_settings
from jina_rag.catalog.resources import IndexResources
from jina_rag.compression import row_dim
from jina_rag.config import Storage
from jina_rag.errors import (
    IndexCorruptError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexStateError,
    InvalidInputError,
    ModelNotFoundError,
)
from jina_rag.models.catalogue import MODELS
from jina_rag.models.registry import load_embedder
from jina_rag.models.runtime.checkpoints import folder_fingerprint
from jina_rag.ocr.cache import OcrCache
from jina_rag.protocols import Embedder, MultiVectorStore
from jina_rag.stores.images import ImageFiles
from jina_rag.stores.qdrant.client import QdrantConnection

MANIFEST = "manifest.sqlite3"
VECTORS = "vectors"
IMAGES = "images"
OCR = "ocr.sqlite3"
DEFAULT_EMBEDDER = "lite"
DENSE_DIM = 1024
_SYSTEM_NAMES = (
    ".ds_store", ".localized", ".spotlight-v100", ".fseventsd", ".trashes", ".temporaryitems", "icon\r", "thumbs.db",
    "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", ".directory", "lost+found", "@eadir",
)  # fmt: skip
"""What file managers and file systems leave in a folder, in lower case."""
_SYSTEM_PREFIXES = ("._", ".nfs", ".trash-")


_PATIENCE = 0.05
"""Seconds between two looks at whether to stop."""


class StoppedWaiting(Exception):  # no error: the caller has asked for it
    """A run was stopped before it began."""


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """What `DocumentIndex.open` is given besides the location and the reranker.

    Attributes:
        embedder: Name of a model, the absolute path of its folder, or an embedder.
        storage: How vectors are kept; None for what the index has.
        create: Whether to make an index where there is none.
        assets_dir: With a server: the folder of files.
        api_key: With a server.
        connection: With a server: fields of `QdrantConnection` that its address has.
        template: Settings of the index that a new one is to be a copy of.
    """

    embedder: str | Embedder | None = None
    storage: Storage | None = None
    create: bool = True
    assets_dir: str | os.PathLike[str] | None = None
    api_key: str | None = field(default=None, repr=False)
    connection: Mapping[str, Any] = field(default_factory=dict)
    template: IndexSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """What an index records about how it was built.

    Attributes:
        embedder: Name of the model, or the absolute path of its folder.
        requested_embedder: The name that was asked for: "lite" stands for "lite-en" on some machines only.
        fingerprint: What the model's vectors depend on.
        folder_fingerprint: What a model folder held; None for a model that is known by its name.
        revision: Commit of a model from the hub.
        dim: Length of the dense vectors that are kept.
        multi_dim: Length of the rows of the multi-vectors that are kept.
        storage: How vectors are kept.
        id: Random; the same on a server and in its folder of files.
        schema: Version of the format.
        version: Of jina_rag that made the index.
    """

    embedder: str
    requested_embedder: str
    fingerprint: str
    folder_fingerprint: str | None
    revision: str | None
    dim: int
    multi_dim: int
    storage: Storage
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    schema: int = SCHEMA_VERSION
    version: str = __version__

    @classmethod
    def from_json(cls, stored_settings: Mapping[str, Any], location: object) -> Self:
        """Settings as the manifest or the collection of an index has them, among other keys.

        Raises:
            IndexCorruptError: If one is missing.
        """
        values = {item.name: stored_settings[item.name] for item in fields(cls) if item.name in stored_settings}
        if missing_names := [item.name for item in fields(cls) if item.name not in values]:
            raise IndexCorruptError(
                f"The index at {location} does not say what it was built with (missing: {', '.join(missing_names)}): "
                "restore it, or ingest the documents into a new place."
            )
        return cls(**values | {"storage": Storage.from_json(values["storage"])})

    def to_json(self) -> dict[str, Any]:
        """The reverse of `from_json`."""
        return asdict(self) | {"storage": self.storage.to_json()}

    @property
    def store_options(self) -> dict[str, Any]:
        """How its store is opened."""
        return {"dim": self.dim, "multi_dim": self.multi_dim, "storage": self.storage}

    @property
    def has_loadable_model(self) -> bool:
        """Whether `load_embedder` knows the model; not one that is an object of a user's class."""
        return self.embedder in MODELS or (self.revision or self.folder_fingerprint) is not None

    def is_model(self, name: str) -> bool:
        """Whether a name is that of the model, or a folder holds what the model's folder held."""
        content = _folder_content(name)
        if content is not None:
            return content == self.folder_fingerprint
        return name in (self.embedder, self.requested_embedder)


def new_settings(options: OpenOptions) -> tuple[IndexSettings, Embedder | None]:
    """What a new index records about its model, and that model unless the index is to be a copy."""
    if options.template is not None:
        return replace(options.template, id=uuid.uuid4().hex, version=__version__), None
    model_or_name = options.embedder if options.embedder is not None else DEFAULT_EMBEDDER
    model = load_embedder(model_or_name) if isinstance(model_or_name, str) else model_or_name
    storage = options.storage or Storage.named("exact")
    settings = IndexSettings(
        embedder=model.name,
        requested_embedder=model_or_name if isinstance(model_or_name, str) else model.name,
        fingerprint=model.fingerprint,
        folder_fingerprint=_folder_content(model.name),
        revision=model.revision,
        # Dense vectors only pick candidates: cut where the model was trained for it, half the memory loses next to
        # nothing.
        dim=DENSE_DIM if model.dim > DENSE_DIM and DENSE_DIM in model.matryoshka_dims else model.dim,
        multi_dim=row_dim(model, storage.multi_dim),
        storage=storage,
    )
    return settings, model


@dataclass(eq=False)
class IndexSession:
    """An open index.

    Attributes:
        location: Where it is, as a person calls it: the folder, or the server's address and the collection.
        root: The folder with manifest and images.
        resources: Its vectors, documents, images.
        settings: What it was built with.
        model: The model, where one was at hand when the index was made.
        connection: How its server is reached.
        is_remote: Whether its vectors are on a server.
        is_guest: Whether the index's manifest is elsewhere: it can be searched, not changed.
        writing: Held by whoever changes the index.
    """

    location: str
    root: Path
    resources: IndexResources
    settings: IndexSettings
    model: Embedder | None = None
    connection: QdrantConnection = field(default_factory=QdrantConnection)
    is_remote: bool = False
    is_guest: bool = False
    writing: threading.Lock = field(default_factory=threading.Lock)

    def load_embedder(self, name: str | None = None) -> Embedder:
        """Load the model that the index was built with.

        Args:
            name: Where its folder is now; other names are passed over for the recorded one.

        Raises:
            ModelNotFoundError: If it is not there any more.
            IndexMismatchError: If this installation's model of that name makes other vectors.
        """
        folder = name if name is not None and os.path.isabs(name) else None
        try:
            model = self.model or _load_recorded(self.settings, folder)
        except ModelNotFoundError as exc:
            raise ModelNotFoundError(
                f"{exc} The index at {self.location} was built with it: if its folder was moved, open the index with "
                "embedder=FOLDER."
            ) from exc
        self.check_model(model)
        return model

    def check(self, options: OpenOptions) -> None:
        """Refuse options that do not fit the index.

        Raises:
            IndexMismatchError: If it has another model or storage; with the way out.
            IndexStateError: If it is open in this process with another folder of files, or its server is reached
                otherwise.
        """
        others = [name for name, value in options.connection.items() if value != getattr(self.connection, name)]
        if options.api_key is not None and options.api_key != self.connection.key():
            others.append("api_key")
        if others:
            raise IndexStateError(
                f"The index at {self.location} is open in this process with another {others[0]}: close it first, or "
                f"leave {others[0]} out."
            )
        storage = self.settings.storage
        if options.storage not in (None, storage):
            raise IndexMismatchError(
                f"The index at {self.location} keeps its vectors as {storage}, not as {options.storage}: open it "
                "without naming a storage, or ingest into a new place."
            )
        if options.assets_dir is not None and os.path.realpath(options.assets_dir) != os.path.realpath(self.root):
            raise IndexStateError(
                f"The index at {self.location} is open in this process with the folder of files {self.root}, not "
                f"{options.assets_dir}: close it first, or leave assets_dir out."
            )
        self.check_model(options.embedder)

    def check_model(self, embedder: str | Embedder | None) -> None:
        """Refuse a model whose vectors do not fit the index.

        Raises:
            IndexMismatchError: With the way out.
        """
        settings = self.settings
        if isinstance(embedder, str):
            if not settings.is_model(embedder):
                raise IndexMismatchError(
                    f"The index at {self.location} was built with the model {settings.embedder!r}, not with "
                    f"{embedder!r}: open it without naming a model, or ingest into a new folder."
                )
        elif embedder is not None and embedder.fingerprint != settings.fingerprint:
            raise IndexMismatchError(
                f"The index at {self.location} was built with {settings.fingerprint} (jina-rag {settings.version}), "
                f"but the model at hand is {embedder.fingerprint}: pass an embedder that is loaded as that one was "
                "(task, max_pixels, revision), or ingest into a new folder."
            )

    @contextmanager
    def changing(self, stop: threading.Event | None = None) -> Iterator[None]:
        """Hold this while the index is changed: one thread, and of a server's index one process, at a time.

        Args:
            stop: Ends the wait for another thread that changes the index.

        Raises:
            StoppedWaiting: If `stop` was set before it was this thread's turn.
            IndexLockedError: If another process changes the index.
            IndexStateError: If the index on a server was filled with another folder of files than this one.
        """
        if self.is_guest:
            raise IndexStateError(
                f"The index at {self.location} was filled with another folder of files than {self.root}: change it "
                "with that one (--assets-dir), or ingest into a collection of your own."
            )
        message = (
            f"The index at {self.location} is being changed by another process, which uses {self.root}: try again "
            "later."
        )
        # The embedded engine has locked its folder itself.
        lock = nullcontext() if not self.is_remote else locked(self.root / "lock", message)
        while not self.writing.acquire(timeout=_PATIENCE):
            if stop is not None and stop.is_set():
                raise StoppedWaiting
        try:
            with lock, write_session(self.resources):
                yield
        finally:
            self.writing.release()

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes on disk: the parts of the store as far as it can tell, images, manifest, what OCR has read."""
        sizes = {f"vectors: {name}": size for name, size in self.resources.store.bytes_by_part().items()}
        files = {"images": IMAGES, "manifest": MANIFEST, "ocr": OCR}
        return sizes | {name: size_on_disk(self.root / file) for name, file in files.items()}


def open_folder(root: Path, options: OpenOptions) -> IndexSession:
    """Open the index in the folder `root`, or make one; see `DocumentIndex.open`."""
    if root.exists() and not root.is_dir():
        raise InvalidInputError(f"{root} is a file; an index is a folder.")
    is_new = not (root / MANIFEST).is_file()
    no_index = f"There is no index at {root}: make one with `jina-rag ingest FOLDER --index {root}`."
    if is_new and not options.create:
        raise IndexNotFoundError(no_index)
    if is_new and root.is_dir() and not all(_is_ignored(entry.name) for entry in root.iterdir()):
        raise IndexStateError(f"{root} holds other files: choose an empty or a new folder for the index.")
    # Before anything is written, so that a misspelt model leaves no half-made index behind.
    settings, model = new_settings(options) if is_new else (None, None)
    with ExitStack() as on_failure:
        manifest = open_manifest(root)
        on_failure.callback(manifest.close)
        stored_settings = manifest.settings()
        if stored_settings:
            settings = IndexSettings.from_json(stored_settings, root)
        elif not options.create:  # a process was killed that made it, here and below
            raise IndexNotFoundError(no_index)
        elif settings is None:
            settings, model = new_settings(options)
        # Imported here: `import jina_rag` must not load the engine.
        from jina_rag.stores.qdrant.edge import EdgeStore

        # The settings are written last: an index that has them and no vectors has lost these.
        store = EdgeStore.open(root / VECTORS, **settings.store_options, create=not stored_settings)
        on_failure.callback(store.close)
        session = IndexSession(str(root), root, resources_in(root, manifest, store), settings, model)
        session.check(options)
        if not stored_settings:
            manifest.write_settings(settings.to_json())
        on_failure.pop_all()
    return session


def open_manifest(root: Path) -> Manifest:
    """The manifest in a folder; where there is none it is made, and the folder is its owner's alone."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not (root / MANIFEST).is_file():
            root.chmod(0o700)
    except OSError as exc:
        raise IndexStateError(f"The index folder {root} cannot be made: {exc.strerror}.") from exc
    return Manifest(root / MANIFEST)


def resources_in(root: Path, manifest: Manifest, store: MultiVectorStore) -> IndexResources:
    """An open manifest and store with the images and the words of OCR that lie in a folder."""
    return IndexResources(store, manifest, ImageFiles(root / IMAGES), OcrCache(root / OCR))


def load_recorded(root: Path) -> Embedder | None:
    """Load the model of an index without opening it; None where there is no index.

    For a head start: whoever holds the result shares its weights with a session that is opened meanwhile.
    """
    stored_settings = peek_settings(root / MANIFEST)
    return _load_recorded(IndexSettings.from_json(stored_settings, root)) if stored_settings else None


def _load_recorded(settings: IndexSettings, folder: str | None = None) -> Embedder:
    """The recorded model, at the commit that was recorded: a branch of the hub may have moved on."""
    return load_embedder(folder or settings.embedder, revision=settings.revision)


def _folder_content(name: str) -> str | None:
    """What the model folder of that absolute path holds; None for other names."""
    return folder_fingerprint(Path(name)) if os.path.isabs(name) and os.path.isdir(name) else None


def _is_ignored(name: str) -> bool:
    """Whether a file or a folder does not keep the folder that it lies in from becoming an index."""
    return name == VECTORS or name.lower() in _SYSTEM_NAMES or name.lower().startswith(_SYSTEM_PREFIXES)
