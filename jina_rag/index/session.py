"""The open session of an index, which all `DocumentIndex` instances on one location share.

kb/manifest.sqlite3   documents, settings        kb/vectors/      vector store
kb/images/            screenshots and crops      kb/ocr.sqlite3   OCR cache

If the vectors are on a Qdrant server, a local assets folder contains the manifest, the images and the OCR cache.
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

from jina_rag._file_users import describe_users
from jina_rag._files import locked, size_on_disk
from jina_rag._forks import check_process
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
from jina_rag.models.runtime.device_names import DeviceNames
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
"""Lower-case names of files and folders that file managers and file systems create."""
_SYSTEM_PREFIXES = ("._", ".nfs", ".trash-")


_STOP_POLL_SECONDS = 0.05
"""Number of seconds between two checks of the stop event."""


class StoppedWaiting(Exception):  # not an error: the caller requested the stop
    """The stop event of an ingestion was set while the ingestion waited for the write lock."""


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """Options of `DocumentIndex.open` other than the location and the reranker.

    Attributes:
        embedder: Model name, absolute path of a model folder, or an embedder; None for the recorded embedder, and
            ``"lite"`` for a new index.
        storage: How vectors are stored; None for the recorded storage, and ``"exact"`` for a new index.
        create: Whether to create the index if it does not exist.
        assets_dir: For a server: absolute path of the assets folder; None for the default folder.
        api_key: For a server: the API key; None for the environment variable QDRANT_API_KEY.
        connection: For a server: fields of `QdrantConnection` that the URL sets.
        template: Settings of the index to copy; None if the new index is not a copy.
        device: Device or devices of the models that are loaded by name, as in `load_embedder`.
    """

    embedder: str | Embedder | None = None
    storage: Storage | None = None
    create: bool = True
    assets_dir: str | os.PathLike[str] | None = None
    api_key: str | None = field(default=None, repr=False)
    connection: Mapping[str, Any] = field(default_factory=dict)
    template: IndexSettings | None = None
    device: DeviceNames = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Recorded settings of an index: the embedder and the storage.

    Attributes:
        embedder: Name of the model, or the absolute path of the model folder.
        requested_embedder: The name that the caller passed; on some machines ``"lite"`` resolves to ``"lite-en"``.
        fingerprint: Fingerprint of the embedder: all settings and versions that determine the vectors.
        folder_fingerprint: Fingerprint of the contents of a model folder; None for a model loaded by name.
        revision: Commit of a model from the hub.
        dim: Length of the stored dense vectors.
        multi_dim: Length of the stored rows of the multi-vectors.
        storage: Vector storage of the index.
        id: Random id of the index, stored on the server and in the assets folder.
        schema: Version of the index format.
        version: Version of jina_rag that created the index.
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
        """Return the settings recorded in a manifest or a collection; unknown keys are ignored.

        Args:
            stored_settings: The recorded keys and values.
            location: Location of the index, for error messages.

        Raises:
            IndexCorruptError: If a setting is missing.
        """
        values = {item.name: stored_settings[item.name] for item in fields(cls) if item.name in stored_settings}
        if missing_names := [item.name for item in fields(cls) if item.name not in values]:
            raise IndexCorruptError(
                f"The index at {location} is incomplete (missing settings: {', '.join(missing_names)}). "
                "Restore a backup, or ingest the documents into a new index."
            )
        return cls(**values | {"storage": Storage.from_json(values["storage"])})

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values; the inverse of `from_json`."""
        return asdict(self) | {"storage": self.storage.to_json()}

    @property
    def store_options(self) -> dict[str, Any]:
        """Keyword arguments that open the vector store."""
        return {"dim": self.dim, "multi_dim": self.multi_dim, "storage": self.storage}

    @property
    def has_loadable_model(self) -> bool:
        """Whether `load_embedder` can load the model; False for an embedder object of a custom class."""
        return self.embedder in MODELS or (self.revision or self.folder_fingerprint) is not None

    def is_model(self, name: str) -> bool:
        """Return whether `name` is the name of the model, or a folder with the contents of the model folder."""
        content = _folder_content(name)
        if content is not None:
            return content == self.folder_fingerprint
        return name in (self.embedder, self.requested_embedder)


