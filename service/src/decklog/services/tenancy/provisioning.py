"""The brain of the control plane: observe every backend, plan, apply, and say in conditions what came of it.

The operator drives it from custom resources, `decklog dev` from files; it knows neither. What to do is decided by
`domain.plan`, how to do it is known by the adapters; this module sees to it that each backend is bounded, that none
holds up another, and that no secret goes anywhere but to the vault and, as a hash, to the registry.
"""

from __future__ import annotations

import asyncio
import traceback
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.log import rfc3339_seconds
from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource
from decklog.domain.tenancy.decision import Observation
from decklog.domain.tenancy.manifest import Manifest, check_request
from decklog.domain.tenancy.names import PREFIX, check_name, index_name, queue_name
from decklog.domain.tenancy.parts.credentials import IssueKeys, RestateKeys, RevokeKeys, VaultSeen, held
from decklog.domain.tenancy.parts.database import RemoveTenant
from decklog.domain.tenancy.parts.keys import TENANT_ROLES, IssuedKey
from decklog.domain.tenancy.parts.part import Action, Installation, Refusal, Trouble
from decklog.domain.tenancy.parts.queue import CreateQueue, QueueSeen, RemoveQueue, SetQueueAttributes
from decklog.domain.tenancy.parts.search import CreateIndex, IndexSeen, RemoveDocuments, RemoveIndex, UpdateIndex
from decklog.domain.tenancy.plan import fields, keys_told, plan, refusal, repairs, used, withheld
from decklog.domain.tenancy.registered import DatabaseSeen, Row, Stopped
from decklog.domain.tenancy.removal import deletion_refusal, may_go, names, plan_removal, removal_verdicts
from decklog.domain.tenancy.spec import Retention, TenantSpec, parse_spec
from decklog.domain.tenancy.status import (
    DRIFT_FIELDS_MAX,
    SYNCED,
    Condition,
    Drift,
    Part,
    TenantListing,
    TenantStatus,
    Verdict,
    conditions,
)
from decklog.domain.tenancy.verdicts import DRIFTED, refused_verdicts, verdicts
from decklog.domain.tenant import DEFAULT_CELL, PLATFORM_TENANT, Isolation
from decklog.services.identity.keys import key_hash, new_key
from decklog.services.tenancy.metrics import DRIFT, REPAIRS, WAITING, backend, calling
from decklog.services.tenancy.observations import OBSERVE_SECONDS_MAX, gathered, joined

APPLY_SECONDS_MAX = 120.0
"""For one backend to do what it is asked."""
GLANCES_MAX = 256
"""Tenants that are looked at at once without being held; the others wait before the time for it begins."""
ROUNDS_MAX = 4
"""Observations of one visit: what one action makes possible (an index has its life only once it is made) is done in the
same visit; what then is still to do waits for the next."""
PLATFORM_RETENTION_DAYS = 365
PLATFORM_ATTEMPTS_MAX = 2
"""Another process may register the reserved tenant first, with the uid that it thought of."""

_log = structlog.get_logger("decklog.provisioning")
_Result = TypeVar("_Result")


class Handout(msgspec.Struct, frozen=True):
    """A tenant's plain keys, and what is said of them; see `VaultSeen` for what may be None, and for `drift`."""

    keys: Mapping[Role, str]
    revision: int | None = None
    valid_until: str | None = None
    drift: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Handout(revision={self.revision})"  # the keys must not get into a log or a traceback by way of this


class KeyVault(Protocol):
    """Where a tenant's plain keys are kept for its people: a Kubernetes Secret, or a file."""

    async def read(self, manifest: Manifest) -> Handout | None:
        """What is there, None without any keys."""
        ...

    async def write(self, manifest: Manifest, handout: Handout) -> None:
        """Put exactly these keys there, and what is said of them as far as this kind of vault keeps it."""
        ...


