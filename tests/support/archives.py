"""Archives for tests: buckets on a real S3 server, and objects that fail on purpose."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import boto3

from decklog.domain.archive.manifest import ArchiveError, ArchiveObjects
from decklog.settings import Archive
from tests.backends import S3Server


def archive_settings(server: S3Server, bucket: str, **changes: Any) -> Archive:
    values: dict[str, Any] = {
        "bucket": bucket,
        "endpoint_url": server.url,
        "region": server.region,
        "access_key_id": server.access_key,
        "secret_access_key": server.secret_key,
    }
    return Archive(**{**values, **changes})


def s3_client(server: S3Server) -> Any:
    return boto3.session.Session().client(
        "s3",
        region_name=server.region,
        endpoint_url=server.url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )


@asynccontextmanager
async def bucket(server: S3Server, *, lock: bool = False) -> AsyncIterator[str]:
    """Create a bucket. It is not deleted, because objects in it may be locked."""
    name, client = f"decklog-test-{secrets.token_hex(6)}", s3_client(server)
    await asyncio.to_thread(client.create_bucket, Bucket=name, ObjectLockEnabledForBucket=lock)
    try:
        yield name
    finally:
        client.close()


class TamperedObjects:
    """Objects that are changed or fail: `spoil` replaces the content of the next file, `failing` is raised while it is set."""

    def __init__(self, inner: ArchiveObjects) -> None:
        self.inner = inner
        self.spoil: bytes | None = None
        self.failing: ArchiveError | None = None
        self.names: list[str] = []

    @property
    def place(self) -> str:
        return self.inner.place

    async def put(self, name: str, content: bytes, *, keep_until: datetime | None = None) -> None:
        if self.failing is not None:
            raise self.failing
        if self.spoil is not None:
            content, self.spoil = self.spoil, None
        self.names.append(name)
        await self.inner.put(name, content, keep_until=keep_until)

    async def get(self, name: str, *, bytes_max: int) -> bytes:
        if self.failing is not None:
            raise self.failing
        return await self.inner.get(name, bytes_max=bytes_max)

    async def locked(self) -> bool:
        return await self.inner.locked()
