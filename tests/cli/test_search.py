"""`decklog search`, `show` and `top` before a running API."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from decklog.cli import program
from decklog.cli.output import fitted, shortened
from decklog.cli.zone import local_zone
from decklog.domain.identity.access import Role
from decklog.domain.records.sentence import sentence
from tests.cli.conftest import store
from tests.support.api_world import World

Printed = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
RECORDS: Sequence[Mapping[str, Any]] = (
    {
        "action": "user.login",
        "actor": {"id": "alice", "name": "Alice Ng"},
        "occurred_at": "2026-01-31T23:30:00Z",
        "source": {"ip": "192.0.2.17"},
        "outcome": "success",
    },
    {"action": "user.login", "actor": {"id": "bob"}, "occurred_at": "2026-02-01T10:00:00Z", "outcome": "denied"},
    {
        "action": "role.update",
        "actor": {"id": "alice", "name": "Alice Ng"},
        "occurred_at": "2026-01-30T08:00:00Z",
        "resource": {"type": "role", "id": "r-1"},
        "outcome": "success",
        "message": "=1+1\u001b[31m\tend",
        "before": {"role": "viewer"},
        "after": {"role": "admin"},
        "metadata": {"exact": 12345678901234567890123, "rate": 1.10, "tags": ["a", "b"]},
    },
)


@pytest.fixture(scope="module", autouse=True)
def records(served: World) -> None:
    store(served, *RECORDS)


def lines(capsys: Printed) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_pipe_gets_one_line_for_each_record_newest_first(auditor: World, capsys: Printed) -> None:
    assert program.run(["search"]) == 0
    found = [line.split("\t") for line in lines(capsys)]
    assert found == [
        ["2", "2026-01-30T08:00:00Z", "Alice Ng", "role.update", "role r-1", "success"],
        ["1", "2026-02-01T10:00:00Z", "bob", "user.login", "", "denied"],
        ["0", "2026-01-31T23:30:00Z", "Alice Ng", "user.login", "", "success"],
    ]
    assert program.run(["search", "--by", "occurred", "--oldest", "--columns", "seq"]) == 0
    assert lines(capsys) == ["2", "0", "1"]


def test_words_of_a_query_are_joined_unless_quotes_are_lost(auditor: World, capsys: Printed) -> None:
    assert program.run(["search", "actor:alice", "action:role.*", "-c", "seq"]) == 0
    assert lines(capsys) == ["2"]
    assert program.run(["search", "actor:alice", "role update"]) == 2
    assert "Quote it as a whole: 'actor:alice role update'" in capsys.readouterr().err


def test_nothing_found_is_exit_code_1(auditor: World, capsys: Printed) -> None:
    assert program.run(["search", "carol"]) == 1
    assert capsys.readouterr() == ("", "Nothing was found.\n")
    assert program.run(["search", "carol", "--count"]) == 1
    assert program.run(["search", "alice", "--count"]) == 0
    assert lines(capsys) == ["0", "2"]


def test_refused_query_shows_the_place_and_what_was_meant(auditor: World, capsys: Printed) -> None:
    assert program.run(["search", "actr:alice outcome:denied"]) == 2
    [why, query, carets] = capsys.readouterr().err.splitlines()
    assert why.startswith("decklog: q: There is no field 'actr'.")
    assert "Did you mean `actor`?" in why
    assert query[carets.index("^") : carets.rindex("^") + 1] == "actr"


def test_json_and_ndjson_keep_the_bytes_of_the_server(auditor: World, capsys: Printed) -> None:
    assert program.run(["search", "role.update", "-o", "ndjson"]) == 0
    [line] = lines(capsys)
    assert '"exact":12345678901234567890123,"rate":1.1' in line
    assert program.run(["search", "-o", "json", "--limit", "2"]) == 0
    [document] = lines(capsys)
    assert line in document
    found = json.loads(document)
    assert [item["seq"] for item in found["items"]] == [2, 1]
    assert found["next"]
    assert program.run(["show", "2", "-o", "json"]) == 0
    assert lines(capsys) == [line]


def test_csv_has_a_heading_and_nothing_that_a_spreadsheet_evaluates(auditor: World, capsys: Printed) -> None:
    assert program.run(["search", "role.update", "-o", "csv", "-c", "seq,message,metadata.exact,metadata.tags"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["seq", "message", "metadata.exact", "metadata.tags"]
    assert rows[1][0] == "2"
    assert rows[1][1].startswith("'=1+1")
    assert rows[1][2:] == ["12345678901234567890123", '["a","b"]']


def test_times_are_in_the_zone_that_is_asked_for(auditor: World, capsys: Printed) -> None:
    assert program.run(["search", "seq:0", "-c", "time", "--zone", "Europe/Amsterdam"]) == 0
    assert lines(capsys) == ["2026-02-01T00:30:00+01:00"]
    assert program.run(["search", "--zone", "Europe/Amsterdm"]) == 2
    assert "Did you mean Europe/Amsterdam?" in capsys.readouterr().err
    assert local_zone()


def test_columns_that_do_not_exist_are_refused(auditor: World, capsys: Printed) -> None:
    assert program.run(["search", "-c", "seq,actr"]) == 2
    assert "'actr' is no column. Columns are seq, time," in capsys.readouterr().err


def test_explain_prints_a_command_of_curl_without_the_key_that_does_the_same(auditor: World, capsys: Printed) -> None:
    assert program.run(["search", "alice", "-n", "1", "--explain"]) == 0
    command = capsys.readouterr().out
    key = auditor.keys["acme", Role.AUDITOR]
    assert key not in command
    assert '"Authorization: Bearer $DECKLOG_KEY"' in command
    done = subprocess.run(["bash", "-c", command], env={**os.environ, "DECKLOG_KEY": key}, capture_output=True, check=True)
    assert [item["seq"] for item in json.loads(done.stdout)["items"]] == [2]


def test_show_says_in_one_sentence_what_a_record_is_about(auditor: World, capsys: Printed) -> None:
    assert program.run(["show", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Alice Ng updated role r-1: allowed\n")
    assert "\x1b" not in printed
    assert '  "exact": 12345678901234567890123,\n' in printed
    assert program.run(["show", "17"]) == 1
    assert "decklog: " in capsys.readouterr().err


def test_top_counts_values_intervals_and_fields_that_the_server_does_not_count(auditor: World, capsys: Printed) -> None:
    assert program.run(["top", "actor.id"]) == 0
    assert lines(capsys) == ["alice\t2", "bob\t1"]
    assert program.run(["top", "source.ip", "user.login"]) == 0
    assert capsys.readouterr() == ("192.0.2.17\t1\n", "1 without source.ip.\n")
    assert program.run(["top", "metadata.tags", "--limit", "1", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"items": [{"value": "a", "count": 1}], "field": "metadata.tags", "other": 1, "missing": 2}
    assert program.run(["top", "day", "--zone", "Europe/Amsterdam"]) == 0
    assert lines(capsys) == ["2026-01-30\t1", "2026-02-01\t2"]
    assert program.run(["top", "dya"]) == 2
    assert "Intervals: minute, hour, day" in capsys.readouterr().err


def test_reader_that_goes_away_is_silent(auditor: World) -> None:
    words = f"{sys.executable} -m decklog search -o ndjson | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.startswith("{")


def test_terminal_gets_a_table_that_fits_it(auditor: World) -> None:
    """A real terminal of 60 columns, in front of a process of its own."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "decklog", "search", "--zone", "UTC"], stdout=slave, stderr=slave, stdin=slave,
        env={**environment, "TERM": "xterm-256color"}, cwd=ROOT,
    ) as process:  # fmt: skip
        os.close(slave)
        printed = b""
        with contextlib.suppress(OSError):  # Linux reports the end of a terminal as EIO
            while piece := os.read(master, 65_536):
                printed += piece
        assert process.wait(30) == 0
    os.close(master)
    text = printed.decode()
    assert "\x1b[32msuccess\x1b[0m" in text
    rows = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert rows[0].split() == ["SEQ", "TIME", "ACTOR", "ACTION", "RESOUR…", "OUTCOME"]
    assert [row.split()[:2] for row in rows[1:]] == [["2", "2026-01-30"], ["1", "2026-02-01"], ["0", "2026-01-31"]]
    assert max(map(cell_len, rows)) <= 60


