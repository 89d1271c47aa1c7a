"""Build the status of a Tenant in Kubernetes from the result of provisioning.

A status is plain JSON without secrets. It changes only when an observed fact changed, so an unchanged tenant costs no write.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from decklog.domain.errors import DecklogError
from decklog.domain.log import rfc3339_seconds
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.archive import ARCHIVING
from decklog.domain.tenancy.removal import DELETING
from decklog.domain.tenancy.status import (
    ARCHIVE,
    DRIFT_FIELDS_MAX,
    NAME_BLOCKED,
    QUOTA_EXCEEDED,
    READY,
    SYNCED,
    Condition,
    Drift,
    Part,
    TenantStatus,
    Usage,
    Verdict,
)
from decklog.domain.tenancy.status import conditions as made
from decklog.domain.tenancy.verdicts import TERMINAL
from decklog_operator.names import PAUSED, secret_name

_Name = Annotated[str, Meta(max_length=253)]
_Time = Annotated[str, Meta(max_length=32)] | msgspec.UnsetType
_Request = Annotated[str, Meta(max_length=64)] | msgspec.UnsetType

_FIELD_CHARS_MAX = 128
_USAGE_EVERY = 60
"""Shortest time between two changes of usage in the status, in seconds."""
_USAGE_SHARE = 0.05
"""Relative change of a number that is written to the status; smaller changes are not."""
_USAGE_BYTES = 1 << 20
"""Changes of storage below this many bytes are never written."""
_HANDLED = "lastHandledReconcileAt"
_TERMINAL = {*TERMINAL, "InvalidTenant", "NotReady"}
PAUSED_REASON = "Paused"
_ASKED_FOR = {PAUSED_REASON, DELETING, ARCHIVING, "Removed", "NothingToRetain", NAME_BLOCKED}
"""Reasons that a user asked for or that end by themselves. Their Events are Normal, not Warning."""
_ABSENT = {"NotConfigured", "NoArchive"}
"""Reasons of a backend that is not configured or not used."""
REQUEST_CHARS_MAX = 64

Status = Mapping[str, Any]


class DatabaseView(msgspec.Struct, frozen=True, rename="camel"):
    """Place of the records in Postgres."""

    schema: Annotated[_Name, Meta(description="Postgres schema of the records.")]
    tenant_id: Annotated[int, Meta(ge=0, description="Number that identifies the tenant in storage; never reused.")]


class SearchView(msgspec.Struct, frozen=True, rename="camel"):
    """Place of the search documents."""

    index: Annotated[_Name, Meta(description="OpenSearch index of the records.")]


class QueueView(msgspec.Struct, frozen=True, rename="camel"):
    """Queue that wakes workers."""

    name: Annotated[_Name, Meta(description="SQS queue that wakes workers. The name of its dead-letter queue ends in -dlq.")]


class ArchiveView(msgspec.Struct, frozen=True, rename="camel"):
    """Archive of the deletion policy Archive, as the workers report it."""

    place: Annotated[str, Meta(max_length=1_024, description="Bucket and prefix, or folder.")]
    locked: Annotated[bool, Meta(description="Whether the bucket has Object Lock, which enforces spec.retention.archiveDays.")]
    records: Annotated[
        Annotated[int, Meta(ge=0)] | msgspec.UnsetType,
        Meta(description="Archived records of this tenant; absent before the first."),
    ] = msgspec.UNSET
    manifest: Annotated[
        Annotated[str, Meta(max_length=1_024)] | msgspec.UnsetType,
        Meta(description="Verified manifest that lists all records; absent until the archive is complete."),
    ] = msgspec.UNSET


class SecretView(msgspec.Struct, frozen=True, rename="camel"):
    """Reference to a Secret."""

    namespace: Annotated[_Name, Meta(description="Namespace of the Secret.")]
    name: Annotated[_Name, Meta(description="Name of the Secret.")]


class CredentialsView(msgspec.Struct, frozen=True, rename="camel"):
    """Place and validity of the API keys."""

    secret: Annotated[SecretView, Meta(description="Secret with url, writer, auditor, admin, revision and validUntil.")]
    revision: Annotated[
        Annotated[int, Meta(ge=0)] | msgspec.UnsetType,
        Meta(description="Revision of the Secret; grows with each change. The Secret contains it as well."),
    ] = msgspec.UNSET
    valid_until: Annotated[
        _Time,
        Meta(
            description="Earliest end of the current keys, RFC 3339; absent without a schedule. The Secret contains it as well."
        ),
    ] = msgspec.UNSET
    overlap_until: Annotated[_Time, Meta(description="End of the previous keys, RFC 3339; absent when none are valid.")] = (
        msgspec.UNSET
    )
    rotated: Annotated[_Request, Meta(description="Value of the annotation decklog.dev/rotate that was handled last.")] = (
        msgspec.UNSET
    )


class DriftView(msgspec.Struct, frozen=True, rename="camel"):
    """Changes made outside Decklog."""

    detected: Annotated[int, Meta(ge=0, description="Changes found so far.")]
    repairs: Annotated[int, Meta(ge=0, description="Changes repaired so far.")]
    fields: Annotated[
        tuple[
            Annotated[
                str,
                Meta(max_length=_FIELD_CHARS_MAX, description="Name of the changed object, as in the condition of its backend."),
            ],
            ...,
        ],
        Meta(max_length=DRIFT_FIELDS_MAX, description="Changes found last."),
    ]
    standing: Annotated[bool, Meta(description="Whether a change still stands.")]
    observed_at: Annotated[str, Meta(max_length=32, description="Time when fields was observed, RFC 3339.")]
    last_repaired_at: Annotated[_Time, Meta(description="Time of the last repair, RFC 3339; absent before the first.")] = (
        msgspec.UNSET
    )


class UsageView(msgspec.Struct, frozen=True, rename="camel"):
    """Resources that the tenant uses."""

    records: Annotated[int, Meta(ge=0, description="Records stored in both logs so far.")]
    storage_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Bytes of the records and their indexes. For a Shared tenant, an estimate: its share of the class by records.",
        ),
    ]
    observed_at: Annotated[
        str,
        Meta(max_length=32, description="Time of this observation, RFC 3339. Small changes do not update it."),
    ]
    records_per_second: Annotated[
        Annotated[float, Meta(ge=0)] | msgspec.UnsetType,
        Meta(description="Records per second since the previous observation; absent after the first."),
    ] = msgspec.UNSET
    queue_depth: Annotated[
        Annotated[int, Meta(ge=0)] | msgspec.UnsetType,
        Meta(description="Messages in the queue, as estimated by SQS. For a Shared tenant, those of its class."),
    ] = msgspec.UNSET
    search_lag: Annotated[
        Annotated[int, Meta(ge=0)] | msgspec.UnsetType, Meta(description="Records that are not indexed yet.")
    ] = msgspec.UNSET
    rejected_records: Annotated[
        Annotated[int, Meta(ge=0)] | msgspec.UnsetType,
        Meta(
            description="Records that the API rejected so far; absent before the first. GET /api/v1/rejected lists those that are kept."
        ),
    ] = msgspec.UNSET
    last_rejected_at: Annotated[
        Annotated[str, Meta(max_length=32)] | msgspec.UnsetType, Meta(description="Time of the last rejection, RFC 3339.")
    ] = msgspec.UNSET
    last_rejected_reason: Annotated[
        Annotated[str, Meta(max_length=64)] | msgspec.UnsetType, Meta(description="Code of the last rejection.")
    ] = msgspec.UNSET


class TenantStatusView(msgspec.Struct, frozen=True, rename="camel"):
    """`status` of a Tenant."""

    observed_generation: Annotated[int, Meta(ge=0, description="Generation of the spec that was handled last.")]
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(
            max_length=16,
            description="The summary Ready, and one condition for each backend.",
            extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ]
    database: Annotated[DatabaseView | msgspec.UnsetType, Meta(description="Place of the records in Postgres.")] = msgspec.UNSET
    search: Annotated[SearchView | msgspec.UnsetType, Meta(description="Place of the search documents.")] = msgspec.UNSET
    queue: Annotated[QueueView | msgspec.UnsetType, Meta(description="Queue that wakes workers.")] = msgspec.UNSET
    credentials: Annotated[CredentialsView | msgspec.UnsetType, Meta(description="Place and validity of the API keys.")] = (
        msgspec.UNSET
    )
    archive: Annotated[
        ArchiveView | msgspec.UnsetType,
        Meta(description="Archive that a deletion fills; absent unless spec.deletionPolicy is Archive."),
    ] = msgspec.UNSET
    usage: Annotated[UsageView | msgspec.UnsetType, Meta(description="Resources that the tenant uses.")] = msgspec.UNSET
    last_handled_reconcile_at: Annotated[
        _Request, Meta(description="Value of the annotation decklog.dev/reconcile at the last visit; absent without one.")
    ] = msgspec.UNSET
    drift: Annotated[
        DriftView | msgspec.UnsetType, Meta(description="Changes made outside Decklog; absent before the first.")
    ] = msgspec.UNSET
    purged_after: Annotated[
        _Time,
        Meta(description="For a deleted Shared tenant: time when the partitions with its last records expire, RFC 3339."),
    ] = msgspec.UNSET


def of(manifest: Manifest, found: TenantStatus, previous: Status, earlier: Usage | None = None) -> dict[str, Any]:
    """Return the status to write.

    The place of a backend stays in the status while the registry is unavailable. `earlier` is the usage that a previous visit
    found, whether it was written or not.
    """
    given = {condition.type: condition for condition in found.conditions if condition.reason not in _ABSENT}
    sections: dict[str, Any] = {}
    if found.schema and found.tenant_id is not None:
        sections["database"] = DatabaseView(found.schema, found.tenant_id)
    if found.index:
        sections["search"] = SearchView(found.index)
    if found.queue:
        sections["queue"] = QueueView(found.queue)
    if (archive := found.archive) is not None and (place := archive.place) is not None:
        progress = (archive.archived or msgspec.UNSET, archive.manifest or msgspec.UNSET)
        sections["archive"] = ArchiveView(place.place, place.locked, *progress)
    if found.keys is not None and Part.CREDENTIALS in given and given[Part.CREDENTIALS].status == "True":
        secret = SecretView(manifest.spec.credentials.secret_namespace, secret_name(manifest.name))
        keys = found.keys
        said = (each or msgspec.UNSET for each in (keys.valid_until, keys.overlap_until, keys.rotated))
        sections["credentials"] = CredentialsView(secret, keys.revision, *said)
    parts = (
        ("database", Part.DATABASE),
        ("search", Part.SEARCH),
        ("queue", Part.QUEUE),
        ("credentials", Part.CREDENTIALS),
        ("archive", ARCHIVE),
    )
    wanted = {section for section, part in parts if part in given}
    kept = {section: previous[section] for section in wanted - sections.keys() if section in previous}
    shown = {section: view for section, view in sections.items() if section in wanted}
    if (drift := _drift(found.drift, previous)) is not None:
        shown["drift"] = drift
    if (usage := _usage(found.usage, previous, earlier)) is not None:
        shown["usage"] = usage
    if found.purged_after is not None:
        shown["purged_after"] = rfc3339_seconds(found.purged_after)
    return {**_plain(TenantStatusView(found.observed_generation, found.conditions, **shown)), **kept}


def usage_due(found: datetime, before: datetime) -> bool:
    """Return whether enough time has passed since the last usage to write it again and to compute a rate."""
    return not 0 <= (found - before).total_seconds() < _USAGE_EVERY


def _usage(found: Usage | None, previous: Status, earlier: Usage | None) -> UsageView | None:
    """Return the usage to show: the written one, or the one found now where it differs enough. Idle tenants cost no write."""
    try:
        before = msgspec.convert(previous.get("usage"), UsageView | None)
        shown_at = datetime.fromisoformat(before.observed_at) if before else None
    except (msgspec.ValidationError, ValueError):
        before = shown_at = None
    if found is None or (shown_at is not None and not usage_due(found.at, shown_at)):
        return before
    rate: float | msgspec.UnsetType = msgspec.UNSET
    since, records = (earlier.at, earlier.records) if earlier else (shown_at, before.records if before else 0)
    if since is not None and (seconds := (found.at - since).total_seconds()) >= _USAGE_EVERY:
        rate = round(max(found.records - records, 0) / seconds, 2)
    view = UsageView(
        found.records,
        found.storage_bytes,
        rfc3339_seconds(found.at),
        rate,
        msgspec.UNSET if found.queue_depth is None else found.queue_depth,
        msgspec.UNSET if found.search_lag is None else found.search_lag,
        found.rejected.records or msgspec.UNSET,
        msgspec.UNSET if found.rejected.at is None else rfc3339_seconds(found.rejected.at),
        found.rejected.code or msgspec.UNSET,
    )
    return before if before is not None and _alike(before, view) else view


def _alike(before: UsageView, now: UsageView) -> bool:
    """Return whether the difference is too small to write. An absent rate counts as 0."""
    for field in ("records", "storage_bytes", "records_per_second", "queue_depth", "search_lag", "rejected_records"):
        one, other = getattr(before, field), getattr(now, field)
        if field == "records_per_second":
            one, other = one or 0.0, other or 0.0
        if (one is msgspec.UNSET) is not (other is msgspec.UNSET):
            return False
        least = _USAGE_BYTES if field == "storage_bytes" else 0
        if one is not msgspec.UNSET and abs(one - other) > max(_USAGE_SHARE * max(one, other), least):
            return False
    return True


def _drift(found: Drift | None, previous: Status) -> DriftView | None:
    """Return the drift to show: the written one plus what was found now. A change that still stands is counted once."""
    before = _drift_of(previous)
    if found is None:
        return before
    if not found.fields:
        return replace(before, standing=False) if before else None
    names = tuple(name[:_FIELD_CHARS_MAX] for name in found.fields)
    if before and before.standing and found.standing and not found.repaired and before.fields == names:
        return before
    known = set(before.fields) if before and before.standing else set()
    detected, repairs = (before.detected, before.repairs) if before else (0, 0)
    repaired_at = found.at if found.repaired else (before.last_repaired_at if before else msgspec.UNSET)
    return DriftView(detected + len(set(names) - known), repairs + found.repaired, names, found.standing, found.at, repaired_at)


def _drift_of(status: Status) -> DriftView | None:
    try:
        return msgspec.convert(status.get("drift"), DriftView | None)
    except msgspec.ValidationError:
        return None


def paused(generation: int, previous: Status, now: datetime, *, deleted: bool = False) -> dict[str, Any]:
    """Return the status of a paused tenant. All conditions but Synced stay as they were when the pause began."""
    end = "the deletion waits" if deleted else "edits of the spec wait"
    said = Verdict(
        "False", PAUSED_REASON, f"The annotation {PAUSED} pauses the operator for this Tenant: nothing is changed, and {end}."
    )
    unknown = Verdict("Unknown", PAUSED_REASON, "The Tenant was paused before its first visit; see Synced.")
    fresh = made(dict.fromkeys((READY, *Part, QUOTA_EXCEEDED), unknown), generation, (), now)
    known = {condition.type: condition for condition in (*fresh, *conditions(previous)) if condition.type != SYNCED}
    synced = made({SYNCED: said}, generation, conditions(previous), now)
    observed = previous.get("observedGeneration")
    return _with(previous, TenantStatusView(observed if isinstance(observed, int) else 0, (*known.values(), *synced)))


def handled(shown: Status, request: str) -> dict[str, Any]:
    """Return the status with the value of the annotation decklog.dev/reconcile that the visit saw."""
    rest = {name: value for name, value in shown.items() if name != _HANDLED}
    return {**rest, _HANDLED: request[:REQUEST_CHARS_MAX]} if request else rest


def failed(generation: int, error: DecklogError, previous: Status, now: datetime) -> dict[str, Any]:
    """Return the status after a visit that failed: the known conditions of its backends, and the error as the reason."""
    verdict = Verdict("False", "".join(map(str.capitalize, error.code.value.split("-"))), error.detail)
    ready, synced = made(dict.fromkeys((READY, SYNCED), verdict), generation, conditions(previous), now)
    kept = (condition for condition in conditions(previous) if condition.type not in (READY, SYNCED))
    return _with(previous, TenantStatusView(generation, (ready, *kept, synced)))


def _with(previous: Status, view: TenantStatusView) -> dict[str, Any]:
    """Return the previous status updated by the view, without fields that no version of Decklog writes."""
    shown = {**previous, **_plain(view)}
    return {name: value for name, value in shown.items() if name in TenantStatusView.__struct_encode_fields__}


def refused(status: Status) -> bool:
    """Return whether every failing condition needs a change by a user, so that a retry cannot help."""
    bad = {condition.reason for condition in conditions(status) if not condition.good and condition.type != QUOTA_EXCEEDED}
    return bool(bad) and bad <= _TERMINAL


class Event(msgspec.Struct, frozen=True):
    """An Event about a Tenant. `kind` is Normal or Warning."""

    kind: str
    reason: str
    message: str


def events(shown: Status, previous: Status) -> list[Event]:
    """Return one Event for each condition whose status changed, and one for repaired drift.

    The first value of a condition is no change, except for Ready.
    """
    before = {condition.type: condition.status for condition in conditions(previous)}
    found: list[Event] = []
    for condition in conditions(shown):
        if condition.status != before.get(condition.type, "" if condition.type == READY else condition.status):
            kind = "Normal" if condition.good or condition.reason in _ASKED_FOR else "Warning"
            about = "" if condition.type == READY else f"{condition.type} is {condition.status}: "
            found.append(Event(kind, condition.reason, about + condition.message))
    drift, old = _drift_of(shown), _drift_of(previous)
    if drift and drift.repairs > (old.repairs if old else 0):
        found.append(Event("Normal", "DriftRepaired", f"Repaired: {', '.join(drift.fields)}."))
    return found


def is_ready(status: Status) -> bool:
    """Return whether the condition Ready is True."""
    condition = ready_condition(status)
    return condition is not None and condition.status == "True"


def ready_condition(status: Status) -> Condition | None:
    """Return the condition Ready; None before the first visit."""
    return next((condition for condition in conditions(status) if condition.type == READY), None)


def secret_namespace(status: Status) -> str | None:
    """Return the namespace that the Secret was last written to; None before the first."""
    try:
        return msgspec.convert(status["credentials"], CredentialsView).secret.namespace
    except (KeyError, msgspec.ValidationError):
        return None


def conditions(status: Status) -> tuple[Condition, ...]:
    """Return the conditions of a status; none where an edit made them unreadable. The next visit writes them again."""
    try:
        return msgspec.convert(status.get("conditions") or (), tuple[Condition, ...])
    except msgspec.ValidationError:
        return ()


def _plain(view: TenantStatusView) -> dict[str, Any]:
    """Return the view as decoded JSON, so that it compares equal to what Kubernetes returns."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(view))
    return plain
