"""Conformance of `RejectedStore`: in memory, and on both servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.rejected import (
    BYTES_MAX,
    CONTENT_BYTES_MAX,
    ROWS_MAX,
    RejectedBatch,
    RejectedStore,
    Rejection,
    Rejections,
)
from decklog.domain.tenant import Tenant
from tests.support.memory import make_tenant
from tests.support.memory_rejected import MemoryRejected
from tests.support.stores import VARIANTS, drop_database, new_database

NOW = datetime.now(UTC).replace(microsecond=0)


class Kept(NamedTuple):
    store: RejectedStore
    tenant: Callable[[], Awaitable[Tenant]]


@pytest.fixture(params=("memory", *VARIANTS))
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    if request.param == "memory":

        async def made() -> Tenant:
            return make_tenant(f"tenant-{id(object())}")

        yield Kept(MemoryRejected(), made)
        return
    database = await new_database(request.getfixturevalue(f"{request.param}_server"))
    yield Kept(await database.rejected(), database.tenant)
    await drop_database(database)


def rejection(number: int, content: bytes | None = b"{}", at: datetime = NOW) -> Rejection:
    return Rejection(at, "invalid-record", f"no. {number}", f"k/{number}", '{"id":"key","type":"api_key"}', "request", 7, content)


def batch(tenant: Tenant, *found: Rejection, unkept: int = 0, days: int = 90) -> RejectedBatch:
    return RejectedBatch(tenant.id, days, len(found) + unkept, unkept, NOW, "invalid-record", found)


async def test_rejected_records_are_listed_newest_first_read_and_deleted(kept: Kept) -> None:
    tenant, other = await kept.tenant(), await kept.tenant()
    store = kept.store
    await store.keep(batch(tenant, rejection(1), rejection(2, None), unkept=3))
    await store.keep(batch(tenant, rejection(3, '{"a":"\u00e9\\u0000"}'.encode())))
    await store.keep(batch(other, rejection(4)))
    listed = await store.list(tenant.id, before=None, limit=10)
    assert [(each.id, each.detail, each.has_content, each.content) for each in listed] == [
        (3, "no. 3", True, None),
        (2, "no. 2", False, None),
        (1, "no. 1", True, None),
    ]
    assert [each.id for each in await store.list(tenant.id, before=3, limit=1)] == [2]
    found = await store.get(tenant.id, 3)
    assert found is not None
    assert (found.content, found.rejected_at, found.record_id, found.size) == ('{"a":"\u00e9\\u0000"}', NOW, "k/3", 7)
    assert bytes(found.recorded_by) == b'{"id":"key","type":"api_key"}'
    assert await store.get(other.id, 3) is None
    assert await store.delete(other.id, 3) is False
    assert [await store.delete(tenant.id, 3), await store.delete(tenant.id, 3)] == [True, False]
    assert await store.counts(tenant.id) == Rejections(6, 3, 0, 2, 2, NOW, "invalid-record")
    assert await store.counts(make_tenant("none").id) == Rejections()


async def test_oldest_rejected_records_go_beyond_the_bounds_and_are_counted(kept: Kept) -> None:
    tenant, store = await kept.tenant(), kept.store
    for first in range(0, ROWS_MAX + 200, 400):
        await store.keep(batch(tenant, *(rejection(first + n) for n in range(400))))
    counts = await store.counts(tenant.id)
    assert (counts.rejected, counts.kept, counts.dropped) == (1_200, ROWS_MAX, 200)
    assert [each.id for each in await store.list(tenant.id, before=203, limit=10)] == [202, 201]
    large = b'"' + b"x" * (CONTENT_BYTES_MAX - 2) + b'"'
    for _ in range(6):
        await store.keep(batch(tenant, *(rejection(n, large) for n in range(3))))
    counts = await store.counts(tenant.id)
    assert counts.bytes <= BYTES_MAX
    assert counts.kept == BYTES_MAX // CONTENT_BYTES_MAX


@pytest.mark.parametrize("variant", VARIANTS)
async def test_old_rejected_records_go_with_the_tenants_retention(variant: str, request: pytest.FixtureRequest) -> None:
    database = await new_database(request.getfixturevalue(f"{variant}_server"))
    store, tenant = await database.rejected(), await database.tenant()
    ages = (40, 20, 5)
    await store.keep(batch(tenant, *(rejection(age, at=NOW - timedelta(days=age)) for age in ages)))
    assert [each.detail for each in await store.list(tenant.id, before=None, limit=9)] == ["no. 5", "no. 20"]
    await store.keep(batch(tenant, rejection(0), days=7))
    assert [each.detail for each in await store.list(tenant.id, before=None, limit=9)] == ["no. 0", "no. 5"]
    assert (await store.counts(tenant.id)).dropped == 2
    await drop_database(database)


@pytest.mark.parametrize("variant", VARIANTS)
async def test_rejected_records_that_are_too_old_go_also_where_nothing_is_rejected_any_more(
    variant: str, request: pytest.FixtureRequest
) -> None:
    database = await new_database(request.getfixturevalue(f"{variant}_server"))
    store = await database.rejected()
    brief, long, deleted, silent = [await database.tenant() for _ in range(4)]
    for tenant in (brief, long, deleted):
        await store.keep(batch(tenant, *(rejection(age, at=NOW - timedelta(days=age)) for age in (20, 5))))
    await database.execute("CREATE TABLE decklog.tenants (id bigint, retention_days integer, state integer)")
    for tenant, days, state in ((brief, 7, 0), (long, 90, 0), (deleted, 7, 2), (silent, 7, 0)):
        await database.execute("INSERT INTO decklog.tenants VALUES ($1, $2, $3)", tenant.id, days, state)
    await database.execute("GRANT SELECT ON decklog.tenants TO decklog_owner")
    for gone in (1, 0):
        [row] = await database.execute("SELECT decklog.forget_rejected() AS gone")
        assert row["gone"] == gone
    kept = {
        tenant: [each.detail for each in await store.list(tenant.id, before=None, limit=9)] for tenant in (brief, long, deleted)
    }
    assert kept == {brief: ["no. 5"], long: ["no. 5", "no. 20"], deleted: ["no. 5", "no. 20"]}
    assert (await store.counts(brief.id)).dropped == 1
    await drop_database(database)


@pytest.mark.parametrize("variant", VARIANTS)
async def test_unreachable_database_is_storage_unavailable(variant: str, request: pytest.FixtureRequest) -> None:
    database = await new_database(request.getfixturevalue(f"{variant}_server"))
    store, tenant = await database.rejected(), await database.tenant()
    await database.execute("ALTER FUNCTION decklog.keep_rejected RENAME TO kept_elsewhere")
    with pytest.raises(DecklogError) as caught:
        await store.keep(batch(tenant, rejection(1)))
    assert caught.value.code is Code.STORAGE_UNAVAILABLE
    await drop_database(database)
