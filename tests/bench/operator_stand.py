"""The stand for operators: watched Tenants on a real API server, and an operator with the rights of `manifests/install.yaml`."""

from __future__ import annotations

import asyncio
import base64
import secrets
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import asyncpg
import boto3
import httpx
import msgspec
import yaml

from decklog_operator.names import GROUP, PLURAL, VERSION
from tests.backends import KubernetesServer, UnavailableError
from tests.bench.context import Context
from tests.bench.processes import Server, free_port, serving
from tests.bench.stand import Stand, stand
from tests.support.operators import Kubernetes, least_rights_kubeconfig, operator_environment

Kind = Literal["decklog", "empty"]
RESYNC_SECONDS = 300
"""The operator's default. The floor has no such setting."""
_TENANTS = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
_HANDLED = "kopf.zalando.org/last-handled-configuration"
_AT_ONCE = 16
_REQUEST_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.05
_OTHERS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""
_NOT_YET = frozenset({404, 429, 500, 503})
_MERGE = {"content-type": "application/merge-patch+json"}


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str
    generation: int = 0
    annotations: dict[str, str] = {}


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Status(msgspec.Struct, rename="camel"):
    observed_generation: int = 0
    conditions: list[_Condition] = []


class _Spec(msgspec.Struct, rename="camel"):
    display_name: str = ""


class Seen(msgspec.Struct):
    """The last state of a Tenant in the watch."""

    metadata: _Metadata
    spec: _Spec
    status: _Status = msgspec.field(default_factory=_Status)

    def settled(self, kind: Kind) -> bool:
        """Return whether the operator has handled the current spec."""
        if kind == "empty":  # Kopf keeps what was handled
            return f'"displayName":"{self.spec.display_name}"' in self.metadata.annotations.get(_HANDLED, "")
        ready = any(each.type == "Ready" and each.status == "True" for each in self.status.conditions)
        return ready and self.status.observed_generation == self.metadata.generation


class _News(msgspec.Struct):
    type: str
    object: msgspec.Raw


@dataclass
class Fleet:
    """The Tenants of one operator. A watch updates `seen`."""

    kind: Kind
    kubernetes: Kubernetes
    client: httpx.AsyncClient
    seen: dict[str, Seen] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def apply(self, count: int, spec: dict[str, Any]) -> None:
        """Create `count` Tenants, several at once."""
        names = [f"b-{self.kubernetes.run}-{i}" for i in range(count)]

        async def one(name: str) -> None:
            body = self.kubernetes.tenant(name, {**spec, "displayName": "as made"})
            (await self.client.post(_TENANTS, json=body)).raise_for_status()

        await _each(names, one)

    async def change(self, name: str, seconds_max: float) -> float:
        """Change a spec and return the seconds until the operator has handled it."""
        word = secrets.token_hex(4)
        began = time.perf_counter()
        patch = {"spec": {"displayName": word}}
        (await self.client.patch(f"{_TENANTS}/{name}", json=patch, headers=_MERGE)).raise_for_status()
        await self.until(lambda: self.seen[name].spec.display_name == word and name in self.settled, seconds_max)
        return time.perf_counter() - began

    async def until(self, condition: Callable[[], bool], seconds_max: float) -> None:
        """Wait for the condition. Raise RuntimeError after `seconds_max`."""
        try:
            async with asyncio.timeout(seconds_max):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            missing = f"{len(self.settled)} of {len(self.seen)} Tenants are settled"
            raise RuntimeError(f"not within {seconds_max:g} s: {missing}") from None

    async def versions(self) -> dict[str, str]:
        """Return the resource versions of the Tenants and of their Secrets."""
        found: dict[str, str] = {}
        for path in (f"{_TENANTS}?labelSelector={self.kubernetes.selector}", "/api/v1/namespaces/default/secrets"):
            answer = (await self.client.get(path)).raise_for_status()
            listed = [each["metadata"] for each in msgspec.json.decode(answer.content)["items"]]
            ours = [each for each in listed if self.kubernetes.run in each["name"]]
            found |= {f"{path}/{each['name']}": each["resourceVersion"] for each in ours}
        return found

    async def watch(self) -> None:
        """Watch until cancelled.

        A new definition is not served at once (429), and the API server ends a slow watch. Each watch starts with a list.
        """
        while True:
            try:
                await self._watch_once()
            except httpx.TransportError:
                pass
            except httpx.HTTPStatusError as refused:
                if refused.response.status_code not in _NOT_YET:
                    raise
            await asyncio.sleep(_POLL_SECONDS)

    async def _watch_once(self) -> None:
        params = {"watch": "true", "labelSelector": self.kubernetes.selector}
        async with self.client.stream("GET", _TENANTS, params=params, timeout=None) as answer:
            async for line in answer.raise_for_status().aiter_lines():
                news = msgspec.json.decode(line, type=_News)
                if news.type == "ERROR":
                    return
                tenant = msgspec.json.decode(news.object, type=Seen)
                self.seen[tenant.metadata.name] = tenant
                (self.settled.add if tenant.settled(self.kind) else self.settled.discard)(tenant.metadata.name)
                self._news.set()

    async def remove(self) -> None:
        """Delete the Tenants and remove their finalizers, because no operator does."""
        await self.client.delete(_TENANTS, params={"labelSelector": self.kubernetes.selector}, timeout=None)

        async def one(name: str) -> None:
            await self.client.patch(f"{_TENANTS}/{name}", json={"metadata": {"finalizers": None}}, headers=_MERGE)

        await _each(list(self.seen), one)


