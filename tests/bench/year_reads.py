"""Lists, full text, facets and timelines over a log of a year, by OpenSearch and by PostgreSQL alone, with their access records.

Every latency is that of one request after the other, at the API. `cold` is the first round of a new API process after the caches of both
engines and of the kernel were dropped; the rounds after it are warm, and shift times or take other values, so that few requests repeat
an earlier one. The baseline is the bare work of the engine: a statement by key for PostgreSQL, the body that Decklog sends for OpenSearch.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from decklog.domain.log import microseconds, rfc3339
from decklog.domain.records.record import Prepared
from decklog.settings import Search
from tests.bench import replay
from tests.bench.asking import Ask, Asker, asked, bare_rows, bare_searches, cursor_after, processor_of
from tests.bench.caches import drop_caches
from tests.bench.context import Context
from tests.bench.figures import Figure, median, percentile, ratio_at_most, value_at_most
from tests.bench.long_log import DAYS, Loaded, admin, long_log
from tests.bench.stand import Stand

NAMES = ("list_p95_10m", "fulltext_p95_10m", "facets_p95_10m", "timeline_p95_10m", "page_depth_10m", "cold_first_list")
RECORDS, _SMALL = 10_000_000, 10_000
RECORDS_VARIABLE = "DECKLOG_TEST_BENCH_RECORDS"
"""Records of the log at full scale, where the disk holds fewer."""
LIMIT = 100
_ROUNDS = 15
_DEPTH = 10_000
_DEPTH_RATIO_MAX = 1.3
_P95_MAX = {"list": 30.0, "fulltext": 60.0, "facets": 150.0, "timeline": 50.0}
_FIRST_MAX = 300.0
"""Milliseconds."""
_STARTS = 5
_FACETS = "action,actor,resource_type,outcome,severity"


def _ago(log: Loaded, turn: int, **ago: float) -> str:
    """Return a time before the newest record, earlier by some seconds in each round."""
    return rfc3339(log.last_received - timedelta(**ago) - timedelta(seconds=turn))


def _values(log: Loaded, name: str) -> list[str]:
    """Return values of a column, the most frequent first."""
    found = [value for event in log.replay.events if (value := getattr(event, name))]
    return sorted(set(found), key=lambda value: (-found.count(value), value))


def _one(log: Loaded, turn: int) -> Prepared:
    """Return one record, another one in each round."""
    return log.replay.prepared((log.replay.count - 1 - turn * 99_991) % log.replay.count)


def lists(log: Loaded) -> list[Ask]:
    """Return kinds of filtered lists: rare and frequent values, old and new times."""
    actors, actions, resources = (_values(log, name) for name in ("actor_id", "action", "resource_id"))
    page = {"limit": str(LIMIT)}
    return [
        Ask("frequent actor", lambda turn: page | {"actor": actors[turn % 2]}),
        Ask("rare actor", lambda turn: page | {"actor": actors[-1 - turn % 4]}),
        Ask("action", lambda turn: page | {"action": actions[turn * 7 % len(actions)]}),
        Ask("action prefix", lambda turn: page | {"action": actions[turn * 5 % len(actions)][:6] + "*"}),
        Ask("resource", lambda turn: page | {"resource_id": resources[turn * 3 % len(resources)]}),
        Ask(
            "outcome and severity",
            lambda turn: page | {"outcome": "failure", "severity": "WARNING", "to": _ago(log, turn, days=1)},
        ),
        Ask(
            "request",
            lambda turn: page | {"correlation_id": _one(log, turn).correlation_id or "none"},
        ),
        Ask("network", lambda turn: page | {"ip": "10.0.0.0/8", "to": _ago(log, turn, hours=1)}),
        Ask("old day", lambda turn: page | {"from": _ago(log, turn, days=201), "to": _ago(log, turn, days=200)}),
        Ask(
            "20 days and actor",
            lambda turn: page | {"from": _ago(log, turn, days=60), "to": _ago(log, turn, days=40), "actor": actors[1]},
        ),
        Ask("last hours", lambda turn: page | {"from": _ago(log, turn, hours=2)}),
        Ask("by event time", lambda turn: page | {"sort": "-occurred_at", "from": _ago(log, turn, days=1)}),
    ]


def texts(log: Loaded, engine: str) -> list[Ask]:
    """Return kinds of full text. PostgreSQL alone needs a range of time."""
    words = (
        ("decrypt", "parameter", "password", "stratus", "benjamin", "mozilla")
        if replay.real()
        else ("document", "editor", "mozilla")
    )
    page = {"limit": str(LIMIT)}

    def word(turn: int) -> str:
        return words[turn % len(words)]

    def rare(turn: int) -> str:
        return (_one(log, turn).id or "none").split("-")[0]

    def day(turn: int) -> dict[str, str]:
        return {"from": _ago(log, turn, days=31), "to": _ago(log, turn, days=30)}

    bounded = [
        Ask("word in a day", lambda turn: page | day(turn) | {"q": word(turn)}),
        Ask("words in a day", lambda turn: page | day(turn) | {"q": f"{word(turn)} {word(turn + 1)}"}),
        Ask("absent word in a day", lambda turn: page | day(turn) | {"q": f"absent{turn}"}),
        Ask("word in 7 days", lambda turn: page | {"q": word(turn), "from": _ago(log, turn, days=7)}),
    ]
    if engine == "postgres":
        return bounded
    return [
        *bounded,
        Ask("word", lambda turn: page | {"q": word(turn)}),
        Ask("words", lambda turn: page | {"q": f"{word(turn)} {word(turn + 1)}"}),
        Ask("rare word", lambda turn: page | {"q": rare(turn)}),
        Ask("absent word", lambda turn: page | {"q": f"absent{turn}"}),
        Ask("phrase", lambda turn: page | {"q": '"apache log4j"' if turn % 2 else '"us east"'}),
        Ask("prefix", lambda turn: page | {"q": f"{word(turn)[:5]}*"}),
        Ask("word and filter", lambda turn: page | {"q": word(turn), "outcome": "failure"}),
    ]


def facets(log: Loaded) -> list[Ask]:
    """Return kinds of facets: five fields each, the ten most frequent values."""
    actors, counted = _values(log, "actor_id"), {"facets": _FACETS}
    return [
        Ask("a day", lambda turn: counted | {"from": _ago(log, turn, days=1)}),
        Ask("7 days", lambda turn: counted | {"from": _ago(log, turn, days=7)}),
        Ask("30 days", lambda turn: counted | {"from": _ago(log, turn, days=30)}),
        Ask("90 days", lambda turn: counted | {"from": _ago(log, turn, days=90)}),
        Ask("everything", lambda _: dict(counted)),
        Ask("failures", lambda turn: counted | {"outcome": "failure", "to": _ago(log, turn, hours=1)}),
        Ask("rare actor", lambda turn: counted | {"actor": actors[-1 - turn % 4]}),
        Ask("frequent actor", lambda turn: counted | {"actor": actors[turn % 2]}),
    ]


def timelines(log: Loaded) -> list[Ask]:
    """Return kinds of timelines of 90 days."""
    actors = _values(log, "actor_id")

    def days(turn: int) -> dict[str, str]:
        return {"interval": "day", "from": _ago(log, turn, days=90), "fill": "zero", "to": _ago(log, turn)}

    return [
        Ask("days", days),
        Ask("days by outcome", lambda turn: days(turn) | {"by": "outcome"}),
        Ask("days of failures", lambda turn: days(turn) | {"outcome": "failure"}),
        Ask("days of a rare actor", lambda turn: days(turn) | {"actor": actors[-1 - turn % 4]}),
        Ask("hours in Berlin", lambda turn: days(turn) | {"interval": "hour", "tz": "Europe/Berlin"}),
    ]


def _bodies(log: Loaded, of: str) -> list[dict[str, Any]]:
    """Return bare searches of the same sizes as those of a benchmark, one for each round."""
    words, actions = ["decrypt", "parameter", "document", "editor"], _values(log, "action")
    found: list[dict[str, Any]] = []
    for turn in range(_ROUNDS):
        bounds = {"range": {"occurred_at": {"gte": microseconds(log.last_received - timedelta(days=90, seconds=turn))}}}
        clauses: dict[str, Any] = {
            "list": {"term": {"action": actions[turn * 7 % len(actions)]}},
            "fulltext": {"term": {"words": words[turn % len(words)]}},
        }
        body: dict[str, Any] = {"track_total_hits": False, "query": {"bool": {"filter": [clauses.get(of, bounds)]}}}
        if of in clauses:
            body |= {"size": LIMIT + 1, "sort": [{"seq": "desc"}]}
        elif of == "facets":
            body |= {"size": 0, "aggs": {name: {"terms": {"field": name, "size": 10}} for name in _FACETS.split(",")}}
        else:
            by_day = {"date_histogram": {"field": "occurred_ms", "calendar_interval": "day"}}
            body |= {"size": 0, "aggs": {"days": by_day}}
        found.append(body)
    return found


async def _bare(log: Loaded, of: str, engine: str) -> float:
    """Return the p95 of the bare work of an engine."""
    if engine == "opensearch":
        return percentile(await asyncio.to_thread(bare_searches, log, _bodies(log, of)), 0.95)
    schema, replay_ = f'"{log.customer.tenant.schema}"', log.replay
    firsts = [replay_.count - (turn + 1) * replay_.count // (_ROUNDS + 1) for turn in range(_ROUNDS)]
    async with admin(log.place) as connection:
        if of in ("list", "fulltext"):
            statement = (
                f"SELECT epoch, seq, received_at, digest, content FROM {schema}.records WHERE tenant_id = $1 AND log = 0 AND seq >= $2"
                f" AND seq < $2 + {LIMIT + 1} AND received_at >= $3 AND received_at <= $4 ORDER BY seq DESC"
            )
            ends = [(first, min(first + LIMIT, replay_.count - 1)) for first in firsts]
            values: list[tuple[Any, ...]] = [
                (replay_.tenant_id, first, replay_.received_at(first), replay_.received_at(end)) for first, end in ends
            ]
        else:
            statement = (
                f"SELECT outcome, count(*) FROM {schema}.records WHERE tenant_id = $1 AND log = 0 AND received_at >= $2"
                " AND received_at < $2 + interval '1 day' GROUP BY outcome"
            )
            values = [(replay_.tenant_id, replay_.received_at(first)) for first in firsts]
        return percentile(await bare_rows(connection, statement, values), 0.95)


def named(name: str, engine: str) -> str:
    """Return the name of a figure. That with a search index has no suffix."""
    return name if engine == "opensearch" else f"{name}_{engine}"


def _place(log: Loaded, engine: str) -> Stand:
    """Return the stand whose API asks this engine."""
    return log.place if engine == "opensearch" else Stand(log.place.server, replace(log.place.settings, search=Search()))


_PATHS = {"list": "/api/v1/logs", "fulltext": "/api/v1/logs", "facets": "/api/v1/logs/stats", "timeline": "/api/v1/logs/stats"}


async def _measured(context: Context, log: Loaded, engine: str, of: str, asks: list[Ask]) -> AsyncIterator[Figure]:
    """Yield the p95 of the warm rounds, with that of the first round of a new process beside it."""
    context.say(f"{of}: {engine}, {len(asks)} kinds over {log.replay.count:,} records")
    kept = await drop_caches(log)
    async with _place(log, engine).api() as server:
        asker = Asker(server, log.customer.auditor, _PATHS[of], engine)
        cold = await asyncio.to_thread(asked, asker, asks, range(1))
        before = await processor_of(server, log)
        rounds = range(1, (_ROUNDS // 5 if context.small else _ROUNDS) + 1)
        warm = await asyncio.to_thread(asked, asker, asks, rounds)
        used = (await processor_of(server, log)).since(before, len(rounds) * len(asks))
    bare = await _bare(log, of, engine)
    answered = warm.without(list(warm.refused))
    odd = "".join(
        f"; {word} {', '.join(sorted(kinds))}"
        for word, kinds in (("REFUSED", warm.refused), ("BY ANOTHER ENGINE", warm.others))
        if kinds
    )
    note = (
        f"{log.replay.count:,} records; medians {answered}; cold p95 {cold.p95:,.0f} ms, {kept}, longest {max(cold.all):,.0f} ms;"
        f" {used}; baseline is the engine alone{odd}"
    )
    target = None if context.small else value_at_most(_P95_MAX[of])
    yield Figure(named(f"{of}_p95_10m", engine), answered.p95 if answered.all else math.inf, "ms", bare, target, note)


async def _first_lists(context: Context, log: Loaded, engine: str) -> Figure:
    """Return the longest first list of a new process, filtered so that an index is asked where there is one."""
    took: list[float] = []
    cold: list[float] = []
    asks = [Ask("first", lambda _: {"limit": str(LIMIT), "actor": _values(log, "actor_id")[0]})]
    for dropped in (True, *([False] * (1 if context.small else _STARTS))):
        kept = await drop_caches(log) if dropped else ""
        async with _place(log, engine).api() as server:
            asker = Asker(server, log.customer.auditor, _PATHS["list"], engine)
            first = await asyncio.to_thread(asked, asker, asks, range(1))
            again = await asyncio.to_thread(asked, asker, asks, range(1))
        (cold if dropped else took).append(first.p95)
    async with admin(log.place) as connection:
        partitions = await connection.fetchval(
            "SELECT count(*) FROM decklog.partitions WHERE schema_name = $1", log.customer.tenant.schema
        )
    note = f"longest of {len(took)} new processes; {partitions} partitions; the next list {again.p95:.0f} ms; after {kept or 'dropping caches'} {cold[0]:.0f} ms"
    return Figure(named("cold_first_list", engine), max(took), "ms", again.p95, value_at_most(_FIRST_MAX), note)


async def _depth(log: Loaded, engine: str) -> Figure:
    """Return the median of a deep page, whose cursor comes from walking there, beside that of page 1."""
    depth = min(_DEPTH, log.replay.count // LIMIT // 2)
    async with _place(log, engine).api() as server:
        asker = Asker(server, log.customer.auditor, _PATHS["list"], "postgres")
        cursor = await asyncio.to_thread(cursor_after, server, log.customer.auditor, (depth - 1) * LIMIT)
        asks = [
            Ask("page 1", lambda _: {"limit": str(LIMIT)}),
            Ask("deep page", lambda _: {"limit": str(LIMIT), "cursor": cursor}),
        ]
        found = await asyncio.to_thread(asked, asker, asks, range(3 * _ROUNDS))
    medians = {kind: median(times) for kind, times in found.times.items()}
    note = f"medians of page {depth:,} over page 1, asked for in turn; {log.replay.count:,} records"
    target = ratio_at_most(_DEPTH_RATIO_MAX)
    return Figure(named("page_depth_10m", engine), medians["deep page"], "ms", medians["page 1"], target, note)


def records_of(context: Context) -> int:
    """Return the records of the log at this scale."""
    return _SMALL if context.small else int(os.environ.get(RECORDS_VARIABLE, RECORDS))


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the figures of both engines, those with the search index first."""
    records = records_of(context)
    wanted = context.only & set(NAMES) or set(NAMES)
    context.say(f"a year: events {'of CloudTrail' if replay.real() else 'made up, because the folder with real ones is missing'}")
    async with long_log(context.servers.postgres, context.servers.opensearch, records, context.say) as log:
        context.say(f"a year: {log.replay.count:,} records over {DAYS} days, {log.loaded}")
        for engine in ("opensearch", "postgres"):
            kinds = {"list": lists(log), "fulltext": texts(log, engine), "facets": facets(log), "timeline": timelines(log)}
            for of, asks in kinds.items():
                if f"{of}_p95_10m" in wanted:
                    async for figure in _measured(context, log, engine, of, asks):
                        yield figure
            if "page_depth_10m" in wanted:
                yield await _depth(log, engine)
            if "cold_first_list" in wanted:
                yield await _first_lists(context, log, engine)
