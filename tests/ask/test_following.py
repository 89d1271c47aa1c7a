"""Questions that refer to the one before them: what they replace, what they keep, and which ones stand alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from decklog.domain.ask.following import understood
from decklog.domain.ask.grammar import understand
from decklog.domain.ask.understanding import Expert, Understanding
from decklog.domain.ask.vocabulary import Vocabulary
from decklog.domain.search.query import Query
from decklog.domain.search.syntax import read
from decklog.domain.search.written import written

NOW = datetime(2026, 7, 15, 12, tzinfo=UTC)
WORDS = Vocabulary(("user.login", "document.delete", "document.read"), ("alice", "bob"), ("document",), every_action=True)


def alone(text: str) -> Understanding:
    return understand(text, WORDS, NOW, "Europe/Amsterdam")


def after(first: str, *texts: str) -> Understanding:
    """Return the understanding of the last of some questions in a row."""
    question, found = first, alone(first)
    for text in texts:
        question, found = text, understood(text, (question, found), alone, NOW)
    return found


def same(query: str, other: str) -> bool:
    """Return whether two queries have the same conditions."""

    def conditions(text: str) -> set[str]:
        node = read(text, NOW)
        return {written(each) for each in getattr(node, "children", (node,))}

    return conditions(query) == conditions(other) and Query(read(query, NOW)) is not None


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (("logins of alice yesterday", "and today?"), "logins of alice today"),
        (("logins of alice yesterday", "only the denied ones"), "denied logins of alice yesterday"),
        (("logins of alice yesterday", "and of bob?"), "logins of bob yesterday"),
        (("logins of alice yesterday", "what about bob?"), "logins of bob yesterday"),
        (("logins of alice yesterday", "and today?", "only the denied ones"), "denied logins of alice today"),
        (("logins of alice yesterday", "only the denied ones", "and today?"), "denied logins of alice today"),
    ],
)
def test_follow_up_replaces_what_it_says_and_keeps_the_rest(texts: tuple[str, ...], whole: str) -> None:
    found, expected = after(*texts), alone(whole)
    assert same(found.query, expected.query), (found.query, expected.query)
    assert found.expert is expected.expert
    assert not found.not_understood


def test_follow_up_keeps_the_way_of_the_answer_unless_it_names_another() -> None:
    counted = after("how many documents were deleted per day last week?", "only of alice")
    assert (counted.expert, counted.interval) == (Expert.TIMELINE, "day")
    assert "actor.id:alice" in counted.query
    listed = after("how many documents were deleted last week?", "and which ones of alice?")
    assert listed.expert is Expert.FIND


def test_words_of_a_follow_up_are_where_they_stand_in_it() -> None:
    text = "And, only the denied ones of xyzzyplugh?"
    found = after("logins of alice yesterday", text)
    spans = [(piece.start, piece.end, piece.text) for piece in found.understood]
    spans += [(part.start, part.end, part.text) for part in found.not_understood]
    for start, end, words in spans:
        assert text[start:end] == words
    assert found.understood[0].text == "And, only"
    assert found.understood[0].meaning == "as before: logins of alice yesterday"


def test_question_without_a_cue_or_without_a_question_before_it_stands_alone() -> None:
    assert after("logins of alice yesterday", "logins of bob") == alone("logins of bob")
    assert understood("logins of bob", None, alone, NOW) == alone("logins of bob")
    compared = alone("were more documents deleted this week than last week?")
    assert compared.compare is not None
    assert understood("and logins of bob", ("x", compared), alone, NOW) == alone("and logins of bob")
