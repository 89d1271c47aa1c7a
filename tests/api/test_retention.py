"""Retention over HTTP: the ranges of a log, for those who may read it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from decklog.domain.errors import Code
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.domain.records.ageing import DroppedRange
from tests.support.api_world import RECORD, World, access_actions, code_of
from tests.support.memory_store import fill

PATH = "/api/v1/retention"


async def test_ranges_of_a_log_are_shown_and_the_reading_is_recorded(world: World) -> None:
    async with world.client(Role.AUDITOR) as auditor, world.client(Role.WRITER) as writer:
        empty = (await auditor.get(PATH)).json()
        assert empty == {"tenant": "acme", "log": "events", "days": 30, "search_days": None, "ranges": [], "dropped": []}
        for _ in range(3):
            assert (await writer.post("/api/v1/logs", json=RECORD)).status_code == 201
        world.store.drop_before(world.tenant("acme"), LogName.EVENTS, 1)
        before, last = (await auditor.get(PATH, params={"log": "events"})).json()["ranges"]
        assert (before["from"], before["first_seq"], before["end_seq"], before["records"]) == (None, 0, 1, 1)
        assert before["state"] == "hidden"
        assert (last["first_seq"], last["end_seq"], last["records"], last["bytes"], last["state"]) == (1, 3, 2, None, "open")
        assert last["from"] < last["to"] < last["hidden_after"]
        [access] = (await auditor.get(PATH, params={"log": "access"})).json()["ranges"]
        assert access["records"] == 2
    assert (await access_actions(world)).count("retention.read") == 3


async def test_ranges_that_went_are_shown_to_their_tenant(world: World) -> None:
    day = datetime(2026, 1, 5, tzinfo=UTC)
    for name in ("acme", "other"):
        went = DroppedRange(world.tenant(name).id, LogName.EVENTS, day, day + timedelta(days=1), 0, 400, day + timedelta(days=40))
        world.drops.ranges.append(went)
    async with world.client(Role.AUDITOR) as auditor:
        assert (await auditor.get(PATH)).json()["dropped"] == [
            {
                "from": "2026-01-05T00:00:00Z",
                "to": "2026-01-06T00:00:00Z",
                "first_seq": 0,
                "end_seq": 400,
                "records": 400,
                "dropped_at": "2026-02-14T00:00:00Z",
            }
        ]
        assert (await auditor.get(PATH, params={"log": "access"})).json()["dropped"] == []


async def test_platform_sees_the_retention_of_its_own_access_log(world: World) -> None:
    async with world.client(Role.PLATFORM) as platform:
        assert (await platform.get(PATH, params={"log": "access"})).json()["tenant"] == "decklog"
        assert code_of(await platform.get(PATH)) == Code.FORBIDDEN.value


async def test_retention_is_refused_to_writers_and_other_parameters_are_unknown(world: World) -> None:
    async with world.client(Role.WRITER) as writer, world.client(Role.AUDITOR) as auditor:
        assert code_of(await writer.get(PATH)) == Code.FORBIDDEN.value
        for params, code in (
            ({"tenant": "other"}, Code.UNKNOWN_PARAMETER),
            ({"log": "other"}, Code.INVALID_PARAMETER),
            ({"q": "x"}, Code.UNKNOWN_PARAMETER),
        ):
            assert code_of(await auditor.get(PATH, params=params)) == code.value


@pytest.mark.parametrize("log", LogName)
async def test_tenants_see_their_own_ranges_only(world: World, log: LogName) -> None:
    await fill(world.store, world.tenant("other"), {}, {})
    async with world.client(Role.ADMIN) as admin:
        ranges = (await admin.get(PATH, params={"log": log.text})).json()["ranges"]
    assert sum(each["records"] for each in ranges) == 0
