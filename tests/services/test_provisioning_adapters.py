"""Creation and repair of an index and a queue by their adapters."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from typing import Any

import boto3
import pytest
import structlog
from botocore.stub import Stubber
from msgspec.structs import replace

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.parts.part import Mark
from decklog.domain.tenancy.parts.queue import CreateQueue, QueueSeen, SetQueueAttributes
from decklog.domain.tenancy.parts.search import CreateIndex, IndexSeen, UpdateIndex
from decklog.domain.tenancy.spec import Queue
from decklog.domain.tenancy.status import NAME_BLOCKED
from decklog.opensearch import mapping
from decklog.opensearch.provision import OpenSearchProvisioning
from decklog.sqs.provision import SqsProvisioning
from tests.backends import OpenSearchServer, SqsServer
from tests.support.control import Control, control
from tests.support.generations import generation

__all__ = ["control"]

OURS = Mark("acme", "uid-1")
OTHER = Mark("acme", "uid-2")


START = date(2026, 1, 1)


def marked(mark: Mark, version: int = mapping.VERSION) -> dict[str, Any]:
    return {"decklog": {"tenant": mark.tenant, "uid": mark.uid, "version": version}}


def created(index: str, mark: Mark = OURS) -> CreateIndex:
    return CreateIndex(index, generation(index).name, (START, date(2026, 2, 1)), mark)


async def test_new_ranges_have_no_drift(control: Control, opensearch_server: OpenSearchServer) -> None:
    search = OpenSearchProvisioning(control.search(opensearch_server), replicas=0)
    name = f"{control.prefix}-t-acme"
    assert await search.observe(name) == IndexSeen(mapping.VERSION)
    await search.apply(created(name))
    await search.apply(created(f"{control.prefix}-t-acme-2"))
    seen = await search.observe(name)
    assert [(each.name, each.owner, each.drift) for each in seen.ranges] == [
        (range_name, "uid-1", ()) for range_name in generation(name, *created(name).starts).range_indices
    ]
    assert len({each.uuid for each in seen.ranges}) == 2
    await search.apply(created(name))
    assert await search.observe(name) == seen


async def test_range_gets_missing_fields_and_keeps_documents(control: Control, opensearch_server: OpenSearchServer) -> None:
    client = control.search(opensearch_server)
    search = OpenSearchProvisioning(client, replicas=0)
    index = f"{control.prefix}-t-acme"
    name = generation(index).range_index(START)
    lacking = mapping.mapping(marked(OTHER))
    del lacking["properties"]["ip"]
    await client.indices.create(index=name, body={"mappings": lacking, "settings": mapping.settings(0)})
    await client.index(index=name, body={"seq": 1}, params={"refresh": "true"})
    [before] = (await search.observe(index)).ranges
    assert set(before.drift) == {"field ip", "alias"}
    await search.apply(UpdateIndex(index, (name,), OURS, before.drift))
    [after] = (await search.observe(index)).ranges
    assert (after.owner, after.drift, after.uuid) == ("uid-1", (), before.uuid)
    assert (await client.count(index=name))["count"] == 1


async def test_indices_of_older_versions_get_another_owner_and_keep_their_fields(
    control: Control, opensearch_server: OpenSearchServer
) -> None:
    client = control.search(opensearch_server)
    search = OpenSearchProvisioning(client, replicas=0)
    index = f"{control.prefix}-t-acme"
    names = (index, f"{index}.v{mapping.VERSION - 1}-1.20260101")
    older = {"_meta": marked(OTHER, version=1), "properties": {"action": {"type": "text"}}}
    for name in names:
        await client.indices.create(index=name, body={"mappings": older})
    assert [(each.owner, each.drift) for each in (await search.observe(index)).ranges] == [("uid-2", ())] * 2
    await search.apply(UpdateIndex(index, names, OURS, ("owner",)))
    assert [(each.owner, each.drift) for each in (await search.observe(index)).ranges] == [("uid-1", ())] * 2


async def test_range_with_other_field_types_is_reported_with_a_remedy(
    control: Control, opensearch_server: OpenSearchServer
) -> None:
    client = control.search(opensearch_server)
    search = OpenSearchProvisioning(client, replicas=0)
    index = f"{control.prefix}-t-acme"
    name = generation(index).range_index(START)
    wrong = mapping.mapping(marked(OURS))
    wrong["properties"]["action"] = {"type": "text"}
    await client.indices.create(index=name, body={**mapping.new_index(name, marked(OURS), 0), "mappings": wrong})
    [seen] = (await search.observe(index)).ranges
    assert seen.drift == ("field action",)
    with pytest.raises(DecklogError) as refused:
        await search.apply(UpdateIndex(index, (name,), OURS, seen.drift))
    assert refused.value.code is Code.MISCONFIGURED
    assert "field action" in refused.value.detail
    assert "Delete it" in refused.value.detail


async def test_concurrent_index_creation_succeeds_for_one_owner_only(
    control: Control, opensearch_server: OpenSearchServer
) -> None:
    client = control.search(opensearch_server)
    searches = [OpenSearchProvisioning(client, replicas=0) for _ in range(4)]
    name = f"{control.prefix}-shared-30"
    await asyncio.gather(*(search.apply(created(name)) for search in searches))
    with pytest.raises(DecklogError) as refused:
        await searches[0].apply(created(name, OTHER))
    assert refused.value.code is Code.CONFLICT
    assert {each.owner for each in (await searches[0].observe(name)).ranges} == {"uid-1"}


async def test_new_queues_have_no_drift_and_differences_are_repaired(control: Control, sqs_server: SqsServer) -> None:
    client = control.queue(sqs_server)
    queues = [SqsProvisioning(client) for _ in range(4)]
    name = f"{control.prefix}-t-acme-wake"
    assert await queues[0].observe(name) == QueueSeen(missing=("queue", "dead-letter queue"))
    await asyncio.gather(*(each.apply(CreateQueue(name, OURS)) for each in queues))
    values = {"VisibilityTimeout": 30, "maxReceiveCount": 10}  # this server does not tell how long messages are kept
    made = QueueSeen(exists=True, owners=("uid-1",) * 2, settings=values, tenants=("acme",) * 2)
    assert await queues[0].observe(name) == made

    url = client.get_queue_url(QueueName=name)["QueueUrl"]
    client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1", "ReceiveMessageWaitTimeSeconds": "0"})
    drift = (await queues[0].observe(name)).drift
    assert set(drift) == {"ReceiveMessageWaitTimeSeconds"}
    assert (await queues[0].observe(name)).settings == {**values, "VisibilityTimeout": 1}
    await queues[0].apply(SetQueueAttributes(name, OTHER, drift, Queue(max_receive_count=3)))
    changed = replace(made, owners=("uid-2",) * 2, settings={**values, "maxReceiveCount": 3})
    assert await queues[0].observe(name) == changed

    strange = client.create_queue(QueueName=f"{name}-strange")["QueueUrl"]
    told = client.get_queue_attributes(QueueUrl=strange, AttributeNames=["All"])["Attributes"]
    elsewhere = json.dumps({"deadLetterTargetArn": told["QueueArn"], "maxReceiveCount": 3})
    client.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": elsewhere})
    client.tag_queue(QueueUrl=url, Tags={"decklog.dev/tenant": "zorg"})
    seen = await queues[0].observe(name)
    assert (seen.drift, seen.tenants) == (("RedrivePolicy",), ("zorg", "acme"))
    client.delete_queue(QueueUrl=client.get_queue_url(QueueName=f"{name}-dlq")["QueueUrl"])
    assert await queues[0].observe(name) == QueueSeen(owners=("uid-2",), tenants=("zorg",), missing=("dead-letter queue",))
    await queues[0].apply(SetQueueAttributes(name, OTHER, ("dead-letter queue",), Queue(max_receive_count=3)))
    assert await queues[0].observe(name) == changed


async def test_queue_created_by_another_owner_is_not_taken_over(control: Control, sqs_server: SqsServer) -> None:
    client = control.queue(sqs_server)
    name = f"{control.prefix}-t-acme-wake"
    client.create_queue(QueueName=f"{name}-dlq", tags={"decklog.dev/uid": "uid-2"})
    with pytest.raises(DecklogError) as refused:
        await SqsProvisioning(client).apply(CreateQueue(name, OURS))
    assert refused.value.code is Code.CONFLICT


async def test_recently_deleted_queue_name_is_reported_as_blocked() -> None:
    client = boto3.session.Session().client("sqs", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    # Only Amazon's own service makes anybody wait for a minute; this is its answer.
    with Stubber(client) as stubbed, structlog.testing.capture_logs() as logged:
        stubbed.add_client_error("get_queue_url", "AWS.SimpleQueueService.NonExistentQueue")
        stubbed.add_client_error("create_queue", "AWS.SimpleQueueService.QueueDeletedRecently")
        with pytest.raises(DecklogError) as refused:
            await SqsProvisioning(client).apply(CreateQueue("queue", OURS))
    assert (refused.value.code, refused.value.retry_after) == (Code.STORAGE_UNAVAILABLE, 60)
    assert "60 seconds" in refused.value.detail
    assert refused.value.extra == {"reason": NAME_BLOCKED}
    assert {line["log_level"] for line in logged} == {"info"}
