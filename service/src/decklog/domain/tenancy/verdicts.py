"""The conditions of a tenant after a visit: the verdicts of a decision, and what failed in the visit. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from decklog.domain.tenancy.decision import Decision, drifted
from decklog.domain.tenancy.status import DRIFTED, QUOTA_EXCEEDED, READY, SYNCED, Part, Verdict
from decklog.domain.tenancy.trouble import Trouble

TERMINAL = frozenset({"Conflict", "Immutable", "InvalidSpec", "TooManyDedicated", "UnknownCell", "AdoptionRefused", DRIFTED})
"""Reasons that only a change by a user ends: an early retry would be useless."""


def verdicts(decision: Decision, troubles: Mapping[Part, Trouble] | None = None) -> dict[str, Verdict]:
    """Return the verdict of every condition after a visit, `Ready` first. `troubles` is what failed in it, by part."""
    if decision.refusal is not None:
        return refused_verdicts(decision.refusal)
    failed = {part: Verdict("False", each.reason, each.message) for part, each in (troubles or {}).items()}
    parts = {part: failed.get(part, verdict) for part, verdict in decision.verdicts.items()}
    shown = {part.value: verdict for part, verdict in parts.items()}
    return {READY: _ready(decision, parts), **shown, **decision.further, SYNCED: _synced(decision, parts)}


def _bad(parts: Mapping[Part, Verdict]) -> list[Part]:
    return [part for part, verdict in parts.items() if verdict.status != "True"]


def _ready(decision: Decision, parts: Mapping[Part, Verdict]) -> Verdict:
    if bad := _bad(parts):
        return Verdict("False", "NotReady", f"Not ready: {', '.join(bad)}.")
    if decision.manifest.spec.suspend:
        return Verdict("True", "Suspended", "Suspended as asked: ingest and reads are refused, and all data is kept.")
    if decision.further[QUOTA_EXCEEDED].status == "True":
        # Still ready: everything is as asked for, the quota too. Waiting for Decklog would not end it.
        return Verdict("True", QUOTA_EXCEEDED, "Everything exists, and reads are served; ingest is refused: see QuotaExceeded.")
    return Verdict("True", "Ready", "The tenant can be used.")


def _synced(decision: Decision, parts: Mapping[Part, Verdict]) -> Verdict:
    bad = _bad(parts)
    if decision.withheld and all(parts[part].reason == DRIFTED for part in bad):
        return Verdict("False", DRIFTED, drifted(decision.withheld).message)
    if bad:
        return Verdict("False", parts[bad[0]].reason, f"Not everything could be done: {', '.join(bad)}.")
    if left := sorted({type(step.action).__name__ for step in decision.steps}):
        return Verdict("False", "Pending", f"Still to do: {', '.join(left)}.")
    return Verdict("True", "Synced", "Everything is as asked for.")


def refused_verdicts(refused: Trouble) -> dict[str, Verdict]:
    """Return the verdict of every condition of a tenant that nothing is done for."""
    untouched = Verdict("Unknown", refused.reason, "Not looked after; see Synced.")
    waiting = " Nothing is done before the Tenant, or what is in its way, changes." if refused.reason in TERMINAL else ""
    verdict = Verdict("False", refused.reason, refused.message + waiting)
    parts = {part.value: untouched for part in Part}
    return {READY: verdict, **parts, QUOTA_EXCEEDED: untouched, SYNCED: verdict}
