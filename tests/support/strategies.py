"""Hypothesis strategies for properties of search: records with unusual values, and queries that match some of them.

The same cases test that the matcher, Postgres and OpenSearch behave alike. Values come from a small pool of edge cases, so
that queries often match them: letters whose lower case is another letter or two, wildcards and quotes of every engine, keys
with dots, values beyond the length limit, numbers that a double cannot represent, malformed addresses.

Strategies are cached, because hypothesis validates each new strategy at its first draw.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from itertools import chain, islice
from typing import Any

import msgspec
from hypothesis import strategies as st

from decklog.domain.errors import DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.record import OUTCOMES, SEVERITIES, Prepared, decode, prepare
from decklog.domain.records.refusal import DEPTH_MAX
from decklog.domain.search.fields import FIELDS, Field, Kind
from decklog.domain.search.query import Query, parse
from decklog.domain.search.terms import COLUMN_BYTES_MAX, COLUMN_CHARS_MAX, Terms, column, terms
from decklog.domain.search.words import TOKEN_CHARS_MAX, tokens
from tests.support.questions import Questions

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""The time that generated records are prepared at; none of them happened later."""
_FINGERPRINT_KEY = b"a key of the tests, of 32 bytes."
_LONG, _WIDE = "x" * COLUMN_CHARS_MAX, "\u00e9" + "\u4e2d" * (COLUMN_BYTES_MAX // 3)

TRAPS = (
    "alice",
    "Alice",
    "ALICE",
    "\u212a",  # the Kelvin sign, whose lower case is an ordinary k
    "K",
    "k",
    "\u0130stanbul",  # its lower case has one code point more
    "Stra\u00dfe",
    "strasse",
    "\u03a3\u0391\u03a3",  # sigma: two lower cases, by place in the word
    "\u03c3\u03b1\u03c2",
    "\u00e9",  # composed
    "e\u0301",  # decomposed: looks equal, but is another text
    "\u0661\u0662\u0663",  # digits that are not ASCII
    "123",
    "0123",
    "\U0001f984",
    "a\U0001f984b",
    "\u202ertl",
    "\ufeff",
    "\ufffe",
    "\u2028",
    "%",
    "_",
    "a_b",
    "a%b",
    "a-b",
    "a*b",
    "a?b",
    "a\\b",
    "\\",
    "\\u0041",
    "'",
    '"',
    'say "no"',
    "it''s",
    "--",
    "$1",
    "{}",
    "[]",
    "/a/",
    "a AND b",
    "NOT a",
    "(a OR b)",
    "a:b",
    "a=b",
    "a~",
    "null",
    "true",
    "false",
    "1.0",
    "1",
    "1e3",
    "=cmd|' /C calc'!A0",
    "\uff1d1+1",
    "user.login",
    "user.",
    "user",
    "ec2:RunInstances",
    " ",
    " a",
    "a ",
    "a\tb",
    "a\nb",
    "a\r\nb",
    "\x7f",
    _LONG,
    _LONG + "y",
    _LONG + "z",
    _WIDE,
    _WIDE + "y",
    column(_WIDE + "y"),
    "w" * TOKEN_CHARS_MAX,
    "w" * TOKEN_CHARS_MAX + "v",
    "\u767b\u5f55\u5931\u8d25",
    "\u5931\u8d25",
    "MU\u0308NCHEN munchen",
    "2026-01-01T00:00:00Z",
)
KEYS = (
    "a",
    "b",
    "a.b",
    "b.c",
    "",
    ".",
    "a b",
    "A",
    "\u212a",
    "key",
    "k'ey",
    'k"ey',
    "k\\ey",
    "%",
    "*",
    "a=b",
    "0",
    "password",
    "x" * 300,
)
ADDRESSES = (
    "192.0.2.1",
    "192.0.2.255",
    "192.0.3.0",
    "10.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "075.050.255.67",  # leading zeros: real CloudTrail, and no address
    "192.0.2.1:443",
    "192.0.2",
    "2001:db8::1",
    "2001:DB8:0:0:0:0:0:1",
    "2001:db8:ffff::",
    "::ffff:192.0.2.1",
    "::1",
    "::",
    "fe80::1%eth0",
    "1",
    "3232235777",
    "ec2.amazonaws.com",
    "",
    " 192.0.2.1",
    "192.0.2.1 ",
    "192.0.2.0/24",
)
NETWORKS = (
    *ADDRESSES[:6],
    "192.0.2.0/24",
    "192.0.2.1/24",
    "192.0.0.0/16",
    "0.0.0.0/0",
    "::/0",
    "2001:db8::/32",
    "2001:db8::1",
    "::ffff:192.0.2.1",
    "::ffff:0:0/96",
    "fe80::/10",
)
NUMBERS = (
    0,
    -1,
    1,
    2**53,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    2**70,
    -(2**70),
    0.5,
    -0.0,
    1.0,
    1e21,
    1e-7,
    5e-324,
    1.7976931348623157e308,
    0.1,
)
ZONES = (
    "UTC",
    "Europe/Amsterdam",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Havana",
    "America/Sao_Paulo",
)
"""Time zones: with and without daylight-saving time, at whole and other hours, with midnights that clocks skip or repeat."""
CHANGES = tuple(
    start + timedelta(minutes=15 * quarter)
    for start in (
        datetime(2018, 11, 4, 2, tzinfo=UTC),  # São Paulo skips midnight
        datetime(2025, 3, 30, 0, 30, tzinfo=UTC),  # Amsterdam
        datetime(2025, 10, 26, 0, tzinfo=UTC),
        datetime(2025, 3, 9, 4, 30, tzinfo=UTC),  # Havana skips midnight, New York
        datetime(2025, 11, 2, 4, tzinfo=UTC),  # Havana repeats it
        datetime(2025, 4, 5, 14, 30, tzinfo=UTC),  # Lord Howe, by half an hour
        datetime(2025, 10, 4, 15, tzinfo=UTC),
    )
    for quarter in range(12)
)
"""Moments around changes of clocks."""
TIMES = tuple(
    moment.isoformat()
    for moment in (
        datetime(2, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=14))),
        datetime(2025, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=12))),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(2026, 1, 5, tzinfo=UTC),  # a Monday
        datetime(2026, 1, 4, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 3, 1, 13, 30, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        NOW,
    )
)
EDGES = (*TIMES, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z")
"""Bounds of time: the times of records, and the earliest and the latest possible time."""

_trap = st.sampled_from(TRAPS)
_text = st.one_of(_trap, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))


