"""The relation `term_filters` of a schema: the filters of a log's blocks, and the parts of a log that they do not exclude.

Filters only exclude: a record that no filter covers, or one of another version does, is never left out. The relation is read without
locks and apart from the records, because a record that a filter covers is stored before it and never changes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

import asyncpg

from decklog.domain.log import LogName, Span
from decklog.domain.search.coverage import too_slow
from decklog.domain.search.query import Query
from decklog.domain.search.term_filters import VERSION, TermFilter, masks
from decklog.domain.tenant import Tenant
from decklog.timescale.connection import Pool
from decklog.timescale.records.extents import Window
from decklog.timescale.statements import quoted, statement

_WORTH = 512
"""Numbers of a span from which a look-up is worth its cost."""
_ROWS_FIRST, _ROWS_MAX, _GROWTH = 64, 8_192, 8
"""Filters of one statement: few at first, as a frequent word is found in the newest blocks."""
_REACH = 256
"""Numbers of one block at most, by the constraint of the relation."""
_NEAR = 32
"""Numbers between two admitted parts that are read together: a further statement would cost more."""
_PARTS_MAX, _NUMBERS_MAX = 64, 4_096
"""Parts, and numbers in them, of one statement that reads several."""


class _Seen(NamedTuple):
    """A filter that admits the query, or lies beside a gap, or is the lowest of its statement. `above` begins the block above it."""

    first: int
    end: int
    above: int | None
    admits: bool


class _Wanted(NamedTuple):
    """A search: where, the bits that a filter of each size must have, and its end by the monotonic clock."""

    tenant: Tenant
    log: LogName
    masks: list[asyncpg.BitString]
    ends_at: float

    @classmethod
    def of(cls, tenant: Tenant, log: LogName, query: Query, ends_at: float) -> _Wanted:
        return cls(tenant, log, [asyncpg.BitString.frombytes(mask) for mask in masks(query)], ends_at)

    def left(self) -> float:
        """Return the seconds left. Raises `search-unavailable` if there are none."""
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise too_slow()
        return left


class PostgresTermFilters:
    """The filters of one cell."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, tenant: Tenant, log: LogName, made: Sequence[TermFilter]) -> None:
        """Store filters; storing one again changes nothing. Raises `storage-unavailable`."""
        async with self._pool.connection() as connection:
            await connection.execute(
                statement("text.add").replace("{schema}", quoted(tenant.schema)),
                tenant.id,
                log.value,
                VERSION,
                [each.first for each in made],
                [each.end for each in made],
                [each.size for each in made],
                [asyncpg.BitString.frombytes(each.bits) for each in made],
            )

    async def narrowed(
        self, tenant: Tenant, log: LogName, query: Query, windows: Sequence[Window], *, newest_first: bool, ends_at: float
    ) -> AsyncIterator[Window]:
        """Yield the parts of these windows that may hold a match, in their order.

        Raises:
            DecklogError: `search-unavailable` after `ends_at`, a time of the monotonic clock; `storage-unavailable`.
        """
        wanted = _Wanted.of(tenant, log, query, ends_at) if query.needs_content else None
        for window in windows:
            if wanted is None or window.span.end - window.span.first < _WORTH:
                yield window
            elif newest_first:
                async for parts in self._admitted(wanted, window.span):
                    for group in _groups(parts):
                        yield _window(window, group)
            else:
                found = [part async for parts in self._admitted(wanted, window.span) for part in parts]
                for group in _groups(found[::-1]):
                    yield _window(window, group)

    async def _admitted(self, wanted: _Wanted, span: Span) -> AsyncIterator[list[Span]]:
        """Yield the parts of a span that no filter excludes, newest first, as each statement finds them."""
        end, rows = span.end, _ROWS_FIRST
        while end > span.first:
            below = Span(span.first, end)
            seen = await self._look(wanted, below, rows)
            if not seen:
                yield [below]
                return
            yield _parts(seen, below)
            end, rows = min(end, seen[-1].first), min(rows * _GROWTH, _ROWS_MAX)

    async def _look(self, wanted: _Wanted, span: Span, rows: int) -> list[_Seen]:
        """Return what is to be known of the newest blocks of a span, at most so many, newest first."""
        tenant = wanted.tenant
        sql = statement("text.look").replace("{schema}", quoted(tenant.schema))
        # A block that begins below the span may reach into it.
        first = span.first - _REACH
        async with self._pool.reading(tenant.id, timeout=wanted.left(), plan="force_generic_plan") as connection:
            try:
                found = await connection.fetch(sql, tenant.id, wanted.log.value, first, span.end, wanted.masks, VERSION, rows)
            except asyncpg.exceptions.UndefinedTableError:
                return []  # A process of the previous version has just made the schema. Provisioning adds what it lacks.
        return [_Seen(*row) for row in found]


def _parts(seen: Sequence[_Seen], span: Span) -> list[Span]:
    """Return the parts of a span, newest first, that these filters admit or do not cover, down to the lowest of them."""
    parts: list[Span] = []
    for block in seen:
        above = span.end if block.above is None else block.above
        if block.end < above:
            _join(parts, Span(max(block.end, span.first), above))
        if block.admits:
            _join(parts, Span(max(block.first, span.first), min(block.end, span.end)))
    return parts


def _groups(parts: Sequence[Span]) -> Iterator[list[Span]]:
    """Yield neighbouring parts that one statement reads. It reads all of them, so they are few; a long part stands alone."""
    group: list[Span] = []
    numbers = 0
    for part in parts:
        size = part.end - part.first
        if group and (len(group) >= _PARTS_MAX or numbers + size > _NUMBERS_MAX):
            yield group
            group, numbers = [], 0
        group.append(part)
        numbers += size
    if group:
        yield group


def _window(window: Window, parts: Sequence[Span]) -> Window:
    span = Span(min(part.first for part in parts), max(part.end for part in parts))
    return window._replace(span=span, parts=tuple(parts) if len(parts) > 1 else ())


def _join(parts: list[Span], part: Span) -> None:
    """Add a part below the others, as one with the last of them if it is near."""
    if part.empty:
        return
    if parts and parts[-1].first - part.end <= _NEAR:
        last = parts.pop()
        part = Span(min(part.first, last.first), last.end)
    parts.append(part)
