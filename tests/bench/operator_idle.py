"""Processor time of the operator over 5,000 unchanged Tenants, with its default interval between visits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from decklog.domain.tenant import Isolation
from tests.bench.context import Context
from tests.bench.figures import Figure, value_at_most
from tests.bench.operator_stand import RESYNC_SECONDS, Kind, operator_stand
from tests.bench.processes import usage

NAMES = ("operator_idle_cpu",)
_SHARE_MAX = 5.0
"""Percent of a core."""
_WAIT_MAX = 540.0
_SECONDS = 360.0
"""The longest pause between two visits of a Tenant, so that every Tenant is visited: visits come in waves."""
_SETTLE_SECONDS = 10.0
"""Kopf's workers end some seconds after their last object."""


async def _share(context: Context, kind: Kind, count: int, resync: int, seconds: float) -> tuple[float, int]:
    """Return the percentage of a core, and the number of visits."""
    async with operator_stand(context, kind) as place, place.operator(resync) as server:
        await place.fleet.apply(count, {"isolation": Isolation.SHARED.value, "retention": {"days": 90}})
        await place.fleet.until(lambda: len(place.fleet.settled) == count, _WAIT_MAX)
        context.say(f"operator_idle_cpu: {kind}, {count} Tenants are ready; measuring {seconds:g} s without changes")
        await asyncio.sleep(_SETTLE_SECONDS)
        lines = place.visits.read_bytes().count(b"\n")
        with usage(server) as used:
            await asyncio.sleep(seconds)
        return used.share * 100, place.visits.read_bytes().count(b"\n") - lines


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the percentage of a core."""
    # Small scale has the same visits per second over fewer Tenants.
    count, resync, seconds = (200, 12, 48.0) if context.small else (5_000, RESYNC_SECONDS, _SECONDS)
    floor, _ = await _share(context, "empty", count, resync, min(seconds, 30.0))
    found, looks = await _share(context, "decklog", count, resync, seconds)
    note = f"{count} Tenants, each visited every {resync} s: {looks} visits in {seconds:g} s; the floor visits none"
    yield Figure("operator_idle_cpu", found, "% of a core", floor, value_at_most(_SHARE_MAX), note)
