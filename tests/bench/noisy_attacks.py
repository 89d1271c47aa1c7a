"""Attacks of the noisy neighbour: one function for each attack.

`python -m tests.bench.noisy_attacks` runs one in a process apart; see `tests.attacks.attacker`.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import random
from collections.abc import Sequence

from tests.attacks.attacker import Attacker, main, named
from tests.attacks.wire import read_answer, request

RECORDS_IN_16_MIB = 63
_RECORD_BYTES = 256 * 1024 - 1_024
SINCE = "from=2020-01-01T00:00:00Z"
BACKTRACKING = "a" + "kis" * 20 + "c"
"""A word of which only the first and the last letter are certain in a pattern; the 60 between match anything."""
GETS = 1_500


def record(**metadata: object) -> bytes:
    return json.dumps({"action": "attack", "actor": {"id": "mallory"}, "metadata": metadata}).encode()


def filled(item: str, joined: str, bytes_max: int = _RECORD_BYTES) -> str:
    """Return `item` repeated, with `joined` between, in as many bytes as fit."""
    return joined.join([item] * (bytes_max // (len(item) + len(joined))))


def bulk_of(records: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(records) + b"]"


@functools.cache
def float_record() -> bytes:
    """Return a record of 255 KiB that is an array of floats."""
    return record(x="#").replace(b'"#"', f"[{filled('1.5', ',')}]".encode())


def _export(query: str) -> str:
    return f"/api/v1/logs/export?format=ndjson&{SINCE}{query}"


async def backtracking_exports(attacker: Attacker) -> None:
    """Ten exports at once, each for a word whose pattern would backtrack over records of 240 KB."""
    await attacker.repeat(request("GET", _export(f"&q={BACKTRACKING}"), attacker.job.auditor), 10)


async def float_bulk(attacker: Attacker) -> None:
    """A bulk of 16 MiB of records that are arrays of floats, less than 100 KB as gzip, again and again."""
    body = gzip.compress(bulk_of([float_record()] * RECORDS_IN_16_MIB), 1)
    sent = request("POST", "/api/v1/logs/bulk", attacker.job.writer, body, content_encoding="gzip")
    await attacker.repeat(sent, 1)


async def costly_metadata_filter(attacker: Attacker) -> None:
    """Lists whose filter no pattern narrows, so that every record of floats is matched."""
    await attacker.repeat(request("GET", f"/api/v1/logs?{SINCE}&metadata.x=%C3%A9", attacker.job.auditor), 4)


async def gzip_bulk_flood(attacker: Attacker) -> None:
    """14 connections that repeat a bulk of 16 MiB which is less than 100 KiB as gzip."""
    body = gzip.compress(bulk_of([record(x="x" * _RECORD_BYTES)] * RECORDS_IN_16_MIB), 1)
    await attacker.repeat(request("POST", "/api/v1/logs/bulk", attacker.job.writer, body, content_encoding="gzip"), 14)


async def bulk_beside_singles(attacker: Attacker) -> None:
    """Bulks of 10,000 small records, one after the other."""
    await attacker.repeat(request("POST", "/api/v1/logs/bulk", attacker.job.writer, bulk_of([record(x=1)] * 10_000)), 1)


async def endless_headers(attacker: Attacker) -> None:
    """Four connections that send headers without end and without a credential: one long value, or many short ones."""
    begun = b"GET /api/v1/logs HTTP/1.1\r\nhost: decklog\r\nx-endless: "
    await asyncio.gather(attacker.hold(2, begun, b"a" * 65_536), attacker.hold(2, begun, b"a\r\nb: " * 12_000))


async def half_open(attacker: Attacker) -> None:
    """3,000 requests whose head does not end."""
    await attacker.hold(3_000, b"POST /api/v1/logs HTTP/1.1\r\nhost: decklog\r\ncontent-le")


async def stalled_bulks(attacker: Attacker) -> None:
    """30 bulks of 16 MiB that lack their last byte."""
    sent = request("POST", "/api/v1/logs/bulk", attacker.job.writer, b"[" + b" " * (16 * 1024 * 1024 - 2) + b"]")
    await attacker.hold(30, sent[:-1])


async def unread_lists(attacker: Attacker) -> None:
    """30 lists of 1,000 records that the client does not read."""
    await attacker.leave_unread(30, request("GET", "/api/v1/logs?limit=1000", attacker.job.auditor))


async def unread_exports(attacker: Attacker) -> None:
    """Ten exports that the client does not read, and an eleventh that it reads now and then."""
    sent = request("GET", _export(""), attacker.job.auditor)
    async with asyncio.TaskGroup() as group:
        group.create_task(attacker.leave_unread(10, sent))
        group.create_task(attacker.repeat(request("GET", _export("&action=none"), attacker.job.auditor), 1))


async def unreadable_quota(attacker: Attacker) -> None:
    """1,500 reads with long filters, so that the access log grows by more than the tenant's quota has left."""
    chance = random.Random(13)
    left = GETS
    await attacker.begin()

    async def read() -> None:
        nonlocal left
        opened = await attacker.streams()
        while left > 0:
            left -= 1
            noise = [f"{chance.getrandbits(4_000):x}" for _ in range(2)]
            target = f"/api/v1/logs?limit=1&actor={noise[0]}&resource_id={noise[1]}"
            opened[1].write(request("GET", target, attacker.job.auditor))
            attacker.note(await read_answer(opened[0]))

    await asyncio.gather(*(read() for _ in range(4)))


ATTACKS = named(
    backtracking_exports,
    float_bulk,
    costly_metadata_filter,
    gzip_bulk_flood,
    bulk_beside_singles,
    endless_headers,
    half_open,
    stalled_bulks,
    unread_lists,
    unread_exports,
    unreadable_quota,
)


if __name__ == "__main__":
    main(ATTACKS)
