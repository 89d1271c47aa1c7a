"""Extents of closed partitions leave out only partitions without matches: reading finds every record, in both orders."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
import pytest

from decklog.domain.log import LogName, Span, rfc3339
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.search.query import Query, parse
from decklog.domain.search.stats import Grouping
from decklog.domain.tenant import Isolation, Tenant
from decklog.timescale.records.records import PostgresRecords
from tests.support.records import prepared
from tests.support.stores import Database
from tests.timescale.test_append import shift_clock

ISOLATIONS = list(Isolation)
_SEED = 7
_ACTORS = ("alice", "bob", "carol")
_OUTCOMES = ("success", "failure", "denied", "unknown")
_SEVERITIES = ("INFO", "WARNING", "ERROR", "CRITICAL")


class Wanted(NamedTuple):
    """The filters of a query."""

    since: datetime | None
    until: datetime | None
    actor: str | None
    outcome: str | None
    severities: tuple[str, ...]

    def query(self) -> Query:
        bounds = [("from", self.since), ("to", self.until)]
        parameters = [(name, at.isoformat()) for name, at in bounds if at is not None]
        parameters += [(name, value) for name, value in (("actor", self.actor), ("outcome", self.outcome)) if value is not None]
        return parse([*parameters, *(("severity", value) for value in self.severities)])[1]


class History:
    """A log with records of many days, and the facts of each record, by `seq`."""

    def __init__(self, database: Database, tenant: Tenant, store: PostgresRecords) -> None:
        self.database = database
        self.tenant = tenant
        self.store = store
        self.chance = random.Random(_SEED)
        self.facts: list[dict[str, str]] = []

    async def day(self, ago: int, records: int) -> None:
        """Append records received `ago` days ago. Most occurred on that day, some long before."""
        await shift_clock(self.database, f"-{ago} days")
        received = datetime.now(UTC) - timedelta(days=ago)
        facts = []
        for _ in range(records):
            late = timedelta(days=self.chance.choice((0, 0, 0, 3, 40)), seconds=self.chance.randrange(3_000))
            facts.append(
                {
                    "actor": self.chance.choice(_ACTORS),
                    "outcome": self.chance.choice(_OUTCOMES),
                    "severity": self.chance.choice(_SEVERITIES),
                    "occurred_at": rfc3339(received - late),
                }
            )
        made = [prepared(**{**fact, "actor": {"id": fact["actor"]}}) for fact in facts]
        [result] = await self.store.append([AppendRequest(self.tenant, LogName.EVENTS, made)])
        assert isinstance(result, Appended)
        self.facts += facts

    def query(self) -> tuple[Wanted, Query]:
        chance = self.chance
        since = until = None
        if chance.random() < 0.6:
            since = datetime.now(UTC) - timedelta(days=chance.randrange(60))
            until = since + timedelta(days=chance.randrange(1, 9))
        wanted = Wanted(
            since=since if chance.random() < 0.7 else None,
            until=until if chance.random() < 0.7 else None,
            actor=chance.choice((None, None, *_ACTORS)),
            outcome=chance.choice((None, None, *_OUTCOMES)),
            severities=chance.choice(((), (), ("ERROR",), ("ERROR", "CRITICAL"), ("INFO", "ERROR"))),
        )
        return wanted, wanted.query()

    def expected(self, wanted: Wanted, first: int, end: int) -> list[int]:
        return [
            seq
            for seq, fact in enumerate(self.facts)
            if first <= seq < end
            and (wanted.actor is None or fact["actor"] == wanted.actor)
            and (wanted.outcome is None or fact["outcome"] == wanted.outcome)
            and (not wanted.severities or fact["severity"] in wanted.severities)
            and (wanted.since is None or fact["occurred_at"] >= rfc3339(wanted.since))
            and (wanted.until is None or fact["occurred_at"] < rfc3339(wanted.until))
        ]

    async def found(self, query: Query, first: int, end: int, *, limit: int, newest_first: bool) -> list[int]:
        """Return the numbers of all matches, read page by page."""
        seqs: list[int] = []
        low, high = first, end
        while True:
            records, onwards = await self.store.read(
                self.tenant, LogName.EVENTS, Span(low, high), query=query, limit=limit, newest_first=newest_first, timeout=30
            )
            assert len(records) <= limit
            seqs += [record.seq for record in records]
            if onwards is None:
                return seqs
            low, high = (low, onwards) if newest_first else (onwards, high)

    async def check(self, questions: int) -> None:
        for _ in range(questions):
            (wanted, query), newest_first = self.query(), self.chance.random() < 0.5
            if self.chance.random() < 0.7:
                await self.store.head(self.tenant, LogName.EVENTS)
            first = self.chance.choice((0, 0, self.chance.randrange(len(self.facts))))
            end = self.chance.choice((len(self.facts), 10**9, self.chance.randrange(len(self.facts) + 1)))
            expected = self.expected(wanted, first, end)
            limit = self.chance.choice((3, 10, 1_000))
            found = await self.found(query, first, end, limit=limit, newest_first=newest_first)
            assert found == (expected[::-1] if newest_first else expected), (query, first, end, limit, newest_first)
            buckets = await self.store.count(
                self.tenant, LogName.EVENTS, Span(first, end), query=query, grouping=Grouping(), limit=10, timeout=30
            )
            assert sum(bucket.count for bucket in buckets) == len(expected), (query, first, end)


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_reading_over_many_partitions_finds_all_records_while_more_are_appended(
    database: Database, isolation: Isolation
) -> None:
    tenant, other = await database.tenant(isolation=isolation), await database.tenant(isolation=isolation)
    store = await database.records()
    history, noise = History(database, tenant, store), History(database, other, store)
    for ago in (30, 29, 28, 20, 19):
        await history.day(ago, 12)
        await noise.day(ago, 3)
    await history.check(12)
    for ago in range(18, 2, -1):
        await history.day(ago, 4)
    await history.check(12)
    for ago in (2, 1, 0):
        await history.day(ago, 4)
        await history.check(10)


async def test_new_or_empty_log_is_readable(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    history = History(database, tenant, store)
    await store.head(tenant, LogName.EVENTS)
    assert await history.found(Query(), 0, 10, limit=5, newest_first=True) == []
    await history.day(0, 3)
    await history.check(12)


async def test_extents_are_learned_again_after_a_new_epoch(database: Database) -> None:
    tenant, store = await database.tenant(), await database.records()
    history = History(database, tenant, store)
    for ago in (9, 7, 5, 3):
        await history.day(ago, 5)
    await history.check(5)
    # The newest records were lost with a failed server, and their numbers are used again.
    await database.execute(f'DELETE FROM "{tenant.schema}".records WHERE seq >= 12')
    await database.execute("UPDATE decklog.heads SET epoch = 2, next_seq = 12 WHERE tenant_id = $1 AND log = 0", tenant.id)
    del history.facts[12:]
    await history.day(1, 8)
    await store.head(tenant, LogName.EVENTS)
    assert await history.found(Query(), 0, 20, limit=100, newest_first=True) == list(range(19, -1, -1))
    await history.check(10)


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_longer_retention_shows_kept_records_at_once(database: Database, isolation: Isolation) -> None:
    tenant = await database.tenant(isolation=isolation, days=30)
    history = History(database, tenant, await database.records())
    for ago in (20, 10, 1, 0):
        await history.day(ago, 5)
    for days, oldest in ((5, 10), (30, 0), (5, 10)):
        changed = msgspec.structs.replace(tenant, retention_days=days)
        await history.store.head(changed, LogName.EVENTS)
        for newest_first in (True, False):
            found, _ = await history.store.read(
                changed, LogName.EVENTS, Span(0, 20), query=Query(), limit=100, newest_first=newest_first, timeout=30
            )
            assert sorted(record.seq for record in found) == list(range(oldest, 20))


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_first_reading_of_a_process_finds_all_records(database: Database, isolation: Isolation) -> None:
    tenant = await database.tenant(isolation=isolation)
    history = History(database, tenant, await database.records())
    for ago in (40, 30, 12, 11, 4, 1, 0):
        await history.day(ago, 4)
    count = len(history.facts)
    for _ in range(6):
        history.store = await database.records()
        await history.check(1)
    for seqs in ([0], [count - 1], [0, count - 1], [*range(count)], [count - 2, count + 5]):
        store = await database.records()
        for _ in range(2):
            fetched = await store.fetch(tenant, LogName.EVENTS, seqs, newest_first=False)
            assert [record.seq for record in fetched] == [seq for seq in seqs if seq < count]
            await store.head(tenant, LogName.EVENTS)
            fetched = await store.fetch(tenant, LogName.EVENTS, seqs, newest_first=False)
            assert [record.seq for record in fetched] == [seq for seq in seqs if seq < count]
            found, _ = await store.read(
                tenant, LogName.EVENTS, Span(0, count), query=Query(), limit=100, newest_first=False, timeout=30
            )
            assert [record.seq for record in found] == list(range(count))
