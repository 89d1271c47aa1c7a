"""The SQL of this package, which stands in `sql/`, and quoting for the names that are put into it.

A file holds either definitions (`cell.sql`, the template `relations.sql` with `shared.sql`) or named statements of one subject. Only
names of schemas are ever put into SQL text, and only through `quoted`; every value is passed as a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_HEADING = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def statement(name: str) -> str:
    """Return the text of `sql/<file>.sql`, or of one statement in it.

    Args:
        name: `<file>` for the whole file, `<file>.<statement>` for what stands below `-- name: <statement>`.
    """
    file, dot, part = name.partition(".")
    return named(file)[part] if dot else files("decklog.timescale").joinpath("sql", f"{file}.sql").read_text(encoding="utf-8")


@cache
def named(file: str) -> Mapping[str, str]:
    """Return the named statements of `sql/<file>.sql`, without their comments."""
    _, *parts = _HEADING.split(statement(file))
    return {
        name: re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).strip() for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


@cache
def quoted(name: str) -> str:
    """Return a schema's name as an SQL identifier.

    Names come from the registry, so an unexpected one is a fault of this program.

    Raises:
        ValueError: The name is not one that Decklog gives to a schema.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of a schema of Decklog")
    return f'"{name}"'


async def only_row(connection: asyncpg.Connection[Any], query: str, *arguments: object) -> asyncpg.Record:
    """Return the one row of a statement that always has one.

    Raises:
        LookupError: It has none.
    """
    row: asyncpg.Record | None = await connection.fetchrow(query, *arguments)
    if row is None:
        raise LookupError("a statement that always returns a row returned none")
    return row
