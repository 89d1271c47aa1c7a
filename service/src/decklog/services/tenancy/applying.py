"""Carries out actions, each backend for itself. What an action does is known by the adapter of its backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

from decklog.domain.identity.access import Role
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.credentials import RevokeKeys
from decklog.domain.tenancy.parts.database import RemoveTenant
from decklog.domain.tenancy.parts.part import Action
from decklog.domain.tenancy.status import Part
from decklog.domain.tenancy.trouble import Trouble
from decklog.services.records.access_log import REMOVE
from decklog.services.tenancy import vaults
from decklog.services.tenancy.calls import attempt_all
from decklog.services.tenancy.ports import DatabaseVisit, IndexAction, IndexProvisioning, QueueAction, QueueProvisioning
from decklog.services.tenancy.reporting import entry, recorded
from decklog.services.tenancy.vaults import KeyVault

Attempt = Callable[[], Coroutine[Any, Any, None]]
_OUTSIDE: tuple[Part, ...] = (Part.SEARCH, Part.QUEUE)
"""Parts whose backends know nothing of the database."""


def blocked(troubles: Collection[Part]) -> set[Part]:
    """Return the parts that are not tried again in this visit. Keys belong to a registry row, so they wait for it."""
    return {*troubles, *((Part.CREDENTIALS,) if Part.DATABASE in troubles else ())}


class Applier:
    """Applies actions to the backends. `search` and `queue` are None where they are not configured."""

    def __init__(self, search: IndexProvisioning | None, queue: QueueProvisioning | None) -> None:
        self._search = search
        self._queue = queue
        self._issued: dict[str, dict[Role, str]] = {}

    async def apply(
        self, manifest: Manifest, visit: DatabaseVisit | Trouble, vault: KeyVault | None, actions: Sequence[Action]
    ) -> dict[Part, Trouble]:
        """Carry out a plan, all backends concurrently, keys after the database. Returns what failed, by part."""
        attempts = self._attempts(manifest, visit, vault, actions)
        outside = {part: attempts[part] for part in _OUTSIDE if part in attempts}
        first, second = await asyncio.gather(_registered(attempts), attempt_all(outside))
        return first | second

    async def remove(self, manifest: Manifest, visit: DatabaseVisit | Trouble, actions: Sequence[Action]) -> dict[Part, Trouble]:
        """Carry out the next actions of a removal: first those outside the database, then, if none failed, the rest."""
        if isinstance(visit, Trouble):
            return {}  # nothing is planned for a tenant that could not be seen
        outside, last = [action for action in actions if action.part in _OUTSIDE], actions[-1]
        failed = await self.apply(manifest, visit, None, outside)
        if isinstance(last, RemoveTenant) and not failed:
            # The tenant's own log goes with it, so this is recorded in the platform's.
            done = entry(REMOVE, manifest, actions, {}, last)
            return await attempt_all({Part.DATABASE: lambda: visit.remove(last, done)}, "remove")
        if not isinstance(last, RemoveTenant):
            if outside:
                return failed  # of a tenant that was never registered, and has no log
            failed = await attempt_all({Part.DATABASE: lambda: _stop(visit, actions)})
        return failed | await recorded(visit, REMOVE, manifest, actions, failed)

    def _attempts(
        self, manifest: Manifest, visit: DatabaseVisit | Trouble, vault: KeyVault | None, actions: Sequence[Action]
    ) -> dict[Part, Attempt]:
        """How the actions of each part are carried out; parts without actions are left out."""
        mine = {part: [action for action in actions if action.part is part] for part in Part}
        calls: dict[Part, Attempt] = {
            Part.SEARCH: lambda: self._in_search(mine[Part.SEARCH]),
            Part.QUEUE: lambda: self._in_queue(mine[Part.QUEUE]),
        }
        if not isinstance(visit, Trouble):
            calls[Part.DATABASE] = lambda: visit.apply(mine[Part.DATABASE])
            if vault is not None:
                calls[Part.CREDENTIALS] = lambda: self._in_vault(visit, vault, manifest, mine[Part.CREDENTIALS])
        return {part: call for part, call in calls.items() if mine[part]}

    def take_issued(self, name: str) -> dict[Role, str]:
        """Return the ids of the keys that the last plan of a tenant issued, by role, once."""
        return self._issued.pop(name, {})

    async def _in_vault(self, visit: DatabaseVisit, vault: KeyVault, manifest: Manifest, actions: Sequence[Action]) -> None:
        if issued := await vaults.apply(visit, vault, manifest, actions):
            self._issued[manifest.name] = issued

    async def _in_search(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if self._search is not None and isinstance(action, IndexAction):
                await self._search.apply(action)

    async def _in_queue(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if self._queue is not None and isinstance(action, QueueAction):
                await self._queue.apply(action)


async def _registered(attempts: dict[Part, Attempt]) -> dict[Part, Trouble]:
    """The database, and then, unless it failed, the credentials."""
    failed: dict[Part, Trouble] = {}
    for part in (Part.DATABASE, Part.CREDENTIALS):
        if part in attempts and part not in blocked(failed):
            failed |= await attempt_all({part: attempts[part]})
    return failed


async def _stop(visit: DatabaseVisit, actions: Sequence[Action]) -> None:
    await visit.apply([action for action in actions if action.part is Part.DATABASE])
    if revoked := [key for action in actions if isinstance(action, RevokeKeys) for key in action.ids]:
        await visit.revoke(revoked)
