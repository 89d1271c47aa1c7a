"""Build search documents from records, as the indexer does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from decklog.domain.log import LogName
from decklog.domain.search.terms import Terms
from decklog.domain.store import SearchDocument
from decklog.domain.tenant import Tenant
from tests.support.strategies import prepared, terms_of


def documents(tenant: Tenant, records: Sequence[Terms], *, log: LogName = LogName.EVENTS, first: int = 0) -> list[SearchDocument]:
    now = datetime.now(UTC)
    return [SearchDocument(tenant.id, log, 1, seq, now, item) for seq, item in enumerate(records, start=first)]


def made(**fields: Any) -> Terms:
    """Return the terms of a record with these fields and the required ones."""
    return terms_of(prepared({"action": "user.login", "actor": {"id": "alice"}, **fields}))
