"""Tenants over the API: permissions, creation, access records, and keys that are shown once."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import httpx
import msgspec
import pytest

from decklog import shapes
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName, Span
from decklog.domain.search.query import Query
from decklog.domain.tenancy.status import QUOTA_EXCEEDED, READY, SYNCED, Part
from decklog.domain.tenant import State
from decklog.services.tenancy.provisioning import Provisioner
from decklog.services.tenancy.tenants import CREATIONS_MAX
from tests.support.api_world import RECORD, World, code_of, running_world
from tests.support.memory_control import MemoryVisit

NAMES_OF_NOBODY = ["nobody", "Acme", "acme-", "a" * 41, "a" * 2_000, "a%00b", "%F0%9F%9A%A2", "a'--", "acme%0A", "ACME"]


async def access_records(world: World, name: str) -> list[dict[str, Any]]:
    """Return the records of the tenant's access log, oldest first."""
    tenant = world.tenant(name)
    found, _ = await world.store.read(
        tenant, LogName.ACCESS, Span(0, 10_000), query=Query(), limit=1_000, newest_first=False, timeout=5
    )
    return [msgspec.json.decode(record.content) for record in found]


async def test_list_tenants_is_recorded_in_the_platforms_access_log(world: World) -> None:
    async with world.client(Role.PLATFORM) as client:
        response = await client.get("/api/v1/tenants")
        items = msgspec.json.decode(response.content, type=shapes.Tenants).items
        assert [item.name for item in items] == ["acme", "decklog", "other"]
    [record] = await access_records(world, "decklog")
    assert (record["action"], record["metadata"]["count"]) == ("tenants.list", 3)


async def test_list_tenants_shows_the_conditions_of_the_last_reconciliation(world: World) -> None:
    async with world.client(Role.PLATFORM) as client:
        created = (await client.post("/api/v1/tenants", json=sent())).json()["tenant"]
        items = msgspec.json.decode((await client.get("/api/v1/tenants")).content, type=shapes.Tenants).items
    [listed] = [item for item in items if item.name == created["name"]]
    assert {condition.type for condition in listed.conditions} == {READY, SYNCED, QUOTA_EXCEEDED, *Part}
    assert msgspec.to_builtins(listed.conditions) == created["conditions"]


async def test_get_tenant_by_the_platform_is_recorded_in_its_own_log(world: World) -> None:
    async with world.client(Role.PLATFORM) as client:
        listed = (await client.get("/api/v1/tenants")).json()["items"]
        for item in listed:
            response = await client.get(f"/api/v1/tenants/{item['name']}")
            assert {**response.json(), "usage": None} == {**item, "usage": None}
            assert msgspec.json.decode(response.content, type=shapes.Tenant).spec is not None
    records = [record for record in await access_records(world, "decklog") if record["action"] == "tenants.read"]
    assert [record["resource"] for record in records] == [{"type": "tenant", "id": item["name"]} for item in listed]
    assert {record["outcome"] for record in records} == {"success"}
    assert await access_records(world, "acme") == []


async def test_get_tenant_shows_its_usage(world: World) -> None:
    async with world.client(Role.WRITER) as writer, world.client(Role.AUDITOR) as auditor:
        for _ in range(3):
            await writer.post("/api/v1/logs", json=RECORD)
        usage = (await auditor.get("/api/v1/tenants/acme")).json()["usage"]
        assert usage["records"] == {"events": 3, "access": 0}
        assert (await auditor.get("/api/v1/tenants/acme")).json()["usage"]["records"]["access"] == 1


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.ADMIN])
async def test_get_tenant_by_its_auditor_is_recorded_in_the_tenants_log(world: World, role: Role) -> None:
    async with world.client(role) as client:
        assert (await client.get("/api/v1/tenants/acme")).json()["name"] == "acme"
    [record] = await access_records(world, "acme")
    assert (record["action"], record["resource"], record["metadata"]["role"]) == (
        "tenants.read",
        {"type": "tenant", "id": "acme"},
        role.value,
    )
    assert await access_records(world, "decklog") == []


async def test_get_tenant_returns_the_same_404_for_another_tenant_and_an_unknown_one(world: World) -> None:
    async with world.client(Role.ADMIN) as client:
        answers = [await client.get(f"/api/v1/tenants/{name}") for name in ("other", "decklog", *NAMES_OF_NOBODY)]
    assert {(answer.status_code, code_of(answer)) for answer in answers} == {(404, "not-found")}
    assert len({answer.json()["detail"] for answer in answers}) == 1
    records = await access_records(world, "acme")
    assert len(records) == len(answers)
    assert {(record["outcome"], record["metadata"]["count"]) for record in records} == {("failure", 0)}