async def _each(names: list[str], one: Callable[[str], Any]) -> None:
    waiting = iter(names)

    async def work() -> None:
        for name in waiting:
            await one(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())


def _client(server: KubernetesServer) -> httpx.AsyncClient:
    """Return a client with an administrator's token. Raise UnavailableError if the kubeconfig has none."""
    config = yaml.safe_load(server.kubeconfig.read_text())
    token, cluster = config["users"][0]["user"].get("token"), config["clusters"][0]["cluster"]
    if not token or "certificate-authority-data" not in cluster:
        raise UnavailableError("the kubeconfig must have a token and the certificate of its authority")
    trusted = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=server.url, headers=headers, verify=trusted, timeout=_REQUEST_SECONDS_MAX)


@dataclass
class OperatorStand:
    """Backends and Tenants of one operator, which may be started several times."""

    fleet: Fleet
    place: Stand
    folder: Path
    rights: Path

    @property
    def visits(self) -> Path:
        return self.folder / "visits"

    def visited(self) -> set[str]:
        """Return the names of the tenants visited since the last start of the operator."""
        text = self.visits.read_text() if self.visits.exists() else ""
        return set(text[: text.rfind("\n") + 1].split())

    async def until_visited(self, count: int, seconds_max: float) -> None:
        """Wait until `count` tenants were visited. Raise RuntimeError after `seconds_max`."""
        deadline = time.monotonic() + seconds_max
        while len(found := self.visited()) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {seconds_max:g} s: {len(found)} of {count} Tenants were visited")
            await asyncio.sleep(_POLL_SECONDS)

    @asynccontextmanager
    async def operator(self, resync_seconds: int = RESYNC_SECONDS) -> AsyncIterator[Server]:
        """Run the operator's process."""
        self.visits.unlink(missing_ok=True)
        port, kind = free_port(), self.fleet.kind
        variables = self.place.environment(0) | {
            "DECKLOG_DATABASE_OWNER_DSN": self.place.owner_dsn,
            "DECKLOG_SEARCH_REPLICAS": "0",
        }
        own = {
            "DECKLOG_OPERATOR_HEALTH_PORT": str(port),
            "DECKLOG_OPERATOR_RESYNC_SECONDS": str(resync_seconds),
            "DECKLOG_OPERATOR_RETRY_MAX_SECONDS": "60",
        }
        environment = operator_environment(self.fleet.kubernetes, self.rights, **own, **(variables if kind == "decklog" else {}))
        if kind == "empty":
            environment = {name: value for name, value in environment.items() if name not in own or "HEALTH" in name}
        argv = ["tests.bench.operator_process", kind, str(self.visits), str(port)]
        async with serving(argv, port, environment=environment, ready="/healthz") as server:
            yield server

    async def written(self) -> dict[str, object]:
        """Return marks that change with a write to any backend. Stop the operator first: PostgreSQL counts when a session ends."""
        return {
            **await self._rows_written(),
            **await self._indices_written(),
            **await asyncio.to_thread(self._queues_written),
            **await self.fleet.versions(),
        }

    async def _rows_written(self) -> dict[str, object]:
        connection = await asyncpg.connect(self.place.admin_dsn)
        try:
            # A session reports its writes when it ends, shortly after its client.
            async with asyncio.timeout(_REQUEST_SECONDS_MAX):
                while await connection.fetchval(_OTHERS):
                    await asyncio.sleep(_POLL_SECONDS)
            rows = await connection.fetch(
                "SELECT schemaname || '.' || relname AS name, n_tup_ins + n_tup_upd + n_tup_del AS written FROM pg_stat_user_tables"
            )
        finally:
            await connection.close()
        return {f"relation {row['name']}": row["written"] for row in rows}

    async def _indices_written(self) -> dict[str, object]:
        async with httpx.AsyncClient(base_url=self.place.settings.search.url, timeout=_REQUEST_SECONDS_MAX) as client:
            versions = ",".join(f"metadata.indices.*.{name}" for name in ("version", "mapping_version", "settings_version"))
            state = await client.get(f"/_cluster/state/metadata/{self.place.settings.prefix}*", params={"filter_path": versions})
            stats = await client.get(
                f"/{self.place.settings.prefix}*/_stats/indexing", params={"filter_path": "indices.*.total.indexing.*_total"}
            )
        # Both are empty without an index.
        indices = state.raise_for_status().json().get("metadata", {}).get("indices", {})
        indexing = stats.raise_for_status().json().get("indices", {})
        return {f"index {name}": (versions, indexing.get(name)) for name, versions in indices.items()}

    def sqs(self) -> Any:
        """Return a client of the queues' server."""
        queue = self.place.settings.queue
        return boto3.client(
            "sqs",
            endpoint_url=queue.endpoint_url,
            region_name=queue.region,
            aws_access_key_id=queue.access_key_id,
            aws_secret_access_key=queue.secret_access_key,
        )

    def _queues_written(self) -> dict[str, object]:
        client = self.sqs()
        pages = client.get_paginator("list_queues").paginate(QueueNamePrefix=self.place.settings.prefix)
        urls = [url for page in pages for url in page.get("QueueUrls", [])]
        return {
            f"queue {url}": client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]).get("Attributes") for url in urls
        }


def touched(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Return the names of the objects written between two results of `OperatorStand.written`."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


@asynccontextmanager
async def operator_stand(context: Context, kind: Kind) -> AsyncIterator[OperatorStand]:
    """Open a stand without Tenants and without a running operator. Raise UnavailableError if a backend is missing."""
    servers = context.servers
    kubernetes = Kubernetes(servers.kubernetes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rights = least_rights_kubeconfig(servers.kubernetes, folder)
        async with (
            stand(servers.postgres, servers.opensearch, servers.sqs, prefix=f"b{kubernetes.run}") as place,
            _client(servers.kubernetes) as client,
        ):
            fleet = Fleet(kind, kubernetes, client)
            watching = asyncio.create_task(fleet.watch())
            try:
                yield OperatorStand(fleet, place, folder, rights)
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
                await fleet.remove()
