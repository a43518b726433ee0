"""An index whose vectors are on a Qdrant server: its address, its folder of files, and that both belong together.

The server keeps vectors, words, places and what the index was built with: enough to search it from anywhere. Page
images and the manifest stay in a folder, as they do beside an embedded index; who fills the index needs it, who only
searches does without and gets hits whose `image_path` leads nowhere on this machine.
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
"""A client to use in the place of one of our own; for tests against the client's stand-in."""


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
"""Option of an address → field of `QdrantConnection`, how it is read, and what it has to be."""


@dataclass(frozen=True, slots=True)
class Address:
    """A collection of a server.

    Attributes:
        server: As it was given.
        collection: Its name.
        connection: Fields of `QdrantConnection` that were given.
    """

    server: str
    collection: str
    connection: Mapping[str, Any]

    @classmethod
    def parse(cls, location: str) -> Address:
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
        connection = dict(_option(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True))
        return cls(urlunsplit((parts.scheme, parts.netloc, path, "", "")), unquote(collection), connection)

    @property
    def canonical(self) -> str:
        """The same for every spelling of the address: lower-case host, with its port, without options."""
        return f"{checked_url(self.server)}/{self.collection}"

    @property
    def assets_dir(self) -> Path:
        """Where this user keeps the images and the manifest of this collection, if nothing else is said."""
        dirs = require("platformdirs", extra="qdrant")
        name = re.sub(r"[^\w.-]+", "_", self.canonical.partition("://")[2])
        return Path(dirs.user_data_path("jina-rag", appauthor=False)) / "servers" / name

    def __str__(self) -> str:
        return f"{self.server}/{self.collection}"


def open_server(address: Address, options: OpenOptions) -> IndexSession:
    """Open the index in a collection, or make one; see `DocumentIndex.open`."""
    connection = QdrantConnection(**options.connection, api_key=options.api_key)
    place: dict[str, Any] = {"collection": address.collection, "connection": connection, "client": _client}
    facts = QdrantStore.stored_facts(address.server, **place)
    model = None
    if facts is not None:
        check_schema(facts, str(address))
        settings = IndexSettings.from_json(facts, address)
    elif options.create:
        settings, model = new_settings(options)
    else:
        raise IndexNotFoundError(
            f"There is no index at {address}: make one with `jina-rag ingest FOLDER --index {address}`."
        )
    root = address.assets_dir if options.assets_dir is None else Path(os.path.abspath(options.assets_dir))
    with ExitStack() as on_failure:
        manifest = open_manifest(root)
        on_failure.callback(manifest.close)
        _check_files(manifest, settings, address, root, is_new=facts is None)
        store = QdrantStore.open(address.server, **place, **settings.store_options, facts=settings.to_json())
        on_failure.callback(store.close)
        is_guest = facts is not None and not manifest.settings()
        resources = resources_in(root, manifest, store)
        session = IndexSession(str(address), root, resources, settings, model, connection, True, is_guest)
        session.check(options)
        if facts is None:
            manifest.write_settings(settings.to_json())
        on_failure.pop_all()
    return session


def _check_files(manifest: Manifest, settings: IndexSettings, address: Address, root: Path, *, is_new: bool) -> None:
    """A folder of files belongs to one index."""
    stored_settings = manifest.settings()
    if is_new and stored_settings and manifest.documents():
        raise IndexCorruptError(
            f"There is no collection at {address} any more, but {root} still lists the documents of one: delete that "
            "folder to begin anew, or name another one for the files."
        )
    if not is_new and stored_settings and stored_settings["id"] != settings.id:
        raise IndexMismatchError(
            f"The folder {root} holds the files of another index than the one at {address}: name another folder for "
            "the files."
        )


def _option(name: str, value: str) -> tuple[str, Any]:
    """One option of an address as a field of `QdrantConnection`."""
    if name not in _OPTIONS:
        raise InvalidInputError(
            f"{name!r} in the index's address is no option: there are {', '.join(sorted(_OPTIONS))}."
        )
    option, parse, kind = _OPTIONS[name]
    try:
        return option, parse(value)
    except (ValueError, KeyError):
        raise InvalidInputError(f"{name}={value} in the index's address: write {kind}.") from None
