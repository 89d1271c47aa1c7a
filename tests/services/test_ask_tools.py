"""The tools of an engine: readings of the asking principal, within its scope, recorded and bounded."""

from __future__ import annotations

import msgspec
import pytest

from decklog.domain.ask.vocabulary import Vocabulary
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, Role
from decklog.domain.log import LogName
from decklog.services.ask import tools as tools_module
from decklog.services.ask.tools import CALLS_MAX, Count, Tools
from decklog.services.ask.vocabularies import Vocabularies
from tests.support.desk import REQUEST, Desk, desk
from tests.support.scopes import viewer

RECORDS = (
    {"action": "a.read", "actor": {"id": "alice"}, "occurred_at": "2026-02-01T10:00:00Z", "source": {"ip": "192.0.2.1"}},
    {
        "action": "a.delete",
        "actor": {"id": "bob"},
        "occurred_at": "2026-02-03T10:00:00Z",
        "metadata": {"c": "x", "tags": ["p", "q"]},
    },
    {"action": "a.read", "actor": {"id": "alice"}, "occurred_at": "2026-02-02T23:30:00Z", "source": {"ip": "192.0.2.1"}},
    {"action": "a.read", "actor": {"id": "bob"}, "occurred_at": "2026-02-04T10:00:00Z", "metadata": {"c": "y"}},
)


def tools_of(at: Desk, principal: Principal | None = None, vocabularies: Vocabularies | None = None) -> Tools:
    principal = principal or at.principal()
    vocabularies = vocabularies or Vocabularies(at.reading)
    return Tools(at.reading, vocabularies, principal, REQUEST, at.reading.account(principal))


def numbers(records: tuple[msgspec.Raw, ...]) -> list[int]:
    return [msgspec.json.decode(record)["seq"] for record in records]


async def test_search_returns_records_by_the_time_of_the_event_and_the_number_of_all() -> None:
    async with desk() as at:
        await at.put(*RECORDS)
        tools = tools_of(at)
        found = await tools.search("action:a.read", limit=2)
        assert (numbers(found.records), found.total) == ([3, 2], 3)
        assert numbers((await tools.search("", newest_first=False)).records) == [0, 2, 1, 3]


async def test_count_groups_by_fields_that_the_stores_count_and_by_any_other_path() -> None:
    async with desk() as at:
        await at.put(*RECORDS)
        tools = tools_of(at)
        assert (await tools.count("actor:alice")).total == 2
        by_actor = await tools.count("", "actor.id", top=1)
        assert (by_actor.total, by_actor.values, by_actor.other) == (4, (Count("alice", 2),), 2)
        by_address = await tools.count("", "source.ip")
        assert (by_address.values, by_address.missing, by_address.read) == ((Count("192.0.2.1", 2),), 2, None)
        assert (await tools.count("", "metadata.tags")).values == (Count("p", 1), Count("q", 1))
        assert (await tools.count("", "metadata.c", top=1)).other == 1


async def test_count_says_how_many_records_it_read_where_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_module, "LIMIT_MAX", 1)
    monkeypatch.setattr(tools_module, "READ_MAX", 3)
    async with desk() as at:
        await at.put(*RECORDS)
        counted = await tools_of(at).count("", "source.ip")
        assert (counted.total, counted.read, counted.values, counted.missing) == (4, 3, (Count("192.0.2.1", 1),), 2)


async def test_timeline_counts_by_the_days_of_a_zone() -> None:
    async with desk() as at:
        await at.put(*RECORDS)
        counted = await tools_of(at).timeline("action:a.read", zone="Europe/Amsterdam")
        days = [(each.value, each.count) for each in counted.values]
        assert days == [
            ("2026-02-01T00:00:00+01:00", 1),
            ("2026-02-02T00:00:00+01:00", 0),
            ("2026-02-03T00:00:00+01:00", 1),
            ("2026-02-04T00:00:00+01:00", 1),
        ]


async def test_story_has_records_in_their_order_and_who_took_part() -> None:
    async with desk() as at:
        await at.put(*RECORDS)
        told = await tools_of(at).story("", limit=3)
        assert (numbers(told.records), told.total) == ([0, 2, 1], 4)
        assert told.actors.values == (Count("alice", 2), Count("bob", 2))
        assert told.actions.values == (Count("a.read", 3), Count("a.delete", 1))


async def test_vocabulary_is_that_of_the_scope_and_is_kept_for_principals_of_the_same_scope() -> None:
    async with desk() as at:
        await at.put(*RECORDS)
        kept = Vocabularies(at.reading)
        whole = Vocabulary(("a.read", "a.delete"), ("alice", "bob"), every_action=True)
        assert await tools_of(at, vocabularies=kept).vocabulary() == whole
        assert await tools_of(at, vocabularies=kept).vocabulary() == whole
        seen = await tools_of(at, viewer(at.acme, "actor:bob", "action"), kept).vocabulary()
        assert seen == Vocabulary(("a.delete", "a.read"), every_action=True)
        assert (await tools_of(at, at.principal(at.rival), kept).vocabulary()).actions == ()
        assert [record["action"] for record in await at.accesses()] == ["log.stats"] * 2


async def test_each_call_is_recorded_and_refused_as_a_reading_is() -> None:
    async with desk() as at:
        await at.put(*RECORDS)
        tools = tools_of(at)
        await tools.search("actor:alice", limit=1)
        await tools.count("actor:alice")
        await tools.timeline("")
        await tools.story("")
        await tools.search("", log=LogName.ACCESS)
        actions = [record["action"] for record in await at.accesses()]
        assert actions == ["log.search", "log.stats", "log.stats", "log.search", "log.stats", "log.search"]
        assert (await at.accesses())[0]["metadata"]["filter"]["q"] == "actor.id:alice"
        with pytest.raises(DecklogError, match="may not read"):
            await tools_of(at, at.principal(role=Role.WRITER)).search("")


async def test_viewer_token_keeps_its_scope_in_every_tool() -> None:
    async with desk() as at:
        await at.put(*RECORDS)
        tools = tools_of(at, viewer(at.acme, "actor:bob", "action", "occurred_at"))
        assert (await tools.search("")).records == (
            msgspec.Raw(b'{"action":"a.read","occurred_at":"2026-02-04T10:00:00Z"}'),
            msgspec.Raw(b'{"action":"a.delete","occurred_at":"2026-02-03T10:00:00Z"}'),
        )
        assert (await tools.count("")).total == 2
        assert (await tools.timeline("")).total == 2
        told = await tools.story("")
        assert (told.total, told.actors.values, len(told.actions.values)) == (2, (), 2)
        with pytest.raises(DecklogError, match="does not show"):
            await tools.search("actor:alice")
        with pytest.raises(DecklogError, match="does not show"):
            await tools.count("", "actor.id")
        with pytest.raises(DecklogError, match="does not show"):
            await tools.count("", "source.ip")


async def test_calls_of_one_question_are_bounded() -> None:
    async with desk() as at:
        tools = tools_of(at)
        for _ in range(CALLS_MAX):
            await tools.count("")
        with pytest.raises(DecklogError) as error:
            await tools.search("")
        assert error.value.code is Code.QUESTION_TOO_COSTLY
