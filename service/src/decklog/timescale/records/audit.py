"""A check of what the database holds: each log's numbers against its head, digests, archives, cursors, and rights of the roles.

It finds what no role of a process can do, but a superuser or the owner can: a record beside the log, a head that was moved, an
archive that nobody wrote. It reads in short statements, holds no snapshot, and changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import chain

import msgspec

from decklog.domain.archive.manifest import ARCHIVER
from decklog.domain.log import LogName
from decklog.domain.records.sequence import Fault, Head, Order, Place
from decklog.domain.tenant import State
from decklog.timescale.connection import LEAST_ROLES, Pool
from decklog.timescale.statements import quoted, statement

BATCH = 5_000
"""Numbers that one statement reads."""
FAULTS_MAX = 100
"""Faults of one log that are listed."""
_ROWS = (
    "SELECT seq, epoch, received_at, digest = sha256(convert_to(content, 'UTF8')) AS sound FROM {records}"
    " WHERE tenant_id = $1 AND log = $2 AND seq >= $3 AND seq < $4 ORDER BY seq, received_at"
)
_NEXT = "SELECT min(seq) FROM {records} WHERE tenant_id = $1 AND log = $2 AND seq >= $3"


class Checked(msgspec.Struct, frozen=True):
    """One log, cursors, archives or rights, with the records that were read and the faults that were found."""

    subject: str
    records: int
    faults: list[Fault]


class PostgresAudit:
    """The check over a pool of the owner's or the worker's role. Every method raises `storage-unavailable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def run(self) -> AsyncIterator[Checked]:
        """Check the rights, every log in the order of tenants, then cursors and archives."""
        yield Checked("rights", 0, await self._rights())
        async with self._pool.connection() as connection:
            logs = await connection.fetch(statement("audit.logs"))
        for row in logs:
            log = LogName(row["log"])
            subject = f"log {log.text} of {row['name'] or row['tenant_id']}"
            if row["schema"] is None:
                yield Checked(subject, 0, [Fault("head", "The head names no schema, and the registry does not know its tenant.")])
            else:
                yield await self._log(subject, row["tenant_id"], log, f"{quoted(row['schema'])}.records")
        yield Checked("cursors", 0, await self._cursors())
        yield Checked("archives", 0, await self._archives())

    async def _log(self, subject: str, tenant_id: int, log: LogName, records: str) -> Checked:
        before = await self._head(tenant_id, log)
        if before is None:
            return Checked(subject, 0, [])  # removed meanwhile
        order, faults = Order(), list[Fault]()
        first: int | None = 0
        while first is not None and len(faults) < FAULTS_MAX:
            async with self._pool.reading(tenant_id) as connection:
                rows = await connection.fetch(_ROWS.replace("{records}", records), tenant_id, log.value, first, first + BATCH)
                faults += chain.from_iterable(order.follow(Place(*row)) for row in rows)
                first += BATCH
                if not rows:  # behind a gap, or at the end
                    first = await connection.fetchval(_NEXT.replace("{records}", records), tenant_id, log.value, first)
        if first is None:
            faults += order.end(before, await self._head(tenant_id, log))
        return Checked(subject, order.records, faults[:FAULTS_MAX])

    async def _head(self, tenant_id: int, log: LogName) -> Head | None:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(statement("audit.head"), tenant_id, log.value)
        return None if row is None else Head(*row)

    async def _cursors(self) -> list[Fault]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(statement("audit.cursors"))
        return [
            Fault("cursor", f"{consumer} is at {at} in log {LogName(log).text} of tenant {tenant_id}, beyond the head ({head}).")
            for consumer, tenant_id, log, at, head in rows
        ]

    async def _archives(self) -> list[Fault]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(statement("audit.archives"), ARCHIVER, int(State.DELETED))
        faults = []
        for row in rows:
            where = f"The archive of log {LogName(row['log']).text} of tenant {row['tenant_id']}"
            if not row["deleted"]:
                faults.append(Fault("archive", f"{where} is noted as complete, but the tenant is not deleted."))
            elif row["archived"] < row["next_seq"] or row["rows"] != row["next_seq"]:
                counts = f"{row['next_seq']} records, but its parts have {row['rows']} and the archiver is at {row['archived']}"
                faults.append(Fault("archive", f"{where} is noted with {counts}."))
        return faults

    async def _rights(self) -> list[Fault]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(statement("audit.rights"), LEAST_ROLES)
        return [Fault("rights", f"{role} has {', '.join(rights)} on {relation}.") for role, relation, rights in rows]
