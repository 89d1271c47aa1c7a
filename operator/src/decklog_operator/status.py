"""What a Tenant's status says in Kubernetes, made from what provisioning found.

A status is plain JSON that holds nothing but what a person may read. It changes only when something changed, so that
an unchanged tenant costs no write.
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
"""Seconds that usage stays as it was told, however often the Tenant is looked at."""
_USAGE_SHARE = 0.05
"""By how much of it something must have changed to be told again."""
_USAGE_BYTES = 1 << 20
"""Bytes that are no news whatever share they are."""
_HANDLED = "lastHandledReconcileAt"
_TERMINAL = {*TERMINAL, "InvalidTenant", "NotReady"}
PAUSED_REASON = "Paused"
_ASKED_FOR = {PAUSED_REASON, DELETING, ARCHIVING, "Removed", "NothingToRetain", NAME_BLOCKED}
"""Reasons of what somebody wanted so, or time alone puts right: nobody is warned."""
_ABSENT = {"NotConfigured", "NoArchive"}
"""Reasons of what there is none of."""
REQUEST_CHARS_MAX = 64

Status = Mapping[str, Any]


class DatabaseView(msgspec.Struct, frozen=True, rename="camel"):
    """Where records are kept."""

    schema: Annotated[_Name, Meta(description="The Postgres schema.")]
    tenant_id: Annotated[int, Meta(ge=0, description="The number that storage separates tenants by; never used again.")]


class SearchView(msgspec.Struct, frozen=True, rename="camel"):
    """Where records are found."""

    index: Annotated[_Name, Meta(description="The OpenSearch index.")]


class QueueView(msgspec.Struct, frozen=True, rename="camel"):
    """Where workers are woken."""

    name: Annotated[_Name, Meta(description="The SQS queue; its dead-letter queue ends in -dlq.")]


class ArchiveView(msgspec.Struct, frozen=True, rename="camel"):
    """Where a deletion by Archive puts all records, as the workers tell."""

    place: Annotated[str, Meta(max_length=1_024, description="The bucket and the prefix, or the folder.")]
    locked: Annotated[bool, Meta(description="Whether the bucket has Object Lock, which keeps what is to be kept.")]
    records: Annotated[
        Annotated[int, Meta(ge=0)] | msgspec.UnsetType,
        Meta(description="Records of this tenant that are there; absent before any are."),
    ] = msgspec.UNSET
    manifest: Annotated[
        Annotated[str, Meta(max_length=1_024)] | msgspec.UnsetType,
        Meta(description="The manifest that was read back and has all of them; absent before."),
    ] = msgspec.UNSET


class SecretView(msgspec.Struct, frozen=True, rename="camel"):
    """A Secret by name."""

    namespace: Annotated[_Name, Meta(description="Its namespace.")]
    name: Annotated[_Name, Meta(description="Its name.")]


class CredentialsView(msgspec.Struct, frozen=True, rename="camel"):
    """Where the API keys are, and how long they are good."""

    secret: Annotated[SecretView, Meta(description="The Secret with url, writer, auditor, admin, revision and validUntil.")]
    revision: Annotated[
        Annotated[int, Meta(ge=0)] | msgspec.UnsetType,
        Meta(description="Grows with each change of the Secret; also in it."),
    ] = msgspec.UNSET
    valid_until: Annotated[
        _Time, Meta(description="Until when the keys in the Secret work at least; absent without a schedule. Also in the Secret.")
    ] = msgspec.UNSET
    overlap_until: Annotated[
        _Time, Meta(description="Until when the keys before those in the Secret still work; absent when none do.")
    ] = msgspec.UNSET
    rotated: Annotated[_Request, Meta(description="The annotation decklog.dev/rotate that was acted on last.")] = msgspec.UNSET


class DriftView(msgspec.Struct, frozen=True, rename="camel"):
    """What was changed behind Decklog's back."""

    detected: Annotated[int, Meta(ge=0, description="How many things were found changed so far.")]
    repairs: Annotated[int, Meta(ge=0, description="How many of them were put right so far.")]
    fields: Annotated[
        tuple[Annotated[str, Meta(max_length=_FIELD_CHARS_MAX, description="As the condition of its part names it.")], ...],
        Meta(max_length=DRIFT_FIELDS_MAX, description="What was found changed last."),
    ]
    standing: Annotated[bool, Meta(description="Whether something of it is still as it was found.")]
    observed_at: Annotated[str, Meta(max_length=32, description="When that was found, RFC 3339.")]
    last_repaired_at: Annotated[_Time, Meta(description="When something was put right last; absent before.")] = msgspec.UNSET


