"""Five thousand Tenants that nobody touches, with the operator's default interval between two looks: how much of a core it takes."""

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
"""As long as the longest pause between two looks, so that every Tenant is looked at: visits come in waves."""
_SETTLE_SECONDS = 10.0
"""Kopf's workers end some seconds after their last object."""


async def _share(context: Context, kind: Kind, count: int, resync: int, seconds: float) -> tuple[float, int]:
    """Percent of a core, and visits meanwhile."""
    async with operator_stand(context, kind) as place, place.operator(resync) as server:
        await place.fleet.apply(count, {"isolation": Isolation.SHARED.value, "retention": {"days": 90}})
        await place.fleet.until(lambda: len(place.fleet.settled) == count, _WAIT_MAX)
        context.say(f"operator_idle_cpu: {kind}, {count} Tenants are ready, now {seconds:g} s of rest")
        await asyncio.sleep(_SETTLE_SECONDS)
        lines = place.visits.read_bytes().count(b"\n")
        with usage(server) as used:
            await asyncio.sleep(seconds)
        return used.share * 100, place.visits.read_bytes().count(b"\n") - lines


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yields percent of a core."""
    # At small scale there are as many looks in a second, at fewer Tenants.
    count, resync, seconds = (200, 12, 48.0) if context.small else (5_000, RESYNC_SECONDS, _SECONDS)
    floor, _ = await _share(context, "empty", count, resync, min(seconds, 30.0))
    found, looks = await _share(context, "decklog", count, resync, seconds)
    note = f"{count} Tenants, each looked at every {resync} s: {looks} visits in {seconds:g} s; the floor looks at nothing"
    yield Figure("operator_idle_cpu", found, "% of a core", floor, value_at_most(_SHARE_MAX), note)
