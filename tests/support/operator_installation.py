"""The backends of one operator on real servers, and the traces that its work leaves in them."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import boto3
import httpx

from tests.backends import OpenSearchServer
from tests.backends.sqs import SqsServer
from tests.support.stores import Database

ROLES = ("writer", "auditor", "admin")


class Installation:
    """The backends of one operator."""

    def __init__(self, database: Database, search: OpenSearchServer, sqs: SqsServer) -> None:
        self.database, self.search, self.sqs = database, search, sqs
        self.prefix = f"t{secrets.token_hex(4)}"

    @property
    def variables(self) -> dict[str, str]:
        return {
            "DECKLOG_PREFIX": self.prefix,
            "DECKLOG_SEARCH_URL": self.search.url,
            "DECKLOG_SEARCH_REPLICAS": "0",
            "DECKLOG_QUEUE_ENABLED": "true",
            "DECKLOG_QUEUE_ENDPOINT_URL": self.sqs.url,
            "DECKLOG_QUEUE_REGION": self.sqs.region,
            "DECKLOG_QUEUE_ACCESS_KEY_ID": self.sqs.access_key,
            "DECKLOG_QUEUE_SECRET_ACCESS_KEY": self.sqs.secret_key,
        }

    async def row(self, name: str) -> Any:
        [row] = await self.database.execute("SELECT * FROM decklog.tenants WHERE name = $1", name)
        return row

    async def live_hashes(self, name: str) -> set[bytes]:
        """Return the hashes of keys without an end."""
        sql = (
            "SELECT hash FROM decklog.api_keys WHERE revoked_at IS NULL AND expires_at IS NULL"
            " AND tenant_id = (SELECT id FROM decklog.tenants WHERE name = $1)"
        )
        return {row["hash"] for row in await self.database.execute(sql, name)}

    async def has_schema(self, schema: str) -> bool:
        return bool(
            await self.database.execute("SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'records'", schema)
        )

    async def traces(self, names: Sequence[str]) -> dict[str, list[tuple[Any, ...]]]:
        """Return the traces of work in the database: each tenant's actions from its access log, and all keys it ever had."""
        found: dict[str, list[tuple[Any, ...]]] = {}
        for name in names:
            row = await self.row(name)
            done = await self.database.execute(
                f'SELECT seq, content FROM "{row["schema"]}".records WHERE log = 1 AND tenant_id = $1 ORDER BY seq', row["id"]
            )
            keys = await self.database.execute("SELECT * FROM decklog.api_keys WHERE tenant_id = $1 ORDER BY id", row["id"])
            found[name] = [tuple(each) for each in (*done, *keys)]
        return found

    async def done_to(self, name: str) -> Counter[str]:
        """Return how often each action on the tenant succeeded, by its access log."""
        row = await self.row(name)
        records = await self.database.execute(
            f'SELECT content FROM "{row["schema"]}".records WHERE log = 1 AND tenant_id = $1 AND outcome = 0', row["id"]
        )
        return Counter(action for each in records for action in json.loads(each["content"])["metadata"].get("actions", ()))

    def ranges(self, index: str) -> list[str]:
        """Return the indices of the ranges of an index."""
        return list(httpx.get(f"{self.search.url}/{index}.*/_settings").raise_for_status().json())

    def drop_index(self, index: str) -> None:
        for name in self.ranges(index):
            httpx.delete(f"{self.search.url}/{name}").raise_for_status()

    @property
    def queue_client(self) -> Any:
        return boto3.client(
            "sqs",
            endpoint_url=self.sqs.url,
            region_name=self.sqs.region,
            aws_access_key_id=self.sqs.access_key,
            aws_secret_access_key=self.sqs.secret_key,
        )

    def queues(self) -> set[str]:
        """Return the queues of this installation only."""
        urls = self.queue_client.list_queues(QueueNamePrefix=self.prefix).get("QueueUrls", [])
        return {url.rpartition("/")[2] for url in urls}

    def drop_queue(self, queue: str) -> None:
        self.queue_client.delete_queue(QueueUrl=self.queue_client.get_queue_url(QueueName=queue)["QueueUrl"])


def keys_of(secret: dict[str, Any] | None) -> dict[str, str]:
    data = (secret or {}).get("data") or {}
    return {name: base64.b64decode(value).decode() for name, value in data.items() if name in ROLES}


def hashes(secret: dict[str, Any] | None) -> set[bytes]:
    return {hashlib.sha256(key.encode()).digest() for key in keys_of(secret).values()}


Installing = Callable[..., Any]
