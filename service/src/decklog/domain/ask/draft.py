"""A question while it is read: the conditions found until now, what they rest on, and what is still open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from decklog.domain.ask.actions import Actions
from decklog.domain.ask.days import Days, Now
from decklog.domain.ask.lexicon import BETWEEN
from decklog.domain.ask.times import NO_TIMES, Times
from decklog.domain.ask.tokens import Token
from decklog.domain.ask.understanding import Expert, Piece, Unread
from decklog.domain.search import tree

_SEVERAL = frozenset(("text", "condition"))
"""Kinds of which a record may satisfy several conditions."""
_NARROWED = frozenset(("ip", "exact action", "service"))
"""Kinds of which a part may be excluded: from this network, but not from that address of it."""
WINDOW_DAYS_MAX = 31
"""Days that a window of the clock may repeat on."""


class Condition(msgspec.Struct, frozen=True):
    """One condition, from the word `first` up to, but not including, `end`. Conditions of one kind exclude each other."""

    kind: str
    node: tree.Node
    meaning: str
    first: int
    end: int
    negated: bool = False


class Group(msgspec.Struct):
    """Words that name actions together, by their places and roots."""

    places: list[int]
    roots: list[str]
    negation: tuple[int, int] | None = None
    link: int | None = None
    """Place of the word that links the group with the one before it."""

    @property
    def negated(self) -> bool:
        """True if the group is excluded."""
        return self.negation is not None


@dataclass
class Draft:
    """Reading of the words of a question."""

    tokens: Sequence[Token]
    actions: Actions
    now: Now
    conditions: list[Condition] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    times: Times = NO_TIMES
    time_places: list[tuple[int, int]] = field(default_factory=list)
    meanings: dict[tuple[int, int], str] = field(default_factory=dict)
    unread: set[int] = field(default_factory=set)
    cues: set[str] = field(default_factory=set)
    by: str | None = None
    interval: str | None = None
    limit: int | None = None
    oldest: bool = False
    received: bool = False
    """True if times are those of the receipt."""
    at: int = 0
    role: str = ""
    """The last preposition, until a value follows it."""
    negation: tuple[int, int] | None = None
    """The words of a negation, until what it negates follows."""
    link: int | None = None
    """Place of the last and, or, comma, until a value follows it."""
    limited: tuple[int, int] | None = None
    """The words of a number of records."""
    types: tuple[str, ...] = ()
    """Types of the last resource that was named with its type."""
    nouns: list[tuple[str, ...]] = field(default_factory=list)
    """Roots of the nouns before the ids of resources."""
    open_links: set[int] = field(default_factory=set)
    """Places of each or that has joined nothing yet."""
    verb_at: int | None = None
    """Place of the last verb in its active form."""

    def word(self, offset: int = 0) -> str:
        """Return the word at the current place, empty at the end."""
        place = self.at + offset
        return self.tokens[place].word if 0 <= place < len(self.tokens) else ""

    def phrase(self, count: int, offset: int = 0) -> str:
        """Return so many words from the current place on, empty where there are fewer."""
        found = self.tokens[self.at + offset : self.at + offset + count]
        return " ".join(token.word for token in found) if len(found) == count else ""

    def means(self, count: int, meaning: str) -> int:
        """Note what the next words mean, and return how many they are."""
        self.meanings[self.at, self.at + count] = meaning
        return count

    def add(self, kind: str, node: tree.Node, meaning: str, count: int) -> int:
        """Add a condition of the next words, or a further value to the condition before it; return how many words it has.

        Where the condition would exclude one of the same kind, its words are not understood.
        """
        first, negation, link = self.at, self.negation, self.link
        self.role, self.negation, self.link = "", None, None
        before = next((each for each in reversed(self.conditions) if each.kind == kind), None)
        if before is not None and not negation and link is not None and self._adjacent(before.end, first):
            self.open_links.discard(link)
            self._extend(before, node, meaning, first + count)
            return count
        if before is not None and not before.negated and (negation is None or kind not in _NARROWED) and kind not in _SEVERAL:
            self.unread.update(range(first, first + count))
            if negation is not None:
                self.unread.update(range(*negation))
            return count
        if kind == "ip" and negation is not None:
            self.conditions.append(Condition("has ip", tree.Exists("source.ip"), "", first, first + count))
        condition = Condition(kind, node, meaning, first, first + count, negation is not None)
        self.conditions.append(condition)
        self._tell(condition, negation, count)
        return count

    def _tell(self, condition: Condition, negation: tuple[int, int] | None, count: int) -> None:
        if negation is None:
            self.means(count, condition.meaning)
            return
        self.meanings[negation] = "not"
        self.means(count, f"not {condition.meaning}")

    def _extend(self, before: Condition, node: tree.Node, meaning: str, end: int) -> None:
        merged = tree.disjunction((before.node, node))
        self.conditions[self.conditions.index(before)] = msgspec.structs.replace(before, node=merged, end=end)
        self.meanings[self.at, end] = f"or {meaning}"

    def listed(self) -> Condition | None:
        """Return the last condition if the current word continues its list of values."""
        last = self.conditions[-1] if self.conditions else None
        return last if last is not None and self.link is not None and self._adjacent(last.end, self.at) else None

    def _adjacent(self, end: int, first: int) -> bool:
        return all(token.word in BETWEEN for token in self.tokens[end:first])

    def add_times(self, found: Times, count: int, meaning: str) -> int:
        """Add what the next words say of the time; words that contradict those before them are not understood."""
        merged = None if self.negation else _merged(self.times, found)
        if merged is None:
            self.unread.update(range(self.at, self.at + count))
            return count
        self.times, self.role, self.link = merged, "", None
        self.time_places.append((self.at, self.at + count))
        return self.means(count, meaning)

    def pieces(self) -> tuple[Piece, ...]:
        """Return what is understood, in the order of the question."""
        spans = sorted((first, end, meaning) for (first, end), meaning in self.meanings.items())
        kept = [(first, end, meaning) for first, end, meaning in spans if not self.unread.intersection(range(first, end))]
        return tuple(Piece(*self._span(first, end), meaning) for first, end, meaning in kept)

    def unreads(self) -> tuple[Unread, ...]:
        """Return what is not understood: neighbouring words together."""
        runs: list[list[int]] = []
        for place in sorted(self.unread):
            if runs and runs[-1][-1] == place - 1:
                runs[-1].append(place)
            else:
                runs.append([place])
        return tuple(Unread(*self._span(run[0], run[-1] + 1)) for run in runs)

    def _span(self, first: int, end: int) -> tuple[int, int, str]:
        start, stop = self.tokens[first].start, self.tokens[end - 1].end
        return start, stop, " ".join(token.text for token in self.tokens[first:end])

    @property
    def expert(self) -> Expert:
        """The expert that the words ask for."""
        specific = any(each.kind in ("thing", "session", "request") and not each.negated for each in self.conditions)
        if self.interval is not None:
            return Expert.TIMELINE
        if "story" in self.cues or ("who" in self.cues and specific and not self.cues.intersection(("count", "top"))):
            return Expert.STORY
        if "top" in self.cues or ("which" in self.cues and self.by is not None):
            return Expert.TOP
        if "count" in self.cues or self.by is not None:
            return Expert.COUNT
        if "who" in self.cues:
            return Expert.TOP
        return Expert.STORY if "did" in self.cues else Expert.FIND


def _merged(before: Times, found: Times) -> Times | None:
    """Return what both say of the time, None where one says something else than the other."""
    days = before.days or found.days
    if (before.days and found.days) or (before.clock and found.clock):
        return None
    if (before.since and found.since) or (before.until and found.until):
        return None
    return Times(days, before.clock or found.clock, before.since or found.since, before.until or found.until)


def time_node(times: Times, now: Now) -> tree.Node | None:
    """Return the condition that times are, None where a window of the clock has no days, or too many."""
    nodes: list[tree.Node] = []
    if times.since:
        nodes.append(tree.Since(*times.since))
    if times.until:
        nodes.append(tree.Until(*times.until))
    if times.clock is not None:
        days = [day for each in times.days for day in _each(each)]
        if not days or len(days) > WINDOW_DAYS_MAX:
            return None
        first, end = times.clock
        nodes.append(tree.disjunction(_within(day, now, first, end) for day in days))
    elif times.days:
        nodes.append(tree.disjunction(_range(each, now) for each in _joined(times.days)))
    return tree.conjunction(nodes)


def received_node(node: tree.Node) -> tree.Node:
    """Return a condition of times as one of times of receipt."""
    return tree.replaced(node, _received)


def _received(leaf: tree.Leaf) -> tree.Node:
    match leaf:
        case tree.Since(at=at, ago=ago):
            return tree.Received(at, ago=ago)
        case tree.Until(at=at, ago=ago):
            return tree.Received(at, before=True, ago=ago)
        case _:
            return leaf


def _each(days: Days) -> list[Days]:
    count = min((days.end - days.first).days, WINDOW_DAYS_MAX + 1)
    one = timedelta(days=1)
    return [Days(days.first + number * one, days.first + (number + 1) * one) for number in range(count)]


def _within(day: Days, now: Now, first: int, end: int) -> tree.Node:
    return tree.conjunction((tree.Since(now.start(day.first, first)), tree.Until(now.start(day.first, end))))


def _joined(days: Sequence[Days]) -> list[Days]:
    """Return days with those that follow each other as one range."""
    found: list[Days] = []
    for each in sorted(days):
        if found and each.first <= found[-1].end:
            found[-1] = Days(found[-1].first, max(found[-1].end, each.end))
        else:
            found.append(each)
    return found


def _range(days: Days, now: Now) -> tree.Node:
    return tree.conjunction((tree.Since(now.start(days.first)), tree.Until(now.start(days.end))))


def time_meaning(times: Times, now: Now) -> str:
    """Return times for people, in the zone of the question."""
    zone = now.zone.key
    parts = [_days(each) for each in times.days]
    if times.clock is not None:
        parts.append(f"from {_clock(times.clock[0])} to before {_clock(times.clock[1])}")
    for name, bound in (("since", times.since), ("before", times.until)):
        if bound is not None:
            parts.append(f"{name} {bound[0].astimezone(now.zone):%Y-%m-%d %H:%M}")
    return f"{' and '.join(parts)} ({zone})"


def _days(days: Days) -> str:
    note = f", {days.note}" if days.note else ""
    return f"{days.first}{note}" if len(_each(days)) == 1 else f"{days.first} to before {days.end}{note}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}"