def new_settings(options: OpenOptions) -> tuple[IndexSettings, Embedder | None]:
    """Return the settings and the embedder of a new index. For a copy of an index, the embedder is None."""
    if options.template is not None:
        return replace(options.template, id=uuid.uuid4().hex, version=__version__), None
    model_or_name = options.embedder if options.embedder is not None else DEFAULT_EMBEDDER
    model = load_embedder(model_or_name, device=options.device) if isinstance(model_or_name, str) else model_or_name
    storage = options.storage or Storage.named("exact")
    settings = IndexSettings(
        embedder=model.name,
        requested_embedder=model_or_name if isinstance(model_or_name, str) else model.name,
        fingerprint=model.fingerprint,
        folder_fingerprint=_folder_content(model.name),
        revision=model.revision,
        # Dense vectors only select candidates. For a model that was trained for Matryoshka truncation, truncated dense
        # vectors take half of the memory at almost no loss of quality.
        dim=DENSE_DIM if model.dim > DENSE_DIM and DENSE_DIM in model.matryoshka_dims else model.dim,
        multi_dim=row_dim(model, storage.multi_dim),
        storage=storage,
    )
    return settings, model


@dataclass(eq=False)
class IndexSession:
    """An open index.

    Attributes:
        location: Location for messages: the folder, or the URL of the collection.
        root: Folder of the manifest, the images and the OCR cache.
        resources: Vector store, manifest, images and OCR cache.
        settings: The recorded settings.
        model: The embedder, if the embedder was loaded to create the index; otherwise None.
        connection: Connection settings of the server.
        is_remote: Whether a server stores the vectors.
        is_guest: Whether the manifest of the index is in an assets folder other than `root`; the index is then
            read-only.
        write_lock: Lock held while the index is changed.
        process: Id of the process that opened the index, the only process that can use the session.
        model_device: Device or devices on which `model` was loaded.
    """

    location: str
    root: Path
    resources: IndexResources
    settings: IndexSettings
    model: Embedder | None = None
    connection: QdrantConnection = field(default_factory=QdrantConnection)
    is_remote: bool = False
    is_guest: bool = False
    write_lock: threading.Lock = field(default_factory=threading.Lock)
    process: int = field(default_factory=os.getpid)
    model_device: DeviceNames = "auto"

    def load_embedder(self, name: str | None = None, device: DeviceNames = "auto") -> Embedder:
        """Return the embedder that the index was built with.

        Args:
            name: Current folder of the model, as an absolute path; other values are ignored. Default: the recorded name
                or folder.
            device: Device or devices, as in `jina_rag.load_embedder`. With ``"auto"``, the embedder that was loaded to
                create the index is returned on any device.

        Raises:
            ModelNotFoundError: If the model no longer exists.
            IndexMismatchError: If the fingerprint of the installed model differs from the recorded fingerprint.
        """
        folder = name if name is not None and os.path.isabs(name) else None
        try:
            shared = self.model if device in ("auto", self.model_device) else None
            model = shared or _load_recorded(self.settings, folder, device)
        except ModelNotFoundError as exc:
            raise ModelNotFoundError(
                f"{exc} The index at {self.location} was built with this model. If the model folder was moved, "
                "open the index with embedder=FOLDER (--embedder FOLDER)."
            ) from exc
        self.check_model(model)
        return model

    def check_process(self) -> None:
        """Raise an error in a forked child of the process that opened the index.

        Raises:
            IndexStateError: In a forked child.
        """
        check_process(self.process, self.location)

    def check(self, options: OpenOptions) -> None:
        """Raise an error if `options` do not match the open index.

        Args:
            options: Options of `DocumentIndex.open`.

        Raises:
            IndexMismatchError: If the index has another model or storage.
            IndexStateError: If the index is open in this process with another assets folder, or with other connection
                settings for the server.
        """
        mismatched_names = [
            name for name, value in options.connection.items() if value != getattr(self.connection, name)
        ]
        if options.api_key is not None and options.api_key != self.connection.key():
            mismatched_names.append("api_key")
        if mismatched_names:
            raise IndexStateError(
                f"The index at {self.location} is already open in this process with another {mismatched_names[0]}. "
                f"Close the open index, or omit {mismatched_names[0]}."
            )
        storage = self.settings.storage
        if options.storage not in (None, storage):
            raise IndexMismatchError(
                f"The index at {self.location} was built with storage {storage}, not {options.storage}. Omit storage "
                "(--storage), or ingest into a new index."
            )
        if options.assets_dir is not None and os.path.realpath(options.assets_dir) != os.path.realpath(self.root):
            raise IndexStateError(
                f"The index at {self.location} is already open in this process with assets_dir={self.root}, not "
                f"{options.assets_dir}. Close the open index, or omit assets_dir (--assets-dir)."
            )
        self.check_model(options.embedder)

    def check_model(self, embedder: str | Embedder | None) -> None:
        """Raise an error if the vectors of an embedder do not match the index.

        Args:
            embedder: Model name, absolute path of a model folder, or an embedder; None is always accepted.

        Raises:
            IndexMismatchError: If the index was built with another embedder.
        """
        settings = self.settings
        if isinstance(embedder, str):
            if not settings.is_model(embedder):
                raise IndexMismatchError(
                    f"The index at {self.location} was built with the embedder {settings.embedder!r}, not "
                    f"{embedder!r}. Omit embedder (--embedder), or ingest into a new index."
                )
        elif embedder is not None and embedder.fingerprint != settings.fingerprint:
            raise IndexMismatchError(
                f"The index at {self.location} was built with {settings.fingerprint} (jina-rag {settings.version}), "
                f"but the embedder is {embedder.fingerprint}. Load the embedder with the task, max_pixels "
                "and revision of the index, or ingest into a new index."
            )

    @contextmanager
    def write_session(self, stop: threading.Event | None = None) -> Iterator[None]:
        """Hold the write lock of the index, which only one thread and, on a server, one process can hold.

        Args:
            stop: Event that ends the wait for the lock. Default: wait without limit.

        Raises:
            StoppedWaiting: If `stop` is set while this thread waits for the lock.
            IndexLockedError: If another process is changing the index.
            IndexStateError: If the index on a server was filled with another assets folder.
        """
        if self.is_guest:
            raise IndexStateError(
                f"The index at {self.location} is read-only here: the manifest is in an assets folder other than "
                f"{self.root}. Pass the other assets folder as assets_dir (--assets-dir), or ingest into another "
                "collection."
            )
        lock_file = self.root / "lock"

        def message() -> str:
            user = describe_users(lock_file) or "another process"
            return (
                f"The index at {self.location} is locked by {user}, which uses {self.root}. Retry when that process "
                "has finished."
            )

        # For an index folder, the vector store locks the folder.
        lock = nullcontext() if not self.is_remote else locked(lock_file, message)
        while not self.write_lock.acquire(timeout=_STOP_POLL_SECONDS):
            if stop is not None and stop.is_set():
                raise StoppedWaiting
        try:
            with lock, write_session(self.resources):
                yield
        finally:
            self.write_lock.release()

    def bytes_by_part(self) -> dict[str, int]:
        """Return the number of bytes on disk of each part: parts of the vector store, images, manifest, OCR cache."""
        sizes = {f"vectors: {name}": size for name, size in self.resources.store.bytes_by_part().items()}
        files = {"images": IMAGES, "manifest": MANIFEST, "ocr": OCR}
        return sizes | {name: size_on_disk(self.root / file) for name, file in files.items()}


