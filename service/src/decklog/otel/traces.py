"""Traces by OpenTelemetry: a thread of its own sends spans over OTLP, and no request waits for it.

Imported only where an endpoint is set. The queue of spans is bounded; spans beyond it are dropped and counted. A span
names tenants, logs, numbers and codes, and never contents of records, keys or search terms.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import NamedTuple

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Counter

from decklog import __version__
from decklog.domain.consumers import LogRecords
from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest, Receipt, Status
from decklog.domain.records.record import StoredRecord
from decklog.domain.records.trace import commit_ids
from decklog.domain.tenant import Tenant

LINKS_MAX = 128
"""Links of one span: the default bound of OpenTelemetry."""
EXPORT_SPANS_MAX = 512
"""Spans of one request to the collector."""
STOP_SECONDS_MAX = 5.0
"""Time to send the spans that wait when the process ends."""

SPANS = Counter(
    "decklog_trace_spans_total",
    "Spans by outcome: exported, failed (the collector did not accept them) or dropped (too many were waiting).",
    ["outcome"],
)
_exported, _failed, _dropped = (SPANS.labels(outcome) for outcome in ("exported", "failed", "dropped"))

_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
_CARRIED = (b"traceparent", b"tracestate")
_propagator = TraceContextTextMapPropagator()
_log = structlog.get_logger("decklog.traces")

Outcome = tuple[AppendRequest, Appended | DecklogError, "Waiting | None"]
"""A request of a group, its outcome, and since when it waited, where it is traced."""


class Waiting(NamedTuple):
    """A traced request, and when it began to wait, in nanoseconds since 1970."""

    request: SpanContext
    since: int


class _Counted(SpanExporter):
    """Counts the spans that the collector accepted, and those taken out of the queue."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            (_exported if result is SpanExportResult.SUCCESS else _failed).inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class _Queue(BatchSpanProcessor):
    """The queue of spans to send. Spans are put in by one thread and taken out by another; each counts its own."""

    def __init__(self, exporter: _Counted, room: int) -> None:
        super().__init__(exporter, max_queue_size=room, max_export_batch_size=min(room, EXPORT_SPANS_MAX))
        self._exporter = exporter
        self._room = room
        self._given = 0

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._given - self._exporter.taken >= self._room:
            _dropped.inc()
            return
        self._given += 1
        super().on_end(span)


class _CommitIds(RandomIdGenerator):
    """Gives a commit's span the ids that follow from its records, so that batches can link to it."""

    given: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self.given is None else self.given[0]

    def generate_span_id(self) -> int:
        return super().generate_span_id() if self.given is None else self.given[1]


class RequestSpan:
    """The span of a request that is being answered."""

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace_id = format_trace_id(context.trace_id)
        self.span_id = format_span_id(context.span_id)

    def answered(self, method: str, route: str | None, status: int, tenant: str | None) -> None:
        """Set the outcome. `status` is 0 where the client disconnected before an answer."""
        if route is not None:
            self._span.update_name(f"{method} {route}")
            self._span.set_attribute("http.route", route)
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(StatusCode.ERROR)
        if tenant is not None:
            self._span.set_attribute("decklog.tenant", tenant)


