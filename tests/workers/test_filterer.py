"""The consumer `filterer`: it covers both logs from the first record on, and runs where no index is configured."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from decklog.domain.consumers import FILTERER
from decklog.domain.log import LogName
from decklog.domain.search.query import parse
from decklog.domain.search.term_filters import TermFilter, admits, masks
from decklog.domain.tenant import Tenant
from decklog.services.following.follow import Follower
from decklog.services.following.lines import Ended
from decklog.workers.consumers import filterer
from decklog.workers.consumers.filterer import Filterer
from tests.support.asked import asked
from tests.support.memory import make_tenant
from tests.support.memory_store import MemoryCursors, MemoryStore, fill
from tests.workers.worlds import MemoryService, running, settings

EVENTS = LogName.EVENTS


class MemoryFilters:
    def __init__(self) -> None:
        self.of: dict[tuple[int, LogName], list[TermFilter]] = {}

    async def add(self, tenant: Tenant, log: LogName, made: Sequence[TermFilter]) -> None:
        self.of.setdefault((tenant.id, log), []).extend(made)


async def test_filterer_covers_both_logs_without_a_gap() -> None:
    tenant = make_tenant("acme")
    store, made = MemoryStore(tenant), MemoryFilters()
    follower = Follower(FILTERER, store, MemoryCursors(store), Filterer(made), batch_records_max=30)
    for log, count in ((EVENTS, 100), (LogName.ACCESS, 7), (EVENTS, 5)):
        await fill(store, tenant, *({"message": f"word{number}"} for number in range(count)), log=log)
        assert await follower.advance(tenant, log) is Ended.DONE
    for log, total in ((EVENTS, 105), (LogName.ACCESS, 7)):
        blocks = made.of[tenant.id, log]
        assert [seq for block in blocks for seq in range(block.first, block.end)] == list(range(total))
    mask = masks(asked("word99"))
    assert [block.first <= 99 < block.end for block in made.of[tenant.id, EVENTS] if admits(block, mask)] == [True]


async def test_filterer_covers_large_records_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filterer, "PART_TERMS_MAX", 3_000)
    tenant = make_tenant("acme")
    store, made = MemoryStore(tenant), MemoryFilters()
    follower = Follower(FILTERER, store, MemoryCursors(store), Filterer(made))
    await fill(store, tenant, *({"before": [f"{seq}x{number}" for number in range(2_000)]} for seq in range(5)), {})
    assert await follower.advance(tenant, EVENTS) is Ended.DONE
    blocks = made.of[tenant.id, EVENTS]
    assert [seq for block in blocks for seq in range(block.first, block.end)] == list(range(6))
    for seq in range(5):
        mask = masks(parse([("q", f"{seq}x1999")])[1])
        assert all(admits(block, mask) for block in blocks if block.first <= seq < block.end)


async def test_worker_makes_filters_where_no_index_is_configured() -> None:
    service = MemoryService("acme")
    service.filters = made = MemoryFilters()
    (tenant,) = service.tenants
    async with running(service, settings(sweep_seconds=0.02)):
        number = await service.append(tenant, 5)
        await service.until_done(tenant, number, consumer=FILTERER)
    assert made.of[tenant.id, EVENTS][-1].end == number
