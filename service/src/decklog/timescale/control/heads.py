"""Settings of a tenant's two heads: state, rates, quotas and the window of ids.

Only these settings are written here; numbers and receipt times belong to the append functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from decklog.domain.log import LogName
from decklog.domain.tenancy.registered import HeadSettings
from decklog.domain.tenancy.status import Rejected
from decklog.domain.tenant import State
from decklog.timescale.statements import statement


async def ensure_heads(connection: asyncpg.Connection, tenant_id: int, schema: str, settings: HeadSettings) -> None:
    """Give both heads of a tenant these settings, and the name of the schema that holds its records.

    `next_seq`, epoch and receipt time of existing heads stay. A bucket that did not exist before is full.
    """
    await connection.execute(
        statement("heads.set"),
        tenant_id,
        [LogName.EVENTS, LogName.ACCESS],
        int(settings.state),
        [float(settings.events_per_second), settings.queries_per_minute / 60],
        [settings.burst, settings.queries_per_minute],
        [settings.events_per_day, 0],
        [settings.storage_used_up, False],
        float(settings.dedup_seconds),
        schema,
    )


async def observe_heads(connection: asyncpg.Connection, tenant_ids: Sequence[int]) -> dict[int, HeadSettings]:
    """Return the settings of these tenants' heads, by tenant.

    A tenant is missing if it has no heads, or if its two heads do not agree as `ensure_heads` makes them.
    """
    rows = await connection.fetch(statement("heads.settings"), tenant_ids, LogName.EVENTS, LogName.ACCESS)
    return {
        row["tenant_id"]: HeadSettings(
            State(row["state"]),
            int(row["per_second"]),
            row["burst"],
            int(row["window"]),
            row["per_day"],
            row["queries"],
            storage_used_up=row["storage_used_up"],
        )
        for row in rows
    }


class Counted(NamedTuple):
    """Records of both logs of a tenant, those among them that are not indexed yet, and the rejected ones."""

    records: int
    unindexed: int
    rejected: Rejected


async def count_records(connection: asyncpg.Connection, tenant_ids: Sequence[int]) -> dict[int, Counted]:
    """Return the counts of tenants that have heads, by tenant."""
    rows = await connection.fetch(statement("heads.stored"), tenant_ids)
    return {
        row["tenant_id"]: Counted(
            row["records"], row["unindexed"], Rejected(row["rejected"], row["rejected_at"], row["rejected_code"])
        )
        for row in rows
    }