class UsageView(msgspec.Struct, frozen=True, rename="camel"):
    """What the tenant uses."""

    records: Annotated[int, Meta(ge=0, description="Records that both logs took in so far.")]
    storage_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Bytes of the records with their indexes. Of a Shared tenant an estimate: its share of the class by records.",
        ),
    ]
    observed_at: Annotated[
        str,
        Meta(max_length=32, description="When all of this was seen, RFC 3339. A visit that sees about the same writes nothing."),
    ]
    records_per_second: Annotated[
        Annotated[float, Meta(ge=0)] | msgspec.UnsetType,
        Meta(description="Between that and the observation before; absent after the first one."),
    ] = msgspec.UNSET
    queue_depth: Annotated[
        Annotated[int, Meta(ge=0)] | msgspec.UnsetType,
        Meta(description="Messages of the queue, as SQS estimates them; of a Shared tenant those of its class."),
    ] = msgspec.UNSET
    search_lag: Annotated[
        Annotated[int, Meta(ge=0)] | msgspec.UnsetType, Meta(description="Records that cannot be found by the index yet.")
    ] = msgspec.UNSET


class TenantStatusView(msgspec.Struct, frozen=True, rename="camel"):
    """`status` of a Tenant."""

    observed_generation: Annotated[int, Meta(ge=0, description="The generation of the spec that was acted on last.")]
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(
            max_length=16,
            description="Ready, which sums up, and one condition for each backend.",
            extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ]
    database: Annotated[DatabaseView | msgspec.UnsetType, Meta(description="Where records are kept.")] = msgspec.UNSET
    search: Annotated[SearchView | msgspec.UnsetType, Meta(description="Where records are found.")] = msgspec.UNSET
    queue: Annotated[QueueView | msgspec.UnsetType, Meta(description="Where workers are woken.")] = msgspec.UNSET
    credentials: Annotated[
        CredentialsView | msgspec.UnsetType, Meta(description="Where the API keys are, and how long they are good.")
    ] = msgspec.UNSET
    archive: Annotated[
        ArchiveView | msgspec.UnsetType,
        Meta(description="Where a deletion puts all records; absent unless spec.deletionPolicy is Archive."),
    ] = msgspec.UNSET
    usage: Annotated[UsageView | msgspec.UnsetType, Meta(description="What the tenant uses.")] = msgspec.UNSET
    last_handled_reconcile_at: Annotated[
        _Request, Meta(description="The annotation decklog.dev/reconcile that the last visit saw; absent without one.")
    ] = msgspec.UNSET
    drift: Annotated[
        DriftView | msgspec.UnsetType, Meta(description="What was changed behind Decklog's back; absent before.")
    ] = msgspec.UNSET
    purged_after: Annotated[
        _Time,
        Meta(description="Of a Shared tenant that is deleted: when the partitions with its last records have done their time."),
    ] = msgspec.UNSET


def of(manifest: Manifest, found: TenantStatus, previous: Status, earlier: Usage | None = None) -> dict[str, Any]:
    """The status to show. Where a part is keeps standing there while the registry cannot be asked for it. `earlier` is what
    a visit before found of the usage, told or not."""
    given = {condition.type: condition for condition in found.conditions if condition.reason not in _ABSENT}
    sections: dict[str, Any] = {}
    if found.schema and found.tenant_id is not None:
        sections["database"] = DatabaseView(found.schema, found.tenant_id)
    if found.index:
        sections["search"] = SearchView(found.index)
    if found.queue:
        sections["queue"] = QueueView(found.queue)
    if (archive := found.archive) is not None and (place := archive.place) is not None:
        told = (archive.archived or msgspec.UNSET, archive.manifest or msgspec.UNSET)
        sections["archive"] = ArchiveView(place.place, place.locked, *told)
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
    """Whether that is long enough after the usage before to be told, and to make a rate of."""
    return not 0 <= (found - before).total_seconds() < _USAGE_EVERY


def _usage(found: Usage | None, previous: Status, earlier: Usage | None) -> UsageView | None:
    """What was told before, or what was found now where that is news: who is idle costs no writes."""
    try:
        before = msgspec.convert(previous.get("usage"), UsageView | None)
        told_at = datetime.fromisoformat(before.observed_at) if before else None
    except (msgspec.ValidationError, ValueError):
        before = told_at = None
    if found is None or (told_at is not None and not usage_due(found.at, told_at)):
        return before
    rate: float | msgspec.UnsetType = msgspec.UNSET
    since, records = (earlier.at, earlier.records) if earlier else (told_at, before.records if before else 0)
    if since is not None and (seconds := (found.at - since).total_seconds()) >= _USAGE_EVERY:
        rate = round(max(found.records - records, 0) / seconds, 2)
    view = UsageView(
        found.records,
        found.storage_bytes,
        rfc3339_seconds(found.at),
        rate,
        msgspec.UNSET if found.queue_depth is None else found.queue_depth,
        msgspec.UNSET if found.search_lag is None else found.search_lag,
    )
    return before if before is not None and _alike(before, view) else view


