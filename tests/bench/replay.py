"""Records of a long log, made from few events: real ones of CloudTrail where their folder is present, else those of `payloads`.

Every round repeats the events with other times, ids and request ids; all else stays as it was. A record is a function of its number, so
several processes make the same records without each other: their contents for PostgreSQL and their documents for OpenSearch. Both hold
marks where the values of a record belong.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec

from decklog.domain.intake import cloudtrail
from decklog.domain.log import LogName, from_microseconds, microseconds
from decklog.domain.records.record import Prepared, RecordInput, decode, prepare
from decklog.domain.records.recorder import recorder
from decklog.domain.search.terms import terms
from decklog.domain.store import SearchDocument
from decklog.opensearch.documents import lines
from tests.bench import payloads
from tests.support import real_events

EVENTS = "cloudtrail_invictus.ndjson.gz"
MARK_ID = "f0e1d2c3-b4a5-4967-8ab8-f9e8d7c6b5a4"
MARK_TIME = "1999-08-07T16:05:04Z"
MARK_ROUND = "r8274619"
"""Values in the place of a record's id, time, and the end of its request id."""
_MADE_UP = 2_900
_DELAYS = 600
"""Seconds that an event may be older than its receipt: CloudTrail delivers within minutes."""
_WORDS = {mark: " ".join(re.findall("[a-z0-9]+", mark.lower())) for mark in (MARK_ID, MARK_TIME)}
"""The marks as documents hold the words of a text."""
_MARKS = re.compile("|".join([MARK_ID, MARK_TIME, MARK_ROUND, *_WORDS.values()]).encode())
_HEAD = re.compile(rb'\{"tenant_id":\d+,"log":0,"seq":\d+,"occurred_at":\d+,"occurred_ms":\d+,')
_RECORDER = recorder("api_key", "bench", None, "192.0.2.1")


def real() -> bool:
    """Return whether the folder with real events is present."""
    return (real_events.FOLDER / EVENTS).exists()


def _inputs() -> list[RecordInput]:
    """Return the events as clients would send them, in the order of their times, with marks."""
    if not real():
        made = [json.loads(payloads.record(number, MARK_ID)) for number in range(_MADE_UP)]
        changes = [{"occurred_at": MARK_TIME, "correlation_id": f"{each['correlation_id']}-{MARK_ROUND}"} for each in made]
        return [decode(json.dumps({**each, **change}).encode()) for each, change in zip(made, changes, strict=True)]
    with gzip.open(real_events.FOLDER / EVENTS) as found:
        events = sorted(map(json.loads, found), key=lambda event: str(event["eventTime"]))
    return [cloudtrail.record(_marked(event)) for event in events]


def _marked(event: dict[str, Any]) -> dict[str, Any]:
    request = {"requestID": f"{event['requestID']}-{MARK_ROUND}"} if event.get("requestID") else {}
    return {**event, "eventID": MARK_ID, "eventTime": MARK_TIME, **request}


