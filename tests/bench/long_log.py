"""A log of a year: very many records over 370 daily partitions and the ranges of a search index, loaded by SQL and by bulks.

The records and documents equal what the service would store and index; samples are compared. The tenant began with 92 days, whose
partitions are days, and was kept for longer later.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import asyncpg
import msgspec

from decklog.assembly import control_plane
from decklog.domain.consumers import indexer_of
from decklog.domain.identity.access import Role
from decklog.domain.index_generation import IndexGeneration
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.spec import TenantSpec, parse_spec
from decklog.domain.tenancy.status import TenantStatus
from decklog.domain.tenant import Isolation, State, Tenant
from decklog.opensearch.client import connect
from decklog.opensearch.mapping import write_alias
from decklog.opensearch.search import OpenSearchIndex
from decklog.settings import Database, Identity, Search, Settings
from tests.backends import OpenSearchServer, PostgresServer
from tests.bench.processes import apart
from tests.bench.replay import MARK_ID, MARK_ROUND, MARK_TIME, Replay
from tests.bench.replay_documents import Job, Range, Sent
from tests.bench.stand import Customer, Stand, stand
from tests.support.vaults import MemoryVault

DAYS = 370
"""Daily partitions with records, and days that the tenant is kept."""
KEPT_VARIABLE = "DECKLOG_TEST_BENCH_KEPT"
"""Names a file that describes a loaded log. A run that finds it uses that log; another run writes it and keeps its database."""
_FIRST_DAYS = 92
"""Most days of retention whose partitions are single days."""
_LOADERS = 2
"""Connections, and processes, that load at once."""
_SAMPLE = 40
_DAY = timedelta(days=1)


class Kept(msgspec.Struct):
    """What a run needs in order to use a log that an earlier run has loaded."""

    database: Database
    identity: Identity
    search: Search
    prefix: str
    tenant: Tenant
    keys: dict[Role, str]
    replay: Replay
    loaded: str = ""


class Loaded(msgspec.Struct, frozen=True):
    """A loaded log, the stand that serves it, and how it was loaded."""

    place: Stand
    customer: Customer
    replay: Replay
    loaded: str

    @property
    def last_received(self) -> datetime:
        return self.replay.received_at(self.replay.count - 1)


@asynccontextmanager
async def long_log(
    server: PostgresServer, search: OpenSearchServer, records: int, progress: Callable[[str], None]
) -> AsyncIterator[Loaded]:
    """Open a stand with a log of so many records, loaded unless `KEPT_VARIABLE` names one that is."""
    file = Path(kept) if (kept := os.environ.get(KEPT_VARIABLE)) else None
    if file is not None and file.exists():
        yield _opened(server, msgspec.json.decode(file.read_bytes(), type=Kept))
        return
    async with stand(server, search, prefix=f"bench{secrets.token_hex(3)}", keep=file is not None) as place:
        began = asyncio.get_running_loop().time()
        customer, replay = await _provisioned(place, records)
        await asyncio.gather(_load_records(place, customer, replay, progress), _load_documents(place, customer, replay, progress))
        await _finish(place, customer, replay, progress)
        took = asyncio.get_running_loop().time() - began
        loaded = Loaded(place, customer, replay, f"loaded in {took:,.0f} s, {await _sizes(place, customer)}")
        if file is not None:
            file.write_bytes(msgspec.json.encode(_kept(loaded)))
        yield loaded


def _opened(server: PostgresServer, kept: Kept) -> Loaded:
    settings = Settings(database=kept.database, identity=kept.identity, search=kept.search, prefix=kept.prefix)
    return Loaded(Stand(server, settings), Customer(kept.tenant, kept.keys), kept.replay, kept.loaded)


def _kept(loaded: Loaded) -> Kept:
    settings = loaded.place.settings
    return Kept(
        settings.database,
        settings.identity,
        settings.search,
        settings.prefix,
        loaded.customer.tenant,
        loaded.customer.keys,
        loaded.replay,
        loaded.loaded,
    )


async def _provisioned(place: Stand, records: int) -> tuple[Customer, Replay]:
    """Provision a tenant as if it had begun a year ago, with daily partitions and the ranges of its index."""
    name, uid, vault = f"bench-{secrets.token_hex(5)}", secrets.token_hex(8), MemoryVault()
    settings = place.settings
    status = await _visited(msgspec.structs.replace(settings, search=Search()), vault, Manifest(name, uid, 1, _spec(_FIRST_DAYS)))
    async with admin(place) as connection:
        await connection.execute(
            "UPDATE decklog.tenants SET created_at = now() - make_interval(days => $2) WHERE name = $1", name, DAYS
        )
    status = await _visited(settings, vault, Manifest(name, uid, 2, _spec(DAYS)))
    assert status.tenant_id is not None
    now = datetime.now(UTC)
    replay = Replay.over(status.tenant_id, records, now - timedelta(days=DAYS - 1, minutes=-10), now - timedelta(minutes=1))
    async with admin(place) as connection:
        row = await connection.fetchrow(
            "SELECT index, generation, starts FROM decklog.search_generations WHERE index = $1 AND state = 1", status.index
        )
    if row is None:
        raise RuntimeError(f"the index {status.index} has no generation")
    live = IndexGeneration(row["index"], row["generation"], tuple(row["starts"]))
    tenant = Tenant(
        status.tenant_id,
        name,
        Isolation.DEDICATED,
        status.schema,
        status.index,
        status.queue,
        DAYS,
        State.ACTIVE,
        live=live,
    )
    return Customer(tenant, vault.keys[name]), replay


def _spec(days: int) -> TenantSpec:
    limits = {"eventsPerSecond": 1_000_000, "burst": 10_000_000, "queriesPerMinute": 1_000_000}
    return parse_spec({"isolation": Isolation.DEDICATED.value, "retention": {"days": days}, "quotas": limits})


async def _visited(settings: Settings, vault: MemoryVault, manifest: Manifest) -> TenantStatus:
    async with control_plane.open_provisioner(settings) as provisioner:
        status = await provisioner.reconcile(manifest, vault)
    if not status.ready or status.tenant_id is None:
        raise RuntimeError(f"the tenant is not ready: {status.conditions}")
    return status


@asynccontextmanager
async def admin(place: Stand) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection of the superuser, whose commits need not be durable."""
    connection = await asyncpg.connect(place.admin_dsn, server_settings={"synchronous_commit": "off", "timezone": "UTC"})
    try:
        yield connection
    finally:
        await connection.close()


