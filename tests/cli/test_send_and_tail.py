"""`decklog send` and `decklog tail` before a running API: each record once, over broken connections and killed processes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from decklog.cli import program
from decklog.client.client import Client
from decklog.client.sending import maker, with_id
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.shapes import BulkAnswer
from tests.cli.conftest import store
from tests.support.api_world import World
from tests.support.served import served_world

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def world(config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The API with an empty log, and the key of the admin in the environment."""
    with served_world() as served:
        monkeypatch.setenv("DECKLOG_URL", served.url)
        monkeypatch.setenv("DECKLOG_KEY", served.keys["acme", Role.ADMIN])
        monkeypatch.setattr("decklog.client.patience._FIRST", 0.01)
        yield served


def stored(capsys: Printed, *words: str) -> list[dict[str, Any]]:
    """The records of the log, oldest first."""
    capsys.readouterr()
    program.run(["search", "--oldest", "-n", "10000", "-o", "ndjson", *words])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_options_describe_a_record(world: World, capsys: Printed) -> None:
    words = [
        "--action",
        "document.delete",
        "--actor",
        "user/alice",
        "--resource",
        "document/d-17",
        "--metadata",
        "reason=retention",
    ]
    words += ["--metadata", "bytes=4", "--outcome", "denied", "--ip", "192.0.2.1", "--session", "s-1", "--id", "evt-1"]
    assert program.run(["send", *words]) == 0
    assert capsys.readouterr().out == "stored as 0, id evt-1\n"
    assert program.run(["send", *words]) == 0
    assert capsys.readouterr().out == "duplicate as 0, id evt-1\n"
    [record] = stored(capsys)
    assert record["actor"] == {"type": "user", "id": "alice"}
    assert record["resource"] == {"type": "document", "id": "d-17"}
    assert record["metadata"] == {"reason": "retention", "bytes": "4"}
    assert (record["outcome"], record["source"], record["session_id"]) == ("denied", {"ip": "192.0.2.1"}, "s-1")
    assert program.run(["send", "--action", "x", "--actor", "y", "--metadata", "z"]) == 2
    assert program.run(["send", "--action", "x"]) == 2
    assert program.run(["send"]) == 2
    assert "decklog: Give a file" in capsys.readouterr().err


