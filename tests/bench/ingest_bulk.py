"""Bulks of 500 records against COPY of as many rows into the same relation: the cost of validation, order and receipts."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg

from decklog.domain.records.record import decode, prepare
from decklog.domain.tenant import Isolation
from tests.backends import Variant
from tests.bench import load, payloads
from tests.bench.context import VARIANTS, Context, named
from tests.bench.figures import Figure, median, ratio_at_least
from tests.bench.load import Job, Template
from tests.bench.processes import HOST, Usage, usage
from tests.bench.stand import Customer, Stand, stand

NAMES = ("ingest_bulk",)
RECORDS = 500
_CONNECTIONS = (1, 4)
"""Numbers of connections. Both sides are measured with each; the better result of each side counts."""
_SECONDS, _WARMUP = 3.0, 0.7
_TEMPLATES = 20
_RATIO_MIN = 0.5
_NOBODY = -1
"""Tenant id of the rows that COPY inserts; it has no head."""
_COLUMNS = (
    "tenant_id", "seq", "received_at", "occurred_at", "epoch", "log", "severity", "outcome", "id", "action", "actor_type", "actor_id",
    "resource_type", "resource_id", "session_id", "correlation_id", "ip", "fingerprint", "digest", "content",
)  # fmt: skip


def _rows(first: int) -> list[tuple[Any, ...]]:
    """Return rows as the service would store the records of one bulk."""
    now = datetime.now(UTC)
    rows = []
    for number in range(first, first + RECORDS):
        r = prepare(decode(payloads.record(number % 5_000, f"bench-{number:012d}")), now=now, fingerprint_key=b"")
        rows.append(
            (_NOBODY, number, now, r.occurred_at, 1, 0, r.severity, r.outcome, r.id, r.action, r.actor_type, r.actor_id, r.resource_type,
             r.resource_id, r.session_id, r.correlation_id, r.ip, r.fingerprint, r.digest, r.content.decode())
        )  # fmt: skip
    return rows


async def _copy(place: Stand, customer: Customer, batches: Iterator[list[tuple[Any, ...]]], seconds: float) -> int:
    """Return the number of rows that one connection copies, 500 in a transaction."""
    connection = await asyncpg.connect(place.owner_dsn)
    copied = 0
    try:
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at and (batch := next(batches, None)) is not None:
            await connection.copy_records_to_table("records", schema_name=customer.tenant.schema, columns=_COLUMNS, records=batch)
            copied += len(batch)
    finally:
        await connection.close()
    return copied


async def _copy_rate(context: Context, place: Stand, customer: Customer, connections: int, numbers: Iterator[int]) -> float:
    """Return rows per second by COPY. The rows are prepared before the measurement."""
    batches = iter([_rows(next(numbers)) for _ in range(40 if context.small else 120)])
    began = time.perf_counter()
    copied = await asyncio.gather(*[_copy(place, customer, batches, context.seconds(_SECONDS)) for _ in range(connections)])
    return sum(copied) / (time.perf_counter() - began)


def _templates(customer: Customer, *, lines: bool) -> list[Template]:
    kind = "application/x-ndjson" if lines else "application/json"
    return [
        load.request("POST", "/api/v1/logs/bulk", customer.writer, payloads.bulk(i, RECORDS, lines=lines), content_type=kind)
        for i in range(_TEMPLATES)
    ]


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield records per second of each variant, as NDJSON and as a JSON array."""
    for variant in VARIANTS:
        async with stand(context.postgres(variant)) as place:
            async for figure in _variant(context, variant, place):
                yield figure


async def _variant(context: Context, variant: Variant, place: Stand) -> AsyncIterator[Figure]:
    [customer] = await place.customers(1, Isolation.DEDICATED)
    copies: dict[int, list[float]] = {connections: [] for connections in _CONNECTIONS}
    bulks: dict[tuple[bool, int], list[float]] = {(lines, n): [] for lines in (True, False) for n in _CONNECTIONS}
    numbers, first_number, used = itertools.count(0, RECORDS), 1, Usage()
    async with place.api() as server:
        for turn, connections in itertools.product(range(context.rounds // 2), _CONNECTIONS):
            context.say(f"ingest_bulk: {variant}, round {turn + 1}, {connections} connections")
            copies[connections].append(await _copy_rate(context, place, customer, connections, numbers))
            for lines in (True, False):
                templates = _templates(customer, lines=lines)
                job = Job(HOST, server.port, templates, connections, _WARMUP, context.seconds(_SECONDS), first_number)
                with usage(server) as used:
                    outcome = await load.apply(job)
                if set(outcome.statuses) != {200}:
                    raise RuntimeError(f"not every answer was a 200: {outcome.statuses}, {outcome.odd_answer}")
                first_number = outcome.next_number
                bulks[lines, connections].append(outcome.rate * RECORDS)
    best = max(_CONNECTIONS, key=lambda n: median(copies[n]))
    for lines, suffix in ((True, ""), (False, "_array")):
        rates = {n: median(bulks[lines, n]) for n in _CONNECTIONS}
        note = "; ".join(f"{n} connections {rates[n]:,.0f}/s, COPY {median(copies[n]):,.0f}/s" for n in _CONNECTIONS)
        yield Figure(
            named("ingest_bulk" + suffix, variant),
            max(rates.values()),
            "records/s",
            median(copies[best]),
            ratio_at_least(_RATIO_MIN),
            f"{note}; API {used.share:.2f} of a core",
        )
