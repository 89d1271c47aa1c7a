"""Rule 8, in its one place: who read, searched, exported or changed something, written before anything is given.

An access record goes through the same group commit as any other, and what cannot be recorded does not happen. The record
of a query takes a token of `spec.quotas.queriesPerMinute` as it is written; without one nothing is given and nothing is
recorded, or refusals would fill the log. All other records are exempt from quotas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission, Principal, RequestContext, acting_tenant
from decklog.domain.privacy.masking import MASK, is_secret_name
from decklog.domain.records.append import Receipt
from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource, Source
from decklog.domain.search.query import Query, describe
from decklog.domain.tenant import Tenant

SEARCH = "log.search"
READ = "log.read"
STATS = "log.stats"
EXPORT_OPEN = "log.export.open"
EXPORT_CLOSE = "log.export.close"
STREAM_OPEN = "log.stream.open"
STREAM_CLOSE = "log.stream.close"
TENANTS_LIST = "tenants.list"
TENANTS_READ = "tenants.read"
TENANTS_CREATE_OPEN = "tenants.create.open"
TENANTS_CREATE_CLOSE = "tenants.create.close"

ACTIONS = (
    SEARCH,
    READ,
    STATS,
    EXPORT_OPEN,
    EXPORT_CLOSE,
    STREAM_OPEN,
    STREAM_CLOSE,
    TENANTS_LIST,
    TENANTS_READ,
    TENANTS_CREATE_OPEN,
    TENANTS_CREATE_CLOSE,
)
"""Every action that Decklog itself records."""

_QUERIES = frozenset({SEARCH, READ, STATS, EXPORT_OPEN, STREAM_OPEN})
_REFUSALS = frozenset({Code.RATE_LIMITED, Code.TENANT_SUSPENDED})
"""What a query is refused with for itself."""

_LATE_SECONDS = 10.0
"""How long the end of the process waits for records of what was abandoned."""

_log = structlog.get_logger("decklog.access_log")


class AppendsAccess(Protocol):
    """What ingest does for this module."""

    async def append_access(self, tenant: Tenant, record: RecordInput, *, query: bool = False) -> Receipt: ...

    def refuse_query(self, tenant: Tenant) -> None: ...


def filters(query: Query) -> dict[str, object]:
    """The filters of a search for its access record. What was looked for under the name of a secret is masked."""
    described = describe(query)
    if query.fields:
        described["fields"] = [
            {"path": path, "value": MASK if any(map(is_secret_name, path.split("."))) else value} for path, value in query.fields
        ]
    return described


def _bounded(text: str | None, most: int) -> str | None:
    """A text of a request as a record can carry it: cut, without U+0000 and lone surrogates; None where it is empty."""
    if not text:
        return None
    return text[:most].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


class AccessLog:
    """Writes access records: into the tenant's own access log, or the platform's where a request belongs to no tenant."""

    def __init__(self, ingest: AppendsAccess, platform_tenant: Callable[[], Tenant]) -> None:
        self._ingest = ingest
        self._platform_tenant = platform_tenant
        self._late: set[asyncio.Task[None]] = set()

    def admit(self, principal: Principal) -> Tenant:
        """The tenant whose records are asked for. Refuses a query before its work is done, where its record would surely be
        refused. Raises `forbidden` and `rate-limited`."""
        tenant = acting_tenant(principal, Permission.READ)
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
        """Returns once the record is durable. Raises `access-log-unavailable`; also where its fate is not known. That of a
        query raises `rate-limited` and `tenant-suspended` too.

        `resource` is (type, id); `details` become `metadata`, masked like any other.
        """
        resource_type, resource_id = resource
        record = RecordInput(
            action=action,
            actor=Actor(id=_bounded(principal.subject, 1_024) or "unknown", type=principal.kind),
            resource=Resource(type=resource_type, id=_bounded(resource_id, 1_024)),
            outcome=outcome,
            source=Source(ip=_bounded(request.ip, 256), user_agent=_bounded(request.user_agent, 2_048)),
            correlation_id=_bounded(request.request_id, 1_024),
            metadata={**details, "role": principal.role.value, **({"issuer": principal.issuer} if principal.issuer else {})},
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
        """For the end of something that was given already: as `write`, but a failure is only logged.

        The record is written even where the caller is cancelled meanwhile, as it is when its client has gone.
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
        """Wait for records that are still being written, for a bounded time; call it before ingest is stopped."""
        if self._late:
            await asyncio.wait(self._late, timeout=_LATE_SECONDS)
