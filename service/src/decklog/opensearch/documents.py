"""The document of a record: its place and its terms, by the names of the mapping.

This module must not decide what of a record can be found: a document holds all terms, each in a form that fits the index.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from decklog.domain.log import microseconds
from decklog.domain.search.terms import KEYWORD_CHARS_MAX, keyword
from decklog.domain.search.words import tokens
from decklog.domain.store import SearchDocument


class _Action(msgspec.Struct, frozen=True):
    index: str = msgspec.field(name="_index")
    id: str = msgspec.field(name="_id")


class _Index(msgspec.Struct, frozen=True):
    index: _Action


class _Document(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A document, by the names of the mapping. `occurred_at` is microseconds since 1970, `occurred_ms` milliseconds."""

    tenant_id: int
    log: int
    seq: int
    occurred_at: int
    occurred_ms: int
    action: str | None = None
    actor: str | None = None
    severity: str | None = None
    outcome: str | None = None
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
    related: frozenset[str] = frozenset()
    related_type: frozenset[str] = frozenset()
    related_name: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    words: list[str] = []
    index_refused: list[str] = []


REMOVABLE = frozenset(_Document.__struct_fields__) - {"tenant_id", "log", "seq", "occurred_at", "occurred_ms", "index_refused"}
"""Fields without which a document still is one."""

_DEFAULTS = dict(
    zip(_Document.__struct_fields__[-len(_Document.__struct_defaults__) :], _Document.__struct_defaults__, strict=True)
)
_encoder = msgspec.json.Encoder()


def document_id(document: SearchDocument) -> str:
    """Return the id of a document, made of the record's permanent place, so that writing it again changes nothing.

    It has digits only, which an index packs two to a byte, and grows along a log: 10 for the tenant, 1 for the log, 6 for the epoch
    and 15 for the `seq`.
    """
    return f"{document.tenant_id:010}{int(document.log)}{document.epoch:06}{document.seq:015}"


def lines(document: SearchDocument, index: str, without: Collection[str] = ()) -> bytes:
    """Return the two lines of one document in a bulk into an index: action and body. The body lacks the fields `without`, and lists them."""
    body = _body(document)
    if without:
        body = msgspec.structs.replace(body, index_refused=sorted(without), **{name: _DEFAULTS[name] for name in without})
    return _encoder.encode_lines((_Index(_Action(index, document_id(document))), body))


def _optional(text: str | None) -> str | None:
    return text and keyword(text)


def _keywords(texts: frozenset[str]) -> frozenset[str]:
    # Few records have a value that is longer than a term may be.
    return texts if max(map(len, texts), default=0) <= KEYWORD_CHARS_MAX else frozenset(map(keyword, texts))


def _joined(text: str | None) -> str | None:
    return text and " ".join(tokens(text))


def _body(document: SearchDocument) -> _Document:
    terms = document.terms
    occurred_at = microseconds(terms.occurred_at)
    return _Document(
        tenant_id=document.tenant_id,
        log=int(document.log),
        seq=document.seq,
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
