"""Highlights of the records of one answer: bounded, and never of a record that cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.record import StoredRecord
from decklog.domain.search.query import parse
from decklog.services.search.highlighting import ANSWER_BYTES_MAX, Highlighting

CONTENT = {
    "action": "user.login",
    "actor": {"id": "alice"},
    "occurred_at": "2026-01-01T00:00:00Z",
    "severity": "INFO",
    "outcome": "success",
}


def _record(seq: int, **members: Any) -> StoredRecord:
    content = msgspec.json.encode({**CONTENT, **members}).decode()
    return StoredRecord(epoch=1, seq=seq, received_at=datetime(2026, 1, 1, tzinfo=UTC), digest=b"", content=content)


def test_answer_names_no_places_after_its_bound() -> None:
    _, query = parse([("q", "word")])
    highlighting = Highlighting(query)
    long = {"k" * 15_000: "word"}
    written = [highlighting(_record(seq, metadata=long)) for seq in range(90)]
    found = [msgspec.json.decode(each) for each in written]
    assert [each["seq"] for each in found] == list(range(90))
    assert all(bool(each["places"]) is not each["more"] for each in found)
    assert found[0]["places"]
    assert found[-1]["more"]
    assert sum(map(len, written)) < ANSWER_BYTES_MAX + 20_000


@pytest.mark.parametrize("content", ["{", '{"actor":{}}'])
def test_record_that_cannot_be_read_is_damaged(content: str) -> None:
    _, query = parse([("q", "a OR b")])
    record = msgspec.structs.replace(_record(7), content=content)
    with pytest.raises(DecklogError) as error:
        Highlighting(query)(record)
    assert error.value.code is Code.RECORD_DAMAGED
