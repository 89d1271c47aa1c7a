"""`decklog rejected`: what an admin does with rejected records from a shell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from decklog.cli import program
from decklog.client.client import Client
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from tests.support.api_world import World, running_world

Printed = pytest.CaptureFixture[str]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A tenant with three rejected records: one that lacks an actor, one whose message has a control character, and one that is no JSON."""
    async with running_world() as made:
        monkeypatch.setenv("DECKLOG_URL", made.url)
        monkeypatch.setenv("DECKLOG_KEY", made.keys["acme", Role.ADMIN])
        async with Client(made.url, made.keys["acme", Role.WRITER]) as writer:
            await writer.append_bulk([b'{"action":"x","password":"hunter2"}', b'{"action":"\\u001b[31m"}', b"{"])
        async with Client(made.url, made.keys["acme", Role.ADMIN]) as admin:
            while (await admin.rejected()).kept < 3:
                await asyncio.sleep(0.01)
        yield made


async def rejected(*words: str) -> int:
    code: int = await program.app.run_async(["rejected", *words])
    return code


async def test_list_prints_one_line_for_each_record(world: World, capsys: Printed) -> None:
    assert await rejected("list") == 0
    printed = capsys.readouterr()
    assert [line.split("  ")[0] for line in printed.out.splitlines()] == ["3", "2", "1"]
    assert [line.split("  ")[2] for line in printed.out.splitlines()] == ["invalid-json", "invalid-record", "invalid-record"]
    assert "content not kept" in printed.out.splitlines()[0]
    assert "\x1b" not in printed.out + printed.err
    assert "3 kept of 3 rejected" in printed.err
    assert await rejected("list", "--limit", "1", "--before", "3", "--json") == 0
    page = json.loads(capsys.readouterr().out)
    assert ([item["id"] for item in page["items"]], page["next"]) == ([2], 2)


async def test_show_prints_the_content_with_secrets_masked(world: World, capsys: Printed) -> None:
    assert await rejected("show", "1") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"action": "x", "password": "[masked]"}
    assert "sent by" in printed.err
    assert await rejected("show", "3") == 1
    assert capsys.readouterr().out == ""
    with pytest.raises(DecklogError) as error:
        await rejected("show", "9")
    assert error.value.code is Code.NOT_FOUND


async def test_replay_stores_what_was_mended_and_names_what_is_refused_again(
    world: World, tmp_path: Path, capsys: Printed
) -> None:
    (tmp_path / "mended").write_text('{"action": "x", "actor": {"id": "alice"}}')
    assert await rejected("replay", "1", "--file", str(tmp_path / "mended")) == 0
    assert capsys.readouterr().out == "1: stored as 0\n"
    assert await rejected("replay", "1", "2", "3") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split(":")[:2] for line in printed.err.splitlines()] == [
        ["1", " not-found"],
        ["2", " invalid-record"],
        ["3", " conflict"],
    ]
    for words in (["replay"], ["replay", "2", "3", "--file", str(tmp_path / "mended")], ["replay", "2", "--file", "missing"]):
        with pytest.raises(DecklogError) as error:
            await rejected(*words)
        assert error.value.code is Code.MISCONFIGURED


async def test_delete_deletes_each_and_goes_on_after_one_that_is_not_there(world: World, capsys: Printed) -> None:
    assert await rejected("delete", "2", "9", "3") == 1
    printed = capsys.readouterr()
    assert printed.out == "2: deleted\n3: deleted\n"
    assert printed.err.startswith("9: not-found")
    assert await rejected("list") == 0
    assert capsys.readouterr().out.startswith("1  ")


async def test_writer_may_not_list(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECKLOG_KEY", world.keys["acme", Role.WRITER])
    with pytest.raises(DecklogError) as error:
        await rejected("list")
    assert error.value.code is Code.FORBIDDEN
