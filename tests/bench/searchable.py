"""Time from the 201 to being searchable: of one log under more and more load, and of many Shared logs with one record each.

A record counts as searchable when the indexer's cursor has passed it. Samples prove by a search that the index finds it. Ids,
correlation ids and sessions of all records differ, and no document is written twice.
"""

from __future__ import annotations

import asyncio
import bisect
import dataclasses
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg
from msgspec.structs import replace

from decklog.domain.consumers import indexer_of
from decklog.domain.identity.access import Role
from decklog.domain.index_generation import IndexGeneration
from decklog.domain.log import LogName, Span
from decklog.domain.records.record import decode, prepare
from decklog.domain.search.query import Query
from decklog.domain.search.terms import terms
from decklog.domain.store import SearchDocument
from decklog.domain.tenant import Isolation
from decklog.opensearch.client import connect
from decklog.opensearch.documents import lines
from decklog.opensearch.mapping import write_alias
from decklog.opensearch.search import OpenSearchIndex
from tests.bench import load, payloads
from tests.bench.asking import searched
from tests.bench.context import Context
from tests.bench.figures import Figure, median, percentile, value_at_least, value_at_most
from tests.bench.load import PLACE
from tests.bench.processes import HOST, Server, processor_of
from tests.bench.stand import Customer, Stand, stand
from tests.support.many_tenants import copy_tenant

NAMES = ("searchable_capacity", "searchable_lag_p99", "searchable_class")
BULK = 500
RATES = (2_000.0, 3_000.0, 4_000.0, 5_000.0, 6_000.0, 7_000.0, 8_000.0, 9_000.0, 10_000.0, 12_000.0)
"""Records per second that are offered, one after the other until the lag no longer holds or a bulk is refused."""
_SECONDS = 12.0
"""Time of one rate."""
_WARMUP_SECONDS = 45.0
"""Time in which the Java virtual machine compiles and takes up to half a core, at the first rate."""
_CAPACITY_MIN = 8_000.0
_LAG_MAX = 2.0
"""Seconds."""
_SENT_MIN = 0.97
"""Share of the offered rate that must be acknowledged: beyond it the generator or the API is the limit."""
_BARE_DOCUMENTS, _BARE_BULK = 60_000, 1_000
_LOOK_SECONDS = 0.02
_PROVE_SECONDS = 0.5
_LAST_SECONDS_MAX = 90.0
_TEMPLATES = 20
_CLASS_LOGS, _CLASS_LOGS_SMALL = 1_000, 100
_CLASS_SECONDS_MAX = 1.5
_CLASS_ROUNDS = 5
_CLASS_CONNECTIONS = 64


@dataclass
class _Run:
    """Times by this process's clock, in order: (end of the acknowledged or passed numbers, time)."""

    acknowledged: list[tuple[int, float]] = field(default_factory=list)
    passed: list[tuple[int, float]] = field(default_factory=list)
    proofs: int = 0
    late: int = 0
    refused: int = 0

    @property
    def rate(self) -> float:
        """Records per second that were acknowledged."""
        began, ended = self.acknowledged[0][1], max(moment for _, moment in self.acknowledged)
        return (len(self.acknowledged) - 1) * BULK / (ended - began)

    def lags(self) -> list[float]:
        """Return the seconds from the answer to being searchable, for the last record of each bulk."""
        ends = [end for end, _ in self.passed]
        return [self.passed[bisect.bisect_left(ends, end)][1] - moment for end, moment in self.acknowledged]


class _Processor(NamedTuple):
    """Seconds of processor time so far."""

    api: float
    worker: float
    postgres: float
    opensearch: float
    generator: float

    def each(self, before: _Processor, records: int) -> str:
        """Return the microseconds of each record since then, for people."""
        found = {name: (now - then) * 1e6 / records for name, now, then in zip(self._fields, self, before, strict=True)}
        return "processor µs of each record: " + ", ".join(f"{name} {value:.0f}" for name, value in found.items())


async def _processor(place: Stand, api: Server, worker: Server) -> _Processor:
    connection = await asyncpg.connect(place.admin_dsn)
    try:
        rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    finally:
        await connection.close()
    postgres = sum(processor_of(row["pid"]) for row in rows)
    own = time.process_time()
    return _Processor(api.processor_seconds(), worker.processor_seconds(), postgres, _of_opensearch(place), own)


