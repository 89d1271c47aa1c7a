"""`decklog story`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from decklog.cli.columns import Column, record_columns, value_at
from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND, NOTHING
from decklog.cli.manual import manual
from decklog.cli.output import OUTPUT_HELP, Listing, Output, is_live
from decklog.cli.querying import Limit, LogName
from decklog.cli.search import list_records, order_of
from decklog.cli.zone import Clock
from decklog.client.client import Client
from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.sentence import sentence
from decklog.domain.search import tree
from decklog.domain.search.written import written

SUBJECTS = {"request": "correlation_id", "session": "session_id", "actor": "actor.id", "resource": "resource.id"}
"""Fields by which records belong to one story, the narrowest first."""

app = App(
    name="story",
    help_epilogue=manual(
        f"""Prints everything of one request, session, actor or resource, in the order of the events, one sentence a record. The subject
is given by an option, or by the number of a record: then it is the request of that record, else its session, else its actor. --of
chooses another one.

{OUTPUT_HELP}

{KEY_HELP}""",
        "decklog story 2041",
        "decklog story 2041 --of resource",
        "decklog story --actor alice --zone Europe/Amsterdam",
        "decklog story --resource d-17 --type document -o ndjson",
        exits=EXITS,
    ),
)


@app.default
async def story(
    number: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    /,
    *,
    connection: Asking | None = None,
    of: Literal["request", "session", "actor", "resource"] | None = None,
    request: str | None = None,
    session: str | None = None,
    actor: str | None = None,
    resource: str | None = None,
    kind: Annotated[str | None, Parameter(name="--type")] = None,
    limit: Limit = 1_000,
    log: LogName = "events",
    zone: str | None = None,
    output: Output = "table",
) -> int:
    """Tell everything of one request, session, actor or resource, in order.

    Args:
        number: Sequence number of a record of the story.
        connection: Address and credential.
        of: What the story of that record is of.
        request: Request, by its correlation_id.
        session: Session, by its session_id.
        actor: Actor, by its id.
        resource: Resource, by its id.
        kind: Type of that resource.
        limit: Records that are printed at most.
        log: Log that is searched.
        zone: Time zone of the times, such as Europe/Amsterdam.
        output: Form of the answer.
    """
    named = {"request": request, "session": session, "actor": actor, "resource": resource}
    given = {name: value for name, value in named.items() if value is not None}
    if len(given) + (number is not None) != 1 or (of is not None and number is None) or (kind is not None and resource is None):
        raise DecklogError(
            Code.MISCONFIGURED,
            "Give the number of a record, or one of --request, --session, --actor and --resource; --of goes with a number, and --type "
            "with --resource.",
        )
    async with (connection or Asking()).client() as client:
        query = _query(*given.popitem(), kind) if given else await _of_record(client, number or 0, of, log)
        live = is_live(output)
        columns = record_columns("seq,time", Clock(zone, live=live), wide=False)
        listing = Listing([*columns, Column("sentence", sentence), _message()], output, live=live)
        more = await list_records(client, listing, query, log, order=order_of("occurred", oldest=True), limit=limit)
        listing.close({"next": more, "query": query})
    if more is not None:
        sys.stderr.write(f"The story goes on after these {listing.count} records. More: --limit\n")
    elif not listing.count:
        sys.stderr.write("Nothing was found.\n")
    return FOUND if listing.count else NOTHING


def _message() -> Column:
    return Column("message", lambda item: str(item.get("message") or ""))


def _query(subject: str, value: str, kind: str | None) -> str:
    whole: list[tree.Node] = [tree.Equal(SUBJECTS[subject], value)]
    if kind is not None:
        whole.append(tree.Equal("resource.type", kind))
    return written(tree.And(tuple(whole)) if len(whole) > 1 else whole[0])


async def _of_record(client: Client, number: int, of: str | None, log: str) -> str:
    """Return the query of the story that a record belongs to. Raises `misconfigured` where the record has no such subject."""
    record: dict[str, Any] = json.loads(bytes(await client.record(number, log=log)))
    for name in (of,) if of is not None else SUBJECTS:
        if isinstance(value := value_at(record, SUBJECTS[name]), str):
            return _query(name, value, value_at(record, "resource.type") if name == "resource" else None)
    raise DecklogError(Code.MISCONFIGURED, f"Record {number} has no {SUBJECTS[of or 'actor']}.")
