"""Conformance of `WakeQueue`: SQS and the queue in memory deliver wake-ups alike."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import boto3
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.store import WakeQueue, WakeUp
from decklog.settings import Queue
from decklog.sqs.queue import WAKE_UPS_MAX, SqsWakeQueue
from tests.backends import SqsServer
from tests.support.memory_queue import MemoryQueue
from tests.support.queues import queue_settings

UNUSED_PORT_URL = "http://127.0.0.1:9"


class RealQueue:
    """A queue of one test, and a way to send arbitrary messages to it."""

    def __init__(self, server: SqsServer) -> None:
        self.name = f"decklog-test-{uuid.uuid4().hex}"
        self.client = boto3.session.Session().client(
            "sqs",
            region_name=server.region,
            endpoint_url=server.url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
        )
        self.url = self.client.create_queue(QueueName=self.name, Attributes={"VisibilityTimeout": "1"})["QueueUrl"]

    def put(self, body: str) -> None:
        self.client.send_message(QueueUrl=self.url, MessageBody=body)

    def remove(self) -> None:
        self.client.delete_queue(QueueUrl=self.url)
        self.client.close()


@pytest.fixture
async def real_queue(sqs_server: SqsServer) -> AsyncIterator[RealQueue]:
    made = await asyncio.to_thread(RealQueue, sqs_server)
    yield made
    await asyncio.to_thread(made.remove)


@pytest.fixture
async def sqs(sqs_server: SqsServer) -> AsyncIterator[SqsWakeQueue]:
    queue = SqsWakeQueue(queue_settings(sqs_server), polls=2)
    yield queue
    await queue.close()


@pytest.fixture(params=["memory", "sqs"])
def either(request: pytest.FixtureRequest) -> tuple[WakeQueue, str]:
    if request.param == "memory":
        return MemoryQueue(visibility=1.0), "some-queue"
    return request.getfixturevalue("sqs"), request.getfixturevalue("real_queue").name


def plain(wake_ups: list[WakeUp]) -> list[tuple[int, LogName, int]]:
    return sorted((each.tenant_id, each.log, each.next_seq) for each in wake_ups)


async def receive_all(queue: WakeQueue, name: str, count: int) -> list[WakeUp]:
    """Receive this number of wake-ups, each deleted at once."""
    found: list[WakeUp] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            some = await queue.receive(name, wait=2)
            assert len(some) <= 10 * WAKE_UPS_MAX
            await queue.delete(name, some)
            found += some
    return found


async def test_any_number_of_messages_is_received(either: tuple[WakeQueue, str]) -> None:
    queue, name = either
    sent = [WakeUp(number, LogName(number % 2), number * 10**12) for number in range(1, 26)]
    await queue.send(name, sent)
    assert plain(await receive_all(queue, name, 25)) == plain(sent)
    assert await queue.receive(name, wait=0) == []


async def test_sqs_sends_the_wake_ups_of_many_logs_in_few_messages(sqs: SqsWakeQueue, real_queue: RealQueue) -> None:
    sent = [WakeUp(number, LogName.EVENTS, 1) for number in range(3 * WAKE_UPS_MAX + 1)]
    await sqs.send(real_queue.name, sent)
    found: list[WakeUp] = []
    async with asyncio.timeout(30):
        while len(found) < len(sent):
            found += await sqs.receive(real_queue.name, wait=2)
    assert plain(found) == plain(sent)
    assert len({each.receipt for each in found}) == 4
    await sqs.delete(real_queue.name, found)


async def test_message_is_delivered_again_unless_deleted(either: tuple[WakeQueue, str]) -> None:
    queue, name = either
    await queue.send(name, [WakeUp(1, LogName.ACCESS, 5)])
    (first,) = await queue.receive(name, wait=5)
    (again,) = await receive_all(queue, name, 1)
    assert plain([first]) == plain([again])
    assert await queue.receive(name, wait=2) == []


async def test_long_poll_ends_with_the_first_message(either: tuple[WakeQueue, str]) -> None:
    queue, name = either
    polling = asyncio.create_task(queue.receive(name, wait=20))
    await asyncio.sleep(0.1)
    await queue.send(name, [WakeUp(7, LogName.EVENTS, 8)])
    async with asyncio.timeout(10):
        assert plain(await polling) == [(7, LogName.EVENTS, 8)]


async def test_delete_ignores_deleted_and_unknown_messages(either: tuple[WakeQueue, str]) -> None:
    queue, name = either
    await queue.send(name, [WakeUp(1, LogName.EVENTS, 1)])
    found = await queue.receive(name, wait=5)
    for _ in range(2):
        await queue.delete(name, found)
    await queue.delete(name, [WakeUp(1, LogName.EVENTS, 1)])
    await queue.delete(name, [])
    assert await queue.receive(name, wait=2) == []


async def test_sqs_returns_how_long_a_message_waited(sqs: SqsWakeQueue, real_queue: RealQueue) -> None:
    await sqs.send(real_queue.name, [WakeUp(1, LogName.EVENTS, 1)])
    await asyncio.sleep(0.5)
    (found,) = await receive_all(sqs, real_queue.name, 1)
    assert found.waited is not None
    assert 0.4 <= found.waited < 60


@pytest.mark.parametrize(
    "body",
    ["hello", "{}", "[1, 0, 5]", '{"tenant_id": 1, "log": 9, "next_seq": 1}', '{"tenant_id": -1, "log": 0, "next_seq": 1}'],
)
async def test_sqs_deletes_messages_that_are_not_wake_ups(sqs: SqsWakeQueue, real_queue: RealQueue, body: str) -> None:
    await asyncio.to_thread(real_queue.put, body)
    await sqs.send(real_queue.name, [WakeUp(3, LogName.EVENTS, 4)])
    assert plain(await receive_all(sqs, real_queue.name, 1)) == [(3, LogName.EVENTS, 4)]
    assert await sqs.receive(real_queue.name, wait=2) == []
    counts = await asyncio.to_thread(
        real_queue.client.get_queue_attributes,
        QueueUrl=real_queue.url,
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )
    assert set(counts["Attributes"].values()) == {"0"}


async def test_sqs_finds_a_missing_queue_once_it_is_created(sqs: SqsWakeQueue, real_queue: RealQueue) -> None:
    name = f"{real_queue.name}-later"
    with pytest.raises(DecklogError) as refused:
        await sqs.send(name, [WakeUp(1, LogName.EVENTS, 1)])
    assert refused.value.code is Code.STORAGE_UNAVAILABLE
    made = await asyncio.to_thread(real_queue.client.create_queue, QueueName=name)
    await sqs.send(name, [WakeUp(1, LogName.EVENTS, 1)])
    await asyncio.to_thread(real_queue.client.delete_queue, QueueUrl=made["QueueUrl"])
    with pytest.raises(DecklogError):
        await sqs.receive(name, wait=0)


async def test_every_call_raises_when_the_server_is_unreachable() -> None:
    queue = SqsWakeQueue(
        Queue(enabled=True, endpoint_url=UNUSED_PORT_URL, access_key_id="id", secret_access_key="very-secret"), polls=1
    )
    for call in (
        queue.send("away", [WakeUp(1, LogName.EVENTS, 1)]),
        queue.receive("away", wait=0),
        queue.delete("away", [WakeUp(1, LogName.EVENTS, 1, "receipt")]),
    ):
        with pytest.raises(DecklogError) as refused:
            await call
        assert refused.value.code is Code.STORAGE_UNAVAILABLE
        assert "very-secret" not in str(refused.value)
    await queue.close()


async def test_excess_long_polls_wait_and_do_not_delay_sending(sqs: SqsWakeQueue, real_queue: RealQueue) -> None:
    polls = [asyncio.create_task(sqs.receive(real_queue.name, wait=20)) for _ in range(4)]
    await asyncio.sleep(0.2)
    async with asyncio.timeout(15):
        for number in range(4):
            await sqs.send(real_queue.name, [WakeUp(number, LogName.EVENTS, 1)])
            await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
            polls = [poll for poll in polls if not poll.done()]
    for poll in polls:
        poll.cancel()


async def test_process_ends_at_once_during_a_long_poll(sqs_server: SqsServer, real_queue: RealQueue) -> None:
    program = f"""
import asyncio
from decklog.settings import Queue
from decklog.sqs.queue import SqsWakeQueue
async def main():
    queue = SqsWakeQueue(Queue(enabled=True, endpoint_url={sqs_server.url!r}, region={sqs_server.region!r},
        access_key_id={sqs_server.access_key!r}, secret_access_key={sqs_server.secret_key!r}), polls=1)
    poll = asyncio.create_task(queue.receive({real_queue.name!r}, wait=20))
    await asyncio.sleep(1)
    poll.cancel()
    await queue.close()
    print("closing", flush=True)
asyncio.run(main())
"""
    import sys

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"closing\n"
    closed = time.monotonic()
    assert await process.wait() == 0
    # The poll would last 19 s more.
    assert time.monotonic() - closed < 10
