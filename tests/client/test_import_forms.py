"""Imports of the files that people have: as consoles, tools and clouds write them, and as other logs exported them."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError

from decklog.cli import program
from decklog.client.client import Client
from decklog.client.import_report import EXAMPLES_MAX, Report, summary
from decklog.client.importing import FORGETFUL, Importer
from decklog.client.progress import Progress
from decklog.domain.identity.access import Role
from tests.domain.test_intake_kinds import AUDIT, TRAIL
from tests.support.api_world import World, running_world
from tests.support.memory import make_tenant


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as made:
        yield made


async def imported(world: World, *paths: Path, kind: str = "auto", tenant: str = "acme") -> Report:
    async with Client(world.url, world.keys[tenant, Role.WRITER]) as client:
        return await Importer(client, kind, Progress(io.StringIO(), live=False), None).run(paths)


async def exported(world: World, tenant: str = "acme", **parameters: str) -> bytes:
    async with Client(world.url, world.keys[tenant, Role.AUDITOR]) as client, client.export(parameters) as pieces:
        return b"".join([piece async for piece in pieces])


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.stored, report.duplicates, report.refused, report.skipped


def trail(number: int, **more: Any) -> dict[str, Any]:
    return {**TRAIL, "eventID": f"e-{number}", **more}


FILES: dict[str, str] = {
    "over many lines, as a console shows it": json.dumps(trail(1), indent=4),
    "on one line": json.dumps(trail(1)),
    "as aws cloudtrail lookup-events prints it": json.dumps(
        {"Events": [{"EventId": "e-1", "Username": "dana", "CloudTrailEvent": json.dumps(trail(1))}]}, indent=4
    ),
    "in an array over many lines": json.dumps([trail(1)], indent=2),
}


async def test_one_event_is_stored_once_from_every_form_that_people_have(world: World, tmp_path: Path) -> None:
    for number, (form, text) in enumerate(FILES.items()):
        (tmp_path / "x.json").write_text(text)
        for kind in ("cloudtrail", "auto"):
            first = number == 0 and kind == "cloudtrail"
            assert counts(await imported(world, tmp_path / "x.json", kind=kind)) == (first, not first, 0, 0), form
    (tmp_path / "jq.json").write_text(json.dumps(trail(2), indent=2) + "\n" + json.dumps(trail(3), indent=2) + "\n")
    assert counts(await imported(world, tmp_path / "jq.json", kind="cloudtrail")) == (2, 0, 0, 0)
    (tmp_path / "audit.json").write_text(json.dumps(AUDIT, indent=2))
    assert counts(await imported(world, tmp_path / "audit.json", kind="kubernetes")) == (1, 0, 0, 0)


async def test_folder_of_an_object_store_is_imported_in_order_with_its_digests_left_out(world: World, tmp_path: Path) -> None:
    root = tmp_path / "AWSLogs/111122223333"
    digest = {"awsAccountId": "1", "digestStartTime": "x", "digestEndTime": "y", "logFiles": []}
    files: dict[str, Any] = {
        "CloudTrail-Digest/eu-west-1/2026/11/20/d.json.gz": digest,
        "CloudTrail/eu-west-1/2026/11/20/b.json.gz": {"Records": [trail(2), trail(3)]},
        "CloudTrail/eu-west-1/2026/11/19/a.json.gz": {"Records": [trail(1)]},
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(gzip.compress(json.dumps(content).encode()))
    report = await imported(world, tmp_path)
    assert counts(report) == (3, 0, 0, 1)
    assert [json.loads(line)["id"] for line in (await exported(world)).splitlines()] == ["e-1", "e-2", "e-3"]
    assert "3 stored, 0 already there, 0 refused, 1 without events" in summary(report)


@pytest.mark.parametrize("form", ["ndjson", "json", "csv"])
async def test_export_of_one_log_is_imported_into_another_whole(world: World, tmp_path: Path, form: str) -> None:
    records = [
        {
            "action": "a",
            "actor": {"id": "=x"},
            "message": 'm;"=1,\r\n-2',
            "metadata": {"n": 2**70, "password": "p"},
            "before": None,
        },
        {
            "action": "b",
            "actor": {"id": "y", "name": "'+"},
            "id": "kept",
            "related": [{"type": "t", "id": "i"}],
            "severity": "ERROR",
        },
    ]
    async with Client(world.url, world.keys["acme", Role.WRITER]) as client:
        await client.append_bulk([json.dumps(record).encode() for record in records])
    (tmp_path / "x").write_bytes(await exported(world, format=form))
    before = [json.loads(line) for line in (await exported(world)).splitlines()]
    assert counts(await imported(world, tmp_path / "x", tenant="other")) == (2, 0, 0, 0)
    assert counts(await imported(world, tmp_path / "x", kind="decklog", tenant="other")) == (0, 2, 0, 0)
    after = [json.loads(line) for line in (await exported(world, "other")).splitlines()]
    assigned = ("tenant", "log", "epoch", "seq", "received_at", "digest", "recorded_by", "masked")
    for old, new in zip(before, after, strict=True):
        origin = new["metadata"].pop("decklog")
        assert origin == {name: old[name] for name in assigned if name in old}
        kept = {name: value for name, value in old.items() if name not in assigned}
        found = {name: value for name, value in new.items() if name not in assigned}
        assert found == {"id": f"decklog:acme/events/1/{old['seq']}", "metadata": {}, **kept}


async def test_refusals_of_one_kind_are_one_line_with_a_few_examples(world: World, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("not json\n" * 500 + json.dumps(trail(1)) + "\n" + '{"eventName": "x", "eventSource": "y"}\n' * 3)
    shown = io.StringIO()
    async with Client(world.url, world.keys["acme", Role.WRITER]) as client:
        report = await Importer(client, "cloudtrail", Progress(shown, live=False), None).run([tmp_path / "x"])
    assert counts(report) == (1, 0, 503, 0)
    assert [(kind.count, len(kind.examples)) for kind in report.refusals] == [(500, EXAMPLES_MAX), (3, 3)]
    assert shown.getvalue().startswith(FORGETFUL)
    assert len(shown.getvalue().splitlines()) == 1 + EXAMPLES_MAX + 3
    lines = summary(report).splitlines()
    places = ", ".join(f"{tmp_path}/x:{line}" for line in range(1, EXAMPLES_MAX + 1))
    assert lines[0].startswith("500 × it is not JSON")
    assert lines[0].endswith(f": {places} and {500 - EXAMPLES_MAX} more")
    assert lines[1].startswith("3 × it has no eventTime: ")


async def test_import_after_the_dedup_window_says_that_events_may_be_there_twice(world: World, tmp_path: Path) -> None:
    world.add(make_tenant("forgetful"), dedup_window=timedelta(0))
    await world.cache.refresh()
    (tmp_path / "x").write_text(json.dumps(trail(1)))
    for _ in range(2):
        report = await imported(world, tmp_path / "x", tenant="forgetful")
        assert counts(report) == (1, 0, 0, 0)
        assert "they are stored twice now" in summary(report)
    assert counts(await imported(world, tmp_path / "x")) == (1, 0, 0, 0)
    again = await imported(world, tmp_path / "x")
    assert counts(again) == (0, 1, 0, 0)
    assert "twice" not in summary(again)


async def test_import_reads_standard_input(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(world.keys["acme", Role.WRITER])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(json.dumps([trail(1), AUDIT]).encode()))))
    words = ["import", "auto", "-", "--url", world.url, "--key-file", str(tmp_path / "key"), "--state", str(tmp_path / "state")]
    assert await program.app.run_async(words) == 0
    assert len((await exported(world)).splitlines()) == 2
    assert not (tmp_path / "state").exists()
    with pytest.raises(CycloptsError, match='Unknown option: "--kye"'):
        await program.app.run_async(["import", "auto", "-", "--kye", "x"])
