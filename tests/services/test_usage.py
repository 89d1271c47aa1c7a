"""Usage of a tenant, as a visit sees it on real backends."""

from __future__ import annotations

import pytest

from decklog.domain.consumers import indexer_of
from decklog.domain.log import LogName
from decklog.domain.tenant import Isolation
from tests.backends import OpenSearchServer, SqsServer
from tests.support.control import Control, control, on_each_variant
from tests.support.vaults import MemoryVault

__all__ = ["control"]


@on_each_variant
@pytest.mark.parametrize("isolation", Isolation)
async def test_usage_has_records_and_bytes_and_no_depth_or_lag_without_backends(control: Control, isolation: Isolation) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    manifest = control.manifest(isolation=isolation.value)
    first = (await provisioner.reconcile(manifest, vault)).usage
    assert first is not None
    assert (first.queue_depth, first.search_lag) == (None, None)
    for _ in range(3):
        await control.append()
    # The size is not measured again so soon, by another process it is.
    later = (await control.provisioner().reconcile(manifest, vault)).usage
    assert later is not None
    assert later.records == first.records + 3
    assert later.storage_bytes > 0
    assert later.at > first.at


async def test_usage_of_shared_tenant_is_its_share_by_records(control: Control) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    manifests = [control.manifest(name, uid=name, isolation="Shared") for name in ("acme", "beta")]
    for manifest in manifests:
        await provisioner.reconcile(manifest, vault)
    await control.database.execute("UPDATE decklog.heads SET next_seq = 0")
    for name, seq in (("acme", 3_000), ("beta", 1_000)):
        tenant = await control.tenant(name)
        await control.database.execute("UPDATE decklog.heads SET next_seq = $2 WHERE tenant_id = $1 AND log = 0", tenant.id, seq)
    fresh = control.provisioner()
    acme, beta = [(await fresh.reconcile(manifest, vault)).usage for manifest in manifests]
    assert acme is not None
    assert beta is not None
    assert (acme.records, beta.records) == (3_000, 1_000)
    assert acme.storage_bytes == pytest.approx(3 * beta.storage_bytes, abs=4)
    assert beta.storage_bytes > 0


async def test_usage_counts_waiting_messages_and_unindexed_records(
    control: Control, opensearch_server: OpenSearchServer, sqs_server: SqsServer
) -> None:
    queue = control.queue(sqs_server)
    provisioner, vault = control.provisioner(control.search(opensearch_server), queue), MemoryVault()
    manifest = control.manifest()
    status = await provisioner.reconcile(manifest, vault)
    assert status.usage is not None
    assert status.usage.queue_depth == 0
    assert status.usage.search_lag == status.usage.records
    url = queue.get_queue_url(QueueName=status.queue)["QueueUrl"]
    for _ in range(2):
        queue.send_message(QueueUrl=url, MessageBody="x")
        await control.append()
    cursors, tenant = await control.database.cursors(), await control.tenant()
    leased = await cursors.lease(indexer_of(tenant), tenant.id, LogName.EVENTS, owner="w", seconds=60)
    assert leased is not None
    await cursors.move(leased, 1, seconds=60)
    usage = (await provisioner.reconcile(manifest, vault)).usage
    assert usage is not None
    assert (usage.queue_depth, usage.search_lag) == (2, usage.records - 1)