def test_file_in_any_form_of_json_is_sent_and_refused_records_are_named(
    world: World, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = '{"action":"a","actor":{"id":"x"},"metadata":{"n":1.10e2}}\n{"action":"b"}\n{"action":"c","actor":{"id":"x"},"id":"evt-c"}\n'
    (tmp_path / "lines").write_text(lines)
    assert program.run(["send", str(tmp_path / "lines")]) == 1
    printed = capsys.readouterr()
    assert [line.split(",")[0] for line in printed.out.splitlines()] == ["stored as 0", "stored as 1"]
    assert f"{tmp_path}/lines:2: invalid-record: " in printed.err
    assert printed.err.endswith("2 stored, 0 duplicate, 1 refused.\n")
    pretty = json.dumps([{"action": "d", "actor": {"id": "x"}}], indent=2)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(pretty.encode())))
    assert program.run(["send", "-", "-o", "ndjson"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["seq"]) == ("stored", 2)
    assert [record["id"] for record in stored(capsys)][1:] == ["evt-c", answer["id"]]


def test_lost_answers_are_asked_for_again_under_the_same_ids(
    world: World, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, losses = Client.append_bulk, [0, 1, 2, 5]

    async def lossy(self: Client, records: Any, **options: Any) -> BulkAnswer:
        answer = await append(self, records, **options)
        if losses:
            losses.pop()
            raise DecklogError(Code.OUTCOME_UNKNOWN, "The connection broke.")
        return answer

    monkeypatch.setattr(Client, "append_bulk", lossy)
    (tmp_path / "file").write_text("".join(f'{{"action":"a{n}","actor":{{"id":"x"}}}}\n' for n in range(700)))
    assert program.run(["send", str(tmp_path / "file")]) == 0
    assert "500 duplicate" in capsys.readouterr().err
    assert [record["action"] for record in stored(capsys)] == [f"a{n}" for n in range(700)]


def test_idempotency_key_makes_the_whole_command_repeatable(world: World, tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "file").write_text('{"action":"a","actor":{"id":"x"}}\n' * 3)
    for _ in range(2):
        assert program.run(["send", str(tmp_path / "file"), "--idempotency-key", "run-7"]) == 0
    assert [record["id"] for record in stored(capsys)] == ["run-7/0", "run-7/1", "run-7/2"]


def test_send_gives_up_with_exit_code_3(config: Path, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decklog.client.patience._FIRST", 0.001)
    words = ["--action", "a", "--actor", "x", "--url", "http://127.0.0.1:9", "--key", "dlk_x"]
    assert program.run(["send", *words]) == 3
    assert "cannot be reached" in capsys.readouterr().err


def test_id_is_added_without_touching_the_rest() -> None:
    make = maker("k")
    assert with_id(b' {\n "a": 1.10, "a": 2}\n', make) == (b'{"id":"k/0","a": 1.10, "a": 2}', "k/0")
    assert with_id(b"{ }", make) == (b'{"id":"k/1"}', "k/1")
    assert with_id(b'{"id": "own", "n": 123456789012345678901234567890}', make) == (
        b'{"id": "own", "n": 123456789012345678901234567890}',
        "own",
    )
    for odd in (b'{"id": 7}', b"[1]", b"{", b"\xff"):
        assert with_id(odd, make) == (odd, "")


# Tail


def record(number: int) -> dict[str, Any]:
    return {"action": f"a{number}", "actor": {"id": "x" if number % 2 else "y"}, "outcome": "success"}


def test_tail_begins_where_it_is_told_and_ends_after_its_limit(world: World, capsys: Printed) -> None:
    store(world, *map(record, range(6)))
    assert program.run(["tail", "--after", "-1", "-n", "2", "-c", "seq,action"]) == 0
    assert capsys.readouterr().out == "0\ta0\n1\ta1\n"
    assert program.run(["tail", "actor.id:x", "--after", "1", "-n", "2", "-o", "ndjson"]) == 0
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [3, 5]


def test_tail_continues_from_its_file_and_keeps_it_for_one_query(world: World, tmp_path: Path, capsys: Printed) -> None:
    store(world, *map(record, range(6)))
    words = ["tail", "--after", "-1", "--position", str(tmp_path / "place"), "-c", "seq"]
    for expected in ("0\n1\n", "2\n3\n", "4\n5\n"):
        assert program.run([*words, "-n", "2"]) == 0
        assert capsys.readouterr().out == expected
    assert program.run([*words, "actor.id:x", "-n", "2"]) == 2
    assert "Use a file for each." in capsys.readouterr().err
    (tmp_path / "place").write_text("17")
    assert program.run([*words, "-n", "2"]) == 2


def test_tail_reconnects_without_a_gap_or_a_double_and_says_so(
    world: World, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(world, *map(record, range(40)))
    events, cuts = Client.events, [1, 2, 1, 7, 3]

    @asynccontextmanager
    async def breaking(self: Client, parameters: Any = None) -> AsyncIterator[Any]:
        async with events(self, parameters) as found:
            if not cuts:
                yield found
                return
            left = cuts.pop()

            async def some() -> AsyncIterator[Any]:
                count = 0
                async for event in found:
                    yield event
                    count += 1
                    if count > left:
                        raise DecklogError(Code.OUTCOME_UNKNOWN, "The connection broke.")

            yield some()

    monkeypatch.setattr(Client, "events", breaking)
    assert program.run(["tail", "--after", "-1", "-n", "40", "-c", "seq"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(number) for number in range(40)]
    assert printed.err.count("Nothing was missed.") == 5


def test_tail_of_a_server_that_is_not_there_ends_at_once(config: Path, capsys: Printed) -> None:
    assert program.run(["tail", "--url", "http://127.0.0.1:9", "--key", "dlk_x"]) == 3
    assert "cannot be reached" in capsys.readouterr().err


def test_tail_that_is_killed_or_stopped_continues_exactly(world: World, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "decklog", "tail", "-o", "ndjson", "--after", "-1", "--position", str(tmp_path / "place")]
    out = tmp_path / "out"

    def seqs() -> list[int]:
        return [json.loads(line)["seq"] for line in out.read_text().splitlines()] if out.exists() else []

    def reach(count: int) -> subprocess.Popen[bytes]:
        with out.open("ab") as opened:
            process = subprocess.Popen(words, stdout=opened, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while len(set(seqs())) < count:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        return process

    store(world, *map(record, range(50)))
    killed = reach(50)
    killed.kill()
    killed.communicate(timeout=30)
    store(world, *map(record, range(50)))
    stopped = reach(100)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=30)
    assert stopped.returncode == 130
    assert b"Stopped. The same command continues here." in said
    assert sorted(set(seqs())) == list(range(100))
    assert len(seqs()) <= 101  # killed between a record and its position