class BatchSpan:
    """The span of a batch that a consumer applies."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def done(self) -> None:
        """End the span: the cursor has moved over the batch."""
        self._span.end()

    def broken_off(self) -> None:
        """End the span as failed: the batch will be applied again, under a span of its own."""
        self._span.set_status(StatusCode.ERROR, "broken off")
        self._span.end()


class OtelTraces:
    """The traces of one process. `program` is its name unless OTEL_SERVICE_NAME is set; `queue_spans_max` bounds the queue.

    OpenTelemetry reads its other settings, the endpoint among them, from the environment. Must be used in the event loop.
    """

    def __init__(self, program: str, *, queue_spans_max: int, exporter: SpanExporter | None = None) -> None:
        self._queue = _Queue(_Counted(exporter or OTLPSpanExporter()), queue_spans_max)
        resource = _resource(program)
        self._ids = _CommitIds()
        self._tracer = _provider(resource, self._queue).get_tracer("decklog", __version__)
        # A commit is recorded when one of its requests is, whatever a sampler decides for its own trace.
        commits = TracerProvider(sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        commits.add_span_processor(self._queue)
        self._commits = commits.get_tracer("decklog", __version__)

    async def stop(self) -> None:
        """Send the waiting spans, for a bounded time."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def shut() -> None:
            self._queue.shutdown()  # type: ignore[no-untyped-call]
            with suppress(RuntimeError):  # the loop is closed, and this stop was given up
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=shut, name="traces", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await ended.wait()

    @contextmanager
    def request(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[RequestSpan]:
        """Open the span of a request while the block runs, in the trace that its `traceparent` names."""
        carried = {name.decode(): value.decode("latin-1") for name, value in headers if name in _CARRIED}
        method = method if method in _METHODS else "_OTHER"
        span = self._tracer.start_span(
            method,
            _propagator.extract(carried, Context()),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method},
        )
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield RequestSpan(span)

    def current(self) -> Waiting | None:
        """Return the request that is being answered, waiting from now on; None where none is recorded."""
        context = get_current_span().get_span_context()
        return Waiting(context, time.time_ns()) if context.trace_flags.sampled else None

    def committed(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Trace a commit that ended now, successful or not, after so many seconds.

        Each log of the group that has a traced request gets one span.
        """
        try:
            ended = time.time_ns()
            taken = ended - int(seconds * 1e9)
            logs: dict[tuple[int, LogName], list[Outcome]] = {}
            for outcome in outcomes:
                logs.setdefault((outcome[0].tenant.id, outcome[0].log), []).append(outcome)
            for of_log in logs.values():
                if waited := [waiting for _, _, waiting in of_log if waiting is not None]:
                    self._committed(of_log, waited, taken, ended)
        except Exception:  # noqa: BLE001 - an error in tracing must not stop the writer
            _log.exception("a commit was not traced")

    def _committed(self, outcomes: Sequence[Outcome], waited: Sequence[Waiting], taken: int, ended: int) -> None:
        tenant, log = outcomes[0][0].tenant, outcomes[0][0].log
        stored = [
            receipt
            for _, result, _ in outcomes
            if isinstance(result, Appended) and result.stored
            for receipt in result.receipts
            if receipt.status is Status.STORED
        ]
        attributes: dict[str, str | int] = {"db.system.name": "postgresql", "decklog.requests": len(outcomes)}
        self._ids.given = commit_ids(tenant, log, stored[0].epoch, stored[0].received_at) if stored else None
        try:
            span = self._commits.start_span(
                "commit",
                Context(),
                kind=SpanKind.CLIENT,
                attributes={**attributes, **_place(tenant, log, stored)},
                links=[Link(each.request) for each in waited[:LINKS_MAX]],
                start_time=taken,
            )
        finally:
            self._ids.given = None
        refused = {result.code.value for _, result, _ in outcomes if isinstance(result, DecklogError)}
        if refused and not stored:
            span.set_status(StatusCode.ERROR, ", ".join(sorted(refused)))
        span.end(ended)
        for each in waited:
            parent = set_span_in_context(NonRecordingSpan(each.request), Context())
            links = [Link(span.get_span_context())]
            self._tracer.start_span("wait for commit", parent, links=links, start_time=each.since).end(taken)

    def batch(self, consumer: str, batch: Sequence[LogRecords]) -> BatchSpan:
        """Begin the span of a batch, with links to the commits of its records, recorded or not."""
        commits = [
            (each.tenant, each.log, *commit)
            for each in batch
            for commit in dict.fromkeys((record.epoch, record.received_at) for record in each.records)
        ]
        links = [
            Link(SpanContext(*commit_ids(*commit), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
            for commit in islice(commits, LINKS_MAX)
        ]
        attributes: dict[str, str | int] = {
            "decklog.consumer": consumer,
            "decklog.commits": len(commits),
            "decklog.logs": len(batch),
        }
        if len(batch) == 1:
            attributes |= _place(batch[0].tenant, batch[0].log, batch[0].records)
        else:
            attributes["decklog.records"] = sum(len(each.records) for each in batch)
        return BatchSpan(self._tracer.start_span(consumer, Context(), kind=SpanKind.CONSUMER, attributes=attributes, links=links))


def _place(tenant: Tenant, log: LogName, records: Sequence[Receipt | StoredRecord]) -> dict[str, str | int]:
    """Return the attributes that say where records are, by which commits and batches are found."""
    where: dict[str, str | int] = {"decklog.tenant": tenant.name, "decklog.log": log.text, "decklog.records": len(records)}
    if records:
        numbers = [record.seq for record in records]
        where |= {"decklog.epoch": records[0].epoch, "decklog.seq.first": min(numbers), "decklog.seq.last": max(numbers)}
    return where


def _provider(resource: Resource, queue: _Queue) -> TracerProvider:
    """Return a provider with the sampler that the environment names."""
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(queue)
    return provider


def _resource(program: str) -> Resource:
    """Return the resource: name and attributes from the environment, else the program's own name, and its version."""
    told = Resource.create()
    if str(told.attributes["service.name"]).startswith("unknown_service"):
        told = told.merge(Resource({"service.name": program}))
    return Resource({"service.version": __version__}).merge(told)
