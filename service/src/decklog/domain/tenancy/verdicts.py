"""What a visit to a tenant comes to: from what was seen and what could not be done, a verdict per condition. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decklog.domain.tenancy.decision import Observation
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.credentials import IssueKeys
from decklog.domain.tenancy.parts.database import AdoptTenant, CreateRelations, RegisterTenant, SetHeads
from decklog.domain.tenancy.parts.part import Action, Trouble
from decklog.domain.tenancy.parts.queue import CreateQueue, QueueSeen
from decklog.domain.tenancy.parts.search import CreateIndex, IndexSeen
from decklog.domain.tenancy.plan import disabling, fields, owner, refusal, storage_used_up
from decklog.domain.tenancy.quota import quota_verdict
from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenancy.removal import archive_verdict
from decklog.domain.tenancy.status import QUOTA_EXCEEDED, READY, SYNCED, Part, Verdict

DRIFTED = "Drifted"
TERMINAL = frozenset({"Conflict", "Immutable", "InvalidSpec", "TooManyDedicated", "UnknownCell", "AdoptionRefused", DRIFTED})
"""Reasons that only somebody's change ends: trying again soon would only cost."""
_NAMED_MAX = 10
_GOOD = {
    Part.DATABASE: Verdict("True", "Provisioned", "Relations, partitions, heads and the registry are as asked for."),
    Part.SEARCH: Verdict("True", "Provisioned", "The index is as asked for."),
    Part.QUEUE: Verdict("True", "Provisioned", "The queue and its dead-letter queue are as asked for."),
    Part.CREDENTIALS: Verdict(
        "True", "Issued", "An API key for each of the roles writer, auditor and admin is given out and let in."
    ),
}
_NOT_CONFIGURED = {
    Part.SEARCH: Verdict("True", "NotConfigured", "No OpenSearch is configured: Postgres searches."),
    Part.QUEUE: Verdict("True", "NotConfigured", "No queue is configured: the workers find new records by their sweep."),
    Part.CREDENTIALS: Verdict("True", "NotConfigured", "No API keys are wanted for this tenant."),
}
# Without these a part does not do its work; what else is left to do can wait.
_ESSENTIAL = (CreateRelations, RegisterTenant, AdoptTenant, SetHeads, CreateIndex, CreateQueue, IssueKeys)
_WAITING = Verdict("Unknown", "WaitingForDatabase", "Whose this is can only be told when the database can be reached.")
_NO_INDEX = Verdict("Unknown", "WaitingForDatabase", "The index is made when the database can be told that it is empty.")
_NO_KEYS = Verdict("Unknown", "WaitingForDatabase", "Keys can only be checked when the database can be reached.")


def _drifted(seen: Observation, actions: Sequence[Action]) -> Verdict:
    names = [name for action in actions for name in fields(action, seen)]
    some = ", ".join(names[:_NAMED_MAX]) + (f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else "")
    works = not any(disabling(action, seen) for action in actions)
    return Verdict(
        "True" if works else "False",
        DRIFTED,
        f"Changed behind Decklog's back: {some}. Nothing is done, as spec.driftPolicy is Report: put it back, or set it to Repair.",
    )


