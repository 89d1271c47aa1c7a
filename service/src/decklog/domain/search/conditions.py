"""What a word, a value, a comparison and a range of a query mean, by the kind of their field."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from decklog.domain.errors import DecklogError
from decklog.domain.search import lexemes, patterns, tree
from decklog.domain.search.fields import Field, Kind
from decklog.domain.search.moments import Moment, read_moment
from decklog.domain.search.names import Named, resolve
from decklog.domain.search.refusals import invalid_query
from decklog.domain.search.terms import parse_network
from decklog.domain.search.words import tokens, unspaced

PHRASE_WORDS_MAX = 128
"""Words of one phrase."""
PATTERNS_MAX = 16
"""Patterns of one query: each is compared with every value, or with every word, of an index."""
WILDCARDS_MAX = 6
"""Wildcards of one pattern."""
PATTERN_CHARS_MAX = 256
"""Characters of one pattern."""
NUMBER_CHARS_MAX = 400
"""Characters of a number."""
_PAIR = 2
"""Characters of a token of a script without blanks."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d{1,4})?", re.ASCII)
_SEQ = re.compile(r"\d{1,18}", re.ASCII)
_OCTETS = re.compile(r"(\d{1,3})\.(?:(\d{1,3})\.)?(?:(\d{1,3})\.)?\*", re.ASCII)


class Text(NamedTuple):
    """A word or a value of a query, as it is written, and its place."""

    raw: str
    quoted: bool
    start: int
    end: int


class Source:
    """A query that is read: its text, the present time, and what its patterns cost so far."""

    def __init__(self, query: str, now: datetime) -> None:
        self.query = query
        self.now = now
        self._patterns = 0

    def refused(self, start: int, end: int, why: str, suggestion: str | None = None) -> DecklogError:
        """Return the refusal of a part of the query."""
        return invalid_query(self.query, start, end, why, suggestion=suggestion)

    def check_pattern(self, text: Text, parts: tree.Parts) -> None:
        """Raise `invalid-query` if a pattern, or all of them together, would cost too much."""
        self._patterns += 1
        wildcards = sum(isinstance(part, tree.Wild) for part in parts)
        if wildcards > WILDCARDS_MAX or len(text.raw) > PATTERN_CHARS_MAX:
            why = f"A pattern has at most {WILDCARDS_MAX} wildcards and {PATTERN_CHARS_MAX} characters."
            raise self.refused(text.start, text.end, why)
        if self._patterns > PATTERNS_MAX:
            raise self.refused(text.start, text.end, f"A query has at most {PATTERNS_MAX} patterns.")


def literal(text: Text) -> str:
    """Return the text that a word or a value stands for, without escapes."""
    return lexemes.unquoted(text.raw) if text.quoted else lexemes.unescaped(text.raw)


def _parts(text: Text) -> tree.Parts | None:
    """Return the parts of a pattern; None for a text without wildcards."""
    if text.quoted:
        return None
    parts = patterns.read(text.raw)
    return parts if any(isinstance(part, tree.Wild) for part in parts) else None


# Words.


def words(source: Source, text: Text, field: str = "") -> tree.Node:
    """Return the node of a word, a phrase or a pattern of words; in any text where `field` is empty."""
    if (parts := _parts(text)) is not None:
        source.check_pattern(text, parts)
        return tree.WordPattern(_folded(source, text, parts), field)
    return phrase(source, text, literal(text), field)


def phrase(source: Source, text: Text, value: str, field: str) -> tree.Node:
    """Return the node of the words of a value, next to each other."""
    found = tokens(value)
    if not found:
        raise source.refused(text.start, text.end, f"{value[:40]!r} has no letter and no digit to search for.")
    if len(found) > PHRASE_WORDS_MAX:
        raise source.refused(text.start, text.end, f"A phrase has at most {PHRASE_WORDS_MAX} words; this one has {len(found)}.")
    return of_words(found, field)


def of_words(found: tuple[str, ...], field: str = "") -> tree.Node:
    """Return the node of these tokens next to each other.

    A text in a script without blanks holds a single character only as a part of pairs.
    """
    node = tree.Phrase(found, field)
    if len(found) > 1 or len(found[0]) > 1 or not unspaced(found[0]):
        return node
    pairs: Iterable[tree.Parts] = ((found[0], tree.Wild.ONE), (tree.Wild.ONE, found[0]))
    return tree.disjunction([node, *(tree.WordPattern(pair, field) for pair in pairs)])


def _folded(source: Source, text: Text, parts: tree.Parts) -> tree.Parts:
    """Return the parts of a pattern with their literals as words are compared."""
    if not any(isinstance(part, str) for part in parts):
        raise source.refused(
            text.start, text.end, f"{text.raw[:20]!r} stands for any word: at least one letter or digit must be given."
        )
    folded = tuple(part if isinstance(part, tree.Wild) else _folded_literal(source, text, part) for part in parts)
    wanted = sum(len(part) if isinstance(part, str) else part is tree.Wild.ONE for part in folded)
    if wanted > _PAIR and any(isinstance(part, str) and any(map(unspaced, part)) for part in folded):
        why = "Words of this script are found in pairs of characters, so any part of a text is found without a wildcard."
        raise source.refused(text.start, text.end, why, text.raw.strip("*?") or None)
    return folded


