"""Records as readers get them: JSON by splicing and CSV cells that no spreadsheet runs.

A record's content is the exact text that was hashed, so it is never parsed to be served as JSON: the server's fields
are written in front of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from decklog.domain.log import LogName, rfc3339
from decklog.domain.records.canonical import digest_text
from decklog.domain.records.record import StoredRecord

CSV_COLUMNS = (
    "seq",
    "received_at",
    "occurred_at",
    "action",
    "actor_type",
    "actor_id",
    "actor_name",
    "resource_type",
    "resource_id",
    "resource_name",
    "severity",
    "outcome",
    "source_ip",
    "user_agent",
    "session_id",
    "correlation_id",
    "id",
    "message",
    "metadata",
    "before",
    "after",
    "related",
    "digest",
)
"""The columns of CSV, in this order for ever; new ones go to the end."""

_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What makes a spreadsheet take a cell for a formula, the fullwidth forms that some fold to ASCII among it."""


def renderer(tenant_name: str, log: LogName) -> Callable[[StoredRecord], str]:
    """A function that writes records of this log as JSON objects on one line each; made once for many records."""
    start = f'{{"tenant":{msgspec.json.encode(tenant_name).decode()},"log":"{log.text}","epoch":'

    def rendered(record: StoredRecord) -> str:
        return (
            f'{start}{record.epoch},"seq":{record.seq},"received_at":"{rfc3339(record.received_at)}",'
            f'"digest":"{digest_text(record.digest)}",{record.content[1:]}'
        )

    return rendered


def render(tenant_name: str, log: LogName, record: StoredRecord) -> bytes:
    """One record as a JSON object: `tenant`, `log`, `epoch`, `seq`, `received_at`, `digest`, then its content."""
    return renderer(tenant_name, log)(record).encode()


class _Actor(msgspec.Struct):
    id: str
    type: str = ""
    name: str = ""


class _Resource(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""


class _Source(msgspec.Struct):
    ip: str = ""
    user_agent: str = ""


class _Content(msgspec.Struct):
    """A record's content; what is any JSON stays as its exact text."""

    action: str
    actor: _Actor
    occurred_at: str
    severity: str
    outcome: str
    resource: _Resource = msgspec.field(default_factory=_Resource)
    source: _Source = msgspec.field(default_factory=_Source)
    session_id: str = ""
    correlation_id: str = ""
    id: str = ""
    message: str = ""
    metadata: msgspec.Raw | UnsetType = UNSET
    before: msgspec.Raw | UnsetType = UNSET
    after: msgspec.Raw | UnsetType = UNSET
    related: msgspec.Raw | UnsetType = UNSET


_content = msgspec.json.Decoder(_Content)


def _json(raw: msgspec.Raw | UnsetType) -> str:
    return "" if isinstance(raw, UnsetType) else bytes(raw).decode()


def inert(cell: str) -> str:
    """A cell that a spreadsheet shows as text: with an apostrophe in front where it would be a formula."""
    return "'" + cell if cell.startswith(_FORMULA_STARTS) else cell


def csv_cells(record: StoredRecord) -> list[str]:
    """One inert cell per column of `CSV_COLUMNS`; empty where the record lacks the value."""
    content = _content.decode(record.content)
    actor, resource, source = content.actor, content.resource, content.source
    return [
        inert(cell)
        for cell in (
            str(record.seq),
            rfc3339(record.received_at),
            content.occurred_at,
            content.action,
            actor.type,
            actor.id,
            actor.name,
            resource.type,
            resource.id,
            resource.name,
            content.severity,
            content.outcome,
            source.ip,
            source.user_agent,
            content.session_id,
            content.correlation_id,
            content.id,
            content.message,
            _json(content.metadata),
            _json(content.before),
            _json(content.after),
            _json(content.related),
            digest_text(record.digest),
        )
    ]


def _quoted(cell: str) -> str:
    if '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return f'"{cell}"' if "," in cell or "\n" in cell or "\r" in cell else cell


def csv_rows(rows: Iterable[Sequence[str]]) -> str:
    """Rows as RFC 4180 has them: CRLF after each, quotes where they are needed and doubled inside."""
    return "".join([",".join(map(_quoted, row)) + "\r\n" for row in rows])


def csv_header() -> str:
    return csv_rows([CSV_COLUMNS])
