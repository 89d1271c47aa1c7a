"""Makes tenants what their manifests say: observe every backend, decide, apply, report.

The operator drives it from custom resources, `decklog dev` from files; this module must know neither. The decision is made in
`domain/tenancy`; the adapters know how an action is carried out.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from decklog.domain.errors import DecklogError
from decklog.domain.tenancy.decision import Decision, decide
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import PREFIX
from decklog.domain.tenancy.observation import Observation
from decklog.domain.tenancy.parts.database import RemoveTenant
from decklog.domain.tenancy.parts.part import Action, Installation
from decklog.domain.tenancy.refusal import RESERVED, unacceptable
from decklog.domain.tenancy.removal import deletion_refusal, plan_removal, removal_verdicts
from decklog.domain.tenancy.spec import Retention, TenantSpec
from decklog.domain.tenancy.status import SYNCED, Condition, Part, TenantListing, TenantStatus, Verdict, conditions
from decklog.domain.tenancy.trouble import Trouble
from decklog.domain.tenancy.verdicts import refused_verdicts, verdicts
from decklog.domain.tenant import DEFAULT_CELL, PLATFORM_TENANT, Isolation
from decklog.services.identity.keys import key_hash, new_key
from decklog.services.records.access_log import PROVISION
from decklog.services.tenancy.applying import Applier, blocked
from decklog.services.tenancy.calls import trouble
from decklog.services.tenancy.observing import Observer, untouched
from decklog.services.tenancy.ports import (
    DatabaseProvisioning,
    DatabaseVisit,
    IndexProvisioning,
    QueueProvisioning,
    TenantDirectory,
)
from decklog.services.tenancy.reporting import DriftFound, for_row, recorded, registered, report
from decklog.services.tenancy.vaults import KeyVault

ROUNDS_MAX = 4
"""Observations of one visit. What one action makes possible (an index has its UUID only once it exists) is done in the same
visit; what is still to do after them waits for the next visit."""
PLATFORM_RETENTION_DAYS = 365
PLATFORM_ATTEMPTS_MAX = 2
"""Another process may register the reserved tenant first, under a UID of its own choice."""

_log = structlog.get_logger("decklog.provisioning")


class _Converged(msgspec.Struct, frozen=True):
    """What a visit came to: its last look, what failed, the drift it found; `acted`: something was done after that look."""

    seen: Observation
    decision: Decision
    troubles: dict[Part, Trouble]
    drift: DriftFound
    acted: bool


def _now() -> datetime:
    return datetime.now(UTC)


class Provisioner:
    """Looks after tenants, one visit at a time each. `search` and `queue` are None where they are not configured."""

    def __init__(
        self,
        database: DatabaseProvisioning,
        search: IndexProvisioning | None,
        queue: QueueProvisioning | None,
        *,
        directory: TenantDirectory,
        prefix: str = PREFIX,
        cell: str = DEFAULT_CELL,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._database = database
        self._directory = directory
        self._now = now
        self._observer = Observer(database, search, queue, Installation(None, prefix, cell))
        self._applier = Applier(search, queue)
        self._knowing = asyncio.Lock()

    async def reconcile(self, manifest: Manifest, vault: KeyVault | None, previous: Sequence[Condition] = ()) -> TenantStatus:
        """Make the tenant what the manifest says, as far as that can be done now, and return its status.

        Never raises for a broken backend. `previous` are the conditions reported last, for the times of their changes; without
        them the registry's are taken. `vault` is None where no keys are wanted.
        """
        refused = unacceptable(manifest)
        if refused is not None:
            return self.refused(manifest.generation, refused, previous)
        await self._know_installation()
        return await self._glance(manifest, vault, previous) or await self._visit(manifest, vault, previous)

    async def remove(self, manifest: Manifest, vault: KeyVault | None = None, previous: Sequence[Condition] = ()) -> TenantStatus:
        """Do what the deletion policy says, as far as that can be done now, and return the status.

        The removal is complete when the status is `synced`; until then the call must be repeated. A tenant of another UID is
        not touched. A tenant that is protected or under a legal hold is looked after as before. Never raises for a broken
        backend.
        """
        if manifest.name == PLATFORM_TENANT:
            return self.refused(manifest.generation, RESERVED, previous)
        if deletion_refusal(manifest.spec):
            return await self._visit(manifest, vault, previous, deleted=True)
        await self._know_installation()
        async with self._observer.entered(manifest.name) as visit:
            return await self._remove(manifest, visit, previous)

    def refused(self, generation: int, refused: Trouble, previous: Sequence[Condition] = ()) -> TenantStatus:
        """Return the status of a tenant that nothing is done for, for example because its spec is invalid (`InvalidSpec`)."""
        return TenantStatus(conditions(refused_verdicts(refused), generation, previous, self._now()), generation)

    async def ensure_platform_tenant(self, vault: KeyVault | None = None) -> TenantStatus:
        """Make the reserved tenant: its access log holds what belongs to no tenant, and its UID marks what is shared."""
        spec = TenantSpec(
            retention=Retention(PLATFORM_RETENTION_DAYS),
            isolation=Isolation.SHARED,
            cell=self._observer.installation.cell,
            display_name="The platform itself",
        )
        for number in range(PLATFORM_ATTEMPTS_MAX):
            try:
                manifest = await self.manifest(PLATFORM_TENANT, spec)
            except DecklogError as error:
                return self.refused(1, trouble(error))
            status = await self._visit(manifest, vault, ())
            if status.tenant_id is not None:
                self._know(manifest.uid)
                break
            _log.info("the reserved tenant is not registered yet", attempt=number)
        return status

    async def ensure_platform_key(self, kept: str | None) -> str:
        """Return the platform's API key: `kept` where it is still valid, else a new one, and then the others are revoked.

        The caller must store it in a safe place. Raises `storage-unavailable`.
        """
        async with self._database.visit(PLATFORM_TENANT) as visit:
            live = await visit.platform_keys()
            if kept is not None and any(key.hash == key_hash(kept) and not key.expired(self._now()) for key in live):
                return kept
            key_id, token, hashed = new_key()
            await visit.replace_platform_keys(key_id, hashed, [key.id for key in live])
            return token

    async def manifest(self, name: str, spec: TenantSpec) -> Manifest:
        """Return a manifest for a spec without UID and generation, as from a file.

        It has those of the registry, and the next generation where the spec differs. Raises `storage-unavailable` and
        `misconfigured`.
        """
        row = await self._database.find(name)
        if row is None:
            return Manifest(name, str(uuid.uuid4()), 1, spec)
        return Manifest(name, row.uid, row.generation + (row.spec != spec), spec)

    async def observe(self, manifest: Manifest, vault: KeyVault | None) -> Observation:
        """Return what exists, for printing a plan. Nothing is changed, and the reserved tenant is not made either."""
        if self._observer.installation.uid is None:
            with suppress(DecklogError):
                self._know(await self._database.installation())
        async with self._observer.entered(manifest.name) as visit:
            return await self._observer.visit(manifest, visit, vault)

    async def tenants(self, *, after: str = "", limit: int | None = None) -> list[TenantListing]:
        """Return tenants by name, with their conditions. Raises `storage-unavailable`."""
        return await self._directory.tenants(after=after, limit=limit)

    async def _know_installation(self) -> None:
        async with self._knowing:
            if self._observer.installation.uid is not None:
                return
            try:
                self._know(await self._database.installation())
            except DecklogError:
                return  # the visit will report what is wrong with the database
            if self._observer.installation.uid is None:
                await self.ensure_platform_tenant()

    def _know(self, uid: str | None) -> None:
        self._observer.installation = replace(self._observer.installation, uid=uid)

    async def _glance(self, manifest: Manifest, vault: KeyVault | None, previous: Sequence[Condition]) -> TenantStatus | None:
        """The status of a tenant that needs nothing, not even in the registry: most looks find that.

        A glance holds no lock and shares its questions with others. None where a visit is needed, also to report troubles.
        """
        if not previous or any(told.observed_generation != manifest.generation for told in previous):
            return None
        seen, now = await self._observer.glance(manifest, vault), self._now()
        decision, row = decide(manifest, seen, now), seen.row
        if row is None or row.uid != manifest.uid or decision.refusal or decision.steps or decision.withheld:
            return None
        told, settled = for_row(manifest, row, verdicts(decision), previous, now)
        if (told, settled) != (row.conditions, row.settled):
            return None
        status = registered(manifest, seen, row, told, decision.keys)
        return replace(status, drift=DriftFound().status(seen, now), usage=decision.usage)

    async def _visit(
        self, manifest: Manifest, vault: KeyVault | None, previous: Sequence[Condition], *, deleted: bool = False
    ) -> TenantStatus:
        """`deleted`: a deletion was asked for and is refused, which the status says."""
        async with self._observer.entered(manifest.name) as visit:
            came = await self._converge(manifest, visit, vault)
            seen, decision, now = came.seen, came.decision, self._now()
            if decision.refusal is not None:
                _log.warning("tenant refused", tenant=manifest.name, reason=decision.refusal.reason)
            for step in decision.withheld:
                came.drift.note(step, seen, repaired=False)
            said = verdicts(decision, came.troubles)
            if deleted and (held := deletion_refusal(manifest.spec)):
                said[SYNCED] = Verdict("False", held.reason, held.message)
            status = await report(visit, manifest, seen, said, previous, keys=decision.keys, acted=came.acted, now=now)
            return replace(status, drift=came.drift.status(seen, now), usage=decision.usage)

    async def _converge(self, manifest: Manifest, visit: DatabaseVisit | Trouble, vault: KeyVault | None) -> _Converged:
        """Observe, decide and apply until nothing is left to do, or nothing more can be done now."""
        troubles: dict[Part, Trouble] = {}
        done: list[Action] = []
        kept: dict[Part, Any] = {}
        drift = DriftFound()
        for _ in range(ROUNDS_MAX):
            seen, acted = await self._observer.visit(manifest, visit, vault, kept), False
            decision = decide(manifest, seen, self._now())
            actions = [action for action in decision.actions if action.part not in blocked(troubles)]
            if not actions or actions == done:
                break  # in order, or not possible now: SQS may show a change only after a minute
            done, acted = actions, True
            _log.info("provisioning", tenant=manifest.name, actions=[type(action).__name__ for action in actions])
            failed = await self._applier.apply(manifest, visit, vault, actions)
            kept = untouched(seen, actions)
            for step in decision.repairs:
                if step.action in actions:
                    drift.note(step, seen, repaired=step.action.part not in failed)
            troubles |= failed | await recorded(
                visit, PROVISION, manifest, actions, failed, issued=self._applier.take_issued(manifest.name)
            )
        return _Converged(seen, decision, troubles, drift, acted)

    async def _remove(self, manifest: Manifest, visit: DatabaseVisit | Trouble, previous: Sequence[Condition]) -> TenantStatus:
        troubles: dict[Part, Trouble] = {}
        removed: RemoveTenant | None = None
        done: list[Action] = []
        for _ in range(ROUNDS_MAX):
            seen, stopped = await self._observer.removal(manifest, visit)
            actions = plan_removal(manifest, seen, stopped)
            if not actions or actions == done or troubles or removed:
                break  # complete, or waiting: SQS may show a removed queue for a minute
            done = actions
            _log.info("removing", tenant=manifest.name, actions=[type(action).__name__ for action in actions])
            troubles = await self._applier.remove(manifest, visit, actions)
            removed = next((each for each in actions if isinstance(each, RemoveTenant) and not troubles), None)
        said = removal_verdicts(manifest, seen, troubles, left=actions, removed=removed)
        status = await report(visit, manifest, seen, said, previous, keys=None, acted=True, now=self._now())
        return replace(status, purged_after=removed.purged_after if removed else None)
