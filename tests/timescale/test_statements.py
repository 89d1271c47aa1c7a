"""The SQL files, compared with the code that uses them."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

import decklog.timescale
from decklog.timescale.statements import named, quoted, statement

SOURCES = Path(str(files(decklog.timescale)))
DEFINITIONS = {
    "ageing",
    "cell",
    "conversations",
    "ingest",
    "relations",
    "searches",
    "sessions",
    "shared",
    "term_filters",
    "worker",
}


def test_statements_in_sql_files_are_used_and_used_ones_exist() -> None:
    used = {name for path in SOURCES.rglob("*.py") for name in re.findall(r"\bstatement\(\"([a-z._]+)\"\)", path.read_text())}
    subjects = {path.stem for path in (SOURCES / "sql").glob("*.sql")} - DEFINITIONS
    assert used == DEFINITIONS | {f"{subject}.{name}" for subject in subjects for name in named(subject)}


def test_statement_is_one_statement_without_comments() -> None:
    text = statement("cursors.release")
    assert text.startswith("SELECT decklog.release_cursor(")
    assert "--" not in text
    assert "cursors.lease" not in text
    with pytest.raises(KeyError):
        statement("cursors.nothing")


@pytest.mark.parametrize("name", ['t"; DROP TABLE x', "", "T", "1a", "a" * 64])
def test_quoted_refuses_names_that_are_no_schemas(name: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        quoted(name)
