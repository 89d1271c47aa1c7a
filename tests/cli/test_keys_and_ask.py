"""`decklog keys`, `retention`, `tenants` and `ask` before a running API."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from decklog.cli import exits, program
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.services.ask.engine import Reply
from decklog.services.ask.grammar_engine import GrammarEngine
from tests.cli.conftest import store
from tests.support.api_world import World

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def as_role(served: World, config: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Role, str | None], None]:
    """Sets the key of a role in the environment."""
    monkeypatch.setenv("DECKLOG_URL", served.url)
    return lambda role, tenant: monkeypatch.setenv("DECKLOG_KEY", served.keys[tenant, role])


def test_key_is_created_into_a_private_file_listed_and_revoked(
    as_role: Callable[[Role, str | None], None], tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_role(Role.ADMIN, "acme")
    file = tmp_path / "billing.key"
    assert program.run(["keys", "create", "--role", "writer", "--name", "Billing", "--expires-in", "90d", "-f", str(file)]) == 0
    printed = capsys.readouterr()
    key = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in printed.out + printed.err
    assert program.run(["keys", "list"]) == 0
    number = key.split("_")[1]
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith(number)]
    assert line.split("\t")[1:4] == ["writer", "Billing", "api"]
    assert program.run(["whoami", "--key-file", str(file)]) == 0
    assert program.run(["keys", "revoke", number]) == 0
    assert program.run(["keys", "list", "-o", "json"]) == 0
    assert number not in capsys.readouterr().out.splitlines()[-1]
    assert program.run(["keys", "list", "--all"]) == 0
    assert "revoked" in capsys.readouterr().out
    assert program.run(["keys", "revoke", "0123456789abcdef"]) == 1
    assert program.run(["keys", "revoke"]) == 2
    assert program.run(["keys", "create", "--role", "writer", "--name", "x", "-f", str(file)]) == 2
    assert program.run(["keys", "create", "--role", "writer", "--name", "x", "--expires-in", "soon"]) == 2
    as_role(Role.AUDITOR, "acme")
    assert program.run(["keys", "list"]) == 1
    assert program.run(["keys", "create", "--role", "writer", "--name", "x", "--explain"]) == 0
    assert "--data-binary" in capsys.readouterr().out


def test_retention_lists_the_ranges_of_a_log(as_role: Callable[[Role, str | None], None], capsys: Printed) -> None:
    as_role(Role.AUDITOR, "acme")
    assert program.run(["retention", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tenant"], found["log"]) == ("acme", "events")
    assert program.run(["retention"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(found["items"])


def test_tenants_are_those_that_the_key_may_see(as_role: Callable[[Role, str | None], None], capsys: Printed) -> None:
    as_role(Role.PLATFORM, None)
    assert program.run(["tenants"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["acme", "other"]
    as_role(Role.AUDITOR, "acme")
    assert program.run(["tenants", "-o", "ndjson"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "acme"


def test_ask_shows_the_query_the_answer_and_what_was_not_understood(
    served: World, as_role: Callable[[Role, str | None], None], capsys: Printed
) -> None:
    as_role(Role.AUDITOR, "acme")
    for number in range(3):
        store(served, {"action": "document.delete", "actor": {"id": f"alice-{number % 2}"}, "outcome": "denied"})
    assert program.run(["ask", "which denied actions were there frobnicatedly?", "--zone", "UTC"]) == 0
    [question, carets, query, *answer] = capsys.readouterr().out.splitlines()
    assert question[carets.index("^") : carets.rindex("^") + 1].strip("?") == "frobnicatedly"
    assert program.run(["search", query.removeprefix("query: "), "--count"]) == 0
    assert capsys.readouterr().out == "3\n"
    assert "document.delete" in "\n".join(answer)
    assert program.run(["ask", "frobnicatedly"]) == 2
    assert "decklog: " in capsys.readouterr().err
    assert program.run(["ask", "denied actions", "-o", "ndjson"]) == 0
    assert [json.loads(line)["outcome"] for line in capsys.readouterr().out.splitlines()] == ["denied"] * 3


def test_ask_shows_what_a_model_wrote_and_the_notes_apart(
    served: World, as_role: Callable[[Role, str | None], None], capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_role(Role.AUDITOR, "acme")
    store(served, {"action": "document.delete", "actor": {"id": "alice"}, "outcome": "denied"})
    by_grammar = GrammarEngine.answer

    async def answer(*asked: Any) -> Reply:
        return msgspec.structs.replace(await by_grammar(*asked), comment="All\x1b[2J well.", notes=("The model did not answer.",))

    monkeypatch.setattr(GrammarEngine, "answer", answer)
    assert program.run(["ask", "denied actions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "Note: The model did not answer."
    assert lines[2].startswith("A model wrote: All")
    assert "\x1b" not in lines[2]


def test_every_error_of_a_server_has_an_exit_code() -> None:
    assert {exits.code_of(DecklogError(code, "")) for code in Code} == {exits.NOTHING, exits.WRONG_USE, exits.UNREACHABLE}
    assert exits.code_of(DecklogError(Code.FORBIDDEN, "")) == exits.NOTHING
    assert exits.code_of(DecklogError(Code.INVALID_QUERY, "")) == exits.WRONG_USE
    assert exits.code_of(DecklogError(Code.OVERLOADED, "")) == exits.UNREACHABLE


def test_verbs_that_ask_a_server_say_their_exit_codes(capsys: Printed) -> None:
    for verb in sorted(exits.ASKING):
        assert program.run([verb, *(["list"] if verb == "keys" else []), "--help"]) == 0
        assert "(the server does not answer now)" in " ".join(capsys.readouterr().out.split())
