"""`POST /api/v1/logs/ask`: a question becomes a query and an answer, recorded and within the rights of the asking principal."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest

from decklog.answer_shapes import Answer, ViewerAnswer
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from tests.support.api_world import World, access_actions, code_of
from tests.support.memory_store import fill

PATH = "/api/v1/logs/ask"
RECORDS = (
    {"action": "document.delete", "actor": {"id": "alice"}, "resource": {"type": "document", "id": "d-17"}},
    {"action": "document.delete", "actor": {"id": "bob"}, "resource": {"type": "document", "id": "d-18"}},
    {"action": "document.read", "actor": {"id": "bob"}, "resource": {"type": "document", "id": "d-17"}, "outcome": "denied"},
)


async def filled(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *RECORDS)
    await fill(world.store, world.tenant("other"), {"action": "document.delete", "actor": {"id": "mallory"}})


async def asked(client: httpx.AsyncClient, question: str, **more: Any) -> Answer:
    answer = await client.post(PATH, json={"question": question, **more})
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=Answer)


async def access_record(world: World) -> dict[str, Any]:
    """The access record of the last question."""
    tenant = world.tenant("acme")
    head = await world.store.head(tenant, LogName.ACCESS)
    records = sorted(await world.store.fetch(tenant, LogName.ACCESS, range(head.next_seq)), key=lambda each: each.seq)
    found: list[dict[str, Any]] = [json.loads(each.content) for each in records]
    return [each for each in found if each["action"] == "ask.question"][-1]


async def test_question_becomes_a_query_and_an_answer_with_its_records(world: World) -> None:
    await filled(world)
    async with world.client(Role.AUDITOR) as client:
        answer = await asked(client, "who deleted documents?")
    assert (answer.expert, answer.query, answer.by) == ("top", "action:document.delete", "actor.id")
    assert [(each.value, each.count) for each in answer.counts] == [("alice", 1), ("bob", 1)]
    assert answer.answer == "2 records match. By actor.id: alice (1), bob (1)."
    assert {record.seq for record in answer.records} == {0, 1}
    assert [(each.text, each.meaning) for each in answer.understood] == [
        ("who", "by actor"),
        ("deleted documents", "action document.delete"),
    ]
    assert answer.not_understood == []


async def test_each_expert_answers(world: World) -> None:
    await filled(world)
    async with world.client(Role.AUDITOR) as client:
        answers = {
            question: (await asked(client, question)).answer
            for question in (
                "denied reads",
                "how many documents did alice delete?",
                "what happened to d-17?",
                "were more documents deleted than read?",
                "records per day",
                "who shared d-18?",
            )
        }
    assert answers["denied reads"].startswith("1 record matches. The newest: record 2, bob document.read on d-17 at ")
    assert answers["how many documents did alice delete?"] == "1 record matches."
    assert "Actors: alice (1), bob (1). Actions: document.delete (1), document.read (1)." in answers["what happened to d-17?"]
    assert answers["were more documents deleted than read?"] == (
        "2 records and 1 record: the first has 1 more (100%). First: action:document.delete. Second: action:document.read."
    )
    assert answers["records per day"].startswith("3 records match, from ")
    assert answers["who shared d-18?"] == "No record matches."


async def test_words_that_are_not_understood_come_first(world: World) -> None:
    await filled(world)
    async with world.client(Role.AUDITOR) as client:
        answer = await asked(client, "who deleted documents stealthily?")
        assert [(each.start, each.end, each.text) for each in answer.not_understood] == [(22, 32, "stealthily")]
        assert answer.answer.startswith("Not understood: “stealthily”. ")
        refused = await client.post(PATH, json={"question": "colourless green ideas sleep"})
        assert code_of(refused) == "question-not-understood"
        assert [each["text"] for each in refused.json()["not_understood"]] == ["colourless green ideas sleep"]
        assert refused.json()["examples"]


async def test_question_and_each_reading_are_recorded(world: World) -> None:
    await filled(world)
    async with world.client(Role.AUDITOR) as client:
        await asked(client, "who deleted documents with metadata.password:hunter2 gracefully?")
        actions = await access_actions(world)
        assert actions == ["log.stats", "log.stats", "log.search", "ask.question"]
        record = await access_record(world)
        assert "hunter2" not in json.dumps(record)
        assert record["metadata"] == {
            "question": "who deleted documents with metadata.password:[masked] gracefully?",
            "expert": "top",
            "query": 'metadata.password:"[masked]" AND action:document.delete',
            "not_understood": ["gracefully"],
            "engine": "grammar",
            "calls": 3,
            "records": 0,
            "role": "auditor",
        }
        await client.post(PATH, json={"question": "colourless green ideas"})
        record = await access_record(world)
        assert (record["outcome"], record["metadata"]["code"]) == ("failure", "question-not-understood")


async def test_conversation_goes_on_and_belongs_to_who_asks(world: World) -> None:
    await filled(world)
    async with world.client(Role.AUDITOR) as client, world.client(Role.ADMIN) as other:
        first = await asked(client, "denied reads")
        refined = await asked(client, "and of alice?", conversation=first.conversation)
        assert refined.query == f"{first.query} AND actor.id:alice"
        assert refined.understood[0].meaning == "as before: denied reads"
        second = await asked(client, "who deleted documents?", conversation=first.conversation)
        assert first.conversation is not None
        assert first.conversation == second.conversation
        kept = (await client.get(f"/api/v1/conversations/{first.conversation}")).json()
        assert [turn["question"] for turn in kept["turns"]] == ["denied reads", "and of alice?", "who deleted documents?"]
        assert (
            code_of(await other.post(PATH, json={"question": "denied reads", "conversation": first.conversation})) == "not-found"
        )


async def test_answers_stay_within_the_tenant_and_the_scope(world: World) -> None:
    await filled(world)
    async with world.client(Role.AUDITOR) as client:
        assert "mallory" not in (await asked(client, "who deleted documents?")).answer
        scope = {"query": "actor:bob", "fields": ["action", "outcome", "occurred_at"]}
        token = (await client.post("/api/v1/viewer-tokens", json=scope)).json()["token"]
    async with httpx.AsyncClient(base_url=world.url, headers={"Authorization": f"Bearer {token}"}) as viewer:
        found = await viewer.post(PATH, json={"question": "how many documents were deleted?"})
        answer = msgspec.json.decode(found.content, type=ViewerAnswer)
        assert (answer.total, answer.conversation) == (1, None)
        assert [set(record) for record in answer.records] == [{"action", "outcome", "occurred_at"}]
        assert code_of(await viewer.post(PATH, json={"question": "what did actor:alice do"})) == "invalid-query"
        assert code_of(await viewer.post(PATH, json={"question": "who deleted documents?"})) == "invalid-query"
    async with world.client(Role.WRITER) as writer:
        assert code_of(await writer.post(PATH, json={"question": "who deleted documents?"})) == "forbidden"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "invalid-parameter"),
        (b'{"question": ""}', "invalid-parameter"),
        (b'{"question": " "}', "invalid-parameter"),
        (b'{"question": "a\\u0000"}', "invalid-parameter"),
        (b'{"question": "denied", "zone": "Mars/Olympus"}', "invalid-parameter"),
        (b'{"question": "denied", "log": "other"}', "invalid-parameter"),
        (b'{"question": "denied", "colour": "red"}', "invalid-parameter"),
        (b'{"question": "denied", "conversation": "x"}', "not-found"),
        (json.dumps({"question": "a " * 251}).encode(), "invalid-parameter"),
        (json.dumps({"question": "a b " * 61}).encode(), "invalid-parameter"),
        (b" " * 9_000, "body-too-large"),
        (b"{", "invalid-json"),
    ],
)
async def test_other_bodies_are_refused(world: World, body: bytes, code: str) -> None:
    async with world.client(Role.AUDITOR) as client:
        assert code_of(await client.post(PATH, content=body, headers={"content-type": "application/json"})) == code
