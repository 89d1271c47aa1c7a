"""Every example of the page about questions is understood as the page says."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from decklog.domain.ask import grammar, tokens
from decklog.domain.ask.vocabulary import Vocabulary
from decklog.services.ask import asking
from decklog.services.ask import tools as tools_of_questions

PAGE = (Path(__file__).parents[2] / "docs/guides/ask.md").read_text(encoding="utf-8")
NOW = datetime(2026, 7, 15, 12, tzinfo=UTC)
VOCABULARY = Vocabulary(
    (
        *("document.delete", "document.read", "document.share", "document.update", "user.login", "user.create"),
        *("user.delete", "role.grant", "report.export", "secret.read"),
    ),
    ("alice", "bob", "frank@acme.example", "deploy-bot"),
    ("document", "user", "role", "report", "secret"),
    every_action=True,
)
_ROW = re.compile(r"^\| (.+?) \| (all records|`.*`) \| (\w+)(?:, by `([\w.]+)`)? \| (.*?) ?\|$", re.MULTILINE)
EXAMPLES = _ROW.findall(PAGE.partition("<!-- understood -->")[2])


def test_page_has_examples_that_are_understood_whole_and_in_part() -> None:
    assert sum(not unread for *_, unread in EXAMPLES) > 20
    assert sum(bool(unread) for *_, unread in EXAMPLES) > 5


@pytest.mark.parametrize(("question", "queries", "expert", "by", "unread"), EXAMPLES, ids=lambda value: value[:60])
def test_example_is_understood_as_the_page_says(question: str, queries: str, expert: str, by: str, unread: str) -> None:
    found = grammar.understand(question, VOCABULARY, NOW)
    assert list(found.compare or (found.query,)) == (re.findall("`([^`]+)`", queries) or [""])
    assert (found.expert, found.interval or found.group_by or "") == (expert, by)
    assert [each.text for each in found.not_understood] == re.findall(r"\*([^*]+)\*", unread)


def test_bounds_of_the_page_are_those_of_the_code() -> None:
    table = PAGE.partition("## Bounds")[2].partition("The stores count")[0]
    assert [int(number.replace(",", "")) for number in re.findall(r"\| ([\d,]+) \|", table)] == [
        *(grammar.QUESTION_CHARS_MAX, tokens.WORDS_MAX, tools_of_questions.CALLS_MAX, asking.SECONDS_MAX),
        *(tools_of_questions.RECORDS_MAX, tools_of_questions.VALUES_MAX, tools_of_questions.READ_MAX),
    ]
