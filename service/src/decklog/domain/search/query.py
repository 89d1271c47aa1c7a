"""One filter model for lists, exports, statistics and streams, and its evaluation in memory.

`parse` turns query parameters into a `Query` and refuses what it does not know, so that no filter is ever silently
ignored; `matches` says whether a record's terms satisfy it. OpenSearch and SQL translate the same fields.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.record import OUTCOMES, SEVERITIES
from decklog.domain.search.terms import Terms, field, keyword, parse_network, words

PARAMETER_CHARS_MAX = 2_000
WORDS_MAX = 32
"""Words in `q`."""
METADATA_MAX = 16
"""`metadata.<path>` filters in one query."""

_DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})")

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_EARLIEST, _LATEST = datetime(1, 2, 1, tzinfo=UTC), datetime(9999, 12, 1, tzinfo=UTC)
"""No record is beyond (years 2 to 9998), and within these every engine can still calculate."""


class Query(msgspec.Struct, frozen=True, omit_defaults=True):
    """What to find. Every field narrows; an empty query matches everything. Keywords are cut as terms are.

    `action` matches the whole value, or a prefix where `action_prefix` is true. `since` is inclusive, `until`
    exclusive, both by `occurred_at`. `ip` is a network in its canonical spelling. `fields` are `metadata` leaves as
    (path, value); `words` must all occur, in any order.
    """

    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    action: str | None = None
    action_prefix: bool = False
    resource_type: str | None = None
    resource_id: str | None = None
    severities: tuple[str, ...] = ()
    outcome: str | None = None
    ip: str | None = None
    session_id: str | None = None
    correlation_id: str | None = None
    id: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return self == _EVERYTHING

    @property
    def needs_content(self) -> bool:
        """Whether columns alone cannot decide: full text and `metadata` are only in the content."""
        return bool(self.words or self.fields)


_EVERYTHING = Query()

_KEYWORDS = ("actor", "resource_type", "resource_id", "session_id", "correlation_id", "id")
PARAMETERS = ("from", "to", "action", "severity", "outcome", "ip", "q", "log", *_KEYWORDS)
"""Names of the filters, besides `metadata.<path>`."""


def _invalid(name: str, why: str) -> DecklogError:
    return DecklogError(Code.INVALID_PARAMETER, f"{name}: {why}", extra={"parameter": name})


def parse_time(name: str, text: str) -> datetime:
    """RFC 3339 with offset, in UTC. Raises `invalid-parameter`."""
    if not _DATE_TIME.fullmatch(text):
        raise _invalid(name, f"{text!r} is not an RFC 3339 time with offset, like 2026-01-31T12:00:00Z.")
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise _invalid(name, f"{text!r}: {error}.") from None
    try:
        return min(max(moment.astimezone(UTC), _EARLIEST), _LATEST)
    except OverflowError:
        return _EARLIEST if moment.year == 1 else _LATEST


def _network(text: str) -> str:
    network = parse_network(text)
    if network is None:
        raise _invalid("ip", f"{text!r} is neither an address nor a network in CIDR notation.")
    return network


def _one_of(name: str, text: str, allowed: Sequence[str]) -> str:
    if text not in allowed:
        raise _invalid(name, f"{text!r} is not one of {', '.join(allowed)}.")
    return text


def _action(text: str) -> tuple[str, bool]:
    prefix = text.endswith("*")
    text = text[:-1] if prefix else text
    if "*" in text:
        raise _invalid("action", "'*' may only stand at the end, as in user.*")
    return keyword(text), prefix


def _words(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(words(text)))
    if not found:
        raise _invalid("q", "there is no word (letters or digits) to look for.")
    if len(found) > WORDS_MAX:
        raise _invalid("q", f"at most {WORDS_MAX} words.")
    return found


def parse(parameters: Iterable[tuple[str, str]], *, others: Sequence[str] = ()) -> tuple[LogName, Query]:
    """The log and the filters that query parameters ask for; `others` are names that the caller handles itself.

    Raises `unknown-parameter` and `invalid-parameter`, naming the parameter.
    """
    log = LogName.EVENTS
    values: dict[str, object] = {}
    severities: list[str] = []
    fields: list[tuple[str, str]] = []
    seen: set[str] = set()
    for name, text in parameters:
        if name in others:
            continue
        if name not in PARAMETERS and not (name.startswith("metadata.") and len(name) > len("metadata.")):
            raise DecklogError(
                Code.UNKNOWN_PARAMETER,
                f"There is no parameter {name[:80]!r}. Known: {', '.join(sorted({*PARAMETERS, *others}))}, metadata.<path>.",
                extra={"parameter": name[:80]},
            )
        if name in seen and name != "severity":
            raise _invalid(name, "may be given once only.")
        seen.add(name)
        if not text or len(text) > PARAMETER_CHARS_MAX or _UNSTORABLE.search(name + text):
            raise _invalid(
                name[:80], f"must have 1 to {PARAMETER_CHARS_MAX} characters, none of them U+0000 or a lone surrogate."
            )
        if name == "log":
            log = LogName.parse(text)
        elif name == "from":
            values["since"] = parse_time(name, text)
        elif name == "to":
            values["until"] = parse_time(name, text)
        elif name == "action":
            values["action"], values["action_prefix"] = _action(text)
        elif name == "severity":
            severities.append(_one_of(name, text, SEVERITIES))
        elif name == "outcome":
            values["outcome"] = _one_of(name, text, OUTCOMES)
        elif name == "ip":
            values["ip"] = _network(text)
        elif name == "q":
            values["words"] = _words(text)
        elif name in _KEYWORDS:
            values[name] = keyword(text)
        else:
            fields.append((keyword(name.removeprefix("metadata.")), keyword(text)))
    if len(fields) > METADATA_MAX:
        raise _invalid("metadata", f"at most {METADATA_MAX} filters by metadata in one query.")
    query = msgspec.convert({**values, "severities": sorted(set(severities)), "fields": sorted(fields)}, Query)
    if query.since and query.until and query.since >= query.until:
        raise _invalid("from", "must be before `to`.")
    return log, query


def matches(query: Query, terms: Terms) -> bool:
    """Whether a record with these terms is what the query asks for."""
    if query.since is not None and terms.occurred_at < query.since:
        return False
    if query.until is not None and terms.occurred_at >= query.until:
        return False
    if query.action is not None and not (
        terms.action.startswith(query.action) if query.action_prefix else terms.action == query.action
    ):
        return False
    for name in ("actor", "resource_type", "resource_id", "outcome", "session_id", "correlation_id", "id"):
        wanted = getattr(query, name)
        if wanted is not None and getattr(terms, name) != wanted:
            return False
    if query.severities and terms.severity not in query.severities:
        return False
    if query.ip is not None and (terms.ip is None or ipaddress.ip_address(terms.ip) not in ipaddress.ip_network(query.ip)):
        return False
    if not all(field(path, value) in terms.fields for path, value in query.fields):
        return False
    return all(word in terms.words for word in query.words)


def describe(query: Query) -> dict[str, object]:
    """The filters as plain JSON, for access records. Metadata values stay: they are what was searched for."""
    plain: dict[str, object] = msgspec.to_builtins(query)
    return plain
