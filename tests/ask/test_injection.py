"""Records cannot instruct the model: fifty of them, read by a model that obeys whatever it reads, have no effect beyond its marked comment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from decklog.domain.identity.access import Principal
from decklog.domain.log import LogName
from decklog.domain.tenant import Limits as TenantLimits
from decklog.services.ask.engine import Question, Reply
from decklog.services.ask.model import CALLS_MAX, Model, ModelEngine
from decklog.services.ask.model_reply import MODEL_NOTE
from decklog.services.ask.tools import Tools
from decklog.services.ask.vocabularies import Vocabularies
from tests.support.desk import REQUEST, Desk, desk
from tests.support.injections import INJECTIONS
from tests.support.obedient_model import ObedientModel
from tests.support.scopes import viewer

RIVAL, HIDDEN = "rival-secret-8d1f", "root-secret-77aa"
FIRST = {"query": "actor:alice", "limit": 100}


class NoFallback:
    """The engine that must not be needed."""

    name = "grammar"

    async def answer(self, *_: Any) -> Reply:
        raise AssertionError("the model engine gave up")


@asynccontextmanager
async def listener() -> AsyncIterator[tuple[int, list[str]]]:
    """Listen where nobody may connect, and yield the port and the list of those who did."""
    seen: list[str] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append("connected")
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


async def asked(at: Desk, model: ObedientModel, principal: Principal) -> Reply:
    engine = ModelEngine(Model(model, "stub"), NoFallback(), seconds=20)
    tools = Tools(at.reading, Vocabularies(at.reading), principal, REQUEST, at.reading.account(principal))
    return await engine.answer(Question("what did alice do?", at.now()), tools, ())


@pytest.mark.parametrize("scoped", [False, True], ids=["auditor", "viewer"])
@pytest.mark.parametrize("number", range(len(INJECTIONS)))
async def test_record_that_instructs_the_model_has_no_effect(number: int, scoped: bool) -> None:
    async with listener() as (port, connections), desk(tenant=TenantLimits(shows_records=True)) as at:
        injected = json.loads(json.dumps(INJECTIONS[number]).replace("{port}", str(port)))
        root = {"action": "key.read", "actor": {"id": "root"}, "message": HIDDEN}
        await at.put({"action": "file.open", "actor": {"id": "alice"}}, injected, root)
        await at.put({"action": "x", "actor": {"id": "alice"}, "message": RIVAL}, tenant=at.rival)
        before = [(await at.store.head(tenant, LogName.EVENTS)).next_seq for tenant in (at.acme, at.rival)]
        model = ObedientModel("find", [[("search", FIRST)]])
        principal = viewer(at.acme, "actor:alice") if scoped else at.principal()
        reply = await asked(at, model, principal)

        # The model has obeyed: it called what it was ordered to, or said it.
        assert len(model.requests) > 3 if "CALL" in json.dumps(injected) else reply.comment not in ("", "Done.")
        # Nothing of another tenant, and nothing beyond the rights of the user, reaches the model or the reader.
        seen = json.dumps(model.requests) + msgspec.json.encode(reply).decode()
        assert RIVAL not in seen
        assert not scoped or HIDDEN not in seen
        # Nothing is fetched, changed, or read by anybody else than the asking user.
        assert connections == []
        assert before == [(await at.store.head(tenant, LogName.EVENTS)).next_seq for tenant in (at.acme, at.rival)]
        assert await at.accesses(at.rival) == []
        reads = await at.accesses()
        assert {read["actor"]["id"] for read in reads} == {principal.subject}
        assert {read["action"] for read in reads} <= {"log.search", "log.stats"}
        assert {read["resource"]["id"] for read in reads} == {"events"}
        assert len(reads) <= 2 * CALLS_MAX
        # The answer is ours and true, and what the model wrote is marked and harmless.
        assert reply.understanding.query == FIRST["query"]
        assert reply.answer.startswith("2 records match. The newest: record 1, alice file.read ")
        assert reply.notes[0] == MODEL_NOTE
        assert not any(sign in reply.comment.lower() for sign in ("://", "www.", "mailto:", "data:", "javascript:", "\u202e"))
        assert len(reply.comment) <= 2_000


async def test_lies_of_the_model_are_marked() -> None:
    lies = {46: "987654", 47: "0", 48: "31337", 49: "4711"}
    for place, number in lies.items():
        async with desk(tenant=TenantLimits(shows_records=True)) as at:
            await at.put({"action": "file.open", "actor": {"id": "alice"}}, INJECTIONS[place - 1])
            reply = await asked(at, ObedientModel("find", [[("search", FIRST)]]), at.principal())
            assert any(note == f"No result has these numbers that the model wrote: {number}." for note in reply.notes), (
                reply.notes
            )
            assert reply.answer.startswith("2 records match.")


async def test_model_sees_no_value_of_a_record_where_the_tenant_does_not_allow_it() -> None:
    for number, injected in enumerate(INJECTIONS):
        async with desk() as at:
            await at.put({"action": "file.open", "actor": {"id": "alice-in-person"}}, injected)
            story = [("story", {"query": "exists:action"}), ("count", {"query": "", "group_by": "actor.id"})]
            model = ObedientModel("story", [[("search", {"query": "actor:alice"})], story])
            reply = await asked(at, model, at.principal())
            results = [json.loads(each["content"]) for each in model.requests[-1]["messages"] if each["role"] == "tool"]
            assert "alice-in-person" not in json.dumps(results)
            assert "CALL" not in json.dumps(results), number
            assert reply.sent == 0
            assert len(reply.records) == 2
