"""`RejectedStore` in memory; `tests/conformance` holds it and PostgreSQL to the same behaviour."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from decklog.domain.errors import DecklogError
from decklog.domain.records.rejected import BYTES_MAX, ROWS_MAX, RejectedBatch, RejectedRecord, Rejections


class MemoryRejected:
    """Rejected records by tenant. Every call raises `failing` while it is set."""

    def __init__(self) -> None:
        self.failing: DecklogError | None = None
        self._records: dict[int, dict[int, RejectedRecord]] = {}
        self._counts: dict[int, Rejections] = {}
        self._next: dict[int, int] = {}

    async def keep(self, batch: RejectedBatch) -> None:
        self._fail()
        held = self._records.setdefault(batch.tenant_id, {})
        for each in batch.kept:
            number = self._next.get(batch.tenant_id, 1)
            self._next[batch.tenant_id] = number + 1
            held[number] = RejectedRecord(
                number,
                each.at,
                each.code,
                each.detail,
                each.record_id,
                msgspec.Raw(each.recorder.encode()),
                each.request_id,
                each.size,
                each.content is not None,
                None if each.content is None else each.content.decode(),
            )
        dropped = 0
        while len(held) > ROWS_MAX or self._bytes(batch.tenant_id) > BYTES_MAX:
            del held[min(held)]
            dropped += 1
        counts = self._counts.get(batch.tenant_id, Rejections())
        self._counts[batch.tenant_id] = replace(
            counts,
            rejected=counts.rejected + batch.rejected,
            unkept=counts.unkept + batch.unkept,
            dropped=counts.dropped + dropped,
            last_at=batch.last_at,
            last_code=batch.last_code,
        )

    async def list(self, tenant_id: int, *, before: int | None, limit: int) -> list[RejectedRecord]:
        self._fail()
        held = self._records.get(tenant_id, {})
        numbers = sorted((number for number in held if before is None or number < before), reverse=True)
        return [replace(held[number], content=None) for number in numbers[:limit]]

    async def get(self, tenant_id: int, number: int) -> RejectedRecord | None:
        self._fail()
        return self._records.get(tenant_id, {}).get(number)

    async def delete(self, tenant_id: int, number: int) -> bool:
        self._fail()
        return self._records.get(tenant_id, {}).pop(number, None) is not None

    async def counts(self, tenant_id: int) -> Rejections:
        self._fail()
        kept = len(self._records.get(tenant_id, {}))
        return replace(self._counts.get(tenant_id, Rejections()), kept=kept, bytes=self._bytes(tenant_id))

    def _bytes(self, tenant_id: int) -> int:
        return sum(len((each.content or "").encode()) for each in self._records.get(tenant_id, {}).values())

    def _fail(self) -> None:
        if self.failing is not None:
            raise self.failing
