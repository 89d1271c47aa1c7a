"""Archiving a tenant into a real bucket while workers are killed; the files are verified with `decklog archive verify` alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decklog.assembly import control_plane
from decklog.domain.tenancy.spec import parse_spec
from decklog.domain.tenancy.status import ARCHIVE
from tests.backends import PostgresServer, S3Server
from tests.support.archives import bucket, s3_client
from tests.support.chance import seeded
from tests.support.stack import Stack, installed
from tests.support.stores import Database, drop_database, new_database

SPEC: dict[str, Any] = {
    "retention": {"days": 30, "archiveDays": 1},
    "isolation": "Shared",
    "deletionPolicy": "Archive",
    "deletionProtection": False,
}
RECORDS = 2_000
KILLS = 2


def variables_of(server: S3Server) -> dict[str, str]:
    return {
        "DECKLOG_ARCHIVE_ENDPOINT_URL": server.url,
        "DECKLOG_ARCHIVE_REGION": server.region,
        "DECKLOG_ARCHIVE_ACCESS_KEY_ID": server.access_key,
        "DECKLOG_ARCHIVE_SECRET_ACCESS_KEY": server.secret_key,
    }


async def verified(place: str, *words: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
    return await asyncio.to_thread(
        lambda: subprocess.run(
            [sys.executable, "-m", "decklog", "archive", "verify", place, *words],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    )


async def fill(stack: Stack) -> None:
    api = await stack.api()
    record = {"action": "document.create", "actor": {"id": "alice"}, "metadata": {"text": "x" * 2_000}}
    async with stack.client(api.url, stack.key("acme", "writer")) as client:
        for _ in range(RECORDS // 1_000):
            answer = await client.post("/api/v1/logs/bulk", json=[record] * 1_000)
            assert answer.json()["stored"] == 1_000, answer.text
    assert await asyncio.to_thread(api.stop) == 0


async def removed(stack: Stack, database: Database) -> str:
    """Delete the tenant while workers are killed one after the other, at random moments; return the last message of the archive's condition."""
    chance = seeded()
    left = [chance.uniform(0.1, 1.0) for _ in range(KILLS)]
    async with control_plane.open_provisioner(stack.settings) as provisioner:
        manifest = await provisioner.manifest("acme", parse_spec(SPEC))
        async with asyncio.timeout(240):
            while not (status := await provisioner.remove(manifest)).synced:
                if left:
                    worker = await stack.worker()
                    await asyncio.sleep(left.pop())
                    await asyncio.to_thread(worker.kill)
                    # Its lease would end by itself.
                    await database.execute("UPDATE decklog.cursors SET leased_until = 'epoch'")
                    if not left:
                        await stack.worker()
                await asyncio.sleep(0.5)
        return status.condition(ARCHIVE).message


async def test_archive_is_complete_and_verifiable_when_workers_are_killed(
    postgres_server: PostgresServer, s3_server: S3Server, tmp_path: Path
) -> None:
    database = await new_database(postgres_server)
    try:
        async with bucket(s3_server) as name:
            access = variables_of(s3_server)
            own = {**access, "DECKLOG_ARCHIVE_BUCKET": name, "DECKLOG_ARCHIVE_PREFIX": "audit"}
            async with installed(tmp_path, service_dsn=database.service_dsn, owner_dsn=database.owner_dsn, **own) as stack:
                await stack.provision(acme=SPEC)
                await fill(stack)
                message = await removed(stack, database)
                logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
                assert s3_server.secret_key not in logs
            key = f"audit/{message.rpartition(' ')[2].rstrip('.')}"
            whole = await verified(f"s3://{name}/{key}", variables=access)
            assert whole.returncode == 0, whole.stdout + whole.stderr
            assert f"{RECORDS} in events" in whole.stdout
            found = json.loads((await verified(f"s3://{name}/{key}", "--json", variables=access)).stdout)
            assert (found["sound"], found["logs"]["events"], found["tenant"]) == (True, RECORDS, "acme")
            await copied_and_spoiled(s3_server, name, key, tmp_path)
    finally:
        await drop_database(database)


async def copied_and_spoiled(server: S3Server, name: str, key: str, folder: Path) -> None:
    """Check that a copy in a folder verifies, and that one changed bit is found."""
    client = s3_client(server)
    listed = (await asyncio.to_thread(client.list_objects_v2, Bucket=name, Prefix="audit/acme/"))["Contents"]
    for each in listed:
        path = folder / "copy" / each["Key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(client.download_file, name, each["Key"], str(path))
    manifest = folder / "copy" / key
    assert (await verified(str(manifest), variables={})).returncode == 0
    part = folder / "copy/audit" / json.loads(manifest.read_text())["logs"]["events"]["parts"][0]["name"]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    told = await verified(str(manifest), variables={})
    assert told.returncode == 1
    assert part.name in told.stdout
    part.unlink()
    assert (await verified(str(manifest), variables={})).returncode == 1
    nothing = await verified(str(folder / "a/b/manifest-0-0.json"), variables={})
    assert (nothing.returncode, nothing.stdout) == (2, "")
