"""How a Qdrant server is reached: address, key, certificates, timeout; the client made of them, and its calls."""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from jina_rag._checks import check_whole_number, is_number
from jina_rag.errors import IndexStateError, InvalidInputError, JinaRagError
from jina_rag.stores.qdrant.codec import QdrantObject
from jina_rag.stores.qdrant.errors import Place, explained, read
from jina_rag.stores.qdrant.retry import retrying

MEMORY: Final = ":memory:"
"""In the place of an address: the client's own stand-in in this process, for tests."""
KEY_VARIABLE: Final = "QDRANT_API_KEY"

_PORT: Final = 6333
_HOST: Final = re.compile(r"[\w.:%-]+")
"""Names, in any script, and addresses; IPv6 may name a network interface behind a percent sign."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QdrantConnection:
    """How to reach a server, and what a collection that is made there gets.

    Attributes:
        api_key: Sent with every request; None for the environment variable QDRANT_API_KEY, and none where that is not
            set either.
        prefer_grpc: Whether to speak gRPC, which writes large pages in half the bytes, rather than REST.
        grpc_port: Where the server listens for gRPC.
        timeout: Seconds a request may take; rounded up to whole ones.
        retries: How often a request is sent again that got no answer, or the answer "not now".
        verify: Whether to check the server's certificate, or the file of the authority that signed it (PEM).
        shard_number: Parts a new collection is cut into, for a cluster; None for the server's choice.
        replication_factor: Copies of each part; None for the server's choice.
        write_consistency: How many copies must have a change before it counts as written; None for the server's choice.
    """

    # Never shown: settings end up in logs and error reports.
    api_key: str | None = field(default=None, repr=False)
    prefer_grpc: bool = False
    grpc_port: int = 6334
    timeout: float = 60
    retries: int = 5
    verify: bool | str | os.PathLike[str] = True
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency: int | None = None

    def __post_init__(self) -> None:
        if self.api_key is not None:
            _checked_key(self.api_key, "api_key")
        check_whole_number("grpc_port", self.grpc_port, minimum=1, maximum=65_535)
        if not (is_number(self.timeout) and self.timeout > 0):
            raise InvalidInputError(f"timeout is {self.timeout!r}; it must be a positive number of seconds.")
        check_whole_number("retries", self.retries, minimum=0)
        for name in ("shard_number", "replication_factor", "write_consistency"):
            if getattr(self, name) is not None:
                check_whole_number(name, getattr(self, name), minimum=1)
        if self.prefer_grpc and self.verify is False:
            raise InvalidInputError("gRPC cannot leave certificates unchecked: give verify the file of your authority.")
        if not isinstance(self.verify, bool) and not Path(self.verify).is_file():
            raise InvalidInputError(f"There is no file {os.fspath(self.verify)} of a certificate authority.")

    @property
    def seconds(self) -> int:
        """The timeout as the client takes it."""
        return math.ceil(self.timeout)

    def key(self) -> str | None:
        """The API key, from here or from the environment.

        Raises:
            InvalidInputError: If it cannot be one; the message does not show it.
        """
        if self.api_key is not None:
            return self.api_key
        key = os.environ.get(KEY_VARIABLE, "").strip()
        return _checked_key(key, KEY_VARIABLE) if key else None


class Remote:
    """A client and the collection that is spoken to through it: every request to a server passes here.

    May be used by several threads.

    Attributes:
        models: The client's request and response types.
        place: Which collection of which server.
        connection: How the server is reached, and what a collection that is made gets.
        local: Whether it is the stand-in in this process.
        grpc: Whether gRPC is spoken.
    """

    def __init__(
        self, models: QdrantObject, client: QdrantObject, place: Place, connection: QdrantConnection, *, own: bool
    ) -> None:
        self.models = models
        self.place = place
        self.connection = connection
        # A client that was passed in may be the stand-in under any address.
        self.local = place.url == MEMORY or type(getattr(client, "_client", None)).__name__ == "QdrantLocal"
        self.grpc = connection.prefer_grpc and not self.local
        self._client = client
        self._owns_client = own

    def call(self, doing: str, method: str, **arguments: Any) -> Any:  # noqa: ANN401  # the client's objects
        """Call a method of the client, by the rule of `retry`.

        Args:
            doing: What is being done to the index, for messages: ``"be searched"``.
            method: Its name.
            arguments: What it takes.

        Raises:
            IndexStateError: If it fails; a subclass where the kind of failure has one.
        """
        client = self.client
        try:
            return retrying(self.place.url, self.connection.retries)(getattr(client, method), **arguments)
        except JinaRagError:
            raise
        except Exception as exc:
            _ = self.client  # closed meanwhile, which explains the failure
            raise explained(read(exc), self.place, doing) from exc

    def on_collection(self, doing: str, method: str, **arguments: Any) -> Any:  # noqa: ANN401
        """`call` with the name of the collection."""
        return self.call(doing, method, collection_name=self.place.collection, **arguments)

    @property
    def client(self) -> QdrantObject:
        """The client.

        Raises:
            IndexStateError: If it was closed.
        """
        if self._client is None:
            raise IndexStateError(f"The index at {self.place} is closed: open it again to use it.")
        return self._client

    def close(self) -> None:
        """Give the connections back; a client that was passed in stays open."""
        client, self._client = self._client, None
        if client is not None and self._owns_client:
            client.close()


def checked_url(url: str) -> str:
    """Return the address as it is used and shown: with its port, 6333 where it names none.

    Raises:
        InvalidInputError: If it is not the address of a server, or has a password in it; the message does not show it.
    """
    if url == MEMORY:
        return url
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as exc:  # whose text may show a password
        reason = "its port is not a number below 65536" if "ort" in str(exc) else "it is malformed"
        raise InvalidInputError(f"The address of the Qdrant server cannot be read ({reason}).") from exc
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidInputError(
            "The address of the Qdrant server must not hold a user, a password or a query: give the key as api_key or "
            f"in the environment variable {KEY_VARIABLE}."
        )
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
        raise InvalidInputError(
            "The address of a Qdrant server begins with http:// or https:// and names a host, "
            'for example "http://localhost:6333".'
        )
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or _PORT}{parts.path.rstrip('/')}"


def connect(qdrant_client: QdrantObject, url: str, connection: QdrantConnection) -> QdrantObject:
    """The client for an address that `checked_url` returned. Nothing is sent yet.

    Args:
        qdrant_client: The module.
        url: Where the server is.
        connection: How to reach it.

    Raises:
        InvalidInputError: If the file of the certificate authority cannot be read.
    """
    if url == MEMORY:
        return qdrant_client.QdrantClient(location=MEMORY)
    key = connection.key()
    parts = urlsplit(url)
    if key is not None and parts.scheme == "http" and not _loopback(parts):
        _log.warning("The API key travels to %s unencrypted: use https.", url)
    options: dict[str, Any] = {"verify": connection.verify}
    if not isinstance(connection.verify, bool):
        authority = Path(connection.verify)
        try:
            options["verify"] = ssl.create_default_context(cafile=authority)
            options["grpc_options"] = {"root_certificates": authority.read_bytes()}
        except OSError as exc:
            raise InvalidInputError(f"The file of the certificate authority cannot be read ({exc}).") from exc
    return qdrant_client.QdrantClient(
        url=url,
        grpc_port=connection.grpc_port,
        prefer_grpc=connection.prefer_grpc,
        timeout=connection.seconds,
        # As a header: given as `api_key`, the client warns through Python's warnings, which we do in the log.
        headers=None if key is None else {"api-key": key},
        # It asks in a thread and warns; the version is checked in `qdrant_collection`.
        check_compatibility=False,
        **options,
    )


def _checked_key(key: str, name: str) -> str:
    # Anything else cannot be sent in a header, and the transport's complaint would show it.
    if not key or not all("!" <= letter <= "~" for letter in key):
        raise InvalidInputError(f"{name} is no API key: it is empty, or has characters other than printable ASCII.")
    return key


def _loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
