"""A thousand Tenants: the time until all are Ready, a restart of the operator, and changes during visits.

The floor is a Kopf operator with an empty handler, over as many Tenants on the same API server in the same run.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from decklog.domain.tenant import Isolation
from tests.bench.context import Context
from tests.bench.figures import Figure, median, percentile, value_at_most
from tests.bench.operator_stand import Kind, OperatorStand, operator_stand, touched
from tests.bench.processes import Server

NAMES = ("tenants_ready_s", "operator_restart_s", "operator_restart_writes", "operator_change_p99_s", "operator_rss_mib")
_READY_MAX, _RESTART_MAX, _CHANGE_MAX, _RESIDENT_MAX = 60.0, 10.0, 2.0, 150.0
"""Seconds, and MiB."""
_WAIT_MAX = 420.0
_CHANGE_WAIT_MAX = 60.0
_RESYNC_SECONDS, _RESYNC_SECONDS_SMALL = 30, 6
"""Interval between visits while specs change: ten times as often as by default."""
_DAYS = 90


@dataclass
class _Outcome:
    ready: float
    applied: float
    ready_processor: float
    restart: float
    restart_processor: float
    changes: list[float]
    looks: int
    resident: float
    looked_at: int
    touched: list[str]


def _resident(server: Server) -> float:
    """Return the resident memory in MiB, with pages of libraries."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


async def _measured(context: Context, kind: Kind, isolation: Isolation, count: int) -> _Outcome:
    async with operator_stand(context, kind) as place:
        fleet, spec = place.fleet, {"isolation": isolation.value, "retention": {"days": _DAYS}}
        async with place.operator() as server:
            began, used = time.perf_counter(), server.processor_seconds()
            await fleet.apply(count, spec)
            applied = time.perf_counter() - began
            await fleet.until(lambda: len(fleet.settled) == count, _WAIT_MAX)
            ready, ready_processor = time.perf_counter() - began, server.processor_seconds() - used
            context.say(f"{kind}: {count} {isolation.value} Tenants ready after {ready:.1f} s")
            first = _resident(server)
        before = await place.written()
        began = time.perf_counter()
        async with place.operator() as server:
            await place.until_visited(count, _WAIT_MAX)
            restart, restart_processor = time.perf_counter() - began, server.processor_seconds()
        after = await place.written()
        context.say(f"{kind}: all visited {restart:.1f} s after a restart")
        resync = _RESYNC_SECONDS_SMALL if context.small else _RESYNC_SECONDS
        async with place.operator(resync) as server:
            await place.until_visited(count, _WAIT_MAX)
            changes, looks = await _changed(place, 2.0 * resync)
            resident = max(first, _resident(server))
        return _Outcome(
            ready,
            applied,
            ready_processor,
            restart,
            restart_processor,
            changes,
            looks,
            resident,
            len(after),
            touched(before, after),
        )


async def _changed(place: OperatorStand, seconds: float) -> tuple[list[float], int]:
    """Change Tenants one after the other. Return the seconds of each change, and the number of visits in that time."""
    names = sorted(place.fleet.seen)
    changes: list[float] = []
    lines = place.visits.read_bytes().count(b"\n")
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        name = names[len(changes) * 7919 % len(names)]
        changes.append(await place.fleet.change(name, _CHANGE_WAIT_MAX))
    return changes, place.visits.read_bytes().count(b"\n") - lines


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the figures of Shared tenants, then of Dedicated tenants."""
    shared, dedicated = (50, 10) if context.small else (1_000, 200)
    for suffix, isolation, count in (("", Isolation.SHARED, shared), ("_dedicated", Isolation.DEDICATED, dedicated)):
        context.say(f"operator: {count} {isolation.value} Tenants, the floor first")
        floor = await _measured(context, "empty", isolation, count)
        found = await _measured(context, "decklog", isolation, count)
        for figure in _figures(found, floor, count):
            yield Figure(figure.name + suffix, figure.value, figure.unit, figure.baseline, figure.target, figure.note)


def _figures(found: _Outcome, floor: _Outcome, count: int) -> list[Figure]:
    def each(seconds: float) -> str:
        return f"{seconds / count * 1_000:.1f} ms"

    ready = f"{count} Tenants; requests took {found.applied:.1f} s; processor for each {each(found.ready_processor)}, floor {each(floor.ready_processor)}"
    restart = f"{count} Tenants; processor for each {each(found.restart_processor)}, floor {each(floor.restart_processor)}, start of the process included"
    writes = f"of {found.looked_at} relations, indices, queues, Tenants and Secrets {', '.join(found.touched[:5])}".rstrip()
    change = f"{len(found.changes)} changes, p50 {median(found.changes):.2f} s, {found.looks} visits meanwhile; floor p50 {median(floor.changes):.2f} s"
    return [
        Figure("tenants_ready_s", found.ready, "s", floor.ready, value_at_most(_READY_MAX), ready),
        Figure("operator_restart_s", found.restart, "s", floor.restart, value_at_most(_RESTART_MAX), restart),
        Figure("operator_restart_writes", len(found.touched), "objects", None, value_at_most(0), writes),
        Figure(
            "operator_change_p99_s",
            percentile(found.changes, 0.99),
            "s",
            percentile(floor.changes, 0.99),
            value_at_most(_CHANGE_MAX),
            change,
        ),
        Figure("operator_rss_mib", found.resident, "MiB", floor.resident, value_at_most(_RESIDENT_MAX), f"{count} Tenants"),
    ]
