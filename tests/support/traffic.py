"""Clients without retries, but for one fault of the release, over several API processes, and the checks of what they sent and received."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import websockets

from decklog.domain.records import canonical
from tests.support.stack import Program, Stack

PAUSE = 0.05
"""Seconds between two requests of one client: frequent, and without starving processes that start."""
WAIT_MAX = 120.0
RELEASE_STALE = "so it cannot tell who may do what"
"""Words that only processes of the release say when a busy machine keeps them from reading the registry for two seconds. Later versions read
it over a connection of its own, and no test excuses them."""


class Service:
    """The ready processes, in turn for each request. A process that announces the end of a connection gets no more requests."""

    def __init__(self) -> None:
        self.ready: list[Program] = []
        self._turn = itertools.count()
        self._busy: Counter[int] = Counter()

    async def add(self, program: Program) -> None:
        """Add a process once it is ready."""
        async with httpx.AsyncClient() as client, asyncio.timeout(WAIT_MAX):
            while (await client.get(f"{program.url}/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        self.ready.append(program)

    async def remove(self, program: Program) -> None:
        """Remove a process, and wait for its open requests."""
        with suppress(ValueError):
            self.ready.remove(program)
        async with asyncio.timeout(WAIT_MAX):
            while self._busy[program.port]:
                await asyncio.sleep(0.01)

    @contextmanager
    def one(self) -> Iterator[Program]:
        program = self.ready[next(self._turn) % len(self.ready)]
        self._busy[program.port] += 1
        try:
            yield program
        finally:
            self._busy[program.port] -= 1

    async def send(self, client: httpx.AsyncClient, method: str, path: str, **given: Any) -> httpx.Response:
        while True:
            with self.one() as program:
                answer = await client.request(method, program.url + path, **given)
            if answer.status_code != 503 or RELEASE_STALE not in answer.text:
                break
            await asyncio.sleep(float(answer.headers["retry-after"]))
        if answer.headers.get("connection") == "close" and program in self.ready:
            self.ready.remove(program)
        return answer


@dataclass
class Traffic:
    """Writers, a reader and a follower for each tenant. `failures` lists every unexpected answer."""

    stack: Stack
    service: Service
    tenants: tuple[str, ...]
    acknowledged: dict[str, dict[str, int]] = field(default_factory=dict)
    followed: dict[str, list[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    closings: Counter[int] = field(default_factory=Counter)
    reads: int = 0
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    clients: list[asyncio.Task[None]] = field(default_factory=list)
    """The clients that end when the traffic is stopped."""

    def headers(self, tenant: str, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.stack.key(tenant, role)}"}

    async def more(self, count: int = 20) -> None:
        """Wait until each tenant has `count` more records, and a reader has read."""
        before, read = {tenant: len(self.acknowledged[tenant]) for tenant in self.tenants}, self.reads
        await self._until(
            lambda: self.reads > read and all(len(self.acknowledged[tenant]) >= before[tenant] + count for tenant in self.tenants)
        )

    async def _until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_MAX):
            while not true():
                assert not self.failures, self.failures[:5]
                await asyncio.sleep(0.02)

    async def _write(self, tenant: str, number: int) -> None:
        acknowledged = self.acknowledged[tenant]
        async with httpx.AsyncClient(headers=self.headers(tenant, "writer"), timeout=60) as client:
            for turn in itertools.count():
                if self.stopped.is_set():
                    return
                ids = [f"{number}-{turn}-{item}" for item in range(1 if turn % 5 else 4)]
                with self._told(f"writing {ids} for {tenant}"):
                    if len(ids) == 1:
                        answer = await self.service.send(client, "POST", "/api/v1/logs", json=record(ids[0]))
                        assert answer.status_code == 201, answer.text
                        acknowledged[ids[0]] = answer.json()["seq"]
                    else:
                        answer = await self.service.send(client, "POST", "/api/v1/logs/bulk", json=[record(each) for each in ids])
                        assert answer.status_code == 200, answer.text
                        assert answer.json()["stored"] == len(ids), answer.text
                        acknowledged |= {each: item["seq"] for each, item in zip(ids, answer.json()["items"], strict=True)}
                await asyncio.sleep(PAUSE)

    async def _read(self, tenant: str) -> None:
        async with httpx.AsyncClient(headers=self.headers(tenant, "auditor"), timeout=60) as client:
            while not self.stopped.is_set():
                for path in ("/api/v1/logs?limit=20", "/api/v1/logs?actor=writer-0&limit=5", "/api/v1/logs/stats?by=action"):
                    with self._told(f"reading {path} of {tenant}"):
                        answer = await self.service.send(client, "GET", path)
                        assert answer.status_code == 200, answer.text
                self.reads += 1
                await asyncio.sleep(20 * PAUSE)

    async def _follow(self, tenant: str) -> None:
        """Follow the log over WebSockets from its beginning, and resume at the position after every interruption."""
        position = "-1"
        protocols: Any = ["decklog", f"bearer.{self.stack.key(tenant, 'auditor')}"]
        while True:
            with self._told(f"following {tenant}"):
                with self.service.one() as program:
                    url = f"{program.url.replace('http', 'ws')}/api/v1/logs/stream?after={position}"
                    socket = await websockets.connect(url, subprotocols=protocols, open_timeout=60)
                try:
                    async for message in socket:
                        event = json.loads(message)
                        assert event["type"] != "error" or RELEASE_STALE in str(event), event
                        if event["type"] == "record":
                            self.followed[tenant].append(event["record"]["seq"])
                        position = event.get("position", position)
                except websockets.ConnectionClosed:
                    pass
                self.closings[socket.close_code or 0] += 1
            await asyncio.sleep(PAUSE)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Run the block, and append an error of it to `failures` instead of raising it."""

        def noted(_: object, error: BaseException | None, __: object) -> bool:
            if isinstance(error, Exception):
                self.failures.append(f"{what}: {error!r}")
            return isinstance(error, Exception)

        with ExitStack() as stack:
            stack.push(noted)
            yield

    async def finish(self, worker: Program | None = None) -> dict[str, list[dict[str, Any]]]:
        """Stop writing, compare everything with the logs, and return the records of each tenant.

        With a worker, every record must also be found by full text. The followers must get the rest of the log.
        """
        self.stopped.set()
        await asyncio.gather(*self.clients)
        logs = {tenant: await self._verified(tenant, searched=worker is not None) for tenant in self.tenants}
        await self._until(lambda: all(self.followed[tenant][-1:] == [len(logs[tenant]) - 1] for tenant in self.tenants))
        for tenant in self.tenants:
            assert self.followed[tenant] == list(range(len(logs[tenant]))), "a follower missed a record, or got one twice"
        assert self.failures == []
        return logs

    async def _verified(self, tenant: str, *, searched: bool) -> list[dict[str, Any]]:
        with self.service.one() as program:
            async with self.stack.client(program.url, self.stack.key(tenant, "auditor")) as client:
                exported = await client.get("/api/v1/logs/export", params={"format": "ndjson"})
                records = [json.loads(line) for line in exported.text.splitlines()]
                assert [each["seq"] for each in records] == list(range(len(records))), "a gap or a double in the log"
                places = {each["id"]: each["seq"] for each in records}
                assert len(places) == len(records), "a record is stored twice"
                assert {each: places.get(each) for each in self.acknowledged[tenant]} == self.acknowledged[tenant]
                assert [each["received_at"] for each in records] == sorted(each["received_at"] for each in records)
                assert [each["digest"] for each in records] == [digest(each) for each in records]
                if searched:
                    await indexed(client, len(records))
        return records


