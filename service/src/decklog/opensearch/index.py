"""Writing into an index: documents as the bulk endpoint reads them, in as few and as large requests as are good for it.

What a document holds is said by `mapping.FIELDS`; nothing here decides what of a record can be found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import stamina
from opensearchpy import AsyncOpenSearch

from decklog.domain.log import microseconds
from decklog.domain.store import SearchDocument
from decklog.opensearch.client import translated, unavailable
from decklog.opensearch.mapping import alias

BULK_BYTES_MAX = 4 * 1024 * 1024
"""Of one bulk request, unless a single document has more; larger ones only make the node collect garbage."""
REFUSED_ATTEMPTS_MAX = 6
REFUSED_TIME_MAX = timedelta(seconds=10)
"""How long a node that says 429 is asked again before the batch is given up (and tried later by the follower)."""

_REFUSED = 429
_NO_INDEX = "index_not_found_exception"
_CREATED, _REDIRECTED = 200, 300


class _Action(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="_id")


class _Index(msgspec.Struct, frozen=True):
    index: _Action


class _Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """The names are those of the mapping; times are whole microseconds, `occurred_ms` whole milliseconds."""

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
    resource_type: str | None = None
    resource_id: str | None = None
    ip: str | None = None
    session_id: str | None = None
    correlation_id: str | None = None
    id: str | None = None
    fields: frozenset[str] = frozenset()
    words: str = ""


_encoder = msgspec.json.Encoder()


def document_id(document: SearchDocument) -> str:
    """Made of what names a record for ever, so that writing it again changes nothing."""
    return f"{document.tenant_id}:{int(document.log)}:{document.epoch}:{document.seq}"


def _lines(document: SearchDocument) -> bytes:
    """The two lines of one document."""
    terms = document.terms
    occurred_at = microseconds(terms.occurred_at)
    body = _Document(
        document.tenant_id,
        int(document.log),
        document.epoch,
        document.seq,
        microseconds(document.received_at),
        occurred_at,
        occurred_at // 1_000,
        terms.action,
        terms.actor,
        terms.severity,
        terms.outcome,
        terms.actor_type,
        terms.resource_type,
        terms.resource_id,
        terms.ip,
        terms.session_id,
        terms.correlation_id,
        terms.id,
        terms.fields,
        " ".join(terms.words),
    )
    return _encoder.encode_lines((_Index(_Action(document_id(document))), body))


def _bulks(documents: Sequence[SearchDocument]) -> Iterator[list[bytes]]:
    """Documents as lines, in groups of at most `BULK_BYTES_MAX`."""
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
    """Some documents got 429; the others are in."""


async def write(client: AsyncOpenSearch, index: str, documents: Sequence[SearchDocument]) -> None:
    """Put documents into the index. Returns when every one was taken; raises `search-unavailable` otherwise."""
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
            raise unavailable(f"refused {len(waiting)} documents because it is overloaded") from None


async def _write_once(client: AsyncOpenSearch, index: str, lines: Sequence[bytes]) -> list[bytes]:
    """One bulk request; the lines of the documents that were refused with 429. Raises `search-unavailable`."""
    with translated():
        answer: dict[str, Any] = await client.bulk(
            index=alias(index),
            body=b"".join(lines),
            # Else the request would make an index that is not there, with a mapping that is guessed from the documents.
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
                raise unavailable("or its alias does not exist; provisioning makes it")
            raise unavailable(f"did not take a document (status {status}, {kind})")
    return refused
