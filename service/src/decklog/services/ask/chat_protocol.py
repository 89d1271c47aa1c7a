"""The chat completions protocol of OpenAI, as far as this program speaks it: messages, tools, and calls of tools.

What a model sends is untrusted: it is decoded into these types or refused, and nothing of it is executed.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

CALLS_IN_A_MESSAGE_MAX: Final = 16
"""Calls of tools in one message; further ones are left out."""
_ID_CHARS_MAX = 200


class ModelError(Exception):
    """The model cannot be asked, or its answer is not of the protocol. The text has no secret and nothing that the model said."""


class Function(msgspec.Struct, frozen=True):
    """A function that a model calls. `arguments` is JSON, as the model wrote it."""

    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: Function


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message of a conversation with a model."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


class _Said(msgspec.Struct, frozen=True):
    content: str | None = None
    tool_calls: list[ToolCall] | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Said


class _Completion(msgspec.Struct, frozen=True):
    choices: list[_Choice]


_decode = msgspec.json.Decoder(_Completion).decode


def request(model: str, messages: list[Message], tools: list[dict[str, Any]], choice: str) -> bytes:
    """Return the body of a request. `choice` is `auto`, `none`, or the name of the tool that must be called."""
    body: dict[str, Any] = {"model": model, "messages": messages, "stream": False}
    if tools:
        named = {"type": "function", "function": {"name": choice}}
        body |= {"tools": tools, "tool_choice": choice if choice in ("auto", "none") else named}
    return msgspec.json.encode(body)


def answer(body: bytes) -> Message:
    """Return what a model said. Raises `ModelError` where the answer is not of the protocol."""
    try:
        choices = _decode(body).choices
    except (msgspec.DecodeError, ValueError):
        raise ModelError("the model's answer is not of the chat completions protocol") from None
    if not choices:
        raise ModelError("the model's answer has no choice")
    said = choices[0].message
    calls = tuple(said.tool_calls or ())[:CALLS_IN_A_MESSAGE_MAX]
    if any(len(call.id) > _ID_CHARS_MAX or len(call.function.name) > _ID_CHARS_MAX for call in calls):
        raise ModelError("the model's answer has a call whose id or name is too long")
    return Message(role="assistant", content=said.content, tool_calls=calls)


def function(name: str, description: str, properties: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    """Return the definition of a tool."""
    parameters = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
