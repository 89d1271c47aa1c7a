"""Processes are killed at random moments and messages are lost: each acknowledged record is stored once, at its number."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import websockets

from tests.backends import PostgresServer
from tests.backends.fixtures import PrivatePostgres
from tests.backends.opensearch import OpenSearchServer
from tests.backends.postgres import LocalPostgres
from tests.backends.sqs import SqsServer
from tests.e2e.conftest import whole
from tests.support.chance import seeded
from tests.support.stack import Program, Stack

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

ROUNDS = 5
"""Kills of a run: one of each kind of process, and two more."""
ROUNDS_OF_ENDURANCE = 60
TENANTS: dict[str, dict[str, object]] = {
    "dedicated": {"retention": {"days": 90}, "quotas": {"eventsPerSecond": 100_000, "burst": 100_000}},
    "shared_a": {"isolation": "Shared", "retention": {"days": 30}, "quotas": {"eventsPerSecond": 100_000, "burst": 100_000}},
    "shared_b": {"isolation": "Shared", "retention": {"days": 30}},
}
Victim = Program | LocalPostgres
NAMES = [name.replace("_", "-") for name in TENANTS]


class Writer:
    """Sends records with ids over any API process, and repeats each until it is acknowledged."""

    def __init__(self, stack: Stack, apis: list[Program], tenant: str, number: int) -> None:
        self.tenant = tenant
        self.number = number
        self.acknowledged: dict[str, int] = {}
        self.sent: set[str] = set()
        self.unknown = 0
        self._apis = apis
        self._chance = random.Random(number)
        self._headers = {"Authorization": f"Bearer {stack.key(tenant, 'writer')}", "Content-Type": "application/json"}

    async def run(self, stop: asyncio.Event) -> None:
        async with httpx.AsyncClient(headers=self._headers, timeout=30) as client:
            count = 0
            while not stop.is_set():
                count += 1
                await self._put(client, f"{self.number}-{count}")

    async def _put(self, client: httpx.AsyncClient, identity: str) -> None:
        record = {
            "id": identity,
            "action": "chaos.write",
            "actor": {"id": f"writer-{self.number}"},
            "occurred_at": "2026-01-01T00:00:00Z",
        }
        self.sent.add(identity)
        while True:
            try:
                answer = await client.post(f"{self._chance.choice(self._apis).url}/api/v1/logs", content=json.dumps(record))
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code in (200, 201):
                body = answer.json()
                assert body["status"] == ("stored" if answer.status_code == 201 else "duplicate")
                self.acknowledged[identity] = body["seq"]
                return
            assert answer.status_code == 503, answer.text
            self.unknown += answer.json()["code"] == "outcome-unknown"
            await asyncio.sleep(0.05)


class Follower:
    """Follows a log over WebSockets, and resumes at its position after every interruption."""

    def __init__(self, stack: Stack, apis: list[Program], tenant: str) -> None:
        self.tenant = tenant
        self.seqs: list[int] = []
        self.position = ""
        self._apis = apis
        self._chance = random.Random(tenant)
        self._token = stack.key(tenant, "auditor")

    async def run(self) -> None:
        while True:
            url = self._chance.choice(self._apis).url.replace("http", "ws") + "/api/v1/logs/stream"
            url += f"?after={self.position}" if self.position else ""
            protocols: Any = ["decklog", f"bearer.{self._token}"]
            try:
                async with websockets.connect(url, subprotocols=protocols, open_timeout=10) as socket:
                    async for message in socket:
                        event = json.loads(message)
                        if event["type"] == "record":
                            self.seqs.append(event["record"]["seq"])
                        if "position" in event:
                            self.position = event["position"]
            except (OSError, websockets.WebSocketException, TimeoutError):
                await asyncio.sleep(0.1)


async def exported(stack: Stack, api: Program, tenant: str) -> list[dict[str, Any]]:
    async with stack.client(api.url, stack.key(tenant, "auditor")) as client:
        answer = await client.get("/api/v1/logs/export", params={"format": "ndjson"})
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]


async def indexed_up_to_head(stack: Stack, api: Program, tenant: str) -> None:
    """Wait until the index has every record."""
    async with stack.client(api.url, stack.key(tenant, "auditor")) as client, asyncio.timeout(90):
        while True:
            page = (await client.get("/api/v1/logs", params={"limit": 1})).json()
            if page.get("indexed") == page.get("head") is not None:
                return
            await asyncio.sleep(0.2)


async def found(stack: Stack, api: Program, tenant: str) -> list[int]:
    """Return all sequence numbers that full text finds in OpenSearch, over all pages."""
    seqs: list[int] = []
    async with stack.client(api.url, stack.key(tenant, "auditor")) as client:
        cursor: str | None = None
        while True:
            parameters = {"q": "chaos write", "limit": "1000", **({"cursor": cursor} if cursor else {})}
            page = (await client.get("/api/v1/logs", params=parameters)).json()
            assert page["engine"] == "opensearch"
            seqs += [item["seq"] for item in page["items"]]
            cursor = page["next"]
            if cursor is None:
                return sorted(seqs)


async def verify(stack: Stack, api: Program, writers: list[Writer], followers: list[Follower]) -> None:
    for tenant in NAMES:
        records = await exported(stack, api, tenant)
        seqs = [record["seq"] for record in records]
        assert seqs == list(range(len(seqs))), "a gap or a double in the log"
        ids = Counter(record["id"] for record in records)
        assert max(ids.values()) == 1, "a record is stored twice"
        place = {record["id"]: record["seq"] for record in records}
        for writer in writers:
            if writer.tenant == tenant:
                assert {identity: place.get(identity) for identity in writer.acknowledged} == writer.acknowledged
        assert set(place) <= {identity for writer in writers if writer.tenant == tenant for identity in writer.sent}
        times = [record["received_at"] for record in records]
        assert times == sorted(times)
        await indexed_up_to_head(stack, api, tenant)
        assert await found(stack, api, tenant) == seqs
        for follower in followers:
            if follower.tenant == tenant:
                async with asyncio.timeout(60):
                    while follower.seqs[-1:] != seqs[-1:]:
                        await asyncio.sleep(0.1)
                assert follower.seqs == seqs, "a follower missed or doubled a record"


@pytest.fixture
async def stack(
    timescale_server: PostgresServer, opensearch_server: OpenSearchServer, sqs_server: SqsServer, tmp_path: Path
) -> AsyncIterator[Stack]:
    async with whole(tmp_path, timescale_server, opensearch_server, sqs_server) as made:
        await made.provision(**TENANTS)
        yield made


async def progressed(writers: list[Writer], count: int) -> None:
    """Wait until the writers have `count` more acknowledgements together."""
    wanted = sum(len(writer.acknowledged) for writer in writers) + count
    async with asyncio.timeout(90):
        while sum(len(writer.acknowledged) for writer in writers) < wanted:
            await asyncio.sleep(0.005)


def victims(chance: random.Random, *kinds: Sequence[Victim], rounds: int) -> Iterator[Victim]:
    """Yield processes to kill: one of each kind first, in random order, and then any."""
    first = [chance.choice(kind) for kind in kinds]
    chance.shuffle(first)
    yield from first
    for _ in range(rounds - len(first)):
        yield chance.choice([victim for kind in kinds for victim in kind])


async def kill(victim: Victim) -> str:
    """Kill a process with SIGKILL, start it again, and return what it was. A program is ready afterwards."""
    if isinstance(victim, Program):
        victim.kill()
        victim.start()
        await victim.ready()
        return victim.verb
    await asyncio.to_thread(victim.kill9)
    await asyncio.to_thread(victim.start)
    return "postgres"


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(ROUNDS_OF_ENDURANCE, marks=pytest.mark.endurance)])
@pytest.mark.timeout(1_800)
async def test_acknowledged_records_and_streams_survive_sigkill_of_every_process(
    private_postgres: PrivatePostgres, opensearch_server: OpenSearchServer, sqs_server: SqsServer, tmp_path: Path, rounds: int
) -> None:
    chance = seeded()
    async with AsyncExitStack() as opened:
        postgres = opened.enter_context(private_postgres("timescale", durable=True))
        stack = await opened.enter_async_context(whole(tmp_path, postgres.address, opensearch_server, sqs_server))
        await stack.provision(**TENANTS)
        apis = [await stack.api(), await stack.api()]
        workers = [await stack.worker(), await stack.worker()]
        followers = [Follower(stack, apis, tenant) for tenant in NAMES]
        following = [asyncio.create_task(follower.run()) for follower in followers]
        # A follower begins at the head of the log when it connects, so the first record waits for all of them.
        async with asyncio.timeout(60):
            while not all(follower.position for follower in followers):
                await asyncio.sleep(0.05)
        tenants = NAMES * 4
        writers = [Writer(stack, apis, tenant, number) for number, tenant in enumerate(tenants)]
        stop = asyncio.Event()
        writing = [asyncio.create_task(writer.run(stop)) for writer in writers]
        killed: Counter[str] = Counter()
        for victim in victims(chance, apis, workers, [postgres], rounds=rounds):
            await progressed(writers, chance.randrange(20, 200))
            killed[await kill(victim)] += 1
        await progressed(writers, 200)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*writing), timeout=60)
        total = sum(len(writer.acknowledged) for writer in writers)
        print(f"{total} records acknowledged, killed {dict(killed)}, outcome unknown {sum(writer.unknown for writer in writers)}")
        try:
            await verify(stack, apis[0], writers, followers)
        finally:
            for task in following:
                task.cancel()


async def test_index_is_complete_when_half_of_the_wakeups_are_lost(stack: Stack, sqs_server: SqsServer) -> None:
    sqs = boto3.client(
        "sqs",
        endpoint_url=sqs_server.url,
        region_name=sqs_server.region,
        aws_access_key_id=sqs_server.access_key,
        aws_secret_access_key=sqs_server.secret_key,
    )
    prefix = stack.settings.prefix
    queues = [url for url in sqs.list_queues(QueueNamePrefix=prefix)["QueueUrls"] if not url.endswith("-dlq")]
    assert queues
    stolen = 0

    def steal(url: str) -> int:
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=1).get("Messages", [])
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(messages)

    async def thief(url: str, stop: asyncio.Event) -> None:
        nonlocal stolen
        while not stop.is_set():
            taken = await asyncio.to_thread(steal, url)
            stolen += taken

    api = await stack.api()
    await stack.worker(DECKLOG_WORKER_SWEEP_SECONDS="1")
    stop = asyncio.Event()
    thieves = [asyncio.create_task(thief(url, stop)) for url in queues]
    writers = [Writer(stack, [api], tenant, number) for number, tenant in enumerate(NAMES)]
    writing = [asyncio.create_task(writer.run(stop)) for writer in writers]
    async with asyncio.timeout(60):
        while stolen < 10:
            await asyncio.sleep(0.1)
    stop.set()
    await asyncio.gather(*writing, *thieves)
    await verify(stack, api, writers, [])
    print(f"{stolen} messages stolen")
