"""What is told of commits and batches, and that nothing waits for whoever is told."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_trace_id

from decklog.domain.consumers import LogRecords
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.tenant import Tenant
from decklog.otel import traces as traces_module
from decklog.otel.traces import LINKS_MAX, SPANS, OtelTraces
from decklog.services.following.follow import Follower
from decklog.services.following.lines import Ended
from decklog.services.records.ingest import Ingest
from tests.support.memory import make_tenant
from tests.support.memory_store import MemoryAnnouncements, MemoryCursors, MemoryStore, fill
from tests.support.records import FINGERPRINT_KEY, body

SAMPLED, UNSAMPLED = (f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0{flag}" for flag in (1, 0))


class Sent:
    """Traces that are kept in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces = OtelTraces("decklog-test", queue_spans_max=10_000, exporter=self.exporter)

    def named(self, name: str) -> list[ReadableSpan]:
        self.traces._queue.force_flush()
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
async def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)
    return Sent()


class Gate(MemoryStore):
    """Commits once it is let, and then fails where it is told."""

    def __init__(self, *tenants: Tenant) -> None:
        super().__init__(*tenants)
        self.go = asyncio.Event()
        self.failure: DecklogError | None = None
        self.groups: list[int] = []

    async def append(self, requests: Sequence[AppendRequest]) -> list[Appended | DecklogError]:
        self.groups.append(len(requests))
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return await super().append(requests)


async def post(sent: Sent, ingest: Ingest, tenant: Tenant, name: str, parent: str | None = SAMPLED) -> None:
    headers = [] if parent is None else [(b"traceparent", parent.encode())]
    with sent.traces.request("POST", headers) as span:
        try:
            await ingest.append(tenant, body(id=name))
            span.answered("POST", "/api/v1/logs", 201, tenant.name)
        except DecklogError:
            span.answered("POST", "/api/v1/logs", 503, tenant.name)


async def in_one_group(sent: Sent, store: Gate, requests: Sequence[tuple[Tenant, str | None]]) -> None:
    """The first of them by itself, the rest together."""
    ingest = Ingest(store, MemoryAnnouncements(), fingerprint_key=FINGERPRINT_KEY, traces=sent.traces)
    await ingest.start()
    asked = [asyncio.create_task(post(sent, ingest, *requests[0][:1], "0", requests[0][1]))]
    async with asyncio.timeout(20):
        while not store.groups:
            await asyncio.sleep(0)
    asked += [
        asyncio.create_task(post(sent, ingest, tenant, str(n), parent)) for n, (tenant, parent) in enumerate(requests[1:], 1)
    ]
    await asyncio.sleep(0.05)
    store.go.set()
    await asyncio.gather(*asked)
    await ingest.stop()
    assert store.groups == [1, len(requests) - 1]


async def test_commit_has_one_span_per_log_linked_with_its_traced_requests(sent: Sent) -> None:
    acme, other = make_tenant("acme"), make_tenant("other")
    await in_one_group(
        sent, Gate(acme, other), [(acme, SAMPLED), (acme, SAMPLED), (other, None), (acme, None), (acme, UNSAMPLED)]
    )
    first, second, others = sorted(sent.named("commit"), key=lambda span: (span.attributes["decklog.tenant"], span.start_time))  # type: ignore[index]
    assert [span.attributes["decklog.tenant"] for span in (first, second, others)] == ["acme", "acme", "other"]  # type: ignore[index]
    assert dict(second.attributes or {}) == {
        "db.system.name": "postgresql", "decklog.tenant": "acme", "decklog.log": "events", "decklog.epoch": 1,
        "decklog.requests": 3, "decklog.records": 3, "decklog.seq.first": 1, "decklog.seq.last": 3,
    }  # fmt: skip
    requests = {span.context.span_id: span for span in sent.named("POST /api/v1/logs") if span.context}
    assert len(requests) == 4  # one of the callers did not want to be traced
    waits = sent.named("wait for commit")
    assert sorted(span.parent.span_id for span in waits if span.parent) == sorted(requests)
    for commit in (first, second, others):
        linked = {link.context.span_id for link in commit.links}
        assert linked == {wait.parent.span_id for wait in waits if wait.parent and wait.links[0].context == commit.context}
        assert all(requests[span].attributes["decklog.tenant"] == commit.attributes["decklog.tenant"] for span in linked)  # type: ignore[index]
    assert (len(first.links), len(second.links), len(others.links)) == (1, 2, 1)
    assert {format_trace_id(span.context.trace_id) for span in requests.values() if span.context} >= {SAMPLED[3:35]}


