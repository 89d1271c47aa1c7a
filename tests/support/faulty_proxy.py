"""A reverse proxy for HTTP/1.1 that loses answers on purpose."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["pass", "lose", "half", "refuse"]
"""`lose`: the server does the work, and the client gets no answer. `half`: it gets a part of it. `refuse`: 503 by the proxy."""
SKIPPED = {"host", "connection", "transfer-encoding", "content-length"}


class FaultyProxy:
    """Forwards to the address that `target` returns at that moment. `fault` chooses by the number of the request and its path."""

    def __init__(self, target: Callable[[], str]) -> None:
        self.fault: Callable[[int, str], Fault] = lambda _number, _path: "pass"
        self.requests = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_GET(self) -> None:
                proxy._handle(self, target())

            def do_POST(self) -> None:
                proxy._handle(self, target())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def cut(self) -> int:
        """Break all transfers; return their number."""
        with self._lock:
            found = list(self._open)
        for each in found:
            _close(each)
        return len(found)

    def close(self) -> None:
        self._server.shutdown()
        self.cut()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler, target: str) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        with self._lock:
            number, self.requests = self.requests, self.requests + 1
            self._open.add(handler.connection)
        try:
            fault = self.fault(number, handler.path)
            if fault == "refuse":
                handler.send_response(503)
                for name, value in (("Retry-After", "0"), ("Content-Length", "0")):
                    handler.send_header(name, value)
                handler.end_headers()
            else:
                self._forward(handler, target, body, fault)
        except (OSError, http.client.HTTPException):
            _close(handler.connection)
        finally:
            with self._lock:
                self._open.discard(handler.connection)

    def _forward(self, handler: BaseHTTPRequestHandler, target: str, body: bytes, fault: Fault) -> None:
        connection = http.client.HTTPConnection(urlsplit(target).netloc, timeout=60)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in SKIPPED}
        with contextlib.closing(connection):
            connection.request(handler.command, handler.path, body=body, headers=headers)
            answer = connection.getresponse()
            if fault == "lose":
                answer.read()
                raise ConnectionAbortedError
            handler.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in SKIPPED:
                    handler.send_header(name, value)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            if fault == "half":
                whole = answer.read()
                _chunk(handler, whole[: len(whole) // 2])
                raise ConnectionAbortedError
            while piece := answer.read1(65_536):
                _chunk(handler, piece)
            handler.wfile.write(b"0\r\n\r\n")


def _chunk(handler: BaseHTTPRequestHandler, piece: bytes) -> None:
    if piece:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
