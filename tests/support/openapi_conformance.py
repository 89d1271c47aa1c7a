"""An ASGI wrapper that compares every answer of the API with its OpenAPI document."""

from __future__ import annotations

import copy
import functools
import json
import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from litestar.types import Receive, Send

from decklog.api.app import openapi_document

PROBLEM = "application/problem+json"
BODY_CHECKED_MAX = 256 * 1024
"""Bytes of a body whose schema is checked; larger ones are pages of many equal records."""


@functools.cache
def closed_document() -> dict[str, Any]:
    """The OpenAPI document, with additional members of every object forbidden: the API must send no undocumented ones."""
    document = copy.deepcopy(openapi_document())
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return document


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Paths as patterns, those without parameters first."""
    paths = closed_document()["paths"]
    return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), paths[path]) for path in sorted(paths, key=lambda path: "{" in path)]


def _operation(method: str, path: str) -> dict[str, Any] | None:
    for pattern, methods in _patterns():
        if pattern.fullmatch(path.rstrip("/")) and method in methods:
            found: dict[str, Any] = methods[method]
            return found
    return None


@functools.cache
def _validator(schema: str) -> Any:
    components = closed_document()["components"]
    return jsonschema.Draft202012Validator({**json.loads(schema), "components": components})


def declared_codes(operation: dict[str, Any]) -> set[str]:
    """The error codes that the document declares for an operation."""
    return {
        code for response in operation["responses"].values() for code in response["content"].get(PROBLEM, {}).get("examples", ())
    }


class Conformance:
    """Forwards to the application and collects each deviation from the document in `faults`."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.state = application.state
        self.faults: list[str] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        status, headers, body = 0, {}, bytearray()

        async def send_on(message: Any) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {name.lower(): value for name, value in message["headers"]}
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
            elif message["type"] == "websocket.send":
                self._check_event(message.get("text") or "")
            await send(message)

        await self._application(scope, receive, send_on)
        if scope["type"] == "http" and status:
            media_type = headers.get(b"content-type", b"").partition(b";")[0].decode()
            viewer = any(name == b"authorization" and value.startswith(b"Bearer dlv_") for name, value in scope["headers"])
            content = b"" if b"content-encoding" in headers else bytes(body)  # what is compressed is not decoded here
            self._check(scope["method"], scope["path"], status, media_type, content, viewer=viewer)

    def _check(self, method: str, path: str, status: int, media_type: str, body: bytes, *, viewer: bool) -> None:
        operation = _operation("get" if method == "HEAD" else method.lower(), path)
        if operation is None or status == 405 or (path == "/metrics" and status == 404):
            return  # not an operation of this application: /metrics may have a port of its own
        where = f"{method} {path}: {status}"
        response = operation["responses"].get(str(status))
        if response is None:
            self.faults.append(f"{where} {body[:200]!r} is not documented")
        elif not response["content"]:
            if media_type or body:
                self.faults.append(f"{where} has a body, and none is documented")
        elif media_type not in response["content"]:
            self.faults.append(f"{where} of type {media_type!r} is not documented")
        elif media_type == "text/event-stream":
            for data in re.findall(rb"event: problem\ndata: (.*)\n", body):
                self._check_code(where, operation, json.loads(data)["code"])
        elif method != "HEAD" and media_type in ("application/json", PROBLEM) and 0 < len(body) <= BODY_CHECKED_MAX:
            described = response["content"][media_type]
            self._check_body(where, described.get("x-viewer-schema" if viewer else "schema", described["schema"]), body)
            if media_type == PROBLEM:
                self._check_code(where, operation, json.loads(body)["code"])

    def _check_body(self, where: str, schema: dict[str, Any], body: bytes) -> None:
        for error in _validator(json.dumps(schema)).iter_errors(json.loads(body)):
            self.faults.append(f"{where}: {error.json_path}: {error.message[:200]}")

    def _check_code(self, where: str, operation: dict[str, Any], code: str) -> None:
        if code not in declared_codes(operation):
            self.faults.append(f"{where}: the code {code!r} is not documented")

    def _check_event(self, text: str) -> None:
        if text.startswith('{"type":"error"'):
            operation = closed_document()["paths"]["/api/v1/logs/stream"]["get"]
            self._check_code("WebSocket", operation, json.loads(text)["problem"]["code"])
