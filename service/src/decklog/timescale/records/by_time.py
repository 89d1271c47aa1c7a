"""Reading in the order of `occurred_at`: the statement for one window, and the page that the rows of several windows make.

The index `records_occurred` has the order of the time. PostgreSQL sorts the records of equal times by number as it reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from decklog.domain.records.record import StoredRecord
from decklog.domain.search.order import Place
from decklog.timescale.records.extents import Window
from decklog.timescale.records.filters import RECEIPT_SLACK, Parameters

_RECORD = "epoch, seq, received_at, digest, content"


def by_time(scope: str, parameters: Parameters, after: Place | None, limit: int, bytes_max: int, *, newest_first: bool) -> str:
    """Return a statement for the first records of a scope after a place, at most `limit`, and none after those that fill `bytes_max`."""
    order, beyond = ("DESC", "<") if newest_first else ("ASC", ">")
    by = f"occurred_at {order}, seq {order}"
    if after is not None:
        time, seq = parameters.add(after.occurred_at), parameters.add(after.seq)
        # The first condition is a range of the index; the second one decides among equal times.
        scope += f" AND occurred_at {beyond}= {time} AND (occurred_at {beyond} {time} OR seq {beyond} {seq})"
    held = f"sum(octet_length(content)) OVER (ORDER BY {by} ROWS UNBOUNDED PRECEDING) AS held"
    rows = f"SELECT {_RECORD}, occurred_at {scope} ORDER BY {by} LIMIT {parameters.add(limit)}"
    return (
        f"SELECT {_RECORD}, occurred_at, held FROM (SELECT *, {held} FROM ({rows}) AS first) AS found"
        f" WHERE held - octet_length(content) < {parameters.add(bytes_max)} ORDER BY {by}"
    )


class ByTime:
    """The page that the rows of several windows make. Each window gives its first rows, at most `limit` and `bytes_max` of them."""

    def __init__(self, limit: int, bytes_max: int, *, newest_first: bool) -> None:
        self._limit = limit
        self._bytes_max = bytes_max
        self._newest_first = newest_first
        self._rows: list[tuple[Place, asyncpg.Record]] = []
        self._cuts: list[Place] = []
        """The last places of windows that hold more."""

    def add(self, rows: Sequence[asyncpg.Record]) -> None:
        """Add the rows of a window."""
        placed = [(Place(row["occurred_at"], row["seq"]), row) for row in rows]
        if rows and (len(rows) >= self._limit or rows[-1]["held"] >= self._bytes_max):
            self._cuts.append(placed[-1][0])
        self._rows = sorted(self._rows + placed, key=lambda item: item[0], reverse=self._newest_first)

    def whole(self, window: Window) -> bool:
        """Return whether no record of this window belongs to the page."""
        if not self._newest_first or window.until is None or len(self._rows) < self._limit:
            return False
        return self._rows[self._limit - 1][0].occurred_at > window.until + RECEIPT_SLACK

    def page(self) -> tuple[list[tuple[Place, StoredRecord]], Place | None]:
        """Return the records of the page with their places, and the last place if more follow."""
        page: list[tuple[Place, StoredRecord]] = []
        held, rows = 0, self._rows
        if self._cuts:
            # Behind the first cut, the rows of its window are missing.
            places = [place for place, _ in rows]
            rows = rows[: places.index(max(self._cuts) if self._newest_first else min(self._cuts)) + 1]
        for place, row in rows:
            if len(page) >= self._limit or held >= self._bytes_max:
                break
            page.append((place, StoredRecord(*row[:-2])))
            held += len(row["content"].encode())
        return page, page[-1][0] if len(page) < len(self._rows) or self._cuts else None
