"""The rule for what records are counted by: by outcome, which addresses, top 5 users, the most frequent actions."""

from __future__ import annotations

from decklog.domain.ask.calendar_words import number_of
from decklog.domain.ask.draft import Draft
from decklog.domain.ask.lexicon import FIELDS, GENERIC, NEGATIONS, root

_OPENINGS = (
    "grouped by",
    "group by",
    "split by",
    "broken down by",
    "for each",
    "from each",
    "of each",
    "by each",
    "each",
    "by",
    "per",
)
_MOST = ("most active", "most frequent", "most common", "most often used", "most used", "busiest", "top", "most")
_ACTORS = frozenset(("actor.id",))


def grouping(draft: Draft) -> int:
    """Read what records are counted by."""
    return _opened(draft) or _top(draft) or _which(draft) or _how_many(draft) or _the_most(draft)


def _field(draft: Draft, offset: int) -> tuple[int, str] | None:
    for count in (3, 2, 1):
        path = FIELDS.get(draft.phrase(count, offset))
        if path is not None and draft.word(offset + count - 1):
            return count, path
    return None


def _set(draft: Draft, path: str, count: int, *cues: str) -> int:
    if (draft.by is not None and draft.by != path) or draft.interval is not None:
        draft.unread.update(range(draft.at, draft.at + count))
        return count
    draft.by = path
    draft.cues.update(cues)
    return draft.means(count, f"count by {path}")


def _opened(draft: Draft) -> int:
    for opening in _OPENINGS:
        count = opening.count(" ") + 1
        found = _field(draft, count) if draft.phrase(count) == opening else None
        if found is not None and found[1] == "actor.id" and opening == "by" and _excludes(draft, count + found[0]):
            return draft.means(count + found[0], "by actors")
        if found is not None and not _names_more(draft, count + found[0]):
            return _set(draft, found[1], count + found[0], "by")
    return 0


def _excludes(draft: Draft, offset: int) -> bool:
    """Return whether a negation follows, as in by people other than alice."""
    return any(draft.phrase(count, offset) in NEGATIONS for count in (1, 2))


def _names_more(draft: Draft, offset: int) -> bool:
    """Return whether a value follows the noun for a field, as in by user alice."""
    from_here = draft.at + offset
    return (
        from_here < len(draft.tokens)
        and draft.word(offset - 1) == "user"
        and draft.word(offset).isalnum()
        and (draft.word(offset) in [actor.lower() for actor in draft.actions.vocabulary.actors])
    )


def _top(draft: Draft) -> int:
    for opening in _MOST:
        count = opening.count(" ") + 1
        if draft.phrase(count) != opening:
            continue
        number = number_of(draft.word(count)) if opening == "top" else None
        count += number is not None
        more = next((each.count(" ") + 1 for each in _MOST if draft.phrase(each.count(" ") + 1, count) == each), 0)
        found = _field(draft, count + more)
        if found is None:
            continue
        draft.limit = number or draft.limit
        return _set(draft, found[1], count + more + found[0], "top")
    return 0


def _which(draft: Draft) -> int:
    if draft.word() not in ("which", "what"):
        return 1 and _from_where(draft)
    if (found := _field(draft, 1)) is not None and not _is_object(draft, 1, found[0]):
        if draft.word(1) in GENERIC and draft.word() == "what":
            return 0
        return _set(draft, found[1], 1 + found[0], "which")
    if root(draft.word(1)) in {key[-1] for key in draft.actions.types} | draft.actions.nouns and draft.word(1).endswith("s"):
        return _set(draft, "resource.id", 1, "which") if draft.word(1) not in _EVENTS else 0
    return 0


_EVENTS = frozenset(
    ("events", "records", "calls", "requests", "entries", "actions", "operations", "logs", "attempts", "results", "items")
)


def _from_where(draft: Draft) -> int:
    return _set(draft, "source.ip", 2, "which") if draft.phrase(2) == "from where" else 0


def _is_object(draft: Draft, offset: int, count: int) -> bool:
    """Return whether the nouns at a place are the object of a passive verb: which users were deleted."""
    place = offset + count
    if draft.word(place) not in ("were", "was", "got", "have", "are"):
        return False
    verb = root(draft.word(place + (2 if draft.word(place + 1) == "been" else 1)))
    nouns = [root(draft.word(offset + number)) for number in range(count)]
    return bool(draft.actions.matching([*nouns, verb]))


def _how_many(draft: Draft) -> int:
    """Read how many users and the like: different values are counted, unless they are what was acted on."""
    if draft.phrase(2) != "how many":
        return 0
    found = _field(draft, 2)
    if found is None or draft.word(2) in GENERIC or _is_object(draft, 2, found[0]):
        return 0
    following = draft.word(2 + found[0])
    if following in ("did", "does", "do") and found[1] != "source.ip":
        return 0
    return _set(draft, found[1], 2 + found[0], "count")


_AFTER_MOST = frozenset(
    ("", "?", "this", "last", "today", "yesterday", "since", "in", "on", "at", "between", "from", "during", "before", "after")
)
"""Words before which most stands alone: who was denied most this week, but not the most recent."""


def _the_most(draft: Draft) -> int:
    """Read the most, and most often: the actors with the most records."""
    count = next((n for n, text in ((3, "the most often"), (2, "the most"), (2, "most often")) if draft.phrase(n) == text), 0)
    if not count and draft.word() == "most" and draft.word(1) in _AFTER_MOST:
        count = 1
    if not count or not draft.cues.intersection(("who", "which")):
        return 0
    draft.cues.add("top")
    return draft.means(count, "the most first")
