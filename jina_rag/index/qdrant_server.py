"""An index whose vectors are on a Qdrant server: its address, its folder of files, and that both belong together.

The server keeps vectors, words, places and what the index was built with: enough to search it from anywhere. Page
images and the manifest stay in a folder, as they do beside an embedded index; who fills the index needs it, who only
searches does without and gets hits whose `image_path` leads nowhere on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    IndexStateError,
    InvalidInputError,
)
from jina_rag.index.session import (
    IndexSession,
    IndexSettings,
    OpenOptions,
    new_settings,
    open_manifest,
    start_session,
)
from jina_rag.stores.qdrant.client import checked_url
from jina_rag.stores.qdrant.server import QdrantConnection, QdrantStore

_client: Any = None
"""A client to use in the place of one of our own; for tests against the client's stand-in."""
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class Address:
    """A collection of a server, and how to reach it.

    Attributes:
        server: As it was given.
        collection: Its name.
        options: Those of `QdrantConnection` that were given.
    """

    server: str
    collection: str
    options: Mapping[str, Any]

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
        options = dict(_option(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True))
        if api_key is not None:
            options["api_key"] = api_key
        return cls(urlunsplit((parts.scheme, parts.netloc, path, "", "")), unquote(collection), options)

    @property
    def connection(self) -> QdrantConnection:
        """How the server is reached."""
        return QdrantConnection(**self.options)

    @property
    def canonical(self) -> str:
        """The same for every spelling of the address: lower-case host, with its port, without options."""
        return f"{checked_url(self.server)}/{self.collection}"

    @property
    def assets_dir(self) -> Path:
        """Where this user keeps the images and the manifest of this collection, if nothing else is said."""
        dirs = require("platformdirs", extra="qdrant")
        name = re.sub(r"[^\w.-]+", "_", self.canonical.partition("://")[2])
        folder: Path = dirs.user_data_path("jina-rag", appauthor=False) / "servers" / name
        return folder

    def __str__(self) -> str:
        return f"{self.server}/{self.collection}"


def open_server(address: Address, options: OpenOptions) -> IndexSession:
    """Open the index in a collection, or make one; see `DocumentIndex.open`."""
    connection = address.connection
    place: dict[str, Any] = {"collection": address.collection, "connection": connection, "client": _client}
    facts = QdrantStore.recorded(address.server, **place)
    model = None
    if facts is not None:
        check_schema(facts, str(address))
        settings = IndexSettings.from_json(facts)
    elif options.create:
        settings, model = new_settings(options)
    else:
        raise IndexNotFoundError(
            f"There is no index at {address}: make one with `jina-rag ingest FOLDER --index {address}`."
        )
    root = options.assets_dir or address.assets_dir
    with ExitStack() as on_failure:
        manifest = open_manifest(root)
        on_failure.callback(manifest.close)
        _check_files(manifest, settings, address, root, is_new=facts is None)
        store = QdrantStore.open(
            address.server,
            **place,
            dim=settings.dim,
            multi_dim=settings.multi_dim,
            facts=settings.to_json(),
            storage=settings.storage,
        )
        on_failure.callback(store.close)
        is_guest = facts is not None and not manifest.settings()
        session = start_session(
            manifest, store, settings, options,
            location=str(address), root=root, model=model, connection=connection, is_guest=is_guest,
        )  # fmt: skip
        on_failure.pop_all()
    return session


def check_connection(session: IndexSession, address: Address) -> None:
    """Refuse options of an address that differ from those that the collection is open with in this process.

    Raises:
        IndexStateError: With the way out.
    """
    connection = session.connection
    assert connection is not None, "a session of a folder"
    for name, value in address.options.items():
        if value != (connection.key() if name == "api_key" else getattr(connection, name)):
            raise IndexStateError(
                f"The index at {address} is open in this process with another {name}: close it first, or leave "
                f"{name} out."
            )


def _check_files(manifest: Manifest, settings: IndexSettings, address: Address, root: Path, *, is_new: bool) -> None:
    """A folder of files belongs to one index."""
    recorded = manifest.settings()
    if is_new and recorded and manifest.documents():
        raise IndexCorruptError(
            f"There is no collection at {address} any more, but {root} still lists the documents of one: delete that "
            "folder to begin anew, or name another one for the files."
        )
    if not is_new and recorded and recorded["id"] != settings.id:
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
        names = ", ".join(sorted([*numbers, "ca", "grpc", "verify"]))
        raise InvalidInputError(f"{name!r} in the index's address is no option: there are {names}.")
    try:
        return numbers[name], float(value) if name == "timeout" else int(value)
    except ValueError:
        raise InvalidInputError(f"{name}={value} in the index's address: write a number.") from None
