"""Twenty questions of an auditor: the command line of each answers what plain Python finds in the events as AWS wrote them."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from decklog.cli import program
from decklog.domain.identity.access import Role
from tests.support import real_events
from tests.support.api_world import World
from tests.support.auditor_questions import FILE, QUESTIONS, AuditorQuestion
from tests.support.served import served_world

Events = Sequence[Mapping[str, Any]]
pytestmark = pytest.mark.xdist_group("auditor-questions")  # the events are imported once


@pytest.fixture(scope="module")
def events() -> Events:
    return real_events.values(FILE)


@pytest.fixture(scope="module")
def cloud(events: Events) -> Iterator[World]:
    """The API with all events, imported by the command line."""
    with served_world() as world:
        words = ["import", "cloudtrail", str(real_events.path(FILE)), "--url", world.url]
        assert program.run([*words, "--key", world.keys["acme", Role.ADMIN]]) == 0
        yield world


@pytest.fixture
def signed_in(cloud: World, config: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECKLOG_URL", cloud.url)
    monkeypatch.setenv("DECKLOG_KEY", cloud.keys["acme", Role.AUDITOR])


def printed_ids(question: AuditorQuestion, out: str) -> list[str]:
    """The ids of the records that a command printed."""
    if question.command[0] != "export":
        return [item["id"] for item in json.loads(out)["items"]]
    if "csv" in question.command:
        return [row["id"] for row in csv.DictReader(io.StringIO(out))]
    return [json.loads(line)["id"] for line in out.splitlines()]


@pytest.mark.parametrize("question", QUESTIONS, ids=[question.words for question in QUESTIONS])
def test_command_answers_the_question_as_the_events_do(
    question: AuditorQuestion, signed_in: None, events: Events, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    expected = question.ids(events)
    assert expected
    assert program.run([*question.command, *(() if question.command[0] == "export" else ("-o", "json"))]) == 0
    out = capsysbinary.readouterr().out.decode()
    if question.group is not None:
        counts = {item["value"]: item["count"] for item in json.loads(out)["items"]}
        assert counts == question.counts(events)
        assert sum(counts.values()) == len(expected)
        return
    found = printed_ids(question, out)
    assert sorted(found) == sorted(expected)
    if "--oldest" in question.command or question.command[0] == "story":
        assert found == expected


def test_cookbook_has_each_question_with_its_query_its_command_and_its_count(events: Events) -> None:
    page = (Path(__file__).parents[2] / "docs/guides/auditor-cookbook.md").read_text()
    assert page.count("\n## ") == len(QUESTIONS)
    for question in QUESTIONS:
        section = page.partition(f"\n## {question.words}\n")[2].partition("\n## ")[0]
        assert f"```text\n{question.query}\n```" in section
        [command] = [line for line in section.splitlines() if line.startswith("decklog ")]
        assert tuple(shlex.split(command))[1:] == question.command
        records, values = len(question.ids(events)), len(question.counts(events))
        assert f"\n{records:,} record{'s' * (records != 1)}" in section
        assert not values or f", {values:,} value{'s' * (values != 1)}." in section


def test_there_are_twenty_questions_with_their_query_in_the_command() -> None:
    assert len(QUESTIONS) == len({question.words for question in QUESTIONS}) == 20
    for question in QUESTIONS:
        assert question.query in question.command or question.command[0] == "story"
