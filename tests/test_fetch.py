from __future__ import annotations

import gzip
import threading
import time
from functools import partial

import pytest
from helpers.public_server import PUBLIC_ADDRESS, public_server, send

from jina_rag.errors import InvalidInputError, LimitExceededError
from jina_rag.fetch import fetch, is_public

CONTENT = b"the content of the file"


def answer(handler):
    path = handler.path.partition("?")[0]
    if path == "/file":
        send(handler, CONTENT)
    elif path.startswith("/to/"):
        send(handler, b"", status=302, Location=path.removeprefix("/to/"))
    elif path == "/loop":
        send(handler, b"", status=307, Location="/loop")
    elif path in ("/gzip", "/zstd", "/deflate"):
        send(handler, gzip.compress(bytes(1 << 20)), Content_Encoding=path[1:])
    elif path == "/long":
        send(handler, bytes(5000))
    elif path == "/long-chunked":
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"100\r\n" + bytes(256) + b"\r\n")
    elif path == "/slow-headers":
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
        trickle(handler)
    elif path == "/slow-content":
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        trickle(handler)
    elif path == "/not-http":
        handler.wfile.write(b"\x15\x03\x01 no answer\r\n\r\n")
    else:
        send(handler, b"no such file", status=404)


def trickle(handler):
    for _ in range(200):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


@pytest.fixture
def server():
    with public_server(answer) as running:
        yield running


@pytest.fixture
def get(server):
    return partial(fetch, max_bytes=1000, max_seconds=10, resolve=server.resolve, connect=server.connect)


def test_content_of_a_public_host_is_returned(server, get):
    assert get(f"{server.url}:8080/file?size=1#part") == CONTENT
    assert get("HTTP://files.example/file") == CONTENT
    assert server.connections == [(PUBLIC_ADDRESS, 8080), (PUBLIC_ADDRESS, 80)]
    (host, path, headers), _ = server.requests
    assert (host, path) == ("files.example:8080", "/file?size=1")
    assert headers["Accept-Encoding"] == "identity"


def test_redirects_are_followed_and_resolved_again(server, get):
    server.addresses["other.example"] = [["93.184.215.15"]]
    assert get(f"{server.url}/to//file") == CONTENT
    assert get(f"{server.url}/to/http://other.example/file") == CONTENT
    assert server.connections[-1] == ("93.184.215.15", 80)
    assert get(f"{server.url}/to//to//to//file") == CONTENT
    for path in ("loop", "to//to//to//to//file"):
        with pytest.raises(InvalidInputError, match="redirected more than 3 times"):
            get(f"{server.url}/{path}")


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "240.0.0.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
    "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::",
    "2001:0:7f00:1::", "2001:db8::1", "not an address",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_connected_to(server, get, address):
    assert not is_public(address)
    server.addresses["inner.example"] = [[address]]
    with pytest.raises(InvalidInputError, match="not a public address"):
        get("http://inner.example/file")
    assert not server.connections
    with pytest.raises(InvalidInputError, match="not a public address"):
        get(f"{server.url}/to/http://inner.example/file")
    server.addresses["both.example"] = [[PUBLIC_ADDRESS, address]]
    with pytest.raises(InvalidInputError, match="not a public address"):
        get("http://both.example/file")
    assert server.connections == [(PUBLIC_ADDRESS, 80)]


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "127.1"])
def test_loopback_is_refused_by_the_resolver_of_the_system(server, host):
    port = server.server.server_port
    with pytest.raises(InvalidInputError, match="not a public address"):
        fetch(f"http://{host}:{port}/file", max_bytes=1000, max_seconds=10)
    assert not server.requests


def test_connection_is_made_to_the_address_that_was_checked(server, get):
    """A name server may answer with a private address the second time."""
    server.addresses["rebound.example"] = [[PUBLIC_ADDRESS], ["127.0.0.1"]]
    assert get("http://rebound.example/file") == CONTENT
    assert server.connections == [(PUBLIC_ADDRESS, 80)]


def test_second_address_is_used_if_the_first_does_not_answer(server):
    server.addresses["files.example"] = [["93.184.215.99", PUBLIC_ADDRESS]]

    def connect(address, port, seconds):
        if address != PUBLIC_ADDRESS:
            raise OSError("unreachable")
        return server.connect(address, port, seconds)

    options = {"max_bytes": 1000, "max_seconds": 10, "resolve": server.resolve}
    assert fetch(f"{server.url}/file", connect=connect, **options) == CONTENT
    server.addresses["files.example"] = [["93.184.215.99"]]
    with pytest.raises(InvalidInputError, match="cannot be downloaded: unreachable"):
        fetch(f"{server.url}/file", connect=connect, **options)


@pytest.mark.parametrize("path", ["gzip", "zstd", "deflate"])
def test_compressed_answers_are_refused(server, get, path):
    with pytest.raises(InvalidInputError, match="compressed"):
        get(f"{server.url}/{path}")


@pytest.mark.parametrize("path", ["long", "long-chunked"])
def test_long_answers_are_refused(server, get, path):
    with pytest.raises(LimitExceededError, match="more than 1,000 bytes"):
        get(f"{server.url}/{path}")


@pytest.mark.parametrize("path", ["slow-headers", "slow-content"])
def test_time_limit_applies_to_the_whole_download(server, get, path):
    """Each read alone ends in time."""
    with pytest.raises(InvalidInputError, match="did not arrive within 0 s"):
        get(f"{server.url}/{path}", max_seconds=0.3)


def test_time_limit_applies_to_the_resolver(server):
    resolved = threading.Event()

    def resolve(host, port):
        resolved.wait(20)
        return [PUBLIC_ADDRESS]

    with pytest.raises(InvalidInputError, match="did not arrive"):
        fetch(f"{server.url}/file", max_bytes=1000, max_seconds=0.2, resolve=resolve, connect=server.connect)
    resolved.set()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "not an http or https URL"),
        ("ftp://files.example/a", "not an http or https URL"),
        ("gopher://files.example/a", "not an http or https URL"),
        ("http:///a", "not an http or https URL"),
        ("http://name:secret@files.example/file", "contains a user name or a password"),
        ("http://files.example/a\nb", "is invalid"),
        ("http://files.example:port/", "is invalid"),
        ("http://unknown.example/", "is unknown"),
        ("http://files.example/missing?token=secret", "answered 404"),
        ("http://files.example/not-http", "cannot be downloaded"),
        ("http://files.example/to/file:///etc/passwd", "not an http or https URL"),
        ("http://files.example/to/http://name:secret@files.example/file", "contains a user name"),
    ],
)
def test_errors_name_the_url_without_secrets(server, get, url, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        get(url)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()
