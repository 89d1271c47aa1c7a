"""`decklog export` and `decklog story` before a running API: complete or not there, however often it breaks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog.cli import program
from decklog.client.client import Client, Exported
from decklog.client.export_file import ExportFile, Wanted
from decklog.client.progress import Progress
from decklog.client.relative_times import settled
from decklog.client.splitting import Rows, whole_records
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.search import syntax
from tests.cli.conftest import store
from tests.support.api_world import World

Printed = pytest.CaptureFixture[str]
COUNT = 40


@pytest.fixture(scope="module", autouse=True)
def records(served: World) -> None:
    store(
        served,
        *(
            {
                "id": f"evt-{number}",
                "action": f"document.{'read' if number % 4 else 'delete'}",
                "actor": {"id": ("alice", 'b"o\n\r\nb', "carol")[number % 3]},
                "resource": {"type": "document", "id": f"d-{number % 5}"},
                "occurred_at": f"2026-01-{31 - number % 30:02}T10:00:00Z",
                "session_id": f"s-{number % 2}",
                "message": 'a, "quoted"\nmessage;=1' + "x" * (number % 7),
                "outcome": "success",
            }
            for number in range(COUNT)
        ),
    )


def whole(path: Path, *words: str) -> bytes:
    assert program.run(["export", *words, "--file", str(path)]) == 0
    return path.read_bytes()


def test_export_writes_a_file_once_and_only_when_it_is_complete(auditor: World, tmp_path: Path, capsys: Printed) -> None:
    file = tmp_path / "all.ndjson"
    lines = whole(file).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(COUNT))
    assert f"{COUNT} records in {file}." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["all.ndjson"]
    assert program.run(["export", "--file", str(file)]) == 2
    assert "--force to replace it" in capsys.readouterr().err
    assert program.run(["export", "carol", "--file", str(file), "--force"]) == 0
    assert len(file.read_bytes().splitlines()) == COUNT // 3


class Broken(Exported):
    """An export whose connection breaks after so many bytes."""

    def __init__(self, exported: Exported, size: int) -> None:
        self.position, self.total = exported.position, exported.total
        self._exported, self._left = exported, size

    async def _pieces(self) -> AsyncIterator[bytes]:
        async for piece in self._exported:
            yield piece[: self._left]
            self._left -= len(piece)
            if self._left <= 0:
                raise DecklogError(Code.OUTCOME_UNKNOWN, "The connection broke.")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()


@pytest.mark.parametrize(
    "words", [[], ["-o", "csv"], ["-o", "csv", "--fields", "message,seq", "--bom"], ["--fields", "seq,id"]], ids=str
)
@pytest.mark.parametrize("query", ["", "alice OR received_at:>now-1h document.delete"])
def test_export_that_is_killed_anywhere_continues_to_the_same_bytes(
    query: str, words: list[str], auditor: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_words = [query, *words] if query else words
    expected = whole(tmp_path / "whole", *given_words)
    file, part = tmp_path / "file", tmp_path / "file.part"
    for at in {1, len(expected) // 2, len(expected) - 1}:
        _begin(part, expected[:at], query, words, auditor)
        assert program.run(["export", *given_words, "--file", str(file), "--resume"]) == 0
        assert file.read_bytes() == expected, at
        file.unlink()


def _begin(part: Path, content: bytes, query: str, words: list[str], world: World) -> None:
    """Leave what a killed export leaves."""
    wanted: dict[str, Any] = {"url": world.url, "query": query, "log": "events", "format": "csv" if "csv" in words else "ndjson"}
    fields = words[words.index("--fields") + 1] if "--fields" in words else None
    wanted |= {"fields": fields, "bom": "--bom" in words}
    part.write_bytes(content)
    state = {"wanted": wanted, "query": settled(query, datetime.now(UTC)), "end": COUNT - 1, "total": None}
    part.with_name(part.name + ".json").write_text(json.dumps(state))


def test_export_does_not_mix_two_queries_in_a_file(auditor: World, tmp_path: Path, capsys: Printed) -> None:
    _begin(tmp_path / "file.part", b"", "alice", [], auditor)
    words = ["export", "--file", str(tmp_path / "file")]
    assert program.run([*words, "alice"]) == 2
    assert "Continue it with --resume" in capsys.readouterr().err
    assert program.run([*words, "carol", "--resume"]) == 2
    assert "was begun with the query 'alice'" in capsys.readouterr().err
    assert program.run([*words, "alice", "--resume", "-o", "json"]) == 2
    assert program.run([*words, "alice", "--resume"]) == 0


def test_fields_without_seq_cannot_continue_and_say_so(auditor: World, tmp_path: Path, capsys: Printed) -> None:
    words = ["--fields", "id"]
    _begin(tmp_path / "file.part", b'{"id":"evt-0"}\n{"i', "", words, auditor)
    assert program.run(["export", *words, "--file", str(tmp_path / "file"), "--resume"]) == 2
    assert "needs seq among --fields" in capsys.readouterr().err


async def test_broken_connection_continues_by_itself(auditor: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decklog.client.patience._FIRST", 0.001)
    broken = Client.export
    sizes = [50, 2_000, 1, 5_000]

    @asynccontextmanager
    async def export(self: Client, parameters: object = None) -> AsyncIterator[Exported]:
        async with broken(self, parameters) as exported:  # type: ignore[arg-type]
            yield Broken(exported, sizes.pop(0)) if sizes else exported

    monkeypatch.setattr(Client, "export", export)
    async with Client(auditor.url, auditor.keys["acme", Role.AUDITOR]) as client:
        for form in ("ndjson", "csv", "json"):
            sizes[:] = [50, 2_000, 1, 5_000]
            wanted = Wanted(client.url, "", "events", form)
            done = await ExportFile(tmp_path / form, wanted, Progress(sys.stderr, live=False)).run(client, resume=False)
            assert done == COUNT
            content = (tmp_path / form).read_bytes()
            async with client.export({"format": form}) as pieces:
                assert content == b"".join([piece async for piece in pieces])


def test_killed_process_leaves_a_part_that_continues(auditor: World, tmp_path: Path) -> None:
    """A process is killed while the pipe that it reads from stands still, so the part is there and not complete."""
    expected = whole(tmp_path / "whole")
    file = tmp_path / "file"
    code = (
        "import sys, time; from decklog.client import export_file; from decklog.cli import program; write = export_file.ExportFile._write\n"
        "async def slow(self, pieces, file, patience):\n"
        "    async def halves():\n"
        "        async for piece in pieces:\n"
        "            yield piece[:5000]; file.flush(); print('half', flush=True); time.sleep(60)\n"
        "    await write(self, halves(), file, patience)\n"
        "export_file.ExportFile._write = slow; program.run(sys.argv[1:])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, "export", "--file", str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert (tmp_path / "file.part").read_bytes() == expected[:5000]
    assert not file.exists()
    assert program.run(["export", "--file", str(file), "--resume"]) == 0
    assert file.read_bytes() == expected


def test_export_to_a_pipe_and_its_explanation(auditor: World, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert program.run(["export", "seq:<2", "--fields", "seq"]) == 0
    assert capsysbinary.readouterr().out == b'{"seq":0}\n{"seq":1}\n'
    assert program.run(["export", "nobody"]) == 1
    assert program.run(["export", "--resume"]) == 2
    assert program.run(["export", "alice", "--file", "/nowhere", "--explain"]) == 0
    assert b"/api/v1/logs/export?q=alice&format=ndjson'" in capsysbinary.readouterr().out


def test_relative_times_are_settled_when_an_export_begins() -> None:
    begun = datetime(2026, 3, 1, 12, tzinfo=UTC)
    text = settled("alice (since:24h OR received_at:>now-7d) NOT until:1h", begun)
    later = begun + timedelta(days=3)
    assert syntax.read(text, later) == syntax.read(text, begun)
    assert "2026-02-28T12:00:00Z" in text
    for query in ("", "alice  bob", "actr:alice", "occurred_at:2026-01-31"):
        assert settled(query, begun) == query


cells = st.text(alphabet='ab",\n\r', max_size=6)


@given(st.lists(st.lists(cells, min_size=2, max_size=2), max_size=6), st.data())
def test_rows_of_csv_end_where_its_reader_ends_them(rows: list[list[str]], data: st.DataObject) -> None:
    written = ["".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row)) + "\r\n" for row in rows]
    text = "".join(written).encode()
    found, offset, splitter = [], 0, Rows(quoted=True)
    while offset < len(text):
        size = data.draw(st.integers(1, len(text) - offset))
        found += [offset + end for end in splitter.ends(text[offset : offset + size])]
        offset += size
    ends, total = [], 0
    for row in written:
        total += len(row.encode())
        ends.append(total)
    assert found == ends


def test_whole_records_of_a_file_of_several_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decklog.client.splitting._SCAN_BYTES", 7)
    lines = [b'{"seq":%d,"epoch":1,"received_at":"2026-01-01T00:00:00.000001Z"}\n' % number for number in range(3)]
    (tmp_path / "file").write_bytes(b"".join(lines) + b'{"seq":3')
    found = whole_records(tmp_path / "file", "ndjson")
    assert (found.records, found.size, str(found.last)) == (3, sum(map(len, lines)), "1.1767225600000001.2")


# Stories


def test_story_tells_everything_of_a_subject_in_order(auditor: World, capsys: Printed) -> None:
    assert program.run(["story", "--actor", "alice", "-n", "5"]) == 0
    printed = capsys.readouterr()
    rows = [line.split("\t") for line in printed.out.splitlines()]
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert rows[0][2] == "alice deleted document d-0: allowed" or rows[0][2].startswith("alice read document")
    assert "goes on after these 5 records" in printed.err
    assert program.run(["story", "--resource", "d-1", "--type", "folder"]) == 1


def test_story_of_a_record_is_that_of_its_request_session_or_actor(auditor: World, capsys: Printed) -> None:
    def query(*words: str) -> str:
        assert program.run(["story", *words, "-o", "json"]) == 0
        found: str = json.loads(capsys.readouterr().out)["query"]
        return found

    assert query("3") == "session_id:s-1"
    assert query("3", "--of", "resource") == "resource.id:d-3 AND resource.type:document"
    assert query("1", "--of", "actor").startswith('actor.id:"b\\"o')
    assert program.run(["story", "3", "--of", "request"]) == 2
    assert program.run(["story"]) == 2
    assert program.run(["story", "3", "--actor", "alice"]) == 2
    assert "Give the number of a record" in capsys.readouterr().err
