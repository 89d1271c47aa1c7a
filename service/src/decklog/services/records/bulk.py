"""One bulk while it is stored: which of its records are valid, which share an id, and what became of each.

This module stores nothing; `ingest` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.append import Appended, Receipt, Status
from decklog.domain.records.record import Prepared
from decklog.domain.records.rejected import DETAIL_CHARS_MAX, OF_RECORDS, Rejection
from decklog.services.records.queue import GROUP_RECORDS_MAX, QUANTUM_BYTES


class Sender(msgspec.Struct, frozen=True):
    """The credential of a request, as `recorded_by` has it, and the id of the request."""

    recorder: bytes | None = None
    request_id: str = ""


class Sent(NamedTuple):
    """A record as it came: its bytes, the id that the request's key gives it, and its sender."""

    raw: bytes | msgspec.Raw
    key: str | None
    sender: Sender

    def rejection(self, error: DecklogError, at: datetime, kept: bytes | None, valid: Prepared | None = None) -> Rejection:
        """Return the record as it is kept after a rejection: of a valid one what would have been stored, else its kept form."""
        return Rejection(
            at=at,
            code=error.code.value,
            detail=error.detail[:DETAIL_CHARS_MAX],
            record_id=self.key,
            recorder=(self.sender.recorder or b"{}").decode(),
            request_id=self.sender.request_id,
            size=len(memoryview(self.raw)),
            content=kept if valid is None else valid.content,
            as_stored=valid is not None,
        )


def conflicting(receipt: Receipt) -> DecklogError:
    """Return the refusal of a record whose id belongs to a record with other content."""
    return DecklogError(
        Code.ID_CONFLICT,
        f"The id was already used for other content, stored as seq {receipt.seq}. Nothing was stored; use a new id for a new record.",
        extra={"seq": receipt.seq},
    )


ANSWER_FAULTS_MAX = 1_000
"""Faults that the answer to a bulk lists."""
Part = list[tuple[int, Prepared]]
"""Records of one request to the store, each with its index in the bulk."""


class Bulk:
    """The records of one bulk while they are stored: rejected ones, the first of each id, and the twins of these.

    `fresh` lists the records to store, each with its index in the bulk. `kept` has what is kept of records that are not valid.
    """

    def __init__(self, count: int, kept: Mapping[int, bytes | None]) -> None:
        self.fresh: Part = []
        self._count = count
        self._kept = kept
        self._twins: list[tuple[int, int, Prepared]] = []
        self._first: dict[str, int] = {}
        self._fingerprints: dict[int, bytes | None] = {}
        self._items: dict[int, Receipt | DecklogError] = {}

    def reject(self, index: int, error: DecklogError) -> None:
        """Note that a record is not valid."""
        self._items[index] = error

    def add(self, index: int, prepared: Prepared) -> None:
        """Note a valid record."""
        original = index if prepared.id is None else self._first.setdefault(prepared.id, index)
        if original == index:
            self.fresh.append((index, prepared))
            self._fingerprints[index] = prepared.fingerprint
        else:
            self._twins.append((index, original, prepared))

    def refuse_unless_storable(self) -> None:
        """Raise `batch-rejected` where a record is not valid, or two of one id differ."""
        clashing = [index for index, original, twin in self._twins if not self._same(twin, original)]
        if clashing or self._items:
            raise self._rejected(dict.fromkeys(clashing))

    def parts(self) -> Iterator[Part]:
        """Yield the fresh records in parts that each fit into one group."""
        part: Part = []
        size = 0
        for index, prepared in self.fresh:
            if part and (len(part) >= GROUP_RECORDS_MAX or size + len(prepared.content) > QUANTUM_BYTES):
                yield part
                part, size = [], 0
            part.append((index, prepared))
            size += len(prepared.content)
        if part:
            yield part

    def refuse_from(self, part: Part, error: DecklogError) -> None:
        """Note that a part was refused, and that the parts after it were not sent."""
        later = error
        if error.code is Code.OUTCOME_UNKNOWN:
            later = DecklogError(
                Code.OVERLOADED, "An earlier part of the bulk failed; this record was not stored. Send it again."
            )
        for index, _ in self.fresh:
            if index > part[-1][0]:
                self._items[index] = later
            elif index >= part[0][0]:
                self._items[index] = error

    def note(self, part: Part, appended: Appended) -> None:
        """Note what became of a part. Raises `batch-rejected` where none was stored."""
        for (index, prepared), receipt in zip(part, appended.receipts, strict=True):
            self._items[index] = replace(receipt, trimmed=prepared.trimmed) if prepared.trimmed else receipt
        if not appended.stored:
            raise self._rejected({i: r for i, r in self._items.items() if isinstance(r, Receipt) and r.status is Status.CONFLICT})

    def items(self) -> list[Receipt | DecklogError]:
        """Return what became of each record, in the order sent."""
        for index, original, twin in self._twins:
            self._items[index] = _as_twin(self._items[original], same=self._same(twin, original))
        return [_without_conflict(self._items[index]) for index in range(self._count)]

    def rejections(self, raws: Sequence[bytes | msgspec.Raw], key: str | None, sender: Sender, at: datetime) -> list[Rejection]:
        """Return the records that were rejected for what they are, after `items`."""
        valid = dict(self.fresh) | {index: twin for index, _, twin in self._twins}
        found: list[Rejection] = []
        for index in range(self._count):
            error = _without_conflict(self._items[index])
            if isinstance(error, DecklogError) and error.code in OF_RECORDS:
                sent = Sent(raws[index], None if key is None else f"{key}/{index}", sender)
                found.append(sent.rejection(error, at, self._kept.get(index), valid.get(index)))
        return found

    def _same(self, twin: Prepared, original: int) -> bool:
        return twin.fingerprint == self._fingerprints[original]

    def _rejected(self, conflicts: Mapping[int, Receipt | None]) -> DecklogError:
        return _batch_rejected([self._items.get(index) for index in range(self._count)], conflicts)


