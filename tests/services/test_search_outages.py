"""An index that is silent, slow or away costs a search a bounded time, and one probe decides for the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.search.query import Query, parse
from decklog.domain.search.stats import Grouping
from decklog.domain.tenant import Tenant
from decklog.services.breaker import Breaker
from decklog.services.outage import REMINDER, Outage
from tests.support.desk import Desk, desk
from tests.support.memory_store import MemoryStore

EVENTS = LogName.EVENTS
AWAY = DecklogError(Code.SEARCH_UNAVAILABLE, "The index is away.")
SECONDS_MAX = 3.0
"""Far more than an index that is down adds to a search, and less than its questions take."""


def asked(*parameters: tuple[str, str]) -> Query:
    return parse(parameters)[1]


BY_ACTOR = asked(("actor", "tester"))
BOUNDED = asked(("q", "needle"), ("from", "2000-01-01T00:00:00Z"))
UNBOUNDED = asked(("q", "needle"))


class Fault:
    """What an index does instead of answering: questions and pings wait so many seconds, and then fail where `fails`."""

    def __init__(self, seconds: float = 0.0, *, fails: bool = False, pings: bool = False) -> None:
        self.seconds = seconds
        self.fails = fails
        self.pings = pings
        self.questions = 0

    def before(self, call: Callable[..., Awaitable[Any]], *, ping: bool = False) -> Callable[..., Awaitable[Any]]:
        async def faulty(*arguments: Any, **options: Any) -> Any:
            self.questions += not ping
            if not ping or self.pings:
                await asyncio.sleep(self.seconds)
                if self.fails:
                    raise AWAY
            return await call(*arguments, **options)

        return faulty


SILENT, SLOW, DEAD, HEAVY, BROKEN = (
    Fault(3_600, pings=True),
    Fault(10, pings=True),
    Fault(fails=True, pings=True),
    Fault(3_600),
    Fault(fails=True),
)
"""Of the whole index, and of questions alone while pings are answered."""
FAULTS = {"silent": SILENT, "slow": SLOW, "dead": DEAD, "heavy": HEAVY, "broken": BROKEN}


@asynccontextmanager
async def with_fault(fault: Fault, **options: Any) -> AsyncIterator[Desk]:
    """A log of 30 records, all of them indexed, whose index has a fault."""
    async with desk(**options) as at:
        await at.put(*[{"message": "needle" if number % 3 == 0 else "hay"} for number in range(30)])
        await at.index_all()
        for name in ("find", "count", "ping"):
            call = fault.before(getattr(at.index, name), ping=name == "ping")
            setattr(at.index, name, call)
        fault.questions = 0
        yield at


async def quickly(answer: Awaitable[Any]) -> Any:
    """Return an answer that must not take more than `SECONDS_MAX` seconds."""
    async with asyncio.timeout(SECONDS_MAX):
        return await answer


@pytest.mark.parametrize("name", FAULTS)
async def test_lists_and_counts_of_a_faulty_index_are_those_of_postgres(name: str) -> None:
    async with with_fault(FAULTS[name]) as at:
        for query, total in ((BY_ACTOR, 30), (BOUNDED, 10)):
            for _ in range(2):
                page = await quickly(at.search.page(at.acme, EVENTS, query, limit=100))
                counted = await quickly(at.search.count(at.acme, EVENTS, query, Grouping(("action",))))
                assert (len(page.items), page.coverage.engine) == (total, "postgres")
                assert (counted.total, counted.coverage.engine) == (total, "postgres")


@pytest.mark.parametrize("name", ["silent", "slow", "dead"])
async def test_exports_of_a_dead_index_are_those_of_postgres(name: str) -> None:
    async with with_fault(FAULTS[name]) as at:

        async def walked() -> int:
            return sum([len(records) async for records in at.search.walk(at.acme, EVENTS, BOUNDED, end=30)])

        assert await quickly(walked()) == 10


@pytest.mark.parametrize("name", ["silent", "slow", "dead"])
async def test_full_text_without_a_range_is_refused_soon_when_the_index_is_down(name: str) -> None:
    async with with_fault(FAULTS[name]) as at:
        for ask in (at.search.page(at.acme, EVENTS, UNBOUNDED, limit=5), at.search.count(at.acme, EVENTS, UNBOUNDED)):
            with pytest.raises(DecklogError, match="from") as refused:
                await quickly(ask)
            assert refused.value.code is Code.SEARCH_UNAVAILABLE


async def test_postgres_has_its_whole_time_when_the_index_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float] = []
    read = MemoryStore.read

    async def noting(self: MemoryStore, *arguments: Any, timeout: float, **options: Any) -> Any:
        timeouts.append(timeout)
        return await read(self, *arguments, timeout=timeout, **options)

    monkeypatch.setattr(MemoryStore, "read", noting)
    async with with_fault(SILENT, timeout=1.0) as at:
        timeouts.clear()
        await at.search.page(at.acme, EVENTS, BY_ACTOR, limit=100)
        assert timeouts[-1] > 0.95


async def test_answer_of_a_heavy_question_wins_where_it_comes_before_that_of_postgres() -> None:
    async with with_fault(Fault(0.7)) as at:
        at.store.seconds_per_read = 30.0
        page = await at.search.page(at.acme, EVENTS, asked(("actor", "nobody")), limit=5)
        assert (page.items, page.coverage.engine) == ([], "opensearch")


async def test_full_text_without_a_range_waits_for_a_heavy_question() -> None:
    async with with_fault(Fault(0.9)) as at:
        assert (await at.search.count(at.acme, EVENTS, UNBOUNDED)).coverage.engine == "opensearch"


async def test_one_probe_of_a_silent_index_decides_for_all_tenants() -> None:
    fault = Fault(3_600, pings=True)
    async with with_fault(fault) as at:
        await at.put({"message": "needle"}, tenant=at.rival)
        await at.index_all(at.rival)
        with capture_logs() as lines:
            await quickly(asyncio.gather(*(at.search.page(at.acme, EVENTS, BY_ACTOR, limit=5) for _ in range(20))))
            await asyncio.sleep(0.3)
            asked_before = fault.questions
            for tenant in (at.acme, at.rival):
                await at.search.page(tenant, EVENTS, BY_ACTOR, limit=5)
        assert fault.questions == asked_before
        assert all(line["reason"] and line["kind"] for line in lines)
        assert len(lines) <= 2


async def test_index_is_asked_again_after_a_probe_that_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault(3_600, pings=True)
    async with with_fault(fault) as at:
        await at.search.page(at.acme, EVENTS, BY_ACTOR, limit=5)
        await asyncio.sleep(0.3)
        fault.seconds, fault.pings = 0.0, False
        async with asyncio.timeout(20):
            while (await at.search.page(at.acme, EVENTS, BY_ACTOR, limit=5)).coverage.engine != "opensearch":
                await asyncio.sleep(0.05)


async def test_failed_question_of_one_tenant_keeps_no_other_tenant_from_the_index() -> None:
    async with desk() as at:
        await at.put({"message": "needle"})
        await at.put({"message": "needle"}, tenant=at.rival)
        for tenant in (at.acme, at.rival):
            await at.index_all(tenant)
        find = at.index.find

        async def fails_for_one(tenant: Tenant, *arguments: Any, **more: Any) -> list[int]:
            if tenant == at.acme:
                raise AWAY
            return await find(tenant, *arguments, **more)

        at.index.find = fails_for_one  # type: ignore[method-assign]
        assert (await at.search.page(at.acme, EVENTS, BOUNDED, limit=5)).coverage.engine == "postgres"
        assert (await at.search.page(at.rival, EVENTS, BOUNDED, limit=5)).coverage.engine == "opensearch"


async def test_opening_breaker_ends_the_calls_in_flight() -> None:
    async def silent() -> None:
        await asyncio.Event().wait()

    breaker = Breaker(silent, Outage("test", "away"))
    async with asyncio.timeout(20):
        with suppress(TimeoutError):
            async with asyncio.timeout(3_600) as ending:
                with breaker.call(ending):
                    breaker.doubt()
                    await silent()
        assert ending.expired()
        assert await breaker.closed() is False


def test_outage_is_logged_when_it_changes_and_once_per_reminder() -> None:
    now = 0.0
    outage = Outage("test", "away", clock=lambda: now)
    with capture_logs() as lines:
        for now in range(120):
            outage.failed(TimeoutError())
            outage.failed(AWAY)
            if now % 10 == 9:
                outage.well()
    failures = [line for line in lines if line["event"] == "away"]
    assert [line["kind"] for line in failures] == ["TimeoutError", "search-unavailable"] * 2
    assert all(line["reason"] for line in failures)
    assert len(lines) - len(failures) == 120 / REMINDER.total_seconds()
