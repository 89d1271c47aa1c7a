"""The terms of a record: bounded values that every engine compares, so that all engines agree.

OpenSearch stores them, the matcher compares them, and Postgres narrows by columns that are cut alike. Nothing else in Decklog may
interpret a record for a filter.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any

import msgspec

from decklog.domain.records.canonical import number

KEYWORD_CHARS_MAX = 512
"""Characters of a value that filters compare. Longer values are cut, in records and in queries alike."""
WORD_CHARS_MAX = 64
"""Characters of one word of full text. Longer words are cut, in records and in queries alike."""
WORDS_MAX = 4_000
"""Distinct words of one record, the first in reading order."""
FIELDS_MAX = 1_000
"""Leaves of `metadata` of one record, the first in reading order."""

_TEXTS_AT_ONCE = 2_000
_EXACT_MAX, _PLAIN_MIN = 10**15, 1e-4
_WORD = re.compile(r"\w+")
_CUT_WORD = itemgetter(slice(WORD_CHARS_MAX))
_MAPPED_BITS = 96
"""Bits of an IPv6 address in front of a mapped IPv4 address."""


@lru_cache(maxsize=20_000)
def parse_ip(text: str) -> str | None:
    """Return an IPv4 or IPv6 address in canonical spelling, or None for any other text.

    A mapped IPv4 address (`::ffff:192.0.2.1`) becomes the IPv4 address, and the zone of a link-local address (`fe80::1%eth0`) is
    dropped: engines cannot compare them.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if address.scope_id is not None:
            return str(ipaddress.IPv6Address(int(address)))
    return str(address)


def parse_network(text: str) -> str | None:
    """Return an address, or a network in CIDR notation, as a network in canonical spelling, or None for any other text."""
    if "/" not in text:
        text = parse_ip(text) or text
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return f"{mapped}/{network.prefixlen - _MAPPED_BITS}"
    return str(network)


def keyword(text: str) -> str:
    """Return a value as filters compare it: cut at `KEYWORD_CHARS_MAX`."""
    return text[:KEYWORD_CHARS_MAX]


def cut(text: str | None) -> str | None:
    """Return a value as filters compare it, None for None."""
    return None if text is None else text[:KEYWORD_CHARS_MAX]


def words(text: str) -> list[str]:
    """Return the words of a text in order: runs of letters, digits and `_`, in lower case, cut at `WORD_CHARS_MAX`."""
    return list(map(_CUT_WORD, _WORD.findall(text.lower())))


