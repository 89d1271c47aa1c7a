"""Binding of the keys of bulks to their content, over a connection of its own."""

from __future__ import annotations

from collections.abc import Sequence

from decklog.domain.records.idempotency import KeyBinding
from decklog.timescale.records.own_connection import OwnConnection

_BIND = "SELECT decklog.bind_bulk_keys($1, $2, $3)"


class BulkKeys:
    """Binds keys. A binding may be repeated, so a lost connection leaves no doubt."""

    def __init__(self, dsn: str) -> None:
        self._connection = OwnConnection(dsn)

    def close(self) -> None:
        """Drop the connection. The next key opens a new one."""
        self._connection.close()

    async def bind(self, bindings: Sequence[KeyBinding]) -> list[bool]:
        """See `RecordStore.bind_keys`."""
        # Rows are locked in this order by every process, so writers wait and never deadlock.
        order = sorted(range(len(bindings)), key=lambda i: (bindings[i].tenant_id, bindings[i].key))
        chosen = [bindings[i] for i in order]
        columns = [each.tenant_id for each in chosen], [each.key for each in chosen], [each.content for each in chosen]
        results = dict(zip(order, await self._connection.value(_BIND, *columns), strict=True))
        return [results[i] for i in range(len(bindings))]
