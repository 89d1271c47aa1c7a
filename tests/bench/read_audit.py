"""A list with its access record against the same list without: what rule 8 costs."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tests.bench import load
from tests.bench.context import VARIANTS, Context, named
from tests.bench.figures import Figure, ratio_at_least
from tests.bench.load import Job, Outcome, Template
from tests.bench.processes import HOST, Server

NAMES = ("read_audit",)
_CONNECTIONS = 16
_SECONDS, _WARMUP = 5.0, 1.0
_RATIO_MIN = 0.7


async def _measured(context: Context, server: Server, template: Template) -> Outcome:
    outcome = await load.apply(Job(HOST, server.port, [template], _CONNECTIONS, _WARMUP, context.seconds(_SECONDS)))
    if set(outcome.statuses) != {200}:
        raise RuntimeError(f"not every answer was a 200: {outcome.statuses}, {outcome.odd_answer}")
    return outcome


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yields lists per second of each variant."""
    for variant in VARIANTS:
        place, log = await context.three_months(variant)
        template = load.request("GET", "/api/v1/logs", log.customer.auditor)
        context.say(f"read_audit: {variant}, the first page with {_CONNECTIONS} connections")
        async with place.api(module="tests.bench.unrecorded") as server:
            before = await _measured(context, server, template)
        async with place.api() as server:
            recorded = await _measured(context, server, template)
        async with place.api(module="tests.bench.unrecorded") as server:
            after = await _measured(context, server, template)
        note = f"without access records {before.rate:,.0f} and {after.rate:,.0f}/s; p50 {recorded.p50:.1f} ms"
        yield Figure(
            named("read_audit", variant),
            recorded.rate,
            "lists/s",
            (before.rate + after.rate) / 2,
            ratio_at_least(_RATIO_MIN),
            note,
        )
