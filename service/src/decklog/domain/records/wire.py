"""Records as answers contain them: JSON objects, and CSV cells that no spreadsheet evaluates.

The content of a record is the exact text that was hashed. JSON is made by writing the server's fields in front of it; the content
must never be decoded and encoded again.
"""

from __future__ import annotations

import re
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
    "recorded_by",
    "tenant",
    "log",
    "epoch",
    "masked",
)
"""The columns of CSV. The order is a contract: new columns go to the end."""
CSV_PATHS: dict[str, tuple[str, ...]] = {
    "actor_type": ("actor", "type"),
    "actor_id": ("actor", "id"),
    "actor_name": ("actor", "name"),
    "resource_type": ("resource", "type"),
    "resource_id": ("resource", "id"),
    "resource_name": ("resource", "name"),
    "source_ip": ("source", "ip"),
    "user_agent": ("source", "user_agent"),
}
"""Places of columns in a record, where the column has another name."""

_SIGNS = "=+@\uff1d\uff0b\uff0d\uff20-"
"""First characters of a formula in spreadsheets, with the fullwidth forms that some of them fold to ASCII."""
_BEFORE = rf"""(?:^(?='*[\t\r\n{_SIGNS}])|(?<=[;\t\r\n])(?=["']*[{_SIGNS}]))"""
"""Where a cell could begin with a formula: a program that separates cells by `;` or tabs sees other cells, and does not know our quotes."""
_FORMULA = re.compile(_BEFORE)
_GUARDED = re.compile(_BEFORE.replace("(?:^", "(?:^'").replace("])(?", "])'(?"))


def renderer(tenant_name: str, log: LogName) -> Callable[[StoredRecord], str]:
    """Return a function that writes a record of this log as a JSON object on one line; make it once for many records."""
    start = f'{{"tenant":{msgspec.json.encode(tenant_name).decode()},"log":"{log.text}","epoch":'

    def rendered(record: StoredRecord) -> str:
        return (
            f'{start}{record.epoch},"seq":{record.seq},"received_at":"{rfc3339(record.received_at)}",'
            f'"digest":"{digest_text(record.digest)}",{record.content[1:]}'
        )

    return rendered


def render(tenant_name: str, log: LogName, record: StoredRecord) -> bytes:
    """Return one record as a JSON object: `tenant`, `log`, `epoch`, `seq`, `received_at`, `digest`, then its content."""
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
    """The content of a record; fields of any JSON keep their exact text."""

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
    recorded_by: msgspec.Raw | UnsetType = UNSET
    masked: msgspec.Raw | UnsetType = UNSET


_content = msgspec.json.Decoder(_Content)


def _json(raw: msgspec.Raw | UnsetType) -> str:
    return "" if isinstance(raw, UnsetType) else bytes(raw).decode()


def inert(cell: str) -> str:
    """Return a cell that a spreadsheet shows as text: a formula gets an apostrophe in front (OWASP, CSV injection).

    So does one after `;`, a tab or a line break. `evaluable` takes exactly these apostrophes away again.
    """
    return _FORMULA.sub("'", cell)


def evaluable(cell: str) -> str:
    """Return the text from which `inert` made a cell."""
    return _GUARDED.sub("", cell)


def csv_cells(tenant_name: str, log: LogName, record: StoredRecord) -> list[str]:
    """Return one inert cell for each of `CSV_COLUMNS`, empty if the record lacks the value."""
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
            _json(content.recorded_by),
            tenant_name,
            log.text,
            str(record.epoch),
            _json(content.masked),
        )
    ]


def _quoted(cell: str) -> str:
    if '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return f'"{cell}"' if "," in cell or "\n" in cell or "\r" in cell else cell


def csv_rows(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as text by RFC 4180: CRLF after each, cells quoted only if necessary, quotes doubled inside."""
    return "".join([",".join(map(_quoted, row)) + "\r\n" for row in rows])


def csv_header() -> str:
    """Return the row with the names of the columns."""
    return csv_rows([CSV_COLUMNS])
