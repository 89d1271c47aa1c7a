"""The columns that `kubectl get tenants` and `decklog tenants` show. Pure.

Kubernetes finds a cell by its path in a Tenant, `decklog tenants` by a function of the registry's listing. A test compares the
two tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from decklog.domain.tenancy.status import READY, Condition, Part, TenantListing

_PADDING = 3
"""Blanks between two columns; no column is narrower than twice that. The same as in kubectl."""


def _condition(listing: TenantListing, kind: str) -> Condition | None:
    return next((condition for condition in listing.conditions if condition.type == kind), None)


def _ready(field: str) -> Callable[[TenantListing], str]:
    def cell(listing: TenantListing) -> str:
        condition = _condition(listing, READY)
        return "" if condition is None else str(getattr(condition, field))

    return cell


def _name_of(part: Part, field: str) -> Callable[[TenantListing], str]:
    """The name of an index or queue; empty where that backend is not configured."""

    def cell(listing: TenantListing) -> str:
        condition = _condition(listing, part)
        used = condition is not None and condition.reason != "NotConfigured"
        return str(getattr(listing, field)) if used else ""

    return cell


class Column(msgspec.Struct, frozen=True):
    """One column: `kind` and `path` for Kubernetes, `cell` for the text of a listing, or its date, which is shown as an age.

    A `wide` column is shown only by `-o wide` and `--wide`.
    """

    name: str
    kind: str
    path: str
    description: str
    cell: Callable[[TenantListing], str | datetime]
    wide: bool = False


def _of_ready(field: str) -> str:
    return f'.status.conditions[?(@.type=="{READY}")].{field}'


COLUMNS = (
    Column("Ready", "string", _of_ready("status"), "Whether the tenant has everything that its spec asks for.", _ready("status")),
    Column("Reason", "string", _of_ready("reason"), "Reason of the condition Ready.", _ready("reason")),
    Column("Isolation", "string", ".spec.isolation", "Dedicated or Shared.", lambda listing: listing.isolation.value),
    Column(
        "Retention",
        "integer",
        ".spec.retention.days",
        "Days that records are kept.",
        lambda listing: str(listing.retention_days),
    ),
    Column(
        "Age", "date", ".metadata.creationTimestamp", "Time since the Tenant was created.", lambda listing: listing.created_at
    ),
    Column(
        "Cell", "string", ".spec.cell", "Name of the database that stores the records.", lambda listing: listing.cell, wide=True
    ),
    Column(
        "Schema",
        "string",
        ".status.database.schema",
        "Postgres schema that stores the records.",
        lambda listing: listing.schema,
        wide=True,
    ),
    Column(
        "Index",
        "string",
        ".status.search.index",
        "OpenSearch index of the records.",
        _name_of(Part.SEARCH, "index"),
        wide=True,
    ),
    Column("Queue", "string", ".status.queue.name", "SQS queue that wakes workers.", _name_of(Part.QUEUE, "queue"), wide=True),
    Column("Message", "string", _of_ready("message"), "What is missing, and what to do about it.", _ready("message"), wide=True),
)

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "y": 31_536_000}
# Upper bounds of ages in seconds, and the units in which they are shown. A second unit of zero is left out.
_AGES = ((120, "s"), (600, "ms"), (10_800, "m"), (28_800, "hm"), (172_800, "h"), (691_200, "dh"), (63_072_000, "d"))
_OLDER = ((252_288_000, "yd"), (float("inf"), "y"))


def age(span: timedelta) -> str:
    """Return an age as kubectl shows it: 45s, 5m10s, 7h30m, 4d2h, 3y20d. A negative age counts as zero."""
    rest = max(0, int(span.total_seconds()))
    units = next(units for below, units in (*_AGES, *_OLDER) if rest < below)
    told = ""
    for unit in units:
        count, rest = divmod(rest, _UNITS[unit])
        told += f"{count}{unit}" if count or not told else ""
    return told


def _text(value: str | datetime, now: datetime) -> str:
    """A cell as it is printed: one line without control characters."""
    if isinstance(value, datetime):
        return age(now - value)
    line = next(iter(value.splitlines()), "")
    shown = "".join(character if character.isprintable() else "?" for character in line)
    return shown if line == value else shown + "..."


def table(listings: Sequence[TenantListing], now: datetime, *, wide: bool = False) -> str:
    """Return the table: a header, then a line for each listing in the order given."""
    columns = [column for column in COLUMNS if wide or not column.wide]
    rows = [["NAME", *(column.name.upper() for column in columns)]]
    rows += [[listing.name, *(_text(column.cell(listing), now) for column in columns)] for listing in listings]
    widths = [max(2 * _PADDING, _PADDING + max(map(len, column))) for column in zip(*rows, strict=True)]
    lines = ("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)
