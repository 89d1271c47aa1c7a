"""A proxy before the API that fails as networks and overloaded servers do: by a seed, and with counts of what it did."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

BODY_BYTES_MAX = 30_000
"""Larger bodies are refused with 413, as proxies do."""


class Storm:
    """A proxy on a port of its own. `target` returns the address of the server, which may change when it restarts."""

    def __init__(self, target: Callable[[], str], *, seed: int) -> None:
        self.did: Counter[str] = Counter()
        self.calm = False
        self._first = [0.17, 0.25, 0.05]
        """The fates of the first requests, last first: few requests are made, and each kind of loss is wanted."""
        self._chance = random.Random(seed)
        self._target = target
        self._http = httpx.Client(timeout=30)
        storm = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                storm.handle(self, b"")

            def do_POST(self) -> None:
                storm.handle(self, self.rfile.read(int(self.headers["content-length"])))

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def handle(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """Answer a request, or lose it before or after the server has it."""
        if len(body) > BODY_BYTES_MAX:
            self._answer(request, "too large", 413, b"<html>", {})
            return
        fate = self._first.pop() if self._first else 1.0 if self.calm else self._chance.random()
        if fate < 0.15:
            self._answer(request, "503", 503, b"", {"retry-after": "0"} if fate < 0.1 else {})
        elif fate < 0.2:
            self._lose(request, "lost request")
        else:
            self._forward(request, body, lose=fate < 0.3)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes, *, lose: bool) -> None:
        headers = {name: request.headers[name] for name in ("authorization", "content-type") if request.headers[name]}
        try:
            answer = self._http.request(request.command, self._target() + request.path, content=body, headers=headers)
        except httpx.TransportError:
            self._answer(request, "server down", 502, b"<html>", {})
            return
        if lose:
            self._lose(request, "lost answer")
        else:
            kept = {name: answer.headers[name] for name in ("content-type", "retry-after") if name in answer.headers}
            self._answer(request, "forwarded", answer.status_code, answer.content, kept)

    def _answer(self, request: BaseHTTPRequestHandler, what: str, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.did[what] += 1
        try:
            request.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(body)
        except OSError:  # the application was killed
            request.close_connection = True

    def _lose(self, request: BaseHTTPRequestHandler, what: str) -> None:
        self.did[what] += 1
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._http.close()