def _folded_literal(source: Source, text: Text, part: str) -> str:
    separators = [each for each in part if not tokens(each) and unicodedata.category(each)[0] not in "MC"]
    if separators:
        why = (
            f"A pattern is compared with one word, and {separators[0]!r} separates words. Quote a phrase without wildcards, or compare "
            "the whole value of a field, as in action:user.*"
        )
        network = _network_of(text.raw)
        action = f"action:{text.raw}" if separators == ["."] else None
        raise source.refused(text.start, text.end, why, f"source.ip:{network}" if network else action)
    folded = tokens(part)
    if len(folded) > 1 and any(map(unspaced, folded)):
        return "".join([folded[0], *(token[1:] for token in folded[1:])])
    return "".join(folded)


# Values of fields.


def value(source: Source, named: Named, text: Text) -> tree.Node:
    """Return the node of `field:value`."""
    _refuse_other_field(source, named, text)
    return _VALUES[named.field.kind](source, named, text)


def _refuse_other_field(source: Source, named: Named, text: Text) -> None:
    """Refuse a value like `b:c` in `a:b:c` if `b` is a field too: the query is probably not what it should be."""
    other, colon, _ = text.raw.partition(":")
    if not text.quoted and colon and resolve(other) is not None and named.field.kind not in (Kind.SINCE, Kind.UNTIL):
        why = f"{other} is a field itself, so {text.raw[:40]!r} is quoted where it is a value of {named.path}."
        raise source.refused(text.start, text.end, why, lexemes.quoted(literal(text)))


def _keyword(source: Source, named: Named, text: Text) -> tree.Node:
    parts = _parts(text)
    if parts is None:
        return tree.Equal(named.path, literal(text))
    if parts == (tree.Wild.MANY,):
        raise source.refused(
            text.start, text.end, f"A lone '*' is no value. A field that has a value is found by exists:{named.path}", None
        )
    source.check_pattern(text, parts)
    return tree.Pattern(named.path, parts)


def _choice(source: Source, named: Named, text: Text) -> tree.Node:
    found, allowed = literal(text), named.field.choices
    if found not in allowed:
        alike = next((choice for choice in allowed if choice.lower() == found.lower()), None)
        why = f"{found[:40]!r} is not one of {', '.join(allowed)}."
        raise source.refused(text.start, text.end, why, alike)
    return tree.Equal(named.path, found)


def _network(source: Source, named: Named, text: Text) -> tree.Node:
    network = parse_network(literal(text))
    if network is not None:
        return tree.Network(named.path, network)
    why = f"{text.raw[:60]!r} is neither an address nor a network in CIDR notation, like 10.0.0.0/8."
    raise source.refused(text.start, text.end, why, _network_of(text.raw))


def _network_of(raw: str) -> str | None:
    """Return the network that a text like `10.0.*` means, or None."""
    if (octets := _OCTETS.fullmatch(raw)) is None:
        return None
    given = [octet for octet in octets.groups() if octet]
    return parse_network(".".join([*given, *["0"] * (4 - len(given))]) + f"/{8 * len(given)}")


def _moment(source: Source, text: Text) -> Moment:
    try:
        return read_moment(literal(text), source.now)
    except ValueError as error:
        raise source.refused(text.start, text.end, str(error)) from None


def _absolute(source: Source, named: Named, text: Text) -> Moment:
    moment = _moment(source, text)
    if moment.ago:
        example = f"{named.path}:>=now-24h"
        why = f"A relative time bounds a range, as in {example}" + (" or since:24h" if named.path == "occurred_at" else "")
        raise source.refused(text.start, text.end, why)
    return moment


def _time(source: Source, named: Named, text: Text) -> tree.Node:
    moment = _absolute(source, named, text)
    return tree.conjunction([tree.Since(moment.start), tree.Until(moment.end)])


def _received(source: Source, named: Named, text: Text) -> tree.Node:
    moment = _absolute(source, named, text)
    return tree.conjunction([tree.Received(moment.start), tree.Received(moment.end, before=True)])


def _seq(source: Source, named: Named, text: Text) -> tree.Node:
    number = _sequence_number(source, text)
    return tree.Seqs(number, number + 1)


def _sequence_number(source: Source, text: Text) -> int:
    found = literal(text)
    if not _SEQ.fullmatch(found):
        raise source.refused(text.start, text.end, f"{found[:40]!r} is no sequence number: a whole number from 0.")
    return int(found)


def _text(source: Source, named: Named, text: Text) -> tree.Node:
    return words(source, text, named.path)


_VALUES: dict[Kind, Callable[[Source, Named, Text], tree.Node]] = {
    Kind.SINCE: _time,
    Kind.UNTIL: _time,
    Kind.KEYWORD: _keyword,
    Kind.KEYWORDS: _keyword,
    Kind.LEAVES: _keyword,
    Kind.CHOICE: _choice,
    Kind.CHOICES: _choice,
    Kind.NETWORK: _network,
    Kind.TEXT: _text,
    Kind.SEQ: _seq,
    Kind.RECEIPT: _received,
}


