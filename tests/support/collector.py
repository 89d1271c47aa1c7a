"""An OpenTelemetry collector for tests, which stores the OTLP requests it gets over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

WAIT_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Span:
    """One received span. Ids and links have the forms of a traceparent: `trace` and `trace-span`."""

    service: str
    name: str
    place: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, Any]
    failed: bool
    start: int
    end: int

    @property
    def trace(self) -> str:
        return self.place.partition("-")[0]


class Collector:
    """`bodies` has every received byte, request headers included."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(self.path, str(self.headers).encode() + body, body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Write no log line."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, path: str, whole: bytes, body: bytes) -> None:
        assert path == "/v1/traces"
        self.bodies.append(whole)
        self.spans += _spans(ExportTraceServiceRequest.FromString(body))

    def named(self, name: str) -> list[Span]:
        return [span for span in tuple(self.spans) if span.name == name]

    def until(self, found: Callable[[Collector], bool]) -> None:
        """Wait until `found` holds. Call it in a thread."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not found(self):
            assert time.monotonic() < deadline, sorted((span.service, span.name, span.place) for span in self.spans)
            time.sleep(0.02)


def _spans(request: Any) -> list[Span]:
    return [
        Span(
            _values(resource.resource.attributes)["service.name"],
            span.name,
            f"{span.trace_id.hex()}-{span.span_id.hex()}",
            span.parent_span_id.hex(),
            tuple(f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in span.links),
            _values(span.attributes),
            span.status.code == 2,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