class Handover:
    """A `KeyVault` for whoever asks for a tenant and gets its keys with the answer: `made` are those of this one visit.

    `kept` is where they are kept besides. Where that is None nobody keeps them, so those that the registry has are taken
    to be in good hands, and only what is missing or asked for is made.
    """

    def __init__(self, kept: KeyVault | None) -> None:
        self.kept = kept
        self.made: dict[Role, str] = {}

    async def read(self, manifest: Manifest) -> Handout | None:
        return None if self.kept is None else await self.kept.read(manifest)

    async def write(self, manifest: Manifest, handout: Handout) -> None:
        before = await self.read(manifest)
        if self.kept is not None:
            await self.kept.write(manifest, handout)
        known = before.keys if before is not None else {}
        self.made |= {role: token for role, token in handout.keys.items() if known.get(role) != token}


class DatabaseVisit(Protocol):
    """One tenant in the database, held alone; see `timescale/provision.py`."""

    async def row(self) -> Row | None: ...

    async def observe(self, manifest: Manifest, index: str) -> DatabaseSeen: ...

    async def apply(self, actions: Sequence[Action]) -> None: ...

    async def take_revision(self, revision: int) -> None: ...

    async def issue(self, keys: Sequence[IssuedKey], action: IssueKeys) -> None: ...

    async def revoke(self, ids: Sequence[str]) -> None: ...

    async def save_conditions(self, conditions: Sequence[Condition], settled: Sequence[str]) -> None: ...

    async def stopped(self) -> Stopped | None: ...

    async def remove(self, action: RemoveTenant, entry: RecordInput) -> None: ...

    async def record(self, entry: RecordInput) -> None: ...

    async def platform_keys(self) -> tuple[IssuedKey, ...]: ...

    async def replace_platform_keys(self, key_id: str, key_hash: bytes, revoked: Sequence[str]) -> None: ...


class DatabaseProvisioning(Protocol):
    def visit(self, name: str) -> AbstractAsyncContextManager[DatabaseVisit]:
        """Waits for other visits to the same tenant. Raises `storage-unavailable`."""
        ...

    async def observe(self, asked: Sequence[tuple[Manifest, str]]) -> list[DatabaseSeen]:
        """As each tenant's visit observes it, without holding it. Raises `storage-unavailable` and `misconfigured`."""
        ...

    async def installation(self) -> str | None: ...

    async def find(self, name: str) -> Row | None: ...


IndexAction = CreateIndex | UpdateIndex | RemoveIndex | RemoveDocuments
QueueAction = CreateQueue | SetQueueAttributes | RemoveQueue


class IndexProvisioning(Protocol):
    async def observe(self, index: str) -> IndexSeen: ...

    async def apply(self, action: IndexAction) -> None: ...


class QueueProvisioning(Protocol):
    async def observe(self, queue: str) -> QueueSeen: ...

    async def apply(self, action: QueueAction) -> None: ...


