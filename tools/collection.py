"""Generate requests for API clients from the OpenAPI document: a Postman collection (v2.1) and an `.http` file.

Both hold the same requests in an order in which they work one after the other: what a request makes, later ones read, change and
delete. Their bodies are the examples of the document. A request whose variable has no value yet is skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from decklog.api.app import openapi_document

Json = dict[str, Any]

URL = "http://127.0.0.1:8321"
"""Where `decklog dev` listens."""
SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
LEFT_OUT = {"follow", "close_session"}
"""An answer that does not end, for whose end clients of collections wait; and the end of the session that `end_session` ends by its id."""
TAGS = ("append", "keys", "read", "platform", "sign-in", "operate")
PASSED_OVER = {"smallest", "parameters", "link"}
"""Names of examples that show less than their neighbours."""
BODIES: dict[str, tuple[str, str]] = {
    "append_bulk": (
        "application/x-ndjson",
        '{"action": "user.login", "actor": {"id": "bob"}}\n{"action": "without an actor"}\n{"action": "without an actor, too"}\n',
    ),
    "create_tenant": (
        "application/json",
        '{"apiVersion": "decklog.dev/v1", "kind": "Tenant", "metadata": {"name": "collection"}, "spec": {"retention": {"days": 30}}}',
    ),
}
"""Bodies in place of the examples: records that are refused, so that there are rejected ones, and a tenant that `decklog dev` has not."""
SENT = {"list_records": {"q"}, "count_records": {"by"}, "list_rejected": {"limit"}}
"""Query parameters that are sent; the collection has the others, switched off."""
SAVES: dict[str, dict[str, str]] = {
    "append": {"logs_seq": "seq"},
    "ask_question": {"conversations_number": "conversation"},
    "create_tenant": {"tenants_name": "tenant.name"},
    "list_rejected": {"rejected_number": "items.0.id", "rejected_other": "items.1.id"},
    "list_sessions": {"sessions_number": "items.0.id"},
    "make_key": {"keys_number": "id"},
    "save_search": {"searches_number": "id"},
}
"""Variables that an answer fills, with their places in it."""
VARIABLES = {"replay_rejected": "rejected_other"}
"""The variable of a path, where it is not that of its noun: a replayed record is gone, and another one is deleted."""
RANKS = {"POST": 0, "GET": 1, "PUT": 3, "DELETE": 5}


@dataclass(frozen=True)
class Call:
    """One request. `needs` are the variables without which it is skipped; `saves` are those that its answer fills."""

    tag: str
    name: str
    title: str
    description: str
    method: str
    path: str
    query: tuple[Json, ...]
    key: str | None
    kind: str | None
    body: str | None
    needs: tuple[str, ...]
    saves: dict[str, str]
    successes: tuple[int, ...]


def calls() -> list[Call]:
    """Return the requests."""
    return [
        _call(path, method.upper(), operation)
        for path, methods in openapi_document()["paths"].items()
        for method, operation in methods.items()
        if isinstance(operation, dict) and operation.get("operationId") not in LEFT_OUT | {None}
    ]


def _order(call: Call) -> tuple[int, str]:
    """By what is done: made, listed, read, changed, replayed, deleted."""
    one = "{{" in call.path
    return RANKS[call.method] + (4 if one and call.method == "POST" else int(one)), call.path


def folders() -> dict[str, list[Call]]:
    """Return the requests by noun, in an order in which they work."""
    found: dict[str, list[Call]] = {}
    for call in sorted(calls(), key=lambda call: TAGS.index(call.tag)):
        found.setdefault(_noun(call.path), []).append(call)
    return {noun: sorted(each, key=_order) for noun, each in found.items()}


def _noun(path: str) -> str:
    """Return the noun of a path; `session` is one of the `sessions`, and what stands beside the API is for operators."""
    if not path.startswith("/api/v1/"):
        return "operate"
    noun = path.split("/")[3]
    return "sessions" if noun == "session" else noun


def _call(path: str, method: str, operation: Json) -> Call:
    name, key = operation["operationId"], _key(operation)
    kind, body = _body(operation)
    needs = [_variable(name, path, part) for part in re.findall(r"{(\w+)}", path)]
    return Call(
        tag=operation["tags"][0],
        name=name,
        title=operation["summary"],
        description=operation.get("description", ""),
        method=method,
        path=re.sub(r"{(\w+)}", lambda part: "{{" + _variable(name, path, part[1]) + "}}", path),
        query=tuple(_query(name, operation)),
        key=key,
        kind=kind,
        body=body,
        needs=(*needs, *([key] if key == "platform_key" else [])),
        saves=SAVES.get(name, {}),
        successes=tuple(int(status) for status in operation["responses"] if status.startswith("2")),
    )


def _variable(operation: str, path: str, part: str) -> str:
    """Return the name of the variable for a part of a path: `/api/v1/keys/{number}` → `keys_number`."""
    return VARIABLES.get(operation) or f"{path.partition('/{')[0].rpartition('/')[2]}_{part}"


def _key(operation: Json) -> str | None:
    """Return the variable that holds the credential. None where none is sent, or the cookie of a session."""
    ways = operation.get("security", [])
    if not any("bearer" in way for way in ways):
        return None
    return "platform_key" if operation["tags"][0] == "platform" and operation["operationId"] != "whoami" else "key"


def _body(operation: Json) -> tuple[str | None, str | None]:
    if operation["operationId"] in BODIES:
        kind, body = BODIES[operation["operationId"]]
        return kind, body if kind != "application/json" else _indented(json.loads(body))
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        examples = {name: each["value"] for name, each in media.get("examples", {"one": {"value": media.get("example")}}).items()}
        chosen = next((value for name, value in examples.items() if name not in PASSED_OVER), None)
        return kind, _indented(chosen)
    return None, None


def _indented(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _query(name: str, operation: Json) -> Iterator[Json]:
    for parameter in operation.get("parameters", []):
        if parameter["in"] != "query":
            continue
        sent = parameter.get("required", False) or parameter["name"] in SENT.get(name, ())
        for key, value in _values(parameter):
            yield {"key": key, "value": value, "disabled": not sent, "description": parameter.get("description", "")}


def _values(parameter: Json) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of a parameter as they stand in an address; of a leaf, those of its example."""
    name, schema = parameter["name"], parameter["schema"]
    value = parameter.get(
        "example", schema.get("default", (schema.get("enum") or schema.get("items", {}).get("enum") or [""])[0])
    )
    if isinstance(value, dict):
        for path, leaf in value.items():
            yield (path if path.startswith(name.partition("<")[0]) else f"{name}[{path}]"), str(leaf)
    else:
        yield name, ",".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)


