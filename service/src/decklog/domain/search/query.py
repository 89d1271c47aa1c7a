"""The filter model of lists, exports, statistics and streams, and its evaluation in memory.

`parse` turns query parameters into a `Query` and refuses a name that it does not know, so no filter is silently ignored. `matches`
decides whether a record's terms satisfy a query; OpenSearch and SQL translate the same filters and must agree with it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from decklog.domain.errors import invalid_parameter, unknown_parameter
from decklog.domain.log import LogName
from decklog.domain.records.canonical import UNSTORABLE
from decklog.domain.search.fields import CONTENT, FIELDS, NAMES, PATHS, Field, Kind, find
from decklog.domain.search.terms import COLUMN_CHARS_MAX, Terms, column_decides, leaf, parse_network
from decklog.domain.search.words import tokens

PARAMETER_CHARS_MAX = 2_000
"""Characters of the value of one parameter."""
WORDS_MAX = 32
"""Words in `q`."""
LEAVES_MAX = 16
"""Filters by leaves (`metadata.<path>` and the like) in one query."""
PARAMETERS = ("log", *NAMES)
"""Names of the parameters that `parse` reads, besides those of leaves."""

_DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})")
_EARLIEST, _LATEST = datetime(1, 2, 1, tzinfo=UTC), datetime(9999, 12, 1, tzinfo=UTC)
"""Bounds are clamped to these: records lie within the years 2 to 9998, and every engine can still calculate here."""


class Filter(NamedTuple):
    """One condition of a query: `value` as the field's kind has it; with `prefix`, of what the value must begin with."""

    field: Field
    value: Any
    prefix: bool


