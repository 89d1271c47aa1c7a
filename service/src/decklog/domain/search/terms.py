"""What can be found about a record: one function makes bounded terms of it, and every engine works on those.

OpenSearch stores them, the matcher of streams compares them, and Postgres narrows by columns and lets the matcher
decide the rest, so that the three agree. Nothing else in Decklog may interpret a record for a filter.
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
"""Characters of a value that filters compare; the rest of a longer value is cut, in records and in queries alike."""
WORD_CHARS_MAX = 64
"""Characters of one word of full text, cut alike on both sides."""
WORDS_MAX = 4_000
"""Distinct words kept of one record, the first in reading order."""
FIELDS_MAX = 1_000
"""Leaves of `metadata` that can be filtered in one record."""

_WORD = re.compile(r"\w+")
_CUT_WORD = itemgetter(slice(WORD_CHARS_MAX))
_MAPPED_BITS = 96
"""Of an IPv6 address before the IPv4 address that it may hold."""


@lru_cache(maxsize=20_000)
def parse_ip(text: str) -> str | None:
    """An IPv4 or IPv6 address in its one canonical spelling, or None where the text is something else.

    An IPv4 address written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address, and the zone of a link-local address
    (`fe80::1%eth0`) means something on one machine only: no engine could compare either.
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
    """An address or a network in CIDR notation as a network in its one canonical spelling, or None; as `parse_ip`."""
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
    """A value as filters compare it."""
    return text[:KEYWORD_CHARS_MAX]


def words(text: str) -> list[str]:
    """The words of a text, in order: runs of letters, digits and `_`, in lower case."""
    return list(map(_CUT_WORD, _WORD.findall(text.lower())))


def scalar(value: Any) -> str:
    """A JSON scalar as text: strings as they are, others as JSON writes them."""
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def leaf(path: str, value: str) -> str:
    """One filterable leaf: `path` below `metadata` with dots between keys, array indices left out.

    What is `=` in a path is written so that no other path and value make the same leaf.
    """
    path = keyword(path)
    if "=" in path or "\\" in path:
        path = path.replace("\\", "\\\\").replace("=", "\\=")
    return f"{path}={keyword(value)}"


class Terms(msgspec.Struct, frozen=True):
    """All that can be found about one record. Keywords are cut, `ip` is parsed or None, `words` are distinct."""

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
    """Every leaf's text, in reading order; its field too where a path is given. This is most of what indexing costs."""
    kind = type(value)
    if kind is dict:
        if path is None:
            for item in value.values():
                if type(item) is str:  # most are, and a call costs more than the rest
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
    """The words of several texts; the first `WORDS_MAX` distinct ones where there are more."""
    # No word goes over a line's end, and what a letter's lower case is depends on nothing beyond it.
    found = words("\n".join(texts))
    return frozenset(found) if len(found) <= WORDS_MAX else frozenset(islice(dict.fromkeys(found), WORDS_MAX))


def _cut(value: Any) -> str | None:
    return None if value is None else keyword(value)


def terms(content: dict[str, Any]) -> Terms:
    """Terms of a record's stored content (the decoded JSON object)."""
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
        actor_type=_cut(actor.get("type")),
        resource_type=_cut(resource.get("type")),
        resource_id=_cut(resource.get("id")),
        severity=content["severity"],
        outcome=content["outcome"],
        ip=parse_ip(ip) if ip else None,
        session_id=_cut(content.get("session_id")),
        correlation_id=_cut(content.get("correlation_id")),
        id=_cut(content.get("id")),
        fields=frozenset(fields),
        words=_distinct_words(texts),
    )
