"""Reconcile one Tenant per visit. A visit is the same for a new Tenant, an edit, a restart and a periodic check.

This module decides when the next visit is due and what is written to Kubernetes. `decklog.services.tenancy.provisioning` decides what
a tenant needs. This module must not import Kopf.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import rfc3339_seconds
from decklog.domain.pauses import backoff, between, jittered
from decklog.domain.tenancy.manifest import ROTATE, Manifest
from decklog.domain.tenancy.names import check_name
from decklog.domain.tenancy.removal import deletion_refusal
from decklog.domain.tenancy.spec import DeletionPolicy, parse_spec
from decklog.domain.tenancy.status import READY, Condition, KeyStatus, TenantStatus, Usage
from decklog.services.tenancy.vaults import KeyVault
from decklog_operator import metrics
from decklog_operator import status as statuses
from decklog_operator.cluster import Cluster, NotFoundError
from decklog_operator.names import FINALIZER, PAUSED, RECONCILE
from decklog_operator.secrets import SecretVault
from decklog_operator.settings import OperatorSettings

_RETRY_FIRST = 0.5
"""Pause before the second attempt in seconds. Each further pause doubles, up to DECKLOG_OPERATOR_RETRY_MAX_SECONDS."""
_JITTER = 0.2
"""Share by which pauses vary, so that a thousand tenants are not due in the same second."""
_BEATS = 60
"""Points of an interval at which visits are due. Visits at the same point share one observation of the backends."""

_HELD_LOOK = 15.0
"""Pause between attempts at a refused deletion in seconds. Kopf does not call a deletion handler after an edit."""
_EVENTS_MAX = 25.0
"""Largest burst of Events of one Tenant: every condition may fail and recover twice."""
_EVENT_EVERY = 60.0
"""Seconds until one more Event of a Tenant is allowed."""

EDITORS = "editors"
"""Member of the metadata that `notice` keeps in place of managedFields."""
_EDITORS_MAX = 8

_log = structlog.get_logger(__name__)

Body = Mapping[str, Any]


class Provisioning(Protocol):
    """The used part of `decklog.services.tenancy.provisioning.Provisioner`. No method raises for a broken backend."""

    async def reconcile(self, manifest: Manifest, vault: KeyVault | None, previous: Sequence[Condition] = ()) -> TenantStatus:
        """Give the tenant what its spec asks for. `previous` are the conditions of its last status."""
        ...

    async def remove(self, manifest: Manifest, vault: KeyVault | None = None, previous: Sequence[Condition] = ()) -> TenantStatus:
        """Carry out the deletion policy. The status is synced when nothing is left to do."""
        ...

    async def ensure_platform_tenant(self) -> TenantStatus:
        """Reconcile the platform's own tenant."""
        ...


class _Asked(msgspec.Struct, frozen=True):
    """Requests in a Tenant's annotations: rotate keys, reconcile now (each empty without a request), and pause."""

    rotate: str = ""
    reconcile: str = ""
    paused: bool = False