def _of_opensearch(place: Stand) -> float:
    nodes = searched(place.settings.search.url, "GET", "/_nodes/stats/process", None)["nodes"]
    return float(sum(node["process"]["cpu"]["total_in_millis"] for node in nodes.values())) / 1_000


def _bodies(customer: Customer) -> list[bytes]:
    """Return requests of bulks. The number of the request is in the id, the session and the correlation id of each record."""
    place = PLACE.decode()
    found = []
    for number in range(_TEMPLATES):
        body = payloads.bulk(number, BULK, lines=True).decode()
        body = re.sub(r'"correlation_id":"[0-9a-f]{12}', f'"correlation_id":"{place}', body)
        body = re.sub(r'"session_id":"session-', f'"session_id":"session-{place}-', body)
        path = "/api/v1/logs/bulk"
        found.append(load.request("POST", path, customer.writer, body.encode(), content_type="application/x-ndjson").request)
    return found


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))


async def _send(
    server: Server, bodies: Sequence[bytes], run: _Run, *, rate: float, seconds: float, numbers: Iterator[int]
) -> None:
    """Send bulks at a steady pace. A due bulk does not wait for earlier ones."""
    loop = asyncio.get_running_loop()
    parts = [body.split(PLACE) for body in bodies]
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    sending: set[asyncio.Task[None]] = set()

    async def send(number: int) -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(HOST, server.port)
        writer.write((b"%012d" % number).join(parts[number % len(parts)]))
        answer = json.loads(await _answer(reader))
        if answer.get("stored") == BULK:
            run.acknowledged.append((max(item["seq"] for item in answer["items"]) + 1, time.perf_counter()))
            idle.append((reader, writer))
        elif answer.get("code") == "overloaded":
            run.refused += 1
            writer.close()
        else:
            raise RuntimeError(f"a bulk was not stored: {str(answer)[:300]}")

    began = loop.time()
    for turn in range(int(seconds * rate / BULK)):
        due = began + turn * BULK / rate
        run.late += loop.time() - due > BULK / rate
        await asyncio.sleep(max(0.0, due - loop.time()))
        sending.add(asyncio.create_task(send(next(numbers))))
    await asyncio.gather(*sending)
    for _, writer in idle:
        writer.close()


async def _watch(place: Stand, customer: Customer, index: OpenSearchIndex, run: _Run) -> None:
    """Note each move of the cursor, and prove samples by a search, until cancelled."""
    tenant = customer.tenant
    connection = await asyncpg.connect(place.admin_dsn)
    proved_at, seen = time.perf_counter(), 0
    try:
        while True:
            passed = await connection.fetchval(
                "SELECT next_seq FROM decklog.cursors WHERE consumer = $1 AND tenant_id = $2 AND log = 0",
                indexer_of(tenant),
                tenant.id,
            )
            now = time.perf_counter()
            if passed is not None and passed > seen:
                seen = passed
                run.passed.append((passed, now))
                if now - proved_at > _PROVE_SECONDS:
                    proved_at = now
                    found = await index.find(
                        tenant, LogName.EVENTS, Span(passed - 1, passed), query=Query(), limit=1, newest_first=True
                    )
                    if found != [passed - 1]:
                        raise RuntimeError(f"the cursor is at {passed}, but the index does not find {passed - 1}")
                    run.proofs += 1
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await connection.close()


class _Log:
    """One log of a Dedicated tenant, with its processes."""

    def __init__(self, place: Stand, customer: Customer, api: Server, worker: Server) -> None:
        self.place, self.customer, self.api, self.worker = place, customer, api, worker
        self._bodies = _bodies(customer)
        self._numbers = itertools.count(1)

    async def run(self, rate: float, seconds: float) -> tuple[_Run, str]:
        """Offer a rate until the last record is searchable; return what was seen, and the processor time of each record."""
        run = _Run()
        client = connect(self.place.settings.search)
        watching = asyncio.create_task(_watch(self.place, self.customer, OpenSearchIndex(client), run))
        before = await _processor(self.place, self.api, self.worker)
        try:
            await _send(self.api, self._bodies, run, rate=rate, seconds=seconds, numbers=self._numbers)
            end = max(seq for seq, _ in run.acknowledged)
            async with asyncio.timeout(_LAST_SECONDS_MAX):
                while (not run.passed or run.passed[-1][0] < end) and not watching.done():
                    await asyncio.sleep(_LOOK_SECONDS)
            if watching.done():
                watching.result()
            after = await _processor(self.place, self.api, self.worker)
        finally:
            watching.cancel()
            await asyncio.wait({watching})
            await client.close()
        return run, after.each(before, len(run.acknowledged) * BULK)


