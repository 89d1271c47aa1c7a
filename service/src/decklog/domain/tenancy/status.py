"""A tenant's status, with conditions as Kubernetes defines them, for the custom resource, the registry and the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from decklog.domain.archive.manifest import ArchiveSeen
from decklog.domain.log import rfc3339_seconds
from decklog.domain.tenancy.spec import TenantSpec
from decklog.domain.tenant import Isolation, State

MESSAGE_CHARS_MAX = 1_024
"""Characters of a condition's message; longer messages are cut."""

ConditionStatus = Literal["True", "False", "Unknown"]


class Part(StrEnum):
    """A part of a tenant. The value is the type of its condition."""

    DATABASE = "DatabaseReady"
    SEARCH = "SearchReady"
    QUEUE = "QueueReady"
    CREDENTIALS = "CredentialsReady"


ARCHIVE = "ArchiveReady"
"""Type of the condition of a tenant whose deletion policy is Archive; other tenants do not have it."""
NAME_BLOCKED = "NameBlocked"
"""Reason while SQS does not allow a deleted queue's name to be used again, which ends by itself after a minute."""
SYNCED = "Synced"
READY = "Ready"
QUOTA_EXCEEDED = "QuotaExceeded"
"""Type of the only condition for which `True` is bad. Every tenant has it."""
DRIFTED = "Drifted"
"""Reason of a condition whose part was changed without Decklog, and is left alone by `driftPolicy: Report`."""


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One condition of a tenant's status, in the form of Kubernetes."""

    type: Annotated[str, Meta(max_length=64, description="Name of the condition.")]
    status: Annotated[ConditionStatus, Meta(description="True, False or Unknown.")]
    reason: Annotated[str, Meta(max_length=64, description="Reason as one word, for programs.")]
    message: Annotated[str, Meta(max_length=MESSAGE_CHARS_MAX, description="Explanation for people.")]
    observed_generation: Annotated[int, Meta(ge=0, description="Generation of the spec that this condition describes.")]
    last_transition_time: Annotated[str, Meta(max_length=32, description="Time of the last change of status, RFC 3339.")]

    @property
    def good(self) -> bool:
        """Whether the status is the desired one."""
        return self.status == ("False" if self.type == QUOTA_EXCEEDED else "True")


class KeyStatus(msgspec.Struct, frozen=True):
    """What the status shows of a tenant's API keys.

    `valid_until` is the least time that the keys in the vault stay valid, `overlap_until` the same of the keys before them;
    both are RFC 3339 or empty. `rotated` is the last request that was carried out. At `rotate_at` the schedule asks for new
    keys; at `wake_at` the next change to them is due.
    """

    revision: int
    valid_until: str
    overlap_until: str
    rotated: str
    rotate_at: datetime | None
    wake_at: datetime | None


DRIFT_FIELDS_MAX = 32
"""Names of drift that one status shows. The rest is corrected with them, or shown by a later visit."""


class Drift(msgspec.Struct, frozen=True):
    """Drift that a visit found: `fields` names it, `repaired` counts what was corrected, `standing` says whether any was not.

    `at` is RFC 3339, empty where no drift was found.
    """

    fields: tuple[str, ...]
    repaired: int
    standing: bool
    at: str


class Rejected(msgspec.Struct, frozen=True):
    """Records that were rejected so far, and the time and the code of the last rejection."""

    records: int = 0
    at: datetime | None = None
    code: str = ""


class Usage(msgspec.Struct, frozen=True):
    """What a tenant uses, as seen `at` a time.

    `records` counts the records that both logs accepted. `storage_bytes` of a Shared tenant is its share of the class by
    records. `queue_depth` counts messages (of the class, where the queue is shared) and `search_lag` counts records; both are
    None where no such backend is configured.
    """

    records: int
    storage_bytes: int
    queue_depth: int | None
    search_lag: int | None
    at: datetime
    rejected: Rejected = Rejected()


