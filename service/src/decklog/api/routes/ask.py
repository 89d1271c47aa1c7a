"""Questions in plain words."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, post

from decklog.answer_shapes import Answer, ViewerAnswer
from decklog.api.limits import BODY_ERRORS, json_body
from decklog.api.openapi import JSON, Json, Media, Operation, json_answer
from decklog.api.reads import RECORD, SEARCH_ERRORS
from decklog.api.request import ask, refuse_parameters
from decklog.domain.ask.question import QuestionInput, read_question
from decklog.domain.errors import Code
from decklog.services.ask.asking import Answered

BODY_BYTES_MAX = 8 * 1024
"""Bytes of a body: the longest question, with blanks and characters that are written in longer ways."""

_EXAMPLE: Json = {
    "query": "action:document.delete AND occurred_at:>=2026-01-31T00:00:00Z AND occurred_at:<2026-02-01T00:00:00Z",
    "expert": "top",
    "log": "events",
    "zone": "UTC",
    "order": "newest",
    "limit": 10,
    "understood": [
        {"start": 0, "end": 3, "text": "who", "meaning": "by actor"},
        {"start": 4, "end": 21, "text": "deleted documents", "meaning": "action document.delete"},
        {"start": 22, "end": 35, "text": "on 31 January", "meaning": "2026-01-31 (UTC)"},
    ],
    "not_understood": [{"start": 36, "end": 43, "text": "quietly"}],
    "answer": "Not understood: “quietly”. The answer is as if this were not there. 1 record matches. By actor.id: alice (1).",
    "engine": "grammar",
    "comment": "",
    "notes": [],
    "records": [RECORD],
    "counts": [{"value": "alice", "count": 1}],
    "by": "actor.id",
    "total": 1,
    "other": 0,
    "missing": 0,
    "read": None,
    "conversation": "5f0c2b7d91aa0c1c",
}
_ASK = Operation(
    "ask_question",
    "read",
    {200: json_answer("The answer.", Answer, _EXAMPLE, viewer=ViewerAnswer)},
    (
        *SEARCH_ERRORS,
        *BODY_ERRORS,
        Code.QUESTION_NOT_UNDERSTOOD,
        Code.QUESTION_TOO_COSTLY,
        Code.TOO_MANY_BUCKETS,
        Code.NOT_FOUND,
        Code.CONFLICT,
    ),
    body={
        JSON: Media(
            QuestionInput,
            examples={
                "who": {"question": "who deleted documents on 31 January?", "zone": "Europe/Amsterdam"},
                "story": {"question": "what happened to d-17 since Monday?"},
            },
        )
    },
)


def answer_json(answered: Answered) -> bytes:
    """Return an answer as JSON. Its records are spliced in as they are."""
    reply = answered.reply
    asked, counts = reply.understanding, reply.counts
    return msgspec.json.encode(
        {
            "query": asked.query,
            "expert": asked.expert,
            "log": asked.log.text,
            "zone": asked.zone,
            "order": asked.order,
            "limit": asked.limit,
            "understood": asked.understood,
            "not_understood": asked.not_understood,
            "answer": reply.answer,
            "engine": reply.engine,
            "comment": reply.comment,
            "notes": reply.notes,
            "records": reply.records,
            "counts": () if counts is None else counts.values,
            "by": None if counts is None else counts.by,
            "total": None if counts is None else counts.total,
            "other": 0 if counts is None else counts.other,
            "missing": 0 if counts is None else counts.missing,
            "read": None if counts is None else counts.read,
            "conversation": answered.conversation,
        }
    )


@post("/logs/ask", opt={"operation": _ASK}, status_code=200)
async def ask_question(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Ask a question in plain English words.

    The question becomes one query of the query language, which the answer shows, and is answered from the records that the query finds.
    Every word of it is in `understood` with its meaning, in `not_understood`, or has no meaning of its own. The answer says first what is
    not understood. A question of which nothing is understood is refused with `question-not-understood`.

    The question and each reading for it are recorded in the access log. One question makes at most 8 readings within 20 seconds, and
    shows at most 100 records. A viewer token gets the answer over the records and fields of its scope, and has no conversations.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    wanted = read_question(await json_body(request, "a question", BODY_BYTES_MAX))
    with asked.services.reading.account(asked.principal) as held:
        answered = await asked.services.asking.ask(asked.principal, asked.context, wanted, held)
        return Response(answer_json(answered), media_type=JSON)
