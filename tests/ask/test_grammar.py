"""The grammar of questions: no word is left out in silence, and every query is one of the query language."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.ask.grammar import QUESTION_CHARS_MAX, understand
from decklog.domain.ask.lexicon import BETWEEN, EMPTY, EMPTY_PHRASES, FAMILIES, OUTCOMES, SEVERITIES
from decklog.domain.ask.rules import _PREPOSITIONS
from decklog.domain.ask.tokens import tokens_of
from decklog.domain.ask.understanding import Understanding
from decklog.domain.ask.vocabulary import Vocabulary
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.search import syntax
from decklog.domain.search.written import written
from tests.ask.questions import questions, vocabulary
from tests.ask.records import NOW
from tests.support.examples import examples

SILENT = (
    EMPTY | BETWEEN | _PREPOSITIONS | {word for phrase in EMPTY_PHRASES for word in phrase.split()} | {"that", "than", "export"}
)
"""The closed list of words that may have no meaning of their own."""


def asked(text: str, world: str = "c") -> Understanding:
    return understand(text, vocabulary(world), NOW)


def unread(text: str, world: str = "c") -> str:
    return " ".join(each.text for each in asked(text, world).not_understood)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("who deleted documents while drunk", "while drunk"),
        ("documents deleted twice", "twice"),
        ("logins outside business hours", "outside business hours"),
        ("who logged in for the first time yesterday", "first"),
        ("roles granted without approval", "without approval"),
        ("exports larger than 10 MB", "larger than 10 MB"),
        ("who did not log in yesterday", "not log in"),
        ("users who never logged in", "who never"),
        ("who logged in and deleted documents", "and"),
        ("documents only alice read", "only"),
        ("what did he do yesterday", "he"),
        ("who deleted it", "it"),
        ("my logins", "my"),
        ("failed logins or denied exports", "or denied"),
        ("who deleted documents after reading them", "documents after reading them"),
        ("documents deleted by alice and updated by bob", "bob"),
        ("what did bob not do", "not"),
        ("all but failed logins", "but"),
        ("who read d-17 but not d-21", "but not d-21"),
        ("logins on weekends", "weekends"),
        ("logins tomorrow", "tomorrow"),
        ("logins on 31 February", "31"),
        ("who can read documents", "can"),
        ("each user's last login", "last"),
        ("what happened when bob logged in", "when"),
        ("how many of the last 10 logins failed", "last 10"),
        ("logins per user per day", "per day"),
        ("who deleted more documents than bob", "more than"),
        ("logins between 9 and 17", "between 9 and 17"),
        ("logins by alice or on d-17", "or"),
        ("alice's failed and bob's denied logins", "bob 's denied"),
        ("average logins per day", "average"),
        ("no logins by alice", "no"),
        ("the same logins by two people", "same two"),
        ("denied logins by zoe", "zoe"),
        ("logins by mistake", "mistake"),
    ],
)
def test_words_that_could_change_the_answer_are_not_left_out(question: str, words: str) -> None:
    missing = [word for word in words.split() if word not in unread(question).split()]
    assert missing == [], asked(question)


@pytest.mark.parametrize(
    ("question", "query"),
    [
        ("actions by people other than alice", "NOT actor.id:alice"),
        ("deleted and created users", "action:user.delete OR action:user.create"),
        ("what did svc-1 do", "actor.id:svc-1"),
        ("what happened in session s-9 and s-12", "session_id:s-9 OR session_id:s-12"),
        ("logins, not from 10.0.0.7", "exists:source.ip AND NOT source.ip:10.0.0.7/32 AND action:user.login"),
        ("alice's actions, excluding logins and logouts", "actor.id:alice AND NOT action:user.login AND NOT action:user.logout"),
    ],
)
def test_lists_names_and_exclusions_are_read_as_they_are_meant(question: str, query: str) -> None:
    assert asked(question).query == query


def test_name_of_an_actor_that_is_a_word_of_actions_is_one_only_where_it_acts() -> None:
    known = Vocabulary(("payment.capture", "secret.read"), ("payments",), ("payment", "secret"), every_action=True)
    assert understand("failed payments", known, NOW).query == "outcome:failure AND resource.type:payment"
    for question in ("secrets read by payments", "what did payments read"):
        assert "actor.id:payments" in understand(question, known, NOW).query


def test_words_with_hyphens_are_ids_only_where_an_id_may_stand() -> None:
    assert unread("read-only calls by maria", "a") == "read-only"
    assert "resource.id:logs-prod" in asked("history of logs-prod", "a").query


@pytest.mark.parametrize("question", ["", "colourless green ideas sleep", "show me everything", "?", "and or not", "logging"])
def test_question_without_any_meaning_is_refused(question: str) -> None:
    with pytest.raises(DecklogError) as error:
        asked(question)
    assert error.value.code is Code.QUESTION_NOT_UNDERSTOOD
    assert error.value.extra["examples"]


def test_examples_of_the_refusal_are_understood() -> None:
    with pytest.raises(DecklogError) as error:
        asked("hm")
    assert [unread(example) for example in error.value.extra["examples"]] == [""] * len(error.value.extra["examples"])


def test_limits_orders_and_logs_are_read() -> None:
    assert (asked("last 10 denied actions").limit, asked("last 10 denied actions").order) == (10, "newest")
    assert (asked("first 3 logins of carol").limit, asked("first 3 logins of carol").order) == (3, "oldest")
    assert asked("top 3 addresses of denied logins").limit == 3
    assert asked("what happened to d-17").order == "oldest"
    assert understand("who read the access log yesterday", Vocabulary(("log.search",)), NOW).log is LogName.ACCESS


def test_most_alone_asks_for_the_actors_with_the_most_records() -> None:
    for question in ("who was denied most?", "who was denied most this week", "which users failed most between 1 and 3 July"):
        found = asked(question)
        assert (found.not_understood, found.expert, found.group_by) == ((), "top", "actor.id"), question
    assert unread("who was denied most expensive orders") == "most expensive orders"


def test_actions_that_the_log_does_not_have_are_told_by_patterns() -> None:
    found = understand("who approved payments", Vocabulary(("payment.capture",), every_action=True), NOW)
    assert "not known to have one" in " ".join(each.meaning for each in found.understood) or found.not_understood


def test_ambiguous_dates_are_shown_as_they_are_read() -> None:
    (piece,) = [each for each in asked("logins on 03/07/2026").understood if "2026" in each.text]
    assert piece.meaning == "2026-07-03, read with the day first (UTC)"


def test_times_may_be_those_of_receipt() -> None:
    assert asked("denied records received since yesterday").query == "outcome:denied AND received_at:>=2026-07-14T00:00:00Z"


def test_conditions_of_the_query_language_may_stand_in_a_question() -> None:
    assert asked("denied logins with metadata.reason:retention").query == (
        "outcome:denied AND metadata.reason:retention AND action:user.login"
    )


WORDS = st.sampled_from(
    sorted(
        {word for question in questions() for word in question.text.split()}
        | {word for row in FAMILIES.values() for word in row}
        | {*OUTCOMES, *SEVERITIES}
        | {
            "ghost",
            "5",
            "10",
            "9:30",
            "am",
            "/",
            "“",
            "a:b",
            "actor:x",
            "''",
            '"a b"',
            "n't",
            "compare",
            "than",
            "é",
            "東京",
            "10.0.0.0/33",
        }
    )
)
TEXTS = st.one_of(st.lists(WORDS, max_size=14).map(" ".join), st.text(max_size=60))
ZONES = st.sampled_from(["UTC", "Europe/Amsterdam", "Pacific/Auckland", "America/St_Johns"])
TIMES = st.integers(315_532_800, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
REFUSED = (Code.QUESTION_NOT_UNDERSTOOD, Code.QUESTION_TOO_COSTLY, Code.INVALID_PARAMETER)


def understood(text: str, known: Vocabulary, now: datetime = NOW, zone: str = "UTC") -> Understanding | None:
    """Return what a question is understood as, None where it is refused as questions are."""
    try:
        return understand(text, known, now, zone)
    except DecklogError as error:
        if error.code not in REFUSED:
            raise
        return None


@settings(deadline=None, max_examples=examples(150))
@given(TEXTS, st.sampled_from("ca"), ZONES, TIMES)
def test_every_word_has_a_meaning_or_is_named_and_every_query_is_one(text: str, world: str, zone: str, now: datetime) -> None:
    found = understood(text, vocabulary(world), now, zone)
    if found is None:
        return
    for query in found.compare or (found.query,):
        assert not query or written(syntax.read(query, now)) == query
    covered = [range(each.start, each.end) for each in found.understood]
    covered += [range(each.start, each.end) for each in found.not_understood]
    for token in tokens_of(text):
        assert token.word in SILENT or any(token.start in each for each in covered), token
    assert all(text[part.start : part.stop].split() for part in covered)


def test_longest_questions_are_read_within_bounds() -> None:
    vast = Vocabulary(tuple(f"s{n}:{verb}Bucket{n}" for n in range(500) for verb in ("Delete", "Get")), every_action=True)
    for word in ("at 9 of july ago ", "compare and ", "delete bucket ", '"a" ', "the last "):
        understood((word * QUESTION_CHARS_MAX)[:200], vast)
    with pytest.raises(DecklogError) as error:
        understand("delete", vast, NOW)
    assert error.value.code is Code.QUESTION_TOO_COSTLY
