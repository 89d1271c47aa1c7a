"""A tenant's status: conditions as Kubernetes has them, for the custom resource, the registry and the API alike."""

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

ConditionStatus = Literal["True", "False", "Unknown"]


class Part(StrEnum):
    """What a tenant is made of; the value is the type of its condition."""

    DATABASE = "DatabaseReady"
    SEARCH = "SearchReady"
    QUEUE = "QueueReady"
    CREDENTIALS = "CredentialsReady"


ARCHIVE = "ArchiveReady"
"""Told only of a tenant whose deletion policy asks for an archive."""
NAME_BLOCKED = "NameBlocked"
"""Reason where SQS does not yet let a name be used again: time alone puts that right."""
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
        """Whether it says what one would like to hear."""
        return self.status == ("False" if self.type == QUOTA_EXCEEDED else "True")


class KeyStatus(msgspec.Struct, frozen=True):
    """What may be told of a tenant's keys. `valid_until` and `overlap_until` are RFC 3339, or empty: until when the keys
    in the vault are good at least, and until when those before them are. `rotated` is the request that was done last.
    `rotate_at` is when the schedule asks for new keys, `wake_at` when something is to be done about them next."""

    revision: int
    valid_until: str
    overlap_until: str
    rotated: str
    rotate_at: datetime | None
    wake_at: datetime | None


DRIFT_FIELDS_MAX = 32
"""Of one visit; what else differs is still there at the next one, or was put right with them."""


class Drift(msgspec.Struct, frozen=True):
    """What a visit found changed behind our back: names of it, how many of those were put right, and whether any were not.
    `at` is RFC 3339, empty where nothing was found."""

    fields: tuple[str, ...]
    repaired: int
    standing: bool
    at: str


class Usage(msgspec.Struct, frozen=True):
    """What a tenant uses. `records` were taken in so far, by both logs; `storage_bytes` of a Shared tenant are its share of the
    class by records. `queue_depth` (of the class, where it is shared) and `search_lag` are None where there is none. `at` is
    when that was seen."""

    records: int
    storage_bytes: int
    queue_depth: int | None
    search_lag: int | None
    at: datetime


class TenantStatus(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`status` of a Tenant. `tenant_id`, `schema`, `index` and `queue` are what the registry says, once it says so;
    `keys` is None where no keys are wanted or nothing can be told of them now."""

    conditions: Annotated[tuple[Condition, ...], Meta(max_length=16, description="How each part is; Ready comes first.")]
    observed_generation: Annotated[int, Meta(ge=0, description="The generation of the spec that was last worked on.")]
    tenant_id: Annotated[int | None, Meta(description="The number that storage separates by.")] = None
    schema: Annotated[str, Meta(max_length=63, description="The Postgres schema of the records.")] = ""
    index: Annotated[str, Meta(max_length=255, description="The OpenSearch index.")] = ""
    queue: Annotated[str, Meta(max_length=80, description="The SQS queue.")] = ""
    keys: Annotated[KeyStatus | None, Meta(description="How the API keys are.")] = None
    drift: Annotated[Drift | None, Meta(description="What was found changed; None where not all could be seen.")] = None
    usage: Annotated[Usage | None, Meta(description="What the tenant uses; None where it could not be seen.")] = None
    purged_after: Annotated[
        datetime | None, Meta(description="When the last record of a Shared tenant that was removed has done its time.")
    ] = None
    archive: Annotated[ArchiveSeen | None, Meta(description="How the archive is, where one is asked for.")] = None

    def condition(self, kind: str) -> Condition:
        """The condition of that type. Raises KeyError."""
        for condition in self.conditions:
            if condition.type == kind:
                return condition
        raise KeyError(kind)

    @property
    def ready(self) -> bool:
        return self.condition(READY).status == "True"

    @property
    def synced(self) -> bool:
        """Whether nothing is left to do: all that was asked for (or the removal) is done."""
        return self.condition(SYNCED).status == "True"


class TenantListing(msgspec.Struct, frozen=True):
    """A tenant as the registry lists it. `spec` is None where it cannot be read any more."""

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
        """As the API and `decklog tenants --json` show it: the state by name, spec and conditions as Kubernetes has them.
        What is known of its storage is not told."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        plain["state"] = self.state.name.lower()
        return {name: value for name, value in plain.items() if name not in _UNTOLD}


_UNTOLD = ("uid", "schema", "index", "queue", "cell")


class Verdict(msgspec.Struct, frozen=True):
    """A condition before it has a time."""

    status: ConditionStatus
    reason: str
    message: str


def read_conditions(text: str) -> tuple[Condition, ...]:
    """Conditions as the registry holds them in JSON; none where another version wrote something else."""
    try:
        return msgspec.json.decode(text, type=tuple[Condition, ...])
    except msgspec.DecodeError:
        return ()


def conditions(
    verdicts: Mapping[str, Verdict], generation: int, previous: Iterable[Condition], now: datetime
) -> tuple[Condition, ...]:
    """Verdicts with their times: a condition whose status did not change keeps the time of its last change."""
    before = {condition.type: condition for condition in previous}
    made: list[Condition] = []
    for kind, verdict in verdicts.items():
        old = before.get(kind)
        since = old.last_transition_time if old and old.status == verdict.status else rfc3339_seconds(now)
        message = verdict.message[:MESSAGE_CHARS_MAX]
        made.append(Condition(str(kind), verdict.status, verdict.reason, message, generation, since))
    return tuple(made)
