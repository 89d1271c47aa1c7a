"""The reply that rests on the calls of a model: its query, records and counts are those of a call, and its first sentence is ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from decklog.domain.ask.understanding import Expert, Order, Understanding, Unread
from decklog.domain.log import LogName
from decklog.services.ask import telling
from decklog.services.ask.engine import Reply
from decklog.services.ask.model_tools import OF_EXPERT, Bench, CountCall, Evidence, SearchCall, StoryCall, TimelineCall
from decklog.services.ask.tools import Count, Counts, Listed, Story

MODEL_NOTE: Final = "A model wrote the query and the comment. Check the query."
_OTHERS_MAX = 5
"""Further queries that a note names."""


class Course(NamedTuple):
    """How a model came to its end.

    `expert` and `log` are those that the master chose, `unread` parts of the question that it did not understand, `comment` is what the model wrote,
    checked, and `notes` are what a reader must know about that.
    """

    expert: Expert
    log: LogName
    zone: str
    unread: tuple[Unread, ...]
    comment: str
    notes: Sequence[str]


def reply_of(bench: Bench, course: Course) -> Reply:
    """Return the reply that rests on the calls of a bench, at least one of which was made."""
    main, other = _chosen(bench.evidence, course.expert)
    result = main.result
    rest = [each.call.query for each in bench.evidence if each is not main and each is not other]
    understood = _understanding(main, other, course)
    return Reply(
        understood,
        _stated(main, other, understood),
        records=() if isinstance(result, Counts) else result.records,
        counts=_both(main, other) if other is not None else result if isinstance(result, Counts) else _story_counts(result),
        comment=course.comment,
        notes=(MODEL_NOTE, *_read_too(rest), *_refusals(bench.refused), *course.notes),
        sent=bench.sent,
    )


def _chosen(evidence: Sequence[Evidence], expert: Expert) -> tuple[Evidence, Evidence | None]:
    """Return the call that the answer rests on, and that of the other side of a comparison.

    It is the last one of the expert's first tool, or the last one of all, that the model made before it had seen a value of a record: so no record
    chooses the query. The first call of all is such a one.
    """
    blind = [each for each in evidence if each.blind]
    own = [each for each in blind if each.tool == OF_EXPERT[expert][0]] or blind
    if expert is Expert.COMPARE:
        sides = [each for each in own if isinstance(each.call, CountCall)]
        if len(sides) > 1:
            return sides[-2], sides[-1]
    return own[-1], None


def _understanding(main: Evidence, other: Evidence | None, course: Course) -> Understanding:
    call = main.call
    return Understanding(
        expert=_expert_of(main, other),
        query=call.query,
        log=course.log,
        group_by=call.group_by if isinstance(call, CountCall) else None,
        interval=call.interval if isinstance(call, TimelineCall) else None,
        zone=course.zone,
        order=Order.OLDEST
        if isinstance(call, StoryCall)
        else Order(call.order)
        if isinstance(call, SearchCall)
        else Order.NEWEST,
        limit=call.top if isinstance(call, CountCall) else call.limit if not isinstance(call, TimelineCall) else 20,
        not_understood=course.unread,
        compare=None if other is None else (call.query, other.call.query),
    )


def _expert_of(main: Evidence, other: Evidence | None) -> Expert:
    """Return the expert whose answer this is, whatever the master had chosen."""
    if other is not None:
        return Expert.COMPARE
    if isinstance(main.call, CountCall):
        return Expert.COUNT if main.call.group_by is None else Expert.TOP
    if isinstance(main.call, TimelineCall):
        return Expert.TIMELINE
    return Expert.STORY if isinstance(main.call, StoryCall) else Expert.FIND


def _stated(main: Evidence, other: Evidence | None, understood: Understanding) -> str:
    """Return the answer in our own words, as the grammar's answers have them."""
    result = main.result
    if other is not None:
        return telling.compared(understood, _both(main, other))
    if isinstance(result, Counts):
        return (telling.timeline if understood.expert is Expert.TIMELINE else telling.counted)(understood, result)
    return telling.story(understood, result) if isinstance(result, Story) else telling.found(understood, result)


def _story_counts(result: Listed | Story) -> Counts:
    return result.actors if isinstance(result, Story) else Counts(result.total)


def _both(main: Evidence, other: Evidence) -> Counts:
    """Return the totals of both sides of a comparison."""
    totals = tuple(Count(each.call.query, each.result.total) for each in (main, other))
    return Counts(sum(each.count for each in totals), "query", totals)


def _read_too(queries: Sequence[str]) -> list[str]:
    if not queries:
        return []
    named = "; ".join(f"`{query or 'all records'}`" for query in queries[:_OTHERS_MAX])
    return [f"The model also read: {named}{'; …' if len(queries) > _OTHERS_MAX else ''}."]


def _refusals(refused: Sequence[str]) -> list[str]:
    if not refused:
        return []
    kinds = ", ".join(dict.fromkeys(refused))
    return [
        f"{len(refused)} {'call' if len(refused) == 1 else 'calls'} of the model {'was' if len(refused) == 1 else 'were'} refused: {kinds}."
    ]