class Query(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """The conditions that a record must satisfy, all of them; an empty query matches every record.

    `action` is a prefix where `action_prefix` is true. `since` is inclusive, `until` exclusive, both by `occurred_at`. `ip` is a
    network in canonical spelling. `leaves` are (path, value). All of `words` must occur, in any order, and so must all words of a
    text field within it. Names and order are part of page cursors and of access records.
    """

    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    actor_type: str | None = None
    actor_name: tuple[str, ...] = ()
    action: str | None = None
    action_prefix: bool = False
    resource_type: str | None = None
    resource_id: str | None = None
    resource_name: tuple[str, ...] = ()
    related: str | None = None
    related_type: str | None = None
    related_name: str | None = None
    severities: tuple[str, ...] = ()
    outcome: str | None = None
    ip: str | None = None
    user_agent: tuple[str, ...] = ()
    session_id: str | None = None
    correlation_id: str | None = None
    id: str | None = None
    message: tuple[str, ...] = ()
    recorded_by: str | None = None
    recorded_by_type: str | None = None
    masked: str | None = None
    leaves: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()

    @cached_property
    def filters(self) -> tuple[Filter, ...]:
        """The conditions, in the order of `FIELDS`."""
        return tuple(
            Filter(field, value, field.prefixes and getattr(self, f"{field.attribute}_prefix"))
            for field in FIELDS
            if (value := self._value(field)) is not None and value != ()
        )

    def _value(self, field: Field) -> Any:
        value = getattr(self, field.attribute)
        return tuple(pair for pair in value if find(pair[0]) is field) if field.kind is Kind.LEAVES else value

    @property
    def empty(self) -> bool:
        """Whether every record matches, because there is no condition."""
        return not self.filters

    @property
    def needs_content(self) -> bool:
        """Whether the content must be matched: some fields have no column of their own, and columns do not hold long values."""
        return any(item.field.column == CONTENT or not _column_decides(item) for item in self.filters)


def _column_decides(wanted: Filter) -> bool:
    if wanted.field.kind is not Kind.KEYWORD:
        return True
    return len(wanted.value) <= COLUMN_CHARS_MAX if wanted.prefix else column_decides(wanted.value)


def parse_time(name: str, text: str) -> datetime:
    """Return an RFC 3339 time with offset in UTC, clamped to the times that records can have.

    Raises:
        DecklogError: `invalid-parameter`.
    """
    if not _DATE_TIME.fullmatch(text):
        raise invalid_parameter(name, f"{text!r} is not an RFC 3339 time with offset, like 2026-01-31T12:00:00Z.")
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise invalid_parameter(name, f"{text!r}: {error}.") from None
    try:
        return min(max(moment.astimezone(UTC), _EARLIEST), _LATEST)
    except OverflowError:
        return _EARLIEST if moment.year == 1 else _LATEST


def _network(text: str) -> str:
    network = parse_network(text)
    if network is None:
        raise invalid_parameter("ip", f"{text!r} is neither an address nor a network in CIDR notation.")
    return network


def _one_of(name: str, text: str, allowed: Sequence[str]) -> str:
    if text not in allowed:
        raise invalid_parameter(name, f"{text!r} is not one of {', '.join(allowed)}.")
    return text


def _keyword(field: Field, text: str) -> str:
    if field.prefixes:
        text = text.removesuffix("*")
        if "*" in text:
            raise invalid_parameter(field.parameter, "'*' is allowed only at the end, as in user.*")
    return text


def _words(name: str, text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(tokens(text)))
    if not found:
        raise invalid_parameter(name, "at least one word of letters or digits is required.")
    if len(found) > WORDS_MAX:
        raise invalid_parameter(name, f"at most {WORDS_MAX} words are allowed.")
    return found


def _value(field: Field, name: str, text: str) -> Any:
    """Return the value of a filter, as `Query` holds it, from the name and the text of its parameter."""
    match field.kind:
        case Kind.SINCE | Kind.UNTIL:
            return parse_time(name, text)
        case Kind.KEYWORD | Kind.KEYWORDS:
            return _keyword(field, text)
        case Kind.CHOICE | Kind.CHOICES:
            return _one_of(name, text, field.choices)
        case Kind.NETWORK:
            return _network(text)
        case Kind.LEAVES:
            return name, text
        case Kind.TEXT | Kind.WORDS:
            return _words(name, text)


_SEVERAL = (Kind.CHOICES, Kind.LEAVES)
"""Kinds whose filter holds the values of several parameters."""


def _field(name: str, others: Sequence[str]) -> Field | None:
    """Return the field of a parameter, or None for `log`. Raises `unknown-parameter`."""
    field = find(name)
    if field is None and name != "log":
        raise unknown_parameter(name, ", ".join((*sorted({*PARAMETERS, *others}), *PATHS)))
    return field


def _check_text(name: str, text: str) -> None:
    if not text or len(text) > PARAMETER_CHARS_MAX or UNSTORABLE.search(name + text):
        raise invalid_parameter(
            name, f"must have 1 to {PARAMETER_CHARS_MAX} characters, none of them U+0000 or a lone surrogate."
        )


def _query(values: dict[str, Any]) -> Query:
    """Return the query of these values, by name. Raises `invalid-parameter` for too many leaves and for an empty range."""
    leaves = sorted(values.get("leaves", ()))
    if len(leaves) > LEAVES_MAX:
        raise invalid_parameter(
            "metadata", f"at most {LEAVES_MAX} filters by metadata, before and after are allowed in one query."
        )
    query = msgspec.convert({**values, "severities": sorted(set(values.get("severities", ()))), "leaves": leaves}, Query)
    if query.since and query.until and query.since >= query.until:
        raise invalid_parameter("from", "must be before `to`.")
    return query


def parse(parameters: Iterable[tuple[str, str]], *, others: Sequence[str] = ()) -> tuple[LogName, Query]:
    """Return the log and the filters of query parameters.

    Args:
        parameters: Names and values, decoded, in the order sent.
        others: Names that the caller reads itself; they are skipped.

    Raises:
        DecklogError: `unknown-parameter` or `invalid-parameter`, with the name of the first parameter that is refused.
    """
    log = LogName.EVENTS
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for name, text in parameters:
        if name in others:
            continue
        field = _field(name, others)
        if name in seen and not (field and field.kind is Kind.CHOICES):
            raise invalid_parameter(name, "may be given once only.")
        seen.add(name)
        _check_text(name, text)
        if field is None:
            log = LogName.parse(text)
            continue
        value = _value(field, name, text)
        if field.kind in _SEVERAL:
            values.setdefault(field.attribute, []).append(value)
        else:
            values[field.attribute] = value
        if field.prefixes:
            values[f"{field.attribute}_prefix"] = text.endswith("*")
    return log, _query(values)


def _in_network(ip: str | None, network: str) -> bool:
    return ip is not None and ipaddress.ip_address(ip) in ipaddress.ip_network(network)


_SATISFIED: dict[Kind, Callable[[Any, Any], bool]] = {
    Kind.SINCE: lambda found, wanted: found >= wanted,
    Kind.UNTIL: lambda found, wanted: found < wanted,
    Kind.KEYWORD: lambda found, wanted: found == wanted,
    Kind.KEYWORDS: lambda found, wanted: wanted in found,
    Kind.TEXT: lambda found, wanted: found is not None and set(tokens(found)).issuperset(wanted),
    Kind.CHOICE: lambda found, wanted: found == wanted,
    Kind.CHOICES: lambda found, wanted: found in wanted,
    Kind.NETWORK: _in_network,
    Kind.LEAVES: lambda found, wanted: all(leaf(path, value) in found for path, value in wanted),
    Kind.WORDS: lambda found, wanted: set(chain.from_iterable(found)).issuperset(wanted),
}
"""Whether a record's term satisfies a filter's value."""


def _satisfies(terms: Terms, wanted: Filter) -> bool:
    found = getattr(terms, wanted.field.term)
    if wanted.prefix:
        return found is not None and found.startswith(wanted.value)
    return _SATISFIED[wanted.field.kind](found, wanted.value)


def matches(query: Query, terms: Terms) -> bool:
    """Return whether a record with these terms satisfies the query."""
    return all(_satisfies(terms, wanted) for wanted in query.filters)


def describe(query: Query) -> dict[str, object]:
    """Return the filters as plain JSON for access records, values of `metadata` included."""
    plain: dict[str, object] = msgspec.to_builtins(query)
    return plain
