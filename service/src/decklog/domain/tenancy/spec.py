"""`spec` of a Tenant: the one typed source of the custom resource definition, of manifests in files and of the plan."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from decklog.domain.errors import Code, DecklogError
from decklog.domain.faults import faults_of, refused
from decklog.domain.records.record import RECORD_BYTES_MAX
from decklog.domain.tenant import CELL_PATTERN, DEFAULT_CELL, EVENTS_PER_SECOND, STREAMS_MAX, Isolation

ARCHIVE_DAYS_MAX = 36_500
"""A hundred years, the maximum of S3 Object Lock."""
KUBERNETES_NAMESPACE = "default"
"""Namespace of a tenant's Secret unless its spec names another one."""
RETENTION_CLASSES = (30, 90, 365, 2555)
"""Days of the retention classes. A Shared tenant belongs to the smallest class that covers its `retention.days`."""


class DeletionPolicy(StrEnum):
    """What deleting a Tenant does to its data."""

    RETAIN = "Retain"
    ARCHIVE = "Archive"
    DELETE = "Delete"


class AdoptionPolicy(StrEnum):
    """Whether a new Tenant may take over the retained data of a deleted one of the same name."""

    ADOPT = "Adopt"
    REFUSE = "Refuse"


class DriftPolicy(StrEnum):
    """What is done about drift: correct it, or only report it."""

    REPAIR = "Repair"
    REPORT = "Report"


class Oversize(StrEnum):
    """What is done with a record that is too large or too deep."""

    REJECT = "Reject"
    TRIM = "Trim"


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """How long records are kept, in days."""

    days: Annotated[int, Meta(ge=1, le=3650, description="Days that records are kept and readable, counted from receipt.")]
    search_days: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=3650,
                description="Days that the search index keeps records; at most days. Postgres answers searches for older records, where "
                "full text and metadata need a time range. Raising this value does not re-index older records. Default: days.",
            ),
        ]
        | UnsetType
    ) = UNSET
    archive_days: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=ARCHIVE_DAYS_MAX,
                description="Minimum days that an archive made by deletionPolicy Archive is kept. S3 Object Lock enforces it where the "
                "bucket has Object Lock; elsewhere the archive only records it. Default: the retention of the bucket.",
            ),
        ]
        | UnsetType
    ) = UNSET


class Quotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """Limits of a tenant. An unset limit does not apply."""

    events_per_second: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="Records per second that the tenant may append, exact across all replicas."),
    ] = EVENTS_PER_SECOND
    burst: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Records that may be appended at once; at least eventsPerSecond.")
    ] = 10_000
    bytes_per_second: (
        Annotated[
            int,
            Meta(
                ge=65_536,
                le=1_073_741_824,
                description="Bytes of records per second that each API process accepts from the tenant, as sent and decompressed; 16 times "
                "as many at once. Default: 4096 for each of eventsPerSecond, at least 1048576.",
            ),
        ]
        | UnsetType
    ) = UNSET
    events_per_day: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=1_000_000_000_000,
                description="Records that may be stored per UTC day, exact across all replicas; at least burst. Default: no limit.",
            ),
        ]
        | UnsetType
    ) = UNSET
    storage_gib: (
        Annotated[
            float,
            Meta(
                ge=0.01,
                le=1_000_000,
                description="GiB that the records of the events log and their indexes may use: their share of status.usage.storageBytes, "
                "estimated from samples. Access records do not count. May be a fraction. Over the limit, appends are refused and reads continue. Default: no limit.",
            ),
        ]
        | UnsetType
    ) = msgspec.field(default=UNSET, name="storageGiB")
    queries_per_minute: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=1_000_000,
                description="Read requests (lists, single records, counts, exports, streams) per minute, exact across all replicas; also "
                "the largest burst. Default: no limit.",
            ),
        ]
        | UnsetType
    ) = UNSET
    streams: Annotated[int, Meta(ge=1, le=1_000, description="Streams that may be open at once in each API process.")] = (
        STREAMS_MAX
    )