class TenantDirectory(Protocol):
    """Who exists, deleted tenants that are retained included."""

    async def tenants(self, *, after: str = "", limit: int | None = None) -> list[TenantListing]: ...

    async def tenant(self, name: str) -> TenantListing | None: ...


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
        self._search = search
        self._queue = queue
        self._directory = directory
        self._now = now
        self._indices = None if search is None else joined(search.observe)
        self._queues = None if queue is None else joined(queue.observe)
        self._gathered = gathered(database.observe)
        self._glances = asyncio.Semaphore(GLANCES_MAX)
        self._installation = Installation(None, prefix, cell)
        self._knowing = asyncio.Lock()

    async def reconcile(self, manifest: Manifest, vault: KeyVault | None, previous: Sequence[Condition] = ()) -> TenantStatus:
        """Make the tenant what the manifest says, as far as that can be done now, and tell how it stands.

        Never raises for a broken backend. `previous` are the conditions that were told last, for the times of their
        changes; without them the registry's are taken. `vault` is None where no keys are wanted.
        """
        refused = _unacceptable(manifest)
        if refused is not None:
            return self.refused(manifest.generation, refused, previous)
        await self._know_installation()
        return await self._glance(manifest, vault, previous) or await self._visit(manifest, vault, previous)

    async def remove(self, manifest: Manifest, vault: KeyVault | None = None, previous: Sequence[Condition] = ()) -> TenantStatus:
        """Do what the deletion policy says, as far as that can be done now. Complete when the status is `synced`; to be
        repeated until then. A tenant of another UID is not touched, and one that is protected or under a legal hold is
        looked after as before. Never raises for a broken backend."""
        if manifest.name == PLATFORM_TENANT:
            return self.refused(manifest.generation, _RESERVED, previous)
        if deletion_refusal(manifest.spec):
            return await self._visit(manifest, vault, previous, deleted=True)
        await self._know_installation()
        async with self._entered(manifest.name) as visit:
            troubles: dict[Part, Trouble] = {}
            removed: RemoveTenant | None = None
            done: list[Action] = []
            for _ in range(ROUNDS_MAX):
                seen, stopped = await self._observe_removal(manifest, visit)
                actions = plan_removal(manifest, seen, stopped)
                if not actions or actions == done or troubles or removed:
                    break  # all is done, or waits; SQS may show for a minute what was removed
                done = actions
                _log.info("removing", tenant=manifest.name, actions=[type(action).__name__ for action in actions])
                troubles = await self._carry_out(manifest, visit, actions)
                removed = next((each for each in actions if isinstance(each, RemoveTenant) and not troubles), None)
            said = removal_verdicts(manifest, seen, troubles, left=actions, removed=removed)
            status = await self._told(manifest, seen, said, previous, visit, acted=True)
            return replace(status, purged_after=removed.purged_after if removed else None)

    def refused(self, generation: int, refused: Trouble, previous: Sequence[Condition] = ()) -> TenantStatus:
        """The status of a tenant that nothing is done for, for example as its spec is not valid (`InvalidSpec`)."""
        return TenantStatus(conditions(refused_verdicts(refused), generation, previous, self._now()), generation)

    async def ensure_platform_tenant(self, vault: KeyVault | None = None) -> TenantStatus:
        """The reserved tenant, whose access log holds what belongs to no tenant, and whose uid marks what is shared."""
        spec = TenantSpec(
            retention=Retention(PLATFORM_RETENTION_DAYS),
            isolation=Isolation.SHARED,
            cell=self._installation.cell,
            display_name="The platform itself",
        )
        for attempt in range(PLATFORM_ATTEMPTS_MAX):
            try:
                manifest = await self.manifest(PLATFORM_TENANT, spec)
            except DecklogError as error:
                return self.refused(1, _trouble(error))
            status = await self._visit(manifest, vault, ())
            if status.tenant_id is not None:
                self._know(manifest.uid)
                break
            _log.info("the reserved tenant is not registered yet", attempt=attempt)
        return status

    async def ensure_platform_key(self, kept: str | None) -> str:
        """The platform's API key: `kept` where it is still good, else a new one, and then the others are revoked.

        The caller keeps it in a safe place. Raises `storage-unavailable`.
        """
        async with self._database.visit(PLATFORM_TENANT) as visit:
            live = await visit.platform_keys()
            if kept is not None and any(key.hash == key_hash(kept) and not key.expired(self._now()) for key in live):
                return kept
            key_id, token, hashed = new_key()
            await visit.replace_platform_keys(key_id, hashed, [key.id for key in live])
            return token

    async def manifest(self, name: str, spec: TenantSpec) -> Manifest:
        """A manifest for a spec that comes without UID and generation, as from a file: those of the registry, and the
        next generation where the spec has changed. Raises `storage-unavailable` and `misconfigured`."""
        row = await self._database.find(name)
        if row is None:
            return Manifest(name, str(uuid.uuid4()), 1, spec)
        return Manifest(name, row.uid, row.generation + (row.spec != spec), spec)

    async def observe(self, manifest: Manifest, vault: KeyVault | None) -> Observation:
        """What is there, for printing a plan: nothing is changed, and the reserved tenant is not made either."""
        if self._installation.uid is None:
            with suppress(DecklogError):
                self._know(await self._database.installation())
        async with self._entered(manifest.name) as visit:
            return await self._observe(manifest, self._in_database(manifest, visit), vault)

    async def tenants(self, *, after: str = "", limit: int | None = None) -> list[TenantListing]:
        """Tenants by name, with their conditions. Raises `storage-unavailable`."""
        return await self._directory.tenants(after=after, limit=limit)

    # --- one visit ---------------------------------------------------------------------------------------------------

    async def _glance(self, manifest: Manifest, vault: KeyVault | None, previous: Sequence[Condition]) -> TenantStatus | None:
        """The status of a tenant that nothing is to be done for, not even in the registry: most looks find that, so they
        hold nothing and share what they ask for. None where it takes a visit, also to find out what is wrong."""
        if not previous or any(told.observed_generation != manifest.generation for told in previous):
            return None
        async with self._glances:
            index = index_name(manifest.name, manifest.spec, self._installation.prefix)
            database = _seen(self._gathered((manifest, index)), Part.DATABASE)
            seen = await self._observe(manifest, database, vault)
        row = seen.database.row if isinstance(seen.database, DatabaseSeen) else None
        now = self._now()
        if row is None or row.uid != manifest.uid or isinstance(refusal(manifest, seen), Refusal):
            return None
        if plan(manifest, seen, now) or withheld(manifest, seen, now):
            return None
        told, settled = _for_row(manifest, row, verdicts(manifest, seen, {}, left=[], alone=[]), previous, now)
        if (told, settled) != (row.conditions, row.settled):
            return None
        status = _registered(manifest, seen, row, told, now)
        return replace(status, drift=_Changed().told(seen, now), usage=used(seen, now))

    async def _know_installation(self) -> None:
        async with self._knowing:
            if self._installation.uid is not None:
                return
            try:
                self._know(await self._database.installation())
            except DecklogError:
                return  # the visit will say what is wrong with the database
            if self._installation.uid is None:
                await self.ensure_platform_tenant()

    def _know(self, uid: str | None) -> None:
        self._installation = replace(self._installation, uid=uid)

    @asynccontextmanager
    async def _entered(self, name: str) -> AsyncIterator[DatabaseVisit | Trouble]:
        """A visit to the tenant in the database, or why there is none: search and queue are looked after all the same."""
        entering = self._database.visit(name)
        # Waiting for other visits takes as long as it takes; what is waited for is bounded itself.
        with WAITING.track_inprogress():
            visit = await _seen(entering.__aenter__(), Part.DATABASE, "enter", seconds=None)
        try:
            yield visit
        finally:
            if not isinstance(visit, Trouble):
                # What the visit's end has to say was said by its statements already.
                await _seen(entering.__aexit__(None, None, None), Part.DATABASE, "leave")

    async def _visit(
        self, manifest: Manifest, vault: KeyVault | None, previous: Sequence[Condition], *, deleted: bool = False
    ) -> TenantStatus:
        """`deleted`: somebody asked for a deletion that is refused, which the status says."""
        async with self._entered(manifest.name) as visit:
            troubles: dict[Part, Trouble] = {}
            done: list[Action] = []
            changed = _Changed()
            kept: dict[Part, Any] = {}
            for _ in range(ROUNDS_MAX):
                seen, acted = await self._observe(manifest, self._in_database(manifest, visit), vault, kept=kept), False
                left = plan(manifest, seen, self._now())
                actions = [action for action in left if action.part not in _blocked(troubles)]
                if not actions or actions == done:
                    break  # in order, or not to be had now: SQS may show what was set only a minute later
                done = actions
                _log.info("provisioning", tenant=manifest.name, actions=[type(action).__name__ for action in actions])
                failed, acted = await self._apply(manifest, visit, vault, actions), True
                touched = {action.part for action in actions}
                kept = {part: found for part, found in _elsewhere(seen) if part not in touched}
                for repair in repairs(manifest, seen, actions):
                    changed.note(repair, seen, repaired=repair.part not in failed)
                troubles |= failed | await _recorded(visit, "tenant.provision", manifest, actions, failed)
            if isinstance(refused := refusal(manifest, seen), Refusal):
                _log.warning("tenant refused", tenant=manifest.name, reason=refused.reason)
            alone = withheld(manifest, seen, self._now())
            for action in alone:
                changed.note(action, seen, repaired=False)
            said = verdicts(manifest, seen, troubles, left=left, alone=alone)
            if deleted and (held := deletion_refusal(manifest.spec)):
                said[SYNCED] = Verdict("False", held.reason, held.message)
            status = await self._told(manifest, seen, said, previous, visit, acted=acted)
            return replace(status, drift=changed.told(seen, self._now()), usage=used(seen, self._now()))

    async def _in_database(self, manifest: Manifest, visit: DatabaseVisit | Trouble) -> DatabaseSeen | Trouble:
        if isinstance(visit, Trouble):
            return visit
        return await _seen(
            visit.observe(manifest, index_name(manifest.name, manifest.spec, self._installation.prefix)), Part.DATABASE
        )

    async def _observe(
        self,
        manifest: Manifest,
        database: Coroutine[Any, Any, DatabaseSeen | Trouble],
        vault: KeyVault | None,
        *,
        kept: Mapping[Part, Any] = {},
    ) -> Observation:
        """`kept` was seen a moment ago, in the same visit, and nothing was done there since."""
        index, queue = (each(manifest.name, manifest.spec, self._installation.prefix) for each in (index_name, queue_name))
        registered, (indices, queues), keys = await asyncio.gather(
            database,
            self._outside(index, queue, kept=kept),
            _given(None) if vault is None else _seen(_hashes(vault, manifest), Part.CREDENTIALS),
        )
        if isinstance(vault, Handover) and vault.kept is None and isinstance(registered, DatabaseSeen):
            keys = held(registered)
        return Observation(registered, self._installation, indices, queues, keys)

    async def _observe_removal(self, manifest: Manifest, visit: DatabaseVisit | Trouble) -> tuple[Observation, Stopped | None]:
        """What is there of a tenant that goes. Where all is kept there is no need to look any further than the database."""
        if isinstance(visit, Trouble):
            return Observation(visit, self._installation), None
        name = index_name(manifest.name, manifest.spec, self._installation.prefix)
        database, stopped = await _seen(visit.observe(manifest, name), Part.DATABASE), await _seen(visit.stopped(), Part.DATABASE)
        if isinstance(stopped, Trouble):
            return Observation(stopped, self._installation), None
        if isinstance(database, Trouble):
            return Observation(database, self._installation), None
        row = database.row
        if row is not None and (row.uid != manifest.uid or not may_go(manifest, database)):
            return Observation(database, self._installation), stopped
        indices, queues = await self._outside(*names(manifest, row, self._installation.prefix))
        return Observation(database, self._installation, indices, queues), stopped

    async def _outside(
        self, index: str, queue: str, *, kept: Mapping[Part, Any] = {}
    ) -> tuple[IndexSeen | Trouble | None, QueueSeen | Trouble | None]:
        """The index and the queue, None where there is no such backend. `kept` as in `_observe`."""
        found: list[Any] = await asyncio.gather(
            *(
                _given(kept.get(part)) if observe is None or part in kept else _seen(observe(name), part)
                for part, observe, name in ((Part.SEARCH, self._indices, index), (Part.QUEUE, self._queues, queue))
            )
        )
        return found[0], found[1]

    async def _carry_out(
        self, manifest: Manifest, visit: DatabaseVisit | Trouble, actions: Sequence[Action]
    ) -> dict[Part, Trouble]:
        """The actions of a removal: what is outside of the database first, and then, if nothing of that failed, the rest."""
        assert not isinstance(visit, Trouble)  # noqa: S101 - nothing is planned for what was not seen
        outside, last = [action for action in actions if action.part in {Part.SEARCH, Part.QUEUE}], actions[-1]
        failed = await self._apply(manifest, visit, None, outside) if outside else {}
        if isinstance(last, RemoveTenant) and not failed:
            # The tenant's own log goes with it, so this stands in the platform's.
            entry = _entry("tenant.remove", manifest, actions, {}, last)
            return await _attempts({Part.DATABASE: lambda: visit.remove(last, entry)}, "remove")
        if isinstance(last, RemoveTenant):
            return failed | await _recorded(visit, "tenant.remove", manifest, actions, failed)
        if outside:
            return failed  # of a tenant that was never registered, and has no log
        revoked = [key for action in actions if isinstance(action, RevokeKeys) for key in action.ids]
        rest = [action for action in actions if action.part is Part.DATABASE]
        failed = await _attempts({Part.DATABASE: lambda: _remove(visit, rest, revoked)})
        return failed | await _recorded(visit, "tenant.remove", manifest, actions, failed)

    async def _apply(
        self, manifest: Manifest, visit: DatabaseVisit | Trouble, vault: KeyVault | None, actions: Sequence[Action]
    ) -> dict[Part, Trouble]:
        """Do it, each backend for itself and all at once; what could not be done, by part."""
        by_part = {part: [action for action in actions if action.part is part] for part in Part}

        async def database() -> None:
            assert not isinstance(visit, Trouble)  # noqa: S101 - nothing is planned for what was not seen
            await visit.apply(by_part[Part.DATABASE])

        async def credentials() -> None:
            assert not isinstance(visit, Trouble)  # noqa: S101
            assert vault is not None  # noqa: S101
            await _hand_out(visit, vault, manifest, by_part[Part.CREDENTIALS])

        async def registered() -> dict[Part, Trouble]:
            failed = await _attempts({Part.DATABASE: database} if by_part[Part.DATABASE] else {})
            if Part.CREDENTIALS in _blocked(failed) or not by_part[Part.CREDENTIALS]:
                return failed
            return await _attempts({Part.CREDENTIALS: credentials})

        async def search() -> None:
            for action in by_part[Part.SEARCH]:
                if self._search is not None and isinstance(action, IndexAction):
                    await self._search.apply(action)

        async def queue() -> None:
            for action in by_part[Part.QUEUE]:
                if self._queue is not None and isinstance(action, QueueAction):
                    await self._queue.apply(action)

        first, second = await asyncio.gather(registered(), _attempts({Part.SEARCH: search, Part.QUEUE: queue}))
        return first | second

    async def _told(
        self,
        manifest: Manifest,
        seen: Observation,
        said: dict[str, Verdict],
        previous: Sequence[Condition],
        visit: DatabaseVisit | Trouble,
        *,
        acted: bool,
    ) -> TenantStatus:
        """The status, also written to the tenant's own row; never to somebody else's. `acted`: something was done since
        the observation."""
        now = self._now()
        if not isinstance(visit, Trouble) and isinstance(seen.database, DatabaseSeen):
            row = await _seen(visit.row(), Part.DATABASE, "look") if acted else seen.database.row
            if isinstance(row, Row) and row.uid == manifest.uid:
                told, settled = _for_row(manifest, row, said, previous, now)
                # What is said of an older generation is not news any more.
                if (told, settled) != (row.conditions, row.settled) and row.generation <= manifest.generation:
                    saved = await _seen(visit.save_conditions(told, settled), Part.DATABASE, "tell")
                    if isinstance(saved, Trouble):
                        _log.warning("conditions not saved", tenant=manifest.name, reason=saved.reason)
                return _registered(manifest, seen, row, told, now)
        return TenantStatus(conditions(said, manifest.generation, previous, now), manifest.generation)


