"""Preparing beside the event loop: the same records as on it, in turns by tenant, and a process that may end at any time."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.record import RECORD_BYTES_MAX, Prepared, prepare_sent
from decklog.domain.records.recorder import recorder
from decklog.services.records import preparing
from decklog.services.records.preparer import Handling
from decklog.services.records.preparing import Preparing
from tests.support.records import FINGERPRINT_KEY, body

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FLOATS = b'{"action":"a","actor":{"id":"x"},"metadata":[' + b",".join([b"1.5e300"] * 32_000) + b"]}"
"""As many floats as a record may have: each took 40 microseconds to decode."""


@pytest.fixture
async def beside() -> AsyncIterator[Preparing]:
    made = Preparing(FINGERPRINT_KEY)
    yield made
    await made.stop()


def shown(results: list[Prepared | DecklogError]) -> list[object]:
    return [(each.code, each.detail, each.extra) if isinstance(each, DecklogError) else each for each in results]


async def test_records_and_refusals_are_those_of_the_event_loop(beside: Preparing) -> None:
    raws = [
        body(id="own", metadata={"password": "x", "list": [0.5, 1e21, -0.0, 2**70]}),
        body(metadata="x" * 100_000, source={"ip": "::1"}, before=None),
        b'{"action":1}',
        b'{"action":"a","actor":{"id":"x","\\u0069d":"y"}}',
        b"{",
        body(message="\0"),
        FLOATS,
    ]
    by = recorder("api_key", "k", None, "::1")
    ids = [f"key/{number}" for number in range(len(raws))]
    here: list[Prepared | DecklogError] = []
    for raw, identity in zip(raws, ids, strict=True):
        try:
            here.append(prepare_sent(raw, now=NOW, fingerprint_key=FINGERPRINT_KEY, default_id=identity, recorder=by))
        except DecklogError as error:
            here.append(error)
    assert shown((await beside.prepare(1, raws, ids, Handling(NOW, by))).records) == shown(here)


async def test_event_loop_runs_while_a_bulk_of_float_arrays_is_prepared(beside: Preparing) -> None:
    turns = 0
    bulk = asyncio.create_task(beside.prepare(1, [FLOATS] * 8, [None] * 8, Handling(NOW)))
    while not bulk.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert len(FLOATS) < RECORD_BYTES_MAX
    assert len((await bulk).records) == 8
    # Each of the jobs lets the loop run many times; on the loop they would have run as one.
    assert turns > 8


async def test_jobs_of_tenants_take_turns_however_many_one_of_them_has(beside: Preparing) -> None:
    order: list[int] = []

    async def several(tenant: int, count: int) -> None:
        await beside.prepare(tenant, [FLOATS] * count, [None] * count, Handling(NOW))
        order.append(tenant)

    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(several(1, 2))
        await asyncio.sleep(0)
        group.create_task(several(2, 1))
    assert order.index(2) == 0


async def test_process_that_ends_fails_its_job_and_the_next_one_starts_another(
    beside: Preparing, monkeypatch: pytest.MonkeyPatch
) -> None:
    await beside.prepare(1, [FLOATS], [None], Handling(NOW))
    first = beside._process
    assert first is not None
    bulk = asyncio.create_task(beside.prepare(1, [FLOATS] * 4, [None] * 4, Handling(NOW)))
    await asyncio.sleep(0.01)
    first.kill()
    with pytest.raises(DecklogError) as caught:
        await bulk
    assert (caught.value.code, caught.value.retry_after) == (Code.OVERLOADED, 1)
    assert len((await beside.prepare(1, [FLOATS], [None], Handling(NOW))).records) == 1
    monkeypatch.setattr(preparing, "_JOB_SECONDS_MAX", 0)
    with pytest.raises(DecklogError):
        await beside.prepare(1, [FLOATS], [None], Handling(NOW))


async def test_process_has_no_variable_that_may_hold_a_credential(beside: Preparing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECKLOG_DATABASE_DSN", "postgres://secret")
    await beside.prepare(1, [FLOATS], [None], Handling(NOW))
    process = beside._process
    assert process is not None
    assert os.getpgid(process.pid) != os.getpgid(0)
    assert b"DECKLOG" not in Path(f"/proc/{process.pid}/environ").read_bytes()


async def test_request_that_was_cancelled_is_not_prepared(beside: Preparing) -> None:
    first = asyncio.create_task(beside.prepare(1, [FLOATS] * 3, [None] * 3, Handling(NOW)))
    await asyncio.sleep(0)
    second = asyncio.create_task(beside.prepare(1, [json.dumps({}).encode()] * 3, [None] * 3, Handling(NOW)))
    await asyncio.sleep(0)
    second.cancel()
    assert len((await first).records) == 3
    with pytest.raises(asyncio.CancelledError):
        await second
