"""A web server on loopback, which answers as a test says."""

import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

BODY = bytes(range(256)) * 40


class Server(http.server.ThreadingHTTPServer):
    """Answers by path, as `answers` says; counts what it was asked for."""

    def __init__(self, address: str, port: int = 0) -> None:
        super().__init__((address, port), Handler)
        self.address = address
        self.asked: list[str] = []
        self.answers: dict[str, Callable[[Any], object]] = {}

    def uri(self, path: str) -> str:
        return f"http://{self.address}:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.path)
        server.answers[self.path](self)

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int = 200, body: bytes = BODY, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def serving(address: str, port: int = 0) -> Iterator[Server]:
    """A server that answers while its caller is at work; `port` 0: any that is free."""
    server = Server(address, port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
