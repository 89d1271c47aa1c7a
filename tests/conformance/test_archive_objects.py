"""Conformance of `ArchiveObjects`: a bucket and a folder store objects and report errors alike."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from decklog.domain.archive.manifest import ArchiveError, ArchiveObjects
from decklog.files.archive import FolderObjects
from decklog.s3.objects import KEEP_UNTIL, S3Objects
from tests.backends import S3Server
from tests.support.archives import archive_settings, bucket, s3_client

NAME = "acme/uid-1/events/1-0000000000000000-0123456789abcdef.parquet"
SECRET = "very-secret-key"


@pytest.fixture(params=["folder", "s3", "s3 below a prefix"])
async def objects(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ArchiveObjects]:
    if request.param == "folder":
        yield FolderObjects(tmp_path / "archive")
        return
    server: S3Server = request.getfixturevalue("s3_server")
    async with bucket(server) as name:
        made = S3Objects(archive_settings(server, name, prefix="audit/decklog" if "prefix" in request.param else ""))
        yield made
        await made.close()


async def reason_of(call: Any) -> str:
    with pytest.raises(ArchiveError) as caught:
        await call
    assert SECRET not in str(caught.value)
    return caught.value.reason


async def test_put_objects_are_read_back_unchanged_and_may_be_put_again(objects: ArchiveObjects) -> None:
    for content in (b"", b"one", bytes(range(256)) * 4_096):
        await objects.put(NAME, content)
        await objects.put(NAME, content)
        assert await objects.get(NAME, bytes_max=len(content)) == content
    later = datetime.now(UTC) + timedelta(days=1)
    await objects.put("other/x.json", b"{}", keep_until=later)
    assert await objects.get("other/x.json", bytes_max=2) == b"{}"
    assert not await objects.locked()


async def test_get_distinguishes_missing_and_too_large_objects(objects: ArchiveObjects) -> None:
    await objects.put(NAME, b"12345")
    assert await reason_of(objects.get(NAME + ".other", bytes_max=9)) == "NotFound"
    assert await reason_of(objects.get(NAME, bytes_max=4)) == "Damaged"


async def test_s3_errors_name_missing_bucket_denial_and_unreachable_server(s3_server: S3Server) -> None:
    async with bucket(s3_server) as name:
        for settings, reason in (
            (archive_settings(s3_server, "decklog-never-made"), "NoBucket"),
            (archive_settings(s3_server, name, secret_access_key=SECRET), "AccessDenied"),
            (archive_settings(s3_server, name, endpoint_url="http://127.0.0.1:9", secret_access_key=SECRET), "Unreachable"),
        ):
            objects = S3Objects(settings)
            assert await reason_of(objects.put(NAME, b"x")) == reason
            assert await reason_of(objects.get(NAME, bytes_max=1)) == reason
            await objects.close()


async def test_put_into_an_impossible_folder_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert await reason_of(FolderObjects(tmp_path / "file").put(NAME, b"x")) == "Unreachable"


@pytest.mark.parametrize("mode", ["governance", "compliance"])
async def test_object_lock_prevents_deletion_before_the_date(s3_server: S3Server, mode: str) -> None:
    client, until = s3_client(s3_server), datetime.now(UTC) + timedelta(days=2)
    async with bucket(s3_server, lock=True) as name:
        objects = S3Objects(archive_settings(s3_server, name, lock_mode=mode))
        assert await objects.locked()
        await objects.put(NAME, b"evidence", keep_until=until)
        told = await asyncio.to_thread(client.head_object, Bucket=name, Key=NAME)
        assert told["ObjectLockMode"] == mode.upper()
        assert abs(told["ObjectLockRetainUntilDate"] - until) < timedelta(seconds=2)
        assert told["Metadata"][KEEP_UNTIL] == until.strftime("%Y-%m-%dT%H:%M:%SZ")
        with pytest.raises(ClientError):
            await asyncio.to_thread(client.delete_object, Bucket=name, Key=NAME, VersionId=told["VersionId"])
        assert await objects.get(NAME, bytes_max=99) == b"evidence"
        await objects.close()


async def test_bucket_without_object_lock_stores_the_date_as_metadata(s3_server: S3Server) -> None:
    client, until = s3_client(s3_server), datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    async with bucket(s3_server) as name:
        objects = S3Objects(archive_settings(s3_server, name))
        await objects.put(NAME, b"evidence", keep_until=until)
        told = await asyncio.to_thread(client.head_object, Bucket=name, Key=NAME)
        assert told["Metadata"] == {KEEP_UNTIL: "2030-01-02T03:04:05Z"}
        assert told.get("ObjectLockMode") is None
        await objects.close()


async def test_put_sends_the_checksum_to_s3(s3_server: S3Server) -> None:
    client = s3_client(s3_server)
    async with bucket(s3_server) as name:
        objects = S3Objects(archive_settings(s3_server, name))
        await objects.put(NAME, b"evidence")
        told = await asyncio.to_thread(client.head_object, Bucket=name, Key=NAME, ChecksumMode="ENABLED")
        assert told["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"evidence").digest()).decode()
        await objects.close()
