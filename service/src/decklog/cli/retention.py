"""`decklog retention`."""

from __future__ import annotations

import sys

from cyclopts import App

from decklog.cli.columns import member, moment
from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND
from decklog.cli.manual import manual
from decklog.cli.output import OUTPUT_HELP, Listing, Output, encoded, is_live
from decklog.cli.querying import LogName
from decklog.cli.zone import Clock

app = App(
    name="retention",
    help_epilogue=manual(
        f"""A range is a span of receipt time with its records. It is open while further records may come into it, closed afterwards, and
hidden once its records cannot be read any more.

{OUTPUT_HELP}

{KEY_HELP}""",
        "decklog retention",
        "decklog retention --log access -o json",
        exits=EXITS,
    ),
)


@app.default
async def retention(
    *, connection: Asking | None = None, log: LogName = "events", zone: str | None = None, output: Output = "table"
) -> int:
    """Print until when the records of a log can be read.

    Args:
        connection: Address and credential.
        log: The log.
        zone: Time zone of the times, such as Europe/Amsterdam.
        output: Form of the list.
    """
    async with (connection or Asking()).client() as client:
        found = await client.retention(log=log)
    live = is_live(output)
    clock = Clock(zone, live=live)

    counts = [member(each) for each in ("first_seq", "end_seq", "records", "bytes")]
    columns = [moment("from", clock), moment("to", clock), *counts, moment("hidden_after", clock), member("state")]
    listing = Listing(columns, output, live=live)
    for item in encoded(found.ranges):
        listing.add(item)
    listing.close({"tenant": found.tenant, "log": found.log, "days": found.days, "search_days": found.search_days})
    if live:
        sys.stderr.write(f"Records of {found.tenant} can be read for {found.days} days.\n")
    return FOUND
