"""Records as the server returns them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class Actor(msgspec.Struct):
    """The actor: the user or program that performed the action."""

    id: str = ""
    type: str | None = None
    name: str | None = None


class Resource(msgspec.Struct):
    """The resource: what the action was performed on."""

    type: str = ""
    id: str | None = None
    name: str | None = None


class Source(msgspec.Struct):
    """The source of the request."""

    ip: str | None = None
    user_agent: str | None = None


class Record(msgspec.Struct):
    """A stored record. Fields that a viewer token hides have their defaults.

    Attributes:
        seq: Number of the record in its log: 0, 1, 2, … without a gap.
        received_at: Time of receipt by the server.
        occurred_at: Time of the event, with the digits and the offset that the client sent.
        recorded_by: Credential that stored the record: `type`, `id`, `issuer`, `ip`.
        masked: JSON pointers of the values that were masked.
        trimmed: Values that were removed, because the record was too large or too deep.
        position: Position behind the record, for `after` of a later `tail`. Empty outside of `tail`.
    """

    seq: int
    tenant: str = ""
    log: str = ""
    epoch: int = 0
    received_at: datetime | None = None
    digest: str = ""
    action: str = ""
    actor: Actor = msgspec.field(default_factory=Actor)
    id: str | None = None
    resource: Resource | None = None
    related: list[Resource] = []
    occurred_at: str = ""
    severity: str = ""
    outcome: str = ""
    message: str | None = None
    source: Source | None = None
    session_id: str | None = None
    correlation_id: str | None = None
    before: Any = None
    after: Any = None
    metadata: dict[str, Any] = {}
    recorded_by: dict[str, Any] | None = None
    masked: list[str] = []
    trimmed: list[dict[str, Any]] = []
    position: str = ""


class Page(msgspec.Struct):
    """One page of records. `next` is the cursor of the next one."""

    items: list[Record]
    next: str | None = None


class Marked(msgspec.Struct):
    """The data of an event of a stream that is no record."""

    position: str = ""