def open_folder(root: Path, options: OpenOptions) -> IndexSession:
    """Open or create the index in the folder `root` (see `DocumentIndex.open`).

    Args:
        root: The folder.
        options: The options of `DocumentIndex.open`.

    Raises:
        InvalidInputError: If `root` is a file.
        IndexNotFoundError: If `root` has no index and `options.create` is False.
        IndexMismatchError: If the index does not match the options.
        IndexStateError: If `root` contains other files or cannot be created.
    """
    if root.exists() and not root.is_dir():
        raise InvalidInputError(f"{root} is a file. Pass a folder as the location of the index (--index).")
    is_new = not (root / MANIFEST).is_file()
    no_index = f"No index at {root}. Create one with `jina-rag ingest PATH --index {root}`."
    if is_new and not options.create:
        raise IndexNotFoundError(no_index)
    if is_new and root.is_dir() and not all(_is_ignored(entry.name) for entry in root.iterdir()):
        raise IndexStateError(f"{root} contains other files. Choose an empty or a new folder for the index (--index).")
    # The model is loaded before the first write, so that a misspelled model name leaves no incomplete index.
    settings, model = new_settings(options) if is_new else (None, None)
    with ExitStack() as on_failure:
        manifest = open_manifest(root)
        on_failure.callback(manifest.close)
        stored_settings = manifest.settings()
        if stored_settings:
            settings = IndexSettings.from_json(stored_settings, root)
        elif not options.create:  # the process that created the manifest was killed before writing the settings
            raise IndexNotFoundError(no_index)
        elif settings is None:
            settings, model = new_settings(options)
        # Imported here so that `import jina_rag` does not load the engine of the vector store.
        from jina_rag.stores.qdrant.edge import EdgeStore

        # The settings are written last. If the settings exist, a missing store means lost vectors, which an empty store
        # must not hide.
        store = EdgeStore.open(root / VECTORS, **settings.store_options, create=not stored_settings)
        on_failure.callback(store.close)
        session = IndexSession(
            str(root), root, resources_in(root, manifest, store), settings, model, model_device=options.device
        )
        session.check(options)
        if not stored_settings:
            manifest.write_settings(settings.to_json())
        on_failure.pop_all()
    return session


