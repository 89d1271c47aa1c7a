"""A log after three months: many records over daily partitions, inserted by SQL.

The records equal what the service would store: their content is built from a record of `prepare`, and a sample is compared with
`prepare`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from decklog.domain.log import rfc3339
from decklog.domain.records.record import OUTCOMES, SEVERITIES, decode, prepare
from tests.bench.stand import Customer, Stand

DAYS = 91
"""Daily partitions with records. The tenant's retention is one day more."""
RETENTION_DAYS = DAYS + 1
_BATCH = 50_000
_SAMPLE = 50
_WHEN = datetime(2001, 2, 3, 4, 5, 6, 789, tzinfo=UTC)

# SQL for each value. `n` is the number of the record, `r` a pseudo-random number from 0 to 2^32 - 1.
_COLUMNS = {
    "action": "(ARRAY['document.read', 'document.update', 'user.login', 'user.logout', 'document.create', 'user.login_failed',"
    " 'role.grant', 'role.revoke', 'api_key.create', 'billing.export'])[1 + least(9, floor(-ln((r % 9973 + 1) / 9974.0) * 2.2))::int]",
    "actor_id": "'user-' || floor(5000 * ((r / 7) % 10007 / 10007.0) ^ 3)::int",
    "resource_id": "'document-' || (r / 13) % 50021",
    "session_id": "'session-' || n / 40",
    "correlation_id": "md5(n::text)",
    "ip": "'10.' || (r / 3) % 8 || '.' || (r / 5) % 250 || '.' || (r / 11) % 250",
}
# 4 % fail. Of those a fifth are errors, and one in forty is denied and critical.
_OUTCOME = "CASE WHEN r % 1000 >= 40 THEN 0 WHEN r % 1000 = 0 THEN 2 ELSE 1 END"
_SEVERITY = "CASE WHEN r % 1000 = 0 THEN 3 WHEN r % 1000 < 9 THEN 2 WHEN r % 1000 < 40 THEN 1 ELSE 0 END"

_TEMPLATE = """{"action": "<action>", "actor": {"id": "<actor_id>", "type": "user", "name": "A Person of That Name"},
 "resource": {"type": "document", "id": "<resource_id>", "name": "Quarterly report"}, "occurred_at": "WHEN",
 "severity": "CRITICAL", "outcome": "denied", "message": "The document was opened in the editor",
 "source": {"ip": "<ip>", "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"}, "session_id": "<session_id>",
 "correlation_id": "<correlation_id>", "metadata": {"region": "eu-central-1", "plan": "enterprise", "attempt": 1,
 "labels": ["finance", "internal"]}}"""


@dataclass(frozen=True)
class Log:
    """The filled log."""

    customer: Customer
    records: int
    first_received: datetime
    last_received: datetime


def _content() -> str:
    """Return the SQL expression of the content over the columns of the generated rows."""
    body = _TEMPLATE.replace("WHEN", rfc3339(_WHEN)).encode()
    text = prepare(decode(body), now=_WHEN, fingerprint_key=b"").content.decode().replace("'", "''")
    for column in _COLUMNS:
        text = text.replace(f"<{column}>", f"' || {column} || '")
    text = text.replace(rfc3339(_WHEN), "' || to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') || '")
    names = {"denied": (OUTCOMES, "outcome"), "CRITICAL": (SEVERITIES, "severity")}
    for name, (all_names, column) in names.items():
        array = ", ".join(f"''{each}''" for each in map(str, all_names)).replace("''", "'")
        text = text.replace(f'"{name}"', f"\"' || (ARRAY[{array}])[1 + {column}] || '\"")
    return f"'{text}'"


def _insert(schema: str) -> str:
    values = ", ".join(f"{expression} AS {name}" for name, expression in _COLUMNS.items())
    return f"""
        INSERT INTO {schema}.records (tenant_id, seq, received_at, occurred_at, epoch, log, severity, outcome, action, actor_type,
                                      actor_id, resource_type, resource_id, session_id, correlation_id, ip, digest, content)
        SELECT $1, n, received_at, occurred_at, 1, 0, severity, outcome, action, 'user', actor_id, 'document', resource_id,
               session_id, correlation_id, ip::inet, sha256(content::bytea), content
          FROM (SELECT *, {_content()} AS content
                  FROM (SELECT *, {values}, {_OUTCOME} AS outcome, {_SEVERITY} AS severity,
                               received_at - make_interval(secs => r % 2000 / 1000.0) AS occurred_at
                          FROM (SELECT n, n * 2654435761 % 4294967296 AS r,
                                       $2::timestamptz + $3::interval * (n::float8 / $6) AS received_at
                                  FROM generate_series($4::bigint, $5::bigint - 1) AS n) AS numbers) AS rows) AS made
         ORDER BY n"""


async def _check(connection: asyncpg.Connection, schema: str) -> None:
    """Raise RuntimeError if a record differs from what the service would store."""
    rows = await connection.fetch(f"SELECT * FROM {schema}.records ORDER BY correlation_id LIMIT {_SAMPLE}")
    for row in rows:
        made = prepare(decode(row["content"].encode()), now=datetime.now(UTC), fingerprint_key=b"")
        stored = {name: str(row[name]) for name in ("action", "actor_id", "severity", "outcome", "ip", "occurred_at")}
        ours = {name: str(getattr(made, name)) for name in stored}
        if made.content.decode() != row["content"] or made.digest != row["digest"] or stored != ours:
            raise RuntimeError(f"a generated record is not what the service would store: {row['content']!r} {made.content!r}")
        if hashlib.sha256(row["content"].encode()).digest() != row["digest"]:
            raise RuntimeError("a generated record has another digest than its content")


async def fill(stand: Stand, customer: Customer, records: int, progress: Callable[[str], None]) -> Log:
    """Insert records into the events log of a new Dedicated tenant. `progress` receives lines for people."""
    tenant, schema = customer.tenant, f'"{customer.tenant.schema}"'
    last = datetime.now(UTC)
    span = timedelta(days=DAYS) - timedelta(hours=1)
    owner = await asyncpg.connect(stand.owner_dsn)
    admin = await asyncpg.connect(stand.admin_dsn, server_settings={"synchronous_commit": "off", "timezone": "UTC"})
    try:
        await owner.execute(
            "SELECT decklog.make_partition_of(relation, clock_timestamp() - make_interval(days => day))"
            "  FROM decklog.relations AS relation, generate_series(0, $2) AS day WHERE relation.schema_name = $1",
            tenant.schema,
            DAYS,
        )
        for first in range(0, records, _BATCH):
            progress(f"{first:,} of {records:,} records of three months")
            end = min(records, first + _BATCH)
            await admin.execute(_insert(schema), tenant.id, last - span, span, first, end, records)
        progress("statistics")
        head = await admin.fetchval(f"SELECT max(received_at) FROM {schema}.records")
        await admin.execute(
            "UPDATE decklog.heads SET next_seq = $2, received_at = $3 WHERE tenant_id = $1 AND log = 0", tenant.id, records, head
        )
        await admin.execute(f"VACUUM (ANALYZE) {schema}.records")
        await _check(admin, schema)
        first_received = await admin.fetchval(f"SELECT min(received_at) FROM {schema}.records")
    finally:
        await owner.close()
        await admin.close()
    return Log(customer, records, first_received, head)
