"""Export of a log against COPY TO: the cost of paging, rendering and HTTP, and memory independent of the size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import quote

from decklog.domain.log import rfc3339
from tests.backends import Variant
from tests.bench import load
from tests.bench.context import VARIANTS, Context, named
from tests.bench.dataset import DAYS, Log
from tests.bench.figures import Figure, median, ratio_at_least, value_at_most
from tests.bench.processes import HOST, Server
from tests.bench.stand import Stand
from tests.bench.transfer import Received, Transfer, receive

NAMES = ("export", "export_memory")
_RATIO_MIN = 0.4
_GROWTH_MAX = 20.0
"""MiB of resident memory."""
_FEW = 10_000
_SAMPLE_SECONDS = 0.02
_MIB = 1024 * 1024


class _Peak:
    mib: float = 0.0


@asynccontextmanager
async def _watched(server: Server) -> AsyncIterator[_Peak]:
    """Record the peak memory of a process while the block runs."""
    peak = _Peak()

    async def watch() -> None:
        while True:
            peak.mib = max(peak.mib, server.resident_mib())
            await asyncio.sleep(_SAMPLE_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _export(server: Server, log: Log, parameters: str = "") -> Received:
    template = load.request("GET", f"/api/v1/logs/export?format=ndjson{parameters}", log.customer.auditor)
    return await receive(Transfer(HOST, server.port, template.request))


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield MiB per second of each variant and format, and the growth of memory."""
    for variant in VARIANTS:
        place, log = await context.three_months(variant)
        async for figure in _variant(context, variant, place, log):
            yield figure


async def _variant(context: Context, variant: Variant, place: Stand, log: Log) -> AsyncIterator[Figure]:
    query = (
        f'SELECT epoch, seq, received_at, digest, content FROM "{log.customer.tenant.schema}".records'
        f" WHERE tenant_id = {log.customer.tenant.id} AND log = 0 ORDER BY seq"
    )
    context.say(f"export: {variant}, {log.records:,} records")
    # A time range with about the newest ten thousand records.
    since = log.last_received - timedelta(days=DAYS) * (_FEW / log.records)
    copied, exported = [], []
    async with place.api() as server:
        async with _watched(server) as few:
            for _ in range(3):
                await _export(server, log, f"&from={quote(rfc3339(since))}")
        async with _watched(server) as many:
            for _ in range(context.rounds // 2 + 1):
                copied.append(await receive(Transfer(dsn=place.owner_dsn, query=query)))
                exported.append(await _export(server, log))
    size, seconds = exported[0].size / _MIB, median([received.seconds for received in exported])
    rates = [median([received.size / _MIB / received.seconds for received in each]) for each in (exported, copied)]
    note = f"{size:,.0f} MiB in {seconds:.1f} s, {log.records / seconds:,.0f} records/s"
    yield Figure(named("export", variant), rates[0], "MiB/s", rates[1], ratio_at_least(_RATIO_MIN), note)
    note = f"peak {few.mib:.0f} MiB with {_FEW:,} records, {many.mib:.0f} MiB with {log.records:,}"
    yield Figure(named("export_memory", variant), many.mib - few.mib, "MiB", None, value_at_most(_GROWTH_MAX), note)
