"""The words of each tenant's logs, counted by the asking principal and kept for a short time."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from datetime import timedelta
from typing import Final

from decklog.domain.ask.vocabulary import Vocabulary
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, RequestContext
from decklog.domain.log import LogName
from decklog.domain.search.fields import COUNTABLE
from decklog.services.records.reading import Reading, Stats

KEPT: Final = timedelta(seconds=60)
"""Time for which a vocabulary is kept. A value that is newer may be missing in it."""
KEPT_MAX: Final = 256
"""Vocabularies that one process keeps."""
VALUE_CHARS_MAX: Final = 256
"""Characters of a value; longer ones are no words of a question."""
_TOP = 100
_NAMES = ("action", "actor", "resource_type")


class Vocabularies:
    """The vocabularies of one process, by tenant, log and scope.

    A vocabulary is read by the statistics of `reading`, which authorise and record it. A kept one is returned to principals that may
    read the same records and fields.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._kept: dict[Hashable, tuple[float, Vocabulary]] = {}

    async def of(self, principal: Principal, context: RequestContext, log: LogName) -> Vocabulary:
        """Return the words of a log that the principal may see. Raises the errors of a count."""
        key = _key(principal, log)
        until, kept = self._kept.get(key, (0.0, Vocabulary()))
        if until > time.monotonic():
            return kept
        found = await self._read(principal, context, log)
        self._keep(key, found)
        return found

    def _keep(self, key: Hashable, vocabulary: Vocabulary) -> None:
        now = time.monotonic()
        if len(self._kept) >= KEPT_MAX:
            self._kept = {known: held for known, held in self._kept.items() if held[0] > now}
        if len(self._kept) >= KEPT_MAX:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = now + KEPT.total_seconds(), vocabulary

    async def _read(self, principal: Principal, context: RequestContext, log: LogName) -> Vocabulary:
        scope = principal.scope
        names = [name for name in _NAMES if scope is None or scope.shows(COUNTABLE[name].path)]
        if not names:
            return Vocabulary()
        asked = [("log", log.text), ("facets", ",".join(names)), ("top", str(_TOP))]
        by = [("by", "action")] if "action" in names else []
        try:
            return _vocabulary(await self._reading.stats(principal, context, [*asked, *by]), whole=bool(by))
        except DecklogError as error:
            if error.code is not Code.TOO_MANY_BUCKETS:
                raise
        return Vocabulary()


def _key(principal: Principal, log: LogName) -> Hashable:
    scope = None if principal.scope is None else (principal.scope.query.text, principal.scope.fields)
    return None if principal.tenant is None else principal.tenant.id, log, scope


def _vocabulary(stats: Stats, *, whole: bool) -> Vocabulary:
    facets = {facet.field: _short(value for value, _ in facet.values) for facet in stats.facets}
    ordered = sorted(stats.buckets, key=lambda bucket: -bucket.count)
    actions = _short(bucket.key[0] for bucket in ordered if bucket.key and bucket.key[0] is not None) if whole else ()
    return Vocabulary(actions, facets.get("actor", ()), facets.get("resource_type", ()), every_action=whole)


def _short(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(value for value in values if len(value) <= VALUE_CHARS_MAX)
