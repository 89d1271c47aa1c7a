"""Requests of the benchmarks of reading: one after the other over one connection, each timed, beside the bare work of the engines."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import asyncpg
import msgspec

from tests.bench.figures import median, percentile
from tests.bench.long_log import Loaded, admin
from tests.bench.processes import HOST, TICKS, Server

_SECONDS_MAX = 60.0
_WALK_LIMIT = 1_000
_REFUSALS = frozenset({"search-unavailable", "too-many-buckets"})
"""Codes by which an engine says that it cannot answer whole, or in time."""


class Ask(NamedTuple):
    """A kind of request, and its parameters in each round."""

    kind: str
    parameters: Callable[[int], dict[str, str]]


class Asked(msgspec.Struct):
    """Milliseconds of each kind in each round, how often each kind was refused, and the kinds that another engine answered."""

    times: dict[str, list[float]]
    refused: dict[str, int]
    others: dict[str, int]

    @property
    def all(self) -> list[float]:
        return [each for times in self.times.values() for each in times]

    @property
    def p95(self) -> float:
        return percentile(self.all, 0.95)

    def without(self, kinds: Sequence[str]) -> Asked:
        return Asked({kind: times for kind, times in self.times.items() if kind not in kinds}, self.refused, self.others)

    def __str__(self) -> str:
        """Return the medians of the kinds, the slowest first."""
        medians = sorted(((median(times), kind) for kind, times in self.times.items() if times), reverse=True)
        return ", ".join(f"{kind} {took:.0f}" for took, kind in medians)


class Asker(NamedTuple):
    """Where requests go: the server, the key and the path, and the engine that must answer."""

    server: Server
    key: str
    path: str
    engine: str


def asked(asker: Asker, asks: Sequence[Ask], turns: range) -> Asked:
    """Ask each kind once in each round, and return the times. It blocks.

    Raises RuntimeError for a failure that is no refusal.
    """
    _, key, path, engine = asker
    connection = http.client.HTTPConnection(HOST, asker.server.port, timeout=_SECONDS_MAX)
    found = Asked({ask.kind: [] for ask in asks}, {}, {})
    for turn in turns:
        for ask in asks:
            target = f"{path}?{urlencode(ask.parameters(turn), quote_via=quote)}"
            began = time.perf_counter()
            connection.request("GET", target, headers={"Authorization": f"Bearer {key}"})
            with connection.getresponse() as answer:
                status, body = answer.status, answer.read()
            found.times[ask.kind].append((time.perf_counter() - began) * 1_000)
            said = json.loads(body)
            if status != http.HTTPStatus.OK and said.get("code") in _REFUSALS:
                found.refused[ask.kind] = found.refused.get(ask.kind, 0) + 1
            elif status != http.HTTPStatus.OK:
                raise RuntimeError(f"{target} was answered with {status}: {body[:300]!r}")
            elif said["engine"] != engine:
                found.others[ask.kind] = found.others.get(ask.kind, 0) + 1
    connection.close()
    return found


def cursor_after(server: Server, key: str, records: int) -> str:
    """Return the cursor after that many records, by following pages of the largest size."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=_SECONDS_MAX)
    cursor: str | None = None
    while records:
        parameters = {"limit": str(min(records, _WALK_LIMIT)), **({"cursor": cursor} if cursor else {})}
        connection.request("GET", f"/api/v1/logs?{urlencode(parameters)}", headers={"Authorization": f"Bearer {key}"})
        with connection.getresponse() as answer:
            page = json.loads(answer.read())
        cursor = str(page["next"])
        records -= len(page["items"])
    connection.close()
    if cursor is None:
        raise RuntimeError("the first page has no cursor")
    return cursor


class Processor(NamedTuple):
    """Seconds of processor time of the API, PostgreSQL and OpenSearch."""

    api: float
    postgres: float
    opensearch: float

    def since(self, before: Processor, requests: int) -> str:
        """Return the milliseconds of each request since then, for people."""
        api, postgres, opensearch = ((now - then) * 1_000 / requests for now, then in zip(self, before, strict=True))
        return f"processor ms of each: API {api:.1f}, PostgreSQL {postgres:.1f}, OpenSearch {opensearch:.1f}"


async def processor_of(server: Server, log: Loaded) -> Processor:
    """Return the processor time so far, of PostgreSQL that of the sessions that are open."""
    async with admin(log.place) as connection:
        pids = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    ticks = sum(_ticks(row["pid"]) for row in pids)
    nodes = searched(log.place.settings.search.url, "GET", "/_nodes/stats/process", None)["nodes"]
    millis = sum(node["process"]["cpu"]["total_in_millis"] for node in nodes.values())
    return Processor(server.processor_seconds(), ticks / TICKS, millis / 1_000)


def _ticks(pid: int) -> int:
    """Return the ticks of a process of this machine, 0 of another one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def searched(url: str, method: str, path: str, body: Any) -> dict[str, Any]:
    """Return the answer of OpenSearch to one request."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_SECONDS_MAX)
    connection.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
    with connection.getresponse() as answer:
        found: dict[str, Any] = json.loads(answer.read())
    connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"OpenSearch answered {path} with {answer.status}: {str(found)[:300]}")
    return found


def bare_searches(log: Loaded, bodies: Sequence[dict[str, Any]]) -> list[float]:
    """Return the milliseconds of each search of the log's index, asked of OpenSearch itself."""
    live = log.customer.tenant.live
    assert live is not None
    address = urlsplit(log.place.settings.search.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_SECONDS_MAX)
    took: list[float] = []
    for body in bodies:
        began = time.perf_counter()
        connection.request("POST", f"/{live.alias}/_search", json.dumps(body), {"content-type": "application/json"})
        with connection.getresponse() as answer:
            said = answer.read()
        took.append((time.perf_counter() - began) * 1_000)
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"OpenSearch refused a search: {said[:300]!r}")
    connection.close()
    return took


async def bare_rows(connection: asyncpg.Connection, statement: str, values: Sequence[Sequence[Any]]) -> list[float]:
    """Return the milliseconds of a statement with each of these parameters, over one connection that has prepared it."""
    prepared = await connection.prepare(statement)
    took: list[float] = []
    for each in values:
        began = time.perf_counter()
        await prepared.fetch(*each)
        took.append((time.perf_counter() - began) * 1_000)
    return took
