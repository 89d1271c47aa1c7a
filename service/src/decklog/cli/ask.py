"""`decklog ask`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from decklog.cli.columns import Column, record_columns, text_of
from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND, NOTHING
from decklog.cli.manual import manual
from decklog.cli.output import Listing, console, encoded
from decklog.cli.querying import LogName
from decklog.cli.zone import Clock, local_zone
from decklog.client.client import Answered, Unread
from decklog.client.progress import printable

app = App(
    name="ask",
    help_epilogue=manual(
        f"""Asks a question in plain words. The answer shows the query that the question became, so that you can check and change it with
decklog search, and the records that it rests on. Words that were not understood are underlined, and the answer says so first.

{KEY_HELP}""",
        "decklog ask 'who deleted documents yesterday?'",
        "decklog ask 'what did alice do on 10 July?' --zone Europe/Amsterdam",
        exits=EXITS,
    ),
)


@app.default
async def ask(
    *question: str,
    connection: Asking | None = None,
    conversation: str | None = None,
    log: LogName = "events",
    zone: str | None = None,
    output: Annotated[Literal["text", "json", "ndjson"], Parameter(name=("--output", "-o"))] = "text",
) -> int:
    """Answer a question in plain words.

    Args:
        question: The question.
        connection: Address and credential.
        conversation: Conversation that the question continues.
        log: Log that is asked about, where the question names none.
        zone: Time zone of days and hours in the question, and of the times of the answer.
        output: Text for a person, the JSON of the API, or its records, one a line.
    """
    words = " ".join(question)
    wanted = {"question": words, "zone": zone or local_zone(), "log": log}
    async with (connection or Asking()).client() as client:
        raw = await client.ask(wanted | ({} if conversation is None else {"conversation": conversation}))
    found = msgspec.json.decode(raw, type=Answered)
    if output == "json":
        sys.stdout.write(bytes(raw).decode() + "\n")
    elif output == "ndjson":
        sys.stdout.writelines(bytes(record).decode() + "\n" for record in found.records)
    else:
        _print(words, found, Clock(zone, live=sys.stdout.isatty()))
    return FOUND if found.records or any(each.count for each in found.counts) else NOTHING


def _print(question: str, found: Answered, clock: Clock) -> None:
    live = sys.stdout.isatty()
    screen = console()
    if found.not_understood:
        screen.print(printable(question))
        screen.print(_underlined(question, found.not_understood), style="red")
    screen.print(f"query: {printable(found.query) or '(all records)'}")
    screen.print(printable(found.answer), style="bold")
    if found.comment:
        screen.print(f"A model wrote: {printable(found.comment)}")
    for note in found.notes:
        screen.print(f"Note: {printable(note)}")
    if found.counts:
        columns = [
            Column(found.by or "value", lambda item: text_of(item["value"])),
            Column("count", lambda item: str(item["count"])),
        ]
        _list(columns, encoded(found.counts), live=live)
    _list(record_columns(None, clock, wide=False), found.records, live=live)
    if found.conversation and live:
        sys.stderr.write(f"Continue with --conversation {printable(found.conversation)}\n")


def _list(columns: Sequence[Column], items: Sequence[bytes | msgspec.Raw], *, live: bool) -> None:
    listing = Listing(columns, "table", live=live)
    for item in items:
        listing.add(item)
    listing.close()


def _underlined(question: str, parts: Sequence[Unread]) -> str:
    """Return a line with carets under the parts of the question that were not understood."""
    marks = [" "] * len(question)
    for part in parts:
        marks[part.start : part.end] = "^" * (part.end - part.start)
    return "".join(marks).rstrip()
