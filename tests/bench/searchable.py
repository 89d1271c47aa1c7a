"""Time from the 201 to being searchable, at a steady rate of records.

A record counts as searchable when the indexer's cursor has passed it. Samples prove by a search that the index finds it.
"""

from __future__ import annotations

import asyncio
import bisect
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg
from msgspec.structs import replace

from decklog.domain.consumers import indexer_of
from decklog.domain.index_generation import IndexGeneration
from decklog.domain.log import LogName, Span
from decklog.domain.records.record import decode, prepare
from decklog.domain.search.query import Query
from decklog.domain.search.terms import terms
from decklog.domain.store import SearchDocument
from decklog.domain.tenant import Isolation
from decklog.opensearch.client import connect
from decklog.opensearch.search import OpenSearchIndex
from decklog.settings import Search
from tests.bench import load, payloads
from tests.bench.context import Context
from tests.bench.figures import Figure, percentile, value_at_least, value_at_most
from tests.bench.load import PLACE
from tests.bench.processes import HOST, Server, usage
from tests.bench.stand import Customer, Stand, stand

NAMES = ("searchable_rate", "searchable_lag_p99")
BULK = 500
RATE = 5_200.0
"""Records per second that are sent: slightly more than the target."""
_SECONDS = 32.0
_WARMUP_SECONDS = 60.0
"""Time in which the Java virtual machine compiles and takes up to half a core."""
_RATE_MIN = 5_000.0
_LAG_MAX = 2.0
"""Seconds."""
_ALONE_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_PROVE_SECONDS = 0.5
_LAST_SECONDS_MAX = 60.0
_TEMPLATES = 20


@dataclass
class _Run:
    """Times by this process's clock, in order: (end of the acknowledged or passed numbers, time)."""

    acknowledged: list[tuple[int, float]] = field(default_factory=list)
    passed: list[tuple[int, float]] = field(default_factory=list)
    proofs: int = 0
    late: int = 0


async def _send(server: Server, customer: Customer, seconds: float, run: _Run, first_number: int) -> None:
    """Send bulks at a steady pace. A due bulk does not wait for earlier ones."""
    loop = asyncio.get_running_loop()
    bodies = [
        load.request(
            "POST", "/api/v1/logs/bulk", customer.writer, payloads.bulk(i, BULK, lines=True), content_type="application/x-ndjson"
        )
        for i in range(_TEMPLATES)
    ]
    parts = [body.request.split(PLACE) for body in bodies]
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    sending: set[asyncio.Task[None]] = set()

    async def send(number: int) -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(HOST, server.port)
        writer.write((b"%012d" % (first_number + number)).join(parts[number % len(parts)]))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
        answer = json.loads(await reader.readexactly(length))
        if answer.get("stored") != BULK:
            raise RuntimeError(f"a bulk was not stored: {str(answer)[:300]}")
        run.acknowledged.append((max(item["seq"] for item in answer["items"]) + 1, time.perf_counter()))
        idle.append((reader, writer))

    began = loop.time()
    for number in range(int(seconds * RATE / BULK)):
        due = began + number * BULK / RATE
        run.late += loop.time() - due > BULK / RATE
        await asyncio.sleep(max(0.0, due - loop.time()))
        task = asyncio.create_task(send(number))
        sending.add(task)
        task.add_done_callback(sending.discard)
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


async def _run(place: Stand, customer: Customer, server: Server, seconds: float, first_number: int) -> _Run:
    run = _Run()
    client = connect(place.settings.search)
    watching = asyncio.create_task(_watch(place, customer, OpenSearchIndex(client), run))
    try:
        await _send(server, customer, seconds, run, first_number)
        end = max(seq for seq, _ in run.acknowledged)
        async with asyncio.timeout(_LAST_SECONDS_MAX):
            while (not run.passed or run.passed[-1][0] < end) and not watching.done():
                await asyncio.sleep(_LOOK_SECONDS)
        if watching.done():
            watching.result()
    finally:
        watching.cancel()
        await asyncio.wait({watching})
        await client.close()
    return run


def _lags(run: _Run) -> list[float]:
    """Return the seconds from the answer to being searchable, for the last record of each bulk."""
    ends = [end for end, _ in run.passed]
    return [run.passed[bisect.bisect_left(ends, end)][1] - moment for end, moment in run.acknowledged]


async def _alone(context: Context, search: Search, customer: Customer) -> float:
    """Return the documents per second that OpenSearch indexes from two writers without other load."""
    now = datetime.now(UTC)
    contents = [
        json.loads(prepare(decode(payloads.record(i, f"alone-{i}")), now=now, fingerprint_key=b"").content) for i in range(4_000)
    ]
    documents = [
        SearchDocument(customer.tenant.id, LogName.ACCESS, 99, i, now, terms(content)) for i, content in enumerate(contents)
    ]
    client = connect(search)
    index = OpenSearchIndex(client)
    written = 0

    async def write(turn: int, ends_at: float) -> None:
        nonlocal written
        while time.perf_counter() < ends_at:
            batch = documents[turn * 2_000 : (turn + 1) * 2_000]
            await index.add(customer.tenant, batch)
            written += len(batch)

    try:
        began = time.perf_counter()
        ends_at = began + context.seconds(_ALONE_SECONDS)
        await asyncio.gather(write(0, ends_at), write(1, ends_at))
        await index.refresh(customer.tenant)
        return written / (time.perf_counter() - began)
    finally:
        await client.close()


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


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the sustained rate and the lag, with TimescaleDB, OpenSearch and SQS."""
    servers = context.servers
    context.say("searchable: starting OpenSearch and SQS")
    async with stand(servers.timescale, servers.opensearch, servers.sqs) as place:
        customer = await _with_generation(place, (await place.customers(1, Isolation.DEDICATED))[0])
        async with place.api() as api, place.worker() as worker:
            warmup = context.seconds(_WARMUP_SECONDS)
            context.say(
                f"searchable: warming up for {warmup:.0f} s, then {RATE:,.0f} records/s for {context.seconds(_SECONDS):.0f} s"
            )
            await _run(place, customer, api, warmup, 1)
            with usage(api) as by_api, usage(worker) as by_worker:
                measured = await _run(place, customer, api, context.seconds(_SECONDS), 1_000_000)
        context.say("searchable: OpenSearch alone")
        alone = await _alone(context, place.settings.search, customer)
    records = len(measured.acknowledged) * BULK
    began = measured.acknowledged[0][1]
    rate = (records - BULK) / (measured.passed[-1][1] - began)
    note = (
        f"{records:,} records offered at {RATE:,.0f}/s, {measured.late} bulks sent late; {measured.proofs} times proved by a search;"
        f" API {by_api.share:.2f} and worker {by_worker.share:.2f} of a core; baseline is OpenSearch alone"
    )
    yield Figure("searchable_rate", rate, "records/s", alone, value_at_least(_RATE_MIN), note)
    lags = _lags(measured)
    note = f"p50 {percentile(lags, 0.5):.2f} s, longest {max(lags):.2f} s"
    yield Figure("searchable_lag_p99", percentile(lags, 0.99), "s", None, value_at_most(_LAG_MAX), note)
