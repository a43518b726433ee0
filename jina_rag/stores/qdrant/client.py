"""How a Qdrant server is reached: address, key, certificates, patience; and the client made of them."""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from jina_rag.errors import InvalidInputError

Client: TypeAlias = Any
"""The module qdrant_client and its objects, whose types are not checked: it is imported at first use."""

MEMORY: Final = ":memory:"
"""In the place of an address: the client's own stand-in in this process, for tests."""
KEY_VARIABLE: Final = "QDRANT_API_KEY"

_PORT: Final = 6333
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
        if not 1 <= self.grpc_port <= 65_535:
            raise InvalidInputError(f"grpc_port is {self.grpc_port}; it must be between 1 and 65535.")
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise InvalidInputError(f"timeout is {self.timeout}; it must be a positive number of seconds.")
        if self.retries < 0:
            raise InvalidInputError(f"retries is {self.retries}; it must not be negative.")
        for name in ("shard_number", "replication_factor", "write_consistency"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{name} is {value}; it must be at least 1.")
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
        found = os.environ.get(KEY_VARIABLE, "").strip()
        return _checked_key(found, KEY_VARIABLE) if found else None


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
    except ValueError as exc:
        raise InvalidInputError(f"The address of the Qdrant server cannot be read ({_plain(exc)}).") from exc
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidInputError(
            "The address of the Qdrant server must not hold a user, a password or a query: give the key as api_key or "
            f"in the environment variable {KEY_VARIABLE}."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInputError(
            "The address of a Qdrant server begins with http:// or https:// and names a host, "
            'for example "http://localhost:6333".'
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or _PORT}{parts.path.rstrip('/')}"


def connect(qdrant_client: Client, url: str, connection: QdrantConnection) -> Client:
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
    options: dict[str, Any] = {}
    try:
        if isinstance(connection.verify, bool):
            options["verify"] = connection.verify
        else:
            authority = Path(connection.verify)
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


def _plain(exc: ValueError) -> str:
    """What is wrong with an address, without its parts: it may hold a password."""
    return "its port is not a number below 65536" if "ort" in str(exc) else "it is malformed"
