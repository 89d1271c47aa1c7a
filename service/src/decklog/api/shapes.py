"""The shapes of answers, for the OpenAPI document and for tests that hold the answers to it.

Most answers are spliced from stored text, so these structures describe and check; they do not serialise.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from decklog.domain.records.record import Outcome, RecordInput, Severity
from decklog.domain.tenancy.spec import TenantSpec
from decklog.domain.tenancy.status import Condition
from decklog.domain.tenant import Isolation

Seq = Annotated[int, Meta(ge=0, description="Position in the log: 0, 1, 2, … without a gap.")]
Epoch = Annotated[int, Meta(ge=0, description="Number of the log's life; it grows when the log is restored.")]
Digest = Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$", description="SHA-256 of the canonical content.")]
ReceivedAt = Annotated[datetime, Meta(tz=True, description="The server's time of commit order.")]
Name = Annotated[str, Meta(description="The tenant's name.")]


class Receipt(msgspec.Struct, forbid_unknown_fields=True):
    """Where a record is, once it is durable."""

    tenant: Name
    log: Literal["events"]
    epoch: Epoch
    seq: Seq
    received_at: ReceivedAt
    digest: Digest
    status: Annotated[Literal["stored", "duplicate"], Meta(description="`duplicate`: it was already there, at this place.")]


class ItemError(msgspec.Struct, forbid_unknown_fields=True):
    """Why one record of a bulk was rejected."""

    code: str
    detail: str


class BulkItem(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What became of one record of a bulk: `seq`, or `error` where it was rejected."""

    status: Literal["stored", "duplicate", "rejected"]
    seq: Seq | None = None
    error: ItemError | None = None


class BulkAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """What became of a bulk, in the order sent."""

    stored: int
    duplicates: int
    rejected: int
    items: list[BulkItem]


class Record(RecordInput, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stored record: what the client sent, masked, and in front of it what the server added."""

    tenant: Name
    log: Literal["events", "access"]
    epoch: Epoch
    seq: Seq
    received_at: ReceivedAt
    digest: Digest
    occurred_at: Annotated[datetime, Meta(tz=True)]
    severity: Severity
    outcome: Outcome
    masked: Annotated[list[str] | None, Meta(description="JSON pointers of the values that were masked.")] = None


class Covered(msgspec.Struct, forbid_unknown_fields=True):
    """The bounds of an answer."""

    head: Annotated[int, Meta(ge=0, description="Sequence number of the log's next record.")]
    indexed_from: Annotated[int, Meta(ge=0, description="Records below this number are too old for the search index.")]
    indexed: Annotated[int, Meta(ge=0, description="Records from this number on are not in the search index yet.")]
    engine: Annotated[str, Meta(description="Engine that found the records: `opensearch` or `postgres`.")]


class PageAnswer(Covered, forbid_unknown_fields=True):
    """One page of records, newest first."""

    items: list[Record]
    next: Annotated[str | None, Meta(description="`cursor` of the following page; null on the last.")]


class StatsBucket(msgspec.Struct, forbid_unknown_fields=True):
    """Records of one group in one interval."""

    key: Annotated[list[str | None], Meta(description="One value for each name in `by`; null where records lack it.")]
    start: Annotated[datetime | None, Meta(description="Beginning of the interval, null without `interval`.")] = msgspec.field(
        name="from"
    )
    count: Annotated[int, Meta(ge=1)]


class StatsAnswer(Covered, forbid_unknown_fields=True):
    """Exact counts."""

    buckets: list[StatsBucket]
    total: Annotated[int, Meta(ge=0)]
    by: list[str]
    interval: str | None


class TenantItem(msgspec.Struct, forbid_unknown_fields=True):
    """A tenant with its conditions."""

    name: Name
    isolation: Isolation
    retention_days: int
    state: Literal["active", "suspended", "deleted"]
    display_name: str
    generation: int
    created_at: datetime
    deleted_at: datetime | None
    spec: Annotated[TenantSpec | None, Meta(description="As in its manifest; what is left out has its default.")]
    conditions: list[Condition]


class TenantsAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """All tenants."""

    items: list[TenantItem]


class TenantAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """A tenant that is there, and the keys that this request made."""

    tenant: TenantItem
    keys: Annotated[
        dict[Literal["writer", "auditor", "admin"], Annotated[str, Meta(pattern="^dlk_[0-9a-z]+_[0-9A-Za-z]+$")]] | None,
        Meta(description="API keys by role, told this once; null where no key was made."),
    ]


class WhoAmI(msgspec.Struct, forbid_unknown_fields=True):
    """What a credential proves."""

    kind: Literal["api_key", "jwt"]
    subject: Annotated[str, Meta(description="The key's id, or the token's `sub`.")]
    issuer: str | None
    tenant: str | None
    state: Literal["active", "suspended"] | None
    role: Literal["writer", "auditor", "admin", "platform"]
    permissions: list[Literal["append", "read", "manage", "list-tenants", "create-tenants"]]
    expires_at: datetime | None


class Health(msgspec.Struct, forbid_unknown_fields=True):
    """A process that answers."""

    status: Literal["ok"]


class ReadinessAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """Each backend's state: `ok`, `timeout`, or the code of what is wrong."""

    status: Literal["ready", "degraded", "unready", "stopping"]
    checks: dict[str, str]