def _name(longest: int) -> st.SearchStrategy[str]:
    return _text.map(lambda text: text[:longest] or "-")


@cache
def _trees() -> st.SearchStrategy[Any]:
    leaf = st.one_of(
        st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(), st.floats(allow_nan=False, allow_infinity=False), _text
    )
    keys = st.sampled_from(KEYS)
    return st.recursive(
        leaf, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)), max_leaves=8
    )


@cache
def _resources() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": _name(256)}, optional={"id": _text, "name": _text})


@cache
def values() -> st.SearchStrategy[dict[str, Any]]:
    """Records in plain JSON as a client sends them, without an id, so that none is a duplicate of another."""
    return st.fixed_dictionaries(
        {
            "action": _name(256),
            "actor": st.fixed_dictionaries(
                {"id": _name(1024)}, optional={"type": _text.map(lambda text: text[:256]), "name": _text}
            ),
            "occurred_at": st.sampled_from(TIMES),
        },
        optional={
            "resource": _resources(),
            "related": st.lists(_resources(), max_size=2),
            "severity": st.sampled_from(SEVERITIES).map(str),
            "outcome": st.sampled_from(OUTCOMES).map(str),
            "message": st.lists(_text, max_size=4).map(" ".join),
            "source": st.fixed_dictionaries({}, optional={"ip": st.sampled_from(ADDRESSES), "user_agent": _text}),
            "session_id": _text,
            "correlation_id": _text,
            "metadata": st.one_of(st.dictionaries(st.sampled_from(KEYS), _trees(), max_size=4), _trees()),
            "before": _trees(),
            "after": _trees(),
        },
    )


def prepared(value: dict[str, Any], *, recorder: bytes | None = None) -> Prepared:
    """A generated record as ingest prepares it."""
    return prepare(decode(msgspec.json.encode(value)), now=NOW, fingerprint_key=_FINGERPRINT_KEY, recorder=recorder)


def terms_of(record: Prepared) -> Terms:
    return terms(msgspec.json.decode(record.content))


