"""A list with its access record against the same list without: the cost of recording reads."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tests.bench import load
from tests.bench.context import VARIANTS, Context, named
from tests.bench.figures import Figure, median, ratio_at_least
from tests.bench.load import Job, Outcome, Template
from tests.bench.processes import HOST, Server

NAMES = ("read_audit",)
_CONNECTIONS = 16
_SECONDS, _WARMUP = 2.5, 0.7
_RATIO_MIN = 0.7


async def _measured(context: Context, server: Server, template: Template) -> Outcome:
    outcome = await load.apply(Job(HOST, server.port, [template], _CONNECTIONS, _WARMUP, context.seconds(_SECONDS)))
    if set(outcome.statuses) != {200}:
        raise RuntimeError(f"not every answer was a 200: {outcome.statuses}, {outcome.odd_answer}")
    return outcome


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield lists per second of each variant."""
    for variant in VARIANTS:
        place, log = await context.three_months(variant)
        template = load.request("GET", "/api/v1/logs", log.customer.auditor)
        context.say(f"read_audit: {variant}, the first page with {_CONNECTIONS} connections")
        with_records, without = [], []
        async with place.api() as recording, place.api(module="tests.bench.unrecorded") as silent:
            for _ in range(context.rounds):
                without.append(await _measured(context, silent, template))
                with_records.append(await _measured(context, recording, template))
        rates = [median([outcome.rate for outcome in outcomes]) for outcomes in (with_records, without)]
        note = f"rounds {_shown(with_records)}; without access records {_shown(without)}; p50 {with_records[-1].p50:.1f} ms"
        yield Figure(named("read_audit", variant), rates[0], "lists/s", rates[1], ratio_at_least(_RATIO_MIN), note)


def _shown(outcomes: list[Outcome]) -> str:
    return ", ".join(f"{outcome.rate:,.0f}" for outcome in outcomes) + "/s"
