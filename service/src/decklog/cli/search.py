"""`decklog search`."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import App, Parameter

from decklog.cli.columns import column_names, record_columns
from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND, NOTHING
from decklog.cli.manual import manual
from decklog.cli.options import Flag
from decklog.cli.output import OUTPUT_HELP, Listing, Output, is_live
from decklog.cli.querying import QUERY_HELP, Limit, LogName, Words, asked, query_of
from decklog.cli.zone import Clock
from decklog.client.client import Client

PAGE_MAX = 1_000
"""Records of one page."""
Columns = Annotated[str | None, Parameter(name=("--columns", "-c"), completer=column_names)]

app = App(
    name="search",
    help_epilogue=manual(
        f"""{QUERY_HELP} Without a query, the newest records are listed.

{OUTPUT_HELP}

{KEY_HELP}""",
        "decklog search 'action:user.* outcome:denied since:24h'",
        "decklog search actor:alice --columns time,action,metadata.reason",
        "decklog search 'role.update' --by occurred --oldest --limit 1000 -o ndjson",
        "decklog search severity:ERROR --count",
        exits=EXITS,
    ),
)


@app.default
async def search(
    *query: Words,
    connection: Asking | None = None,
    limit: Limit = 50,
    by: Literal["received", "occurred"] = "received",
    oldest: Flag = False,
    count: Flag = False,
    log: LogName = "events",
    columns: Columns = None,
    zone: str | None = None,
    output: Output = "table",
) -> int:
    """Search records, newest first.

    Args:
        query: Query in the query language.
        connection: Address and credential.
        limit: Records that are printed at most.
        by: Time that orders the records.
        oldest: Oldest first.
        count: Print the number of all matching records, and nothing else.
        log: Log that is searched.
        columns: Columns of the table or of CSV, separated by commas: short names, or paths of a record.
        zone: Time zone of the times, such as Europe/Amsterdam.
        output: Form of the answer.
    """
    live = is_live(output)
    shown = record_columns(columns, Clock(zone, live=live), wide=output in ("wide", "csv"))
    async with (connection or Asking()).client() as client:
        if count:
            total = (await client.stats(asked(query_of(query), log))).total
            sys.stdout.write(f"{total}\n")
            return FOUND if total else NOTHING
        listing = Listing(shown, output, live=live)
        more = await list_records(client, listing, query_of(query), log, order=order_of(by, oldest=oldest), limit=limit)
        listing.close({"next": more})
    if not listing.count:
        sys.stderr.write("Nothing was found.\n")
        return NOTHING
    if more is not None and live:
        sys.stderr.write(f"These are the first {listing.count}. More: --limit, or -o ndjson into a file.\n")
    return FOUND


def order_of(by: str, *, oldest: bool) -> str | None:
    """Return the parameter `sort` of an order; None for that of the API."""
    if by == "received" and not oldest:
        return None
    return f"{'' if oldest else '-'}{by}_at"


async def list_records(client: Client, listing: Listing, query: str, log: str, *, order: str | None, limit: int) -> str | None:
    """Add at most `limit` records to a listing, page by page. Return the cursor of what follows, None at the end."""
    cursor: str | None = None
    while listing.count < limit:
        page = await client.found(asked(query, log, sort=order, limit=min(PAGE_MAX, limit - listing.count), cursor=cursor))
        for item in page.items:
            listing.add(item)
        cursor = page.next
        if cursor is None:
            return None
    return cursor
