"""The order of a log, as a check of stored records follows it: one record per number, times and epochs that never decrease."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec


class Place(NamedTuple):
    """Place of a stored record, and whether its content has its digest."""

    seq: int
    epoch: int
    received_at: datetime
    sound: bool


class Head(NamedTuple):
    """Head of a log at a moment."""

    epoch: int
    next_seq: int
    received_at: datetime


class Fault(msgspec.Struct, frozen=True):
    """A fault at one place of the database."""

    kind: str
    detail: str


class Order:
    """Follows the records of one log in the order of their numbers, from 0 on."""

    def __init__(self) -> None:
        self._last: Place | None = None
        self.records = 0

    @property
    def next_seq(self) -> int:
        """The number that the next record must have."""
        return 0 if self._last is None else self._last.seq + 1

    def follow(self, place: Place) -> Iterator[Fault]:
        """Take the next record, and yield what is wrong with it."""
        self.records += 1
        last, expected = self._last, self.next_seq
        if not place.sound:
            yield Fault("damaged", f"The content of record {place.seq} does not have its digest.")
        if last is not None and place.seq == last.seq:
            yield Fault("doubled", f"More than one record has the number {place.seq}.")
        elif place.seq != expected:
            yield Fault("gap", f"There is no record {expected}; the next one is {place.seq}.")
        if last is not None and place.received_at < last.received_at:
            yield Fault("disordered", f"Record {place.seq} was received before record {last.seq}.")
        if last is not None and place.epoch < last.epoch:
            yield Fault("disordered", f"Record {place.seq} has the epoch {place.epoch}, and record {last.seq} has {last.epoch}.")
        self._last = place

    def end(self, before: Head, after: Head | None) -> Iterator[Fault]:
        """Compare with the head, read before the first record and after the last one; `after` is None where it was removed."""
        if after is None:
            return
        last = self._last
        if self.next_seq < before.next_seq:
            yield Fault("head", f"The head counts {before.next_seq} records, but the last one is {self.next_seq - 1}.")
        if last is None:
            return
        if last.seq >= after.next_seq:
            yield Fault("head", f"The head counts {after.next_seq} records, but there is a record {last.seq}.")
        if last.epoch > after.epoch or last.received_at > after.received_at:
            yield Fault("head", f"Record {last.seq} is newer than the head: its epoch or its receipt time is greater.")
