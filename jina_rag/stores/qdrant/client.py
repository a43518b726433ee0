"""Connection to a Qdrant server: URL, API key, certificates and timeout, and the calls of the client."""

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
from jina_rag.stores.qdrant.errors import Address, classify_error, to_index_error
from jina_rag.stores.qdrant.retry import retry_policy

MEMORY: Final = ":memory:"
"""URL of the client's in-process Qdrant, for tests."""
KEY_VARIABLE: Final = "QDRANT_API_KEY"

_PORT: Final = 6333
_HOST: Final = re.compile(r"[\w.:%-]+")
"""Host names in any script, or IP addresses; an IPv6 address may end with a percent sign and a network interface."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QdrantConnection:
    """Connection settings of a server, and cluster settings of new collections.

    Attributes:
        api_key: API key, sent with every request. None for the environment variable QDRANT_API_KEY; if the variable is
            also unset, no key is sent.
        prefer_grpc: Whether to use gRPC instead of REST; gRPC writes large pages in half the bytes.
        grpc_port: gRPC port of the server.
        timeout: Maximum number of seconds of a request, rounded up to whole seconds.
        retries: Maximum number of retries of a request without an answer, or with a temporary failure.
        verify: Whether to verify the certificate of the server; or the PEM file of the certificate authority.
        shard_number: Number of shards of a new collection, for a cluster; None for the default of the server.
        replication_factor: Number of replicas of each shard; None for the default of the server.
        write_consistency: Number of replicas that must acknowledge a write; None for the default of the server.

    Raises:
        InvalidInputError: If a setting is invalid.
    """

    # The API key is excluded from the repr, because settings end up in logs and error reports.
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
            raise InvalidInputError(f"timeout is {self.timeout!r}; expected a positive number of seconds.")
        check_whole_number("retries", self.retries, minimum=0)
        for name in ("shard_number", "replication_factor", "write_consistency"):
            if getattr(self, name) is not None:
                check_whole_number(name, getattr(self, name), minimum=1)
        if self.prefer_grpc and self.verify is False:
            raise InvalidInputError("verify=False is not supported with gRPC. Pass a certificate file as verify.")
        if not isinstance(self.verify, bool) and not Path(self.verify).is_file():
            raise InvalidInputError(
                f"The certificate file {os.fspath(self.verify)} does not exist. Pass the path of a PEM file as verify."
            )

    @property
    def seconds(self) -> int:
        """Timeout in whole seconds, as the client requires."""
        return math.ceil(self.timeout)

    def key(self) -> str | None:
        """Return the API key, from `api_key` or from the environment variable QDRANT_API_KEY.

        Raises:
            InvalidInputError: If the key of the environment variable is invalid; the message does not contain the key.
        """
        if self.api_key is not None:
            return self.api_key
        key = os.environ.get(KEY_VARIABLE, "").strip()
        return _checked_key(key, KEY_VARIABLE) if key else None


class Remote:
    """A collection on a server, and the client that sends all requests to it; thread-safe.

    Attributes:
        models: Module with the request and response types of the client.
        address: Server URL and name of the collection.
        connection: Connection settings, and cluster settings of a new collection.
        local: Whether the client is an in-process Qdrant instead of a server.
        grpc: Whether requests use gRPC.
    """

    def __init__(
        self, models: QdrantObject, client: QdrantObject, address: Address, connection: QdrantConnection, *, own: bool
    ) -> None:
        self.models = models
        self.address = address
        self.connection = connection
        # A client passed by the caller may be in-process, whatever the URL.
        self.local = address.url == MEMORY or type(getattr(client, "_client", None)).__name__ == "QdrantLocal"
        self.grpc = connection.prefer_grpc and not self.local
        self._client = client
        self._owns_client = own

    def call(self, action: str, method: str, **arguments: Any) -> Any:  # noqa: ANN401  # the client's objects
        """Call a method of the client with the retry policy of `retry_policy`.

        Args:
            action: The action in the passive voice, for error messages, for example ``"be searched"``.
            method: Name of the method.
            arguments: Keyword arguments of the method.

        Returns:
            The return value of the method.

        Raises:
            IndexStateError: If the call fails, or the client is closed; IndexNotFoundError if the collection is
                missing, `CollectionExistsError` if the collection to create already exists.
        """
        client = self.client
        try:
            return retry_policy(self.address.url, self.connection.retries)(getattr(client, method), **arguments)
        except JinaRagError:
            raise
        except Exception as exc:
            _ = self.client  # if another thread closed the client, this raises an IndexStateError that says so
            raise to_index_error(classify_error(exc), self.address, action) from exc

    def call_collection(self, action: str, method: str, **arguments: Any) -> Any:  # noqa: ANN401
        """Call a method of the client on the collection; see `call`."""
        return self.call(action, method, collection_name=self.address.collection, **arguments)

    @property
    def client(self) -> QdrantObject:
        """The Qdrant client.

        Raises:
            IndexStateError: If the client is closed.
        """
        if self._client is None:
            raise IndexStateError(f"The index at {self.address} is closed. Reopen it with DocumentIndex.open.")
        return self._client

    def close(self) -> None:
        """Close the client, unless the caller passed the client; idempotent."""
        client, self._client = self._client, None
        if client is not None and self._owns_client:
            client.close()


def checked_url(url: str) -> str:
    """Return a normalized server URL, with port 6333 if `url` has no port.

    Args:
        url: URL of a server, for example ``"http://localhost:6333"``; or ``":memory:"``.

    Raises:
        InvalidInputError: If `url` is not the URL of a server, or contains a user, a password, a query string or a
            fragment. The message does not contain the URL.
    """
    if url == MEMORY:
        return url
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as exc:  # the text of the exception may contain a password
        reason = "the port is not a number below 65536" if "ort" in str(exc) else "malformed"
        raise InvalidInputError(f"The URL of the Qdrant server is invalid ({reason}). Use http://HOST:6333.") from exc
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidInputError(
            "The URL of the Qdrant server must not contain a user, a password or a query string. "
            f"Pass the API key as api_key, or set the environment variable {KEY_VARIABLE}."
        )
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
        raise InvalidInputError(
            "The URL of the Qdrant server is invalid; expected http:// or https:// and a host, "
            'for example "http://localhost:6333".'
        )
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or _PORT}{parts.path.rstrip('/')}"


def connect(qdrant_client: QdrantObject, url: str, connection: QdrantConnection) -> QdrantObject:
    """Return a client for a server, without sending a request.

    Logs a warning if the API key is sent unencrypted over a network.

    Args:
        qdrant_client: The module qdrant_client.
        url: URL of the server, as returned by `checked_url`.
        connection: Connection settings.

    Raises:
        InvalidInputError: If the file of the certificate authority is unreadable.
    """
    if url == MEMORY:
        return qdrant_client.QdrantClient(location=MEMORY)
    key = connection.key()
    parts = urlsplit(url)
    if key is not None and parts.scheme == "http" and not _is_loopback(parts):
        _log.warning("The API key is sent to %s unencrypted. Use an https:// URL.", url)
    options: dict[str, Any] = {"verify": connection.verify}
    if not isinstance(connection.verify, bool):
        authority = Path(connection.verify)
        try:
            options["verify"] = ssl.create_default_context(cafile=authority)
            options["grpc_options"] = {"root_certificates": authority.read_bytes()}
        except OSError as exc:
            raise InvalidInputError(
                f"The certificate file {authority} is unreadable ({exc}). Pass a readable PEM file as verify."
            ) from exc
    return qdrant_client.QdrantClient(
        url=url,
        grpc_port=connection.grpc_port,
        prefer_grpc=connection.prefer_grpc,
        timeout=connection.seconds,
        # The API key is passed as a header, because with `api_key` the client repeats the warning logged above.
        headers=None if key is None else {"api-key": key},
        # The client's version check is off, because it only warns; `open_collection` raises an error for an old server.
        check_compatibility=False,
        **options,
    )


def _checked_key(key: str, name: str) -> str:
    # Checked here, because any other character makes the header invalid, and the transport error would contain the key.
    if not key or not all("!" <= letter <= "~" for letter in key):
        raise InvalidInputError(f"{name} is not a valid API key; expected printable ASCII characters without spaces.")
    return key


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
