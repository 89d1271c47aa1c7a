"""The doctor examines a running API over in-memory stores; each fault is made in the stores or services, not in the answers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from decklog.client import doctor
from decklog.client.client import Client
from decklog.client.doctor import Finding, Outcome, Report
from decklog.domain.consumers import INDEXER
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, Role
from decklog.domain.records.record import RecordInput
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.status import QUOTA_EXCEEDED, Condition
from decklog.probes import serving
from decklog.services.records.access_log import READ
from decklog.services.tenancy.provisioning import Provisioner
from decklog.services.tenancy.vaults import Handover
from tests.support.api_world import World, running_world
from tests.support.memory_index import MemoryIndex
from tests.support.memory_store import MemoryCursors

TIMEOUT = 20.0
TENANT = "probes"
MANIFEST = {
    "apiVersion": "decklog.dev/v1",
    "kind": "Tenant",
    "metadata": {"name": TENANT},
    "spec": {"retention": {"days": 30}, "driftPolicy": "Report"},
}


@asynccontextmanager
async def installation(**options: Any) -> AsyncIterator[World]:
    """A running API with a tenant that was created by it."""
    async with running_world(**options) as world:
        async with world.client(Role.PLATFORM) as client:
            created = (await client.post("/api/v1/tenants", json=MANIFEST)).json()
        world.keys |= {(TENANT, Role(role)): key for role, key in created["keys"].items()}
        yield world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with installation() as made:
        yield made


async def examined(world: World, *, key: str | None = None, timeout: float = TIMEOUT) -> Report:
    async with Client(world.url, key or world.keys[TENANT, Role.ADMIN]) as client:
        return await doctor.examine(client, timeout=timeout)


def failures(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.outcome is Outcome.FAILED]


async def reconcile(world: World) -> None:
    """Reconcile the tenant once more, as the operator does in intervals."""
    row = world.control.rows[TENANT]
    assert row.spec is not None
    provisioner = Provisioner(world.control, None, None, directory=world.control)
    await provisioner.reconcile(Manifest(TENANT, row.uid, 1, row.spec, ""), Handover(None), row.conditions)


def change(world: World, kind: str, status: Any, reason: str, message: str) -> None:
    """Change one condition of the tenant in the registry."""
    row = world.control.rows[TENANT]
    conditions = [
        Condition(kind, status, reason, message, 1, each.last_transition_time) if each.type == kind else each
        for each in row.conditions
    ]
    world.control.rows[TENANT] = msgspec.structs.replace(row, conditions=tuple(conditions))


async def test_doctor_passes_every_check_of_a_healthy_installation(world: World) -> None:
    report = await examined(world)
    assert report.healthy, doctor.as_text(report)
    assert [finding.check for finding in report.findings] == [
        "api", "database", "search", "credential", "tenant", "write and stream", "read", "search", "index", "access log",
    ]  # fmt: skip
    assert doctor.as_text(report).endswith(f"{world.url} is healthy.\n")
    conditions = len(world.control.rows[TENANT].conditions)
    assert f"All {conditions} conditions are good." in doctor.as_text(report)
    async with Client(world.url, world.keys[TENANT, Role.ADMIN]) as client:
        [probe] = (await client.list()).items
        assert (probe.action, probe.actor.id) == (doctor.ACTION, doctor.ACTOR)
    assert (await examined(world)).healthy, "a second examination passes too"


@pytest.mark.parametrize(
    ("backend", "error", "detail", "advice"),
    [
        ("database", DecklogError(Code.STORAGE_UNAVAILABLE, "no"), "cannot use it: storage-unavailable", "PostgreSQL"),
        ("search", DecklogError(Code.SEARCH_UNAVAILABLE, "no"), "cannot use it: search-unavailable", "OpenSearch"),
        ("search", RuntimeError("no"), "cannot use it: internal", "OpenSearch"),
    ],
)
async def test_doctor_names_an_unavailable_backend_and_runs_the_other_checks(
    world: World, backend: str, error: Exception, detail: str, advice: str
) -> None:
    world.backends[backend].error = error
    report = await examined(world)
    [failed] = failures(report)
    assert failed.check == backend
    assert detail in failed.detail
    assert advice in failed.advice
    assert f"FAILED   {backend}: " in doctor.as_text(report)
    assert doctor.as_text(report).endswith("is not healthy: 1 checks failed.\n")
    alone = await doctor.examine_backends(world.url, timeout=TIMEOUT)
    assert [finding.check for finding in failures(alone)] == [backend]


async def test_doctor_fails_when_readiness_reports_no_database(world: World) -> None:
    del world.backends["database"]
    [failed] = failures(await doctor.examine_backends(world.url, timeout=TIMEOUT))
    assert (failed.check, "reports no database" in failed.detail) == ("api", True)


async def test_doctor_accepts_a_process_without_an_api() -> None:
    checks = {"tenants": "ok"}
    async with serving("127.0.0.1", 0, checks=lambda: checks) as probes:
        url = f"http://127.0.0.1:{probes.port}"
        assert (await doctor.examine_backends(url, timeout=TIMEOUT)).healthy
        checks["tenants"] = "1 not ready"
        [failed] = failures(await doctor.examine_backends(url, timeout=TIMEOUT))
        assert failed.check == "tenants"


async def test_doctor_fails_without_a_key_when_readiness_is_not_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hidden(url: str, *, timeout: float) -> None:
        del url, timeout

    monkeypatch.setattr(doctor, "readiness", hidden)
    report = await doctor.examine_backends("http://decklog.example.com", timeout=TIMEOUT)
    assert (report.healthy, [finding.outcome for finding in report.findings]) == (False, [Outcome.FAILED])
    assert "/readyz is not exposed" in report.findings[0].detail


async def test_doctor_says_where_to_get_a_key_when_the_given_one_does_not_suffice(world: World) -> None:
    [unknown] = failures(await examined(world, key="dlk_nothing"))
    assert (unknown.check, "Secret <tenant>-decklog" in unknown.advice) == ("credential", True)
    assert "dlk_nothing" not in repr(unknown)
    [reader] = failures(await examined(world, key=world.keys[TENANT, Role.AUDITOR]))
    assert "the role auditor may not both append and read" in reader.detail
    [platform] = failures(await examined(world, key=world.keys[None, Role.PLATFORM]))
    assert platform.advice == "Use the key of the role admin, which may append and read."


async def test_doctor_fails_for_a_drifted_tenant(world: World) -> None:
    heads = world.control.heads[TENANT]
    world.control.heads[TENANT] = msgspec.structs.replace(heads, burst=heads.burst + 1)
    await reconcile(world)
    report = await examined(world)
    [failed] = failures(report)
    assert failed.check == "tenant"
    assert "Synced is False (Drifted)" in failed.detail
    assert "kubectl describe tenant" in failed.advice
    world.control.heads[TENANT] = heads
    await reconcile(world)
    assert (await examined(world)).healthy, "the drift is gone"


@pytest.mark.parametrize("kept", [0, 1])
async def test_doctor_fails_for_a_tenant_without_its_conditions(world: World, kept: int) -> None:
    row = world.control.rows[TENANT]
    world.control.rows[TENANT] = msgspec.structs.replace(row, conditions=row.conditions[:kept])
    [failed] = failures(await examined(world))
    assert (failed.check, "lacks the conditions" in failed.detail, "Synced" in failed.detail) == ("tenant", True, True)


async def test_doctor_repeats_the_words_of_a_failed_condition(world: World) -> None:
    change(world, "Ready", "False", "NotReady", "Not ready: QueueReady.")
    [summary] = failures(await examined(world))
    assert summary.detail == "Ready is False (NotReady): Not ready: QueueReady."
    change(world, "QueueReady", "False", "Unreachable", "SQS is away.")
    [failed] = failures(await examined(world))
    assert (failed.check, failed.detail) == ("tenant", "QueueReady is False (Unreachable): SQS is away.")


async def test_doctor_fails_for_a_tenant_over_its_quota(world: World) -> None:
    change(world, QUOTA_EXCEEDED, "True", "StorageUsedUp", "No room.")
    [failed] = failures(await examined(world))
    assert failed.detail == "QuotaExceeded is True (StorageUsedUp): No room."


async def test_doctor_fails_when_the_index_does_not_advance() -> None:
    async with installation(index=MemoryIndex(), cursors=MemoryCursors) as world:
        report = await examined(world, timeout=3)
    [failed] = failures(report)
    assert failed.check == "index"
    assert "1 records are not in the index" in failed.detail
    assert "Check that the workers run" in failed.advice


async def test_doctor_fails_when_the_index_has_lost_the_record() -> None:
    class Ahead(MemoryCursors):
        """Cursors that are past every record, although the index is empty."""

        async def next_seqs(self, consumers: Any, tenant_id: int, log: Any) -> list[int]:
            del tenant_id, log
            return [1_000 if consumer == INDEXER else 0 for consumer in consumers]

    async with installation(index=MemoryIndex(), cursors=Ahead) as world:
        report = await examined(world)
    assert [finding.check for finding in failures(report)] == ["search", "access log"]


async def test_doctor_fails_when_its_own_read_is_not_recorded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await examined(world)).healthy, "older access records exist"
    write = world.access_log.write

    async def forgets_reads(principal: Principal, request: Any, action: str, **details: Any) -> None:
        if action != READ:
            await write(principal, request, action, **details)

    monkeypatch.setattr(world.access_log, "write", forgets_reads)
    [failed] = failures(await examined(world))
    assert failed.check == "access log"
    assert re.search(r"no record of request [0-9a-f-]+, which read record 1", failed.detail)


async def test_doctor_fails_when_the_access_record_names_another_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    append_access = world.ingest.append_access

    async def misrecords(tenant: Any, record: RecordInput, **options: Any) -> Any:
        if record.action == READ:
            record = msgspec.structs.replace(record, metadata={"seq": "999"})
        return await append_access(tenant, record, **options)

    monkeypatch.setattr(world.ingest, "append_access", misrecords)
    assert [finding.check for finding in failures(await examined(world))] == ["access log"]


async def test_doctor_stops_after_the_first_check_when_nothing_listens() -> None:
    async with Client("http://127.0.0.1:9", "key") as client:
        report = await doctor.examine(client, timeout=TIMEOUT)
    assert [finding.check for finding in report.findings] == ["api"]
    assert "cannot be reached" in report.findings[0].detail
    assert not report.healthy


async def test_client_stream_yields_matching_records_and_raises_what_ends_it(world: World) -> None:
    async with Client(world.url, world.keys["acme", Role.ADMIN]) as client:
        async with client.stream({"action": "a.*"}) as records:
            await client.append(b'{"action": "b.c", "actor": {"id": "x"}}')
            await client.append(b'{"action": "a.b", "actor": {"id": "x"}}')
            assert (await anext(records)).seq == 1
        with pytest.raises(DecklogError) as refused:
            async with client.stream({"nothing": "1"}):
                pass
        assert refused.value.code is Code.UNKNOWN_PARAMETER
        async with client.stream() as records:
            world.registry.revoke(world.keys["acme", Role.ADMIN])
            with pytest.raises(DecklogError) as ended:
                await anext(records)
        assert ended.value.code is Code.UNAUTHENTICATED


async def test_client_stream_starts_with_the_first_record_after_minus_one(world: World) -> None:
    async with Client(world.url, world.keys["acme", Role.ADMIN]) as client:
        for number in range(3):
            await client.append(b'{"action": "a.b", "actor": {"id": "%d"}}' % number)
        for after, first in ((-1, 0), (0, 1)):
            async with client.stream({"after": after}) as records:
                assert (await anext(records)).seq == first
