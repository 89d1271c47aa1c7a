"""The terms of a record: the values that every engine compares, so that all engines agree.

OpenSearch stores them, the matcher compares them, and Postgres narrows by columns in the form of `column`. Values are whole; no number
of words or leaves is left out. Nothing else in Decklog may interpret a record for a filter.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from decklog.domain.log import EPOCH_START
from decklog.domain.records.canonical import number
from decklog.domain.search.words import tokens_of
from decklog.domain.times import instant

KEYWORD_CHARS_MAX = 8_000
"""Characters up to which an index holds a value whole. With the hash of a longer one, a term has at most the 32,766 bytes of Lucene."""
COLUMN_BYTES_MAX = 2_048
"""Bytes of UTF-8 up to which a column holds a value whole. An entry of a B-tree has at most 2,704 bytes."""
COLUMN_CHARS_MAX = 512
"""Characters of a value that every column holds, whatever they are. Records of earlier versions have no more of it."""
PATH_CHARS_MAX = 256
"""Characters up to which a term holds the path of its leaf whole. A list may have very many leaves of one path."""
PATH_HEAD_CHARS = 64
"""Characters that a term holds of a longer path, before the hash of the whole."""
IP_CHARS_MAX = 100
"""Characters of a text that may be an address. The longest spelling has 45, a port 6 and a zone usually less than 16."""

_CUT = "\0"
"""Between the head of a long value and the hash of the whole. No record and no query contains it, so no value looks like one that was cut."""
_HASH_BYTES = 16
_EXACT_MAX, _PLAIN_MIN = 10**15, 1e-4
_PORT = re.compile(r"\[([0-9A-Fa-f:.%\w-]+)\](?::\d{1,5})?|(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}")
_MAPPED_BITS = 96
"""Bits of an IPv6 address in front of a mapped IPv4 address."""


@lru_cache(maxsize=20_000)
def parse_ip(text: str) -> str | None:
    """Return an IPv4 or IPv6 address in canonical spelling, or None for any other text.

    A port (`192.0.2.1:443`, `[2001:db8::1]:443`), brackets and the zone of a link-local address (`fe80::1%eth0`) are dropped, and a
    mapped IPv4 address (`::ffff:192.0.2.1`) becomes the IPv4 address: engines cannot compare them.
    """
    if len(text) > IP_CHARS_MAX:
        return None
    if written := _PORT.fullmatch(text):
        text = written[1] or written[2]
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


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES).hexdigest()


def keyword(text: str) -> str:
    """Return the form in which an index holds a value: whole, or head and hash of the whole beyond `KEYWORD_CHARS_MAX`.

    Different values have different forms. A prefix of a value is a prefix of its form, up to `KEYWORD_CHARS_MAX`.
    """
    return text if len(text) <= KEYWORD_CHARS_MAX else f"{text[:KEYWORD_CHARS_MAX]}{_CUT}{_hash(text)}"


def column(text: str) -> str:
    """Return the form in which a column of `records` holds a value: whole, or head and hash beyond `COLUMN_BYTES_MAX`.

    Different values have different forms: one with a hash has more bytes than any whole value. PostgreSQL cannot store U+0000.
    """
    if len(text) <= COLUMN_CHARS_MAX or len(encoded := text.encode()) <= COLUMN_BYTES_MAX:
        return text
    return encoded[:COLUMN_BYTES_MAX].decode(errors="ignore") + _hash(text)


def optional_column(text: str | None) -> str | None:
    """Return the form in which a column holds a value, None for None."""
    return None if text is None else column(text)


def column_forms(text: str) -> tuple[str, ...]:
    """Return every form in which a column may hold a value: older records have its first `COLUMN_CHARS_MAX` characters alone."""
    return (text,) if len(text) <= COLUMN_CHARS_MAX else (column(text), text[:COLUMN_CHARS_MAX])


def column_decides(text: str) -> bool:
    """Return whether a column with a form of this value belongs to this value alone, so that no matcher need decide."""
    return len(text) < COLUMN_CHARS_MAX


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


def ordered(value: float) -> str:
    """Return a text of a JSON number, exact, whose order among such texts is the order of the numbers.

    It holds the sign, the power of ten and the digits; those of a negative number are complements to nine.
    """
    return ordered_text(scalar(value))


def ordered_text(written: str) -> str:
    """Return the same of a number as JSON writes it."""
    mantissa, _, exponent = written.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "1"
    power = int(exponent or 0) - len(fraction) + len(digits)
    text = f"{power + _POWER_ZERO:05}{digits.rstrip('0')}"
    return f"0{text.translate(_COMPLEMENT)}~" if written.startswith("-") else f"2{text}"


_POWER_ZERO = 50_000
"""Added to powers of ten, from about -324 to 4,300, so that all have five digits."""
_COMPLEMENT = str.maketrans("0123456789", "9876543210")


class _LongPath:
    """A path longer than `PATH_CHARS_MAX`: its head, and the hash of all its characters so far.

    A long key may have many members below it, so their paths are not copies of it.
    """

    __slots__ = ("_head", "_state")

    def __init__(self, head: str, state: hashlib.blake2b) -> None:
        self._head, self._state = head, state

    @classmethod
    def of(cls, path: str) -> _LongPath:
        return cls(path[:PATH_HEAD_CHARS], hashlib.blake2b(path.encode(), digest_size=_HASH_BYTES))

    def below(self, key: str) -> _LongPath:
        state = self._state.copy()
        state.update(f".{key}".encode())
        return _LongPath(self._head, state)

    def __str__(self) -> str:
        return f"{self._head}{_CUT}{self._state.hexdigest()}"


def below(path: str | _LongPath, key: str) -> str | _LongPath:
    """Return the path of a member; both paths are escaped."""
    if "=" in key or "\\" in key:
        key = _escaped(key)
    if isinstance(path, _LongPath):
        return path.below(key)
    joined = f"{path}.{key}"
    return joined if len(joined) <= PATH_CHARS_MAX else _LongPath.of(joined)


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace("=", "\\=")


def path_term(path: str) -> str:
    """Return a leaf's path, with dots between keys and no array indices, as terms hold it.

    `=` and backslashes are escaped, so that two leaves never share a term. Different paths have different forms.
    """
    path = _escaped(path)
    return path if len(path) <= PATH_CHARS_MAX else str(_LongPath.of(path))


def leaf(path: str, value: str) -> str:
    """Return one leaf of `metadata`, `before` or `after` as a term: `path=value`, for example `metadata.reason=retention`."""
    return f"{path_term(path)}={value}"


class Terms(msgspec.Struct, frozen=True):
    """The terms of one record. Values are whole, `ip` is canonical, or None.

    `leaves` are those of `metadata`, `before` and `after`, as `leaf` writes them; `numbers` are the numbers among them, as `ordered`
    writes their values; `paths` are those of every value in there but null, objects included. `seq` and `received_at` are the
    record's place, where it is known. `texts` are the tokens of each distinct text, in reading order.
    """

    occurred_at: datetime
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
    related: frozenset[str] = frozenset()
    related_type: frozenset[str] = frozenset()
    related_name: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    seq: int = -1
    received_at: datetime = EPOCH_START
    texts: tuple[tuple[str, ...], ...] = ()


TEXTS = (
    *("action", "message", "id", "actor", "resource", "related", "source", "session_id", "correlation_id"),
    *("before", "after", "metadata", "recorded_by", "masked"),
)
"""Members of a record whose texts are searched, in reading order."""
TREES = ("before", "after", "metadata")
"""Members whose leaves are found by their paths."""


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


class _Leaves:
    """The leaves of a record, gathered. This is much of the cost of indexing."""

    def __init__(self) -> None:
        self.leaves: set[str] = set()
        self.numbers: set[str] = set()
        self.paths: set[str] = set()

    def gather(self, value: Any, path: str | _LongPath) -> None:
        """Add a JSON value at this path, and the leaves below it."""
        kind = type(value)
        if value is None:
            return
        term = path if type(path) is str else str(path)
        self.paths.add(term)
        if kind is str:
            self.leaves.add(f"{term}={value}")
        elif kind is dict:
            for key, item in value.items():
                self.gather(item, below(path, key))
        elif kind is list:
            self._gather_items(value, path, f"{term}=")
        else:
            self._add(value, kind, f"{term}=")

    def _gather_items(self, items: list[Any], path: str | _LongPath, start: str) -> None:
        """Add the items of a list; `start` is the beginning of their terms."""
        for item in items:
            kind = type(item)
            if kind is str:
                self.leaves.add(start + item)
            elif kind is dict or kind is list:
                self.gather(item, path)
            elif item is not None:
                self._add(item, kind, start)

    def _add(self, value: Any, kind: type, start: str) -> None:
        """Add a number or a boolean."""
        self.leaves.add(start + scalar(value))
        if kind is not bool:
            self.numbers.add(start + ordered(value))


def _members(resources: list[dict[str, str]], name: str) -> frozenset[str]:
    return frozenset(found for resource in resources if (found := resource.get(name)) is not None)


def terms(
    content: dict[str, Any],
    *,
    seq: int = -1,
    received_at: datetime = EPOCH_START,
    with_leaves: bool = True,
    with_texts: bool = True,
) -> Terms:
    """Return the terms of a record: of its stored content, a decoded JSON object, and of its place.

    Without `with_leaves` or `with_texts` they have none, which costs less where a query asks for none.
    """
    found = _Leaves()
    if with_leaves:
        for name in TREES:
            if name in content:
                found.gather(content[name], name)
    actor, resource, source = content["actor"], content.get("resource") or {}, content.get("source") or {}
    related, recorder = content.get("related") or [], content.get("recorded_by") or {}
    ip = source.get("ip")
    return Terms(
        occurred_at=instant(content["occurred_at"]),
        action=content["action"],
        actor=actor["id"],
        severity=content["severity"],
        outcome=content["outcome"],
        actor_type=actor.get("type"),
        actor_name=actor.get("name"),
        resource_type=resource.get("type"),
        resource_id=resource.get("id"),
        resource_name=resource.get("name"),
        ip=parse_ip(ip) if ip else None,
        user_agent=source.get("user_agent"),
        session_id=content.get("session_id"),
        correlation_id=content.get("correlation_id"),
        id=content.get("id"),
        message=content.get("message"),
        recorded_by=recorder.get("id"),
        recorded_by_type=recorder.get("type"),
        related=_members(related, "id"),
        related_type=_members(related, "type"),
        related_name=_members(related, "name"),
        masked=frozenset(content.get("masked") or ()),
        leaves=frozenset(found.leaves),
        numbers=frozenset(found.numbers),
        paths=frozenset(found.paths),
        seq=seq,
        received_at=received_at,
        texts=_texts(content) if with_texts else (),
    )


def _texts(content: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Return the tokens of each distinct text of a record. Many recur: identities and addresses above all."""
    texts: list[str] = []
    for name in TEXTS:
        _gather_texts(content.get(name), texts)
    return tokens_of(list(dict.fromkeys(texts)))
