"""Archives: parts form a chain without a gap, and every changed record is found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from decklog.domain.archive.manifest import (
    ArchivedLog,
    ArchiveManifest,
    Part,
    chain,
    manifest_name,
    manifest_problems,
    part_name,
    part_problems,
)
from decklog.domain.log import LogName
from decklog.domain.records.canonical import digest
from decklog.domain.records.record import StoredRecord
from tests.support.memory import make_tenant

AT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
EVENTS = LogName.EVENTS


def record(seq: int, **changes: Any) -> StoredRecord:
    content = f'{{"action":"number.{seq}"}}'
    return replace(StoredRecord(1, seq, AT, digest(content.encode()), content), **changes)


def part(first: int, last: int, sha256: str = "a" * 64) -> Part:
    return Part(f"acme/uid/events/{first}.parquet", 1, first, last, last - first + 1, 10, sha256)


def manifest(*parts: Part, next_seq: int | None = None, **changes: Any) -> ArchiveManifest:
    end = next_seq if next_seq is not None else (parts[-1].last_seq + 1 if parts else 0)
    logs = {"events": ArchivedLog(end, parts), "access": ArchivedLog(0, ())}
    return replace(ArchiveManifest("acme/uid/manifest-1-0.json", "acme", "uid", "Dedicated", "", logs), **changes)


sizes = st.lists(st.integers(1, 5), max_size=8)


def cut(first: int, lengths: list[int]) -> list[Part]:
    found: list[Part] = []
    for length in lengths:
        found.append(part(first, first + length - 1))
        first += length
    return found


@given(sizes, st.integers(0, 3), st.randoms(use_true_random=False))
def test_chain_orders_parts_and_leaves_out_those_of_abandoned_attempts(lengths: list[int], first: int, chance: Any) -> None:
    parts = cut(first, lengths)
    given_up = [
        part(each.first_seq + 1, each.last_seq + 1, "b" * 64) for each in parts if each.rows > 1 and chance.random() < 0.5
    ]
    mixed = [*parts, *given_up]
    chance.shuffle(mixed)
    found, end = chain(mixed)
    assert found == parts
    assert end == (parts[-1].last_seq + 1 if parts else 0)
    assert manifest_problems(manifest(*parts)) == []


@given(sizes.filter(lambda lengths: len(lengths) > 1), st.data())
def test_chain_ends_at_a_missing_part(lengths: list[int], data: st.DataObject) -> None:
    parts = cut(0, lengths)
    lost = data.draw(st.integers(1, len(parts) - 1))
    rest = [*parts[:lost], *parts[lost + 1 :]]
    assert manifest_problems(manifest(*rest, next_seq=parts[-1].last_seq + 1))
    _, end = chain(rest)
    assert end == parts[lost].first_seq


@given(st.integers(0, 5), st.integers(1, 9), st.data())
def test_part_problems_reports_a_changed_missing_doubled_or_added_record(first: int, count: int, data: st.DataObject) -> None:
    records = [record(seq) for seq in range(first, first + count)]
    whole = part(first, first + count - 1)
    assert part_problems(whole, records) == []
    at = data.draw(st.integers(0, count - 1))
    one = records[at]
    for wrong in (
        [*records[:at], *records[at + 1 :]],
        [*records[:at], one, *records[at:]],
        [*records[:at], replace(one, content=one.content.replace("number", "nothing")), *records[at + 1 :]],
        [*records[:at], replace(one, digest=digest(b"another")), *records[at + 1 :]],
        [*records[:at], replace(one, epoch=2), *records[at + 1 :]],
        [*records, record(first + count)],
    ):
        assert part_problems(whole, wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (manifest(format="decklog.archive.v9"), "format"),
        (manifest(logs={"events": ArchivedLog(0, ())}), "the log 'access' is missing"),
        (manifest(part(0, 3), next_seq=9), "the log ends before 9"),
        (manifest(part(0, 3), part(5, 8)), "record 3 is followed by 5"),
    ],
)
def test_manifest_problems_reports_what_is_incomplete(wrong: ArchiveManifest, told: str) -> None:
    assert told in " ".join(manifest_problems(wrong))


def test_manifest_problems_accepts_a_log_that_starts_above_zero() -> None:
    assert manifest_problems(manifest(part(7, 9))) == []
    assert manifest_problems(manifest(next_seq=5)) == []


def test_part_and_manifest_names_differ_by_tenant_place_and_content() -> None:
    tenant = replace(make_tenant("acme"), uid="b3f1/../x")
    one = part_name(tenant, EVENTS, 1, 0, "a" * 64)
    assert one == "acme/b3f1%2F%2E%2E%2Fx/events/1-0000000000000000-aaaaaaaaaaaaaaaa.parquet"
    assert one == part_name(tenant, EVENTS, 1, 0, "a" * 64)
    others = {
        part_name(tenant, EVENTS, 1, 0, "b" * 64),
        part_name(tenant, EVENTS, 1, 1, "a" * 64),
        part_name(tenant, EVENTS, 2, 0, "a" * 64),
        part_name(tenant, LogName.ACCESS, 1, 0, "a" * 64),
        part_name(replace(tenant, uid="other"), EVENTS, 1, 0, "a" * 64),
        manifest_name(tenant, {EVENTS: 1, LogName.ACCESS: 2}),
        manifest_name(tenant, {EVENTS: 2, LogName.ACCESS: 2}),
    }
    assert len(others) == 7
    assert one not in others
