"""`decklog top`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from cyclopts import App, Parameter

from decklog.cli.columns import Column, Item, text_of, value_at
from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND, NOTHING
from decklog.cli.manual import manual
from decklog.cli.output import OUTPUT_HELP, Listing, Output, encoded, is_live
from decklog.cli.querying import QUERY_HELP, Limit, LogName, Words, asked, query_of
from decklog.cli.zone import Clock, local_zone
from decklog.client.client import Client
from decklog.client.ndjson import lines
from decklog.client.progress import Progress
from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.projection import ROOTS, checked
from decklog.domain.search.calendar import INTERVALS
from decklog.domain.search.fields import COUNTABLE
from decklog.domain.search.stats import TOP_MAX

VALUES_MAX = 100_000
"""Different values that are counted here. More are refused: a list of them answers nothing."""
_BY_PATH = {field.path: name for name, field in COUNTABLE.items()}


def countable_names(_: Any = None) -> Iterable[str]:
    """Return what FIELD may be, for completion."""
    return (*INTERVALS, *COUNTABLE, *_BY_PATH, *ROOTS)


app = App(
    name="top",
    help_epilogue=manual(
        f"""FIELD is a path of records, such as actor.id, source.ip or metadata.reason, or one of the intervals {", ".join(INTERVALS)}.
Counts are exact. The server counts {", ".join(_BY_PATH)} and intervals; values of other fields are counted here, from an export
of that field alone.

{QUERY_HELP}

{OUTPUT_HELP}

{KEY_HELP}""",
        "decklog top actor.id 'outcome:denied since:7d'",
        "decklog top source.ip actor.id:alice --limit 20",
        "decklog top day 'action:user.login since:30d' --zone Europe/Amsterdam",
        exits=EXITS,
    ),
)


class Count(NamedTuple):
    """Number of records with one value."""

    value: str
    records: int


class Counted(NamedTuple):
    """Counts of records: the values that are shown, the records with others, and those without the field."""

    values: list[Count]
    other: int = 0
    missing: int = 0


@app.default
async def top(
    field: Annotated[str, Parameter(completer=countable_names)],
    *query: Words,
    connection: Asking | None = None,
    limit: Limit = 10,
    log: LogName = "events",
    zone: str | None = None,
    output: Output = "table",
) -> int:
    """Count records by the values of a field, or by time.

    Args:
        field: Field whose values are counted, or an interval of time.
        query: Query in the query language.
        connection: Address and credential.
        limit: Values that are printed at most, the most frequent ones.
        log: Log that is counted.
        zone: Time zone in which days and other intervals begin, such as Europe/Amsterdam.
        output: Form of the answer.
    """
    asking, words = connection or Asking(), query_of(query)
    async with asking.client() as client:
        if field in INTERVALS:
            found = await _by_interval(client, field, words, log, zone)
        elif (name := _BY_PATH.get(field, field)) in COUNTABLE and limit <= TOP_MAX:
            found = await _by_facet(client, name, words, log, limit)
        else:
            found = await _by_export(client, _path(field), words, log, limit)
    _print(field, found, output)
    return FOUND if found.values else NOTHING


def _path(field: str) -> str:
    """Return the path of a field. Raises `misconfigured` for what is neither a field nor an interval."""
    path = COUNTABLE[field].path if field in COUNTABLE else field
    try:
        checked([path])
    except DecklogError as error:
        raise DecklogError(
            Code.MISCONFIGURED, f"{error.detail.removeprefix('fields: ')} Intervals: {', '.join(INTERVALS)}."
        ) from None
    return path


async def _by_interval(client: Client, interval: str, query: str, log: str, zone: str | None) -> Counted:
    clock = Clock(zone or local_zone(), live=False)
    found = await client.stats(asked(query, log, interval=interval, tz=clock.name))
    starts = [(bucket.start.isoformat() if bucket.start else "", bucket.count) for bucket in found.buckets]
    return Counted([Count(_shown(clock.text(start), interval), count) for start, count in starts])


def _shown(moment: str, interval: str) -> str:
    """Return the beginning of an interval: a date for days and longer ones, else a time with its offset."""
    return moment if interval in ("minute", "hour") else moment.partition("T")[0]


async def _by_facet(client: Client, name: str, query: str, log: str, limit: int) -> Counted:
    found = (await client.stats(asked(query, log, facets=name, top=limit))).facets[name]
    return Counted([Count(each.value, each.count) for each in found.values], found.other, found.missing)


async def _by_export(client: Client, path: str, query: str, log: str, limit: int) -> Counted:
    """Count the values of a field from an export of it."""
    counts, missing = Counter[str](), 0
    progress = Progress(sys.stderr, live=sys.stderr.isatty())
    async with client.export(asked(query, log, fields=path)) as pieces:
        number = 0
        async for line in lines(pieces):
            number += 1
            value = value_at(json.loads(line, parse_float=str), path)
            for text in _texts(value):
                counts[text] += 1
            missing += value is None
            if len(counts) > VALUES_MAX:
                raise DecklogError(
                    Code.MISCONFIGURED, f"{path} has more than {VALUES_MAX:,} values. Narrow the query, or use decklog export."
                )
            if number % 1_000 == 0:
                progress.show(f"{number:,} records are counted")
    progress.clear()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Counted([Count(*each) for each in ordered[:limit]], sum(count for _, count in ordered[limit:]), missing)


def _texts(value: Any) -> Iterable[str]:
    """Return the values of a field: each element of an array is one, and counts once."""
    if value is None:
        return ()
    return {text_of(each) for each in value} if isinstance(value, list) else (text_of(value),)


def _print(field: str, found: Counted, output: str) -> None:
    columns = [Column(field, lambda item: text_of(value_at(item, "value")), tail=True), Column("count", _count, fixed=True)]
    listing = Listing(columns, output, live=is_live(output))
    for item in encoded([{"value": each.value, "count": each.records} for each in found.values]):
        listing.add(item)
    listing.close({"field": field, "other": found.other, "missing": found.missing})
    if output in ("table", "wide"):
        rest = [f"{found.other:,} with other values"] * bool(found.other) + [f"{found.missing:,} without {field}"] * bool(
            found.missing
        )
        sys.stderr.write(f"{', '.join(rest)}.\n" if rest else "" if found.values else "Nothing was found.\n")


def _count(item: Item) -> str:
    return str(item["count"])
