"""`decklog show`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from decklog.cli.columns import text_of
from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND
from decklog.cli.manual import manual
from decklog.cli.output import console, decoded
from decklog.cli.querying import LogName
from decklog.cli.zone import Clock
from decklog.client.progress import printable
from decklog.domain.records.sentence import sentence

Number_ = Annotated[int, Parameter(validator=Number(gte=0))]
_TIMES = ("occurred_at", "received_at")
_LAST = ("before", "after", "metadata")
"""Members that are shown below the others, as they may be long."""

app = App(
    name="show",
    help_epilogue=manual(
        f"""Prints one record: a sentence that says what it is about, its fields, what it changed, and its metadata.

{KEY_HELP}""",
        "decklog show 2041",
        "decklog show 2041 -o json | jq .metadata",
        "decklog show 17 --log access",
        exits=EXITS,
    ),
)


@app.default
async def show(
    number: Number_,
    /,
    *,
    connection: Asking | None = None,
    log: LogName = "events",
    zone: str | None = None,
    output: Annotated[Literal["text", "json"], Parameter(name=("--output", "-o"))] = "text",
) -> int:
    """Show one record.

    Args:
        number: Sequence number of the record.
        connection: Address and credential.
        log: Log that holds it.
        zone: Time zone of the times, such as Europe/Amsterdam.
        output: Text for a person, or the JSON of the API.
    """
    async with (connection or Asking()).client() as client:
        found = await client.record(number, log=log)
    if output == "json":
        sys.stdout.write(bytes(found).decode() + "\n")
        return FOUND
    record = decoded(found)
    clock = Clock(zone, live=sys.stdout.isatty())
    screen = console()
    screen.print(printable(sentence(record)), style="bold")
    screen.print()
    facts = list(_facts({name: value for name, value in record.items() if name not in _LAST}, clock))
    width = max(len(name) for name, _ in facts)
    for name, text in facts:
        screen.print(f"{printable(name).ljust(width)}  {printable(text)}")
    for name in _LAST:
        if name in record:
            screen.print(f"\n{name}", style="bold")
            screen.print(_indented(msgspec.json.decode(found, type=dict[str, msgspec.Raw])[name]))
    return FOUND


def _facts(members: Mapping[str, Any], clock: Clock, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the fields of a record as path and text; objects are divided into their members."""
    for name, value in members.items():
        if isinstance(value, dict):
            yield from _facts(value, clock, f"{above}{name}.")
        else:
            yield above + name, clock.text(value) if name in _TIMES and not above else text_of(value)


def _indented(value: msgspec.Raw) -> str:
    """Return JSON over several lines, with its numbers as they are; characters that a terminal would obey are escaped."""
    text = msgspec.json.format(bytes(value), indent=2).decode()
    return "\n".join("  " + printable(line) for line in text.splitlines())
