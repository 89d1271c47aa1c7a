"""The `decklog` program: help, suggestions, completion, and errors as one line."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args, get_type_hints

import httpx
import pytest

from decklog import __version__, command_line
from decklog.cli import import_events, program
from decklog.domain.intake.kinds import AUTO, MAPPINGS
from tests.support.dev import Dev, decklog

Printed = pytest.CaptureFixture[str]
NAMES = [name for name, _, _ in program.VERBS]
HEAVY = ("litestar", "asyncpg", "httpx", "piccolo", "cryptography", "decklog.assembly", "decklog.settings")


def run(words: Sequence[str]) -> int:
    return command_line.run(program.app, words)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


PATHS = [
    *((name,) for name in NAMES),
    *(("archive", "verify"), ("recover", "database"), ("recover", "tenants")),
    *(("rejected", verb) for verb in ("list", "show", "replay", "delete")),
    *(("keys", verb) for verb in ("list", "create", "revoke")),
]


@pytest.mark.parametrize("words", PATHS, ids=" ".join)
def test_help_of_every_verb_says_what_it_does_and_shows_an_example(words: tuple[str, ...], capsys: Printed) -> None:
    assert run([*words, "--help"]) == 0
    long = capsys.readouterr().out
    assert run([*words, "-h"]) == 0
    assert capsys.readouterr().out == long
    assert long.partition("\n")[0].startswith(f"Usage: decklog {' '.join(words)}")
    if words not in [("archive",), ("keys",), ("recover",), ("rejected",)]:
        assert "\n  decklog " in long or "\n  DECKLOG_" in long


def test_help_of_the_program_names_every_verb_and_loads_none() -> None:
    code = (
        "import sys; from decklog import command_line; from decklog.cli import program; command_line.run(program.app, ['--help']);"
        f"sys.stderr.write(' '.join(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert [name for name in NAMES if f" {name} " not in done.stdout] == []


def test_program_prints_its_version(capsys: Printed) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["tenant"], 'Did you mean "tenants"?'),
        (["tenants", "--wid"], "Did you mean --wide?"),
        (["plan"], "--file"),
        (["import", "cloudtrail"], "FILES"),
        (["provision", "--manifests", "x", "--keys", "y", "--interval", "0"], "--interval"),
        (["dev", "--port", "65536"], "--port"),
        (["recover", "tenants"], "--all"),
    ],
)
def test_wrong_use_is_one_line_with_exit_code_2(words: list[str], why: str, capsys: Printed) -> None:
    assert run(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith("decklog: ")
    assert why in line


def test_program_without_a_verb_prints_its_help_and_exits_with_2(capsys: Printed) -> None:
    assert run([]) == 2
    assert capsys.readouterr().out.startswith("Usage: decklog COMMAND\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_every_verb(shell: str, capsys: Printed) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert [name for name in NAMES if name not in script] == []
    assert "detailed-exitcode" in script


def test_bash_accepts_the_completion_and_completes_a_verb(tmp_path: Path, capsys: Printed) -> None:
    assert run(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    words = "COMP_WORDS=(decklog rec); COMP_CWORD=1; _decklog; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", f". {script}; {words}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "recover"


def test_import_offers_every_kind_of_event() -> None:
    kinds = get_args(get_type_hints(import_events.import_events)["kind"])
    assert set(kinds) == {AUTO, *MAPPINGS}


# Errors of the operating system


def test_dev_refuses_a_taken_port_before_it_creates_anything(taken: int, tmp_path: Path) -> None:
    done = decklog("dev", "--port", str(taken), "--data-dir", str(tmp_path / "data"), "--manifests", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"decklog: 127.0.0.1:{taken}: Address already in use.\n"
    assert list(tmp_path.iterdir()) == []


def test_dev_refuses_a_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"
    done = decklog("dev", "--port", "0", "--data-dir", str(folder), "--manifests", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"decklog: {folder}: Not a directory.\n"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_operating_system_error_is_one_line_with_exit_code_2(
    number: int, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert run(["dev", "--port", "0", "--data-dir", str(tmp_path / "data"), "--manifests", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"decklog: {tmp_path / 'data'}: {os.strerror(number)}.\n"


# The data folder of `decklog dev`


@pytest.mark.parametrize("words", [["tenants"], ["plan", "-f", "manifests/examples"]])
def test_data_dir_without_a_running_dev_is_refused(words: list[str], tmp_path: Path, capsys: Printed) -> None:
    assert run([*words, "--data-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"decklog: No decklog dev is running in {tmp_path}.\n"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    made = Dev(tmp_path_factory.mktemp("dev"))
    made.start()
    yield made
    made.close()


def test_tenants_and_plan_work_against_a_running_dev_by_its_folder(dev: Dev) -> None:
    listed = decklog("tenants", "--data-dir", str(dev.data))
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [
        [name, "True"] for name in ("acme", "globex", "minimal")
    ]
    planned = decklog("plan", "--data-dir", str(dev.data), "-f", "manifests/examples", "--detailed-exitcode")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert planned.stdout == "".join(f"{name}: nothing to do\n" for name in ("acme", "globex", "minimal"))


def test_dev_prints_commands_that_work_as_printed(dev: Dev) -> None:
    printed = dev.log.read_text()
    [command] = [line.partition(": ")[2] for line in printed.splitlines() if line.startswith("Tenants: ")]
    listed = decklog(*command.split()[1:])
    assert listed.returncode == 0, listed.stderr
    assert "acme" in listed.stdout
    assert f"decklog plan --data-dir {dev.data} -f tenant.yaml" in printed


def test_dev_prints_the_link_to_the_board_first_and_board_another_one(dev: Dev) -> None:
    first = next(line for line in dev.log.read_text().splitlines() if line.startswith(("Board", "Decklog is ready")))
    assert first.startswith("Board (this link works once, for 10 minutes): ")
    another = decklog("board", "--data-dir", str(dev.data))
    assert (another.returncode, another.stderr) == (0, "")
    url, key = dev.content["url"], dev.content["tenants"]["acme"]["auditor"]
    single = decklog("board", "--url", url, variables={"DECKLOG_KEY": key})
    signed_in = []
    for link in (first.split()[-1], another.stdout.strip(), single.stdout.strip()):
        base, _, code = link.partition("/board/#link=")
        answer = httpx.post(f"{base}/api/v1/sessions", json={"link": code})
        assert answer.status_code == 201, answer.text
        signed_in.append([each["tenant"] or each["role"] for each in answer.json()["identities"]])
    assert sorted(signed_in[0]) == ["acme", "globex", "minimal", "platform"]
    assert signed_in[1] == signed_in[0]
    assert signed_in[2] == ["acme"]
