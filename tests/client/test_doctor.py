"""The doctor says of each part whether it works, and of what does not what to do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from decklog.client import doctor
from decklog.client.client import Client
from decklog.client.doctor import Finding, Outcome, Report
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from tests.support.api_world import World, running_world

TIMEOUT = 20.0


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as made:
        yield made


class Changed(httpx.AsyncBaseTransport):
    """The wire, where one kind of answer is changed on its way."""

    def __init__(self, path: str, change: Callable[[Any], Any]) -> None:
        self._inner, self._path, self._change = httpx.AsyncHTTPTransport(), path, change

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if request.url.path != self._path or request.method != "GET" or response.status_code != 200:
            return response
        body = self._change(json.loads(await response.aread()))
        return httpx.Response(200, content=json.dumps(body).encode(), request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def examined(
    world: World, *, key: str | None = None, transport: httpx.AsyncBaseTransport | None = None, timeout: float = TIMEOUT
) -> Report:
    async with Client(world.url, key or world.keys["acme", Role.ADMIN], transport=transport) as client:
        return await doctor.examine(client, timeout=timeout)


def failures(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.outcome is Outcome.FAILED]


async def test_a_well_installation_passes_every_check_with_one_record(world: World) -> None:
    report = await examined(world)
    assert report.healthy, doctor.told(report)
    assert [finding.check for finding in report.findings] == [
        "api", "database", "search", "credential", "tenant", "write and stream", "read", "search", "index", "access log",
    ]  # fmt: skip
    assert doctor.told(report).endswith(f"{world.url} is well.\n")
    async with Client(world.url, world.keys["acme", Role.ADMIN]) as client:
        [probe] = (await client.list()).items
        assert (probe["action"], probe["actor"]["id"]) == (doctor.ACTION, doctor.ACTOR)
        assert (await client.list({"log": "access", "action": "log.read"})).items
    assert (await examined(world)).healthy, "a second time is as good"


@pytest.mark.parametrize(
    ("backend", "error", "detail", "advice"),
    [
        ("database", DecklogError(Code.STORAGE_UNAVAILABLE, "no"), "cannot use it: storage-unavailable", "Look at PostgreSQL"),
        ("search", DecklogError(Code.SEARCH_UNAVAILABLE, "no"), "cannot use it: search-unavailable", "Look at OpenSearch"),
        ("search", RuntimeError("no"), "cannot use it: internal", "Look at OpenSearch"),
    ],
)
async def test_a_backend_that_is_away_is_named_and_the_other_checks_go_on(
    world: World, backend: str, error: Exception, detail: str, advice: str
) -> None:
    world.backends[backend].error = error
    report = await examined(world)
    [failed] = failures(report)
    assert failed.check == backend
    assert detail in failed.detail
    assert advice in failed.advice
    assert f"FAILED   {backend}: " in doctor.told(report)
    assert doctor.told(report).endswith("is not well: 1 checks failed.\n")
    alone = await doctor.examine_backends(world.url, timeout=TIMEOUT)
    assert [finding.check for finding in failures(alone)] == [backend]


async def test_a_key_that_does_not_do_is_told_with_where_to_get_one(world: World) -> None:
    [unknown] = failures(await examined(world, key="dlk_nothing"))
    assert (unknown.check, "Secret <tenant>-decklog" in unknown.advice) == ("credential", True)
    assert "dlk_nothing" not in repr(unknown)
    [reader] = failures(await examined(world, key=world.keys["acme", Role.AUDITOR]))
    assert "of the role auditor may not both write and read" in reader.detail
    [platform] = failures(await examined(world, key=world.keys[None, Role.PLATFORM]))
    assert platform.advice == "Use the key of the role admin, which may write and read."


async def test_a_condition_that_is_not_true_is_told_in_its_own_words(world: World) -> None:
    def broken(listing: Any) -> Any:
        listing["status"] = {
            "conditions": [{"type": "QueueReady", "status": "False", "reason": "Unreachable", "message": "SQS is away."}]
        }
        return listing

    [failed] = failures(await examined(world, transport=Changed("/api/v1/tenants/acme", broken)))
    assert (failed.check, failed.detail) == ("tenant", "QueueReady is False (Unreachable): SQS is away.")
    assert "kubectl describe tenant" in failed.advice


async def test_a_tenant_over_its_quota_is_told_so(world: World) -> None:
    quota = {"type": "QuotaExceeded", "reason": "StorageUsedUp", "message": "No room."}

    def told(listing: Any) -> Any:
        return {**listing, "status": {"conditions": [{"type": "Ready", "status": "True"}, quota]}}

    for status, failed in (("True", ["QuotaExceeded is True (StorageUsedUp): No room."]), ("False", [])):
        quota["status"] = status
        report = await examined(world, transport=Changed("/api/v1/tenants/acme", told))
        assert [finding.detail for finding in failures(report)] == failed


async def test_an_index_that_does_not_move_is_told_with_how_much_is_missing(world: World) -> None:
    def behind(page: Any) -> Any:
        return {**page, "indexed": 0} if "items" in page else page

    report = await examined(world, transport=Changed("/api/v1/logs", behind), timeout=3)
    [failed] = failures(report)
    assert failed.check == "index"
    assert "1 records are not in the index" in failed.detail
    assert "Look at the workers" in failed.advice


async def test_a_record_that_is_not_found_is_told(world: World) -> None:
    report = await examined(world, transport=Changed("/api/v1/logs", lambda page: {**page, "items": []}))
    assert [finding.check for finding in failures(report)] == ["search", "access log"]


async def test_where_nobody_answers_nothing_else_is_tried() -> None:
    async with Client("http://127.0.0.1:9", "key") as client:
        report = await doctor.examine(client, timeout=TIMEOUT)
    assert [finding.check for finding in report.findings] == ["api"]
    assert "cannot be reached" in report.findings[0].detail
    assert not report.healthy


async def test_a_stream_gives_what_comes_and_raises_what_ends_it(world: World) -> None:
    async with Client(world.url, world.keys["acme", Role.ADMIN]) as client:
        async with client.stream({"action": "a.*"}) as records:
            await client.append(b'{"action": "b.c", "actor": {"id": "x"}}')
            await client.append(b'{"action": "a.b", "actor": {"id": "x"}}')
            assert (await anext(records))["seq"] == 1
        with pytest.raises(DecklogError) as refused:
            async with client.stream({"nothing": "1"}):
                pass
        assert refused.value.code is Code.UNKNOWN_PARAMETER
        async with client.stream() as records:
            world.registry.revoke(world.keys["acme", Role.ADMIN])
            with pytest.raises(DecklogError) as ended:
                await anext(records)
        assert ended.value.code is Code.UNAUTHENTICATED