def bound(source: Source, text: Text, *, since: bool) -> tree.Node:
    """Return the node of `since:time`, or else of `until:time`."""
    moment = _moment(source, text)
    return tree.Since(moment.start, moment.ago) if since else tree.Until(moment.start, moment.ago)


# Comparisons and ranges.


class Edge(NamedTuple):
    """One end of a range; `strict` if the value itself lies outside."""

    text: Text
    strict: bool


def within(source: Source, named: Named, low: Edge | None, high: Edge | None) -> tree.Node:
    """Return the node of a range, at least one end of which is given."""
    kind = named.field.kind
    if kind is Kind.LEAVES:
        return _numbers(source, named, low, high)
    if kind in (Kind.SINCE, Kind.UNTIL):
        return _times(source, low, high)
    if kind is Kind.RECEIPT:
        return _receipts(source, low, high)
    if kind is Kind.SEQ:
        return _seqs(source, low, high)
    if kind is Kind.CHOICES:
        return _choices(source, named, low, high)
    text = (low or high or Edge(Text("", False, 0, 0), False)).text
    hint = " A network is written like 10.0.0.0/8." if kind is Kind.NETWORK else ""
    why = f"Ranges are for occurred_at, received_at, seq, severity, and numbers in metadata, before and after, not for {named.path}.{hint}"
    raise source.refused(text.start, text.end, why)


def _number(source: Source, text: Text) -> str:
    found = literal(text)
    if not _NUMBER.fullmatch(found) or len(found) > NUMBER_CHARS_MAX:
        raise source.refused(text.start, text.end, f"{found[:40]!r} is no number. Other values are found by field:value.")
    return plain_number(found)


def plain_number(text: str) -> str:
    """Return the one spelling of a number."""
    sign, digits, exponent = Decimal(text).as_tuple()
    shown = "".join(map(str, digits)).lstrip("0")
    if not shown or not isinstance(exponent, int):
        return "0"
    kept = shown.rstrip("0")
    exponent += len(shown) - len(kept)
    return f"{'-' if sign else ''}{kept}" + (f"e{exponent}" if exponent else "")


def _numbers(source: Source, named: Named, low: Edge | None, high: Edge | None) -> tree.Node:
    return tree.Numbers(
        named.path,
        "" if low is None else _number(source, low.text),
        "" if high is None else _number(source, high.text),
        low is not None and low.strict,
        high is not None and high.strict,
    )


def _times(source: Source, low: Edge | None, high: Edge | None) -> tree.Node:
    bounds: list[tree.Node] = []
    if low is not None:
        moment = _moment(source, low.text)
        bounds.append(tree.Since(moment.end if low.strict else moment.start, moment.ago))
    if high is not None:
        moment = _moment(source, high.text)
        bounds.append(tree.Until(moment.start if high.strict else moment.end, moment.ago))
    return tree.conjunction(bounds)


def _receipts(source: Source, low: Edge | None, high: Edge | None) -> tree.Node:
    bounds: list[tree.Node] = []
    if low is not None:
        moment = _moment(source, low.text)
        bounds.append(tree.Received(moment.end if low.strict else moment.start, ago=moment.ago))
    if high is not None:
        moment = _moment(source, high.text)
        bounds.append(tree.Received(moment.start if high.strict else moment.end, before=True, ago=moment.ago))
    return tree.conjunction(bounds)


def _seqs(source: Source, low: Edge | None, high: Edge | None) -> tree.Node:
    found = tree.Seqs()
    if low is not None:
        found = msgspec.structs.replace(found, first=_sequence_number(source, low.text) + low.strict)
    if high is not None:
        found = msgspec.structs.replace(found, end=_sequence_number(source, high.text) + (not high.strict))
    if found.first >= found.end:
        text = (low or high or Edge(Text("", False, 0, 0), False)).text
        raise source.refused(text.start, text.end, "No number lies in this range.")
    return found


def _choices(source: Source, named: Named, low: Edge | None, high: Edge | None) -> tree.Node:
    """Return the node of a part of the choices, which are in order."""
    allowed = named.field.choices
    first, last = 0, len(allowed)
    for edge, is_low in ((low, True), (high, False)):
        if edge is None:
            continue
        _choice(source, named, edge.text)
        place = allowed.index(literal(edge.text))
        if is_low:
            first = place + edge.strict
        else:
            last = place + (not edge.strict)
    wanted = allowed[first:last]
    if not wanted:
        text = (low or high or Edge(Text("", False, 0, 0), False)).text
        raise source.refused(text.start, text.end, "No value lies in this range.")
    return tree.disjunction([tree.Equal(named.path, choice) for choice in wanted])


def single_valued(field: Field) -> bool:
    """Return whether a record has at most one value of this field, so that no two can be asked for at once."""
    return field.kind in (Kind.KEYWORD, Kind.CHOICE, Kind.CHOICES)
