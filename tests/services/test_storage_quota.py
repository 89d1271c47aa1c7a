"""A tenant over its storage quota, on real databases, refuses appends until there is room or a larger quota."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.tenancy.status import QUOTA_EXCEEDED, READY, TenantStatus
from decklog.domain.tenant import Isolation
from tests.support.control import Control, control, on_each_variant
from tests.support.records import prepared
from tests.support.vaults import MemoryVault

__all__ = ["control"]

TEN_MB = 0.01
"""GiB: the least quota there is, and more than the empty relations of a tenant take."""


async def fill(control: Control, log: LogName = LogName.EVENTS) -> None:
    """Twelve megabytes of incompressible records."""
    store, tenant = await control.database.records(), await control.tenant()
    for _ in range(6):
        records = [prepared(metadata={"filling": secrets.token_hex(100_000)}) for _ in range(10)]
        [result] = await store.append([AppendRequest(tenant, log, records, metered=log is LogName.EVENTS)])
        assert isinstance(result, Appended)


async def refused(control: Control) -> bool:
    """Whether a record is refused because of the storage quota."""
    result = await control.append()
    if isinstance(result, Appended):
        return False
    assert (result.code, "storageGiB" in result.detail) == (Code.QUOTA_EXCEEDED, True)
    return True


def told(status: TenantStatus) -> tuple[str, str, str]:
    quota, ready = status.condition(QUOTA_EXCEEDED), status.condition(READY)
    assert (ready.status, status.synced) == ("True", True), status
    assert status.drift is not None
    assert status.drift.fields == ()
    return quota.status, quota.reason, ready.reason


@on_each_variant
@pytest.mark.parametrize("isolation", Isolation)
async def test_tenant_over_quota_refuses_appends_until_quota_or_volume_changes(control: Control, isolation: Isolation) -> None:
    vault = MemoryVault()

    async def visit(gib: float, generation: int, before: TenantStatus | None = None) -> TenantStatus:
        spec: dict[str, Any] = {"isolation": isolation.value, "quotas": {"storageGiB": gib}, "driftPolicy": "Report"}
        previous = before.conditions if before else ()
        # Another process each time, as one measures no size twice in a few seconds.
        return await control.provisioner().reconcile(control.manifest(generation=generation, **spec), vault, previous)

    status = await visit(TEN_MB, 1)
    assert told(status) == ("False", "WithinQuota", "Ready")
    await fill(control)
    assert not await refused(control)
    status = await visit(TEN_MB, 1, status)
    assert told(status) == ("True", "StorageUsedUp", "QuotaExceeded")
    assert await refused(control)
    store, tenant = await control.database.records(), await control.tenant()
    for metered in (True, False):
        [access] = await store.append([AppendRequest(tenant, LogName.ACCESS, [prepared()], metered=metered)])
        assert isinstance(access, Appended)
    assert len(await store.fetch(tenant, LogName.EVENTS, [0, 60])) == 2
    assert (await visit(TEN_MB, 1, status)).conditions == status.conditions

    assert told(await visit(1, 2)) == ("False", "WithinQuota", "Ready")
    assert not await refused(control)
    assert told(await visit(TEN_MB, 3)) == ("True", "StorageUsedUp", "QuotaExceeded")
    assert await refused(control)
    await control.database.execute(f'TRUNCATE "{tenant.schema}".records')
    assert told(await visit(TEN_MB, 3)) == ("False", "WithinQuota", "Ready")
    assert not await refused(control)


@on_each_variant
@pytest.mark.parametrize("isolation", Isolation)
async def test_access_records_do_not_count_into_the_quota_and_events_beside_them_do(
    control: Control, isolation: Isolation
) -> None:
    vault = MemoryVault()
    manifest = control.manifest(isolation=isolation.value, quotas={"storageGiB": TEN_MB})
    await control.provisioner().reconcile(manifest, vault)
    await control.append()
    await fill(control, LogName.ACCESS)
    status = await control.provisioner().reconcile(manifest, vault)
    assert told(status) == ("False", "WithinQuota", "Ready")
    assert status.usage is not None
    assert status.usage.storage_bytes > TEN_MB * 2**30
    assert not await refused(control)
    await fill(control)
    await control.provisioner().reconcile(manifest, vault)
    assert await refused(control)


async def test_head_closed_without_a_quota_is_drift(control: Control) -> None:
    vault = MemoryVault()
    await control.provisioner().reconcile(control.manifest(), vault)
    await control.database.execute("UPDATE decklog.heads SET storage_used_up = true WHERE log = 0")
    assert isinstance(await control.append(), DecklogError)
    status = await control.provisioner().reconcile(control.manifest(), vault)
    assert status.drift is not None
    assert (status.drift.fields, status.drift.repaired) == (("heads storage_used_up",), 1)
    assert isinstance(await control.append(), Appended)
