"""The tools that an engine answers a question with.

Each call is a reading of the asking principal: the readings authorise it, narrow it to the scope of a viewer token, and write its access
record. No tool can name another tenant, change anything, or run code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from prometheus_client import Counter as Metric

from decklog.domain.ask.vocabulary import Vocabulary
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, RequestContext
from decklog.domain.log import LogName
from decklog.domain.search.fields import COUNTABLE
from decklog.services.ask.vocabularies import Vocabularies
from decklog.services.budget import Held
from decklog.services.records.list_options import LIMIT_MAX
from decklog.services.records.reading import Page, Reading

CALLS_MAX = 8
"""Calls of tools for one question."""
RECORDS_MAX = 100
"""Records that one call returns."""
VALUES_MAX = 100
"""Values of a field that one call returns."""
READ_MAX = 5 * LIMIT_MAX
"""Records that are read to count the values of a field that the stores do not count."""

_calls = Metric("decklog_ask_tool_calls_total", "Calls of tools to answer questions.", ["tool"])


class Listed(msgspec.Struct, frozen=True):
    """Records as the principal sees them, as JSON objects, and the number of all records that match."""

    records: tuple[msgspec.Raw, ...]
    total: int


class Count(msgspec.Struct, frozen=True):
    """The number of records with a value, or in the interval that begins at a time (RFC 3339)."""

    value: str
    count: int


class Counts(msgspec.Struct, frozen=True):
    """The number of records, and of those with each value of a field, or in each interval.

    `by` is the path of the field, or the interval; None for the total alone. `other` counts records with values that are not named, and
    `missing` those without the field. `read` is the number of records whose values were counted, where that are not all.
    """

    total: int
    by: str | None = None
    values: tuple[Count, ...] = ()
    other: int = 0
    missing: int = 0
    read: int | None = None


class Story(msgspec.Struct, frozen=True):
    """Records in the order of their time, the number of all that match, and who and what took part in all of them."""

    records: tuple[msgspec.Raw, ...]
    total: int
    actors: Counts
    actions: Counts


_PATHS = {field.path: name for name, field in COUNTABLE.items()}


class Tools:
    """The tools of one question, for one principal. `held` accounts for the bytes of what they return."""

    def __init__(
        self, reading: Reading, vocabularies: Vocabularies, principal: Principal, context: RequestContext, held: Held
    ) -> None:
        self._reading = reading
        self._vocabularies = vocabularies
        self._principal = principal
        self._context = context
        self._held = held
        self.calls = 0
        """Calls until now."""

    @property
    def tenant_id(self) -> int:
        """Number of the tenant that asks; 0 for the platform."""
        return 0 if self._principal.tenant is None else self._principal.tenant.id

    @property
    def records_may_leave(self) -> bool:
        """True if the tenant allows that records are sent to a model."""
        return self._principal.tenant is not None and self._principal.tenant.limits.shows_records

    async def search(self, query: str, *, log: LogName = LogName.EVENTS, newest_first: bool = True, limit: int = 20) -> Listed:
        """Return matching records in the order of their time, at most `RECORDS_MAX`, and how many there are.

        Raises:
            DecklogError: `question-too-costly`, and the errors of a list.
        """
        self._call("search")
        page = await self._page(query, log, newest_first=newest_first, limit=min(limit, RECORDS_MAX))
        return Listed(await self._written(page), page.total or 0)

    async def count(self, query: str, group_by: str | None = None, *, log: LogName = LogName.EVENTS, top: int = 10) -> Counts:
        """Return how many records match, and how many of them have each of the `top` most frequent values of the field at a path.

        The stores count some fields. Of another one, the values of the newest `READ_MAX` records are counted.

        Raises:
            DecklogError: `question-too-costly`, and the errors of a count and of a list.
        """
        self._call("count")
        top = min(top, VALUES_MAX)
        if group_by is None:
            stats = await self._reading.stats(self._principal, self._context, _parameters(query, log))
            return Counts(stats.total)
        name = _PATHS.get(group_by)
        if name is None:
            return await self._counted_here(query, group_by, log, top)
        facets = [("facets", name), ("top", str(top))]
        stats = await self._reading.stats(self._principal, self._context, [*_parameters(query, log), *facets])
        (facet,) = stats.facets
        values = tuple(Count(value, count) for value, count in facet.values)
        return Counts(stats.total, group_by, values, facet.other, facet.missing)

    async def timeline(self, query: str, *, interval: str = "day", zone: str = "UTC", log: LogName = LogName.EVENTS) -> Counts:
        """Return how many records match in each interval of a time zone, from the first to the last interval with records.

        Raises:
            DecklogError: `question-too-costly`, and the errors of a count.
        """
        self._call("timeline")
        asked = [("interval", interval), ("tz", zone), ("fill", "zero")]
        stats = await self._reading.stats(self._principal, self._context, [*_parameters(query, log), *asked])
        starts = ((bucket.start, bucket.count) for bucket in stats.buckets)
        values = tuple(
            Count(start.astimezone(stats.grouping.zone).isoformat(), count) for start, count in starts if start is not None
        )
        return Counts(stats.total, interval, values)

    async def story(self, query: str, *, log: LogName = LogName.EVENTS, limit: int = RECORDS_MAX) -> Story:
        """Return the first matching records in the order of their time, and who and what took part in all that match.

        Raises:
            DecklogError: `question-too-costly`, and the errors of a list and of a count.
        """
        self._call("story")
        page = await self._page(query, log, newest_first=False, limit=min(limit, RECORDS_MAX))
        names = [path for path in ("actor.id", "action") if self._shows(path)]
        facets = [("facets", ",".join(_PATHS[path] for path in names)), ("top", str(VALUES_MAX))]
        stats = await self._reading.stats(self._principal, self._context, [*_parameters(query, log), *(facets if names else [])])
        found = {
            COUNTABLE[facet.field].path: tuple(Count(value, count) for value, count in facet.values) for facet in stats.facets
        }
        actors, actions = (Counts(stats.total, path, found.get(path, ())) for path in ("actor.id", "action"))
        return Story(await self._written(page), page.total or 0, actors, actions)

    async def vocabulary(self, log: LogName = LogName.EVENTS) -> Vocabulary:
        """Return the words of a log that the principal may see.

        Raises:
            DecklogError: `question-too-costly`, and the errors of a count.
        """
        self._call("vocabulary")
        return await self._vocabularies.of(self._principal, self._context, log)

    def _call(self, tool: str) -> None:
        if self.calls >= CALLS_MAX:
            raise DecklogError(
                Code.QUESTION_TOO_COSTLY, f"One question makes at most {CALLS_MAX} readings. Ask several narrower questions."
            )
        self.calls += 1
        _calls.labels(tool).inc()

    def _shows(self, path: str) -> bool:
        return self._principal.scope is None or self._principal.scope.shows(path)

    async def _page(self, query: str, log: LogName, *, newest_first: bool, limit: int, cursor: str | None = None) -> Page:
        """Return a page by the time of the event; by receipt where a viewer token hides that time."""
        by = "occurred_at" if self._shows("occurred_at") else "received_at"
        asked = [("limit", str(limit)), ("sort", f"-{by}" if newest_first else by), ("count", "exact")]
        parameters = [*_parameters(query, log), *asked, *([("cursor", cursor)] if cursor else [])]
        _, _, page = await self._reading.list(self._principal, self._context, parameters, self._held)
        return page

    async def _written(self, page: Page) -> tuple[msgspec.Raw, ...]:
        write = page.view.writer()
        texts = await self._reading.rendered(page.view.tenant, lambda record: write(record).encode(), page.items)
        self._held.take(sum(map(len, texts)))
        return tuple(msgspec.Raw(text) for text in texts)

    async def _counted_here(self, query: str, path: str, log: LogName, top: int) -> Counts:
        """Return the counts of the values of a field, from the records themselves, read page by page."""
        counts: Counter[str] = Counter()
        missing, read, total, cursor = 0, 0, 0, None
        held = self._held.held
        while read < READ_MAX:
            page = await self._page(query, log, newest_first=True, limit=LIMIT_MAX, cursor=cursor)
            page.view.require_fields((path,))
            records = await self._written(page)
            for record in records:
                values = set(values_at(msgspec.json.decode(record), path.split(".")))
                counts.update(values)
                missing += not values
            self._held.give(self._held.held - held)
            read, total, cursor = read + len(records), page.total or 0, page.next
            if cursor is None:
                break
        named = tuple(Count(value, count) for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        other = sum(each.count for each in named[top:])
        return Counts(total, path, named[:top], other, missing, None if cursor is None else read)


def values_at(value: Any, keys: list[str]) -> Iterable[str]:
    """Return the texts of the leaves at a path of a decoded record; elements of arrays have the path of the array."""
    if isinstance(value, list):
        return [text for item in value for text in values_at(item, keys)]
    if not keys:
        return [] if value is None or isinstance(value, dict) else [value if isinstance(value, str) else _text(value)]
    if not isinstance(value, dict):
        return []
    found = [values_at(value[".".join(keys[:n])], keys[n:]) for n in range(1, len(keys) + 1) if ".".join(keys[:n]) in value]
    return [text for texts in found for text in texts]


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _parameters(query: str, log: LogName) -> list[tuple[str, str]]:
    return [("log", log.text), *([("q", query)] if query else [])]
