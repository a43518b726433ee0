"""Download of a file from an http or https URL, with limits on bytes and time, and from public addresses only.

The address of the host is resolved here and checked, and the connection is made to the address that was checked, so
that a second answer of the name server cannot lead to another host. This holds for each redirect. Proxies of the
environment are not used, because a proxy would resolve the name of the host by itself.

The server is asked for an uncompressed answer, and a compressed answer is an error: the limit counts the bytes that
arrive, and a few kilobytes of compressed data can become gigabytes.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from jina_rag._display import displayed
from jina_rag._extras import require
from jina_rag._version import __version__
from jina_rag.errors import InvalidInputError, LimitExceededError

if TYPE_CHECKING:
    import httpcore
    import httpx

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
"""(host, port) → the IP addresses of the host. Raises OSError if the host is unknown."""
Connect: TypeAlias = "Callable[[str, int, float], httpcore.NetworkStream]"
"""(IP address, port, time limit in seconds) → the connection. Raises an error of httpcore if the connection fails."""
_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_WAY_OUT: Final = "Download the file by other means, and pass its path or bytes."


def fetch(
    url: str,
    *,
    max_bytes: int,
    max_seconds: float,
    resolve: Resolve | None = None,
    connect: Connect | None = None,
) -> bytes:
    """Return the content of the file at a URL.

    Args:
        url: An http or https URL without user name and password.
        max_bytes: Maximum bytes of the answer.
        max_seconds: Time limit in seconds for all: resolving names, connections, redirects, headers and content.
        resolve: Function that resolves a host name. Default: the resolver of the operating system.
        connect: Function that connects to an address. Default: a TCP connection.

    Raises:
        InvalidInputError: If the URL is invalid, an address of a host is not public, the server reports an error or
            answers with compressed data, or the time limit is exceeded.
        LimitExceededError: If the answer has more than `max_bytes` bytes.
    """
    core = require("httpcore", extra="models")
    deadline = _Deadline(max_seconds, core)
    network = _Network(core, deadline, resolve or _resolve, connect or _connect)
    target = _parse(url)
    try:
        # The pool is used for one download: an idle connection of an earlier download was checked at another time.
        with core.ConnectionPool(network_backend=network, retries=0) as pool:
            for _ in range(_MAX_REDIRECTS + 1):
                content = _request(pool, core, target, max_bytes)
                if isinstance(content, bytes):
                    return content
                target = content
    except core.TimeoutException as exc:
        raise InvalidInputError(
            f"The file at {_shown(target)} did not arrive within {max_seconds:.0f} s. {_WAY_OUT}"
        ) from exc
    except (core.NetworkError, core.ProtocolError, core.UnsupportedProtocol, OSError) as exc:
        raise InvalidInputError(
            f"The file at {_shown(target)} cannot be downloaded: {exc or type(exc).__name__}. Check the URL."
        ) from exc
    raise InvalidInputError(
        f"The URL {_shown(_parse(url))} is redirected more than {_MAX_REDIRECTS} times. Pass the URL of the file."
    )


def _request(pool: httpcore.ConnectionPool, core: Any, url: httpx.URL, max_bytes: int) -> bytes | httpx.URL:  # noqa: ANN401
    """Return the content at a URL, or the URL to which the server redirects the request."""
    headers = [
        (b"Host", url.netloc),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", f"jina-rag/{__version__}".encode("ascii")),
    ]
    address = core.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    with pool.stream("GET", address, headers=headers) as response:
        fields = {name.lower(): value for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in fields:
            return _parse(fields[b"location"].decode("latin-1"), base=url)
        if response.status != 200:
            raise InvalidInputError(
                f"The server answered {response.status} for the file at {_shown(url)}. Check the URL."
            )
        if fields.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
            raise InvalidInputError(f"The server sends the file at {_shown(url)} compressed. {_WAY_OUT}")
        length = fields.get(b"content-length", b"0")
        parts: list[bytes] = []
        received = int(length) if length.isdigit() and int(length) > max_bytes else 0
        if not received:
            for part in response.iter_stream():
                received += len(part)
                if received > max_bytes:
                    break
                parts.append(part)
        if received > max_bytes:
            raise LimitExceededError(
                f"The file at {_shown(url)} has more than {max_bytes:,} bytes. Pass a smaller file."
            )
    return b"".join(parts)


def _parse(url: str, base: httpx.URL | None = None) -> httpx.URL:
    """Return a URL after checking the scheme and that the URL has no user name and password."""
    library = require("httpx", extra="models")
    try:
        parsed: httpx.URL = library.URL(url) if base is None else base.join(url)
    except (library.InvalidURL, ValueError) as exc:
        raise InvalidInputError(f"The URL {_escaped(url)} is invalid: {exc}. Pass an http or https URL.") from exc
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInputError(f"The URL {_shown(parsed)} is not an http or https URL. {_WAY_OUT}")
    if parsed.userinfo:
        raise InvalidInputError(f"The URL {_shown(parsed)} contains a user name or a password. {_WAY_OUT}")
    return parsed


def _shown(url: httpx.URL) -> str:
    """Return a URL for a message: without the password and the query, which may contain secrets."""
    port = "" if url.port is None else f":{url.port}"
    return _escaped(f"{url.scheme}://{url.host}{port}{url.path}")


def _escaped(text: str) -> str:
    return displayed(text[:100])


def is_public(address: str) -> bool:
    """Return whether an IP address is public: no private, loopback, link-local, multicast or reserved address.

    Args:
        address: An IPv4 or IPv6 address. An IPv6 address that contains an IPv4 address is public only if both are.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        inner = [parsed.sixtofour, *(parsed.teredo or ())]
        if parsed in _NAT64:
            inner.append(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF))
        if not all(is_public(str(part)) for part in inner if part is not None):
            return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved and not parsed.is_unspecified


