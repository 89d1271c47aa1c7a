"""`decklog tail`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from decklog.cli.columns import record_columns
from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND
from decklog.cli.manual import manual
from decklog.cli.output import Listing, is_live
from decklog.cli.querying import QUERY_HELP, Limit, LogName, Words, asked, query_of
from decklog.cli.search import Columns
from decklog.cli.zone import Clock
from decklog.client.following import PlaceFile, follow
from decklog.client.progress import Progress

app = App(
    name="tail",
    help_epilogue=manual(
        f"""Prints new records until Ctrl-C. A connection that breaks is opened again behind the last record, so nothing is missed and
nothing is printed twice.

With --position FILE the position is kept in a file, after each record that is printed: the same command continues there. A process that
is killed between the two prints one record again. --after begins at a position or number; -1 is before the first record.

{QUERY_HELP}

{KEY_HELP}""",
        "decklog tail 'severity:(ERROR OR CRITICAL)'",
        "decklog tail --after -1 -o ndjson --position app.position >> app.ndjson",
        exits=f"{EXITS}, 130 (Ctrl-C)",
    ),
)


@app.default
async def tail(
    *query: Words,
    connection: Asking | None = None,
    after: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    position: Path | None = None,
    limit: Limit | None = None,
    log: LogName = "events",
    columns: Columns = None,
    zone: str | None = None,
    output: Annotated[Literal["table", "wide", "ndjson"], Parameter(name=("--output", "-o"))] = "table",
) -> int:
    """Print records as they are stored.

    Args:
        query: Query in the query language.
        connection: Address and credential.
        after: Position or number of a record to begin after (now).
        position: File that keeps the position. It precedes --after.
        limit: Records after which the command ends.
        log: Log that is followed.
        columns: Columns, separated by commas: short names, or paths of a record.
        zone: Time zone of the times, such as Europe/Amsterdam.
        output: Form of the records.
    """
    live, words = is_live(output), query_of(query)
    listing = Listing(record_columns(columns, Clock(zone, live=live), wide=output == "wide"), output, live=live, flowing=True)
    progress = Progress(sys.stderr, live=sys.stderr.isatty())
    reached: str | None = None
    async with (connection or Asking()).client() as client:
        place = None if position is None else PlaceFile(position, client.url, log, words)
        begin = after if place is None else place.load() or after
        try:
            async for event in follow(client, asked(words, log), begin, progress.say, progress.waiting):
                progress.clear()
                if event.kind == "record":
                    listing.add(event.data)
                reached = event.position
                if place is not None:
                    place.save(reached)
                if limit is not None and listing.count >= limit:
                    break
        except asyncio.CancelledError:
            if place is not None:
                progress.say("Stopped. The same command continues here.")
            elif reached is not None:
                progress.say(f"Stopped. Continue with --after {reached}")
            raise
        finally:
            progress.clear()
    return FOUND