async def test_get_tenant_returns_404_for_an_impossible_name_without_a_query(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(name: str) -> None:
        assert name == "nobody"

    monkeypatch.setattr(world.tenants._directory, "tenant", never)
    async with world.client(Role.PLATFORM) as client:
        for name in NAMES_OF_NOBODY:
            response = await client.get(f"/api/v1/tenants/{name}")
            assert (response.status_code, code_of(response)) == (404, "not-found"), name


async def test_get_tenant_shows_a_suspended_tenant_to_the_platform_only(world: World) -> None:
    changed = world.cache.changed()
    world.registry.add_tenant(msgspec.structs.replace(world.tenant("acme"), state=State.SUSPENDED))
    world.control.rows["acme"] = msgspec.structs.replace(world.control.rows["acme"], state=State.SUSPENDED)
    await changed.wait()
    async with world.client(Role.ADMIN) as client:
        assert code_of(await client.get("/api/v1/tenants/acme")) == "tenant-suspended"
    async with world.client(Role.PLATFORM) as client:
        assert (await client.get("/api/v1/tenants/acme")).json()["state"] == "suspended"


@pytest.mark.parametrize("role", [Role.PLATFORM, Role.ADMIN])
async def test_tenant_requests_return_nothing_when_they_cannot_be_recorded(world: World, role: Role) -> None:
    world.store.failing_append = DecklogError(Code.STORAGE_UNAVAILABLE, "Away on purpose.")
    async with world.client(role) as client:
        for path in ("acme", "nobody"):
            response = await client.get(f"/api/v1/tenants/{path}")
            assert (response.status_code, code_of(response)) == (503, "access-log-unavailable")
            assert "conditions" not in response.text


async def test_tenant_requests_refuse_every_parameter(world: World) -> None:
    async with world.client(Role.PLATFORM) as client:
        for path in ("", "/acme"):
            response = await client.get(f"/api/v1/tenants{path}", params={"tenant": "other"})
            assert (response.status_code, code_of(response)) == (422, "unknown-parameter")


# Making one

ROLES = {"writer", "auditor", "admin"}


def sent(name: str = "initech", *, rotate: str | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, **({} if rotate is None else {"annotations": {"decklog.dev/rotate": rotate}})}
    return {
        "apiVersion": "decklog.dev/v1",
        "kind": "Tenant",
        "metadata": metadata,
        "spec": {"retention": {"days": 30}, **spec},
    }


async def post(world: World, body: Any, **options: Any) -> httpx.Response:
    async with world.client(Role.PLATFORM) as client:
        return await client.post("/api/v1/tenants", **({"json": body} if options == {} else {"content": body, **options}))


async def statuses(world: World, keys: dict[str, str], name: str = "initech") -> dict[str, int]:
    """Return the status that each key gets for a request that its role allows."""
    found = {}
    async with world.client() as client:
        for role, key in keys.items():
            headers = {"Authorization": f"Bearer {key}"}
            if role == "writer":
                answer = await client.post("/api/v1/logs", json=RECORD, headers=headers)
            else:
                answer = await client.get(f"/api/v1/tenants/{name}", headers=headers)
            found[role] = answer.status_code
    return found


async def test_create_tenant_returns_keys_that_work_at_once(world: World) -> None:
    made = await post(world, sent(displayName="Initech"))
    assert (made.status_code, made.headers["location"]) == (201, "/api/v1/tenants/initech")
    answer = msgspec.json.decode(made.content, type=shapes.CreatedTenant)
    assert answer.tenant.spec is not None
    assert answer.tenant.spec.display_name == "Initech"
    assert {each.type: each.status for each in answer.tenant.conditions}["Ready"] == "True"
    assert set(answer.keys or {}) == ROLES
    assert await statuses(world, made.json()["keys"]) == {"writer": 201, "auditor": 200, "admin": 200}
    async with world.client(Role.PLATFORM) as client:
        usage = (got := (await client.get("/api/v1/tenants/initech")).json()).pop("usage")
    assert got == made.json()["tenant"]
    assert usage["records"] == {"events": 1, "access": 2}


async def test_create_tenant_returns_no_keys_when_repeated(world: World) -> None:
    first = (await post(world, sent())).json()
    again = await post(world, sent(quotas={"burst": 10_000}))  # the default, in so many words
    assert (again.status_code, again.json()) == (200, {"tenant": first["tenant"], "keys": None})
    assert await statuses(world, first["keys"]) == {"writer": 201, "auditor": 200, "admin": 200}


async def test_create_tenant_returns_conflict_for_another_spec(world: World) -> None:
    before = (await post(world, sent())).json()["tenant"]
    other = await post(world, sent(retention={"days": 31}, quotas={"burst": 20_000}))
    assert (other.status_code, code_of(other)) == (409, "conflict")
    assert "spec.retention.days, spec.quotas.burst" in other.json()["detail"]
    assert (await post(world, sent())).json()["tenant"] == before


async def test_create_tenant_returns_keys_once_to_concurrent_requests(world: World) -> None:
    answers = await asyncio.gather(*(post(world, sent()) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    [keys] = [answer.json()["keys"] for answer in answers if answer.json()["keys"]]
    assert await statuses(world, keys) == {"writer": 201, "auditor": 200, "admin": 200}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ([], "object"),
        ({}, "apiVersion"),
        ({**sent(), "apiVersion": "v1"}, "apiVersion"),
        ({**sent(), "kind": "Pod"}, "kind"),
        ({**sent(), "status": {}}, "status"),
        ({**sent(), "metadata": {}}, "name"),
        ({**sent(), "metadata": {"name": "initech", "labels": {}}}, "labels"),
        ({**sent(), "metadata": {"name": "initech", "annotations": {"a": "b"}}}, "annotations"),
        (sent(rotate="x" * 65), "decklog.dev/rotate"),
        (sent("Initech"), "name"),
        (sent("initech\n"), "metadata.name"),
        (sent("decklog"), "reserved"),
        (sent(retention={}), "retention"),
        (sent(retention={"days": 0}), "retention.days"),
        (sent(retention={"days": 2556}, isolation="Shared"), "retention.days"),
        (sent(quotas={"burst": 1}), "quotas.burst"),
        (sent(tier="gold"), "tier"),
        (sent(displayName="\0"), "displayName"),
        (sent(credentials={"rotation": {"intervalDays": 30}}), "intervalDays"),
    ],
)
async def test_create_tenant_names_the_invalid_field(world: World, body: Any, word: str) -> None:
    answer = await post(world, body)
    assert (answer.status_code, code_of(answer)) == (422, "invalid-tenant")
    assert word in answer.json()["detail"]
    assert set(world.control.rows) == {"acme", "decklog", "other"}


async def test_create_tenant_refuses_other_media_types_and_oversized_bodies(world: World) -> None:
    text = json.dumps(sent())
    for body, headers, status, code in (
        ("{", {}, 422, "invalid-json"),
        (b"\xff", {}, 422, "invalid-json"),
        (text, {"content-type": "application/yaml"}, 415, "unsupported-media-type"),
        (text, {"content-encoding": "gzip"}, 415, "unsupported-encoding"),
        (text + " " * 70_000, {}, 413, "body-too-large"),
    ):
        answer = await post(world, body, headers={"content-type": "application/json", **headers})
        assert (answer.status_code, code_of(answer)) == (status, code)


async def test_create_tenant_returns_the_manifest_when_kubernetes_manages_tenants() -> None:
    async with running_world(owned=False) as world:
        body = sent(rotate="now", quotas={"burst": 20_000})
        answer = await post(world, body)
        assert (answer.status_code, code_of(answer)) == (409, "managed-by-kubernetes")
        assert answer.json()["manifest"] == body
        assert "kubectl apply" in answer.json()["detail"]
        assert "initech" not in world.control.rows
        assert code_of(await post(world, sent(retention={"days": 0}))) == "invalid-tenant"
        assert await access_records(world, "decklog") == []


async def test_create_tenant_rotates_keys_on_request_with_an_overlap(world: World) -> None:
    first = (await post(world, sent())).json()["keys"]
    rotated = await post(world, sent(rotate="answer lost"))
    assert rotated.status_code == 200
    second = rotated.json()["keys"]
    assert set(second) == ROLES
    assert not set(first.values()) & set(second.values())
    for keys in (first, second):
        assert await statuses(world, keys) == {"writer": 201, "auditor": 200, "admin": 200}
    assert (await post(world, sent(rotate="answer lost"))).json()["keys"] is None
    ends = {stored.key.expires_at is None for stored in world.control.keys if stored.tenant == "initech"}
    assert ends == {True, False}


async def test_create_tenant_stores_the_returned_keys_in_the_vault() -> None:
    async with running_world(kept=True) as world:
        scheduled = sent(credentials={"rotation": {"intervalDays": 30}})
        made = await post(world, scheduled)
        assert made.status_code == 201
        assert made.json()["keys"] == {role.value: key for role, key in world.vault.keys["initech"].items()}
        del world.vault.keys["initech"][Role.WRITER]
        lost = await post(world, scheduled)
        assert (lost.status_code, set(lost.json()["keys"])) == (200, {"writer"})
        assert await statuses(world, lost.json()["keys"]) == {"writer": 201}


async def test_create_tenant_issues_new_keys_for_a_retained_tenant(world: World) -> None:
    await post(world, sent())
    world.control.rows["initech"] = msgspec.structs.replace(world.control.rows["initech"], state=State.DELETED)
    for stored in world.control.keys:
        stored.revoked = stored.revoked or stored.tenant == "initech"
    before = world.control.rows["initech"]
    other = await post(world, sent(isolation="Shared"))
    assert (other.status_code, code_of(other)) == (409, "conflict")
    assert "isolation" in other.json()["detail"]
    again = await post(world, sent(displayName="Initech again"))
    assert (again.status_code, set(again.json()["keys"])) == (201, ROLES)
    after = world.control.rows["initech"]
    assert (after.id, after.former_uids) == (before.id, (before.uid,))


async def test_create_tenant_is_recorded_before_and_after(world: World) -> None:
    made = await post(world, sent())
    await post(world, sent(retention={"days": 31}))
    records = await access_records(world, "decklog")
    assert [(record["action"], record["outcome"]) for record in records] == [
        ("tenants.create.open", "success"),
        ("tenants.create.close", "success"),
        ("tenants.create.open", "success"),
        ("tenants.create.close", "failure"),
    ]
    assert {record["resource"]["id"] for record in records} == {"initech"}
    assert records[0]["metadata"]["spec"] == {"retention": {"days": 30}}
    assert records[1]["metadata"]["roles"] == sorted(ROLES)
    ids = {role: key.split("_")[1] for role, key in made.json()["keys"].items()}
    assert records[1]["metadata"]["keyIds"] == ids
    provisioned: list[Any] = [entry.metadata for entry in world.control.recorded if entry.action == "tenant.provision"]
    asked = f"api_key {world.keys[None, Role.PLATFORM].split('_')[1]}"
    assert {tuple(each["requestedBy"]) for each in provisioned} == {(asked,)}
    assert [each["issuedKeyIds"] for each in provisioned if "issuedKeyIds" in each] == [ids]
    assert records[3]["metadata"]["code"] == "conflict"
    told = json.dumps([records, await access_records(world, "initech")])
    assert not [key for key in made.json()["keys"].values() if key in told or key.split("_")[2] in told]


async def test_create_tenant_does_nothing_when_it_cannot_be_recorded(world: World) -> None:
    world.store.failing_append = DecklogError(Code.STORAGE_UNAVAILABLE, "Away on purpose.")
    answer = await post(world, sent())
    assert (answer.status_code, code_of(answer)) == (503, "access-log-unavailable")
    assert "initech" not in world.control.rows


@pytest.mark.parametrize("step", ["apply", "issue"])
async def test_create_tenant_resumes_after_a_database_failure(world: World, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*arguments: Any) -> None:
        raise DecklogError(Code.STORAGE_UNAVAILABLE, "The database cannot be reached.")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryVisit, step, broken)
        answer = await post(world, sent())
        assert (answer.status_code, code_of(answer)) == (503, "storage-unavailable")
        assert "dlk_" not in answer.text
        assert int(answer.headers["retry-after"]) > 0
    made = await post(world, sent())
    assert set(made.json()["keys"]) == ROLES
    assert await statuses(world, made.json()["keys"]) == {"writer": 201, "auditor": 200, "admin": 200}


async def test_create_tenant_returns_overloaded_above_the_concurrency_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()
    reconcile = Provisioner.reconcile

    async def slow(self: Provisioner, *arguments: Any) -> Any:
        await go_on.wait()
        return await reconcile(self, *arguments)

    monkeypatch.setattr(Provisioner, "reconcile", slow)
    asking = [asyncio.create_task(post(world, sent(f"t{number}"))) for number in range(CREATIONS_MAX + 4)]
    refused = [await task for task in itertools.islice(asyncio.as_completed(asking), 4)]
    assert {(answer.status_code, code_of(answer)) for answer in refused} == {(503, "overloaded")}
    go_on.set()
    assert sorted(answer.status_code for answer in await asyncio.gather(*asking)) == [201] * CREATIONS_MAX + [503] * 4
    assert (await post(world, sent())).status_code == 201