def _without_conflict(item: Receipt | DecklogError) -> Receipt | DecklogError:
    return conflicting(item) if isinstance(item, Receipt) and item.status is Status.CONFLICT else item


def _as_twin(original: Receipt | DecklogError, *, same: bool) -> Receipt | DecklogError:
    if isinstance(original, DecklogError):
        return original
    status = Status.CONFLICT if original.status is Status.CONFLICT or not same else Status.DUPLICATE
    return replace(original, status=status)


def _batch_rejected(items: Sequence[Any], conflicts: Mapping[int, Receipt | None]) -> DecklogError:
    rejected: dict[int, DecklogError] = {}
    for index, item in enumerate(items):
        if index in conflicts:
            receipt = conflicts[index]
            twin = DecklogError(Code.ID_CONFLICT, "Another record of this batch has the same id.")
            rejected[index] = conflicting(receipt) if receipt else twin
        elif isinstance(item, DecklogError):
            rejected[index] = item
    errors = [{"index": index, "code": error.code.value, "detail": error.detail} for index, error in rejected.items()]
    withheld: dict[str, Any] = {"status": "withheld"}
    told = [shown_rejected(rejected[index]) if index in rejected else withheld for index in range(len(items))]
    cut_faults(told)
    return DecklogError(
        Code.BATCH_REJECTED,
        f"{len(errors)} of {len(items)} records cannot be stored, so none was.",
        extra={"errors": errors[:100], "rejected": len(errors), "items": told},
    )


def shown_rejected(error: DecklogError) -> dict[str, Any]:
    """Return a rejected record as the answer shows it."""
    faults = {"errors": error.extra["errors"]} if "errors" in error.extra else {}
    return {"status": "rejected", "error": {"code": error.code.value, "detail": error.detail, **faults}}


def cut_faults(items: Sequence[dict[str, Any]]) -> None:
    """Take the list of faults away from the items of an answer beyond `ANSWER_FAULTS_MAX`. The detail of each keeps its first fault."""
    room = ANSWER_FAULTS_MAX
    for item in items:
        faults = item.get("error", {}).get("errors", ())
        if len(faults) > room:
            del item["error"]["errors"]
        else:
            room -= len(faults)
