"""Cold caches: what the engines and the kernel hold of one log is dropped, so that the next reading begins at the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from tests.bench.asking import searched
from tests.bench.long_log import Loaded, admin


async def drop_caches(log: Loaded) -> str:
    """Drop the caches of both engines and of the kernel, as far as this machine holds the files; return what remains, for people."""
    left = []
    async with admin(log.place) as connection:
        await connection.execute("CHECKPOINT")
        folder = Path(await connection.fetchval("SHOW data_directory"))
        try:
            await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_buffercache")
            await connection.execute("SELECT pg_buffercache_evict_all()")
        except asyncpg.PostgresError:
            left.append("shared buffers of PostgreSQL")
    live = log.customer.tenant.live
    assert live is not None
    url, names = log.place.settings.search.url, ",".join(live.range_indices)
    # A closed index has no files mapped into memory, and the kernel keeps mapped pages.
    searched(url, "POST", f"/{names}/_flush", None)
    searched(url, "POST", f"/{names}/_close", None)
    nodes = searched(url, "GET", "/_nodes/stats/fs", None)["nodes"]
    folders = [folder, *(Path(each["path"]) for node in nodes.values() for each in node["fs"]["data"])]
    dropped = sum(map(_drop, folders))
    searched(url, "POST", f"/{names}/_open?wait_for_active_shards=all", None)
    if not dropped:
        left.append("pages of the kernel")
    return f"caches kept: {', '.join(left)}" if left else "all caches dropped"


def _drop(folder: Path) -> int:
    """Let the kernel drop the pages of all files of a folder; return how many files there are."""
    files = 0
    for path in _files(folder):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # removed meanwhile, or not ours to read
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        files += 1
    return files


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
