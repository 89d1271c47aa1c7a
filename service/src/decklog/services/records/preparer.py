"""The process that prepares large records and bulks, so that the event loop never does: it decodes, masks and hashes.

It reads jobs from standard input and writes results to standard output, each a length of 4 bytes and MessagePack. It ends with its
input. It has the fingerprint key, which is its first message, and no other secret.
"""

from __future__ import annotations

import gc
import os
import sys
from datetime import datetime
from typing import Any, BinaryIO, Final

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.record import Prepared, decode, prepare

LENGTH_BYTES: Final = 4
_NICENESS: Final = 5
"""The event loop goes first where both want the processor."""


class Job(msgspec.Struct, array_like=True):
    """Records to prepare: as sent, the id of each that has none itself, the server's clock, and the credential that stores them."""

    raws: list[bytes]
    ids: list[str | None]
    now: datetime
    recorder: bytes | None = None


class Result(msgspec.Struct, array_like=True):
    """Outcome of each record of a job: `prepared` in order, None for those in `errors` (code and detail by index)."""

    prepared: list[Prepared | None]
    errors: dict[int, tuple[Code, str]] = {}


def prepared_or_refused(
    raw: bytes | msgspec.Raw, identity: str | None, *, now: datetime, key: bytes, recorder: bytes | None
) -> Prepared | DecklogError:
    """Return one record of a bulk prepared, or why it is not valid."""
    try:
        return prepare(decode(raw), now=now, fingerprint_key=key, default_id=identity, recorder=recorder)
    except DecklogError as error:
        return error


def prepared_of(job: Job, key: bytes) -> Result:
    """Prepare the records of a job."""
    result = Result([])
    for index, (raw, identity) in enumerate(zip(job.raws, job.ids, strict=True)):
        found = prepared_or_refused(raw, identity, now=job.now, key=key, recorder=job.recorder)
        if isinstance(found, DecklogError):
            result.prepared.append(None)
            result.errors[index] = found.code, found.detail
        else:
            result.prepared.append(found)
    return result


def _read(source: BinaryIO) -> bytes | None:
    length = source.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    size = int.from_bytes(length, "big")
    message = source.read(size)
    return message if len(message) == size else None


def framed(message: Any) -> bytes:
    """Return a message with its length in front."""
    encoded = msgspec.msgpack.encode(message)
    return len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded


def main() -> None:
    """Answer jobs until the input ends."""
    os.nice(_NICENESS)
    gc.disable()  # a record has no cycles; walking those under way would cost more than preparing them
    jobs = msgspec.msgpack.Decoder(Job)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    key = _read(source)
    while key is not None and (message := _read(source)) is not None:
        sink.write(framed(prepared_of(jobs.decode(message), key)))
        sink.flush()


if __name__ == "__main__":
    main()
