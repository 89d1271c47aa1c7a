"""The query of a verb: its words on the command line, and the parameters of a request for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from decklog.domain.errors import Code, DecklogError
from decklog.domain.search.fields import FIELDS, PLACES, Kind

QUERY_HELP = """QUERY is in the query language of the board (docs/guides/query-language.md): words, "phrases", field:value, ranges, AND, OR, NOT.
Put it into quotes, so that the shell leaves it as it is."""


def query_fields(_: Any = None) -> Iterable[str]:
    """Return the beginnings of conditions on a field, for completion."""
    return sorted({f"{field.path}:" for field in (*FIELDS, *PLACES) if field.kind not in (Kind.WORDS, Kind.LEAVES)})


Words = Annotated[str, Parameter(completer=query_fields)]
"""One word of a query on the command line."""
LogName = Annotated[Literal["events", "access"], Parameter(name="--log")]
"""The log that is read."""
LIMIT_MAX = 100_000
Limit = Annotated[int, Parameter(name=("--limit", "-n"), validator=Number(gte=1, lte=LIMIT_MAX))]
"""How many records are printed at most."""


def query_of(words: Sequence[str]) -> str:
    """Return the query that the words of a command line make.

    Raises `misconfigured` where several words hold blanks: the shell has taken quotes away, and with them the meaning.
    """
    if len(words) > 1 and any(" " in word for word in words):
        raise DecklogError(
            Code.MISCONFIGURED,
            f"The query is in several words, and the shell has taken its quotes away. Quote it as a whole: '{' '.join(words)[:200]}'",
        )
    return " ".join(words)


def asked(query: str, log: str, **others: str | int | None) -> dict[str, str | int | Sequence[str]]:
    """Return the parameters of a request, without those that are not given."""
    given: dict[str, str | int | None] = {"q": query or None, "log": None if log == "events" else log, **others}
    return {name: value for name, value in given.items() if value is not None}