_EVENTS = """CREATE TABLE {schema}.bench_events (k integer PRIMARY KEY, action text, actor_type text, actor_id text, resource_type text,
    resource_id text, session_id text, correlation_id text, ip inet, severity smallint, outcome smallint, content text)"""

# The same values as those of `Replay`. The sub-select with OFFSET keeps the order of the numbers.
_INSERT = f"""
    INSERT INTO {{schema}}.records (tenant_id, seq, received_at, occurred_at, epoch, log, severity, outcome, id, action, actor_type, actor_id,
           resource_type, resource_id, session_id, correlation_id, ip, fingerprint, digest, content)
    SELECT $1, n, received_at, occurred_at, 1, 0, severity, outcome, id, action, actor_type, actor_id, resource_type, resource_id, session_id,
           replace(correlation_id, '{MARK_ROUND}', round), ip, substr(digest, 1, 16), digest, content
      FROM (SELECT *, sha256(convert_to(content, 'UTF8')) AS digest
              FROM (SELECT n, received_at, occurred_at, id, round, action, actor_type, actor_id, resource_type, resource_id, session_id,
                           correlation_id, ip, severity, outcome, replace(replace(replace(event.content, '{MARK_ID}', id), '{MARK_ROUND}', round),
                               '{MARK_TIME}', to_char(occurred_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) AS content
                      FROM (SELECT n, md5(n::text)::uuid::text AS id, 'r' || to_char(n / $6, 'FM0000000') AS round,
                                   'epoch'::timestamptz + ($2 + $3 * n) * interval '1 microsecond' AS received_at,
                                   to_timestamp(($2 + $3 * n) / 1000000 - n * 2654435761 % 600) AS occurred_at
                              FROM generate_series($4::bigint, $5::bigint - 1) AS n OFFSET 0) AS numbers
                     CROSS JOIN LATERAL (SELECT * FROM {{schema}}.bench_events WHERE k = n % $6 OFFSET 0) AS event OFFSET 0) AS made OFFSET 0) AS rows"""


async def _load_records(place: Stand, customer: Customer, replay: Replay, progress: Callable[[str], None]) -> None:
    """Insert the records, one partition in each transaction."""
    tenant, schema = customer.tenant, f'"{customer.tenant.schema}"'
    async with admin(place) as connection:
        await connection.execute(_EVENTS.format(schema=schema))
        rows = [
            (
                k,
                e.action,
                e.actor_type,
                e.actor_id,
                e.resource_type,
                e.resource_id,
                e.session_id,
                e.correlation_id,
                e.ip,
                e.severity,
                e.outcome,
            )
            for k, e in enumerate(replay.events)
        ]
        contents = [event.content.decode() for event in replay.events]
        await connection.executemany(
            f"INSERT INTO {schema}.bench_events VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::inet, $10, $11, $12)",
            [(*row, content) for row, content in zip(rows, contents, strict=True)],
        )
    midnight = replay.received_at(0).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [(day, replay.at(day), replay.at(day + _DAY)) for day in (midnight + n * _DAY for n in range(DAYS + 1))]
    waiting = [each for each in reversed(days) if each[1] < each[2]]
    done = 0

    async def load() -> None:
        nonlocal done
        async with admin(place) as connection:
            while waiting:
                day, first, end = waiting.pop()
                async with connection.transaction():
                    await connection.execute(
                        "SELECT decklog.make_partition_of(relation, $2) FROM decklog.relations AS relation WHERE schema_name = $1",
                        tenant.schema,
                        day,
                    )
                    await connection.execute(
                        _INSERT.format(schema=schema),
                        tenant.id,
                        replay.first,
                        replay.step,
                        first,
                        end,
                        len(replay.events),
                        timeout=600,
                    )
                done += end - first
                progress(f"{done:,} of {replay.count:,} records of a year")

    await asyncio.gather(*(load() for _ in range(_LOADERS)))


