"""Indexes whose vectors are on a Qdrant server: the URL, the local assets folder, and how to open the index.

The server stores vectors, words, file locations and the settings of the index, which is enough to search from any
machine. Page images and the manifest stay in a local assets folder, which has the layout of an index folder. Changing
the index requires the assets folder. A search without the assets folder returns hits, but `ScoredPage.image_path` is
the path of a missing file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from jina_rag._extras import require
from jina_rag.catalog.manifest import Manifest, check_schema
from jina_rag.errors import (
    IndexCorruptError,
    IndexMismatchError,
    IndexNotFoundError,
    InvalidInputError,
)
from jina_rag.index.session import IndexSession, IndexSettings, OpenOptions, new_settings, open_manifest, resources_in
from jina_rag.stores.qdrant.client import checked_url
from jina_rag.stores.qdrant.server import QdrantConnection, QdrantStore

_client: Any = None
"""Client that replaces the default client in tests, for example an in-memory client."""


_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _flag(text: str) -> bool:
    return _FLAGS[text.lower()]


_OPTIONS: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "ca": ("verify", str, "a file"),
    "consistency": ("write_consistency", int, "a number"),
    "grpc": ("prefer_grpc", _flag, "true or false"),
    "grpc_port": ("grpc_port", int, "a number"),
    "replicas": ("replication_factor", int, "a number"),
    "retries": ("retries", int, "a number"),
    "shards": ("shard_number", int, "a number"),
    "timeout": ("timeout", float, "a number"),
    "verify": ("verify", _flag, "true or false"),
}
"""Option of an index URL → (field of `QdrantConnection`, parser of the value, expected values for error messages)."""


@dataclass(frozen=True, slots=True)
class Address:
    """The parsed URL of a collection on a Qdrant server.

    Attributes:
        server: URL of the server without collection and options, as spelled by the caller.
        collection: Name of the collection.
        connection: Fields of `QdrantConnection` that the URL sets, and the values of these fields.
    """

    server: str
    collection: str
    connection: Mapping[str, Any]

    @classmethod
    def parse(cls, location: str) -> Address:
        """Parse an index URL: ``http://host:6333/collection?grpc=true&timeout=120&shards=3&replicas=2&ca=FILE``.

        Args:
            location: The URL.

        Raises:
            InvalidInputError: If the URL has a scheme other than http or https, no collection, an unknown or invalid
                option, or a user or password.
        """
        parts = urlsplit(location)
        if "@" in parts.netloc:  # checked first, because later messages print the URL
            raise InvalidInputError(
                "The URL of an index must not contain a user or a password. Pass the API key as api_key or in the "
                "environment variable QDRANT_API_KEY."
            )
        if parts.scheme not in ("http", "https"):
            raise InvalidInputError(
                f"{parts.scheme}://… is not an index URL. Pass a folder, or http://HOST:6333/COLLECTION."
            )
        path, _, collection = parts.path.rstrip("/").rpartition("/")
        if not collection:
            raise InvalidInputError(
                f"{location} has no collection name. Add the collection: http://HOST:6333/COLLECTION."
            )
        connection = dict(_option(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True))
        return cls(urlunsplit((parts.scheme, parts.netloc, path, "", "")), unquote(collection), connection)

    @property
    def canonical(self) -> str:
        """Normalized URL, equal for all spellings: lower-case host, explicit port, no options."""
        return f"{checked_url(self.server)}/{self.collection}"

    @property
    def assets_dir(self) -> Path:
        """Default assets folder of the collection, in the current user's data directory."""
        dirs = require("platformdirs", extra="qdrant")
        name = re.sub(r"[^\w.-]+", "_", self.canonical.partition("://")[2])
        return Path(dirs.user_data_path("jina-rag", appauthor=False)) / "servers" / name

    def __str__(self) -> str:
        return f"{self.server}/{self.collection}"


def open_server(address: Address, options: OpenOptions) -> IndexSession:
    """Open or create the index in a collection (see `DocumentIndex.open`).

    Args:
        address: URL of the collection.
        options: The options of `DocumentIndex.open`.

    Raises:
        IndexNotFoundError: If the collection has no index and `options.create` is False.
        IndexMismatchError: If the index or the assets folder does not match the options.
        IndexCorruptError: If the assets folder lists documents of a collection that no longer exists.
    """
    connection = QdrantConnection(**options.connection, api_key=options.api_key)
    store_location: dict[str, Any] = {"collection": address.collection, "connection": connection, "client": _client}
    recorded_settings = QdrantStore.stored_facts(address.server, **store_location)
    model = None
    if recorded_settings is not None:
        check_schema(recorded_settings, str(address))
        settings = IndexSettings.from_json(recorded_settings, address)
    elif options.create:
        settings, model = new_settings(options)
    else:
        raise IndexNotFoundError(f"No index at {address}. Create one with `jina-rag ingest PATH --index {address}`.")
    root = address.assets_dir if options.assets_dir is None else Path(os.path.abspath(options.assets_dir))
    with ExitStack() as on_failure:
        manifest = open_manifest(root)
        on_failure.callback(manifest.close)
        _check_files(manifest, settings, address, root, is_new=recorded_settings is None)
        store = QdrantStore.open(address.server, **store_location, **settings.store_options, facts=settings.to_json())
        on_failure.callback(store.close)
        is_guest = recorded_settings is not None and not manifest.settings()
        resources = resources_in(root, manifest, store)
        session = IndexSession(
            str(address), root, resources, settings, model, connection, True, is_guest, model_device=options.device
        )
        session.check(options)
        if recorded_settings is None:
            manifest.write_settings(settings.to_json())
        on_failure.pop_all()
    return session


def _check_files(manifest: Manifest, settings: IndexSettings, address: Address, root: Path, *, is_new: bool) -> None:
    """Raise an error if the assets folder belongs to another index or to a deleted collection."""
    stored_settings = manifest.settings()
    if is_new and stored_settings and manifest.documents():
        raise IndexCorruptError(
            f"The collection {address} no longer exists, but the assets folder {root} still lists documents. Delete "
            f"{root} to start over, or pass another assets_dir (--assets-dir)."
        )
    if not is_new and stored_settings and stored_settings["id"] != settings.id:
        raise IndexMismatchError(
            f"The assets folder {root} belongs to an index other than {address}. "
            "Pass another assets_dir (--assets-dir)."
        )


def _option(name: str, value: str) -> tuple[str, Any]:
    """Return the field of `QdrantConnection` that a URL option sets, and the parsed value."""
    if name not in _OPTIONS:
        raise InvalidInputError(
            f"Unknown option {name!r} in the index URL; expected one of {', '.join(sorted(_OPTIONS))}."
        )
    option, parse, kind = _OPTIONS[name]
    try:
        return option, parse(value)
    except (ValueError, KeyError):
        raise InvalidInputError(f"{name}={value} in the index URL is invalid; expected {kind}.") from None
