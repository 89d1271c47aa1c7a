"""`POST /api/v1/logs/search`: the same answers as the list, with the query in the body."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decklog.api.routes.search import BODY_BYTES_MAX, parameters_of
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from tests.support.api_world import World, access_actions, code_of
from tests.support.memory_store import fill


@pytest.mark.parametrize(
    ("body", "parameters"),
    [
        ({}, []),
        ({"query": "alice"}, [("q", "alice")]),
        ({"q": "alice", "limit": 5}, [("q", "alice"), ("limit", "5")]),
        ({"severity": ["ERROR", "INFO"]}, [("severity", "ERROR"), ("severity", "INFO")]),
        ({"metadata": {"a": "b", "c": {"d": 1}}}, [("metadata.a", "b"), ("metadata.c.d", "1")]),
        ({"metadata.a": "b"}, [("metadata.a", "b")]),
        ({"after": {"ok": True}}, [("after.ok", "true")]),
        ({"other": "x"}, [("other", "x")]),
    ],
)
def test_members_of_the_body_are_parameters(body: dict[str, Any], parameters: list[tuple[str, str]]) -> None:
    assert parameters_of(json.dumps(body).encode()) == parameters


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", Code.INVALID_JSON),
        (b"[]", Code.INVALID_JSON),
        (b'"alice"', Code.INVALID_JSON),
        (b'{"query": "a", "query": "b"}', Code.INVALID_JSON),
        (b'{"metadata": {"a": "b", "a": "c"}}', Code.INVALID_JSON),
        (b"\xff", Code.INVALID_JSON),
        (b"[" * 50_000, Code.INVALID_JSON),
        (b'{"query": "a", "q": "b"}', Code.INVALID_PARAMETER),
        (b'{"limit": 1.5}', Code.INVALID_PARAMETER),
        (b'{"query": null}', Code.INVALID_PARAMETER),
        (b'{"severity": [["ERROR"]]}', Code.INVALID_PARAMETER),
        (json.dumps({f"metadata.{number}": "x" for number in range(101)}).encode(), Code.INVALID_PARAMETER),
    ],
)
def test_other_bodies_are_refused(body: bytes, code: Code) -> None:
    with pytest.raises(DecklogError) as error:
        parameters_of(body)
    assert error.value.code is code


def test_longest_query_fits_into_a_body() -> None:
    assert len(json.dumps({"query": "\U0001f984" * 16_000}, ensure_ascii=False).encode()) < BODY_BYTES_MAX


async def test_search_answers_as_the_list(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"action": f"a.{n % 3}", "message": f"number {n}"} for n in range(9)))
    async with world.client(Role.AUDITOR) as client:
        query = 'action:(a.1 OR a.2) NOT "number 4" number'
        body = {"query": query, "limit": 2}
        listed = (await client.get("/api/v1/logs", params={"q": query, "limit": 2})).json()
        found = (await client.post("/api/v1/logs/search", json=body)).json()
        assert found == listed
        assert [item["seq"] for item in found["items"]] == [8, 7]
        rest = (await client.post("/api/v1/logs/search", json={**body, "limit": 9, "cursor": found["next"]})).json()
        assert [item["seq"] for item in rest["items"]] == [5, 2, 1]
        assert await access_actions(world, "acme") == ["log.search"] * 3


async def test_query_that_is_not_understood_is_a_problem_with_its_place(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        for response in (
            await client.get("/api/v1/logs", params={"q": "ok user_id:alice"}),
            await client.get("/api/v1/logs/stats", params={"q": "ok user_id:alice"}),
            await client.get("/api/v1/logs/export", params={"q": "ok user_id:alice"}),
            await client.get("/api/v1/logs/stream", params={"q": "ok user_id:alice"}),
            await client.post("/api/v1/logs/search", json={"query": "ok user_id:alice"}),
        ):
            problem = response.json()
            assert (response.status_code, problem["code"]) == (422, "invalid-query")
            assert (problem["parameter"], problem["column"], problem["length"], problem["suggestion"]) == ("q", 4, 7, "actor.id")
            assert problem["detail"].splitlines()[1:] == ["  ok user_id:alice", "     ^^^^^^^"]


async def test_search_refuses_parameters_in_its_address_and_other_media(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        assert code_of(await client.post("/api/v1/logs/search?q=a", json={})) == "unknown-parameter"
        assert code_of(await client.post("/api/v1/logs/search", json={"colour": "red"})) == "unknown-parameter"
        assert code_of(await client.post("/api/v1/logs/search", content=b"q=a", headers={"content-type": "text/plain"})) == (
            "unsupported-media-type"
        )
        assert code_of(await client.post("/api/v1/logs/search", content=b" " * (BODY_BYTES_MAX + 1))) == "body-too-large"
    async with world.client(Role.WRITER) as client:
        assert code_of(await client.post("/api/v1/logs/search", json={})) == "forbidden"


async def test_highlights_are_beside_the_records_where_they_are_asked_for(world: World) -> None:
    await fill(world.store, world.tenant("acme"), {"metadata": {"reason": "Retention"}}, {"action": "retention.end"}, {})
    async with world.client(Role.AUDITOR) as client:
        body = {"query": "retention", "highlight": True}
        found = (await client.post("/api/v1/logs/search", json=body)).json()
        plain = (await client.get("/api/v1/logs", params={"q": "retention"})).json()
        assert found["items"] == plain["items"]
        assert plain["highlights"] is None
        assert found["highlights"] == [
            {"seq": 1, "places": [{"path": "/action", "spans": [[0, 9]]}], "more": False},
            {"seq": 0, "places": [{"path": "/metadata/reason", "spans": [[0, 9]]}], "more": False},
        ]
        all_of_it = (await client.get("/api/v1/logs", params={"highlight": "true"})).json()
        assert [item["places"] for item in all_of_it["highlights"]] == [[], [], []]
        refused = await client.get("/api/v1/logs", params={"highlight": "yes"})
        assert code_of(refused) == "invalid-parameter"
