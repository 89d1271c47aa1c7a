"""The grammar of questions: from plain words to what they are understood as.

The question is read from left to right by the rules of `rules`. Every word gets a meaning, is one of a closed list of words without a
meaning, or is not understood: no word is left out in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from decklog.domain.ask.actions import Actions, actions_of
from decklog.domain.ask.comparing import MORE, counterpart, kinds, splits
from decklog.domain.ask.days import Now
from decklog.domain.ask.draft import Draft, Group, received_node, time_meaning, time_node
from decklog.domain.ask.grouped import group_nodes
from decklog.domain.ask.rules import RULES
from decklog.domain.ask.times import NO_TIMES
from decklog.domain.ask.tokens import WORDS_MAX, Token, tokens_of
from decklog.domain.ask.understanding import Expert, Order, Understanding, Unread
from decklog.domain.ask.vocabulary import Vocabulary
from decklog.domain.ask.zones import find_zone
from decklog.domain.errors import Code, DecklogError, invalid_parameter
from decklog.domain.log import LogName
from decklog.domain.search import tree
from decklog.domain.search.calendar import zone_of
from decklog.domain.search.grammar import CLAUSES_MAX
from decklog.domain.search.written import written

QUESTION_CHARS_MAX = 500
"""Characters of a question."""
LIMIT_DEFAULT, TOP_DEFAULT = 20, 10
"""Records, and values, of an answer."""
EXAMPLES = (
    "who deleted what on 10 July?",
    "failed logins of alice last week",
    "how many documents were deleted this month, per day?",
    "which addresses did bob log in from since Monday?",
    "what happened to d-17?",
    "were more users created this week than last week?",
)
"""Questions that are understood, for those who ask one that is not."""
_ACCESS_LOG = ("access log",)


def log_of(text: str, log: LogName) -> LogName:
    """Return the log that a question names, else `log`."""
    return LogName.ACCESS if any(each in text.lower() for each in _ACCESS_LOG) else log


def understand(
    text: str, vocabulary: Vocabulary, now: datetime, zone: str = "UTC", log: LogName = LogName.EVENTS
) -> Understanding:
    """Return what a question is understood as.

    Args:
        text: The question.
        vocabulary: The words of the log that it is about, which is `log_of` the question.
        now: What relative times refer to.
        zone: The zone of its days and hours, where it names no other: an IANA name.
        log: The log where the question names no other.

    Raises:
        DecklogError: `question-not-understood` where no word has a meaning, `question-too-costly` where the query would be too long, and
            `invalid-parameter` for an unknown zone and for more words than `WORDS_MAX`.
    """
    tokens = tokens_of(text)
    if len(tokens) > WORDS_MAX:
        raise invalid_parameter("question", f"at most {WORDS_MAX} words are allowed; it has {len(tokens)}.")
    named = find_zone(tokens)
    clock = Now(now, zone_of(zone if named is None else named[2]))
    actions = actions_of(vocabulary)
    found = _compared(tokens, actions, clock, named) or _single(tokens, actions, clock, named)
    return _finished(text, found, log_of(text, log))


def read(
    tokens: Sequence[Token], actions: Actions, now: Now, named: tuple[int, int, str] | None, cues: Sequence[str] = ()
) -> Draft:
    """Return the draft of some words: each of them with its meaning, or not understood."""
    draft = Draft(tokens, actions, now, cues=set(cues))
    while draft.at < len(tokens):
        draft.at += _zone(draft, named) or _log(draft) or _more(draft) or _first(draft)
    _close(draft)
    return draft


def _first(draft: Draft) -> int:
    """Apply the first rule that reads any word; without one, the word is not understood."""
    for rule in RULES:
        if count := rule(draft):
            return count
    draft.unread.add(draft.at)
    draft.role = ""
    return 1


def _zone(draft: Draft, named: tuple[int, int, str] | None) -> int:
    if named is None or named[0] != draft.at or named[1] > len(draft.tokens):
        return 0
    return draft.means(named[1] - named[0], f"times of {named[2]}")


def _log(draft: Draft) -> int:
    return draft.means(2, "the access log") if draft.phrase(2) in _ACCESS_LOG else 0


def _more(draft: Draft) -> int:
    if "compare" not in draft.cues or draft.word() not in MORE:
        return 0
    return draft.means(1, "compared") if draft.word() not in ("how", "does", "between") else 1


def _close(draft: Draft) -> None:
    """Mark what stayed open as not understood: a negation of nothing, an or between different things, a clock without days."""
    if draft.negation is not None:
        draft.unread.update(range(*draft.negation))
    draft.unread.update(draft.open_links)
    if draft.limited is not None and draft.expert in (Expert.COUNT, Expert.TIMELINE, Expert.TOP):
        draft.unread.update(range(*draft.limited))
    if time_node(draft.times, draft.now) is None:
        for place in draft.time_places:
            draft.unread.update(range(*place))
        draft.times = NO_TIMES


def _nodes(draft: Draft) -> list[tree.Node]:
    """Return the conditions of a draft; groups of words without a meaning are not understood."""
    of_groups = group_nodes(draft)  # first, as it may widen the outcome of sign-ins
    nodes = [tree.negation(each.node) if each.negated else each.node for each in draft.conditions]
    nodes = [*nodes, *of_groups]
    time = time_node(draft.times, draft.now)
    return nodes if time is None else [*nodes, received_node(time) if draft.received else time]


class _Read:
    """A question that was read: its draft, the query, and that of the other side of a comparison."""

    def __init__(self, draft: Draft, queries: tuple[tree.Node, ...], others: Sequence[Draft] = ()) -> None:
        self.draft = draft
        self.queries = queries
        self.drafts = (draft, *others)


def _single(tokens: Sequence[Token], actions: Actions, now: Now, named: tuple[int, int, str] | None) -> _Read:
    draft = read(tokens, actions, now, named)
    return _Read(draft, (tree.conjunction(_nodes(draft)),))


def _compared(tokens: Sequence[Token], actions: Actions, now: Now, named: tuple[int, int, str] | None) -> _Read | None:
    """Return a comparison where the words are one: both sides are understood, and the second differs from the first."""
    for end, start in splits(tokens):
        left = read(tokens[:end], actions, now, named, ("compare",))
        shifted = None if named is None else (named[0] - start, named[1] - start, named[2])
        right = read(tokens[start:], actions, now, shifted, ("compare",))
        if (found := _sides(left, right, tokens[end:start])) is not None:
            return found
    return None


def _sides(left: Draft, right: Draft, pivot: Sequence[Token]) -> _Read | None:
    different = kinds(right)
    if not different or right.unread:
        return None
    if "times" in different and left.times == NO_TIMES:
        found = counterpart(right.times, left)
        if found is None:
            return None
        left.times = found
        note = f"compared with {time_meaning(found, left.now)}"
    else:
        note = "compared with"
    if not different <= kinds(left):
        return None
    first = tree.conjunction(_nodes(left))
    second = tree.conjunction(_replaced(left, right, different))
    if first == second or right.unread:
        return None
    marks = Draft(pivot, left.actions, left.now)
    marks.meanings[0, len(pivot)] = note
    return _Read(left, (first, second), (marks, right))


def _replaced(left: Draft, right: Draft, different: set[str]) -> list[tree.Node]:
    """Return the conditions of the second side: its own, and those of the first side of other kinds."""
    merged = Draft(right.tokens, right.actions, right.now)
    of_actions = ("exact action", "service") if "actions" in different else ()
    kept = [each for each in left.conditions if each.kind not in different and each.kind not in of_actions]
    merged.conditions = [*kept, *right.conditions]
    merged.received = left.received
    merged.times = right.times if "times" in different else left.times
    merged.groups = _groups(left, right) if "actions" in different else left.groups
    nodes = _nodes(merged)
    right.unread |= merged.unread
    return nodes


def _groups(left: Draft, right: Draft) -> list[Group]:
    """Return the groups of the second side; a verb alone has the object of the first side."""
    if len(left.groups) == 1 and len(right.groups) == 1 and len(right.groups[0].roots) == 1:
        verb = right.groups[0].roots[0]
        objects = [each for each in left.groups[0].roots if each not in left.actions.verbs]
        if objects and right.actions.matching([*objects, verb]):
            return [Group(right.groups[0].places, [*objects, verb])]
    return right.groups


def _finished(text: str, found: _Read, log: LogName) -> Understanding:
    draft = found.draft
    pieces = sorted((piece for each in found.drafts for piece in each.pieces()), key=lambda piece: piece.start)
    unread = tuple(sorted((part for each in found.drafts for part in each.unreads()), key=lambda part: part.start))
    if not pieces:
        raise not_understood(text, unread)
    if any(sum(1 for _ in tree.leaves(query)) > CLAUSES_MAX - 16 for query in found.queries):
        raise DecklogError(
            Code.QUESTION_TOO_COSTLY, "The question means too many actions of this log. Name fewer of them, or a service."
        )
    queries = tuple(map(written, found.queries))
    expert = Expert.COMPARE if len(queries) == 2 else draft.expert
    by = draft.by or ("actor.id" if expert is Expert.TOP else None)
    counted = expert in (Expert.TOP, Expert.COUNT)
    return Understanding(
        expert=expert,
        query=queries[0],
        log=log,
        group_by=by if counted else None,
        interval=draft.interval if expert is Expert.TIMELINE else None,
        zone=draft.now.zone.key,
        order=Order.OLDEST if draft.oldest or expert is Expert.STORY else Order.NEWEST,
        limit=draft.limit or (TOP_DEFAULT if counted else LIMIT_DEFAULT),
        understood=tuple(pieces),
        not_understood=unread,
        compare=(queries[0], queries[1]) if len(queries) == 2 else None,
    )


def not_understood(text: str, unread: Sequence[Unread]) -> DecklogError:
    """Return the refusal of a question of which no word has a meaning."""
    return DecklogError(
        Code.QUESTION_NOT_UNDERSTOOD,
        f"No word of the question {text[:80]!r} has a meaning here. Ask for example: {EXAMPLES[0]}",
        extra={
            "not_understood": [{"start": each.start, "end": each.end, "text": each.text} for each in unread],
            "examples": list(EXAMPLES),
        },
    )