def _for_row(
    manifest: Manifest, row: Row, said: Mapping[str, Verdict], previous: Sequence[Condition], now: datetime
) -> tuple[tuple[Condition, ...], tuple[str, ...]]:
    """The conditions and the settled parts that belong into the tenant's row after this."""
    good = {part for part in Part if said[part].status == "True" and said[part].reason != "NotConfigured"}
    settled = tuple(part for part in Part if part in {*row.settled, *good})
    return conditions(said, manifest.generation, previous or row.conditions, now), settled


def _registered(manifest: Manifest, seen: Observation, row: Row, told: tuple[Condition, ...], now: datetime) -> TenantStatus:
    keys = keys_told(manifest, seen, now)
    archive = seen.database.archive if isinstance(seen.database, DatabaseSeen) else None
    return TenantStatus(told, manifest.generation, row.id, row.schema, row.index, row.queue, keys, archive=archive)


class _Changed:
    """What a visit finds changed behind our back, collected and counted."""

    def __init__(self) -> None:
        self._found: dict[str, bool] = {}

    def note(self, repair: Action, seen: Observation, *, repaired: bool) -> None:
        """This action puts it right, or would."""
        names = fields(repair, seen)
        self._found |= dict.fromkeys(names, repaired)
        REPAIRS.labels(backend(repair.part)).inc(repaired)
        row = seen.database.row if isinstance(seen.database, DatabaseSeen) else None
        if row is None or (repair.part, DRIFTED) not in {(told.type, told.reason) for told in row.conditions}:
            for name in names:
                DRIFT.labels(backend(repair.part), name.split(" ")[0]).inc()

    def told(self, seen: Observation, now: datetime) -> Drift | None:
        """None where nothing was found but not everything could be seen."""
        if not self._found and any(isinstance(each, Trouble) for each in (seen.database, seen.search, seen.queue, seen.vault)):
            return None
        repaired, at = list(self._found.values()), rfc3339_seconds(now) if self._found else ""
        return Drift(tuple(sorted(self._found))[:DRIFT_FIELDS_MAX], sum(repaired), not all(repaired), at)


