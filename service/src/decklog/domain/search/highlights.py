"""Highlights: the places of a record that made it match a query.

They are computed from the tree and the record, with the tokens, forms and comparisons of `evaluation`, whatever engine found the record.
A condition that is negated has no place, and neither have bounds of time and of `seq`, which concern a record as a whole.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import msgspec

from decklog.domain.log import EPOCH_START
from decklog.domain.privacy.masking import pointer_token
from decklog.domain.search import evaluation, patterns, tree
from decklog.domain.search.fields import Kind
from decklog.domain.search.names import field_at, is_root
from decklog.domain.search.terms import TEXTS, TREES, Terms, below, ordered, parse_ip, path_term, scalar, terms
from decklog.domain.search.words import Located, located, tokens, unspaced

SPANS_MAX = 100
"""Spans of one record. They are shared by the conditions of a query, and each gets one at least."""
PATHS_CHARS_MAX = 16 * 1024
"""Characters of the paths of one record, which may have very long names."""

_PAIR = 2

Span: TypeAlias = tuple[int, int]


class Place(msgspec.Struct, frozen=True):
    """A value of a record that a condition holds for.

    `path` is its JSON pointer (RFC 6901). `spans` are the parts of its text, from a character up to, but not including, another; none
    where the value is an object, a list or empty, and holds as a whole. A character is a Unicode code point.
    """

    path: str
    spans: tuple[Span, ...]


class Highlights(msgspec.Struct, frozen=True):
    """The places of one record, in the order of the conditions. `more`: there are more of them than the bounds allow."""

    places: tuple[Place, ...] = ()
    more: bool = False


class _Value(NamedTuple):
    """A value of a record, with its JSON pointer."""

    pointer: str
    value: Any

    @property
    def text(self) -> str | None:
        """The text that conditions compare, None for an object or a list."""
        return None if isinstance(self.value, dict | list) else scalar(self.value)


class _Text(NamedTuple):
    """A text in which words are found, with its JSON pointer. `lowered`: in small letters; None where not all of it is ASCII."""

    pointer: str
    text: str
    lowered: str | None

    @classmethod
    def of(cls, pointer: str, text: str) -> _Text:
        return cls(pointer, text, text.lower() if text.isascii() else None)


class _Content:
    """The values of one record, found at most once."""

    def __init__(self, content: dict[str, Any], seq: int, received_at: datetime) -> None:
        self.content = content
        self._place = seq, received_at
        self._tokens: dict[str, tuple[str, ...]] = {}
        self._located: dict[str, list[Located]] = {}

    @cached_property
    def terms(self) -> Terms:
        """The terms by which conditions are evaluated."""
        seq, received_at = self._place
        return terms(self.content, seq=seq, received_at=received_at)

    @cached_property
    def texts(self) -> list[_Text]:
        """Every text in which words are found, in reading order."""
        found: list[_Text] = []
        for name in TEXTS:
            if name in self.content:
                _gather_texts(self.content[name], f"/{name}", found)
        return found

    @cached_property
    def by_term(self) -> dict[str, list[_Value]]:
        """Every value but null of `metadata`, `before` and `after`, by its path as terms hold it."""
        found: dict[str, list[_Value]] = {}
        for name in TREES:
            _gather_values(self.content.get(name), f"/{name}", name, found)
        return found

    def tokens(self, text: str) -> tuple[str, ...]:
        """Return the tokens of a text of the record."""
        if text not in self._tokens:
            self._tokens[text] = tokens(text)
        return self._tokens[text]

    def located(self, text: str) -> list[Located]:
        """Return the same tokens with their places in the text."""
        if text not in self._located:
            self._located[text] = located(text)
        return self._located[text]

    def at(self, path: str) -> Iterator[_Value]:
        """Yield the values of a field."""
        if is_root(path) or field_at(path).kind is Kind.LEAVES:
            yield from self.by_term.get(path_term(path), ())
            return
        name, _, member = path.partition(".")
        holder = self.content.get(name)
        items = enumerate(holder) if isinstance(holder, list) else [(None, holder)]
        for index, item in items:
            value = item.get(member) if member and isinstance(item, dict) else item
            if value is not None:
                pointer = f"/{name}" if index is None else f"/{name}/{index}"
                yield _Value(f"{pointer}/{member}" if member else pointer, value)

    def texts_at(self, field: str) -> list[_Text]:
        """Return the texts of a field; of all fields where it is empty."""
        return [_Text.of(pointer, value) for pointer, value in self.at(field)] if field else self.texts


def _gather_texts(value: Any, pointer: str, found: list[_Text]) -> None:
    kind = type(value)
    if kind is str:
        found.append(_Text.of(pointer, value))
    elif kind is dict:
        for key, item in value.items():
            _gather_texts(item, f"{pointer}/{pointer_token(key)}", found)
    elif kind is list:
        for index, item in enumerate(value):
            _gather_texts(item, f"{pointer}/{index}", found)
    elif kind is not bool and value is not None:
        found.append(_Text.of(pointer, scalar(value)))


def _gather_values(value: Any, pointer: str, path: Any, found: dict[str, list[_Value]]) -> None:
    if value is None:
        return
    found.setdefault(str(path), []).append(_Value(pointer, value))
    if isinstance(value, dict):
        for key, item in value.items():
            _gather_values(item, f"{pointer}/{pointer_token(key)}", below(path, key), found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _gather_values(item, f"{pointer}/{index}", path, found)


_Found: TypeAlias = Iterable[tuple[str, Span | None]]
"""Places one after another: a pointer, and a span, or None for a value as a whole."""
_OfLeaf: TypeAlias = Callable[[_Content], _Found]
_Marking: TypeAlias = Callable[["_Content"], Iterator[_OfLeaf]]
"""Yields the conditions that made a matching record match."""


class Highlighter:
    """Finds the places of one query; make it once for many records."""

    def __init__(self, root: tree.Node) -> None:
        self._marking = _marking(root, positive=True)
        self._each_max = max(1, SPANS_MAX // max(1, sum(1 for _ in tree.leaves(root))))

    def __call__(self, content: dict[str, Any], *, seq: int = -1, received_at: datetime = EPOCH_START) -> Highlights:
        """Return the highlights of a record that matches: of its stored content, a decoded JSON object, and of its place."""
        record = _Content(content, seq, received_at)
        spans: dict[str, list[Span]] = {}
        chars, more = 0, False
        for leaf in self._marking(record):
            for count, (pointer, span) in enumerate(leaf(record)):
                if pointer not in spans:
                    chars += len(pointer)
                if count == self._each_max or chars > PATHS_CHARS_MAX:
                    more = True
                    break
                spans.setdefault(pointer, []).extend([span] if span else [])
        return Highlights(tuple(Place(pointer, _merged(found)) for pointer, found in spans.items()), more)


def _merged(spans: list[Span]) -> tuple[Span, ...]:
    """Return spans in order; those that overlap or touch become one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return tuple(merged)