def test_completion_offers_fields_and_contexts(auditor: World, config: Path, capsys: Printed) -> None:
    config.parent.mkdir(parents=True)
    config.write_text('{"contexts": {"prod-auditor": {"url": "https://decklog.example.com", "key": "x"}}}')
    config.chmod(0o600)
    for words, offered in (
        (["use", ""], "prod-auditor"),
        (["search", "--context", "p"], "prod-auditor"),
        (["search", "act"], "actor.id:"),
        (["search", "--columns", ""], "received"),
        (["top", "sou"], "source"),
    ):
        program.run(["__complete", *words])
        assert offered in capsys.readouterr().out


# How a table fits its terminal

widths = st.lists(st.tuples(st.integers(0, 80), st.booleans()), min_size=1, max_size=8)


@given(widths, st.integers(0, 300))
def test_columns_are_narrowed_no_more_than_needed(columns: list[tuple[int, bool]], room: int) -> None:
    natural, fixed = [width for width, _ in columns], [kept for _, kept in columns]
    found = fitted(natural, fixed, room)
    assert all(new == old if kept else min(old, 6) <= new <= old for new, old, kept in zip(found, natural, fixed, strict=True))
    loose = [new for new, kept in zip(found, fixed, strict=True) if not kept]
    if sum(natural) <= room:
        assert found == natural
    elif any(width > 6 for width in loose):
        assert sum(found) == room
    narrowed = [new for new, old in zip(found, natural, strict=True) if new < old]
    assert not narrowed or max(loose) - min(narrowed) <= 1


@given(st.text(alphabet="aé東 ", max_size=40), st.integers(2, 40), st.booleans())
def test_shortened_text_fits_and_keeps_the_end_that_it_should(text: str, width: int, tail: bool) -> None:
    found = shortened(text, width, tail=tail)
    assert cell_len(found) <= width
    kept = found.strip("…")
    assert text.endswith(kept) if tail else text.startswith(kept)
    assert found == text or "…" in found


@pytest.mark.parametrize(
    ("facts", "expected"), json.loads((ROOT / "board/src/api/sentences.json").read_text()), ids=lambda each: str(each)[:60]
)
def test_sentence_is_that_of_the_board(facts: Mapping[str, Any], expected: str) -> None:
    record = {"action": "user.login", "actor": {"id": "u_7"}, "outcome": "success", **facts}
    assert sentence(record) == expected
