"""Conversations of the caller: list, get, delete. `POST /api/v1/logs/ask` begins and continues them."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, delete, get
from litestar.params import FromPath

from decklog import conversation_shapes
from decklog.api.openapi import JSON, Answer, Json, Operation, json_answer, parameter
from decklog.api.reads import RECORDED_ERRORS
from decklog.api.request import ask, refuse_parameters
from decklog.domain.ask.conversation import Conversation, ConversationHead, Turn
from decklog.domain.errors import Code

_HEAD: Json = {
    "id": "5f0c2b7d91aa0c1c",
    "title": "Who deleted buckets yesterday?",
    "length": 1,
    "started_at": "2026-01-31T12:00:00.123456Z",
    "last_at": "2026-01-31T12:00:00.123456Z",
    "ends_at": "2026-03-02T12:00:00.123456Z",
}
_TURN: Json = {
    "asked_at": "2026-01-31T12:00:00.123456Z",
    "question": "Who deleted buckets yesterday?",
    "query": "action:bucket.delete AND occurred_at:>=2026-01-30T00:00:00Z AND occurred_at:<2026-01-31T00:00:00Z",
    "expert": "find",
    "log": "events",
    "zone": "UTC",
    "not_understood": [],
    "answer": "1 record.",
    "engine": "grammar",
    "records": [41],
}
_ID = parameter(
    "number",
    "Id of the conversation.",
    {"type": "string", "minLength": 1},
    place="path",
    example="5f0c2b7d91aa0c1c",
    required=True,
)


def _head(found: ConversationHead) -> Json:
    plain: Json = msgspec.to_builtins(found)
    plain.pop("turns", None)
    return plain


def _turn(turn: Turn) -> Json:
    understood = turn.understanding
    return {
        "asked_at": turn.asked_at,
        "question": turn.question,
        "query": understood.query,
        "expert": understood.expert,
        "log": understood.log.text,
        "zone": understood.zone,
        "not_understood": [piece.text for piece in understood.not_understood],
        "answer": turn.answer,
        "engine": turn.engine,
        "records": turn.records,
    }


def _shown(found: Conversation) -> Json:
    return {**_head(found), "turns": [_turn(turn) for turn in found.turns]}


_LIST = Operation(
    "list_conversations",
    "read",
    {200: json_answer("Conversations.", conversation_shapes.ListedConversations, {"items": [_HEAD]})},
    RECORDED_ERRORS,
)


@get("/conversations", opt={"operation": _LIST})
async def list_conversations(request: Request[Any, Any, Any]) -> Response[bytes]:
    """List the caller's own conversations, the one used last first.

    Roles: auditor, admin. A conversation belongs to the credential that began it. No role reads those of others.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    found = await asked.services.conversations.list(asked.principal, asked.context)
    return Response(msgspec.json.encode({"items": [_head(each) for each in found]}), media_type=JSON)


_GET = Operation(
    "get_conversation",
    "read",
    {200: json_answer("The conversation.", conversation_shapes.Conversation, {**_HEAD, "turns": [_TURN]})},
    (*RECORDED_ERRORS, Code.NOT_FOUND),
    parameters=[_ID],
)


@get("/conversations/{number:str}", opt={"operation": _GET})
async def get_conversation(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[bytes]:
    """Get one of the caller's own conversations with its questions and answers.

    Roles: auditor, admin. It names records by their numbers; those that are over or hidden meanwhile are not found any more.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    found = await asked.services.conversations.get(asked.principal, asked.context, number)
    return Response(msgspec.json.encode(_shown(found)), media_type=JSON)


_DELETE = Operation(
    "delete_conversation",
    "read",
    {204: Answer("The conversation was deleted.", {})},
    (*RECORDED_ERRORS, Code.NOT_FOUND),
    parameters=[_ID],
)


@delete("/conversations/{number:str}", opt={"operation": _DELETE}, status_code=204)
async def delete_conversation(request: Request[Any, Any, Any], number: FromPath[str]) -> None:
    """Delete one of the caller's own conversations. The records of its questions in the access log stay.

    Roles: auditor, admin.
    """
    refuse_parameters(request.scope["query_string"])
    asked = await ask(request)
    await asked.services.conversations.delete(asked.principal, asked.context, number)
