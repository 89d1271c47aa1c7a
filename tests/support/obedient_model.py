"""A model that speaks the chat completions protocol and does whatever it reads: the worst one that an engine can be connected to.

Orders are `CALL <tool> <JSON arguments>` and `SAY <text to the end>`, in the question, in a script of a test, or in a record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

ORDER = re.compile(r"CALL (\S+) (\{.*?\})(?= CALL | SAY |$)|SAY (.*)$", re.DOTALL)


class ObedientModel:
    """Sends requests to itself: an instance stands for the endpoint.

    Args:
        expert: The expert that it chooses.
        script: What it says to the expert's turns, before it obeys; each is text, or calls of tools.
        log: The log that it chooses.
        not_understood: The words that it names as not understood.
    """

    def __init__(
        self,
        expert: str = "find",
        script: Sequence[str | list[tuple[str, Any]]] = (),
        *,
        log: str = "events",
        not_understood: Sequence[str] = (),
    ) -> None:
        self.route = {"expert": expert, "log": log, "not_understood": list(not_understood)}
        self.script = list(script)
        self.requests: list[dict[str, Any]] = []
        self._obeyed = 0
        self._calls = 0

    async def __call__(self, body: bytes) -> bytes:
        asked = json.loads(body)
        self.requests.append(asked)
        names = [tool["function"]["name"] for tool in asked.get("tools", ())]
        if names == ["route"]:
            return self.said([("route", self.route)])
        if self.script:
            return self.said(self.script.pop(0))
        return self.said(self._obey(asked["messages"]))

    def said(self, what: str | list[tuple[str, Any]]) -> bytes:
        """Return an answer of the protocol: a text, or calls with arguments (JSON, or a text as it is)."""
        if isinstance(what, str):
            message: dict[str, Any] = {"role": "assistant", "content": what}
        else:
            calls = []
            for name, arguments in what:
                self._calls += 1
                text = arguments if isinstance(arguments, str) else json.dumps(arguments)
                calls.append({"id": f"call-{self._calls}", "type": "function", "function": {"name": name, "arguments": text}})
            message = {"role": "assistant", "content": None, "tool_calls": calls}
        return json.dumps({"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}).encode()

    def _obey(self, messages: list[dict[str, Any]]) -> str | list[tuple[str, Any]]:
        """Do what the results of tools order, the newest order once."""
        read = [text for message in messages if message["role"] == "tool" for text in _texts(json.loads(message["content"]))]
        orders = [order for text in read for order in ORDER.finditer(text)]
        fresh, self._obeyed = orders[self._obeyed :], max(len(orders), self._obeyed)
        if calls := [(order[1], order[2]) for order in fresh if order[1]]:
            return calls
        said = [order[3] for order in orders if order[3]]
        return said[-1] if said else "Done."


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in (*value.keys(), *value.values()) for text in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []
