"""What is to be done for a tenant: one decision per look, from the manifest and from what every backend shows. Pure.

`decide` folds the parts' plans and verdicts. Planning is idempotent: after a plan is applied, the next plan is empty. No action
of a plan removes data (see `removal`). A backend that could not be seen is left alone and does not hold up the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.observation import Observation
from decklog.domain.tenancy.parts import archive, credentials, database, queue, search
from decklog.domain.tenancy.parts.credentials import VaultSeen
from decklog.domain.tenancy.parts.part import Action, Look, Step, TenantPart
from decklog.domain.tenancy.parts.queue import QueueSeen
from decklog.domain.tenancy.quota import quota_verdicts
from decklog.domain.tenancy.refusal import refusal
from decklog.domain.tenancy.registered import DatabaseSeen
from decklog.domain.tenancy.spec import DriftPolicy
from decklog.domain.tenancy.status import DRIFTED, KeyStatus, Part, Usage, Verdict
from decklog.domain.tenancy.trouble import Refusal, Trouble

PARTS: Mapping[Part, TenantPart] = {
    Part.DATABASE: database,
    Part.SEARCH: search,
    Part.QUEUE: queue,
    Part.CREDENTIALS: credentials,
}
"""In the order in which plans list their actions."""
_NAMED_MAX = 10
"""Names of differing things that a message lists; the others are counted."""


class Decision(msgspec.Struct, frozen=True):
    """What one look comes to.

    A `refusal` means that nothing is done; then there are no steps and no verdicts. `steps` are to be done now, and
    `repairs` are those of them that correct drift. `withheld` steps would correct drift, but `driftPolicy` is Report.
    `verdicts` holds the verdict of each part as it stands before the steps are done; `further` holds the conditions
    `ArchiveReady` and `QuotaExceeded`. `keys` and `usage` are None where they could not be seen.
    """

    manifest: Manifest
    refusal: Refusal | None
    steps: tuple[Step, ...]
    repairs: tuple[Step, ...]
    withheld: tuple[Step, ...]
    verdicts: Mapping[Part, Verdict]
    further: Mapping[str, Verdict]
    keys: KeyStatus | None
    usage: Usage | None

    @property
    def actions(self) -> list[Action]:
        """What is to be done now, in order."""
        return [step.action for step in self.steps]


def decide(manifest: Manifest, seen: Observation, now: datetime) -> Decision:
    """Return what must be done at this time so that the backends match the manifest, and how the tenant stands until then."""
    look = seen.look(manifest)
    keys = credentials.status(look, seen.vault, now) if isinstance(seen.vault, VaultSeen) else None
    usage = _usage(seen, now)
    if refused := refusal(look, seen):
        return Decision(manifest, refused, (), (), (), {}, {}, keys, usage)
    asked = [step for part, found in _visible(seen) for step in PARTS[part].plan(look, found, now)]
    repairs = tuple(step for step in asked if _repairs(look, step))
    withheld = repairs if manifest.spec.drift_policy is DriftPolicy.REPORT else ()
    steps = tuple(step for step in asked if step not in withheld)
    return Decision(
        manifest,
        None,
        steps,
        () if withheld else repairs,
        withheld,
        {part: _verdict(look, part, found, steps, withheld) for part, found in seen.parts.items()},
        archive.verdicts(manifest.spec, seen.database) | quota_verdicts(manifest.spec.quotas, seen.database),
        keys,
        usage,
    )


def _visible(seen: Observation) -> Iterable[tuple[Part, Any]]:
    return ((part, found) for part, found in seen.parts.items() if found is not None and not isinstance(found, Trouble))


def _repairs(look: Look, step: Step) -> bool:
    """Whether the step corrects what changed without Decklog: its part was in order for this very spec before."""
    row = look.row
    if row is None or (row.uid, row.generation) != (look.manifest.uid, look.manifest.generation):
        return False
    return step.action.part in row.settled and not step.expected


def _verdict(look: Look, part: Part, found: Any, steps: Iterable[Step], withheld: Iterable[Step]) -> Verdict:
    if changed := [step for step in withheld if step.action.part is part]:
        return drifted(changed)
    if missing := [type(step.action).__name__ for step in steps if step.action.part is part and step.essential]:
        return Verdict("Unknown", "Pending", f"Still to do: {', '.join(missing)}.")
    if isinstance(found, Trouble):
        return Verdict("False", found.reason, found.message)
    return PARTS[part].verdict(look, found)


def drifted(withheld: Iterable[Step]) -> Verdict:
    """Return the verdict of drift that `driftPolicy: Report` leaves alone."""
    withheld = list(withheld)
    names = [name for step in withheld for name in step.differing]
    some = ", ".join(names[:_NAMED_MAX]) + (f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else "")
    return Verdict(
        "False" if any(step.disabling for step in withheld) else "True",
        DRIFTED,
        f"Changed without Decklog: {some}. Nothing is done, as spec.driftPolicy is Report: undo the change, or set it to Repair.",
    )


def _usage(seen: Observation, now: datetime) -> Usage | None:
    stored = seen.database.stored if isinstance(seen.database, DatabaseSeen) else None
    if stored is None:
        return None
    depth = seen.queue.depth if isinstance(seen.queue, QueueSeen) and seen.queue.exists else None
    return Usage(stored.records, stored.bytes, depth, None if seen.search is None else stored.unindexed, now, stored.rejected)
