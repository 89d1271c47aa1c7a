"""The story as a list of records: two weeks of work, and the break-in inside of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from msgspec.structs import replace

from decklog.demo import work
from decklog.demo.break_in import break_in
from decklog.demo.strand import time_of
from decklog.domain.records.record import RecordInput

SPAN = timedelta(days=14)
_SEED = 1492

REFUSED = (
    b'{"action": "label.print", "actor": {"id": "label-printer"}, "severity": "info", "resource": {"type": "order", "id": "order-4711"}}',
    b'{"action": "label.print", "actor": "label-printer", "outcome": "success"}',
    b'{"action": "till.close", "user": "u-tomas", "occurred_at": "30.11.2026 18:02", "metadata": {"sum": 1204.5}}',
    b'{"action": "till.close", "actor": {"id": "u-priya"}, "outcome": "ok", "metadata": {"sum": 980.25}}',
)
"""Records of an old label printer and of a till, which the API rejects: they show what becomes of such records."""


def story(end: datetime, seed: int = _SEED) -> list[RecordInput]:
    """Return the story in the order of time: the same for the same arguments. Its last record is before `end`."""
    rng = Random(seed)
    begin = end - SPAN
    records = [*_days(rng, begin, end), *break_in(rng, end)]
    told = sorted((record for record in records if begin <= time_of(record) < end), key=time_of)
    return [replace(record, id=f"story-{number:05}") for number, record in enumerate(told)]


def _days(rng: Random, begin: datetime, end: datetime) -> Iterator[RecordInput]:
    midnight = begin.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    while midnight < end:
        yield from work.day(rng, midnight)
        midnight += timedelta(days=1)


def live(seed: int) -> Iterator[RecordInput]:
    """Yield ordinary records without end, ids and times: they happen when they are sent."""
    rng = Random(seed)
    while True:
        for record in work.moment(rng, datetime.now(UTC)):
            yield replace(record, occurred_at=None)