def open_manifest(root: Path) -> Manifest:
    """Open the manifest in an assets folder. A missing folder is created with permissions for the owner only.

    Raises:
        IndexStateError: If the folder cannot be created.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not (root / MANIFEST).is_file():
            root.chmod(0o700)
    except OSError as exc:
        raise IndexStateError(
            f"The index folder {root} cannot be created: {exc.strerror}. Check the permissions, or choose another "
            "folder."
        ) from exc
    return Manifest(root / MANIFEST)


def resources_in(root: Path, manifest: Manifest, store: MultiVectorStore) -> IndexResources:
    """Return the resources of an index: an open manifest and store, and the images and OCR cache in `root`."""
    return IndexResources(store, manifest, ImageFiles(root / IMAGES), OcrCache(root / OCR))


def load_recorded(root: Path) -> Embedder | None:
    """Load the recorded embedder of an index without opening the index; return None if no index exists.

    A caller can thus load the weights before the index is open. While the caller holds the embedder, a session of the
    index shares the loaded weights.

    Args:
        root: Folder of the index.
    """
    stored_settings = peek_settings(root / MANIFEST)
    return _load_recorded(IndexSettings.from_json(stored_settings, root)) if stored_settings else None


def _load_recorded(settings: IndexSettings, folder: str | None = None, device: DeviceNames = "auto") -> Embedder:
    """Load the recorded model at the recorded commit, because the hub may have newer commits."""
    return load_embedder(folder or settings.embedder, revision=settings.revision, device=device)


def _folder_content(name: str) -> str | None:
    """Return the fingerprint of the contents of a model folder; None if `name` is not the absolute path of a folder."""
    return folder_fingerprint(Path(name)) if os.path.isabs(name) and os.path.isdir(name) else None


def _is_ignored(name: str) -> bool:
    """Return whether a file or folder may already exist in the folder of a new index."""
    return name == VECTORS or name.lower() in _SYSTEM_NAMES or name.lower().startswith(_SYSTEM_PREFIXES)
