"""What the HTTP edge needs of the service behind it; the factory's `Service` fulfils it by its shape.

Protocols stand here so that the edge can be run over anything that answers, and so that it cannot reach further.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

from decklog.domain.errors import DecklogError
from decklog.domain.identity.access import Principal, RequestContext, Role
from decklog.domain.log import Head, LogName, Position
from decklog.domain.records.append import Rate, Receipt
from decklog.domain.records.record import StoredRecord
from decklog.domain.store import Bucket, Readiness
from decklog.domain.tenancy.status import TenantListing
from decklog.domain.tenant import Tenant, TenantManifest
from decklog.services.identity.identity import Identity

Parameters = Sequence[tuple[str, str]]
"""Query parameters in the order sent."""


class BulkResult(Protocol):
    @property
    def items(self) -> Sequence[Receipt | DecklogError]: ...

    @property
    def rate(self) -> Rate | None: ...


class Ingest(Protocol):
    async def append(self, tenant: Tenant, raw: bytes, *, key: str | None = None) -> tuple[Receipt, Rate | None]: ...

    async def append_bulk(
        self, tenant: Tenant, raws: Sequence[bytes | msgspec.Raw], *, key: str | None = None, atomic: bool = False
    ) -> BulkResult: ...


class Page(Protocol):
    @property
    def items(self) -> Sequence[StoredRecord]: ...

    @property
    def next(self) -> str | None: ...

    @property
    def head(self) -> Head: ...

    @property
    def indexed_from(self) -> int: ...

    @property
    def indexed(self) -> int: ...

    @property
    def engine(self) -> str: ...


class Stats(Protocol):
    @property
    def by(self) -> Sequence[str]: ...

    @property
    def interval(self) -> str | None: ...

    @property
    def buckets(self) -> Sequence[Bucket]: ...

    @property
    def total(self) -> int: ...

    @property
    def head(self) -> Head: ...

    @property
    def indexed_from(self) -> int: ...

    @property
    def indexed(self) -> int: ...

    @property
    def engine(self) -> str: ...


class Export(Protocol):
    """A file in the making; iterating gives its bytes, and closing it early is allowed."""

    @property
    def content_type(self) -> str: ...

    @property
    def filename(self) -> str: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Reading(Protocol):
    async def list(
        self, principal: Principal, request: RequestContext, parameters: Parameters
    ) -> tuple[Tenant, LogName, Page]: ...

    async def get(
        self, principal: Principal, request: RequestContext, seq: int, parameters: Parameters
    ) -> tuple[Tenant, LogName, StoredRecord]: ...

    async def stats(self, principal: Principal, request: RequestContext, parameters: Parameters) -> Stats: ...

    async def export(self, principal: Principal, request: RequestContext, parameters: Parameters) -> Export: ...


class Event(Protocol):
    """A record of a stream, or a heartbeat where `record` is None."""

    @property
    def position(self) -> Position: ...

    @property
    def record(self) -> StoredRecord | None: ...


class Subscription(Protocol):
    """An open stream. It ends by raising what ended it, for instance `unauthenticated` after a revocation."""

    @property
    def tenant(self) -> Tenant: ...

    @property
    def log(self) -> LogName: ...

    @property
    def reached(self) -> Position:
        """Everything up to here that matches has been given."""
        ...

    @property
    def ended(self) -> asyncio.Event:
        """Set at the moment when it is decided that the stream ends."""
        ...

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def aclose(self) -> None: ...


class Streams(Protocol):
    async def open(
        self, principal: Principal, request: RequestContext, parameters: Parameters, after: str | None
    ) -> Subscription: ...


class Created(Protocol):
    """A tenant that is there, with the keys that were made for it now."""

    @property
    def listing(self) -> TenantListing: ...

    @property
    def new(self) -> bool: ...

    @property
    def keys(self) -> Mapping[Role, str]: ...


class Tenants(Protocol):
    async def list(self, principal: Principal, request: RequestContext) -> Sequence[TenantListing]: ...

    async def get(self, principal: Principal, request: RequestContext, name: str) -> TenantListing: ...

    async def create(self, principal: Principal, request: RequestContext, sent: TenantManifest) -> Created: ...


class ApiService(Protocol):
    """All that the edge calls. `readiness` names the backends."""

    @property
    def identity(self) -> Identity: ...

    @property
    def ingest(self) -> Ingest: ...

    @property
    def reading(self) -> Reading: ...

    @property
    def streams(self) -> Streams: ...

    @property
    def tenants(self) -> Tenants: ...

    @property
    def readiness(self) -> Mapping[str, Readiness]: ...
