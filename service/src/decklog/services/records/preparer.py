"""The process that prepares large records and bulks, so that the event loop never does: it decodes, masks and hashes.

It reads jobs from standard input and writes results to standard output, each a length of 4 bytes and MessagePack. It ends with its
input. It has the fingerprint key, which is its first message, and no other secret.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from decklog.domain.errors import Code, DecklogError
from decklog.domain.faults import FAULTS_MAX
from decklog.domain.records.idempotency import item_form
from decklog.domain.records.record import RECORD_BYTES_MAX, Prepared, prepare_sent
from decklog.domain.records.rejected import kept_form
from decklog.domain.records.trimming import OVERSIZE_BYTES_MAX, Trimmed, trim, with_removed

LENGTH_BYTES: Final = 4
JOB_FAULTS_MAX: Final = 100
"""Faults that are looked for in a job, beyond the first of each record: finding all takes ten times as long as refusing."""
_NICENESS: Final = 5
"""The event loop goes first where both want the processor."""


class Handling(msgspec.Struct, array_like=True, frozen=True):
    """How the records of one request are prepared.

    Args:
        now: The server's clock.
        recorder: The credential that stores them; see `domain.records.recorder`.
        tenant: Name of the tenant, for refusals.
        bytes_max: Largest record of the tenant, as sent.
        with_forms: Whether each record's form is wanted, by which a bulk with a key is recognised.
        trims: Whether a record that is too large or too deep is trimmed, as `domain.records.trimming` does.
        keeps: Whether what is kept of a rejected record is wanted.
    """

    now: datetime
    recorder: bytes | None = None
    tenant: str = ""
    bytes_max: int = RECORD_BYTES_MAX
    with_forms: bool = False
    trims: bool = False
    keeps: bool = False


class Job(msgspec.Struct, array_like=True):
    """Records to prepare: as sent, and the id of each that has none itself."""

    raws: list[bytes]
    ids: list[str | None]
    handling: Handling


class Result(msgspec.Struct, array_like=True):
    """Outcome of each record of a job: `prepared` in order, and the forms.

    Those in `errors` (by index: code, detail and faults) are None in `prepared`, and `kept` has what is kept of them.
    """

    prepared: list[Prepared | None]
    errors: dict[int, tuple[Code, str, list[dict[str, Any]]]] = {}
    forms: list[bytes] = []
    kept: dict[int, bytes | None] = {}


class Preparation(NamedTuple):
    """Records prepared in their order, each or why it is not valid, and the form of each where it was wanted.

    `kept` has what is kept of records that are not valid, by index.
    """

    records: list[Prepared | DecklogError]
    forms: list[bytes]
    kept: dict[int, bytes | None]


def prepared_here(
    raws: Sequence[bytes | msgspec.Raw], ids: Sequence[str | None], handling: Handling, *, key: bytes
) -> Preparation:
    """Prepare records in this process. `ids` has the id of each that has none itself; `key` is the fingerprint key.

    Refusals list all faults of a record; those after the first `JOB_FAULTS_MAX` faults list one.
    """
    records: list[Prepared | DecklogError] = []
    room = JOB_FAULTS_MAX
    for raw, identity in zip(raws, ids, strict=True):
        found = _prepared_or_refused(raw, identity, handling, key, max(1, min(room, FAULTS_MAX)))
        if isinstance(found, DecklogError):
            room -= len(found.extra.get("errors", ()))
        records.append(found)
    rejected = [index for index, each in enumerate(records) if isinstance(each, DecklogError)] if handling.keeps else []
    return Preparation(
        records,
        [item_form(raw, key) for raw in raws] if handling.with_forms else [],
        {index: kept_form(raws[index]) for index in rejected},
    )


def _prepared_or_refused(
    raw: bytes | msgspec.Raw, identity: str | None, handling: Handling, key: bytes, faults_max: int = FAULTS_MAX
) -> Prepared | DecklogError:
    if len(memoryview(raw)) > handling.bytes_max:
        refused = too_large(handling.tenant, handling.bytes_max)
    else:
        try:
            return prepare_sent(
                raw,
                now=handling.now,
                fingerprint_key=key,
                default_id=identity,
                recorder=handling.recorder,
                faults_max=faults_max,
            )
        except DecklogError as error:
            refused = error
    if not handling.trims or len(memoryview(raw)) > OVERSIZE_BYTES_MAX:
        return refused
    smaller = trim(raw, handling.bytes_max)
    return refused if smaller is None else _prepared_trimmed(smaller, identity, handling, key)


def _prepared_trimmed(smaller: Trimmed, identity: str | None, handling: Handling, key: bytes) -> Prepared | DecklogError:
    found = _prepared_or_refused(smaller.sent, identity, replace(handling, trims=False), key)
    return found if isinstance(found, DecklogError) else with_removed(found, smaller.removed, key)


def too_large(tenant: str, bytes_max: int) -> DecklogError:
    """Return the refusal of a record above the tenant's limit."""
    return DecklogError(Code.BODY_TOO_LARGE, f"A record of the tenant {tenant!r} may have at most {bytes_max} bytes.")


def prepared_of(job: Job, key: bytes) -> Result:
    """Prepare the records of a job."""
    found = prepared_here(job.raws, job.ids, job.handling, key=key)
    return Result(
        [None if isinstance(each, DecklogError) else each for each in found.records],
        {
            index: (each.code, each.detail, each.extra.get("errors", []))
            for index, each in enumerate(found.records)
            if isinstance(each, DecklogError)
        },
        found.forms,
        found.kept,
    )


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
