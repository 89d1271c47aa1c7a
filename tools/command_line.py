"""Print the help of both programs, verb by verb, as `PROGRAM VERB --help` prints it: 100 columns, no colour."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from unittest import mock

ENVIRONMENT = {"COLUMNS": "100", "LINES": "100", "NO_COLOR": "1", "TERM": "dumb"}
_COMMANDS = re.compile(r"^[│|]?\s{1,4}([a-z][a-z-]+)(?:\s{2,}|\s*[│|]?$)", re.MULTILINE)
_SECTION = re.compile(r"(?:positional arguments:\n  (?:VERB|\{[^}]*\})|[╭─ ]*Commands).*?\n(?=\n|╰|\Z)", re.DOTALL)


def decklog() -> str:
    """Return the help of every verb of `decklog`."""
    return _pages("decklog")


def operator() -> str:
    """Return the help of every verb of `decklog-operator`."""
    return _pages("decklog-operator")


def helps(program: str, verbs: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each verb of a program as a path, and its help; first the program itself, with an empty path."""
    text = _help(program, verbs)
    yield verbs, text
    for section in _SECTION.findall(text):
        for verb in _COMMANDS.findall(section.partition("\n")[2]):
            yield from helps(program, (*verbs, verb))


def _pages(program: str) -> str:
    return "\n".join(
        f"{'##' if len(verbs) == 0 else '###'} `{' '.join((program, *verbs))}`\n\n```text\n{text.strip()}\n```\n"
        for verbs, text in helps(program)
    )


def _help(program: str, verbs: tuple[str, ...]) -> str:
    """Return what the program prints for `--help`. It runs in this process: twenty processes would take half a minute."""
    [script] = entry_points(group="console_scripts", name=program)
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, ENVIRONMENT),
        mock.patch.object(sys, "argv", [program, *verbs, "--help"]),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        script.load()()
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines())
