"""Questions in plain words: most are understood exactly, and none is silently wrong."""

from __future__ import annotations

import pytest

from decklog.domain.ask.grammar import understand
from decklog.domain.ask.understanding import Understanding
from decklog.domain.errors import DecklogError
from tests.ask.questions import Asked, found, questions, vocabulary
from tests.ask.records import NOW

EXACT_LEAST = 0.8
"""Share of the questions of each group that must be understood exactly."""
FORMS = {"find": "records", "story": "records", "count": "values", "top": "values"}
"""Experts whose answers have the same form."""


def judged(asked: Asked) -> str:
    """How a question is understood: `exact`, `refused`, `said` where words are not understood, or what is `wrong`."""
    try:
        understanding = understand(asked.text, vocabulary(asked.world), NOW)
    except DecklogError:
        return "refused"
    wrong = _difference(asked, understanding)
    if understanding.not_understood:
        return "said"
    return f"wrong: {wrong}" if wrong else "exact"


def _difference(asked: Asked, understanding: Understanding) -> str:
    queries = understanding.compare or (understanding.query,)
    if [found(asked.world, query) for query in queries] != [found(asked.world, query) for query in asked.queries]:
        return f"{asked.text!r} became {queries}"
    form = FORMS.get(understanding.expert, understanding.expert.value)
    by = understanding.interval or understanding.group_by
    if (form, by) != (FORMS.get(asked.expert, asked.expert), asked.by):
        return f"{asked.text!r} is answered by {understanding.expert}, by {by}"
    return ""


def test_right_queries_find_records_and_leave_others_out() -> None:
    for asked in questions():
        for query in asked.queries:
            assert found(asked.world, query), asked.text
            assert not query or found(asked.world, query) != found(asked.world, ""), asked.text


@pytest.mark.parametrize("held_out", [False, True], ids=["built with", "held out"])
@pytest.mark.parametrize("group", ["filters", "counts", "stories"])
def test_questions_are_understood_and_never_silently_wrong(group: str, held_out: bool) -> None:
    verdicts = {asked.text: judged(asked) for asked in questions() if (asked.group, asked.held_out) == (group, held_out)}
    assert [verdict for verdict in verdicts.values() if verdict.startswith("wrong")] == []
    exact = sum(verdict == "exact" for verdict in verdicts.values())
    assert exact >= EXACT_LEAST * len(verdicts), {text: verdict for text, verdict in verdicts.items() if verdict != "exact"}
