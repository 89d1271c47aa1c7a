"""The rules by which the words of a question get their meaning, each for one kind of words.

A rule looks at the words from the current place on and returns how many it read, 0 for none. The first rule that reads any wins, so the
order of `RULES` is part of the language. A word that no rule reads is not understood.
"""

from __future__ import annotations

from collections.abc import Callable

from decklog.domain.ask.calendar_words import INTERVALS, number_of
from decklog.domain.ask.draft import Draft, time_meaning
from decklog.domain.ask.groupings import grouping
from decklog.domain.ask.lexicon import (
    AT_LEAST,
    EMPTY,
    EMPTY_PHRASES,
    LINKS,
    NEGATIONS,
    OR_WORSE,
    OUTCOMES,
    RECEIVED,
    SEVERITIES,
    TOUCHED,
    UNSUCCESSFUL,
)
from decklog.domain.ask.naming import concept, content, exact_action, formed, identified, person, quoted, service, typed
from decklog.domain.ask.times import read_times
from decklog.domain.records.record import SEVERITIES as ORDERED
from decklog.domain.records.record import Outcome
from decklog.domain.search import tree

Rule = Callable[[Draft], int]

_CUES: tuple[tuple[str, str, str], ...] = (
    ("how many times", "count", "how many records"),
    ("how many", "count", "how many records"),
    ("total number of", "count", "how many records"),
    ("number of", "count", "how many records"),
    ("how often", "count", "how many records"),
    ("amount of", "count", "how many records"),
    ("count", "count", "how many records"),
    ("what happened", "story", "the records in their order"),
    ("what has happened", "story", "the records in their order"),
    ("what happens", "story", "the records in their order"),
    ("the story of", "story", "the records in their order"),
    ("story", "story", "the records in their order"),
    ("history", "story", "the records in their order"),
    ("timeline", "story", "the records in their order"),
    ("in chronological order", "story", "the records in their order"),
    ("chronologically", "story", "the records in their order"),
    ("in sequence", "story", "the records in their order"),
    ("in order", "story", "the records in their order"),
    ("step by step", "story", "the records in their order"),
    ("sequence of events", "story", "the records in their order"),
    ("through", "story", "the records in their order"),
    ("trace", "story", "the records in their order"),
    ("reconstruct", "story", "the records in their order"),
    ("oldest first", "oldest", "oldest records first"),
    ("newest first", "newest", "newest records first"),
    ("most recent", "newest", "newest records first"),
    ("latest", "newest", "newest records first"),
    ("newest", "newest", "newest records first"),
    ("oldest", "oldest", "oldest records first"),
    ("earliest", "oldest", "oldest records first"),
    ("when was", "story", "the records in their order"),
    ("when were", "story", "the records in their order"),
    ("when did", "story", "the records in their order"),
    ("when has", "story", "the records in their order"),
    ("who", "who", "by actor"),
)
_PREPOSITIONS = frozenset(("by", "of", "from", "for", "to", "on", "about", "with", "against", "into", "in", "at", "during"))
_AUXILIARIES = frozenset(("did", "does", "do", "has", "have", "was", "is"))


def cue(draft: Draft) -> int:
    """Read words that say how a question is answered."""
    for phrase, name, meaning in _CUES:
        count = phrase.count(" ") + 1
        if draft.phrase(count) == phrase:
            if name == "who" and (draft.groups or draft.conditions or "who" in draft.cues):
                return 0  # a clause of its own: the users whom someone created who was deleted
            draft.cues.add(name)
            draft.oldest = draft.oldest or name == "oldest"
            return draft.means(count, meaning)
    return 0


def limit(draft: Draft) -> int:
    """Read how many records, or values, are asked for: last 10, top 5, first 3, 20 latest."""
    number = number_of(draft.word(1))
    if draft.word() in ("last", "first", "latest", "newest", "oldest") and number is not None and 0 < number <= 1_000:
        draft.limited = (draft.at, draft.at + 2)
        draft.limit, draft.oldest = number, draft.oldest or draft.word() in ("first", "oldest")
        return draft.means(2, f"the {'oldest' if draft.oldest else 'newest'} {number} records")
    if draft.word() in ("last", "first") and draft.word(1) not in ("time", "") and draft.limit is None:
        draft.limited = (draft.at, draft.at + 1)
        draft.limit, draft.oldest = 1, draft.word() == "first"
        return draft.means(1, f"the {'oldest' if draft.oldest else 'newest'} record")
    return 0


def times(draft: Draft) -> int:
    """Read times, with the words before them; what somebody is up to is no time."""
    if draft.phrase(2) == "up to" and draft.tokens[0].word == "what" and draft.tokens[1].word in ("was", "is", "were", "has"):
        return draft.means(2, "what was done")
    found = read_times(draft.tokens, draft.at, draft.now)
    if found is None:
        return 0
    return draft.add_times(found[1], found[0], time_meaning(found[1], draft.now))