_RESERVED = Refusal("InvalidSpec", f"The name {PLATFORM_TENANT!r} is reserved for the platform itself. Use another name.")


def _unacceptable(manifest: Manifest) -> Refusal | None:
    """Whether the manifest itself is wrong, whatever is there."""
    if manifest.name == PLATFORM_TENANT:
        return _RESERVED
    try:
        check_name(manifest.name)
        check_request(manifest.rotate)
        parse_spec(msgspec.to_builtins(manifest.spec))
    except DecklogError as error:
        return Refusal("InvalidSpec", error.detail)
    return None


def _blocked(troubles: Collection[Part]) -> set[Part]:
    """What is not tried again in this visit. Keys belong to a row of the registry, so they wait for it."""
    return {*troubles, *((Part.CREDENTIALS,) if Part.DATABASE in troubles else ())}


async def _hashes(vault: KeyVault, manifest: Manifest) -> VaultSeen:
    kept = await vault.read(manifest)
    if kept is None:
        return VaultSeen()
    hashes = {role: key_hash(token) for role, token in kept.keys.items()}
    return VaultSeen(hashes, kept.revision, kept.valid_until, kept.drift)


async def _hand_out(visit: DatabaseVisit, vault: KeyVault, manifest: Manifest, actions: Sequence[Action]) -> None:
    for action in actions:
        match action:
            case IssueKeys():
                await _issue(visit, vault, manifest, action)
            case RestateKeys():
                if (kept := await vault.read(manifest)) is not None:
                    await visit.take_revision(action.revision)
                    await vault.write(manifest, Handout(kept.keys, action.revision, action.valid_until))
            case RevokeKeys():
                await visit.revoke(action.ids)