class StoredUsage(msgspec.Struct, frozen=True):
    """The volume that a tenant has stored, as the API reads it now: the records of `events` and of `access` so far.

    `bytes` is the size of a Dedicated tenant's relations with their indexes; None where tenants share them.
    """

    events: int
    access: int
    bytes: int | None
    rejected: Rejected = Rejected()

    def shown(self) -> dict[str, Any]:
        """Return what the API shows."""
        return {
            "records": {"events": self.events, "access": self.access},
            "bytes": self.bytes,
            "rejected": {"records": self.rejected.records, "at": self.rejected.at, "code": self.rejected.code or None},
        }


class TenantStatus(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`status` of a Tenant.

    `tenant_id`, `schema`, `index` and `queue` are set once the tenant is registered. `keys` is None where no keys are wanted,
    or where they could not be seen.
    """

    conditions: Annotated[tuple[Condition, ...], Meta(max_length=16, description="State of each part; Ready comes first.")]
    observed_generation: Annotated[int, Meta(ge=0, description="Generation of the spec that was processed last.")]
    tenant_id: Annotated[int | None, Meta(description="Number that separates the tenant's rows in storage.")] = None
    schema: Annotated[str, Meta(max_length=63, description="Postgres schema of the records.")] = ""
    index: Annotated[str, Meta(max_length=255, description="OpenSearch index.")] = ""
    queue: Annotated[str, Meta(max_length=80, description="SQS queue.")] = ""
    keys: Annotated[KeyStatus | None, Meta(description="State of the API keys.")] = None
    drift: Annotated[Drift | None, Meta(description="Drift that was found; None where not every backend could be seen.")] = None
    usage: Annotated[Usage | None, Meta(description="Usage; None where it could not be seen.")] = None
    purged_after: Annotated[datetime | None, Meta(description="When the last record of a removed Shared tenant is dropped.")] = (
        None
    )
    archive: Annotated[ArchiveSeen | None, Meta(description="State of the archive, where deletionPolicy is Archive.")] = None

    def condition(self, kind: str) -> Condition:
        """Return the condition of that type. Raises KeyError."""
        for condition in self.conditions:
            if condition.type == kind:
                return condition
        raise KeyError(kind)

    @property
    def ready(self) -> bool:
        """Whether the tenant can be used."""
        return self.condition(READY).status == "True"

    @property
    def synced(self) -> bool:
        """Whether nothing is left to do: the backends match the manifest, or the removal is complete."""
        return self.condition(SYNCED).status == "True"


class TenantListing(msgspec.Struct, frozen=True):
    """A tenant as the registry lists it. `spec` is None where this version cannot decode it."""

    name: str
    uid: str
    isolation: Isolation
    retention_days: int
    state: State
    display_name: str
    generation: int
    created_at: datetime
    deleted_at: datetime | None
    schema: str
    index: str
    queue: str
    cell: str
    spec: TenantSpec | None
    conditions: tuple[Condition, ...]

    def shown(self) -> dict[str, Any]:
        """Return what the API and `decklog tenants --json` show, with the state by name.

        Names of storage are left out.
        """
        plain: dict[str, Any] = msgspec.to_builtins(self)
        plain["state"] = self.state.name.lower()
        return {name: value for name, value in plain.items() if name not in _UNTOLD}


_UNTOLD = ("uid", "schema", "index", "queue", "cell")


class Verdict(msgspec.Struct, frozen=True):
    """A condition without generation and time."""

    status: ConditionStatus
    reason: str
    message: str


def read_conditions(text: str) -> tuple[Condition, ...]:
    """Return conditions from the registry's JSON; none where another version wrote them in another form."""
    try:
        return msgspec.json.decode(text, type=tuple[Condition, ...])
    except msgspec.DecodeError:
        return ()


def conditions(
    verdicts: Mapping[str, Verdict], generation: int, previous: Iterable[Condition], now: datetime
) -> tuple[Condition, ...]:
    """Return verdicts as conditions. A condition whose status did not change keeps the time of its last transition."""
    before = {condition.type: condition for condition in previous}
    made: list[Condition] = []
    for kind, verdict in verdicts.items():
        old = before.get(kind)
        since = old.last_transition_time if old and old.status == verdict.status else rfc3339_seconds(now)
        message = verdict.message[:MESSAGE_CHARS_MAX]
        made.append(Condition(str(kind), verdict.status, verdict.reason, message, generation, since))
    return tuple(made)
