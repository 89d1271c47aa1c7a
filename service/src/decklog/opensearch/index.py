"""Writing documents to an index in bulk requests of a bounded size.

The fields of a document are those of `mapping.PROPERTIES`. This module must not decide what of a record can be found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import stamina
from opensearchpy import AsyncOpenSearch

from decklog.domain.log import microseconds
from decklog.domain.search.terms import keyword
from decklog.domain.search.words import tokens
from decklog.domain.store import SearchDocument
from decklog.opensearch.client import translated, unavailable
from decklog.opensearch.mapping import alias

BULK_BYTES_MAX = 4 * 1024 * 1024
"""Size of one bulk request, unless a single document is larger. Larger requests only cost the node garbage collections."""
REFUSED_ATTEMPTS_MAX = 6
REFUSED_TIME_MAX = timedelta(seconds=10)
"""Retries after status 429; then the batch fails, and the follower retries it later."""

REMOVED_AT_ONCE = 5_000
"""Documents that one request removes, far below its time limit."""

_REFUSED = 429
_NO_INDEX = "index_not_found_exception"
_CREATED, _REDIRECTED = 200, 300


class _Action(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="_id")


class _Index(msgspec.Struct, frozen=True):
    index: _Action


class _Document(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A document, by the names of the mapping. Times are microseconds since 1970, `occurred_ms` milliseconds."""

    tenant_id: int
    log: int
    epoch: int
    seq: int
    received_at: int
    occurred_at: int
    occurred_ms: int
    action: str
    actor: str
    severity: str
    outcome: str
    actor_type: str | None = None
    actor_name: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    resource_name: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    session_id: str | None = None
    correlation_id: str | None = None
    id: str | None = None
    message: str | None = None
    recorded_by: str | None = None
    recorded_by_type: str | None = None
    related: list[str] = []
    related_type: list[str] = []
    related_name: list[str] = []
    masked: list[str] = []
    leaves: list[str] = []
    numbers: list[str] = []
    paths: list[str] = []
    words: list[str] = []


_encoder = msgspec.json.Encoder()


def document_id(document: SearchDocument) -> str:
    """Return the id of a document, made of the record's permanent place, so that writing it again changes nothing."""
    return f"{document.tenant_id}:{int(document.log)}:{document.epoch}:{document.seq}"


def _optional(text: str | None) -> str | None:
    return text and keyword(text)


def _keywords(texts: frozenset[str]) -> list[str]:
    return list(map(keyword, texts))


def _joined(text: str | None) -> str | None:
    return text and " ".join(tokens(text))


def _lines(document: SearchDocument) -> bytes:
    """Return the two lines of one document: action and body."""
    terms = document.terms
    occurred_at = microseconds(terms.occurred_at)
    body = _Document(
        tenant_id=document.tenant_id,
        log=int(document.log),
        epoch=document.epoch,
        seq=document.seq,
        received_at=microseconds(document.received_at),
        occurred_at=occurred_at,
        occurred_ms=occurred_at // 1_000,
        action=keyword(terms.action),
        actor=keyword(terms.actor),
        severity=terms.severity,
        outcome=terms.outcome,
        actor_type=_optional(terms.actor_type),
        actor_name=_joined(terms.actor_name),
        resource_type=_optional(terms.resource_type),
        resource_id=_optional(terms.resource_id),
        resource_name=_joined(terms.resource_name),
        ip=terms.ip,
        user_agent=_joined(terms.user_agent),
        session_id=_optional(terms.session_id),
        correlation_id=_optional(terms.correlation_id),
        id=_optional(terms.id),
        message=_joined(terms.message),
        recorded_by=_optional(terms.recorded_by),
        recorded_by_type=_optional(terms.recorded_by_type),
        related=_keywords(terms.related),
        related_type=_keywords(terms.related_type),
        related_name=_keywords(terms.related_name),
        masked=_keywords(terms.masked),
        leaves=_keywords(terms.leaves),
        numbers=_keywords(terms.numbers),
        paths=_keywords(terms.paths),
        words=list(map(" ".join, terms.texts)),
    )
    return _encoder.encode_lines((_Index(_Action(document_id(document))), body))


def _bulks(documents: Sequence[SearchDocument]) -> Iterator[list[bytes]]:
    """Yield the lines of documents, in groups of at most `BULK_BYTES_MAX`."""
    group: list[bytes] = []
    size = 0
    for document in documents:
        lines = _lines(document)
        if group and size + len(lines) > BULK_BYTES_MAX:
            yield group
            group, size = [], 0
        group.append(lines)
        size += len(lines)
    if group:
        yield group


class _RefusedError(Exception):
    """Some documents got status 429; the others are written."""


async def write(client: AsyncOpenSearch, index: str, documents: Sequence[SearchDocument]) -> None:
    """Write documents to the index. Raises `search-unavailable` unless every one was stored."""
    for group in _bulks(documents):
        waiting = group
        try:
            async for attempt in stamina.retry_context(
                on=_RefusedError,
                attempts=REFUSED_ATTEMPTS_MAX,
                timeout=REFUSED_TIME_MAX,
                wait_initial=0.1,
                wait_max=2.0,
                wait_jitter=0.1,
            ):
                with attempt:
                    waiting = await _write_once(client, index, waiting)
                    if waiting:
                        raise _RefusedError
        except _RefusedError:
            raise unavailable(f"is overloaded and refused {len(waiting)} documents") from None


async def _write_once(client: AsyncOpenSearch, index: str, lines: Sequence[bytes]) -> list[bytes]:
    """Send one bulk request; return the lines of documents with status 429. Raises `search-unavailable` for other failures."""
    with translated():
        answer: dict[str, Any] = await client.bulk(
            index=alias(index),
            body=b"".join(lines),
            # Without `require_alias` a bulk creates a missing index, with a mapping guessed from the documents.
            params={"filter_path": "errors,items.*.status,items.*.error.type", "require_alias": "true"},
        )
    results = [result for item in answer.get("items", ()) for result in item.values()]
    if len(results) != len(lines):
        raise unavailable(f"answered for {len(results)} of {len(lines)} documents")
    refused: list[bytes] = []
    for document, result in zip(lines, results, strict=True):
        status = result.get("status", 0)
        if status == _REFUSED:
            refused.append(document)
        elif not _CREATED <= status < _REDIRECTED:
            kind = result.get("error", {}).get("type", "unknown")
            if kind == _NO_INDEX:
                raise unavailable("or its alias does not exist; provisioning creates both")
            raise unavailable(f"rejected a document (status {status}, {kind})")
    return refused


async def remove_some(client: AsyncOpenSearch, index: str, query: dict[str, Any]) -> tuple[int, int]:
    """Remove at most `REMOVED_AT_ONCE` documents that match, and refresh; a missing index has none.

    A single request for all of them would exceed its time limit and start over each time.

    Returns:
        The number of removed documents, and of those that changed meanwhile and remain.

    Raises:
        DecklogError: `search-unavailable`.
    """
    params = {"max_docs": str(REMOVED_AT_ONCE), "conflicts": "proceed", "refresh": "true", "ignore_unavailable": "true"}
    with translated():
        answer = await client.delete_by_query(index=index, body={"query": query}, params=params)
    if answer.get("failures"):
        raise unavailable("could not remove documents")
    return answer.get("deleted", 0), answer.get("version_conflicts", 0)