def received(draft: Draft) -> int:
    """Read words that say that times are those of the receipt."""
    count = next((each.count(" ") + 1 for each in RECEIVED if draft.phrase(each.count(" ") + 1) == each), 0)
    draft.received = draft.received or count > 0
    return draft.means(count, "times of receipt") if count else 0


def negation(draft: Draft) -> int:
    """Read words that exclude what follows, and what is outside of a network."""
    for count in (2, 1):
        if draft.phrase(count) in NEGATIONS or (count == 1 and draft.word() == "outside"):
            if draft.negation is not None:
                return 0
            length = count + (draft.word() == "outside" and draft.word(1) == "of")
            draft.negation, draft.link = (draft.at, draft.at + length), None
            return length
    return 0


def outcome(draft: Draft) -> int:
    """Read outcomes."""
    if draft.phrase(2) == "went wrong":
        draft.cues.add("story")
        return draft.add("outcome", _outcomes((Outcome.FAILURE, Outcome.DENIED)), "outcome failure or denied", 2)
    if draft.word() in UNSUCCESSFUL:
        return draft.add("outcome", tree.negation(_outcomes((Outcome.SUCCESS,))), "outcome other than success", 1)
    skipped = 1 if draft.word() in ("outcome", "result") and draft.word(1) in OUTCOMES else 0
    found = OUTCOMES.get(draft.word(skipped))
    if found is None:
        return 0
    return draft.add("outcome", _outcomes(found), f"outcome {' or '.join(found)}", 1 + skipped)


def _outcomes(found: tuple[Outcome, ...]) -> tree.Node:
    return tree.disjunction(tree.Equal("outcome", each.value) for each in found)


def severity(draft: Draft) -> int:
    """Read severities: one of them, it and those above it, or those above it alone."""
    before, least = _least(draft)
    if draft.word() in ("error", "errors") and draft.word(-1) in OUTCOMES:
        return 1
    skipped = before + (1 if draft.word(before) in ("severity", "level") else 0)
    found = SEVERITIES.get(draft.word(skipped))
    if found is None:
        return 0
    after = next((each.count(" ") + 1 for each in OR_WORSE if draft.phrase(each.count(" ") + 1, skipped + 1) == each), 0)
    first = list(ORDERED).index(found) + (1 if before and not least else 0)
    chosen = list(ORDERED)[first:] if before or after else [found]
    node = tree.disjunction(tree.Equal("severity", each.value) for each in chosen)
    return draft.add("severity", node, f"severity {' or '.join(chosen)}", skipped + 1 + after)


def _least(draft: Draft) -> tuple[int, bool]:
    for phrase in AT_LEAST:
        count = phrase.count(" ") + 1
        if draft.phrase(count) == phrase:
            return count, phrase == AT_LEAST[0]
    return 0, False


def interval(draft: Draft) -> int:
    """Read the interval that records are counted by: per day, by hour, daily."""
    opening = draft.word() in ("per", "by", "each", "every")
    word = draft.word(1) if opening else draft.word()
    if word not in INTERVALS or (not opening and not word.endswith("ly")) or draft.interval is not None:
        return 0
    if draft.by is not None:
        return 0
    draft.interval = INTERVALS[word]
    return draft.means(2 if opening else 1, f"count by {draft.interval}")


def touched(draft: Draft) -> int:
    """Read verbs that mean any action."""
    if draft.word() not in TOUCHED:
        return 0
    draft.verb_at = draft.at
    return draft.means(1, "any action")


def link(draft: Draft) -> int:
    """Read and, or, and a comma."""
    if draft.word() not in LINKS:
        return 0
    if draft.link is None or draft.word() != ",":
        draft.link = draft.at
    if draft.word() in ("or", "nor"):
        draft.open_links.add(draft.at)
    return 1


def preposition(draft: Draft) -> int:
    """Read a preposition: the value that follows it has its role."""
    if draft.word() not in _PREPOSITIONS:
        return 0
    draft.role = draft.word()
    return 1


def empty_phrase(draft: Draft) -> int:
    """Read phrases without a meaning of their own."""
    return next((each.count(" ") + 1 for each in EMPTY_PHRASES if draft.phrase(each.count(" ") + 1) == each), 0)


def empty(draft: Draft) -> int:
    """Read words without a meaning of their own."""
    if draft.word() in _AUXILIARIES and draft.word() in ("did", "does", "do", "has", "have", "done", "doing"):
        draft.cues.add("did")
    if draft.word() == "that" and draft.word(1) not in ("", "?", ",", *_PREPOSITIONS):
        return 1
    if draft.word() == "who" and (draft.groups or draft.conditions):
        return 0
    return 1 if draft.word() in EMPTY or (draft.word() == "export" and draft.at == 0) else 0


RULES: tuple[Rule, ...] = (
    empty_phrase,
    quoted,
    concept,
    negation,
    times,
    interval,
    limit,
    grouping,
    cue,
    severity,
    outcome,
    received,
    typed,
    formed,
    person,
    exact_action,
    content,
    service,
    touched,
    identified,
    link,
    preposition,
    empty,
)
"""All rules, in their order."""
