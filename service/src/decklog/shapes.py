"""The shapes of the API's answers, for the OpenAPI document, the client and the tests.

The API splices most answers from stored text, so these types describe and decode; they do not serialise. Decoding ignores
members that it does not know, so a client can talk to a newer server.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from decklog.domain.records.record import Outcome, RecordInput, Severity
from decklog.domain.records.recorder import RecordedBy
from decklog.domain.records.trimming import Removed
from decklog.domain.tenancy.spec import TenantSpec
from decklog.domain.tenancy.status import Condition
from decklog.domain.tenant import Isolation

Seq = Annotated[int, Meta(ge=0, description="Sequence number of the record in its log: 0, 1, 2, … without a gap.")]
Epoch = Annotated[int, Meta(ge=0, description="Number of the log's life. It grows when the log is restored from a backup.")]
Digest = Annotated[
    str,
    Meta(
        pattern="^sha256:[0-9a-f]{64}$",
        description="SHA-256 of the record's canonical content: all but `tenant`, `log`, `epoch`, `seq`, `received_at` and `digest`.",
    ),
]
ReceivedAt = Annotated[datetime, Meta(tz=True, description="Time of receipt by the server. Never decreases along `seq`.")]
TenantName = Annotated[str, Meta(description="Name of the tenant.")]
Count = Annotated[int, Meta(ge=0)]
TrimmedPaths = Annotated[
    list[str], Meta(description="JSON pointers of values that were removed, because the record was too large or too deep.")
]


class Receipt(msgspec.Struct):
    """Position of a stored record."""

    tenant: TenantName
    log: Literal["events"]
    epoch: Epoch
    seq: Seq
    received_at: ReceivedAt
    digest: Digest
    status: Annotated[
        Literal["stored", "duplicate"],
        Meta(description="`duplicate`: an earlier request had stored the record, at this position."),
    ]
    trimmed: TrimmedPaths | None = None


class Fault(msgspec.Struct, omit_defaults=True):
    """One fault of a record or a Tenant."""

    path: Annotated[str, Meta(description="Path of the field, as in `actor.id` and `related[0].type`; empty for the whole.")]
    message: Annotated[str, Meta(description="What is wrong, as a clause.")]
    value: Annotated[Any, Meta(description="The value that was sent, at most its first 80 characters.")] = None
    allowed: Annotated[list[str] | None, Meta(description="Values or names that are allowed.")] = None
    meant: Annotated[str | None, Meta(description="Value or path of the field that was probably meant.")] = None


class ItemError(msgspec.Struct, omit_defaults=True):
    """Reason why one record of a bulk was rejected."""

    code: str
    detail: str
    errors: Annotated[list[Fault] | None, Meta(description="Faults of the record, at most 20; of a bulk, at most 1,000.")] = None


class BulkItem(msgspec.Struct, omit_defaults=True):
    """Result for one record of a bulk: `seq`, or `error` if it was rejected.

    `withheld`: the record is valid and was not stored, because `strict` was asked for and others were rejected.
    """

    status: Literal["stored", "duplicate", "rejected", "withheld"]
    seq: Seq | None = None
    error: ItemError | None = None
    trimmed: TrimmedPaths | None = None


class BulkAnswer(msgspec.Struct):
    """Results of a bulk: `items` are in the order of the request."""

    stored: Count
    duplicates: Count
    rejected: Count
    items: list[BulkItem]
    kept: Annotated[Count, Meta(description="Rejected records that are kept, and listed by `/rejected`.")] = 0


class Record(RecordInput, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A stored record: the members that the server adds, then what the client sent, with secrets masked."""

    tenant: TenantName
    log: Literal["events", "access"]
    epoch: Epoch
    seq: Seq
    received_at: ReceivedAt
    digest: Digest
    occurred_at: Annotated[
        str,
        Meta(
            description="Time of the event, with the digits and the offset that the client sent.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    severity: Severity
    outcome: Outcome
    recorded_by: Annotated[
        RecordedBy | None,
        Meta(description="Credential that stored the record, in `events`; absent from records of older releases."),
    ] = None
    masked: Annotated[list[str] | None, Meta(description="JSON pointers of the values that were masked.")] = None
    trimmed: Annotated[
        list[Removed] | None, Meta(description="Values that were removed, because the record was too large or too deep.")
    ] = None


class RejectedItem(msgspec.Struct):
    """A rejected record without its content."""

    id: Annotated[int, Meta(ge=1, description="Number of the rejected record.")]
    rejected_at: Annotated[datetime, Meta(tz=True)]
    code: Annotated[str, Meta(description="Code of the refusal.")]
    detail: str
    record_id: Annotated[str | None, Meta(description="Id that the key of its bulk gave the record; null without a key.")]
    recorded_by: Annotated[dict[str, str], Meta(description="Credential that sent the record.")]
    request_id: Annotated[str, Meta(description="Id of the request, as in the header `X-Request-Id`.")]
    bytes: Annotated[int, Meta(description="Bytes of the record as sent.")]
    has_content: Annotated[bool, Meta(description="Whether the content is kept.")]


class RejectedRecord(RejectedItem):
    """A rejected record."""

    content: Annotated[str | None, Meta(description="The JSON as sent, with secrets masked; null if it is not kept.")]


class RejectedPage(msgspec.Struct):
    """Rejected records, newest first, and counts of the tenant."""

    items: list[RejectedItem]
    next: Annotated[int | None, Meta(description="`before` of the next page; null on the last page.")]
    rejected: Annotated[int, Meta(description="Records that were rejected so far.")]
    unkept: Annotated[int, Meta(description="Those that were not kept, because too many came at once.")]
    dropped: Annotated[int, Meta(description="Those that were kept and went for newer ones, or by age.")]
    kept: Annotated[int, Meta(description="Those that are kept now.")]
    bytes: Annotated[int, Meta(description="Bytes that are kept now.")]
    last_at: Annotated[datetime, Meta(tz=True, description="Time of the last rejection.")] | None
    last_code: Annotated[str, Meta(description="Code of the last rejection; empty without one.")]


class DeletedRejected(msgspec.Struct):
    """A rejected record that was deleted."""

    id: int
    status: Literal["deleted"]


LogHead = Annotated[int, Meta(ge=0, description="Sequence number that the log's next record will get.")]
IndexedFrom = Annotated[int, Meta(ge=0, description="Records below this number are too old for the search index.")]
Indexed = Annotated[int, Meta(ge=0, description="Records from this number on are not in the search index yet.")]
Engine = Annotated[str, Meta(description="Engine that found the records: `opensearch` or `postgres`.")]


class Place(msgspec.Struct):
    """A value of a record that made it match."""

    path: Annotated[str, Meta(description="JSON pointer of the value in the record.")]
    spans: Annotated[
        list[Annotated[list[Count], Meta(min_length=2, max_length=2)]],  # no tuple: generators of clients refuse `items: false`
        Meta(
            description="Parts of the value's text: first character, and the one behind the last. Characters are Unicode code points. "
            "A number or a boolean has the text that it has in JSON. Empty for an object, a list or an empty text, which match as a whole."
        ),
    ]


class Highlights(msgspec.Struct):
    """The places of one record that made it match."""

    seq: Seq
    places: list[Place]
    more: Annotated[bool, Meta(description="Whether the record has more places than are named.")]


class Page(msgspec.Struct):
    """One page of records, and the part of the log that it covers."""

    head: LogHead
    indexed_from: IndexedFrom
    indexed: Indexed
    engine: Engine
    items: list[Record]
    next: Annotated[str | None, Meta(description="`cursor` of the next page; null on the last page.")]
    highlights: Annotated[
        list[Highlights] | None,
        Meta(description="Highlights of each of `items`, in their order, with `highlight=true`; null without."),
    ] = None
    total: Annotated[
        int | None, Meta(description="Number of all matching records below `head`, with `count=exact`; null without.")
    ] = None
    position: Annotated[
        str | None,
        Meta(
            description="Position up to which a list in ascending order of `received_at` has read the log, for `after`; else null."
        ),
    ] = None


class Bucket(msgspec.Struct):
    """Number of records of one group in one interval."""

    key: Annotated[list[str | None], Meta(description="One value for each name in `by`; null if the records lack the field.")]
    start: Annotated[datetime | None, Meta(description="Start of the interval; null without `interval`.")] = msgspec.field(
        name="from"
    )
    count: Annotated[int, Meta(ge=0, description="Number of records; 0 only with `fill=zero`.")]


class FacetValue(msgspec.Struct):
    """Number of records with one value of a field."""

    value: str
    count: Annotated[int, Meta(ge=1)]


class Facet(msgspec.Struct):
    """The most frequent values of one field among the matching records."""

    values: Annotated[list[FacetValue], Meta(description="By descending count, at most `top`.")]
    other: Annotated[int, Meta(ge=0, description="Records with further values.")]
    missing: Annotated[int, Meta(ge=0, description="Records without the field.")]


class Counts(msgspec.Struct):
    """Exact counts of records, as a viewer token gets them."""

    buckets: list[Bucket]
    total: Count
    by: list[str]
    interval: str | None
    tz: Annotated[str, Meta(description="Time zone of the intervals.")] = "UTC"
    facets: Annotated[dict[str, Facet], Meta(description="One facet for each name in `facets`.")] = {}


class Stats(Counts, kw_only=True):
    """Exact counts of records, and the part of the log that they cover."""

    head: LogHead
    indexed_from: IndexedFrom
    indexed: Indexed
    engine: Engine


class SavedSearch(msgspec.Struct):
    """Parameters of a list under a name."""

    id: str
    name: str
    parameters: Annotated[
        dict[str, str | list[str]], Meta(description="Parameters of `GET /api/v1/logs`; a repeated one has a list of values.")
    ]
    shared: Annotated[bool, Meta(description="Whether all readers of the tenant see it.")]
    owner: Annotated[str, Meta(description="Credential that saved it: kind, issuer and subject.")]
    saved_at: datetime


class SavedSearches(msgspec.Struct):
    """Saved searches, ordered by name."""

    items: list[SavedSearch]


class RetainedRange(msgspec.Struct, rename={"from_": "from"}):
    """Records of a log that were received within a span of time."""

    from_: Annotated[datetime | None, Meta(description="Beginning of the span, inclusive; null where it is not known.")]
    to: Annotated[datetime, Meta(description="End of the span, exclusive.")]
    first_seq: Seq
    end_seq: Annotated[int, Meta(ge=0, description="The number after that of the last record.")]
    records: Count
    bytes: Annotated[
        int | None,
        Meta(
            description="Size of the partition with its indexes and with the tenant's other log; null where it is not known or shared."
        ),
    ]
    hidden_after: Annotated[datetime, Meta(description="Time from which none of the records can be read.")]
    state: Annotated[
        Literal["open", "closed", "hidden"],
        Meta(description="`open`: further records may come. `closed`: none comes any more. `hidden`: beyond `retention.days`."),
    ]


class DroppedRange(msgspec.Struct, rename={"from_": "from"}):
    """Records of a log that were dropped with their partition."""

    from_: Annotated[datetime, Meta(description="Beginning of the span of receipt, inclusive.")]
    to: Annotated[datetime, Meta(description="End of the span, exclusive.")]
    first_seq: Seq
    end_seq: Annotated[int, Meta(ge=0, description="The number after that of the last record.")]
    records: Count
    dropped_at: datetime


class LogRetention(msgspec.Struct):
    """The ranges of one log, oldest first; they cover all of its numbers."""

    tenant: TenantName
    log: Literal["events", "access"]
    days: Annotated[int, Meta(description="Days for which records can be read: `retention.days`.")]
    search_days: Annotated[int | None, Meta(description="Days for which the index holds records; null for all.")]
    ranges: list[RetainedRange]
    dropped: Annotated[
        list[DroppedRange],
        Meta(description="Ranges that went in the last 400 days, newest first; the access log has all of them."),
    ]


class Tenant(msgspec.Struct):
    """A tenant with its conditions."""

    name: TenantName
    isolation: Isolation
    retention_days: int
    state: Literal["active", "suspended", "deleted"]
    display_name: str
    generation: int
    created_at: datetime
    deleted_at: datetime | None
    spec: Annotated[TenantSpec | None, Meta(description="`spec` of the manifest. Members that are absent have their defaults.")]
    conditions: list[Condition]


class LogCounts(msgspec.Struct):
    """Records of each log."""

    events: Count
    access: Count


class RejectedCount(msgspec.Struct):
    """Records that were rejected, and the last of them."""

    records: Count
    at: datetime | None
    code: str | None


class TenantUsage(msgspec.Struct):
    """Records and bytes that a tenant has stored. Its quotas are in `spec.quotas`."""

    records: Annotated[LogCounts, Meta(description="Records so far, those beyond retention included.")]
    bytes: Annotated[int | None, Meta(description="Size of its relations with their indexes; null for a Shared tenant.")]
    rejected: RejectedCount


class DescribedTenant(Tenant):
    """A tenant with its conditions and its usage."""

    usage: Annotated[TenantUsage | None, Meta(description="What it has stored now; null where it cannot be read.")]


class Tenants(msgspec.Struct):
    """All tenants, ordered by name."""

    items: list[Tenant]


class CreatedTenant(msgspec.Struct):
    """A tenant, and the API keys that this request created."""

    tenant: Tenant
    keys: Annotated[
        dict[Literal["writer", "auditor", "admin"], Annotated[str, Meta(pattern="^dlk_[0-9a-z]+_[0-9A-Za-z]+$")]] | None,
        Meta(description="API keys by role, shown only in this answer; null if the request created none."),
    ]


class WhoAmI(msgspec.Struct):
    """Identity and permissions of a credential. `tenant` and `state` are null for the platform."""

    kind: Literal["api_key", "jwt", "viewer"]
    subject: Annotated[str, Meta(description="Id of the API key, or `sub` of the token.")]
    issuer: str | None
    tenant: str | None
    state: Literal["active", "suspended"] | None
    role: Literal["writer", "auditor", "admin", "platform", "viewer"]
    permissions: list[
        Literal["append", "read", "view", "mint-viewer-tokens", "manage", "list-tenants", "create-tenants", "read-platform-log"]
    ]
    expires_at: datetime | None
    fields: Annotated[
        list[str] | None, Meta(description="Fields of records that a viewer token shows; null where whole records are visible.")
    ] = None


class Health(msgspec.Struct):
    """Liveness of the process."""

    status: Literal["ok"]


class Readiness(msgspec.Struct):
    """Readiness of the process. `checks` holds for each backend `ok`, `timeout`, or an error code."""

    status: Literal["ready", "degraded", "unready", "stopping"]
    checks: dict[str, str]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details. `instance` is the id of the request, as in the header `X-Request-Id`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str
    parameter: Annotated[str | None, Meta(description="Name of the query parameter at fault.")] = None
    column: Annotated[int | None, Meta(description="First character of a query that is refused, counted from 1.")] = None
    length: Annotated[int | None, Meta(description="Number of characters of a query that are refused.")] = None
    suggestion: Annotated[str | None, Meta(description="What was probably meant in place of those characters.")] = None
    seq: Annotated[int | None, Meta(description="Sequence number of the record that used the same id first.")] = None
    retry_after: Annotated[int | None, Meta(description="Seconds to wait, as in the header `Retry-After`.")] = None
    errors: Annotated[
        list[dict[str, Any]] | None,
        Meta(
            description="Faults of a record or a Tenant, at most 20: `path`, `message`, and where they help `value`, `allowed`, `meant`. "
            "Of an atomic batch its rejected records: `index`, `code`, `detail`."
        ),
    ] = None
    stored: Annotated[int | None, Meta(description="Records of a bulk that were stored: 0.")] = None
    duplicates: Annotated[int | None, Meta(description="Records of a bulk that had been stored before: 0.")] = None
    rejected: Annotated[
        int | None, Meta(description="Records of a bulk that were rejected, as in the header `Decklog-Rejected`.")
    ] = None
    kept: Annotated[int | None, Meta(description="Rejected records that are kept, and listed by `/rejected`.")] = None
    items: Annotated[list[BulkItem] | None, Meta(description="Results of a bulk, in the order of the request.")] = None
    manifest: Annotated[dict[str, Any] | None, Meta(description="The Tenant to apply with kubectl.")] = None
    not_understood: Annotated[
        list[dict[str, Any]] | None,
        Meta(description="Parts of a question that are not understood: `start` and `end`, in characters, and `text`."),
    ] = None
    examples: Annotated[list[str] | None, Meta(description="Questions that are understood.")] = None
