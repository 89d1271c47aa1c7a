"""`decklog login`, `use` and `whoami`: which server is asked with which key."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest

from decklog.cli import program
from decklog.domain.identity.access import Role
from tests.support.api_world import World

Printed = pytest.CaptureFixture[str]


def login(monkeypatch: pytest.MonkeyPatch, key: str, *words: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(key + "\n"))
    return program.run(["login", *words])


@pytest.fixture
def contexts(served: World, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> Path:
    """Two contexts, the auditor's being the current one."""
    for role in (Role.WRITER, Role.AUDITOR):
        assert login(monkeypatch, served.keys["acme", role], served.url) == 0
    capsys.readouterr()
    return config


def test_login_stores_a_checked_key_that_only_its_owner_can_read(
    served: World, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    key = served.keys["acme", Role.AUDITOR]
    assert login(monkeypatch, key, served.url + "/", "--key-file", "-") == 0
    printed = capsys.readouterr()
    assert printed.out == f"Signed in to {served.url} as acme, auditor. The current context is acme-auditor.\n"
    assert json.loads(config.read_text()) == {
        "current": "acme-auditor",
        "contexts": {"acme-auditor": {"url": served.url, "key": key}},
    }
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert key not in printed.out + printed.err


@pytest.mark.parametrize("key", ["dlk_0123456789abcdef_wrong", "two words", ""])
def test_login_stores_nothing_for_a_key_that_the_server_refuses(
    key: str, served: World, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    assert login(monkeypatch, key, served.url) in (1, 2)
    assert not config.exists()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("decklog: ")
    assert not key or key not in line


def test_login_with_a_file_keeps_its_name_and_reads_it_each_time(
    served: World, config: Path, tmp_path: Path, capsys: Printed
) -> None:
    file = tmp_path / "key"
    file.write_text(served.keys["acme", Role.AUDITOR] + "\n")
    assert program.run(["login", served.url, "--key-file", str(file), "--name", "mine"]) == 0
    assert json.loads(config.read_text())["contexts"] == {"mine": {"url": served.url, "key_file": str(file)}}
    file.write_text(served.keys["acme", Role.WRITER])
    capsys.readouterr()
    assert program.run(["whoami"]) == 0
    assert "role     writer\n" in capsys.readouterr().out


def test_use_changes_the_current_context_and_forgets_one(served: World, contexts: Path, capsys: Printed) -> None:
    assert program.run(["use"]) == 0
    assert capsys.readouterr().out == f"*\tacme-auditor\t{served.url}\t\n\tacme-writer\t{served.url}\t\n"
    assert program.run(["use", "acme-writer"]) == 0
    assert program.run(["whoami", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["role"] == "writer"
    assert program.run(["use", "acme-writer", "--forget"]) == 0
    assert list(json.loads(contexts.read_text())["contexts"]) == ["acme-auditor"]
    capsys.readouterr()
    assert program.run(["whoami"]) == 2
    assert "decklog login" in capsys.readouterr().err
    assert program.run(["use", "acme-writer"]) == 2
    assert "Known: acme-auditor" in capsys.readouterr().err


def test_flags_precede_variables_and_variables_the_current_context(
    served: World, contexts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Printed
) -> None:
    def role(*words: str) -> str:
        assert program.run(["whoami", "-o", "json", *words]) == 0
        found: str = json.loads(capsys.readouterr().out)["role"]
        return found

    (tmp_path / "admin").write_text(served.keys["acme", Role.ADMIN])
    assert role() == "auditor"
    monkeypatch.setenv("DECKLOG_CONTEXT", "acme-writer")
    assert role() == "writer"
    monkeypatch.setenv("DECKLOG_KEY", served.keys[None, Role.PLATFORM])
    assert role() == "platform"
    assert role("--context", "acme-auditor") == "auditor"
    assert role("--key-file", str(tmp_path / "admin")) == "admin"
    assert role("--context", "acme-auditor", "--key-file", str(tmp_path / "admin")) == "admin"


@pytest.mark.parametrize("by_variable", [False, True])
def test_key_of_a_context_is_never_sent_to_another_address(
    by_variable: bool, contexts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    words = ["whoami", "--url", "http://127.0.0.1:9"]
    if by_variable:
        monkeypatch.setenv("DECKLOG_URL", words.pop())
        words.pop()
    assert program.run(words) == 2
    assert "is sent to the address of that context only" in capsys.readouterr().err


def test_contexts_that_others_can_read_or_that_are_damaged_are_refused(contexts: Path, capsys: Printed) -> None:
    contexts.chmod(0o640)
    assert program.run(["whoami"]) == 2
    assert f"chmod 600 {contexts}" in capsys.readouterr().err
    contexts.chmod(0o600)
    contexts.write_text("{")
    assert program.run(["whoami"]) == 2
    assert "is not a file of contexts" in capsys.readouterr().err


def test_login_refuses_to_replace_a_context_of_another_address(
    served: World, contexts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    other = served.url.replace("127.0.0.1", "localhost")
    assert login(monkeypatch, served.keys["acme", Role.AUDITOR], other) == 2
    assert "--name NAME" in capsys.readouterr().err
    assert login(monkeypatch, served.keys["acme", Role.AUDITOR], other, "--name", "there") == 0


def test_server_that_cannot_be_reached_is_exit_code_3(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    monkeypatch.setenv("DECKLOG_KEY", "dlk_x")
    assert program.run(["whoami", "--url", "http://127.0.0.1:9"]) == 3
    assert capsys.readouterr().err == "decklog: http://127.0.0.1:9 cannot be reached.\n"
