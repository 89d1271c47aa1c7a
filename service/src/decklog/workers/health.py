"""`/healthz`, `/readyz` and `/metrics` of a process without an API, on a thread of their own: one whose event loop hangs must
look ill."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

BEAT = timedelta(seconds=1)
SILENCE_MAX = timedelta(seconds=30)
"""Without a beat of the event loop; then the worker is to be restarted."""
REQUEST_TIME_MAX = timedelta(seconds=10)
"""That a client may hold a connection without a word."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIME_MAX.total_seconds()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Probes and scrapes are not worth a line each."""


class HealthServer:
    """Serves until `stop`. `port` is the one that was bound, where 0 was asked for. `checks` gives what must be `ok` beside the
    event loop for the process to be ready, as the API's /readyz tells it; it is called on another thread."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        checks: Callable[[], Mapping[str, str]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = checks
        self._clock = clock
        self._beaten = clock()
        self._metrics = make_wsgi_app()
        self._server = make_server(host, port, self._respond, server_class=_Server, handler_class=_Handler)
        self.port = int(self._server.server_port)
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    async def beat(self) -> None:
        """Tells that the event loop turns; until cancelled."""
        while True:
            self._beaten = self._clock()
            await asyncio.sleep(BEAT.total_seconds())

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            metrics: Iterable[bytes] = self._metrics(environ, start_response)
            return metrics
        silent = self._clock() - self._beaten > SILENCE_MAX.total_seconds()
        kind = "text/plain; charset=utf-8"
        if path == "/readyz":
            checks = {"event loop": "timeout" if silent else "ok", **self._checks()}
            ready = all(result == "ok" for result in checks.values())
            status, kind = "200 OK" if ready else "503 Service Unavailable", "application/json"
            text = json.dumps({"status": "ready" if ready else "unready", "checks": checks})
        elif path != "/healthz":
            status, text = "404 Not Found", "There are /healthz, /readyz and /metrics.\n"
        elif silent:
            status, text = "503 Service Unavailable", "The event loop does not turn.\n"
        else:
            status, text = "200 OK", "ok\n"
        start_response(status, [("Content-Type", kind)])
        return [text.encode()]