async def _load_documents(place: Stand, customer: Customer, replay: Replay, progress: Callable[[str], None]) -> None:
    """Write the documents by several processes."""
    live = customer.tenant.live
    assert live is not None
    bounds = [replay.at(datetime(start.year, start.month, start.day, tzinfo=UTC)) for start in live.starts]
    ranges = [
        Range(write_alias(live.range_index(start)), 0 if number == 0 else first, end)
        for number, (start, (first, end)) in enumerate(zip(live.starts, pairwise([*bounds, replay.count]), strict=True))
    ]
    jobs = [Job(place.settings.search.url, replay, ranges, loader, _LOADERS) for loader in range(_LOADERS)]
    sent = await asyncio.gather(*(apart("tests.bench.replay_documents", job, Sent) for job in jobs))
    progress(f"{sum(each.documents for each in sent):,} documents of a year")


async def _finish(place: Stand, customer: Customer, replay: Replay, progress: Callable[[str], None]) -> None:
    """Move the head and the cursors behind the records, gather statistics, and compare a sample."""
    progress("statistics, refresh and samples")
    tenant, schema = customer.tenant, f'"{customer.tenant.schema}"'
    async with admin(place) as connection:
        last = replay.received_at(replay.count - 1)
        await connection.execute(f"DROP TABLE {schema}.bench_events")
        await connection.execute(
            "UPDATE decklog.heads SET next_seq = $2, received_at = $3 WHERE tenant_id = $1 AND log = 0",
            tenant.id,
            replay.count,
            last,
        )
        await connection.execute(
            "INSERT INTO decklog.cursors (consumer, tenant_id, log, next_seq) VALUES ($1, $2, 0, $3)"
            " ON CONFLICT (consumer, tenant_id, log) DO UPDATE SET next_seq = excluded.next_seq",
            indexer_of(tenant),
            tenant.id,
            replay.count,
        )
        await connection.execute(f"VACUUM (ANALYZE) {schema}.records", timeout=1_800)
        await _check(connection, schema, replay)
    client = connect(place.settings.search)
    try:
        await OpenSearchIndex(client).refresh(tenant)
        await client.indices.flush(index=tenant.live.alias if tenant.live else None, request_timeout=300)
    finally:
        await client.close()


async def _check(connection: asyncpg.Connection, schema: str, replay: Replay) -> None:
    """Raise RuntimeError where a record or a document is not what the service would store and index."""
    seqs = sorted({0, replay.count - 1, *(secrets.randbelow(replay.count) for _ in range(_SAMPLE))})
    replay.check(seqs)
    for row in await connection.fetch(
        f"SELECT * FROM {schema}.records WHERE seq = ANY($1::bigint[]) AND log = 0 ORDER BY seq", seqs
    ):
        stored = replay.prepared(row["seq"])
        same = ("action", "actor_id", "resource_id", "correlation_id", "severity", "outcome", "occurred_at", "id", "digest")
        if any(row[name] != getattr(stored, name) for name in same) or row["content"] != stored.content.decode():
            raise RuntimeError(f"record {row['seq']} is not what the service would store: {row['content']!r} {stored.content!r}")
        if row["received_at"] != replay.received_at(row["seq"]):
            raise RuntimeError(f"record {row['seq']} has another receipt time than its document")
        seqs.remove(row["seq"])
    if seqs:
        raise RuntimeError(f"the log lacks the records {seqs}")


async def _sizes(place: Stand, customer: Customer) -> str:
    client = connect(place.settings.search)
    try:
        stats = await client.indices.stats(index=f"{customer.tenant.index}*", metric="store,docs")
    finally:
        await client.close()
    async with admin(place) as connection:
        size = await connection.fetchval("SELECT pg_database_size(current_database())")
    found = stats["_all"]["primaries"]
    return f"PostgreSQL {size / 2**30:.1f} GiB, OpenSearch {found['store']['size_in_bytes'] / 2**30:.1f} GiB"
