"""Writing documents to an index in bulk requests of a bounded size.

This module must not decide what of a record can be found; `documents.py` makes the documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import stamina
import structlog
from opensearchpy import AsyncOpenSearch

from decklog.domain.errors import DecklogError
from decklog.domain.index_generation import IndexGeneration
from decklog.domain.store import SearchDocument
from decklog.opensearch.client import translated, unavailable
from decklog.opensearch.documents import REMOVABLE, document_id, lines
from decklog.opensearch.mapping import write_alias

BULK_BYTES_MAX = 4 * 1024 * 1024
"""Size of one bulk request, unless a single document is larger. Larger requests only cost the node garbage collections."""
BUSY_ATTEMPTS_MAX = 6
BUSY_TIME_MAX = timedelta(seconds=10)
"""Retries after status 429; then the batch fails, and the follower retries it later."""

_BUSY = 429
_TOO_LARGE = 413
_REFUSED = frozenset({400, _TOO_LARGE})
"""Statuses of a document that the index will never store as it is."""
_NAMED = re.compile(r'field(?: \[|=")([a-z_]+)[\]"]')
"""The name of a field in the reason of a refusal."""
_NO_INDEX = "index_not_found_exception"
_log = structlog.get_logger("decklog.search")
_CREATED, _REDIRECTED = 200, 300


class _Entry(NamedTuple):
    """A document of a bulk, and the alias that it is written under. `refused` are the fields that the index did not accept."""

    document: SearchDocument
    alias: str
    lines: bytes
    refused: frozenset[str] = frozenset()

    def without(self, fields: frozenset[str]) -> _Entry:
        refused = self.refused | fields
        return _Entry(self.document, self.alias, lines(self.document, self.alias, refused), refused)


def _bulks(generation: IndexGeneration, documents: Sequence[SearchDocument]) -> Iterator[list[_Entry]]:
    """Yield documents in groups whose lines have at most `BULK_BYTES_MAX`. Those from before the first range are left out."""
    group: list[_Entry] = []
    size = 0
    for document in documents:
        start = generation.range_of(document.received_at)
        if start is None:
            continue
        alias = write_alias(generation.range_index(start))
        entry = _Entry(document, alias, lines(document, alias))
        if group and size + len(entry.lines) > BULK_BYTES_MAX:
            yield group
            group, size = [], 0
        group.append(entry)
        size += len(entry.lines)
    if group:
        yield group


class _BusyError(Exception):
    """Some documents got status 429; the others are written."""


async def write(client: AsyncOpenSearch, generation: IndexGeneration, documents: Sequence[SearchDocument]) -> int:
    """Write documents to the ranges of a generation; return how many were refused as they were.

    Those are stored without the field that the index refuses, and their `index_refused` names the field: one record must not hold
    up the records after it.

    Raises:
        DecklogError: `search-unavailable` unless every document was stored.
    """
    refused: set[str] = set()
    for group in _bulks(generation, documents):
        waiting = group
        try:
            async for attempt in stamina.retry_context(
                on=_BusyError,
                attempts=BUSY_ATTEMPTS_MAX,
                timeout=BUSY_TIME_MAX,
                wait_initial=0.1,
                wait_max=2.0,
                wait_jitter=0.1,
            ):
                with attempt:
                    waiting = await _write_all(client, waiting, refused)
                    if waiting:
                        raise _BusyError
        except _BusyError:
            raise unavailable(f"is overloaded and refused {len(waiting)} documents") from None
    return len(refused)


async def _write_all(client: AsyncOpenSearch, entries: Sequence[_Entry], refused: set[str]) -> list[_Entry]:
    """Write documents, those that are refused with less of them, and note their ids; return those with status 429."""
    busy: list[_Entry] = []
    while entries:
        again: list[_Entry] = []
        for entry, result in await _write_once(client, entries):
            status = result.get("status", 0)
            if status == _BUSY:
                busy.append(entry)
            elif not _CREATED <= status < _REDIRECTED:
                again.append(_lessened(entry, status, result.get("error", {})))
        refused.update(document_id(entry.document) for entry in again)
        entries = again
    return busy


def _lessened(entry: _Entry, status: int, error: Mapping[str, Any]) -> _Entry:
    """Return a document without the field that the index refused, or with its place alone where that is not known.

    Raises:
        DecklogError: `search-unavailable` for other failures, and for a document that is refused with its place alone.
    """
    kind = error.get("type", "unknown")
    if kind == _NO_INDEX:
        raise unavailable("lacks the index of a range; provisioning creates it")
    if status not in _REFUSED or entry.refused >= REMOVABLE:
        raise unavailable(f"rejected a document (status {status}, {kind})")
    # The reason may quote values of the record, so only the name of a field is taken from it.
    named = frozenset(_NAMED.findall(error.get("reason", ""))) & REMOVABLE - entry.refused
    lessened = entry.without(named or REMOVABLE)
    place = entry.document
    _log.warning(
        "index refused part of a record",
        tenant_id=place.tenant_id,
        log=place.log.text,
        seq=place.seq,
        kind=kind,
        fields=sorted(named) or "all",
    )
    return lessened


async def _write_once(client: AsyncOpenSearch, entries: Sequence[_Entry]) -> list[tuple[_Entry, dict[str, Any]]]:
    """Send a bulk request; return each document with its result. Raises `search-unavailable` for a failure of the request."""
    try:
        results = await _results(client, entries)
    except DecklogError as error:
        if getattr(error.__cause__, "status_code", None) != _TOO_LARGE:
            raise
        # A proxy or a small node may accept less than `BULK_BYTES_MAX`.
        if len(entries) == 1:
            return [(entries[0], {"status": _TOO_LARGE})]
        half = len(entries) // 2
        return [*await _write_once(client, entries[:half]), *await _write_once(client, entries[half:])]
    if len(results) != len(entries):
        raise unavailable(f"answered for {len(results)} of {len(entries)} documents")
    return list(zip(entries, results, strict=True))


async def _results(client: AsyncOpenSearch, entries: Sequence[_Entry]) -> list[dict[str, Any]]:
    with translated():
        answer: dict[str, Any] = await client.bulk(
            body=b"".join(entry.lines for entry in entries),
            # Without `require_alias` a bulk creates a missing index, with a mapping guessed from the documents.
            params={"filter_path": "errors,items.*.status,items.*.error.type,items.*.error.reason", "require_alias": "true"},
        )
    return [result for item in answer.get("items", ()) for result in item.values()]
