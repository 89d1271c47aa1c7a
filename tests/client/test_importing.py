"""Importing: every event arrives once and whole, what is none is named, and an interruption costs nothing."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cyclopts import CycloptsError

from decklog.cli import program
from decklog.client.bulks import BATCH_RECORDS_MAX
from decklog.client.checkpoint import Checkpoints, default_folder
from decklog.client.client import Client
from decklog.client.import_report import Refusal, Report
from decklog.client.importing import FORGETFUL, Importer
from decklog.client.known_ids import known
from decklog.client.progress import Progress
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.privacy.masking import MASK
from decklog.domain.tenant import State
from tests.support import real_events
from tests.support.api_world import World, running_world
from tests.support.memory import make_tenant

BULK = "/api/v1/logs/bulk"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as made:
        yield made


class Wire(httpx.AsyncBaseTransport):
    """The way to the server, with a say in what happens to each bulk: `before` and `after` get its number, from 1."""

    def __init__(self, before: Callable[[int], httpx.Response | None] | None = None, after: Callable[[int], None] | None = None):
        self._real = httpx.AsyncHTTPTransport()
        self._before = before
        self._after = after
        self.bulks: list[int] = []
        self.at: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != BULK:
            return await self._real.handle_async_request(request)
        self.bulks.append(len(request.content.splitlines()))
        self.at.append(asyncio.get_running_loop().time())
        if self._before is not None and (answer := self._before(len(self.bulks))) is not None:
            return answer
        response = await self._real.handle_async_request(request)
        if self._after is not None:
            await response.aread()
            self._after(len(self.bulks))
        return response

    async def aclose(self) -> None:
        await self._real.aclose()


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "eventID": f"e-{number}",
        "eventName": "GetObject",
        "eventSource": "s3.amazonaws.com",
        "eventTime": "2023-07-10T11:42:36Z",
        "userIdentity": {"type": "Root", "arn": "arn:aws:iam::1:root"},
        **changes,
    }


def file_of(path: Path, events: Sequence[Any]) -> Path:
    path.write_bytes(b"".join((item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in events))
    return path


class Machine:
    """A machine that imports: its state and what it was shown."""

    def __init__(self, world: World, state: Path) -> None:
        self.world = world
        self.checkpoints = Checkpoints(state)
        self.state = state
        self.shown = io.StringIO()

    async def run(
        self,
        *files: Path,
        kind: str = "cloudtrail",
        wire: Wire | None = None,
        tenant: str = "acme",
        reader: Role | None = None,
        **options: Any,
    ) -> Report:
        """Import files as a writer; `reader` is the role of a second key, or that of the only one where it is ADMIN."""
        role = Role.ADMIN if reader is Role.ADMIN else Role.WRITER
        progress = Progress(self.shown, live=False)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(Client(self.world.url, self.world.keys[tenant, role], transport=wire))
            other = None
            if reader is Role.AUDITOR:
                other = await stack.enter_async_context(Client(self.world.url, self.world.keys[tenant, reader]))
            return await Importer(client, kind, progress, self.checkpoints, reader=other).run(files, **options)

    async def stored(self, tenant: str = "acme") -> list[dict[str, Any]]:
        """The log, oldest first."""
        async with Client(self.world.url, self.world.keys[tenant, Role.AUDITOR]) as client, client.export() as pieces:
            return [json.loads(line) for line in b"".join([piece async for piece in pieces]).splitlines()]


@pytest.fixture
def machine(world: World, tmp_path: Path) -> Machine:
    return Machine(world, tmp_path / "state")


def counts(report: Report) -> tuple[int, int, int]:
    return report.stored, report.duplicates, report.refused


def refusals(report: Report) -> list[Refusal]:
    """The examples of every kind."""
    return [example for kind in report.refusals for example in kind.examples]


def unmasked(kept: Any, original: Any) -> bool:
    """Whether every path of the original is there, with its value or the mask."""
    if isinstance(original, dict):
        return isinstance(kept, dict) and kept.keys() == original.keys() and all(unmasked(kept[k], original[k]) for k in kept)
    if isinstance(original, list):
        return isinstance(kept, list) and len(kept) == len(original) and all(map(unmasked, kept, original))
    return kept in (original, MASK)


# Real input


async def test_import_stores_every_real_cloudtrail_event_once_and_unchanged(machine: Machine) -> None:
    path = real_events.path("cloudtrail_invictus.ndjson.gz")
    originals = real_events.values(path.name)
    assert counts(await machine.run(path)) == (2_900, 0, 0)
    stored = await machine.stored()
    assert [record["id"] for record in stored] == [original["eventID"] for original in originals]
    assert all(unmasked(record["metadata"], original) for record, original in zip(stored, originals, strict=True))
    assert sum(record["metadata"] != original for record, original in zip(stored, originals, strict=True)) == sum(
        "masked" in record for record in stored
    )
    async with Client(machine.world.url, machine.world.keys["acme", Role.AUDITOR]) as client:
        stats = await client.stats({"by": "action"})
    assert {bucket.key[0]: bucket.count for bucket in stats.buckets} == Counter(record["action"] for record in stored)


async def test_import_stores_nothing_when_repeated(machine: Machine) -> None:
    path = real_events.path("cloudtrail_invictus.ndjson.gz")
    await machine.run(path)
    assert counts(await machine.run(path)) == (0, 2_900, 0)
    assert len(await machine.stored()) == 2_900


async def test_import_names_the_line_of_the_real_kubernetes_log_that_is_not_an_event(machine: Machine) -> None:
    path = real_events.path("k8s_audit.ndjson.gz")
    report = await machine.run(path, kind="kubernetes")
    assert counts(report) == (88, 0, 1)
    assert [(refusal.line, refusal.reason) for refusal in refusals(report)] == [(86, 'its kind is 0, not "Event"')]
    assert f"{path}:86: refused: its kind is 0" in machine.shown.getvalue()
    originals = [original for original in real_events.values(path.name) if original != {"kind": 0}]
    stored = await machine.stored()
    assert all(unmasked(record["metadata"], original) for record, original in zip(stored, originals, strict=True))
    assert counts(await machine.run(path, kind="kubernetes")) == (0, 88, 1)


async def test_import_stores_the_same_records_from_every_file_form(machine: Machine, tmp_path: Path) -> None:
    originals = real_events.values("k8s_audit.ndjson.gz")
    (tmp_path / "list.json").write_text(json.dumps({"kind": "EventList", "items": originals}, indent=2))
    await machine.run(real_events.path("k8s_audit.ndjson.gz"), kind="kubernetes")
    assert counts(await machine.run(tmp_path / "list.json", kind="kubernetes")) == (0, 88, 1)
    cloud = real_events.values("cloudtrail_invictus.ndjson.gz")[:300]
    (tmp_path / "records.json.gz").write_bytes(gzip.compress(json.dumps({"Records": cloud}).encode(), mtime=0))
    file_of(tmp_path / "lines.json", cloud)
    assert counts(await machine.run(tmp_path / "records.json.gz")) == (300, 0, 0)
    assert counts(await machine.run(tmp_path / "lines.json")) == (0, 300, 0)


# What is no event, or cannot be stored


async def test_import_names_refused_events_by_line_and_imports_the_rest(machine: Machine, tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    path = file_of(
        tmp_path / "x",
        [
            event(1),
            b"not json",
            b'{"eventName": "\xff"}',
            rb'{"b": "\ud800", "a": 1e999}',
            b"[" * 5_000 + b"]" * 5_000,
            {"eventName": "x"},
            event(2, big="x" * (256 * 1024)),
            event(3, requestParameters=deep),
            event(4, eventTime="2126-01-01T00:00:00Z"),
            {"Records": [event(5), {"odd": 1}]},
            event(6),
        ],
    )
    report = await machine.run(path)
    assert counts(report) == (5, 0, 7)
    reasons = {(refusal.line, refusal.item): refusal.reason for refusal in refusals(report)}
    assert sorted(reasons) == [(2, None), (3, None), (4, None), (5, 1), (6, None), (9, None), (10, 2)]
    assert "not JSON" in reasons[2, None]
    assert "UTF-8" in reasons[3, None]
    assert "not JSON" in reasons[4, None]
    assert "nested" in reasons[5, 1]
    assert "eventSource" in reasons[6, None]
    assert "ahead of the server's clock" in reasons[9, None]
    stored = await machine.stored()
    assert [record["id"] for record in stored] == ["e-1", "e-2", "e-3", "e-5", "e-6"]
    assert [[each["path"].split("/")[2] for each in record.get("trimmed", ())] for record in stored] == [
        [],
        ["big"],
        ["requestParameters"],
        [],
        [],
    ]


async def test_import_replaces_characters_that_cannot_be_stored_and_notes_it(machine: Machine, tmp_path: Path) -> None:
    path = file_of(tmp_path / "x", [event(1, userAgent="a\0b", tags={"k\ud800": "\udfff"}, errorMessage="no"), event(2)])
    report = await machine.run(path)
    assert (counts(report), report.replaced) == ((2, 0, 0), 3)
    first, second = await machine.stored()
    assert first["metadata"]["userAgent"] == first["source"]["user_agent"] == "a\ufffdb"
    assert first["metadata"]["tags"] == {"k\ufffd": "\ufffd"}
    assert first["message"].startswith("no [3 characters")
    assert "message" not in second
    assert f"{path}:1: 3 characters" in machine.shown.getvalue()


async def test_import_keeps_unusual_values(machine: Machine, tmp_path: Path) -> None:
    odd = ["075.050.255.67", "ec2.amazonaws.com", "AWS Internal"]
    await machine.run(file_of(tmp_path / "x", [event(number, sourceIPAddress=value) for number, value in enumerate(odd)]))
    assert [record["source"]["ip"] for record in await machine.stored()] == odd


async def test_import_names_unreadable_files_and_imports_the_others(machine: Machine, tmp_path: Path) -> None:
    report = await machine.run(tmp_path / "missing", file_of(tmp_path / "x", [event(1)]))
    assert counts(report) == (1, 0, 1)
    assert (refusals(report)[0].file, refusals(report)[0].line) == (str(tmp_path / "missing"), 0)


async def test_import_refuses_other_content_under_a_known_id(machine: Machine, tmp_path: Path) -> None:
    report = await machine.run(file_of(tmp_path / "x", [event(1), event(1, awsRegion="other"), event(1)]))
    assert counts(report) == (1, 1, 1)
    assert refusals(report)[0].line == 2
    assert refusals(report)[0].reason.startswith(Code.ID_CONFLICT)


# The server says later, less, or nothing


def refusal(status: int, code: str, detail: str, **members: object) -> httpx.Response:
    """The answer of the API that refuses a request."""
    problem = {"type": f"/problems/{code}", "title": code, "status": status, "code": code, "detail": detail, "instance": "r-1"}
    return httpx.Response(status, json=problem | members)


async def test_import_waits_as_long_as_the_server_asks(machine: Machine, tmp_path: Path) -> None:
    busy = {
        1: httpx.Response(503, headers={"retry-after": "1"}),
        3: refusal(429, "rate-limited", "later", retry_after=1),
    }
    wire = Wire(before=busy.get)
    path = file_of(tmp_path / "x", [event(number) for number in range(BATCH_RECORDS_MAX + 1)])
    assert counts(await machine.run(path, wire=wire)) == (BATCH_RECORDS_MAX + 1, 0, 0)
    assert wire.bulks == [BATCH_RECORDS_MAX, BATCH_RECORDS_MAX, 1, 1]
    assert wire.at[1] - wire.at[0] >= 1
    assert wire.at[3] - wire.at[2] >= 1
    assert "\nwaiting: " in machine.shown.getvalue()


async def test_import_stores_once_when_the_connection_breaks_after_the_commit(machine: Machine, tmp_path: Path) -> None:
    def breaks(number: int) -> None:
        if number == 1:
            raise httpx.ReadError("reset")

    path = file_of(tmp_path / "x", [event(number) for number in range(20)])
    assert counts(await machine.run(path, wire=Wire(after=breaks))) == (0, 20, 0)
    assert [record["id"] for record in await machine.stored()] == [f"e-{number}" for number in range(20)]


async def test_import_sends_smaller_batches_for_a_small_burst(machine: Machine, tmp_path: Path) -> None:
    machine.world.add(make_tenant("narrow"), events_per_second=100_000, burst=40)
    await machine.world.cache.refresh()
    wire = Wire()
    path = file_of(tmp_path / "x", [event(number) for number in range(300)])
    assert counts(await machine.run(path, wire=wire, tenant="narrow")) == (300, 0, 0)
    assert [record["id"] for record in await machine.stored("narrow")] == [f"e-{number}" for number in range(300)]
    assert wire.bulks[:4] == [300, 150, 75, 37]
    assert max(wire.bulks[3:]) == 37


async def test_import_bounds_batches_in_bytes(machine: Machine, tmp_path: Path) -> None:
    wire = Wire()
    path = file_of(tmp_path / "x", [event(number, big="x" * 200_000) for number in range(60)])
    assert counts(await machine.run(path, wire=wire)) == (60, 0, 0)
    assert len(wire.bulks) == 2


async def test_import_refuses_a_key_without_append_before_sending(machine: Machine, tmp_path: Path) -> None:
    keys = machine.world.keys
    for key in (keys["acme", Role.AUDITOR], keys[None, Role.PLATFORM]):
        async with Client(machine.world.url, key) as client:
            with pytest.raises(DecklogError) as error:
                await Importer(client, "cloudtrail", Progress(machine.shown, live=False), None).run([tmp_path / "missing"])
            assert error.value.code is Code.FORBIDDEN


# Interruptions


def interrupt(at: int) -> Wire:
    def before(number: int) -> httpx.Response | None:
        return refusal(401, "unauthenticated", "revoked") if number >= at else None

    return Wire(before=before)


async def interrupted(machine: Machine, path: Path, *, batches: int) -> None:
    """An import that is stopped after so many batches."""
    report = await machine.run(path, wire=interrupt(batches + 1))
    assert report.stopped == f"{path}: revoked"
    assert report.stored == batches * BATCH_RECORDS_MAX


async def test_import_resumes_where_it_was_interrupted(machine: Machine, tmp_path: Path) -> None:
    path = file_of(tmp_path / "x", [b"not json", *(event(number) for number in range(1_700))])
    await interrupted(machine, path, batches=2)
    wire = Wire()
    report = await machine.run(path, wire=wire)
    assert counts(report) == (1_700, 0, 1)
    assert report.files[0].resumed == 1_001
    assert wire.bulks == [1, 500, 200]
    assert [record["id"] for record in await machine.stored()] == [f"e-{number}" for number in range(1_700)]
    assert list(machine.state.iterdir()) == []


async def test_import_stores_each_event_once_when_killed_within_a_batch(machine: Machine, tmp_path: Path) -> None:
    path = file_of(tmp_path / "x", [event(number) for number in range(1_200)])

    def killed(number: int) -> None:
        if number == 2:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await machine.run(path, wire=Wire(after=killed))
    assert len(await machine.stored()) == 1_000
    assert counts(await machine.run(path)) == (700, 500, 0)
    assert [record["id"] for record in await machine.stored()] == [f"e-{number}" for number in range(1_200)]


async def test_import_starts_over_when_the_log_is_new(machine: Machine, tmp_path: Path) -> None:
    path = file_of(tmp_path / "x", [event(number) for number in range(1_200)])
    await interrupted(machine, path, batches=1)
    async with running_world() as fresh:
        # The state of a machine that knew the old log under the address of the new one.
        for file in machine.state.iterdir():
            new = Machine(fresh, machine.state)
            key = (fresh.url, "acme", "cloudtrail", str(path))
            file.rename(Checkpoints(machine.state)._file(key))
        report = await new.run(path)
        assert (report.stored + report.duplicates, report.refused) == (1_200, 0)
        assert {record["id"] for record in await new.stored()} == {f"e-{number}" for number in range(1_200)}
        assert "starting over" in new.shown.getvalue()


async def test_import_resumes_after_the_dedup_window(machine: Machine, tmp_path: Path) -> None:
    machine.world.add(make_tenant("forgetful"), dedup_window=timedelta(0))
    await machine.world.cache.refresh()
    path = file_of(tmp_path / "x", [event(number) for number in range(700)])
    await machine.run(path, wire=interrupt(2), tenant="forgetful")
    assert counts(await machine.run(path, tenant="forgetful")) == (700, 0, 0)
    assert "record 499 is in the log again as 500" in machine.shown.getvalue()
    assert Counter(Counter(record["id"] for record in await machine.stored("forgetful")).values()) == {1: 699, 2: 1}


async def forgetful(machine: Machine) -> None:
    """A tenant whose server recognises no event again."""
    machine.world.add(make_tenant("forgetful"), dedup_window=timedelta(0))
    await machine.world.cache.refresh()


async def test_import_after_the_dedup_window_stores_nothing_twice_where_it_may_read(machine: Machine, tmp_path: Path) -> None:
    await forgetful(machine)
    path = file_of(tmp_path / "x", [event(number) for number in range(700)])
    assert counts(await machine.run(path, tenant="forgetful")) == (700, 0, 0)
    assert FORGETFUL in machine.shown.getvalue()
    file_of(path, [event(number) for number in range(-5, 700)])
    machine.shown.truncate(0)
    for wire, reader in ((Wire(), Role.AUDITOR), (Wire(), Role.ADMIN)):
        report = await machine.run(path, tenant="forgetful", wire=wire, reader=reader)
        assert report.asked
        assert report.stored + report.duplicates == 705
        assert sum(wire.bulks) == report.stored
    assert report.stored == 0
    assert FORGETFUL not in machine.shown.getvalue()
    assert Counter(Counter(record["id"] for record in await machine.stored("forgetful")).values()) == {1: 705}


async def test_import_resumes_after_the_dedup_window_without_a_second_record_where_it_may_read(
    machine: Machine, tmp_path: Path
) -> None:
    await forgetful(machine)
    path = file_of(tmp_path / "x", [event(number) for number in range(700)])
    await machine.run(path, wire=interrupt(2), tenant="forgetful")
    report = await machine.run(path, tenant="forgetful", reader=Role.AUDITOR)
    assert (report.stored, report.files[0].resumed) == (700, 500)
    assert Counter(Counter(record["id"] for record in await machine.stored("forgetful")).values()) == {1: 700}


async def test_import_refuses_a_reader_of_another_log(machine: Machine, tmp_path: Path) -> None:
    path, keys = file_of(tmp_path / "x", [event(1)]), machine.world.keys
    for other in (keys["other", Role.AUDITOR], keys["acme", Role.WRITER], keys[None, Role.PLATFORM]):
        async with Client(machine.world.url, keys["acme", Role.WRITER]) as client, Client(machine.world.url, other) as reader:
            importer = Importer(client, "cloudtrail", Progress(machine.shown, live=False), None, reader=reader)
            with pytest.raises(DecklogError) as error:
                await importer.run([path])
            assert error.value.code is Code.FORBIDDEN
    assert await machine.stored() == []


async def test_ids_are_asked_for_in_queries_of_a_bounded_size(machine: Machine) -> None:
    ids = ['a"b\\c*', "TO", *(f"{'x' * 250}{number}" for number in range(300)), *map(str, range(300))]
    keys = machine.world.keys
    async with Client(machine.world.url, keys["acme", Role.WRITER]) as client:
        item = {"action": "a", "actor": {"id": "b"}}
        await client.append_bulk([json.dumps({**item, "id": each}).encode() for each in ids[:-3]])
    async with Client(machine.world.url, keys["acme", Role.AUDITOR]) as client:
        assert await known(client.search, ids) == {each: seq for seq, each in enumerate(ids[:-3])}
        assert await known(client.search, []) == {}


async def test_import_starts_over_when_the_file_was_replaced(machine: Machine, tmp_path: Path) -> None:
    path = file_of(tmp_path / "x", [event(number) for number in range(1_200)])
    await interrupted(machine, path, batches=1)
    file_of(path, [event(number) for number in range(5_000, 5_700)])
    report = await machine.run(path)
    assert counts(report) == (700, 0, 0)
    assert report.files[0].resumed == 0


async def test_import_checkpoints_are_separate_by_tenant_and_kind(machine: Machine, tmp_path: Path) -> None:
    path = file_of(tmp_path / "x", [event(number) for number in range(700)])
    await interrupted(machine, path, batches=1)
    report = await machine.run(path, tenant="other")
    assert report.stored == 700
    assert report.files[0].resumed == 0
    assert (await machine.run(path, kind="kubernetes")).refused == 700
    assert (await machine.run(path)).files[0].resumed == 500


async def test_import_restart_sends_every_event(machine: Machine, tmp_path: Path) -> None:
    path = file_of(tmp_path / "x", [event(number) for number in range(700)])
    await interrupted(machine, path, batches=1)
    assert counts(await machine.run(path, restart=True)) == (200, 500, 0)


async def test_import_continues_without_checkpoints_when_the_folder_is_unwritable(world: World, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder is due")
    machine = Machine(world, tmp_path / "state")
    assert counts(await machine.run(file_of(tmp_path / "x", [event(1)]))) == (1, 0, 0)
    assert "cannot be saved" in machine.shown.getvalue()


def test_default_folder_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder({"XDG_STATE_HOME": "/elsewhere"}) == Path("/elsewhere/decklog/import")
    for unusable in ({}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "relative"}):
        assert default_folder(unusable) == tmp_path / ".local/state/decklog/import"


# The command


async def command(*words: str) -> int:
    code: int = await program.app.run_async(["import", *words])
    return code


@pytest.fixture
def key_file(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    for name in ("DECKLOG_URL", "DECKLOG_KEY", "DECKLOG_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "key"
    file.write_text(world.keys["acme", Role.WRITER] + "\n")
    return file


async def test_import_command_prints_a_summary_and_exits_1_after_refusals(
    world: World, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = file_of(tmp_path / "good", [event(1)]), file_of(tmp_path / "bad", [event(1), {}])
    options = ("--url", world.url, "--key-file", str(key_file))
    assert await command("cloudtrail", str(good), *options) == 0
    known, totals = capsys.readouterr().out.splitlines()
    assert totals == "1 stored, 0 already there, 0 refused, in tenant 'acme'."
    assert "dedupWindow" in known
    assert await command("cloudtrail", str(good), str(bad), *options) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "0 stored, 2 already there, 1 refused, in tenant 'acme'."
    assert f"{bad}:2: refused: it has no eventName\n" in printed.err


async def test_import_command_exits_2_when_it_stops_early(
    world: World, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path / "x", [event(number) for number in range(3)])
    world.store.set_state(world.tenant("acme"), State.SUSPENDED)
    assert await command("cloudtrail", str(path), "--url", world.url, "--key-file", str(key_file)) == 2
    assert "Stopped early: " in capsys.readouterr().out
    world.store.set_state(world.tenant("acme"), State.ACTIVE)
    assert await command("cloudtrail", str(path), "--url", world.url, "--key-file", str(key_file)) == 0


async def test_import_command_prints_the_summary_as_json(
    world: World, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path / "x", [event(1), {}])
    assert await command("cloudtrail", str(path), "--url", world.url, "--key-file", str(key_file), "--json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "kind": "cloudtrail",
        "url": world.url,
        "tenant": "acme",
        "stored": 1,
        "duplicates": 0,
        "refused": 1,
        "skipped": 0,
        "replaced": 0,
        "files": [{"file": str(path), "stored": 1, "duplicates": 0, "refused": 1, "skipped": 0, "replaced": 0, "resumed": 0}],
        "refusals": [
            {
                "reason": "it has no eventName",
                "count": 1,
                "examples": [{"file": str(path), "line": 2, "reason": "it has no eventName"}],
            }
        ],
        "asked": False,
        "stopped": "",
    }


async def test_import_command_reads_the_key_from_file_variable_or_option(
    world: World, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(file_of(tmp_path / "x", [event(1)]))
    key = world.keys["acme", Role.WRITER]
    assert await command("cloudtrail", path, "--url", world.url, "--key", key) == 0
    monkeypatch.setenv("DECKLOG_URL", world.url)
    monkeypatch.setenv("DECKLOG_KEY_FILE", str(key_file))
    assert await command("cloudtrail", path) == 0
    monkeypatch.setenv("DECKLOG_KEY_FILE", str(tmp_path / "missing"))
    monkeypatch.setenv("DECKLOG_KEY", key)
    assert await command("cloudtrail", path) == 0
    for name in ("DECKLOG_KEY", "DECKLOG_KEY_FILE"):
        monkeypatch.delenv(name)
    (tmp_path / "reader").write_text(world.keys["acme", Role.AUDITOR])
    assert await command("cloudtrail", path, "--key", key, "--read-key-file", str(tmp_path / "reader")) == 0
    with pytest.raises(DecklogError, match="not both"):
        await command("cloudtrail", path, "--key", key, "--key-file", str(key_file))


async def test_import_command_names_missing_options(key_file: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    with pytest.raises(DecklogError, match="--url"):
        await command("cloudtrail", path, "--key", "k")
    with pytest.raises(DecklogError, match="--key-file"):
        await command("cloudtrail", path, "--url", "http://127.0.0.1:1")
    with pytest.raises(DecklogError, match="cannot be read"):
        await command("cloudtrail", path, "--url", "http://127.0.0.1:1", "--key-file", str(tmp_path / "missing"))
    with pytest.raises(DecklogError, match="cannot be reached"):
        await command("cloudtrail", path, "--url", "http://127.0.0.1:1", "--key", "k")
    with pytest.raises(CycloptsError, match="syslog"):
        await command("syslog", path)


# Progress


class Stopwatch:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def drawn(shown: io.StringIO) -> list[str]:
    """Every line that was drawn, each over the one before."""
    return shown.getvalue().split("\r\x1b[K")[1:]


def test_progress_draws_a_bar_on_a_terminal_and_messages_above_it() -> None:
    shown = io.StringIO()
    progress = Progress(shown, live=True)
    progress.begin(200)
    progress.advance("file", 100, 1_000)
    progress.say("file:86: refused: \x1b[31mred")
    bar, line = drawn(shown)
    assert "[############............]" in bar
    assert "50%" in bar
    assert line == "file:86: refused: \\x1b[31mred\n"


@pytest.mark.parametrize("name", ["f", "a/folder/with/a/long/name/" + "x" * 60 + ".ndjson.gz"])
@pytest.mark.parametrize("columns", [50, 80, 200])
def test_progress_never_hides_count_rate_and_time_left(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown, clock = io.StringIO(), Stopwatch()
    progress = Progress(shown, live=True, clock=clock)
    progress.begin(4_000_000_000)
    clock.seconds = 3_600
    progress.advance(name, 1_000_000_000, 12_345_678)
    [line] = drawn(shown)
    assert line.endswith(" 25% 12,345,678 records, 3,429/s, 3:00:00 left")
    assert len(line) < columns
    assert name[-1] in line


def test_progress_counts_records_of_an_earlier_import_in_no_rate() -> None:
    shown, clock = io.StringIO(), Stopwatch()
    progress = Progress(shown, live=True, clock=clock)
    progress.begin(1_000)
    progress.skip(800, 8_000)
    clock.seconds = 10
    progress.advance("file", 900, 9_000)
    [line] = drawn(shown)
    assert line.endswith(" 90% 9,000 records, 100/s, 0:10 left")


async def test_import_progress_counts_all_files(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("decklog.client.importing.BATCH_RECORDS_MAX", 5)
    monkeypatch.setattr("decklog.client.progress._REDRAW_SECONDS", 0.0)
    files = [file_of(tmp_path / name, [event(10 * number + item) for item in range(10)]) for number, name in enumerate("abcd")]
    shown = io.StringIO()
    async with Client(machine.world.url, machine.world.keys["acme", Role.WRITER]) as client:
        await Importer(client, "cloudtrail", Progress(shown, live=True), machine.checkpoints).run(files)
    lines = [line for line in drawn(shown) if "%" in line]
    shares = [int(line.partition("%")[0].rpartition(" ")[2]) for line in lines]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert [line for line in lines if str(files[2]) in line][-1].rpartition("%")[0].endswith(" 75")
    assert "40 records" in lines[-1]


def test_progress_shows_at_once_on_a_terminal_why_an_import_waits() -> None:
    shown = io.StringIO()
    progress = Progress(shown, live=True)
    for _ in range(2):
        progress.waiting("later")
    progress.clear()
    assert shown.getvalue() == "\r\x1b[Kwaiting: later" * 2 + "\r\x1b[K"


def test_progress_writes_no_control_characters_into_a_file() -> None:
    shown = io.StringIO()
    progress = Progress(shown, live=False)
    progress.begin(10)
    progress.advance("file", 5, 1_000)
    progress.say("hello")
    for _ in range(3):
        progress.waiting("later")
    progress.clear()
    assert shown.getvalue() == "hello\nwaiting: later\n"