def _marking(node: tree.Node, *, positive: bool) -> _Marking:
    """Return the function that yields the conditions by which a record satisfies a node; without `positive`, its negation."""
    match node:
        case tree.Not():
            return _marking(node.child, positive=not positive)
        case tree.And() | tree.Or():
            children = [_marking(child, positive=positive) for child in node.children]
            if isinstance(node, tree.And) is positive:
                return lambda record: (leaf for child in children for leaf in child(record))
            holds = [evaluation.compiled(child) for child in node.children]
            pairs = list(zip(holds, children, strict=True))
            return lambda record: (
                leaf for satisfied, child in pairs if satisfied(record.terms) is positive for leaf in child(record)
            )
        case _:
            found = _leaf(node) if positive else None
            return lambda record: iter(() if found is None else (found,))


def _leaf(node: tree.Leaf) -> _OfLeaf | None:
    """Return the function that finds the places of a condition; None for one without places."""
    match node:
        case tree.Phrase():
            return _words(node.field, _phrase(node.words), node.words)
        case tree.WordPattern():
            return _words(node.field, _word_pattern(node.parts), patterns.literals(node.parts), _beside(node.parts))
        case tree.Equal():
            return _whole(node.field, lambda value: value.text == node.value)
        case tree.Pattern():
            fits = patterns.compiled(node.parts)
            return _whole(node.field, lambda value: (text := value.text) is not None and bool(fits(text)))
        case tree.Exists():
            return _whole(node.field, lambda value: True)
        case tree.Network():
            network = ipaddress.ip_network(node.network)
            return _whole(node.field, lambda value: _is_within(value.text, network))
        case tree.Numbers():
            inside = evaluation.between(node)
            return _whole(node.field, lambda value: type(value.value) in (int, float) and inside(ordered(value.value)))
        case _:
            return None


def _is_within(text: str | None, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    address = parse_ip(text) if text else None
    return address is not None and ipaddress.ip_address(address) in network


def _whole(field: str, holds: Callable[[_Value], bool]) -> _OfLeaf:
    """Return the function that finds values as a whole."""

    def found(record: _Content) -> _Found:
        for value in record.at(field):
            if holds(value):
                yield value.pointer, (0, len(value.text)) if value.text else None

    return found


_Places: TypeAlias = Callable[[tuple[str, ...]], list[tuple[int, int]]]
"""Finds the places of a condition among the tokens of a text: the first token, and the one behind the last."""


def _phrase(words: tuple[str, ...]) -> _Places:
    count = len(words)
    return lambda text: [
        (at, at + count) for at, token in enumerate(text) if token == words[0] and text[at : at + count] == words
    ]


def _word_pattern(parts: tree.Parts) -> _Places:
    fits = patterns.compiled(parts)
    return lambda text: [(at, at + 1) for at, token in enumerate(text) if fits(token)]


def _beside(parts: tree.Parts) -> str:
    """Return the character that was asked for where a pattern is a pair of it and another; such scripts have no blanks."""
    found = patterns.literals(parts)
    return found[0] if len(parts) == _PAIR and tree.Wild.ONE in parts and found and unspaced(found[0]) else ""


def _narrowed(text: str, start: int, end: int, token: str) -> Span:
    """Return the part of a pair of characters that is this token."""
    parts = ((first, last) for first in range(start, end) for last in range(first + 1, end + 1))
    return next(((first, last) for first, last in parts if tokens(text[first:last]) == (token,)), (start, end))


def _words(field: str, places: _Places, parts: Sequence[str], beside: str = "") -> _OfLeaf:
    """Return the function that finds places within texts: of one field, or of all of them where `field` is empty.

    A text of ASCII that lacks one of `parts` has no such place, which is the case for most texts.
    """

    def found(record: _Content) -> _Found:
        for pointer, text, lowered in record.texts_at(field):
            if lowered is not None and not all(part in lowered for part in parts):
                continue
            for first, end in places(record.tokens(text)):
                pieces = record.located(text)
                span = pieces[first].start, pieces[end - 1].end
                yield pointer, _narrowed(text, *span, beside) if beside else span

    return found