def postman() -> str:
    """Return the text of the Postman collection."""
    found = folders()
    names = dict.fromkeys(name for each in found.values() for call in each for name in (*call.needs, *call.saves))
    values = {"url": URL, "key": "", "platform_key": "", **{name: "" for name in names if name != "platform_key"}}
    collection = {
        "info": {"name": "Decklog", "description": _ABOUT, "schema": SCHEMA},
        "auth": _bearer("key"),
        "variable": [{"key": name, "value": value} for name, value in values.items()],
        "item": [{"name": noun, "item": [_item(call) for call in each]} for noun, each in found.items()],
    }
    return _indented(collection) + "\n"


_ABOUT = (
    "Requests to the HTTP API, generated from its OpenAPI document. Set the variables `url`, `key` (of an admin of a tenant) and, for the folder "
    "`tenants`, `platform_key`. Run the requests in their order: earlier ones fill the variables of later ones."
)


def _bearer(variable: str) -> Json:
    return {"type": "bearer", "bearer": [{"key": "token", "value": "{{" + variable + "}}", "type": "string"}]}


def _item(call: Call) -> Json:
    request: Json = {
        "method": call.method,
        "description": call.description,
        "header": [] if call.kind is None else [{"key": "Content-Type", "value": call.kind}],
        "url": _url(call),
    }
    if call.key != "key":
        request["auth"] = {"type": "noauth"} if call.key is None else _bearer(call.key)
    if call.body is not None:
        language = "json" if call.kind == "application/json" else "text"
        request["body"] = {"mode": "raw", "raw": call.body, "options": {"raw": {"language": language}}}
    return {"name": call.title, "event": list(_events(call)), "request": request}


def _url(call: Call) -> Json:
    sent = "&".join(f"{each['key']}={quote(each['value'])}" for each in call.query if not each["disabled"])
    raw = "{{url}}" + call.path + (f"?{sent}" if sent else "")
    return {"raw": raw, "host": ["{{url}}"], "path": call.path.strip("/").split("/"), "query": list(call.query)}


def _events(call: Call) -> Iterator[Json]:
    if call.needs:
        names = json.dumps(call.needs)
        unset = f"{names}.some((name) => [undefined, ''].includes(pm.variables.get(name)))"
        yield _script("prerequest", f"if ({unset}) pm.execution.skipRequest();")
    lines = [f'pm.test("succeeds", () => pm.expect(pm.response.code).to.be.oneOf({list(call.successes)}));']
    for variable, place in call.saves.items():
        value = "pm.response.json()" + "".join(
            f"?.[{json.dumps(int(part) if part.isdigit() else part)}]" for part in place.split(".")
        )
        lines.append(f'pm.collectionVariables.set("{variable}", {value} ?? "");')
    yield _script("test", *lines)


def _script(listen: str, *lines: str) -> Json:
    return {"listen": listen, "script": {"type": "text/javascript", "exec": list(lines)}}


def http_file() -> str:
    """Return the text of the `.http` file, for editors that send requests (REST Client of VS Code, httpYac)."""
    head = f"# {_ABOUT}\n# It is generated by `make generate`.\n\n@url = {URL}\n@key =\n@platform_key =\n"
    found = [call for each in folders().values() for call in each]
    makers = {variable: (call.name, place) for call in found for variable, place in call.saves.items()}
    return head + "".join(f"\n{_section(call, makers)}" for call in found)


def _section(call: Call, makers: dict[str, tuple[str, str]]) -> str:
    """Return one request. Variables are taken from the answers of earlier ones by their names."""
    lines = [f"### {call.title}", f"# @name {call.name}"]
    for variable in call.needs:
        if variable in makers:
            name, place = makers[variable]
            at = re.sub(r"[.](\d+)", r"[\1]", place)
            lines.append(f"@{variable} = {{{{{name}.response.body.$.{at}}}}}")
    lines.append(f"{call.method} {_url(call)['raw']}")
    if call.key is not None:
        lines.append(f"Authorization: Bearer {{{{{call.key}}}}}")
    if call.body is not None:
        lines += [f"Content-Type: {call.kind}", "", call.body.rstrip("\n")]
    return "\n".join(lines) + "\n"