async def _issue(visit: DatabaseVisit, vault: KeyVault, manifest: Manifest, action: IssueKeys) -> None:
    """New keys go to the vault first: a key that nobody was given must not be let in, and one that was given and is not
    let in yet is replaced by the next visit. Until then the keys before are as good as ever.

    The revision is taken before all that, so that no two contents of the vault ever have the same.
    """
    made = {role: new_key() for role in action.roles}
    kept = await vault.read(manifest) if made.keys() < set(TENANT_ROLES) else None
    tokens = {role: token for role, token in (kept.keys if kept else {}).items() if role in TENANT_ROLES}
    tokens |= {role: token for role, (_, token, _) in made.items()}
    await visit.take_revision(action.revision)
    await vault.write(manifest, Handout(tokens, action.revision, action.valid_until))
    await visit.issue([IssuedKey(key_id, role, hashed, action.at) for role, (key_id, _, hashed) in made.items()], action)


async def _remove(visit: DatabaseVisit, actions: Sequence[Action], revoked: Sequence[str]) -> None:
    await visit.apply(actions)
    if revoked:
        await visit.revoke(revoked)


async def _recorded(
    visit: DatabaseVisit | Trouble, action: str, manifest: Manifest, actions: Sequence[Action], failed: Mapping[Part, Trouble]
) -> dict[Part, Trouble]:
    """Rule 8: what was done to a tenant stands in its own access log. Before it is registered there is no such log."""
    if isinstance(visit, Trouble) or Part.DATABASE in failed:
        return {}
    entry = _entry(action, manifest, actions, failed)
    return await _attempts({Part.DATABASE: lambda: visit.record(entry)}, "record")