class _Tenant:
    """State of a Tenant between visits. It may be lost at any time."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.generation = 0
        self.asked = _Asked()
        self.keys: KeyStatus | None = None
        self.usage: Usage | None = None
        self.failures = 0
        self.events = _EVENTS_MAX
        self.events_at: datetime | None = None
        self.written: tuple[str, dict[str, Any]] | None = None
        """Resource version and status of the last write, until the watch has shown that write."""


class Reconciler:
    """Reconcile Tenants: one visit at a time for each Tenant, any number of Tenants at once."""

    def __init__(
        self,
        provisioning: Provisioning,
        cluster: Cluster,
        settings: OperatorSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._provisioning = provisioning
        self._cluster = cluster
        self._vault = SecretVault(cluster, settings.api_url)
        self._settings = settings
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}

    def notice(self, body: Body, *, gone: bool, listed: bool) -> bool:
        """Note a change and return whether it needs a visit now. `listed`: the object came from a list, not from the watch."""
        metadata = body["metadata"]
        if gone:
            self._tenants.pop(metadata["uid"], None)
            return False
        tenant = self._tenant(metadata["uid"])
        if tenant.written is not None and (listed or _reached(metadata["resourceVersion"], tenant.written[0])):
            tenant.written = None
        return bool(metadata["generation"] != tenant.generation or _asked(metadata) != tenant.asked)

    async def visit(self, body: Body) -> float:
        """Apply the spec of a Tenant, write its status and return the seconds until the next visit.

        Errors of a backend or a user become status. Only a fault of this program raises.
        """
        metadata = body["metadata"]
        tenant = self._tenant(metadata["uid"])
        async with tenant.lock:
            if metadata.get("deletionTimestamp") or FINALIZER not in metadata.get("finalizers", ()):
                return self._settings.resync_seconds  # it is being deleted, or could vanish without a release
            if (tenant.generation, tenant.asked) != (metadata["generation"], _asked(metadata)):
                tenant.generation, tenant.asked, tenant.failures = metadata["generation"], _asked(metadata), 0
            with (
                structlog.contextvars.bound_contextvars(tenant=metadata["name"], generation=metadata["generation"]),
                metrics.visiting("visit") as measured,
            ):
                measured.result = result = await self._pass(tenant, body)
        if result == "again":
            return self._retry_pause(tenant)
        tenant.failures = 0
        return self._resync_pause(tenant)

    async def keep_platform(self) -> None:
        """Reconcile the platform's own tenant until cancelled. It has no object, so the watch never shows it."""
        platform = _Tenant()
        while True:
            status = await self._provisioning.ensure_platform_tenant()
            if status.ready and status.synced:
                platform.failures, pause = 0, self._resync_pause(platform)
            else:
                pause = self._retry_pause(platform)
                _log.warning("platform tenant not ready", reason=status.condition(READY).message, again_after=pause)
            await asyncio.sleep(pause)

    def rotations_due(self) -> int:
        """Return the number of Tenants whose key rotation is overdue, as far as visits have seen."""
        now = self._clock()
        return sum(
            (keys.rotate_at is not None and keys.rotate_at <= now) or tenant.asked.rotate not in ("", keys.rotated)
            for tenant in tuple(self._tenants.values())  # a scrape runs on the thread of the probes
            if (keys := tenant.keys) is not None
        )

    async def release(self, body: Body) -> float | None:
        """Carry out the deletion. Return None when the Tenant may go, else the seconds until the next attempt."""
        metadata = body["metadata"]
        tenant = self._tenant(metadata["uid"])
        async with tenant.lock:
            with (
                structlog.contextvars.bound_contextvars(tenant=metadata["name"], generation=metadata["generation"]),
                metrics.visiting("removal") as measured,
            ):
                if _asked(metadata).paused:
                    measured.result = "refused"
                    await self._leave_alone(tenant, body, _last_status(tenant, body), deleted=True)
                    return self._held_pause()
                measured.result = result = await self._removal(tenant, body)
        if result == "done":
            return None
        return self._retry_pause(tenant) if result == "again" else self._held_pause()

    async def _leave_alone(self, tenant: _Tenant, body: Body, previous: dict[str, Any], *, deleted: bool = False) -> bool:
        """Report that the Tenant is paused. Return False when the status could not be written."""
        shown = statuses.paused(body["metadata"]["generation"], previous, self._clock(), deleted=deleted)
        return await self._tell(tenant, body, previous, shown)

    async def _pass(self, tenant: _Tenant, body: Body) -> str:
        """Run one visit and return its result: done when nothing is left to do and the status is written (see `metrics.Visit`)."""
        previous, done = _last_status(tenant, body), False
        if tenant.asked.paused:
            return "refused" if await self._leave_alone(tenant, body, previous) else "again"
        try:
            manifest = _manifest(body)
            async with asyncio.timeout(self._settings.pass_max_seconds):
                found = await self._provisioning.reconcile(manifest, self._vault, statuses.conditions(previous))
                shown, done = statuses.of(manifest, found, previous, tenant.usage), found.ready and found.synced
                if found.usage and (tenant.usage is None or statuses.usage_due(found.usage.at, tenant.usage.at)):
                    tenant.usage = found.usage
                tenant.keys = found.keys or tenant.keys
                if statuses.secret_namespace(shown) == manifest.spec.credentials.secret_namespace:
                    await self._leave_namespace(manifest, previous)
        except (TimeoutError, DecklogError) as error:
            shown = self._failed(body, error, previous)
        shown = statuses.handled(shown, tenant.asked.reconcile)
        if not await self._tell(tenant, body, previous, shown):
            return "again"
        return "done" if done else "refused" if statuses.refused(shown) else "again"

    async def _removal(self, tenant: _Tenant, body: Body) -> str:
        """Run one removal and return its result: done when the Tenant may go, refused when its spec protects it."""
        previous, result = _last_status(tenant, body), "again"
        try:
            manifest = _manifest(body)
            async with asyncio.timeout(self._settings.pass_max_seconds):
                found = await self._provisioning.remove(manifest, self._vault, statuses.conditions(previous))
                if found.synced:
                    await self._leave_namespace(manifest, previous)
                    await self._vault.forget(manifest, manifest.spec.credentials.secret_namespace)
            shown = statuses.of(manifest, found, previous, tenant.usage)
            if found.synced:
                if manifest.spec.deletion_policy is not DeletionPolicy.RETAIN:
                    await self._tell(tenant, body, previous, shown)  # the last status; its Events outlive the Tenant
                return "done"
            result = "refused" if deletion_refusal(manifest.spec) else "again"
        except (TimeoutError, DecklogError) as error:
            shown = self._failed(body, error, previous)
        return result if await self._tell(tenant, body, previous, shown) else "again"

    def _failed(self, body: Body, error: TimeoutError | DecklogError, previous: dict[str, Any]) -> dict[str, Any]:
        if isinstance(error, TimeoutError):
            seconds = self._settings.pass_max_seconds
            error = DecklogError(
                Code.STORAGE_UNAVAILABLE,
                f"The attempt took longer than {seconds:g} s and was cancelled. The operator retries it.",
            )
        return statuses.failed(body["metadata"]["generation"], error, previous, self._clock())

    async def _leave_namespace(self, manifest: Manifest, previous: dict[str, Any]) -> None:
        """After a change of `secretNamespace`, delete the Secret in the previous namespace."""
        before = statuses.secret_namespace(previous)
        if before is not None and before != manifest.spec.credentials.secret_namespace:
            await self._vault.forget(manifest, before)

    async def _tell(self, tenant: _Tenant, body: Body, previous: dict[str, Any], shown: dict[str, Any]) -> bool:
        """Write the status if it differs, and post Events about the changes. Return False when the status could not be written."""
        if shown == previous:
            return True
        name, uid = body["metadata"]["name"], body["metadata"]["uid"]
        try:
            tenant.written = (await self._cluster.apply_status(name, uid, shown), shown)
        except NotFoundError:
            return True  # deleted meanwhile, so there is no status to write
        except DecklogError as error:
            _log.warning("status not written", reason=error.code.value, detail=error.detail)
            return False
        bad = {condition.type: condition.message for condition in statuses.conditions(shown) if not condition.good}
        _log.info("status changed", ready=statuses.is_ready(shown), bad=bad)
        for event in statuses.events(shown, previous):
            await self._post(tenant, name, uid, event)
        return True

    async def _post(self, tenant: _Tenant, name: str, uid: str, event: statuses.Event) -> None:
        """Post an Event. Drop it when posting fails or the Tenant has too many: the status is the authoritative record."""
        now = self._clock()
        if tenant.events_at is not None:
            tenant.events = min(_EVENTS_MAX, tenant.events + (now - tenant.events_at).total_seconds() / _EVENT_EVERY)
        tenant.events_at = now
        if tenant.events < 1:
            _log.info("event not posted", reason=event.reason, detail="The Tenant exceeded its rate of Events.")
            return
        tenant.events -= 1
        try:
            await self._cluster.post_event(
                name=name, uid=uid, kind=event.kind, reason=event.reason, message=event.message, now=rfc3339_seconds(now)
            )
        except DecklogError as error:
            _log.warning("event not posted", reason=error.code.value, detail=error.detail)

    def _tenant(self, uid: str) -> _Tenant:
        return self._tenants.setdefault(uid, _Tenant())

    def _held_pause(self) -> float:
        return min(_HELD_LOOK, self._settings.retry_max_seconds)

    def _resync_pause(self, tenant: _Tenant) -> float:
        """Return the seconds to the next visit: the periodic check, or the next change of keys, spread over tenants."""
        resync, beat, now = (
            self._settings.resync_seconds,
            self._settings.resync_seconds / _BEATS,
            asyncio.get_running_loop().time(),
        )
        longest = now + resync * between(1 - _JITTER + 1 / _BEATS, 1 + _JITTER)
        pause, at = longest // beat * beat - now, tenant.keys.wake_at if tenant.keys else None
        if at is None:
            return pause
        spread = between(0, _JITTER) * resync
        return min(pause, max((at - self._clock()).total_seconds(), 0) + spread)

    def _retry_pause(self, tenant: _Tenant) -> float:
        tenant.failures += 1
        # The first visit counts as an attempt, so the first pause is already doubled.
        pause = backoff(tenant.failures + 1, first=_RETRY_FIRST, longest=self._settings.retry_max_seconds)
        return jittered(pause, _JITTER)


