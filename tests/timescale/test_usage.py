"""The usage of a tenant, as the service's role reads it."""

from __future__ import annotations

import pytest

from decklog.domain.tenancy.status import StoredUsage
from decklog.domain.tenant import Isolation
from decklog.timescale.control.usage import PostgresUsages
from tests.support.control import Control, control
from tests.support.vaults import MemoryVault

__all__ = ["control"]


@pytest.mark.parametrize("isolation", Isolation)
async def test_usage_counts_both_logs_and_rejections(control: Control, isolation: Isolation) -> None:
    await control.provisioner().reconcile(control.manifest(isolation=isolation.value), MemoryVault())
    usages = PostgresUsages(await control.database.pool())
    assert await usages.usage("nobody") is None
    for _ in range(3):
        await control.append()
    found = await usages.usage("acme")
    assert isinstance(found, StoredUsage)
    assert found.events == 3
    assert found.access >= 1  # provisioning is recorded
    assert (found.bytes is None) == (isolation is Isolation.SHARED)
    assert found.bytes is None or found.bytes > 8_192
    assert found.rejected.records == 0
    tenant = await control.tenant()
    await control.database.execute(
        "INSERT INTO decklog.rejections (tenant_id, rejected, last_at, last_code) VALUES ($1, 7, now(), 'invalid-record')",
        tenant.id,
    )
    after = await usages.usage("acme")
    assert after is not None
    assert (after.rejected.records, after.rejected.code) == (7, "invalid-record")