def _entry(
    action: str,
    manifest: Manifest,
    actions: Sequence[Action],
    failed: Mapping[Part, Trouble],
    removed: RemoveTenant | None = None,
) -> RecordInput:
    details: dict[str, Any] = {
        "actions": [type(each).__name__ for each in actions],
        "generation": manifest.generation,
        "uid": manifest.uid,
        "failed": {part.value: trouble.reason for part, trouble in failed.items()},
    }
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


def _elsewhere(seen: Observation) -> tuple[tuple[Part, Any], ...]:
    """What was seen of the backends that are asked over the network for each queue and index."""
    return (Part.SEARCH, seen.search), (Part.QUEUE, seen.queue)


async def _given(value: _Result) -> _Result:
    return value


async def _seen(
    looking: Coroutine[Any, Any, _Result], part: Part, operation: str = "observe", *, seconds: float | None = OBSERVE_SECONDS_MAX
) -> _Result | Trouble:
    """What is seen, or why it is not. Every call to a backend goes this way, and is counted here."""
    with calling(part, operation) as call:
        try:
            async with asyncio.timeout(seconds):
                return await looking
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one backend must not hold up the others
            call.trouble = _trouble(error)
            return call.trouble


async def _attempts(
    attempts: dict[Part, Callable[[], Coroutine[Any, Any, None]]], operation: str = "apply"
) -> dict[Part, Trouble]:
    """Try all at once; what failed, by part."""
    tried = (_seen(action(), part, operation, seconds=APPLY_SECONDS_MAX) for part, action in attempts.items())
    failed = zip(attempts, await asyncio.gather(*tried), strict=True)
    return {part: trouble for part, trouble in failed if trouble is not None}


_REASONS = {
    Code.STORAGE_UNAVAILABLE: "Unreachable",
    Code.SEARCH_UNAVAILABLE: "Unreachable",
    Code.CONFLICT: "Conflict",
    Code.MISCONFIGURED: "Misconfigured",
    Code.INVALID_TENANT: "InvalidSpec",
    Code.FORBIDDEN: "Forbidden",
    Code.NOT_FOUND: "NotFound",
}


def _trouble(error: Exception) -> Trouble:
    """What went wrong, in words that may be shown to whoever may see the tenant."""
    if isinstance(error, DecklogError):
        return Trouble(error.extra.get("reason") or _REASONS.get(error.code, "Failed"), error.detail)
    if isinstance(error, TimeoutError):
        return Trouble("Timeout", "No answer in time. It is tried again.")
    # Its text may hold anything, a secret too, so neither the condition nor the log repeats it.
    path = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    _log.error("provisioning failed", error=type(error).__name__, path=path[-6:])
    return Trouble("Failed", f"Something unexpected went wrong ({type(error).__name__}); the log has the cause.")
