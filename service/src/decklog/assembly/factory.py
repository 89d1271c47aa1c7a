"""Joins services and adapters: the only module that knows every concrete class, and knows neither the API nor workers.

What is heavy and not configured is never imported: without OpenSearch and SQS neither of their clients is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from decklog.domain.archive.manifest import ArchiveObjects, DecodePart
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.record import StoredRecord
from decklog.domain.store import Announcements, Readiness, RecordStore, SearchIndex, WakeQueue
from decklog.domain.tenant import PLATFORM_TENANT, Tenant
from decklog.services.following.wake import Waker
from decklog.services.identity.registry import RegistryCache
from decklog.services.records.access_log import AccessLog
from decklog.services.records.ingest import CommitTraces, Ingest
from decklog.services.records.reading import Reading
from decklog.services.records.streaming import Limits, Streams
from decklog.services.search.search import Search
from decklog.services.tenancy.provisioning import IndexProvisioning, KeyVault, Provisioner, TenantDirectory
from decklog.services.tenancy.tenants import Tenants
from decklog.settings import Archive, Settings, Tracing
from decklog.timescale.connection import Pool, answering
from decklog.timescale.control.provision import CONNECTIONS_MAX, PostgresProvisioning
from decklog.timescale.control.registry import PostgresRegistry
from decklog.timescale.control.schema import make_roles
from decklog.timescale.control.schema import migrate as migrate_cell
from decklog.timescale.control.tables import contract_control, migrate_control
from decklog.timescale.records.announcements import PostgresAnnouncements
from decklog.timescale.records.append import Appender
from decklog.timescale.records.cursors import PostgresCursors
from decklog.timescale.records.keeper import PostgresKeeper, PostgresReadiness
from decklog.timescale.records.records import PostgresRecords

if TYPE_CHECKING:
    from decklog.api.services import ApiServices
    from decklog.otel.traces import OtelTraces
    from decklog.services.archive.archiver import Archiver
    from decklog.services.tenancy.recovery import Recovered


@dataclass(frozen=True)
class Service:
    """One process's share of Decklog's data plane: what the API and the workers are made of."""

    api: ApiServices
    registry: RegistryCache
    store: RecordStore
    cursors: PostgresCursors
    announcements: Announcements
    keeper: PostgresKeeper
    search_index: SearchIndex | None
    queue: WakeQueue | None
    archiver: Archiver | None


class _Announcing:
    """Announces to other processes and wakes the workers; hears what the other processes announce."""

    def __init__(self, inner: PostgresAnnouncements, registry: RegistryCache, waker: Waker | None) -> None:
        self._inner = inner
        self._registry = registry
        self._waker = waker

    def announce(self, tenant_id: int, log: LogName, next_seq: int) -> None:
        self._inner.announce(tenant_id, log, next_seq)
        if self._waker is None:
            return
        try:
            tenant = self._registry.snapshot.tenants.get(tenant_id)
        except DecklogError:
            return  # the registry cannot be read just now; the sweeper finds what nobody was told of
        if tenant is not None:
            self._waker.wake(tenant, log, next_seq)

    def subscribe(self, heard: Callable[[int, LogName, int], None]) -> Callable[[], None]:
        return self._inner.subscribe(heard)


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    provisioner: Provisioner | None = None,
    vault: KeyVault | None = None,
    traces: CommitTraces | None = None,
) -> AsyncIterator[Service]:
    """Everything opened and running; closed in the opposite order, with what waits committed.

    `provisioner` and `vault` are for the API where Decklog owns its tenants; nothing else uses them.
    Raises `misconfigured`, and `storage-unavailable` where the database cannot be reached.
    """
    # What verifies tokens is heavy, and the operator has no use for it.
    from decklog.api.services import ApiServices  # noqa: PLC0415
    from decklog.outbound.jwks import fetch  # noqa: PLC0415
    from decklog.services.identity.identity import Identity  # noqa: PLC0415
    from decklog.services.identity.issuers import load_issuers  # noqa: PLC0415

    _require(settings.database.dsn, "DECKLOG_DATABASE_DSN")
    async with AsyncExitStack() as stack:
        pool = Pool(settings.database.dsn, size_max=settings.database.pool_max)
        stack.push_async_callback(pool.close)
        await pool.open()
        readiness: dict[str, Readiness] = {"database": PostgresReadiness(pool)}
        postgres_registry = PostgresRegistry(pool)
        registry = RegistryCache(postgres_registry)
        index = await _open_search(settings, stack, readiness)
        queue = await _open_queue(settings, stack)
        appender = Appender(settings.database.dsn)
        stack.push_async_callback(appender.close)
        store, cursors = PostgresRecords(appender, pool), PostgresCursors(pool)
        announcements = await _open_announcements(settings, stack, pool, registry, queue)
        identity = Identity(registry, load_issuers(settings.identity.issuers_file, fetch=fetch))
        ingest = Ingest(
            store,
            announcements,
            fingerprint_key=settings.identity.fingerprint_key.encode(),
            waiting_requests_max=settings.api.waiting_requests_max,
            waiting_bytes_max=settings.api.waiting_bytes_max,
            traces=traces,
        )
        await ingest.start()
        stack.push_async_callback(ingest.stop)
        access_log = AccessLog(ingest, lambda: _platform_tenant(registry))
        stack.push_async_callback(access_log.stop)
        search = Search(store, index=index, cursors=cursors if index is not None else None, timeout=settings.api.search_timeout)
        streams = Streams(
            store,
            announcements,
            access_log,
            still_valid=identity.still_valid,
            tenant_now=lambda tenant_id: registry.snapshot.tenants.get(tenant_id),  # noqa: PLW0108 - the snapshot changes
            limits=Limits(streams_max=settings.api.streams_max),
        )
        # Last, as it is only good for two seconds and the opening of the others may take longer.
        await registry.start()
        stack.push_async_callback(registry.stop)
        await streams.start()
        stack.push_async_callback(streams.stop)
        yield Service(
            api=ApiServices(
                identity=identity,
                ingest=ingest,
                reading=Reading(search, store, access_log, still_valid=identity.still_valid),
                streams=streams,
                tenants=Tenants(postgres_registry, access_log, provisioner=provisioner, vault=vault),
                readiness=readiness,
            ),
            registry=registry,
            store=store,
            cursors=cursors,
            announcements=announcements,
            keeper=PostgresKeeper(pool),
            search_index=index,
            queue=queue,
            archiver=_open_archiver(settings.archive, stack, pool, cursors),
        )


@asynccontextmanager
async def open_traces(tracing: Tracing, program: str) -> AsyncIterator[OtelTraces | None]:
    """What sends traces under the name of this program, or None where no endpoint is set: then nothing of OpenTelemetry is
    loaded. In the end what waits is sent, for a bounded time. Raises `misconfigured`."""
    if not tracing.endpoint:
        yield None
        return
    try:
        from decklog.otel.traces import OtelTraces  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DecklogError(
            Code.MISCONFIGURED,
            f"Traces need {error.name}, which is not installed. Install decklog with its extra: decklog[tracing].",
        ) from None
    traces = OtelTraces(program, queue_spans_max=tracing.queue_spans_max)
    try:
        yield traces
    finally:
        await traces.stop()


async def _open_announcements(
    settings: Settings, stack: AsyncExitStack, pool: Pool, registry: RegistryCache, queue: WakeQueue | None
) -> _Announcing:
    news = PostgresAnnouncements(settings.database.dsn, pool)
    await news.start()
    stack.push_async_callback(news.stop)
    waker = Waker(queue) if queue is not None else None
    if waker is not None:
        stack.push_async_callback(waker.stop)
    return _Announcing(news, registry, waker)


async def _open_search(settings: Settings, stack: AsyncExitStack, readiness: dict[str, Readiness]) -> SearchIndex | None:
    if not settings.search.url:
        return None
    from decklog.opensearch.client import SearchReadiness, connect  # noqa: PLC0415
    from decklog.opensearch.search import OpenSearchIndex  # noqa: PLC0415

    client = connect(settings.search)
    stack.push_async_callback(client.close)
    readiness["search"] = SearchReadiness(client)
    return OpenSearchIndex(client)


async def _open_queue(settings: Settings, stack: AsyncExitStack) -> WakeQueue | None:
    if not settings.queue.enabled:
        return None
    from decklog.sqs.queue import SqsWakeQueue  # noqa: PLC0415

    # The SDK reads its descriptions of all services, which takes long enough to be noticed.
    queue = await asyncio.to_thread(SqsWakeQueue, settings.queue, polls=settings.worker.pollers)
    stack.push_async_callback(queue.close)
    return queue


def can_archive() -> bool:
    """Whether what writes the archive is installed."""
    return find_spec("pyarrow") is not None


def _require_archive() -> None:
    if not can_archive():
        raise DecklogError(
            Code.MISCONFIGURED,
            "An archive needs pyarrow, which is not installed. Install decklog with its extra: decklog[archive].",
        )


def _open_archiver(archive: Archive, stack: AsyncExitStack, pool: Pool, cursors: PostgresCursors) -> Archiver | None:
    if not (archive.bucket or archive.folder):
        return None
    _require_archive()
    from decklog.services.archive.archiver import Archiver  # noqa: PLC0415
    from decklog.timescale.records.archive import PostgresArchives  # noqa: PLC0415

    if archive.bucket and archive.folder:
        raise DecklogError(Code.MISCONFIGURED, "Set either DECKLOG_ARCHIVE_BUCKET or DECKLOG_ARCHIVE_FOLDER, not both.")
    objects = _bucket(archive, stack, archive.bucket, archive.prefix) if archive.bucket else _folder(Path(archive.folder))
    return Archiver(PostgresArchives(pool), cursors, objects, _encode_part, _decode_part)


def _bucket(archive: Archive, stack: AsyncExitStack, bucket: str, prefix: str) -> ArchiveObjects:
    from decklog.s3.objects import S3Objects  # noqa: PLC0415

    objects = S3Objects(archive, bucket=bucket, prefix=prefix)
    stack.push_async_callback(objects.close)
    return objects


def _folder(folder: Path) -> ArchiveObjects:
    from decklog.files.archive import FolderObjects  # noqa: PLC0415

    return FolderObjects(folder.absolute())


def _encode_part(about: dict[str, str], records: Sequence[StoredRecord]) -> bytes:
    # Loaded with the first part: it takes more memory than all the rest.
    from decklog.parquet.part import encode  # noqa: PLC0415

    return encode(about, records)


def _decode_part(content: bytes) -> Iterator[StoredRecord]:
    from decklog.parquet.part import decode  # noqa: PLC0415

    return decode(content)


def _manifest_at(place: str) -> tuple[str, str, str]:
    """Bucket (empty for a folder), where the archive begins, and the manifest's name in it: it is two folders below. Raises
    `misconfigured`."""
    address = urlsplit(place)
    path = address.path.strip("/") if address.scheme == "s3" else str(Path(place).absolute())
    parts = path.split("/")
    if address.scheme not in ("", "s3") or (address.scheme == "s3") is not bool(address.netloc) or len(parts) < 3:
        raise DecklogError(
            Code.MISCONFIGURED,
            f"{place!r} is not the place of a manifest: s3://bucket/…/<tenant>/<uid>/manifest-….json, or a path.",
        )
    return address.netloc, "/".join(parts[:-3]), "/".join(parts[-3:])


@asynccontextmanager
async def open_archive(settings: Settings, place: str) -> AsyncIterator[tuple[ArchiveObjects, str, DecodePart]]:
    """Where the manifest at this place (`s3://bucket/…`, or a path) and its files are, its name there, and what reads the files.

    Raises `misconfigured`.
    """
    _require_archive()
    bucket, root, name = _manifest_at(place)
    async with AsyncExitStack() as stack:
        yield _bucket(settings.archive, stack, bucket, root) if bucket else _folder(Path(root)), name, _decode_part


def _platform_tenant(registry: RegistryCache) -> Tenant:
    tenant = registry.tenant(PLATFORM_TENANT)
    if tenant is None:
        raise DecklogError(
            Code.STORAGE_UNAVAILABLE, "The platform's own tenant is not there yet; provisioning makes it first.", retry_after=5
        )
    return tenant


def _require(value: str, variable: str) -> None:
    if not value:
        raise DecklogError(Code.MISCONFIGURED, f"{variable} is not set.")


async def migrate(settings: Settings, *, with_roles: bool = False, wait: float = 0.0, post: bool = False) -> None:
    """Bring the database to this version's definitions; may run again, and beside running processes of the version before.

    `with_roles` makes the roles first, as the superuser of `database.admin_dsn`; `post` also takes away what only older versions
    used, once none of them is connected any more; `wait` is how many seconds the database has to answer, and those to go.
    Raises `misconfigured`, `storage-unavailable`, `conflict` where older processes are still connected, and what the database refuses.
    """
    _require(settings.database.owner_dsn, "DECKLOG_DATABASE_OWNER_DSN")
    if with_roles:
        for value, name in (
            (settings.database.admin_dsn, "ADMIN_DSN"),
            (settings.database.service_password, "SERVICE_PASSWORD"),
            (settings.database.owner_password, "OWNER_PASSWORD"),
        ):
            _require(value, f"DECKLOG_DATABASE_{name}")
    await answering(settings.database.admin_dsn if with_roles else settings.database.owner_dsn, within=wait)
    if with_roles:
        await make_roles(
            settings.database.admin_dsn,
            service_password=settings.database.service_password,
            owner_password=settings.database.owner_password,
        )
    await migrate_cell(settings.database.owner_dsn)
    await migrate_control(settings.database.owner_dsn)
    if post:
        await contract_control(settings.database.owner_dsn, wait=wait)


@asynccontextmanager
async def _search_provisioning(settings: Settings) -> AsyncIterator[IndexProvisioning | None]:
    """None where no search is configured."""
    if not settings.search.url:
        yield None
        return
    from decklog.opensearch.client import connect  # noqa: PLC0415
    from decklog.opensearch.provision import OpenSearchProvisioning  # noqa: PLC0415

    client = connect(settings.search)
    try:
        yield OpenSearchProvisioning(client, replicas=settings.search.replicas)
    finally:
        await client.close()


async def recover_database(settings: Settings) -> Recovered:
    """See `decklog.services.tenancy.recovery`. Raises `misconfigured`, and `storage-unavailable` where the database cannot be reached."""
    from decklog.services.tenancy import recovery  # noqa: PLC0415 - for one command

    _require(settings.database.owner_dsn, "DECKLOG_DATABASE_OWNER_DSN")
    async with AsyncExitStack() as stack:
        pool = Pool(settings.database.owner_dsn, size_max=2, role_check=False)
        stack.push_async_callback(pool.close)
        search = await stack.enter_async_context(_search_provisioning(settings))
        return await recovery.recover_database(PostgresProvisioning(pool), search, PostgresRegistry(pool))


@asynccontextmanager
async def open_provisioner(settings: Settings) -> AsyncIterator[Provisioner]:
    """The brain of the control plane, as the role that owns the relations. Migrates nothing.

    Raises `misconfigured`, and `storage-unavailable` where the database cannot be reached.
    """
    _require(settings.database.owner_dsn, "DECKLOG_DATABASE_OWNER_DSN")
    async with AsyncExitStack() as stack:
        pool = Pool(settings.database.owner_dsn, size_max=CONNECTIONS_MAX, role_check=False)
        stack.push_async_callback(pool.close)
        search = await stack.enter_async_context(_search_provisioning(settings))
        queue = None
        if settings.queue.enabled:
            from decklog.sqs.provision import SqsProvisioning  # noqa: PLC0415
            from decklog.sqs.queue import connect as connect_queue  # noqa: PLC0415

            queue = SqsProvisioning(connect_queue(settings.queue))
        yield Provisioner(
            PostgresProvisioning(pool),
            search,
            queue,
            directory=PostgresRegistry(pool),
            prefix=settings.prefix,
            cell=settings.cell,
        )


@asynccontextmanager
async def open_owner(settings: Settings) -> AsyncIterator[Provisioner | None]:
    """What makes tenants for the API, with the reserved one there already, or None where Kubernetes owns the tenants: then
    the process has no more rights than the service's role.

    Raises `misconfigured`.
    """
    if settings.tenants.owner != "decklog":
        yield None
        return
    if not settings.database.owner_dsn:
        raise DecklogError(
            Code.MISCONFIGURED, "DECKLOG_TENANTS_OWNER is decklog, so the API makes tenants: set DECKLOG_DATABASE_OWNER_DSN."
        )
    async with open_provisioner(settings) as provisioner:
        await provisioner.ensure_platform_tenant()
        yield provisioner


@asynccontextmanager
async def open_directory(settings: Settings) -> AsyncIterator[TenantDirectory]:
    """Who exists, read with the least role that is given. Raises `misconfigured`."""
    dsn = settings.database.dsn or settings.database.owner_dsn
    if not dsn:
        raise DecklogError(Code.MISCONFIGURED, "Neither DECKLOG_DATABASE_DSN nor DECKLOG_DATABASE_OWNER_DSN is set.")
    pool = Pool(dsn, size_max=1, role_check=False)
    try:
        yield PostgresRegistry(pool)
    finally:
        await pool.close()


@asynccontextmanager
async def embedded_database(folder: Path, *, password: str) -> AsyncIterator[str]:
    """A PostgreSQL of our own over a folder, as `host:port`; see `decklog.timescale.embedded`."""
    from decklog.timescale.embedded import running  # noqa: PLC0415

    async with running(folder, password=password) as address:
        yield address
