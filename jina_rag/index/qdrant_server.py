"""An index whose vectors are on a Qdrant server: its address, its folder of files, and that both belong together.

The server keeps vectors, words, places and what the index was built with: enough to search it from anywhere. Page
images and the manifest stay in a folder, as they do beside an embedded index; who fills the index needs it, who only
searches does without and gets hits whose `image_path` leads nowhere on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from jina_rag._extras import require
from jina_rag.catalog.maintenance import IndexResources
from jina_rag.catalog.manifest import Manifest, check_schema
from jina_rag.config import Storage
from jina_rag.errors import IndexCorruptError, IndexMismatchError, IndexNotFoundError, InvalidInputError
from jina_rag.index.session import (
    IMAGES,
    MANIFEST,
    OCR,
    Handle,
    check_model,
    check_storage,
    fresh_settings,
    like,
    open_manifest,
)
from jina_rag.ocr.cache import OcrCache
from jina_rag.protocols import Embedder
from jina_rag.stores.images import ImageFiles
from jina_rag.stores.qdrant.server import QdrantConnection, QdrantStore

_client: Any = None
"""A client to use in the place of one of our own; for tests against the client's stand-in."""
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class Address:
    """A collection of a server, and how to reach it."""

    server: str
    collection: str
    connection: QdrantConnection

    @classmethod
    def parse(cls, location: str, *, api_key: str | None = None) -> Address:
        """Read ``http://host:6333/collection?grpc=true&timeout=120&shards=3&replicas=2&ca=FILE``.

        Raises:
            InvalidInputError: If it names no collection, or an option that there is not.
        """
        parts = urlsplit(location)
        if "@" in parts.netloc:  # before any message that shows the address
            raise InvalidInputError(
                "The address of an index must not hold a user or a password: give the key as api_key or in the "
                "environment variable QDRANT_API_KEY."
            )
        if parts.scheme not in ("http", "https"):
            raise InvalidInputError(
                f"{parts.scheme}://… is no address of an index: give a folder, or http://HOST:6333/COLLECTION."
            )
        path, _, collection = parts.path.rstrip("/").rpartition("/")
        if not collection:
            raise InvalidInputError(
                f"{location} names no collection: write it behind the server's address, as http://HOST:6333/COLLECTION."
            )
        options = [_option(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True)]
        server = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        return cls(server, unquote(collection), QdrantConnection(api_key=api_key, **dict(options)))

    @property
    def assets_dir(self) -> Path:
        """Where this user keeps the images and the manifest of this collection, if nothing else is said."""
        dirs = require("platformdirs", extra="qdrant")
        name = re.sub(r"[^\w.-]+", "_", f"{urlsplit(self.server).netloc}_{self.collection}")
        folder: Path = dirs.user_data_path("jina-rag", appauthor=False) / "servers" / name
        return folder

    def __str__(self) -> str:
        return f"{self.server}/{self.collection}"


def open_server(
    location: str,
    embedder: str | Embedder | None,
    *,
    create: bool,
    storage: str | Storage | None = None,
    assets_dir: Path | None = None,
    api_key: str | None = None,
    template: Mapping[str, Any] | None = None,
) -> Handle:
    """Open the index in a collection, or make one; see `DocumentIndex.open`."""
    address = Address.parse(location, api_key=api_key)
    facts = QdrantStore.recorded(
        address.server, collection=address.collection, connection=address.connection, client=_client
    )
    model: Embedder | None = None
    if facts is None:
        if not create:
            raise IndexNotFoundError(
                f"There is no index at {address}: make one with `jina-rag ingest FOLDER --index {address}`."
            )
        settings, model = (like(template), None) if template else fresh_settings(embedder, storage)
    else:
        settings = facts
    check_schema(settings, str(address))
    kept = Storage.from_json(settings["storage"])
    check_storage(storage, kept, str(address))
    root = assets_dir or address.assets_dir
    manifest = open_manifest(root, private=not (root / MANIFEST).is_file())
    try:
        _check_files(manifest, settings, address, root, made_here=facts is None)
        store = QdrantStore.open(
            address.server,
            collection=address.collection,
            dim=settings["dim"],
            multi_dim=settings["multi_dim"],
            connection=address.connection,
            facts=settings,
            storage=kept,
            client=_client,
        )
    except BaseException:
        manifest.close()
        raise
    parts = IndexResources(store, manifest, ImageFiles(root / IMAGES), OcrCache(root / OCR))
    guest = facts is not None and not manifest.settings()
    handle = Handle(str(address), root, parts, settings, storage=kept, model=model, guard=root / "lock", guest=guest)
    try:
        check_model(embedder, handle)
        if facts is None:
            manifest.write_settings(settings)
    except BaseException:
        handle.release()
        raise
    return handle


def _check_files(
    manifest: Manifest, settings: Mapping[str, Any], address: Address, root: Path, *, made_here: bool
) -> None:
    """A folder of files belongs to one index."""
    noted = manifest.settings()
    if not noted:
        return
    if made_here and manifest.documents():
        raise IndexCorruptError(
            f"There is no collection at {address} any more, but {root} still lists the documents of one: delete that "
            "folder to begin anew, or name another one for the files."
        )
    if not made_here and noted.get("id") != settings.get("id"):
        raise IndexMismatchError(
            f"The folder {root} holds the files of another index than the one at {address}: name another folder for "
            "the files."
        )


def _option(name: str, value: str) -> tuple[str, Any]:
    """One option of an address as a field of `QdrantConnection`."""
    numbers = {"timeout": "timeout", "retries": "retries", "shards": "shard_number", "replicas": "replication_factor",
               "consistency": "write_consistency", "grpc_port": "grpc_port"}  # fmt: skip
    if name == "ca":
        return "verify", value
    if name in ("grpc", "verify"):
        if value.lower() not in _FLAGS:
            raise InvalidInputError(f"{name}={value} in the index's address: write true or false.")
        return ("prefer_grpc" if name == "grpc" else "verify"), _FLAGS[value.lower()]
    if name not in numbers:
        known = ", ".join(sorted([*numbers, "ca", "grpc", "verify"]))
        raise InvalidInputError(f"{name!r} in the index's address is no option: there are {known}.")
    try:
        return numbers[name], float(value) if name == "timeout" else int(value)
    except ValueError:
        raise InvalidInputError(f"{name}={value} in the index's address: write a number.") from None