class Ingest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """How records are accepted."""

    dedup_window: Annotated[
        str,
        Meta(
            pattern=r"^[1-9][0-9]{0,2}(m|h|d)$",
            max_length=4,
            description="Time during which a retry with the same id is recognised, such as 30m, 24h or 7d.",
        ),
    ] = "24h"
    record_bytes_max: Annotated[
        int, Meta(ge=1_024, le=RECORD_BYTES_MAX, description="Largest size of one record in bytes, as sent.")
    ] = RECORD_BYTES_MAX
    oversize: Annotated[
        Oversize,
        Meta(
            description="What is done with a record that is larger than recordBytesMax or deeper than 32 levels. Reject: refuse it. Trim: "
            "store it without the largest or deepest values of metadata, before and after, which the record lists in trimmed with their "
            "SHA-256. A request may say otherwise (parameter oversize)."
        ),
    ] = Oversize.REJECT


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """How questions in plain words are answered."""

    show_records: Annotated[
        bool,
        Meta(
            description="Send records and values of them to the model that answers questions, where one is configured. Otherwise the model gets "
            "the question, the names of actions and resource types, counts, times and sequence numbers only."
        ),
    ] = False


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """Attributes of a Dedicated tenant's queue."""

    visibility_timeout_seconds: Annotated[
        int, Meta(ge=0, le=43_200, description="Seconds that a received message stays hidden from other workers.")
    ] = 30
    # After a day a wake-up is worthless: the sweep has found its records long before.
    message_retention_seconds: Annotated[
        int, Meta(ge=60, le=1_209_600, description="Seconds that an unprocessed message is kept.")
    ] = 86_400
    max_receive_count: Annotated[
        int, Meta(ge=1, le=1_000, description="Deliveries of a message before SQS moves it to the dead-letter queue.")
    ] = 10


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """When API keys are replaced."""

    interval_days: Annotated[
        int, Meta(ge=0, le=365, description="Days between rotations of the API keys; 0 rotates only on request.")
    ] = 0
    overlap_hours: Annotated[
        int,
        Meta(
            ge=0,
            le=720,
            description="Hours that the previous keys stay valid after a rotation; less than the interval. 0 revokes them at once.",
        ),
    ] = 24


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """Where API keys are stored, and when they are replaced."""

    secret_namespace: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=63,
            pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            description="Namespace of the Secret <tenant>-decklog that holds the API keys.",
        ),
    ] = KUBERNETES_NAMESPACE
    rotation: Annotated[Rotation, Meta(description="When the API keys are rotated.")] = Rotation()


class TenantSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """`spec` of a Tenant."""

    retention: Annotated[Retention, Meta(description="How long records are kept.")]
    display_name: Annotated[str, Meta(max_length=128, description="Name for display; no effect.")] = ""
    isolation: Annotated[
        Isolation,
        Meta(
            description="Dedicated: own schema, index and queue. Shared: one of each per retention class, isolated by row-level security. "
            "Immutable."
        ),
    ] = Isolation.DEDICATED
    cell: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=63,
            pattern=CELL_PATTERN,
            description="Name of the database (cell) that stores the records, as the installation defines it. Immutable.",
        ),
    ] = DEFAULT_CELL
    quotas: Annotated[Quotas, Meta(description="Limits. Requests over a limit get 429 with Retry-After.")] = Quotas()
    ingest: Annotated[Ingest, Meta(description="How the API accepts records.")] = Ingest()
    ask: Annotated[Ask, Meta(description="How questions in plain words are answered.")] = Ask()
    queue: (
        Annotated[
            Queue,
            Meta(
                description="Attributes of the tenant's SQS queue, which wakes workers. Dedicated tenants only: the queue of a Shared class is fixed."
            ),
        ]
        | UnsetType
    ) = UNSET
    credentials: Annotated[Credentials, Meta(description="Where the API keys are stored, and when they are rotated.")] = (
        Credentials()
    )
    suspend: Annotated[bool, Meta(description="Refuse appends and reads. Data is kept.")] = False
    drift_policy: Annotated[
        DriftPolicy,
        Meta(
            description="Reaction to changes made outside Decklog. Repair: restore the wanted state. Report: set the reason Drifted, "
            "name the changes in the conditions, and change nothing."
        ),
    ] = DriftPolicy.REPAIR
    deletion_policy: Annotated[
        DeletionPolicy,
        Meta(
            description="What deleting the Tenant does to its data. Retain keeps everything; applying the Tenant again adopts it. "
            "Archive copies all records to the archive, verifies the copy and then acts as Delete; without an archive it waits. "
            "Delete removes Dedicated data at once. It hides Shared records at once and removes them with the partitions of their "
            "class."
        ),
    ] = DeletionPolicy.RETAIN
    deletion_protection: Annotated[
        bool,
        Meta(
            description="Refuse to delete the Tenant, whatever deletionPolicy says. Default: true. Set it to false before you delete the Tenant."
        ),
    ] = True
    legal_hold: Annotated[
        bool,
        Meta(
            description="Refuse to delete the Tenant, and keep its records beyond retention, while they are needed as evidence."
        ),
    ] = False
    adoption_policy: Annotated[
        AdoptionPolicy,
        Meta(
            description="What a new Tenant does with the data that a deleted Tenant of the same name left under deletionPolicy Retain. "
            "Adopt: continue with its records and sequence numbers. Refuse: stay unready and report it."
        ),
    ] = AdoptionPolicy.ADOPT


