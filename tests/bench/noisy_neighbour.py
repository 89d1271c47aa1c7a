"""One tenant attacks, and another goes on: its latencies and failures during each attack, against the same run without one.

Each attack has an API process, a worker and a database of its own. Attacker and victim are processes apart. The machine is theirs
too, so the note of each attack says which share of a core the attacker used.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from decklog.domain.tenant import Isolation
from tests.attacks import attacker
from tests.bench import noisy_attacks, noisy_victim
from tests.bench.context import Context
from tests.bench.figures import Figure, value_at_most
from tests.bench.noisy_attacks import ATTACKS, RECORDS_IN_16_MIB, bulk_of, filled, float_record, record
from tests.bench.noisy_victim import Series
from tests.bench.processes import HOST, Server, apart
from tests.bench.stand import Customer, Stand, stand

NAMES = ("noisy_neighbour", *(f"noisy_{name}" for name in ATTACKS))
RESIDENT_MIB_MAX = 512.0
"""Ceiling of the resident memory of an API process, whatever is sent to it."""
PROBE_MS_MAX = 1_000.0
_APPENDS_PER_SECOND, _LISTS_PER_SECOND = 50.0, 10.0
_WARMUP, _SECONDS, _IDLE_SECONDS = 3.0, 24.0, 12.0
_START_SECONDS, _REST_SECONDS = 8.0, 3.0
"""Seconds until the victim has started, and between the attack and the measurement after it."""
_QUICK_IDLE_MS = 25.0
_QUICK_MORE_MS, _SLOW_RATIO = 50.0, 2.0
_LOOK_SECONDS = 0.1
_FILL_SECONDS_MAX = 120.0
_QUOTA_GIB, _QUOTA_SECONDS = 0.02, 16.0
_QUOTA_LEFT_BYTES = 3 * 1024 * 1024
"""Less than the access records of the attack take, and more than the victim appends meanwhile."""


def allowed_ms(idle: float) -> float:
    """Return the largest p99 during an attack: twice that of the idle service, or 50 ms more where that is below 25 ms."""
    return idle + _QUICK_MORE_MS if idle < _QUICK_IDLE_MS else idle * _SLOW_RATIO


@dataclass
class _Memory:
    longest_mib: float = 0.0
    before_mib: float = 0.0


@asynccontextmanager
async def _watched(server: Server) -> AsyncIterator[_Memory]:
    """Note the largest resident memory of the process during the block."""
    memory = _Memory(before_mib=server.resident_mib())

    async def look() -> None:
        while True:
            memory.longest_mib = max(memory.longest_mib, server.resident_mib())
            await asyncio.sleep(_LOOK_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield memory
    finally:
        looking.cancel()


def _texts(count: int, size: int) -> Iterator[list[bytes]]:
    """Yield records with random text of this size, in bulks of about 2 MiB."""
    chance = random.Random(7)
    each = max(1, 2 * 1024 * 1024 // size)
    for first in range(0, count, each):
        yield [record(x=f"{chance.getrandbits(size * 4):x}") for _ in range(min(each, count - first))]


def _repeated(one: bytes, count: int) -> Iterator[list[bytes]]:
    for first in range(0, count, 8):
        yield [one] * min(8, count - first)


FILLED: dict[str, Callable[[], Iterator[list[bytes]]]] = {
    "backtracking_exports": lambda: _repeated(record(x=filled("a", "", 240_000)), 240),
    "costly_metadata_filter": lambda: _repeated(float_record(), RECORDS_IN_16_MIB),
    "unread_lists": lambda: _texts(1_000, 9_000),
    "unread_exports": lambda: _texts(1_000, 9_000),
}
"""Bulks in the attacker's log before the attack."""


async def _fill(server: Server, customer: Customer, bulks: Iterator[list[bytes]]) -> None:
    """Append the bulks, and wait as long as a refusal says. Raise RuntimeError if one is refused for another reason."""
    headers = {"Authorization": f"Bearer {customer.writer}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{server.port}", headers=headers, timeout=_FILL_SECONDS_MAX) as client:
        for records in bulks:
            body = bulk_of(records)
            async with asyncio.timeout(_FILL_SECONDS_MAX):
                while (answer := await client.post("/api/v1/logs/bulk", content=body)).status_code in (429, 503):
                    await asyncio.sleep(float(answer.headers["Retry-After"]))
            if answer.status_code != 200 or answer.json()["stored"] != len(records):
                raise RuntimeError(f"the attacker's log was not filled: {answer.text[:500]}")