@cache
def records() -> st.SearchStrategy[Prepared]:
    """Records ready to be stored."""
    return values().map(prepared)


def _satisfied_by(found: Terms, field: Field) -> list[tuple[str, str]]:
    """Parameters of one field that this record satisfies."""
    name, value = field.parameter, getattr(found, field.term)
    match field.kind:
        case Kind.SINCE:
            return [(name, value.isoformat())]
        case Kind.UNTIL:
            return [(name, (value + timedelta(microseconds=1)).isoformat())]
        case Kind.LEAVES:
            pairs = (leaf.partition("=") for leaf in sorted(value) if leaf.startswith(f"{name}."))
            return [(path, text) for path, _, text in islice(pairs, 4) if path != f"{name}." and text and "\\" not in path]
        case Kind.WORDS:
            return [(name, " ".join(sorted(set(chain.from_iterable(value)))[:3]))] if value else []
        case Kind.TEXT:
            return [(name, value)] if value and tokens(value) else []
        case Kind.KEYWORDS:
            return [(name, text) for text in sorted(value) if text]
        case Kind.KEYWORD if field.prefixes:
            prefixes = [value[:length].rstrip("*") + "*" for length in (0, 1, 5) if "*" not in value[:length]]
            return [(name, text) for text in (value, *prefixes)]
        case Kind.KEYWORD | Kind.CHOICE | Kind.CHOICES | Kind.NETWORK:
            return [(name, value)] if value else []
        case Kind.SEQ | Kind.RECEIPT:
            return []  # no parameters


def _from_record(found: Terms) -> st.SearchStrategy[list[tuple[str, str]]]:
    """Parameters that this record satisfies, some of them."""
    present = [parameter for field in FIELDS for parameter in _satisfied_by(found, field)]
    return st.lists(st.sampled_from(present), min_size=1, max_size=3, unique_by=lambda item: item[0])


def _parameters(field: Field) -> st.SearchStrategy[tuple[str, str]]:
    """Any parameter of one field that can be parsed."""
    name = st.just(field.parameter)
    match field.kind:
        case Kind.SINCE | Kind.UNTIL:
            return st.tuples(name, st.sampled_from(EDGES))
        case Kind.LEAVES:
            return st.tuples(st.sampled_from(KEYS).filter(bool).map(lambda key: f"{field.parameter}.{key}"), _text.filter(bool))
        case Kind.CHOICE | Kind.CHOICES:
            return st.tuples(name, st.sampled_from(field.choices))
        case Kind.NETWORK:
            return st.tuples(name, st.sampled_from(NETWORKS)).filter(lambda item: _parses([item]))
        case Kind.KEYWORD if field.prefixes:
            return st.tuples(name, _text.map(lambda text: text.replace("*", "") + "*"))
        case Kind.KEYWORD | Kind.KEYWORDS | Kind.TEXT | Kind.WORDS:
            return st.tuples(name, _text.filter(bool)).filter(lambda item: _parses([item]))
        case Kind.SEQ | Kind.RECEIPT:
            raise ValueError("no parameters")


@cache
def _at_random() -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.one_of(*map(_parameters, FIELDS)), min_size=1, max_size=3, unique_by=lambda item: item[0])


def _parses(parameters: list[tuple[str, str]]) -> bool:
    try:
        parse(parameters)
    except DecklogError:
        return False
    return True


@st.composite
def queries(draw: st.DrawFn, found: Terms) -> Query:
    """A query, of parameters or in the query language; usually one that has to do with a record with the terms `found`."""
    if draw(st.booleans()):
        return Questions(draw(st.randoms(use_true_random=False))).query(found)
    parameters = draw(st.one_of(_from_record(found), _from_record(found), _at_random()).filter(_parses))
    log, query = parse(parameters)
    assert log is LogName.EVENTS
    return query


@st.composite
def cases(draw: st.DrawFn, most: int = 6) -> tuple[list[Prepared], Query]:
    """Records in the order of storage, and a query that usually finds some of them."""
    made = draw(st.lists(records(), min_size=1, max_size=most))
    return made, draw(queries(terms_of(draw(st.sampled_from(made)))))


def nested(depth: int = DEPTH_MAX) -> Any:
    """A value of exactly this depth."""
    value: Any = "bottom"
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    return value
