"""A server on loopback that tests reach under names of public hosts."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpcore

PUBLIC_ADDRESS = "93.184.215.14"
"""A public address. Tests never connect to it: `PublicServer.connect` connects to loopback instead."""


class PublicServer:
    """A server on loopback, and stand-ins for the resolver and the connector.

    Attributes:
        addresses: Host name → addresses, in the order of the answers; the last answer is repeated.
        connections: (address, port) of each connection that was made.
        requests: (host header, path, headers) of each request.
    """

    url = "http://files.example"

    def __init__(self, answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> None:
        self.addresses = {"files.example": [[PUBLIC_ADDRESS]]}
        self.connections = []
        self.requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler):
                self.requests.append((handler.headers["Host"], handler.path, dict(handler.headers)))
                handler.close_connection = True
                try:
                    answer(handler)
                except OSError:  # the client has closed the connection
                    handler.close_connection = True

            def log_message(handler, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def resolve(self, host: str, port: int) -> list[str]:
        answers = self.addresses.get(host)
        if answers is None:
            raise OSError("no such host")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def connect(self, address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        self.connections.append((address, port))
        return httpcore.SyncBackend().connect_tcp("127.0.0.1", self.server.server_port, timeout=seconds)


@contextmanager
def public_server(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[PublicServer]:
    """Yield a running server.

    Args:
        answer: Function that answers a request.
    """
    server = PublicServer(answer)
    thread = threading.Thread(target=server.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.server.shutdown()
        server.server.server_close()
        thread.join()


def send(handler: http.server.BaseHTTPRequestHandler, content: bytes, status: int = 200, **headers: str) -> None:
    """Answer with content; underscores in the names of headers become hyphens."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