async def indexed(client: httpx.AsyncClient, count: int) -> None:
    """Wait until the index has `count` records, and check that full text finds all of them."""
    async with asyncio.timeout(WAIT_MAX):
        while (await client.get("/api/v1/logs", params={"limit": 1})).json()["indexed"] < count:
            await asyncio.sleep(0.1)
    found: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        params: dict[str, str | int] = {"q": "written", "limit": 1_000, **({"cursor": cursor} if cursor else {})}
        page = (await client.get("/api/v1/logs", params=params)).json()
        assert page["engine"] == "opensearch", page["engine"]
        found += [each["seq"] for each in page["items"]]
        cursor = page["next"]
    assert sorted(found) == list(range(count))


def record(identity: str) -> dict[str, Any]:
    return {
        "id": identity,
        "action": "traffic.write",
        "actor": {"id": f"writer-{identity[0]}"},
        "occurred_at": "2026-01-01T00:00:00Z",
        "message": "written",
    }


_ADDED = ("tenant", "log", "epoch", "seq", "received_at", "digest")


def digest(exported: dict[str, Any]) -> str:
    """Compute the digest from an exported record."""
    own = {name: value for name, value in exported.items() if name not in _ADDED}
    return canonical.digest_text(canonical.digest(canonical.canonical(own)))


@asynccontextmanager
async def traffic(stack: Stack, service: Service, *tenants: str, writers: int = 2) -> AsyncIterator[Traffic]:
    """Run clients within the block."""
    made = Traffic(stack, service, tenants, {tenant: {} for tenant in tenants}, {tenant: [] for tenant in tenants})
    ending = [made._write(tenant, number) for tenant in tenants for number in range(writers)] + [
        made._read(each) for each in tenants
    ]
    made.clients = [asyncio.create_task(client) for client in ending]
    tasks = [*made.clients, *(asyncio.create_task(made._follow(tenant)) for tenant in tenants)]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
