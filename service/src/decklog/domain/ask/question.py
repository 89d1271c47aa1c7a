"""The question that a client asks: its shape, its bounds, and its text as an access record holds it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from decklog.domain.ask.grammar import QUESTION_CHARS_MAX
from decklog.domain.errors import invalid_parameter
from decklog.domain.json_body import decoded
from decklog.domain.privacy.masking import MASK, is_secret_name
from decklog.domain.records.canonical import UNSTORABLE

_NAMED = re.compile(r"([\w.]+)([:=]\s*)(\"[^\"]*\"|\S+)")


class QuestionInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question in plain words."""

    question: Annotated[str, Meta(min_length=1, max_length=QUESTION_CHARS_MAX, description="Question in plain English words.")]
    conversation: Annotated[
        str | None, Meta(description="Id of the conversation that the question continues; without it, one begins.")
    ] = None
    zone: Annotated[
        Annotated[str, Meta(max_length=64)] | None,
        Meta(description="Time zone of days and hours in the question, by its IANA name; UTC without it."),
    ] = None
    log: Annotated[Literal["events", "access"], Meta(description="Log that is asked about, where the question names none.")] = (
        "events"
    )


def read_question(body: bytes) -> QuestionInput:
    """Return the question of a body. Raises `invalid-json`, and `invalid-parameter` with the name of the member."""
    found = decoded(body, QuestionInput)
    if not found.question.strip() or UNSTORABLE.search(found.question):
        raise invalid_parameter("question", "must have words, without U+0000 and lone surrogates.")
    return found


def recorded(question: str) -> str:
    """Return the text of a question with the values of secret names masked: `password:hunter2` has such a value."""
    return _NAMED.sub(
        lambda found: f"{found[1]}{found[2]}{MASK}" if any(map(is_secret_name, found[1].split("."))) else found[0], question
    )