@dataclass
class _Attack:
    """One attack, and what was measured before, during and after it."""

    name: str
    server: Server
    victim: Customer
    attacking: Customer
    seconds: float
    idle_seconds: float
    memory: _Memory = field(default_factory=_Memory)

    async def measured(self, ended: Callable[[], Awaitable[None]]) -> tuple[list[noisy_victim.Outcome], attacker.Outcome]:
        """Return the outcomes of the phases, and of the attack; `ended` runs when the attack is over."""
        begins = time.monotonic() + _START_SECONDS
        phases = [
            noisy_victim.Phase("warmup", _WARMUP),
            noisy_victim.Phase("before", self.idle_seconds),
            noisy_victim.Phase("during", self.seconds),
            noisy_victim.Phase("rest", _REST_SECONDS),
            noisy_victim.Phase("after", self.idle_seconds),
        ]
        keys = (self.victim.writer, self.victim.auditor)
        victim = noisy_victim.Job(self.server.port, *keys, self.name, begins, phases, _APPENDS_PER_SECOND, _LISTS_PER_SECOND)
        starts = begins + _WARMUP + self.idle_seconds
        keys = (self.attacking.writer, self.attacking.auditor)
        job = attacker.Job(self.name, self.server.port, *keys, self.seconds, starts)
        using = asyncio.create_task(apart("tests.bench.noisy_victim", victim, list[noisy_victim.Outcome]))
        async with _watched(self.server) as self.memory:
            attacks = await apart("tests.bench.noisy_attacks", job, attacker.Outcome)
            await ended()
            return await using, attacks


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the figures of each attack: latencies with their bounds, failures, probes, memory and refusals.

    Raise RuntimeError in the end with the attacks that could not be measured.
    """
    whole = not context.only or NAMES[0] in context.only
    failed = list[str]()
    for name in ATTACKS:
        if not whole and f"noisy_{name}" not in context.only:
            continue
        context.say(f"noisy_neighbour: {name}")
        try:
            async with stand(context.postgres("postgres")) as place:
                figures = await _one(context, place, name)
        except RuntimeError as error:  # the other attacks can still be measured
            failed.append(f"{name}: {error}")
        else:
            for figure in figures:
                yield figure
    if failed:
        raise RuntimeError("; ".join(failed))


async def _one(context: Context, place: Stand, name: str) -> list[Figure]:
    quota = name == noisy_attacks.unreadable_quota.__name__
    large = name == noisy_attacks.bulk_beside_singles.__name__
    [victim] = await place.customers(1, Isolation.DEDICATED, quotas={"storageGiB": _QUOTA_GIB} if quota else {})
    # Without a large quota the bulks of 10,000 would be refused by their number.
    quotas = {"eventsPerSecond": 100_000, "burst": 1_000_000} if large else {}
    [mallory] = await place.customers(1, Isolation.DEDICATED, quotas=quotas)
    async with place.api() as server, place.worker():
        seconds = context.seconds(_SECONDS) if not quota else _QUOTA_SECONDS
        attack = _Attack(name, server, victim, victim if quota else mallory, seconds, context.seconds(_IDLE_SECONDS))
        if name in FILLED:
            await _fill(server, mallory, FILLED[name]())
        if quota:
            await _fill_to_quota(place, server, victim)

        async def ended() -> None:
            if quota:
                await place.visit(victim)

        outcomes, attacks = await attack.measured(ended)
    return list(_figures(attack, *outcomes[1:], attacks=attacks))


async def _fill_to_quota(place: Stand, server: Server, customer: Customer) -> None:
    """Append until the storage of the tenant lacks little to its quota."""
    for records in _texts(1_000_000, 9_000):
        if await place.visit(customer) > _QUOTA_GIB * 2**30 - _QUOTA_LEFT_BYTES:
            return
        await _fill(server, customer, iter([records[:50]]))


def _figures(
    attack: _Attack,
    before: noisy_victim.Outcome,
    during: noisy_victim.Outcome,
    rest: noisy_victim.Outcome,
    after: noisy_victim.Outcome,
    *,
    attacks: attacker.Outcome,
) -> Iterator[Figure]:
    prefix = f"noisy_{attack.name}"
    for kind in ("appends", "lists", "stream"):
        idle, busy, later = (getattr(outcome, kind) for outcome in (before, during, after))
        yield _latency(f"{prefix}_{kind}_p99", idle, busy, later, promised=attack.victim is not attack.attacking)
    failed = during.failures + rest.failures + after.failures
    yield Figure(f"{prefix}_failures", failed.total(), "requests", None, value_at_most(0), f"of the victim: {_counted(failed)}")
    slow = max(during.healthz.longest, during.readyz.longest)
    refused: dict[str, int] = {
        **{f"healthz {k}": v for k, v in during.healthz.failures.items()},
        **{f"readyz {k}": v for k, v in during.readyz.failures.items()},
    }
    note = f"/healthz p50 {during.healthz.p50:.0f}, /readyz p50 {during.readyz.p50:.0f} ms; not 200: {_counted(refused)}"
    yield Figure(f"{prefix}_probe", slow, "ms", None, value_at_most(PROBE_MS_MAX), note)
    memory = attack.memory
    note = f"before the attack {memory.before_mib:.0f} MiB"
    yield Figure(f"{prefix}_resident", memory.longest_mib, "MiB", None, value_at_most(RESIDENT_MIB_MAX), note)
    note = f"the attacker used {attacks.processor:.2f} of a core and was answered: {_counted(attacks.answers)}"
    yield Figure(f"{prefix}_untyped", sum(attacks.untyped.values()), "answers", None, value_at_most(0), note)


def _latency(name: str, idle: Series, busy: Series, later: Series, *, promised: bool) -> Figure:
    note = f"p50 {busy.p50:.1f} and idle {idle.p50:.1f}, longest {busy.longest:.0f} ms of {busy.count}; afterwards p99 {later.p99:.1f}"
    # No bound where the tenant itself is the attacker: its own requests share its share.
    target = value_at_most(round(allowed_ms(idle.p99), 1)) if promised else None
    return Figure(name, busy.p99, "ms", idle.p99, target, note)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{words} × {count:,}" for words, count in sorted(counts.items())) or "none"