def _alike(before: UsageView, now: UsageView) -> bool:
    """Whether nobody would care for the difference. A rate that was never told is as good as none."""
    for field in ("records", "storage_bytes", "records_per_second", "queue_depth", "search_lag"):
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
    """What was told before with what was found now. What stands as it was found is told, and counted, once."""
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
    """The status of a tenant that nobody looks after meanwhile: the rest is told as it was when the pause began."""
    end = "and the deletion waits for it" if deleted else "also of what the spec says since"
    said = Verdict("False", PAUSED_REASON, f"The annotation {PAUSED} keeps the operator's hands off: nothing is done, {end}.")
    untold = Verdict("Unknown", PAUSED_REASON, "Nothing was looked at before the pause; see Synced.")
    fresh = made(dict.fromkeys((READY, *Part, QUOTA_EXCEEDED), untold), generation, (), now)
    known = {condition.type: condition for condition in (*fresh, *conditions(previous)) if condition.type != SYNCED}
    synced = made({SYNCED: said}, generation, conditions(previous), now)
    observed = previous.get("observedGeneration")
    return _with(previous, TenantStatusView(observed if isinstance(observed, int) else 0, (*known.values(), *synced)))


def handled(shown: Status, request: str) -> dict[str, Any]:
    """The status, with the request for a visit that the visit saw."""
    rest = {name: value for name, value in shown.items() if name != _HANDLED}
    return {**rest, _HANDLED: request[:REQUEST_CHARS_MAX]} if request else rest


def failed(generation: int, error: DecklogError, previous: Status, now: datetime) -> dict[str, Any]:
    """The status of a tenant that could not be looked at to the end: what was known of its parts, and why it is not ready."""
    verdict = Verdict("False", "".join(map(str.capitalize, error.code.value.split("-"))), error.detail)
    ready, synced = made(dict.fromkeys((READY, SYNCED), verdict), generation, conditions(previous), now)
    kept = (condition for condition in conditions(previous) if condition.type not in (READY, SYNCED))
    return _with(previous, TenantStatusView(generation, (ready, *kept, synced)))


def _with(previous: Status, view: TenantStatusView) -> dict[str, Any]:
    """The status before with what this says anew, and without what no version of ours says."""
    shown = {**previous, **_plain(view)}
    return {name: value for name, value in shown.items() if name in TenantStatusView.__struct_encode_fields__}


def refused(status: Status) -> bool:
    """Whether nothing is wrong but what only somebody's change ends."""
    bad = {condition.reason for condition in conditions(status) if not condition.good and condition.type != QUOTA_EXCEEDED}
    return bool(bad) and bad <= _TERMINAL


class Event(msgspec.Struct, frozen=True):
    """Something to tell whoever watches the Tenant's Events; `kind` is Normal or Warning."""

    kind: str
    reason: str
    message: str


def events(shown: Status, previous: Status) -> list[Event]:
    """One for each condition whose status changed, and one for what was put right. The first value of a condition is no
    change, but for that of Ready, which tells of the Tenant as a whole."""
    before = {condition.type: condition.status for condition in conditions(previous)}
    found: list[Event] = []
    for condition in conditions(shown):
        if condition.status != before.get(condition.type, "" if condition.type == READY else condition.status):
            kind = "Normal" if condition.good or condition.reason in _ASKED_FOR else "Warning"
            about = "" if condition.type == READY else f"{condition.type} is {condition.status}: "
            found.append(Event(kind, condition.reason, about + condition.message))
    drift, old = _drift_of(shown), _drift_of(previous)
    if drift and drift.repairs > (old.repairs if old else 0):
        found.append(Event("Normal", "DriftRepaired", f"Put back what was changed: {', '.join(drift.fields)}."))
    return found


def is_ready(status: Status) -> bool:
    """Whether the status says so."""
    condition = ready_condition(status)
    return condition is not None and condition.status == "True"


def ready_condition(status: Status) -> Condition | None:
    """The summary of a status; None where none was written yet."""
    return next((condition for condition in conditions(status) if condition.type == READY), None)


def secret_namespace(status: Status) -> str | None:
    """Where the keys were last put."""
    try:
        return msgspec.convert(status["credentials"], CredentialsView).secret.namespace
    except (KeyError, msgspec.ValidationError):
        return None


def conditions(status: Status) -> tuple[Condition, ...]:
    """The conditions of a status; none where it was edited into something else, and will be written again."""
    try:
        return msgspec.convert(status.get("conditions") or (), tuple[Condition, ...])
    except msgspec.ValidationError:
        return ()


def _plain(view: TenantStatusView) -> dict[str, Any]:
    """As JSON gives it back: compared with what Kubernetes holds, a tuple would differ from its list."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(view))
    return plain
