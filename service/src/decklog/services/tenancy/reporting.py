"""What a visit reports: the status, the conditions in the tenant's row, drift in metrics, and an access record of what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from decklog.domain.identity.access import Role
from decklog.domain.log import rfc3339_seconds
from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.observation import Observation
from decklog.domain.tenancy.parts.credentials import IssueKeys, RevokeKeys
from decklog.domain.tenancy.parts.database import RemoveTenant
from decklog.domain.tenancy.parts.part import Action, Step
from decklog.domain.tenancy.registered import DatabaseSeen, Row
from decklog.domain.tenancy.status import (
    DRIFT_FIELDS_MAX,
    DRIFTED,
    Condition,
    Drift,
    KeyStatus,
    Part,
    TenantStatus,
    Verdict,
    conditions,
)
from decklog.domain.tenancy.trouble import Trouble
from decklog.services.tenancy.calls import attempt, attempt_all
from decklog.services.tenancy.metrics import DRIFT, REPAIRS, backend
from decklog.services.tenancy.ports import DatabaseVisit

_log = structlog.get_logger("decklog.provisioning")


class DriftFound:
    """The drift that one visit found, collected for the status and counted in metrics."""

    def __init__(self) -> None:
        self._found: dict[str, bool] = {}

    def note(self, step: Step, seen: Observation, *, repaired: bool) -> None:
        """Count what the step corrects; `repaired`: it was carried out."""
        part = step.action.part
        self._found |= dict.fromkeys(step.differing, repaired)
        REPAIRS.labels(backend(part)).inc(repaired)
        if seen.row is None or (part, DRIFTED) not in {(told.type, told.reason) for told in seen.row.conditions}:
            for name in step.differing:
                DRIFT.labels(backend(part), name.split(" ")[0]).inc()

    def status(self, seen: Observation, now: datetime) -> Drift | None:
        """Return the drift of the status; None where none was found but not every backend could be seen."""
        if not self._found and seen.troubles:
            return None
        repaired, at = list(self._found.values()), rfc3339_seconds(now) if self._found else ""
        return Drift(tuple(sorted(self._found))[:DRIFT_FIELDS_MAX], sum(repaired), not all(repaired), at)


def for_row(
    manifest: Manifest, row: Row, said: Mapping[str, Verdict], previous: Sequence[Condition], now: datetime
) -> tuple[tuple[Condition, ...], tuple[str, ...]]:
    """Return the conditions and the settled parts that belong into the tenant's row."""
    good = {part for part in Part if said[part].status == "True" and said[part].reason != "NotConfigured"}
    settled = tuple(part for part in Part if part in {*row.settled, *good})
    return conditions(said, manifest.generation, previous or row.conditions, now), settled


def registered(
    manifest: Manifest, seen: Observation, row: Row, told: tuple[Condition, ...], keys: KeyStatus | None
) -> TenantStatus:
    """Return the status of a tenant that is registered under this manifest's UID."""
    archive = seen.database.archive if isinstance(seen.database, DatabaseSeen) else None
    return TenantStatus(told, manifest.generation, row.id, row.schema, row.index, row.queue, keys, archive=archive)


async def report(
    visit: DatabaseVisit | Trouble,
    manifest: Manifest,
    seen: Observation,
    said: dict[str, Verdict],
    previous: Sequence[Condition],
    *,
    keys: KeyStatus | None,
    acted: bool,
    now: datetime,
) -> TenantStatus:
    """Return the status, and store its conditions in the tenant's own row, never in another owner's.

    `acted`: something was done since the observation, so the row is read again.
    """
    if not isinstance(visit, Trouble) and isinstance(seen.database, DatabaseSeen):
        row = await attempt(visit.row(), Part.DATABASE, "look") if acted else seen.database.row
        if isinstance(row, Row) and row.uid == manifest.uid:
            told, settled = for_row(manifest, row, said, previous, now)
            # The conditions of an older generation must not replace those of a newer one.
            if (told, settled) != (row.conditions, row.settled) and row.generation <= manifest.generation:
                saved = await attempt(visit.save_conditions(told, settled), Part.DATABASE, "tell")
                if isinstance(saved, Trouble):
                    _log.warning("conditions not saved", tenant=manifest.name, reason=saved.reason)
            return registered(manifest, seen, row, told, keys)
    return TenantStatus(conditions(said, manifest.generation, previous, now), manifest.generation)


async def recorded(
    visit: DatabaseVisit | Trouble,
    action: str,
    manifest: Manifest,
    actions: Sequence[Action],
    failed: Mapping[Part, Trouble],
    *,
    issued: Mapping[Role, str] | None = None,
) -> dict[Part, Trouble]:
    """Write to the tenant's own access log what was done to it. Before it is registered there is no such log.

    `issued`: ids of new keys by role. Returns why that failed, by part.
    """
    if isinstance(visit, Trouble) or Part.DATABASE in failed:
        return {}
    done = entry(action, manifest, actions, failed, issued=issued)
    return await attempt_all({Part.DATABASE: lambda: visit.record(done)}, "record")


def entry(
    action: str,
    manifest: Manifest,
    actions: Sequence[Action],
    failed: Mapping[Part, Trouble],
    removed: RemoveTenant | None = None,
    *,
    issued: Mapping[Role, str] | None = None,
) -> RecordInput:
    """Return the access record of what was done to a tenant, with who asked and which keys it concerns.

    `removed` is the removal that ended it, `issued` the ids of new keys by role.
    """
    details: dict[str, Any] = {
        "actions": [type(each).__name__ for each in actions],
        "generation": manifest.generation,
        "uid": manifest.uid,
        "failed": {part.value: trouble.reason for part, trouble in failed.items()},
    }
    details |= {"requestedBy": list(manifest.requested_by)} if manifest.requested_by else {}
    if issued:
        details |= {"namespace": manifest.spec.credentials.secret_namespace or None}
        details |= {"issuedKeyIds": {role.value: key_id for role, key_id in issued.items()}}
    if ended := _ended_keys(actions):
        details["endedKeyIds"] = ended
    if removed is not None:
        details |= {"tenantId": removed.row.id, "schema": removed.row.schema}
        details |= {"purgedAfter": rfc3339_seconds(removed.purged_after)} if removed.purged_after else {}
        details |= {"archive": removed.archive} if removed.archive else {}
    return RecordInput(
        action=action,
        actor=Actor(id="provisioning", type="decklog"),
        resource=Resource(type="tenant", id=manifest.name),
        outcome=Outcome.FAILURE if failed else Outcome.SUCCESS,
        metadata=details,
    )


def _ended_keys(actions: Sequence[Action]) -> list[str]:
    """Return the ids of the keys that these actions revoke or give an end."""
    found: list[str] = []
    for action in actions:
        if isinstance(action, RevokeKeys):
            found += action.ids
        elif isinstance(action, IssueKeys):
            found += [*action.succession.retired, *action.succession.revoked]
    return sorted(found)