_UNITS = {"m": 60, "h": 3_600, "d": 86_400}


def seconds(duration: str) -> int:
    """Return the seconds of a duration such as 30m, 24h or 7d, which must match the spec's pattern."""
    return int(duration[:-1]) * _UNITS[duration[-1]]


def retention_class(days: int) -> int:
    """Return the smallest retention class that covers `days`. Raises `invalid-tenant` where there is none."""
    for upper in RETENTION_CLASSES:
        if days <= upper:
            return upper
    raise DecklogError(
        Code.INVALID_TENANT,
        f"spec.retention.days {days} is more than the largest shared class, {RETENTION_CLASSES[-1]}.",
    )


def parse_spec(value: Any) -> TenantSpec:
    """Return a spec from decoded JSON. Raises `invalid-tenant`, naming the field."""
    try:
        spec = msgspec.convert(value, TenantSpec)
    except msgspec.ValidationError:
        raise refused(
            Code.INVALID_TENANT, faults_of(TenantSpec, value, path="spec"), "spec does not have the form of a spec."
        ) from None
    problems: list[str] = []
    if "\0" in spec.display_name or any("\ud800" <= character <= "\udfff" for character in spec.display_name):
        problems.append("spec.displayName holds a character that cannot be stored (U+0000 or a lone surrogate).")
    # In Python alone, `$` in a pattern also matches before a final line feed.
    if "\n" in spec.ingest.dedup_window:
        problems.append("spec.ingest.dedupWindow must be like 30m, 24h or 7d.")
    if "\n" in spec.cell:
        problems.append("spec.cell must be the name of a cell.")
    if "\n" in spec.credentials.secret_namespace:
        problems.append("spec.credentials.secretNamespace must be the name of a namespace.")
    if spec.retention.search_days is not UNSET and spec.retention.search_days > spec.retention.days:
        problems.append("spec.retention.searchDays must be at most spec.retention.days.")
    if spec.quotas.burst < spec.quotas.events_per_second:
        problems.append("spec.quotas.burst must be at least spec.quotas.eventsPerSecond.")
    if spec.quotas.events_per_day is not UNSET and spec.quotas.events_per_day < spec.quotas.burst:
        problems.append("spec.quotas.eventsPerDay must be at least spec.quotas.burst.")
    rotation = spec.credentials.rotation
    if rotation.interval_days and rotation.overlap_hours >= rotation.interval_days * 24:
        problems.append("spec.credentials.rotation.overlapHours must be less than the hours of intervalDays.")
    if spec.isolation is Isolation.SHARED and spec.queue is not UNSET:
        problems.append("spec.queue is for Dedicated tenants: the queue of a Shared one belongs to its class.")
    if spec.isolation is Isolation.SHARED and spec.retention.days > RETENTION_CLASSES[-1]:
        problems.append(f"spec.retention.days of a Shared tenant may be at most {RETENTION_CLASSES[-1]}.")
    if problems:
        raise DecklogError(Code.INVALID_TENANT, " ".join(problems))
    return spec


def spec_changes(before: TenantSpec, after: TenantSpec) -> tuple[str, ...]:
    """Return the paths of the fields that differ, as in `retention.days`. An unset field counts as its default."""
    return tuple(_changes(before, after))


def _changes(before: msgspec.Struct, after: msgspec.Struct) -> Iterator[str]:
    for field in msgspec.structs.fields(after):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if isinstance(one, msgspec.Struct) and isinstance(other, msgspec.Struct):
            yield from (f"{field.encode_name}.{path}" for path in _changes(one, other))
        elif one != other:
            yield field.encode_name


def read_spec(text: str) -> TenantSpec | None:
    """Return a spec from the registry's JSON; None where another version wrote it, and it must be written again."""
    try:
        return msgspec.json.decode(text, type=TenantSpec)
    except msgspec.DecodeError:
        return None
