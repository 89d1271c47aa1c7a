"""Calls, repairs and drift are counted, and no label names a tenant."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace
from prometheus_client import REGISTRY

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenancy.status import Part
from decklog.services.tenancy.provisioning import Provisioner
from tests.support.memory_control import MemoryControl
from tests.support.vaults import MemoryVault

ACME = Manifest("acme", "uid-1", 1, parse_spec({"retention": {"days": 30}}))


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"decklog_provisioning_{name}", labels) or 0.0


def calls(backend: str, operation: str) -> float:
    return value("call_seconds_count", backend=backend, operation=operation)


async def test_backend_calls_are_counted_by_operation_and_failures_by_reason() -> None:
    control, vault = MemoryControl(), MemoryVault()
    provisioner = Provisioner(control, None, None, directory=control)
    failures = {"backend": "credentials", "operation": "observe", "reason": "Unreachable"}
    entered, looked, applied, failed = (
        calls("database", "enter"),
        calls("credentials", "observe"),
        calls("database", "apply"),
        value("call_errors_total", **failures),
    )
    await provisioner.reconcile(ACME, vault)
    assert calls("database", "enter") > entered
    assert calls("credentials", "observe") > looked
    assert calls("database", "apply") > applied
    assert value("call_errors_total", **failures) == failed
    vault.broken = DecklogError(Code.STORAGE_UNAVAILABLE, "The vault does not answer.")
    told = await provisioner.reconcile(ACME, vault)
    assert value("call_errors_total", **failures) == failed + 1
    assert told.condition(Part.CREDENTIALS).reason == failures["reason"]


async def test_repairs_are_counted_and_first_provisioning_is_not() -> None:
    control, vault = MemoryControl(), MemoryVault()
    provisioner = Provisioner(control, None, None, directory=control)
    before = value("drift_repairs_total", part="credentials")
    for _ in range(2):
        await provisioner.reconcile(ACME, vault)
    assert value("drift_repairs_total", part="credentials") == before
    vault.keys.clear()
    for _ in range(2):
        await provisioner.reconcile(ACME, vault)
    assert value("drift_repairs_total", part="credentials") == before + 1


async def test_reported_drift_is_counted_once() -> None:
    control, vault = MemoryControl(), MemoryVault()
    reported = Manifest("acme", "uid-1", 1, parse_spec({"retention": {"days": 30}, "driftPolicy": "Report"}))
    provisioner = Provisioner(control, None, None, directory=control)
    await provisioner.reconcile(reported, vault)
    found, repaired = (value("drift_found_total", part="database", thing="heads"), value("drift_repairs_total", part="database"))
    control.heads["acme"] = replace(control.heads["acme"], burst=1)
    for _ in range(3):
        await provisioner.reconcile(reported, vault)
    assert value("drift_found_total", part="database", thing="heads") == found + 1
    assert value("drift_repairs_total", part="database") == repaired
    assert control.heads["acme"].burst == 1


async def test_waiting_visits_are_counted() -> None:
    control, vault = MemoryControl(), MemoryVault()
    provisioner = Provisioner(control, None, None, directory=control)
    await provisioner.reconcile(ACME, vault)
    async with control.visit("acme"):
        second = asyncio.create_task(provisioner.reconcile(ACME, vault))
        await asyncio.sleep(0)
        while value("visits_waiting") != 1:
            await asyncio.sleep(0.01)
    await second
    assert value("visits_waiting") == 0


async def test_metrics_have_no_tenant_label() -> None:
    control = MemoryControl()
    await Provisioner(control, None, None, directory=control).reconcile(ACME, MemoryVault())
    labels = {
        label
        for family in REGISTRY.collect()
        for sample in family.samples
        for label in sample.labels.values()
        if "decklog" in family.name
    }
    assert {"database", "observe"} <= labels
    assert ACME.name not in labels
    assert ACME.uid not in labels
