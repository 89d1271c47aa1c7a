"""The SQL files of this package, and quoting for the names that are put into them.

Only names of schemas are ever put into SQL text, and only through `quoted`; every value travels as a parameter.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@cache
def statement(name: str) -> str:
    """The text of `sql/<name>.sql`."""
    return files("decklog.timescale").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


@cache
def quoted(name: str) -> str:
    """A schema's name as an SQL identifier. Names come from the registry; anything unexpected is a bug."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a schema of ours")
    return f'"{name}"'


async def only_row(connection: asyncpg.Connection[Any], query: str, *arguments: object) -> asyncpg.Record:
    """Return the one row of a statement that always has one. Raises `LookupError` where it has none."""
    row: asyncpg.Record | None = await connection.fetchrow(query, *arguments)
    if row is None:
        raise LookupError("a statement that always has a row returned none")
    return row
