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
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


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


def _gather(value: Any, path: str | None, texts: list[str], fields: set[str]) -> None:
    """Append the text of every leaf to `texts`, in reading order, and its term to `fields` unless `path` is None.

    This is most of the cost of indexing.
    """
    kind = type(value)
    if kind is dict:
        if path is None:
            for item in value.values():
                if type(item) is str:  # most are; a call would cost more than the rest
                    texts.append(item)
                else:
                    _gather(item, None, texts, fields)
        else:
            for key, item in value.items():
                _gather(item, f"{path}.{key}" if path else key, texts, fields)
        return
    if kind is list:
        for item in value:
            _gather(item, path, texts, fields)
        return
    if value is None:
        return
    text = value if kind is str else scalar(value)
    if kind is not bool:
        texts.append(text)
    if path and len(fields) < FIELDS_MAX:
        fields.add(leaf(path, text))


def _distinct_words(texts: list[str]) -> frozenset[str]:
    """Return the distinct words of several texts, at most the first `WORDS_MAX`."""
    # No word contains a line break, and the lower case of a letter depends on nothing beyond one.
    found = words("\n".join(texts))
    return frozenset(found) if len(found) <= WORDS_MAX else frozenset(islice(dict.fromkeys(found), WORDS_MAX))


def terms(content: dict[str, Any]) -> Terms:
    """Return the terms of a record's stored content, a decoded JSON object."""
    texts: list[str] = []
    fields: set[str] = set()
    actor, resource, source = content["actor"], content.get("resource") or {}, content.get("source") or {}
    for name in ("action", "message", "actor", "resource", "related", "before", "after"):
        _gather(content.get(name), None, texts, fields)
    _gather(content.get("metadata"), "", texts, fields)
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
        words=_distinct_words(texts),
    )
