"""One durable record per request against an empty Litestar handler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from decklog.domain.tenant import Isolation
from tests.backends import Variant
from tests.bench import load, payloads
from tests.bench.context import VARIANTS, Context, named
from tests.bench.figures import Figure, median, ratio_at_least, value_at_most
from tests.bench.load import Job, Outcome, Template
from tests.bench.processes import HOST, Server, free_port, serving
from tests.bench.stand import Customer, Stand, stand

NAMES = ("ingest_single",)
CONNECTIONS = 64
_SECONDS, _WARMUP = 1.5, 0.5
_TURNS = 2
"""Measurements of each side in one round: many short ones in turn, because other load on the machine changes within seconds."""
_MANY = 100
_RATIO_MIN = 0.55
_P99_MAX = 50.0
"""Milliseconds."""


@asynccontextmanager
async def _reference(kind: str) -> AsyncIterator[Server]:
    port = free_port()
    async with serving(["tests.bench.reference", kind, str(port)], port) as server:
        yield server


def _templates(customers: list[Customer]) -> list[Template]:
    count = max(len(customers), 100)
    return [load.request("POST", "/api/v1/logs", customers[i % len(customers)].writer, payloads.single(i)) for i in range(count)]


class _Rounds:
    """Measurements of one server. Numbers of ids continue, so none is sent twice."""

    def __init__(self, server: Server, templates: list[Template]) -> None:
        self._server = server
        self._templates = templates
        self._number = 1
        self._used = 0.0
        self.outcomes: list[Outcome] = []

    async def measure(self, context: Context) -> None:
        job = Job(
            HOST, self._server.port, self._templates, CONNECTIONS, _WARMUP, context.seconds(_SECONDS), first_number=self._number
        )
        used = self._server.processor_seconds()
        outcome = await load.apply(job)
        self._used += self._server.processor_seconds() - used
        if set(outcome.statuses) != {201}:
            raise RuntimeError(f"not every answer was a 201: {outcome.statuses}, {outcome.odd_answer}")
        self._number = outcome.next_number
        self.outcomes.append(outcome)

    @property
    def rate(self) -> float:
        return median([outcome.rate for outcome in self.outcomes])

    @property
    def p99(self) -> float:
        return median([outcome.p99 for outcome in self.outcomes])

    @property
    def microseconds(self) -> float:
        """Microseconds of the server's processor for one request."""
        return self._used / sum(outcome.total for outcome in self.outcomes) * 1_000_000

    def __str__(self) -> str:
        rates = ", ".join(f"{outcome.rate:,.0f}" for outcome in self.outcomes)
        return f"{rates}/s at {self.microseconds:.0f} µs of processor each"


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield requests per second and the p99 of each variant, for one tenant and for many."""
    async with _reference("bare") as server:
        bare = _Rounds(server, [load.request("POST", "/api/v1/logs", "x", payloads.single(0))])
        await bare.measure(context)
    note = f"what the load generator reaches against a server of a few lines; it used {bare.outcomes[0].processor:.2f} of a core"
    yield Figure("load_ceiling", bare.rate, "requests/s", None, None, note)
    for variant in VARIANTS:
        async with stand(context.postgres(variant)) as place:
            async for figure in _variant(context, variant, place):
                yield figure


async def _variant(context: Context, variant: Variant, place: Stand) -> AsyncIterator[Figure]:
    cases = (
        ("", 1, Isolation.DEDICATED),
        ("_100_shared", _MANY, Isolation.SHARED),
        ("_100_dedicated", _MANY, Isolation.DEDICATED),
    )
    for suffix, count, isolation in cases[:2] if context.small else cases:
        context.say(f"ingest_single: {variant}, making {count} {isolation.value} tenants")
        templates = _templates(await place.customers(count, isolation))
        context.say(f"ingest_single: {variant}, {count} {isolation.value} tenants, {CONNECTIONS} connections")
        async with _reference("empty") as reference, place.api() as server:
            empty, service = _Rounds(reference, templates), _Rounds(server, templates)
            for _ in range(_TURNS * context.rounds):
                await empty.measure(context)
                await service.measure(context)
        # Dedicated tenants share no relation, so a group has one insert for each tenant: reported without a target.
        promised = suffix != "_100_dedicated"
        yield Figure(
            named("ingest_single" + suffix, variant),
            service.rate,
            "requests/s",
            empty.rate,
            ratio_at_least(_RATIO_MIN) if promised else None,
            f"rounds {service}; empty handler {empty}",
        )
        slow = (
            f"slowest round {max(o.p99 for o in service.outcomes):.1f}, longest {max(o.longest for o in service.outcomes):.0f} ms"
        )
        target = value_at_most(_P99_MAX) if promised else None
        yield Figure(named(f"ingest_single{suffix}_p99", variant), service.p99, "ms", empty.p99, target, slow)
