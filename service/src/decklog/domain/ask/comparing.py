"""Comparisons: two questions in one, the second of which says only what is different."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from decklog.domain.ask.days import Days, month_of_year, week_of
from decklog.domain.ask.draft import Draft
from decklog.domain.ask.times import NO_TIMES, Times
from decklog.domain.ask.tokens import Token, words

_PIVOTS = ("compared with", "compared to", "versus", "vs", "than")
_SPLITS_MAX = 4
"""Places of a question that are tried as the middle of a comparison."""
_SECOND = ("with", "to", "against", "and", "or")
"""Words between the two sides behind compare."""
MORE = frozenset(("more", "fewer", "less", "often", "difference", "compare", "between", "how", "does"))


def splits(tokens: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """Yield the places between which the words of a comparison may stand that divide its two sides."""
    for at in range(1, len(tokens) - 1):
        for pivot in _PIVOTS:
            count = pivot.count(" ") + 1
            if words(tokens, at, count) == pivot and words(tokens, at - 1, 1) not in (
                "older",
                "newer",
                "other",
                "worse",
                "higher",
            ):
                yield at, at + count
                return
    if "compare" in (token.word for token in tokens) or "difference" in (token.word for token in tokens):
        places = [at for at in range(len(tokens) - 2, 0, -1) if tokens[at].word in _SECOND]
        yield from ((at, at + 1) for at in places[:_SPLITS_MAX])


def counterpart(times: Times, left: Draft) -> Times | None:
    """Return the time that last week, last month or yesterday is compared with where a question names no other: until now."""
    if len(times.days) != 1 or times.clock or times.since or times.until:
        return None
    days, today = times.days[0], left.now.today
    pairs = (
        (Days(today - timedelta(days=1), today), Days(today, today + timedelta(days=1))),
        (week_of(today - timedelta(days=7)), week_of(today)),
        (month_of_year(today.year, today.month - 1), month_of_year(today.year, today.month)),
    )
    found = next((this for before, this in pairs if before == days), None)
    return None if found is None else Times((found,))


def kinds(draft: Draft) -> set[str]:
    """Return the kinds of conditions that a side has; actions are one kind, by whatever words."""
    found = {"actions" if each.kind in ("exact action", "service") else each.kind for each in draft.conditions}
    return found | ({"actions"} if draft.groups else set()) | ({"times"} if draft.times != NO_TIMES else set())
