"""Records in answers: the stored bytes after the server's fields, and CSV without formulas."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.log import LogName
from decklog.domain.records.canonical import canonical, digest
from decklog.domain.records.record import StoredRecord
from decklog.domain.records.wire import CSV_COLUMNS, csv_cells, csv_header, csv_rows, evaluable, inert, render, renderer
from tests.support.strategies import TRAPS, prepared, values

RECEIVED = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def stored(value: dict[str, Any], *, seq: int = 5) -> StoredRecord:
    record = prepared({"action": "a", "actor": {"id": "alice"}, "occurred_at": "2026-01-01T00:00:00Z", **value})
    return StoredRecord(1, seq, RECEIVED, record.digest, record.content.decode())


def row(value: dict[str, Any]) -> dict[str, str]:
    """A record as a CSV reader sees it."""
    text = csv_header() + csv_rows([csv_cells("acme", LogName.EVENTS, stored(value))])
    (found,) = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    return found


def test_render_writes_the_servers_fields_before_the_content() -> None:
    record = stored({})
    assert render("acme", LogName.EVENTS, record) == (
        b'{"tenant":"acme","log":"events","epoch":1,"seq":5,"received_at":"2026-01-02T03:04:05.000006Z",'
        b'"digest":"sha256:' + record.digest.hex().encode() + b'",' + record.content[1:].encode()
    )


@given(values())
@settings(deadline=None)
def test_rendered_record_contains_the_hashed_content(value: dict[str, Any]) -> None:
    record = stored(value)
    shown = json.loads(render("acme", LogName.ACCESS, record))
    added = {name: shown.pop(name) for name in ("tenant", "log", "epoch", "seq", "received_at", "digest")}
    assert added["log"] == "access"
    assert "sha256:" + digest(canonical(shown)).hex() == added["digest"]


@given(values())
@settings(deadline=None)
def test_rendered_record_is_one_line(value: dict[str, Any]) -> None:
    line = renderer("acme", LogName.EVENTS)(stored(value))
    assert "\n" not in line
    assert "\r" not in line


def test_csv_columns_keep_their_order() -> None:
    assert csv_header() == (
        "seq,received_at,occurred_at,action,actor_type,actor_id,actor_name,resource_type,resource_id,resource_name,severity,"
        "outcome,source_ip,user_agent,session_id,correlation_id,id,message,metadata,before,after,related,digest,recorded_by,"
        "tenant,log,epoch,masked\r\n"
    )


def test_csv_cells_are_in_their_columns() -> None:
    value = {
        "id": "the-id",
        "actor": {"id": "the-actor", "type": "user", "name": "Alice"},
        "resource": {"type": "document", "id": "42", "name": "Plan"},
        "severity": "ERROR",
        "outcome": "denied",
        "message": 'said "no",\r\nthen left',
        "source": {"ip": "192.0.2.1", "user_agent": "curl"},
        "session_id": "s",
        "correlation_id": "c",
        "metadata": {"big": 2**70, "float": 1.0},
        "before": None,
        "after": [1, 2],
        "related": [{"type": "t"}],
    }
    found = row(value)
    assert found == {
        "seq": "5",
        "received_at": "2026-01-02T03:04:05.000006Z",
        "occurred_at": "2026-01-01T00:00:00Z",
        "action": "a",
        "actor_type": "user",
        "actor_id": "the-actor",
        "actor_name": "Alice",
        "resource_type": "document",
        "resource_id": "42",
        "resource_name": "Plan",
        "severity": "ERROR",
        "outcome": "denied",
        "source_ip": "192.0.2.1",
        "user_agent": "curl",
        "session_id": "s",
        "correlation_id": "c",
        "id": "the-id",
        "message": 'said "no",\r\nthen left',
        "metadata": '{"big":1180591620717411303424,"float":1}',
        "before": "null",
        "after": "[1,2]",
        "related": '[{"type":"t"}]',
        "digest": "sha256:" + stored(value).digest.hex(),
        "recorded_by": "",
        "tenant": "acme",
        "log": "events",
        "epoch": "1",
        "masked": "",
    }


def test_csv_cell_is_empty_for_an_absent_value() -> None:
    found = row({})
    assert {name for name, cell in found.items() if not cell} == set(CSV_COLUMNS) - {
        "seq",
        "received_at",
        "occurred_at",
        "action",
        "actor_id",
        "severity",
        "outcome",
        "digest",
        "tenant",
        "log",
        "epoch",
    }


@pytest.mark.parametrize(
    "formula", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]
)
def test_csv_cell_is_never_a_formula(formula: str) -> None:
    assert inert(formula)[0] == "'"
    found = row({"message": formula, "actor": {"id": formula, "name": formula}, "metadata": formula.strip()})
    assert found["message"] == found["actor_id"] == found["actor_name"] == inert(formula)
    assert evaluable(inert(formula)) == formula
    assert found["metadata"].startswith('"')


def test_csv_cell_of_a_negative_json_number_is_no_formula() -> None:
    assert row({"metadata": -5})["metadata"] == "'-5"


@pytest.mark.parametrize("text", ["", "a=b", " =1", "1-2", "user@example.org", "'quoted'"])
def test_inert_keeps_cells_that_are_no_formula(text: str) -> None:
    assert inert(text) == text


@pytest.mark.parametrize("text", ["a;=1+1", 'a;"=1+1', "a;'=1", "a\t=1", "hello\n=1", "a\r\n@x", ";=;+;-", "a;=b;c\n=d"])
def test_csv_cell_holds_no_formula_for_programs_that_separate_by_semicolon_or_tab(text: str) -> None:
    for separator in ";\t":
        cells = [cell.strip('"') for line in re.split("[\r\n]", inert(text)) for cell in line.split(separator)]
        assert not [cell for cell in cells if cell.startswith(tuple("=+-@"))]
    assert evaluable(inert(text)) == text


@given(st.text(alphabet=st.sampled_from("=+-@'\" ;\t\r\n\uff1dab,")))
@settings(deadline=None)
def test_guard_against_formulas_is_reversible(text: str) -> None:
    assert evaluable(inert(text)) == text


@given(value=values(), message=st.sampled_from(TRAPS))
@settings(deadline=None)
def test_csv_rows_read_back_as_written(value: dict[str, Any], message: str) -> None:
    record = stored({**value, "message": message})
    text = csv_header() + csv_rows([csv_cells("acme", LogName.EVENTS, record), csv_cells("acme", LogName.EVENTS, record)])
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert tuple(header) == CSV_COLUMNS
    assert rows == [csv_cells("acme", LogName.EVENTS, record)] * 2
    assert all(not cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")) for cell in rows[0])
    assert text.endswith("\r\n")
