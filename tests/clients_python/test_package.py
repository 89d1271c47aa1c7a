"""The package: few dependencies, a short import, Python 3.10, and no credential anywhere."""

from __future__ import annotations

import ast
import importlib.metadata
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import decklog_client
from decklog_client import AsyncDecklog, ConfigurationError, Decklog, Options, Reader, SpoolFullError
from decklog_client.making import Fields, Outgoing
from decklog_client.options import OptionValues
from tests.docs.pages import ROOT

SOURCES = sorted((ROOT / "clients/python/src").rglob("*.py"))
DISTRIBUTIONS_MAX = 10
SECRET = "dlk_secretsecret_0123456789"


def required(name: str, seen: set[str]) -> set[str]:
    """The distributions that one needs on this platform, itself included."""
    if name in seen:
        return seen
    seen.add(name)
    for requirement in importlib.metadata.requires(name) or []:
        words, _, marker = requirement.partition(";")
        if "extra" not in marker and 'python_version < "3.1' not in marker:
            found = re.match(r"[\w.-]+", words)
            assert found is not None
            required(re.sub(r"[-_.]+", "-", found[0]).lower(), seen)
    return seen


def test_client_needs_at_most_ten_distributions() -> None:
    needed = required("decklog-client", set())
    assert {"decklog-client", "httpx", "msgspec"} <= needed
    assert len(needed) <= DISTRIBUTIONS_MAX


def test_import_loads_neither_httpx_nor_asyncio() -> None:
    """They would take longer than everything else; `make bench ONLY=client_record` measures the import."""
    code = "import decklog_client, sys; print([n for n in ('httpx', 'asyncio', 'ssl', 'decklog') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    assert decklog_client.AsyncDecklog is AsyncDecklog
    with pytest.raises(AttributeError, match="Nothing"):
        _ = decklog_client.Nothing  # type: ignore[attr-defined]


def test_sources_are_those_of_python_3_10() -> None:
    for path in SOURCES:
        ast.parse(path.read_text(), feature_version=(3, 10))
    other = shutil.which("python3.10")
    if other is not None and subprocess.run([other, "--version"], check=False, capture_output=True).returncode == 0:
        subprocess.run(
            [other, "-c", "import sys; [compile(open(n).read(), n, 'exec') for n in sys.argv[1:]]", *SOURCES], check=True
        )


def test_no_credential_is_shown_or_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        audit = Decklog(url="http://127.0.0.1:1", key=SECRET, spool=tmp_path, backoff_max=0.0)
        audit.record("a.b", actor="alice")
        with pytest.raises(decklog_client.NotStoredYetError) as late:
            audit.commit(0.2)
        shown = [repr(audit), repr(audit.stats()), repr(Reader(url="http://a", key=SECRET)), str(late.value)]
        audit.close(0.0)
    for wrong in (f"{SECRET} {SECRET}", f"{SECRET}é"):
        with pytest.raises(ConfigurationError) as refused:
            Decklog(url="http://a", key=wrong, spool=tmp_path)
        shown.append(str(refused.value))
    assert SECRET not in caplog.text + "".join(shown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "decklog.example.com"}, "must have the form"),
        ({"url": "http://[::1"}, "must have the form"),
        ({"url": "http://a:b@c"}, "must not contain credentials"),
        ({"key": None}, "either a key or the file"),
        ({"key_file": "x"}, "either a key or the file"),
        ({"spool_bytes": 5}, r"spool_bytes"),
        ({"when_full": "drop"}, "when_full"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, object], message: str, tmp_path: Path) -> None:
    good = {"url": "http://a", "key": "k", "spool": tmp_path}
    with pytest.raises(ConfigurationError, match=message):
        Decklog(**{**good, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["DECKLOG_URL", "DECKLOG_KEY", "DECKLOG_SPOOL"])
def test_missing_variables_are_named(missing: str, tmp_path: Path) -> None:
    environment = {"DECKLOG_URL": "http://a", "DECKLOG_KEY": "k", "DECKLOG_SPOOL": str(tmp_path)}
    del environment[missing]
    with pytest.raises(ConfigurationError, match=missing):
        Decklog.from_env(environment)


def test_key_of_a_file_is_read_for_each_request(tmp_path: Path) -> None:
    file = tmp_path / "key"
    environment = {"DECKLOG_URL": "http://a", "DECKLOG_KEY_FILE": str(file)}
    reader = Reader.from_env(environment)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        next(reader.search())
    file.write_text("one\n")
    assert reader._credential() == "one"
    file.write_text("two\n")
    assert reader._credential() == "two"
    assert "two" not in repr(reader._credential)


def test_typed_options_are_those_that_are_checked() -> None:
    assert set(OptionValues.__annotations__) == set(Options.__struct_fields__)
    assert {"action", *Fields.__annotations__} == set(Outgoing.__struct_fields__)


async def test_async_client_waits_for_room_without_blocking_and_raises_where_asked(tmp_path: Path) -> None:
    for when_full, folder in (("raise", "a"), ("block", "b")):
        async with AsyncDecklog(
            url="http://127.0.0.1:1",
            key="k",
            spool=tmp_path / folder,
            spool_bytes=2**20,
            full_timeout=0.01,
            when_full=when_full,  # type: ignore[arg-type]
        ) as audit:
            for _ in range(4):
                await audit.record("a.b", actor="alice", message="x" * 250_000)
            with pytest.raises(SpoolFullError):
                await audit.record("a.b", actor="alice", message="x" * 250_000)
            assert audit.stats().recorded == 4
            assert not await audit.close(0.0)