async def test_failed_commit_has_an_error_span_with_its_code(sent: Sent) -> None:
    acme = make_tenant("acme")
    store = Gate(acme)
    store.failure = DecklogError(Code.STORAGE_UNAVAILABLE, "a text that may tell too much")
    await in_one_group(sent, store, [(acme, SAMPLED)] * 3)
    for commit in sent.named("commit"):
        assert commit.status.description == "storage-unavailable"
        assert "decklog.seq.first" not in (commit.attributes or {})
    assert [len(commit.links) for commit in sent.named("commit")] == [1, 2]
    assert {span.attributes["error.type"] for span in sent.named("POST /api/v1/logs") if span.attributes} == {"503"}


async def test_span_links_are_bounded(sent: Sent) -> None:
    acme = make_tenant("acme")
    await in_one_group(sent, Gate(acme), [(acme, SAMPLED)] * (LINKS_MAX + 3))
    assert [len(commit.links) for commit in sent.named("commit")] == [1, LINKS_MAX]
    assert len(sent.named("wait for commit")) == LINKS_MAX + 3


class Effect:
    """Fails once, if it is told to."""

    parallel = 2

    def __init__(self, *, fails: bool = False) -> None:
        self._fails = fails

    async def apply(self, batch: Sequence[LogRecords]) -> None:
        if self._fails:
            self._fails = False
            raise DecklogError(Code.SEARCH_UNAVAILABLE, "away")

    async def settle(self, tenants: Sequence[Tenant]) -> None:
        """Nothing to wait for."""


async def test_batch_span_links_the_commits_of_its_records_and_counts_them(sent: Sent) -> None:
    acme = make_tenant("acme")
    ticks = itertools.count()
    store = MemoryStore(acme, now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(ticks)))
    for _ in range(LINKS_MAX + 2):
        await fill(store, acme, {})
    follower = Follower("indexer", store, MemoryCursors(store), Effect(), traces=sent.traces)
    assert await follower.advance(acme, LogName.EVENTS) is Ended.DONE
    [batch] = sent.named("indexer")
    assert dict(batch.attributes or {}) == {
        "decklog.consumer": "indexer", "decklog.tenant": "acme", "decklog.log": "events", "decklog.epoch": 1,
        "decklog.records": LINKS_MAX + 2, "decklog.commits": LINKS_MAX + 2, "decklog.logs": 1, "decklog.seq.first": 0, "decklog.seq.last": LINKS_MAX + 1,
    }  # fmt: skip
    assert len({link.context.trace_id for link in batch.links}) == LINKS_MAX
    assert batch.status.is_unset


async def test_batch_spans_are_marked_as_broken_off_when_an_advance_fails(sent: Sent) -> None:
    acme = make_tenant("acme")
    store = MemoryStore(acme)
    await fill(store, acme, {})
    now = 0.0
    follower = Follower("indexer", store, MemoryCursors(store), Effect(fails=True), traces=sent.traces, clock=lambda: now)
    assert await follower.advance(acme, LogName.EVENTS) is Ended.FAILED
    now = 100.0
    assert await follower.advance(acme, LogName.EVENTS) is Ended.DONE
    assert [span.status.description for span in sent.named("indexer")] == ["broken off", None]


class Stuck(SpanExporter):
    """A collector that takes a connection and says nothing."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.go.wait()
        return SpanExportResult.FAILURE


def counted(outcome: str) -> float:
    return float(SPANS.labels(outcome)._value.get())


async def test_spans_are_dropped_and_counted_and_stop_is_bounded_when_the_collector_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces_module, "STOP_SECONDS_MAX", 0.05)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    stuck = Stuck()
    traces = OtelTraces("decklog-test", queue_spans_max=10, exporter=stuck)

    def request() -> None:
        with traces.request("GET", []) as span:
            span.answered("GET", None, 200, None)

    dropped, failed = counted("dropped"), counted("failed")
    request()
    await asyncio.to_thread(stuck.entered.wait)
    for _ in range(15):
        request()
    assert counted("dropped") == dropped + 5
    await traces.stop()
    assert counted("failed") == failed
    stuck.go.set()
    async with asyncio.timeout(20):
        while counted("failed") < failed + 1:
            await asyncio.sleep(0.005)