class Replay(msgspec.Struct, frozen=True, dict=True):
    """The records `0 <= seq < count` of the events log of a tenant, received from `first` on, every `step` microseconds."""

    tenant_id: int
    count: int
    first: int
    step: int

    @classmethod
    def over(cls, tenant_id: int, count: int, first: datetime, last: datetime) -> Replay:
        """Return a replay that is received from `first` to `last`."""
        return cls(tenant_id, count, microseconds(first), (last - first) // timedelta(microseconds=1) // count)

    @cached_property
    def inputs(self) -> list[RecordInput]:
        """The events that every round repeats, as clients would send them."""
        return _inputs()

    @cached_property
    def events(self) -> list[Prepared]:
        """The events that every round repeats, as the service prepares them."""
        now = datetime.now(UTC)
        return [prepare(each, now=now, fingerprint_key=b"", recorder=_RECORDER) for each in self.inputs]

    @cached_property
    def _parts(self) -> list[tuple[list[bytes], list[bytes]]]:
        """For each event, the texts between the marks of its document, and the marks."""
        found = []
        for number, event in enumerate(self.events):
            body = _HEAD.sub(b"", lines(self._document(number, event.content), "").split(b"\n")[1])
            found.append((_MARKS.split(body), _MARKS.findall(body)))
        return found

    def received(self, seq: int) -> int:
        """Return the microseconds of the receipt of a record."""
        return self.first + self.step * seq

    def at(self, moment: datetime) -> int:
        """Return the number of the first record received at a time or later."""
        return min(self.count, max(0, -((self.first - microseconds(moment)) // self.step)))

    def received_at(self, seq: int) -> datetime:
        """Return the receipt time of a record."""
        return from_microseconds(self.received(seq))

    def occurred(self, seq: int) -> int:
        """Return the microseconds of the time of a record: whole seconds."""
        return (self.received(seq) // 1_000_000 - seq * 2_654_435_761 % _DELAYS) * 1_000_000

    def _values(self, seq: int) -> dict[str, str]:
        time = f"{from_microseconds(self.occurred(seq)).isoformat()[:19]}Z"
        digest = hashlib.md5(str(seq).encode(), usedforsecurity=False).hexdigest()
        parts = digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:]
        return {
            MARK_ID: "-".join(parts),
            MARK_TIME: time,
            MARK_ROUND: f"r{seq // len(self.events):07}",
            _WORDS[MARK_ID]: " ".join(parts),
            _WORDS[MARK_TIME]: time.lower().replace("-", " ").replace(":", " "),
        }

    def content(self, seq: int) -> str:
        """Return the content of a record."""
        return self._filled(self.events[seq % len(self.events)].content.decode(), seq)

    def _filled(self, text: str, seq: int) -> str:
        values = self._values(seq)
        for mark in (MARK_ID, MARK_TIME, MARK_ROUND):
            text = text.replace(mark, values[mark])
        return text

    def prepared(self, seq: int) -> Prepared:
        """Return a record as the service prepares it."""
        sent = self._filled(msgspec.json.encode(self.inputs[seq % len(self.inputs)]).decode(), seq)
        return prepare(decode(sent.encode()), now=datetime.now(UTC), fingerprint_key=b"", recorder=_RECORDER)

    def _document(self, seq: int, content: bytes | str) -> SearchDocument:
        found = terms(msgspec.json.decode(content), seq=seq, received_at=self.received_at(seq))
        return SearchDocument(self.tenant_id, LogName.EVENTS, 1, seq, self.received_at(seq), found)

    def document(self, seq: int, alias: str) -> bytes:
        """Return the two lines of a bulk that write the document of a record, as the indexer writes them."""
        texts, marks = self._parts[seq % len(self.events)]
        values = {mark.encode(): value.encode() for mark, value in self._values(seq).items()}
        occurred = self.occurred(seq)
        head = (
            f'{{"index":{{"_index":"{alias}","_id":"{self.tenant_id:010}0{1:06}{seq:015}"}}}}\n{{"tenant_id":{self.tenant_id},"log":0,'
            f'"seq":{seq},"occurred_at":{occurred},"occurred_ms":{occurred // 1_000},'
        )
        pieces = [head.encode(), texts[0]]
        for mark, text in zip(marks, texts[1:], strict=True):
            pieces += (values[mark], text)
        return b"".join(pieces) + b"\n"

    def check(self, seqs: Sequence[int]) -> None:
        """Raise RuntimeError where a record is not what the service would make."""
        for seq in seqs:
            content = self.content(seq)
            if not _alike(self.document(seq, "x"), lines(self._document(seq, content), "x")):
                raise RuntimeError(f"the document of {seq} is not that of the indexer")


def _alike(one: bytes, other: bytes) -> bool:
    """Return whether two documents differ in the order of unordered values at most."""
    first, second = ([json.loads(line) for line in each.splitlines()] for each in (one, other))
    ordered = [
        {name: sorted(value) if isinstance(value, list) else value for name, value in each[1].items()} for each in (first, second)
    ]
    return first[0] == second[0] and ordered[0] == ordered[1]


def range_of(starts: Sequence[int], received: int) -> int:
    """Return the place of the range that a receipt time belongs to."""
    return max(0, bisect_right(starts, received) - 1)