def editors(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the field managers that wrote the spec of a Tenant, with the time of each; `notice` keeps them as `EDITORS`.

    Kubernetes tells an operator no user: a field manager is the name that a client gave itself. The API server's audit log has users.
    """
    if EDITORS in metadata:
        return tuple(metadata[EDITORS])
    found = [
        f"field manager {str(entry.get('manager'))[:128]} ({str(entry.get('operation'))[:16]}, {str(entry.get('time'))[:32]})"
        for entry in metadata.get("managedFields") or ()
        if "f:spec" in (entry.get("fieldsV1") or {}) and not entry.get("subresource")
    ]
    return tuple(found[-_EDITORS_MAX:])


def _manifest(body: Body) -> Manifest:
    """Parse a Tenant. Raises `invalid-tenant`, as a stored object may be older than a rule of the definition."""
    metadata = body["metadata"]
    spec = parse_spec(body.get("spec"))
    return Manifest(
        check_name(metadata["name"]), metadata["uid"], metadata["generation"], spec, _asked(metadata).rotate, editors(metadata)
    )


def _asked(metadata: Mapping[str, Any]) -> _Asked:
    annotations = metadata.get("annotations") or {}
    return _Asked(str(annotations.get(ROTATE, "")), str(annotations.get(RECONCILE, "")), annotations.get(PAUSED) == "true")


def _reached(seen: str, written: str) -> bool:
    """Return whether the seen resource version is the written one or newer. Versions that are no numbers can only be equal."""
    return seen == written or (seen.isdecimal() and written.isdecimal() and int(seen) > int(written))


def _last_status(tenant: _Tenant, body: Body) -> dict[str, Any]:
    """Return the last written status, which the watch may not have shown yet."""
    return tenant.written[1] if tenant.written else dict(body.get("status") or {})