async def _bare(place: Stand, customer: Customer, count: int) -> tuple[float, float]:
    """Return the documents per second that OpenSearch takes from two writers without other load, and the microseconds of each.

    Their requests are made before, and are those of the worker. Each document is written once.
    """
    live = customer.tenant.live
    assert live is not None
    now = datetime.now(UTC)
    start = live.range_of(now)
    assert start is not None
    alias = write_alias(live.range_index(start))
    groups: list[bytes] = []
    held: list[bytes] = []
    for seq in range(count):
        content = json.loads(prepare(decode(payloads.record(seq, f"bare-{seq}")), now=now, fingerprint_key=b"").content)
        found = SearchDocument(customer.tenant.id, LogName.ACCESS, 99, seq, now, terms(content, seq=seq, received_at=now))
        held.append(lines(found, alias))
        if len(held) == _BARE_BULK or seq == count - 1:
            groups.append(b"".join(held))
            held = []
    client = connect(place.settings.search)
    waiting = iter(groups)

    async def write() -> None:
        for body in waiting:
            answer = await client.bulk(body=body, params={"require_alias": "true", "filter_path": "errors"})
            if answer["errors"]:
                raise RuntimeError("OpenSearch refused a document")

    used, began = _of_opensearch(place), time.perf_counter()
    try:
        await asyncio.gather(write(), write())
        await OpenSearchIndex(client).refresh(customer.tenant)
        seconds = time.perf_counter() - began
    finally:
        await client.close()
    return count / seconds, (_of_opensearch(place) - used) * 1e6 / count


async def _with_generation(place: Stand, customer: Customer) -> Customer:
    """Return the customer with the live generation of its index."""
    connection = await asyncpg.connect(place.admin_dsn)
    try:
        row = await connection.fetchrow(
            "SELECT index, generation, starts FROM decklog.search_generations WHERE index = $1 AND state = 1",
            customer.tenant.index,
        )
    finally:
        await connection.close()
    if row is None:
        raise RuntimeError(f"the index {customer.tenant.index} has no generation")
    live = IndexGeneration(row["index"], row["generation"], tuple(row["starts"]))
    return dataclasses.replace(customer, tenant=replace(customer.tenant, live=live))