def scalar(value: Any) -> str:
    """Return a JSON scalar as text: a string unchanged, others as canonical JSON."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is int and -_EXACT_MAX < value < _EXACT_MAX:
        return str(value)
    if kind is float:
        # Between these bounds Python writes what ECMAScript does, but for an integer's `.0`.
        return repr(value).removesuffix(".0") if _PLAIN_MIN <= abs(value) < _EXACT_MAX else number(value)
    return msgspec.json.encode(value).decode()


def leaf(path: str, value: str) -> str:
    """Return one leaf of `metadata` as a term: `path=value`.

    `path` has dots between keys and no array indices. `=` and backslashes in it are escaped, so that two leaves never share a term.
    """
    path = keyword(path)
    if "=" in path or "\\" in path:
        path = path.replace("\\", "\\\\").replace("=", "\\=")
    return f"{path}={keyword(value)}"


class Terms(msgspec.Struct, frozen=True):
    """The terms of one record. Keywords are cut; `ip` is canonical, or None; `fields` are leaves of `metadata`."""

    occurred_at: datetime
    action: str
    actor: str
    actor_type: str | None
    resource_type: str | None
    resource_id: str | None
    severity: str
    outcome: str
    ip: str | None
    session_id: str | None
    correlation_id: str | None
    id: str | None
    fields: frozenset[str]
    words: frozenset[str]


def _gather_texts(value: Any, texts: list[str]) -> None:
    """Append the text of every leaf to `texts`, in reading order."""
    kind = type(value)
    if kind is str:
        texts.append(value)
    elif kind is dict or kind is list:
        for item in value.values() if kind is dict else value:
            if type(item) is str:  # most are; a call would cost more than the rest
                texts.append(item)
            else:
                _gather_texts(item, texts)
    elif kind is not bool and value is not None:
        texts.append(scalar(value))


def _gather(value: Any, path: str, texts: list[str], fields: set[str]) -> None:
    """Append the text of every leaf to `texts`, in reading order, and its term to `fields`.

    `path` is cut already, as a term cuts it: a long key with many members below it must not be copied for each of them.
    This is most of the cost of indexing.
    """
    kind = type(value)
    if len(fields) >= FIELDS_MAX:
        _gather_texts(value, texts)
    elif kind is dict:
        for key, item in value.items():
            _gather(item, f"{path}.{key}"[:KEYWORD_CHARS_MAX] if path else key[:KEYWORD_CHARS_MAX], texts, fields)
    elif kind is list:
        start = leaf(path, "")
        for item in value:
            if type(item) is dict or type(item) is list or len(fields) >= FIELDS_MAX:
                _gather(item, path, texts, fields)
            elif item is not None:
                _add(item, path and start, texts, fields)
    elif value is not None:
        _add(value, path and leaf(path, ""), texts, fields)


def _add(value: Any, start: str, texts: list[str], fields: set[str]) -> None:
    """Append one leaf that is not null; `start` is the beginning of its term, and empty where it has none."""
    text = value if type(value) is str else scalar(value)
    if type(value) is not bool:
        texts.append(text)
    if start:
        fields.add(start + text[:KEYWORD_CHARS_MAX])


def _distinct_words(texts: list[str]) -> frozenset[str]:
    """Return the distinct words of several texts, at most the first `WORDS_MAX`."""
    if len(texts) > _TEXTS_AT_ONCE:
        return _distinct_words_of_many(texts)
    # No word contains a line break, and the lower case of a letter depends on nothing beyond one.
    found = words("\n".join(texts))
    return frozenset(found) if len(found) <= WORDS_MAX else frozenset(islice(dict.fromkeys(found), WORDS_MAX))


def _distinct_words_of_many(texts: list[str]) -> frozenset[str]:
    """Return the same of very many texts, without a list of all their words."""
    found: dict[str, None] = {}
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        found.update(dict.fromkeys(words("\n".join(texts[start : start + _TEXTS_AT_ONCE]))))
        if len(found) >= WORDS_MAX:
            break
    return frozenset(islice(found, WORDS_MAX))


def terms(content: dict[str, Any], *, with_fields: bool = True, with_words: bool = True) -> Terms:
    """Return the terms of a record's stored content, a decoded JSON object.

    Without `with_fields` or `with_words` they have none, which costs less where a query asks for none.
    """
    texts: list[str] = []
    fields: set[str] = set()
    actor, resource, source = content["actor"], content.get("resource") or {}, content.get("source") or {}
    if with_words:
        for name in ("action", "message", "actor", "resource", "related", "before", "after"):
            _gather_texts(content.get(name), texts)
    if with_fields:
        _gather(content.get("metadata"), "", texts, fields)
    elif with_words:
        _gather_texts(content.get("metadata"), texts)
    ip = source.get("ip")
    return Terms(
        occurred_at=datetime.fromisoformat(content["occurred_at"]),
        action=keyword(content["action"]),
        actor=keyword(actor["id"]),
        actor_type=cut(actor.get("type")),
        resource_type=cut(resource.get("type")),
        resource_id=cut(resource.get("id")),
        severity=content["severity"],
        outcome=content["outcome"],
        ip=parse_ip(ip) if ip else None,
        session_id=cut(content.get("session_id")),
        correlation_id=cut(content.get("correlation_id")),
        id=cut(content.get("id")),
        fields=frozenset(fields),
        words=_distinct_words(texts) if with_words else frozenset(),
    )
