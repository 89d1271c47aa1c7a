"""Open the backends of a process, each from its own settings: search, queue, archive, traces and the embedded database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from decklog.domain.archive.manifest import ArchiveObjects, DecodePart, EncodePart
from decklog.domain.errors import Code, DecklogError
from decklog.domain.index_generation import Ranges
from decklog.domain.records.record import StoredRecord
from decklog.domain.store import Readiness, SearchIndex, WakeQueue
from decklog.files.archive import FolderObjects
from decklog.services.archive.archiver import Archiver
from decklog.services.identity.registry import RegistryCache
from decklog.settings import Archive, Settings
from decklog.timescale.connection import SERVICE_ROLE, Pool
from decklog.timescale.control.registry import PostgresRegistry, RegistryNotices
from decklog.timescale.records.append import Appender
from decklog.timescale.records.archive import PostgresArchives
from decklog.timescale.records.cursors import PostgresCursors
from decklog.timescale.records.records import PostgresRecords
from decklog.tracing_settings import Tracing

if TYPE_CHECKING:
    from decklog.otel.traces import OtelTraces


REGISTRY_CONNECTIONS, UPKEEP_CONNECTIONS = 2, 2
"""Connections of a process, beside those of `DECKLOG_DATABASE_POOL_MAX`, that no work of a tenant can occupy."""


class Database(NamedTuple):
    """The connections of a process to PostgreSQL, by what may occupy them, and the registry over its own.

    `reads` serves the readings of tenants. `upkeep` serves readiness, announcements, cursors of a worker and partitions: a
    process must know how it is, and do its duties, however many readings wait. `registering` serves the registry and sessions: who asks is
    known however many readings wait. `cache` is not `started` yet.
    """

    reads: Pool
    upkeep: Pool
    registering: Pool
    registry: PostgresRegistry
    cache: RegistryCache


def require(value: str, variable: str) -> None:
    """Raise `misconfigured` if the value of this variable is empty."""
    if not value:
        raise DecklogError(Code.MISCONFIGURED, f"{variable} is not set.")


@asynccontextmanager
async def open_pool(dsn: str, *, size_max: int, role: str | None = SERVICE_ROLE) -> AsyncIterator[Pool]:
    """Open a pool of connections to PostgreSQL that connects on first use.

    Opening it checks that the session has the rights of `role` and no more; None for the owner's connections.
    """
    pool = Pool(dsn, size_max=size_max, role=role)
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def open_database(settings: Settings, role: str = SERVICE_ROLE) -> AsyncIterator[Database]:
    """Open the connections of this least role, and the registry.

    Raises:
        DecklogError: `misconfigured`, or `storage-unavailable` where the database cannot be reached.
    """
    dsn = settings.database.dsn
    require(dsn, "DECKLOG_DATABASE_DSN")
    async with AsyncExitStack() as stack:
        sizes = (settings.database.pool_max, UPKEEP_CONNECTIONS, REGISTRY_CONNECTIONS)
        reads, upkeep, registering = [await stack.enter_async_context(open_pool(dsn, size_max=size, role=role)) for size in sizes]
        await upkeep.open()
        registry = PostgresRegistry(registering)
        yield Database(reads, upkeep, registering, registry, RegistryCache(registry, notices=RegistryNotices(dsn)))


@asynccontextmanager
async def started(registry: RegistryCache) -> AsyncIterator[None]:
    """Keep the cache fresh within the block. Start it last: it expires after two seconds."""
    await registry.start()
    try:
        yield
    finally:
        await registry.stop()


@asynccontextmanager
async def open_store(settings: Settings, pool: Pool) -> AsyncIterator[PostgresRecords]:
    """Open the store of records. Its writing connection is made by the first append."""
    appender = Appender(settings.database.dsn)
    try:
        yield PostgresRecords(appender, pool)
    finally:
        await appender.close()


class SearchBackend(NamedTuple):
    """The search index, its readiness check, and the indices of its ranges, over one connection pool."""

    search: SearchIndex
    readiness: Readiness
    ranges: Ranges


@asynccontextmanager
async def open_index(settings: Settings) -> AsyncIterator[SearchBackend | None]:
    """Open the search index; None where no search is configured."""
    if not settings.search.url:
        yield None
        return
    from decklog.opensearch import client, ranges, search  # noqa: PLC0415 - an optional extra

    connection = client.connect(settings.search)
    try:
        yield SearchBackend(
            search.OpenSearchIndex(connection),
            client.SearchReadiness(connection),
            ranges.OpenSearchRanges(connection, replicas=settings.search.replicas),
        )
    finally:
        await connection.close()


@asynccontextmanager
async def open_queue(settings: Settings) -> AsyncIterator[WakeQueue | None]:
    """Open the queue of wake-ups; None where it is not enabled."""
    if not settings.queue.enabled:
        yield None
        return
    from decklog.sqs.queue import SqsWakeQueue  # noqa: PLC0415 - an optional extra

    # The SDK reads its description of the service from disk, which would block the event loop for about a second.
    queue = await asyncio.to_thread(SqsWakeQueue, settings.queue, polls=settings.worker.pollers)
    try:
        yield queue
    finally:
        await queue.close()


def can_archive() -> bool:
    """Return whether the library that writes archives is installed."""
    return find_spec("pyarrow") is not None


def _require_archive() -> None:
    if not can_archive():
        raise DecklogError(
            Code.MISCONFIGURED,
            "An archive needs pyarrow, which is not installed. Install decklog with its extra: decklog[archive].",
        )


@asynccontextmanager
async def open_archiver(archive: Archive, pool: Pool, cursors: PostgresCursors) -> AsyncIterator[Archiver | None]:
    """Open the archiver over a bucket or a folder; None where neither is configured. Raises `misconfigured`."""
    if not (archive.bucket or archive.folder):
        yield None
        return
    if archive.bucket and archive.folder:
        raise DecklogError(Code.MISCONFIGURED, "Set either DECKLOG_ARCHIVE_BUCKET or DECKLOG_ARCHIVE_FOLDER, not both.")
    _require_archive()
    async with _open_objects(archive, archive.bucket, archive.prefix if archive.bucket else archive.folder) as objects:
        yield Archiver(PostgresArchives(pool), cursors, objects, _encode_part, _decode_part)


@asynccontextmanager
async def open_archive(settings: Settings, place: str) -> AsyncIterator[tuple[ArchiveObjects, str, DecodePart]]:
    """Open the archive that holds the manifest at `place`, which is `s3://bucket/…` or a path.

    Yields the objects of the archive, the manifest's name among them, and the function that decodes a part.

    Raises:
        DecklogError: `misconfigured`, where `place` cannot name a manifest or pyarrow is not installed.
    """
    _require_archive()
    bucket, root, name = _manifest_at(place)
    async with _open_objects(settings.archive, bucket, root) as objects:
        yield objects, name, _decode_part


@asynccontextmanager
async def _open_objects(archive: Archive, bucket: str, root: str) -> AsyncIterator[ArchiveObjects]:
    """Open the objects below `root` in a bucket, or in a folder of this machine where `bucket` is empty."""
    if not bucket:
        yield _folder(root)
        return
    from decklog.s3.objects import S3Objects  # noqa: PLC0415 - an optional extra

    objects = S3Objects(archive, bucket=bucket, prefix=root)
    try:
        yield objects
    finally:
        await objects.close()


def _folder(root: str) -> FolderObjects:
    return FolderObjects(Path(root).absolute())


def _parquet() -> tuple[EncodePart, DecodePart]:
    """Return what writes and reads the parts of an archive. It is loaded with the first part: it takes more memory than a worker."""
    from decklog.parquet.part import decode, encode  # noqa: PLC0415 - an optional extra

    return encode, decode


def _encode_part(about: dict[str, str], records: Sequence[StoredRecord]) -> bytes:
    return _parquet()[0](about, records)


def _decode_part(content: bytes) -> Iterable[StoredRecord]:
    return _parquet()[1](content)


def _manifest_at(place: str) -> tuple[str, str, str]:
    """Return the bucket (empty for a folder), the root of the archive, and the manifest's name, which is two folders below it."""
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
async def open_traces(tracing: Tracing, program: str) -> AsyncIterator[OtelTraces | None]:
    """Open the exporter of traces under the name of this program; None, without loading OpenTelemetry, where no endpoint is set.

    On exit, waiting spans are sent for a bounded time. Raises `misconfigured`.
    """
    if not tracing.endpoint:
        yield None
        return
    try:
        from decklog.otel.traces import OtelTraces  # noqa: PLC0415 - an optional extra
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
