"""Appends the story to the tenant `demo` through the API, once, and then a record every few seconds.

It is a client as any other: it has the tenant's writer key and nothing else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec
import structlog

from decklog.client.client import Client
from decklog.demo.story import REFUSED, live, story
from decklog.domain.errors import DecklogError
from decklog.domain.pauses import backoff, jittered
from decklog.domain.records.record import RecordInput

TENANT = "demo"
MANIFEST = Path(__file__).with_name("demo.yaml")
"""The manifest of the tenant."""
_BULK = 500
"""Records of one request: as many as the API stores at once."""
_PAUSE = 4.0
"""Seconds between two live records, on average."""
_LIVE_MAX = 5_000
"""Live records of one run: about six hours of them."""
_RETRY_FIRST, _RETRY_LONGEST = 1.0, 60.0
"""Seconds before another attempt after a failure."""

_log = structlog.get_logger("decklog.demo")


class Progress(msgspec.Struct, frozen=True):
    """How far the story has been told: the time that it ends at, and how many of its records are stored."""

    end: datetime
    stored: int = 0
    whole: bool = False


def begin(state: Path, *, taken: bool) -> bool:
    """Begin the story where `state` has none, before its tenant is created. False where a tenant of that name is `taken` by others."""
    if state.exists():
        return True
    if not taken:
        _saved(state, Progress(datetime.now(UTC)))
    return not taken


async def tell(url: str, key: Callable[[], str], state: Path, stop: asyncio.Event) -> None:
    """Store what the file `state` does not say is stored, then live records, until `stop` is set. Failures are logged and repeated.

    Args:
        url: Address of the API.
        key: Returns the writer key of the tenant, which may be replaced while this runs.
        state: File that `begin` made. It makes the story the same after a restart, and be told once.
        stop: Ends the telling.
    """
    records, failures = islice(live(os.getpid()), _LIVE_MAX), 0
    while not stop.is_set():
        try:
            async with Client(url, key()) as client:
                await _tell_story(client, state, stop)
                failures = 0
                await _trickle(client, records, stop)
                await stop.wait()
        except DecklogError as error:
            failures += 1
            _log.warning("demo records are not stored", code=error.code.value, reason=error.detail)
            await _pause(stop, backoff(failures, first=_RETRY_FIRST, longest=_RETRY_LONGEST))


async def _tell_story(client: Client, state: Path, stop: asyncio.Event) -> None:
    progress = msgspec.json.decode(await asyncio.to_thread(state.read_bytes), type=Progress)
    if progress.whole:
        return
    records = await asyncio.to_thread(_encoded, progress.end)
    while progress.stored < len(records):
        if stop.is_set():
            return
        part = records[progress.stored : progress.stored + _BULK]
        await client.append_bulk(part, atomic=True)  # part after part: their numbers follow their times
        progress = _saved(state, msgspec.structs.replace(progress, stored=progress.stored + len(part)))
    await client.append_bulk(REFUSED)
    _saved(state, msgspec.structs.replace(progress, whole=True))
    _log.info("demo story stored", tenant=TENANT, records=len(records))


def _encoded(end: datetime) -> list[bytes]:
    return [msgspec.json.encode(record) for record in story(end)]


async def _trickle(client: Client, records: Iterator[RecordInput], stop: asyncio.Event) -> None:
    for record in records:
        await _pause(stop, jittered(_PAUSE, 0.5))
        if stop.is_set():
            return
        await client.append(msgspec.json.encode(record))


def _saved(state: Path, progress: Progress) -> Progress:
    """Replace the file, so that a reader never sees half of it."""
    partial = state.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(progress))
    partial.replace(state)
    return progress


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
