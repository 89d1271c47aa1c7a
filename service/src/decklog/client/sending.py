"""Records that are sent from a file or a pipe: in bulks, and again under the same ids until the server has answered."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from decklog.client.bulks import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, raise_refused
from decklog.client.client import Client
from decklog.client.json_values import Piece
from decklog.client.patience import Patience
from decklog.domain.errors import Code, DecklogError
from decklog.shapes import BulkItem

ATTEMPTS_MAX = 8
"""Attempts for one bulk; with the waits between them, about a minute."""


class Sent(NamedTuple):
    """The answer for one record: its place in the input, its id, and what the server said; None where it could not be read."""

    place: str
    id: str
    item: BulkItem | None
    problem: str = ""


def with_id(record: bytes, make: Callable[[], str]) -> tuple[bytes, str]:
    """Return a record on one line, with the id that it has or gets, and that id. What is no object is for the server to refuse."""
    line = record.replace(b"\r", b" ").replace(b"\n", b" ").strip()  # within texts JSON escapes line ends
    try:
        members = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        if "id" in members:
            return line, msgspec.json.decode(members["id"], type=str)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line, ""
    made = make()
    rest = line[1:].lstrip()
    return b'{"id":' + msgspec.json.encode(made) + (b"" if rest.startswith(b"}") else b",") + rest, made


def maker(key: str | None) -> Callable[[], str]:
    """Return the function that makes ids: random ones, or `key/0`, `key/1` and so on, as an Idempotency-Key does."""
    if key is None:
        return lambda: str(uuid.uuid4())
    numbers = iter(range(2**63))
    return lambda: f"{key}/{next(numbers)}"


async def send_all(
    client: Client, pieces: Iterable[Piece], make: Callable[[], str], waiting: Callable[[str], None], told: Callable[[Sent], None]
) -> None:
    """Send every record, and pass each answer to `told`, in order.

    Args:
        client: The client.
        pieces: Records as they were read.
        make: Makes the id of a record without one.
        waiting: Is called with the reason before a wait.
        told: Is called with each answer.

    Raises:
        DecklogError: A bulk was refused as a whole, or was not answered in time. Records before it are answered.
    """
    for batch in _batches(pieces, make):
        readable = [each for each in batch if each[1] is not None]
        items = iter(await _append(client, [record for _, record, _ in readable if record is not None], waiting))
        for piece, record, made in batch:
            place = piece.place
            told(Sent(place, made, None, piece.problem) if record is None else Sent(place, made, next(items)))


_Waiting = tuple[Piece, bytes | None, str]


def _batches(pieces: Iterable[Piece], make: Callable[[], str]) -> Iterator[list[_Waiting]]:
    batch: list[_Waiting] = []
    size = 0
    for piece in pieces:
        record, made = (None, "") if piece.raw is None else with_id(piece.raw, make)
        length = len(record or b"")
        if batch and (len(batch) == BATCH_RECORDS_MAX or size + length > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append((piece, record, made))
        size += length
    if batch:
        yield batch


async def _append(client: Client, records: list[bytes], waiting: Callable[[str], None]) -> list[BulkItem]:
    """Send one bulk; ids make a retry safe. Smaller ones where the server takes no bulk of this size."""
    if not records:
        return []
    patience = Patience(waiting, attempts=ATTEMPTS_MAX)
    while True:
        try:
            items = (await client.append_bulk(records)).items
            raise_refused(items)
            return items
        except DecklogError as error:
            if error.code in _SMALLER and len(records) > 1:
                middle = len(records) // 2
                return [*await _append(client, records[:middle], waiting), *await _append(client, records[middle:], waiting)]
            await patience.wait(error)


_SMALLER = frozenset({Code.BATCH_EXCEEDS_BURST, Code.BODY_TOO_LARGE, Code.TOO_MANY_RECORDS})