def _part_verdict(
    manifest: Manifest,
    seen: Observation,
    part: Part,
    troubles: Mapping[Part, Trouble],
    left: Sequence[Action],
    *,
    alone: Sequence[Action],
) -> Verdict:
    if part in troubles:
        return Verdict("False", troubles[part].reason, troubles[part].message)
    if changed := [action for action in alone if action.part is part]:
        return _drifted(seen, changed)
    missing = [type(action).__name__ for action in left if action.part is part and isinstance(action, _ESSENTIAL)]
    if missing:
        return Verdict("Unknown", "Pending", f"Still to do: {', '.join(missing)}.")
    observed = {
        Part.DATABASE: seen.database,
        Part.SEARCH: seen.search,
        Part.QUEUE: seen.queue,
        Part.CREDENTIALS: seen.vault,
    }[part]
    if observed is None:
        return _NOT_CONFIGURED[part]
    if isinstance(observed, Trouble):
        return Verdict("False", observed.reason, observed.message)
    if isinstance(observed, IndexSeen) and not observed.exists:
        return _NO_INDEX
    if isinstance(seen.database, DatabaseSeen):
        return _GOOD[part]
    if part is Part.CREDENTIALS:
        return _NO_KEYS
    ours = owner(manifest, seen)
    marks = (
        {observed.owner}
        if isinstance(observed, IndexSeen)
        else set(observed.owners)
        if isinstance(observed, QueueSeen)
        else set()
    )
    if ours is None or marks - {ours, None}:
        return _WAITING
    return _GOOD[part]


def verdicts(
    manifest: Manifest,
    seen: Observation,
    troubles: Mapping[Part, Trouble],
    *,
    left: Sequence[Action] = (),
    alone: Sequence[Action] = (),
) -> dict[str, Verdict]:
    """Every condition after a visit. `troubles` is what could not be done, `left` what is still to do, and `alone` what
    driftPolicy Report leaves as it is."""
    if refused := refusal(manifest, seen):
        return refused_verdicts(refused)
    parts = {part: _part_verdict(manifest, seen, part, troubles, left, alone=alone) for part in Part}
    quota = _quota(manifest, seen)
    bad = [part for part, verdict in parts.items() if verdict.status != "True"]
    if bad:
        names = ", ".join(bad)
        synced = Verdict("False", parts[bad[0]].reason, f"Not all could be done: {names}.")
        ready = Verdict("False", "NotReady", f"Not ready: {names}.")
    else:
        synced = Verdict("True", "Synced", "All is as asked for.")
        if left:
            synced = Verdict("False", "Pending", f"Still to do: {', '.join(sorted({type(action).__name__ for action in left}))}.")
        ready = Verdict("True", "Ready", "The tenant can be used.")
        if quota[QUOTA_EXCEEDED].status == "True":
            # All is as asked for, the quota too: whoever waits for what Decklog has to do need not wait for this.
            ready = Verdict("True", QUOTA_EXCEEDED, "All is there, and can be read; nothing more is taken in: see QuotaExceeded.")
        if manifest.spec.suspend:
            ready = Verdict("True", "Suspended", "Suspended as asked: nothing is taken in or given out, and all data is kept.")
    if alone and all(parts[part].reason == DRIFTED for part in bad):
        synced = Verdict("False", DRIFTED, _drifted(seen, alone).message)
    told = {part.value: verdict for part, verdict in parts.items()}
    return {READY: ready, **told, **archive_verdict(manifest.spec, seen), **quota, SYNCED: synced}


def _quota(manifest: Manifest, seen: Observation) -> dict[str, Verdict]:
    database = seen.database
    if isinstance(database, Trouble):
        return {
            QUOTA_EXCEEDED: Verdict(
                "Unknown", database.reason, "What is stored can only be told when the database can be reached."
            )
        }
    stored = database.stored.bytes if database.stored else 0
    return quota_verdict(manifest.spec.quotas, stored, used_up=storage_used_up(manifest, database))


def _every(verdict: Verdict) -> dict[str, Verdict]:
    return {part.value: verdict for part in Part}


def refused_verdicts(refused: Trouble) -> dict[str, Verdict]:
    """Every condition where nothing may be done."""
    untouched = Verdict("Unknown", refused.reason, "Not looked after; see Synced.")
    waiting = " Nothing is done before the Tenant, or what is in its way, changes." if refused.reason in TERMINAL else ""
    verdict = Verdict("False", refused.reason, refused.message + waiting)
    return {READY: verdict, **_every(untouched), QUOTA_EXCEEDED: untouched, SYNCED: verdict}