async def _capacity(context: Context, place: Stand) -> AsyncIterator[Figure]:
    """Yield the highest rate at which the lag holds, and the lag at it."""
    customer = await _with_generation(place, (await place.customers(1, Isolation.DEDICATED))[0])
    held: tuple[float, list[float], str] = (0.0, [], "")
    async with place.api() as api, place.worker() as worker:
        log = _Log(place, customer, api, worker)
        warmup = context.seconds(_WARMUP_SECONDS)
        context.say(f"searchable: warming up for {warmup:.0f} s")
        await log.run(RATES[0], warmup)
        for rate in RATES:
            run, processor = await log.run(rate, context.seconds(_SECONDS))
            lags = run.lags()
            p99 = percentile(lags, 0.99)
            told = f"{run.rate:,.0f}/s of {rate:,.0f}/s, lag p50 {median(lags):.2f} s, p99 {p99:.2f} s; {processor}"
            context.say(f"searchable: {told}; {run.late} bulks sent late, {run.refused} refused, {run.proofs} proofs")
            if run.refused or p99 > _LAG_MAX or run.rate < _SENT_MIN * rate:
                break
            held = run.rate, lags, told
    bare, floor = await _bare(place, customer, _BARE_DOCUMENTS // (4 if context.small else 1))
    rate, lags, told = held
    note = f"{told}; baseline is bulks of such documents to OpenSearch without other load, {floor:.0f} µs of it for each"
    yield Figure("searchable_capacity", rate, "records/s", bare, value_at_least(_CAPACITY_MIN), note)
    if lags:
        note = f"at that rate; p50 {median(lags):.2f} s, longest {max(lags):.2f} s"
        yield Figure("searchable_lag_p99", percentile(lags, 0.99), "s", None, value_at_most(_LAG_MAX), note)


async def _post_all(api: Server, requests: Sequence[bytes]) -> tuple[float, float]:
    """Send one request of each log; return the times of the first and of the last 201."""
    waiting = iter(requests)
    answered: list[float] = []

    async def post() -> None:
        reader, writer = await asyncio.open_connection(HOST, api.port)
        for request in waiting:
            writer.write(request)
            body = await _answer(reader)
            if b'"seq"' not in body:
                raise RuntimeError(f"a record was not stored: {body[:300]!r}")
            answered.append(time.perf_counter())
        writer.close()

    await asyncio.gather(*(post() for _ in range(_CLASS_CONNECTIONS)))
    return min(answered), max(answered)


async def _all_passed(place: Stand, customers: Sequence[Customer], records: int) -> float:
    """Return the time when the cursors of all logs have passed so many records."""
    consumer = indexer_of(customers[0].tenant)
    ids = [customer.tenant.id for customer in customers]
    connection = await asyncpg.connect(place.admin_dsn)
    try:
        async with asyncio.timeout(_LAST_SECONDS_MAX):
            while True:
                done = await connection.fetchval(
                    "SELECT count(*) FROM decklog.cursors WHERE consumer = $1 AND log = 0 AND tenant_id = ANY ($2) AND next_seq >= $3",
                    *(consumer, ids, records),
                )
                if done == len(customers):
                    return time.perf_counter()
                await asyncio.sleep(_LOOK_SECONDS / 2)
    finally:
        await connection.close()


async def _copies(place: Stand, count: int) -> list[Customer]:
    """Return so many Shared tenants of one class."""
    [made] = await place.customers(1, Isolation.SHARED)
    first = await _with_generation(place, made)
    names = [f"class-{number}" for number in range(count)]
    connection = await asyncpg.connect(place.owner_dsn)
    try:
        copies = await copy_tenant(connection, first.tenant.id, names)
    finally:
        await connection.close()
    tenant = first.tenant
    return [
        Customer(replace(tenant, id=number, name=name), {Role.WRITER: key})
        for name, (number, key) in zip(names, copies, strict=True)
    ]


async def _class(context: Context, place: Stand) -> AsyncIterator[Figure]:
    """Yield the time until one record of each of many Shared logs is searchable."""
    count = _CLASS_LOGS_SMALL if context.small else _CLASS_LOGS
    context.say(f"searchable: making {count:,} Shared tenants")
    customers = await _copies(place, count)
    from_first: list[float] = []
    from_last: list[float] = []
    client = connect(place.settings.search)
    async with place.api() as api, place.worker() as worker:
        # In the first round processes learn of the tenants, and the Java virtual machine compiles.
        for turn in range(_CLASS_ROUNDS + 1):
            requests = [
                load.request("POST", "/api/v1/logs", each.writer, payloads.record(turn * count + number, f"class-{turn}")).request
                for number, each in enumerate(customers)
            ]
            before = await _processor(place, api, worker)
            passing = asyncio.create_task(_all_passed(place, customers, turn + 1))
            began, answered = await _post_all(api, requests)
            passed = await passing
            told = (await _processor(place, api, worker)).each(before, count)
            context.say(
                f"searchable: {count:,} logs {passed - began:.2f} s after the first 201, {passed - answered:.2f} s after the last; {told}"
            )
            for each in customers[:: max(1, count // 10)]:
                span = Span(turn, turn + 1)
                found = await OpenSearchIndex(client).find(
                    each.tenant, LogName.EVENTS, span, query=Query(), limit=1, newest_first=True
                )
                if found != [turn]:
                    raise RuntimeError(f"the index does not find record {turn} of {each.tenant.name}")
            if turn:
                from_first.append(passed - began)
                from_last.append(passed - answered)
            await asyncio.sleep(1.0)
    await client.close()
    note = (
        f"{count:,} logs, from the first 201 to the last record searchable, median of {_CLASS_ROUNDS}, longest {max(from_first):.2f} s;"
        f" {median(from_last):.2f} s after the last 201"
    )
    yield Figure("searchable_class", median(from_first), "s", None, value_at_most(_CLASS_SECONDS_MAX), note)


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the capacity, the lag at it and the time of a class, with TimescaleDB, OpenSearch and SQS."""
    servers = context.servers
    context.say("searchable: starting OpenSearch and SQS")
    async with stand(servers.timescale, servers.opensearch, servers.sqs) as place:
        if not context.only or context.only & set(NAMES[:2]):
            async for figure in _capacity(context, place):
                yield figure
        if not context.only or NAMES[2] in context.only:
            async for figure in _class(context, place):
                yield figure