class _Deadline:
    def __init__(self, seconds: float, core: Any) -> None:  # noqa: ANN401
        self._end = time.monotonic() + seconds
        self._core = core

    def remaining(self) -> float:
        """Return the remaining seconds. Raises the timeout error of httpcore if no time is left."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise self._core.ReadTimeout
        return seconds


class _Network:
    """The network backend of httpcore: resolves and checks addresses, and applies the deadline to each operation."""

    def __init__(self, core: Any, deadline: _Deadline, resolve: Resolve, connect: Connect) -> None:  # noqa: ANN401
        self._core, self._deadline, self._resolve, self._connect = core, deadline, resolve, connect

    def connect_tcp(self, host: str, port: int, **_: object) -> _Stream:
        addresses = self._addresses(host, port)
        for address in addresses:
            if not is_public(address):
                raise InvalidInputError(
                    f"{_escaped(host)} has the address {_escaped(address)}, which is not a public address. {_WAY_OUT}"
                )
        for position, address in enumerate(addresses, start=1):
            try:
                return _Stream(self._connect(address, port, self._deadline.remaining()), self._deadline)
            except (self._core.NetworkError, self._core.TimeoutException, OSError):
                if position == len(addresses):
                    raise
        raise self._core.ConnectError(f"the host {_escaped(host)} has no address")

    def _addresses(self, host: str, port: int) -> Sequence[str]:
        """Resolve a name in a thread, because the resolver of the operating system has no time limit."""
        answers: queue.SimpleQueue[Sequence[str] | OSError | UnicodeError] = queue.SimpleQueue()

        def resolve() -> None:
            try:
                answers.put(self._resolve(host, port))
            except (OSError, UnicodeError) as exc:  # UnicodeError: a label of the name is empty or too long
                answers.put(exc)

        threading.Thread(target=resolve, daemon=True).start()
        try:
            answer = answers.get(timeout=self._deadline.remaining())
        except queue.Empty:
            raise self._core.ConnectTimeout from None
        if isinstance(answer, Exception):
            raise self._core.ConnectError(f"the host {_escaped(host)} is unknown ({answer})") from answer
        return answer


@dataclass(frozen=True, slots=True)
class _Stream:
    """A connection whose operations all end at the deadline. The time limits of httpcore apply to each one alone."""

    _stream: httpcore.NetworkStream
    _deadline: _Deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.remaining())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.remaining())

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:  # noqa: ANN401
        remaining = self._deadline.remaining()
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, remaining), self._deadline)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


def _resolve(host: str, port: int) -> list[str]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _connect(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
    backend = require("httpcore", extra="models").SyncBackend()
    stream: httpcore.NetworkStream = backend.connect_tcp(address, port, timeout=seconds)
    return stream
