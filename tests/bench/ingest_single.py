"""One durable record per request, against the fastest that a Litestar handler can be: what the group commit is for."""

from __future__ import annotations

from collections.abc import AsyncIterator

from decklog.domain.tenant import Isolation
from tests.backends import Variant
from tests.bench import load, payloads
from tests.bench.context import VARIANTS, Context, named
from tests.bench.figures import Figure, ratio_at_least, value_at_most
from tests.bench.load import Job, Outcome, Template
from tests.bench.processes import HOST, Server, free_port, serving, usage
from tests.bench.stand import Customer, Stand, stand

NAMES = ("ingest_single",)
CONNECTIONS = 64
_SECONDS, _WARMUP = 8.0, 2.0
_MANY = 100
_RATIO_MIN = 0.55
_P99_MAX = 50.0
"""Milliseconds."""


def _templates(customers: list[Customer]) -> list[Template]:
    count = max(len(customers), 100)
    return [load.request("POST", "/api/v1/logs", customers[i % len(customers)].writer, payloads.single(i)) for i in range(count)]


async def _measured(context: Context, server: Server, templates: list[Template], *, seconds: float = _SECONDS) -> Outcome:
    job = Job(HOST, server.port, templates, connections=CONNECTIONS, warmup=_WARMUP, seconds=context.seconds(seconds))
    outcome = await load.apply(job)
    if set(outcome.statuses) != {201}:
        raise RuntimeError(f"not every answer was a 201: {outcome.statuses}, {outcome.odd_answer}")
    return outcome


async def _reference(context: Context, kind: str, templates: list[Template]) -> Outcome:
    port = free_port()
    async with serving(["tests.bench.reference", kind, str(port)], port) as server:
        return await _measured(context, server, templates, seconds=_SECONDS / 2)


async def _service(context: Context, place: Stand, customers: list[Customer]) -> tuple[Outcome, float]:
    async with place.api() as server:
        with usage(server) as used:
            outcome = await _measured(context, server, _templates(customers))
    return outcome, used.share


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yields requests per second and the p99 of each variant, for one tenant and for many."""
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
    for suffix, count, isolation in cases:
        context.say(f"ingest_single: {variant}, making {count} {isolation.value} tenants")
        customers = await place.customers(count, isolation)
        templates = _templates(customers)
        context.say(f"ingest_single: {variant}, {count} {isolation.value} tenants, 64 connections")
        # The floor is measured on both sides of the service, so that a machine that changes meanwhile shows.
        before = await _reference(context, "empty", templates)
        outcome, share = await _service(context, place, customers)
        after = await _reference(context, "empty", templates)
        empty = (before.rate + after.rate) / 2
        beside = f"empty handler {before.rate:,.0f} and {after.rate:,.0f}/s; API {share:.2f} and load {outcome.processor:.2f} of a core"
        target = ratio_at_least(_RATIO_MIN) if suffix != "_100_dedicated" else None
        yield Figure(named("ingest_single" + suffix, variant), outcome.rate, "requests/s", empty, target, beside)
        slow = f"p50 {outcome.p50:.1f}, longest {outcome.longest:.0f} ms; empty handler p99 {after.p99:.1f} ms"
        target = value_at_most(_P99_MAX) if suffix != "_100_dedicated" else None
        yield Figure(named(f"ingest_single{suffix}_p99", variant), outcome.p99, "ms", after.p99, target, slow)
        if not suffix:
            bare = await _reference(context, "bare", templates)
            note = f"what the load generator reaches against a server of a few lines; {bare.processor:.2f} of a core"
            yield Figure(named("load_ceiling", variant), bare.rate, "requests/s", None, None, note)
