"""Access records: every read, search, export and change is recorded before anything is returned.

An access record goes through the same group commit as any other, and an action that cannot be recorded does not happen.
The record of a query takes a token of `spec.quotas.queriesPerMinute`; without a token nothing is returned and nothing is
recorded, or refusals would fill the log. All other access records are exempt from quotas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, Principal, RequestContext, acting_tenant
from decklog.domain.log import LogName
from decklog.domain.records.append import Receipt
from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource, Source
from decklog.domain.records.recorder import storable
from decklog.domain.tenant import Tenant
from decklog.services.records.attempts import REFUSED

SEARCH = "log.search"
READ = "log.read"
STATS = "log.stats"
EXPORT_OPEN = "log.export.open"
EXPORT_CLOSE = "log.export.close"
STREAM_OPEN = "log.stream.open"
STREAM_CLOSE = "log.stream.close"
REJECTED_LIST = "rejected.list"
REJECTED_READ = "rejected.read"
REJECTED_REPLAY = "rejected.replay"
REJECTED_DELETE = "rejected.delete"
SEARCHES_READ = "searches.read"
SEARCHES_SAVE = "searches.save"
SEARCHES_DELETE = "searches.delete"
ASK = "ask.question"
CONVERSATIONS_READ = "conversations.read"
CONVERSATIONS_DELETE = "conversations.delete"
RETENTION_READ = "retention.read"
RETENTION_DROP = "retention.drop"
KEYS_LIST = "keys.list"
KEYS_CREATE = "keys.create"
KEYS_REVOKE = "keys.revoke"
SESSIONS_OPEN = "sessions.open"
SESSIONS_CLOSE = "sessions.close"
SESSIONS_END = "sessions.end"
SESSIONS_LIST = "sessions.list"
SESSIONS_LINK = "sessions.link"
VIEWER_MINT = "viewer-token.mint"
TENANTS_LIST = "tenants.list"
TENANTS_READ = "tenants.read"
TENANTS_CREATE_OPEN = "tenants.create.open"
TENANTS_CREATE_CLOSE = "tenants.create.close"
PROVISION = "tenant.provision"
REMOVE = "tenant.remove"
RECOVER = "database.recover"

ACTIONS = (
    SEARCH,
    READ,
    STATS,
    EXPORT_OPEN,
    EXPORT_CLOSE,
    STREAM_OPEN,
    STREAM_CLOSE,
    REJECTED_LIST,
    REJECTED_READ,
    REJECTED_REPLAY,
    REJECTED_DELETE,
    SEARCHES_READ,
    SEARCHES_SAVE,
    SEARCHES_DELETE,
    ASK,
    CONVERSATIONS_READ,
    CONVERSATIONS_DELETE,
    RETENTION_READ,
    RETENTION_DROP,
    KEYS_LIST,
    KEYS_CREATE,
    KEYS_REVOKE,
    SESSIONS_OPEN,
    SESSIONS_CLOSE,
    SESSIONS_END,
    SESSIONS_LIST,
    SESSIONS_LINK,
    VIEWER_MINT,
    TENANTS_LIST,
    TENANTS_READ,
    TENANTS_CREATE_OPEN,
    TENANTS_CREATE_CLOSE,
    PROVISION,
    REMOVE,
    RECOVER,
    REFUSED,
)
"""Every action that Decklog itself records."""

_QUERIES = frozenset(
    {
        SEARCH,
        READ,
        STATS,
        EXPORT_OPEN,
        STREAM_OPEN,
        REJECTED_LIST,
        REJECTED_READ,
        SEARCHES_READ,
        SEARCHES_SAVE,
        SEARCHES_DELETE,
        ASK,
        CONVERSATIONS_READ,
        CONVERSATIONS_DELETE,
        RETENTION_READ,
        KEYS_LIST,
        SESSIONS_OPEN,
        SESSIONS_END,
        SESSIONS_LIST,
        SESSIONS_LINK,
        VIEWER_MINT,
    }
)
_REFUSALS = frozenset({Code.RATE_LIMITED, Code.TENANT_SUSPENDED})
"""Errors that a query raises unchanged."""

_LATE_SECONDS = 10.0
"""Time that the end of the process waits for late access records."""

_log = structlog.get_logger("decklog.access_log")


class AppendsAccess(Protocol):
    """The part of `Ingest` that this module uses."""

    async def append_access(self, tenant: Tenant, record: RecordInput, *, query: bool = False) -> Receipt:
        """See `Ingest.append_access`."""
        ...

    def refuse_query(self, tenant: Tenant) -> None:
        """See `Ingest.refuse_query`."""
        ...


def _bounded(text: str | None, most: int) -> str | None:
    """Return a text of a request as a record may hold it: cut, without U+0000 and lone surrogates; None where it is empty."""
    return storable(text, most) if text else None


def _credential(principal: Principal) -> dict[str, Any]:
    """Return what an access record says of a credential beside its kind and subject."""
    found: dict[str, Any] = {"role": principal.role.value}
    if principal.issuer:
        found["issuer"] = principal.issuer
    if principal.scope is not None:
        found["viewer"] = {"token": principal.scope.token, "minted_by": principal.scope.key}
    return found


class AccessLog:
    """Writes access records into the tenant's access log, or into the platform's where a request belongs to no tenant."""

    def __init__(self, ingest: AppendsAccess, platform_tenant: Callable[[], Tenant]) -> None:
        self._ingest = ingest
        self._platform_tenant = platform_tenant
        self._late: set[asyncio.Task[None]] = set()

    def admit(self, principal: Principal, parameters: Sequence[tuple[str, str]]) -> Tenant:
        """Return the tenant whose records are requested: the principal's own, for the platform the reserved one and its access log.

        Raises `forbidden`, and `rate-limited` where the access record of the query would be refused, before its work is done.
        """
        if principal.tenant is None and Permission.READ_PLATFORM in principal.permissions:
            if [value for name, value in parameters if name == "log"] != [LogName.ACCESS.text]:
                raise DecklogError(
                    Code.FORBIDDEN, "A credential of the platform reads the platform's own access log only: set log=access."
                )
            tenant = self._platform_tenant()
        else:
            tenant = acting_tenant(principal, Permission.READ)
        self._ingest.refuse_query(tenant)
        return tenant

    def admit_viewer(self, principal: Principal) -> Tenant:
        """Return the tenant that a viewer token belongs to. Raises like `admit`."""
        return self._admitted(principal, Permission.VIEW)

    def admit_minting(self, principal: Principal) -> Tenant:
        """Return the tenant that viewer tokens are minted for. Raises like `admit`."""
        return self._admitted(principal, Permission.MINT)

    def _admitted(self, principal: Principal, permission: Permission) -> Tenant:
        tenant = acting_tenant(principal, permission)
        self._ingest.refuse_query(tenant)
        return tenant

    async def write(
        self,
        principal: Principal,
        request: RequestContext,
        action: str,
        *,
        resource: tuple[str, str | None],
        details: dict[str, Any],
        outcome: Outcome = Outcome.SUCCESS,
    ) -> None:
        """Write an access record and return once it is durable.

        Args:
            principal: Whose credential was verified.
            request: Where the request came from.
            action: One of `ACTIONS`.
            resource: Type and id of what was accessed.
            details: Become `metadata`, masked like those of any record.
            outcome: How the action ended.

        Raises:
            DecklogError: `access-log-unavailable`, also where it is unknown whether the record was stored; for a query
                also `rate-limited` and `tenant-suspended`.
        """
        resource_type, resource_id = resource
        record = RecordInput(
            action=action,
            actor=Actor(id=_bounded(principal.subject, 1_024) or "unknown", type=principal.kind),
            resource=Resource(type=resource_type, id=_bounded(resource_id, 1_024)),
            outcome=outcome,
            source=Source(ip=_bounded(request.ip, 256), user_agent=_bounded(request.user_agent, 2_048)),
            session_id=principal.session,
            correlation_id=_bounded(request.request_id, 1_024),
            metadata={**details, **_credential(principal)},
        )
        try:
            await self._ingest.append_access(principal.tenant or self._platform_tenant(), record, query=action in _QUERIES)
        except DecklogError as error:
            if action in _QUERIES and error.code in _REFUSALS:
                raise
            _log.warning("access record not written", action=action, request_id=request.request_id, code=error.code.value)
            raise DecklogError(
                Code.ACCESS_LOG_UNAVAILABLE,
                "The access log cannot be written, so nothing is given. Try again.",
                retry_after=error.retry_after or 1,
            ) from error

    async def write_late(
        self,
        principal: Principal,
        request: RequestContext,
        action: str,
        *,
        resource: tuple[str, str | None],
        details: dict[str, Any],
        outcome: Outcome,
    ) -> None:
        """Write the access record of the end of a reading. Unlike with `write`, a failure is only logged.

        The record is written even if the caller is cancelled, as it is when its client has disconnected.
        """

        async def write() -> None:
            try:
                await self.write(principal, request, action, resource=resource, details=details, outcome=outcome)
            except DecklogError:
                given = details.get("records")
                _log.error("the end of a reading is not recorded", action=action, request_id=request.request_id, records=given)

        task = asyncio.create_task(write(), name=f"access record {action}")
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        await asyncio.shield(task)

    async def stop(self) -> None:
        """Wait for late records, for a bounded time. Must be called before ingest is stopped."""
        if self._late:
            await asyncio.wait(self._late, timeout=_LATE_SECONDS)
