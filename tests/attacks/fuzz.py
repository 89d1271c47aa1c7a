"""Random requests to every route of the OpenAPI document, well-formed and not, with any credential.

A request never contains the marker of a tenant whose credential it does not carry, so an answer that contains one has it from the
records of that tenant.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import h11

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
ODD_TARGETS = (
    "/",
    "*",
    "/schema",
    "/schema/openapi.json",
    "/board",
    "/board/%2e%2e/%2e%2e/settings.py",
    "/api/v1",
    "//api//v1//logs",
    "/api/v1/logs/",
    "/api/v1/logs/../tenants",
    "/api/v1/logs/%2e%2e/tenants",
    "/api/v1/logs/stats/0",
    "/api/v2/logs",
    "/API/V1/LOGS",
    "/api/v1/logs;tenant=other",
    "http://other.example/api/v1/whoami",
    "/metrics/",
    "/api/v1/logs?" + "&".join(f"p{number}=1" for number in range(200)),
)
QUESTIONS = (
    "who deleted what on 10 July?",
    "denied actions of alice",
    "hello",
    "not " * 100,
    'between and or , " \x00 (',
    "how many records are there per day in Amsterdam time",
)
TEXTS = (
    "",
    "hello",
    "*",
    "doc*",
    "number3",
    "%",
    "_%_",
    "' OR 1=1 --",
    "\\",
    '"',
    "\x00",
    "\u212a\u0131\u017f",
    "\U0001f980",
    "a" * 600,
    "a" + "kis" * 20 + "c",
    "x " * 40,
    "(a+)+$",
    "../../etc/passwd",
    "10.0.0.0/8",
    "::1",
    "2026-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "2026-01-01",
    "-1",
    "0",
    "1e400",
    "9" * 40,
)
BODIES = (
    b"",
    b"{",
    b"[]",
    b"[[[[",
    b"[" * 5_000,
    b'{"a":' * 5_000,
    b"null",
    b'"text"',
    b"NaN",
    b"\xff\xfe",
    b'{"action":"a","action":"b","actor":{"id":"x"}}',
    b'{"action":"\\ud800","actor":{"id":"x"}}',
    b'{"action":"\\u0000","actor":{"id":"x"}}',
    b'{"action":1e400,"actor":{"id":"x"}}',
    b'{"action":"a","actor":{"id":"x"},"metadata":{"n":' + b"9" * 5_000 + b"}}",
    b'{"action":"a","actor":{"id":"x"},"metadata":' + b'{"a":' * 40 + b"1" + b"}" * 41,
    gzip.compress(b"\x00" * 100_000),
    b" " * 300_000,
)
ENCODINGS = ("identity", "gzip", "zstd", "br", "gzip, gzip", "GZIP", "")
TYPES = ("application/json", "application/x-ndjson", "text/plain", "application/json; charset=latin-1", "", "a/b/c")
GARBAGE = (
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x00" * 64,
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2_000 + b"\r\n",
    b"POST /api/v1/logs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    b"POST /api/v1/logs HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"POST /api/v1/logs HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /api/v1/logs HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
)
_PRINTABLE = {code: chr(code) for code in range(33, 127)}


@dataclass(frozen=True)
class Credential:
    """A bearer, and the tenant whose records it may read; empty for none. `kind` is a role, `platform` or `nobody`.

    In place of a bearer, it may be a session: its cookie, and the text that changes repeat.
    """

    bearer: str
    tenant: str = ""
    kind: str = "nobody"
    cookie: str = ""
    csrf: str = ""


@dataclass(frozen=True)
class Sent:
    """Bytes for one connection, and for each request in them its method, the tenant of its credential and its operation."""

    raw: bytes
    methods: tuple[str, ...]
    tenants: tuple[str, ...]
    operations: tuple[str, ...]
    well_formed: bool = True


@dataclass
class Fuzz:
    """A source of requests. `cursors`, `sessions`, and `numbers` of searches and the like by tenant come from earlier answers."""

    chance: random.Random
    document: dict[str, Any]
    credentials: Sequence[Credential]
    tenants: Sequence[str]
    markers: dict[str, str]
    cursors: list[str] = field(default_factory=list)
    numbers: list[tuple[str, str, str]] = field(default_factory=list)
    sessions: list[Credential] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._operations = [
            (method.upper(), path, operation)
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
            if "operationId" in operation
        ]

    @property
    def operation_ids(self) -> set[str]:
        return {operation["operationId"] for _, _, operation in self._operations}

    @property
    def numbered(self) -> set[str]:
        """Operations on one search, key, session or rejected record."""
        return {operation["operationId"] for _, path, operation in self._operations if "{number}" in path}

    def next(self) -> Sent:
        """Return the next request, or several for one connection."""
        kind = self.chance.random()
        if kind < 0.02:
            return Sent(self.chance.choice(GARBAGE), ("GET",), ("",), ("",), well_formed=False)
        if kind < 0.25:
            return self._mutated(self.request())
        if kind < 0.35:
            several = [self.request() for _ in range(self.chance.randint(2, 3))]
            parts = ([part for each in several for part in getattr(each, name)] for name in ("methods", "tenants", "operations"))
            methods, tenants, operations = map(tuple, parts)
            return Sent(b"".join(each.raw for each in several), methods, tenants, operations)
        return self.request()

    def request(self) -> Sent:
        """Return one request that h11 regards as well-formed."""
        chance = self.chance
        method, path, operation = chance.choice(self._operations)
        credential = self._credential(path, method)
        target = self._path(path, credential) + self._query(operation, credential)
        headers = [("host", chance.choice(("decklog", "127.0.0.1", "other.example", "a" * 300)))]
        body = b""
        if "requestBody" in operation:
            body, described = self._body(operation, credential)
            headers += [*described, ("content-length", str(len(body)))]
        if credential.bearer:
            headers.append(("authorization", f"Bearer {credential.bearer}"))
        if credential.cookie:
            headers.append(("cookie", f"decklog_session={credential.cookie}"))
            if chance.random() < 0.9:
                headers.append(("decklog-csrf", credential.csrf))
        if operation["operationId"] == "follow" and chance.random() < 0.4:
            headers += [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
            headers.append(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="))
        headers += self._odd_headers()
        identifier = operation["operationId"]
        if chance.random() < 0.1:
            method, identifier = chance.choice(METHODS), ""
        elif chance.random() < 0.05:
            target, identifier = chance.choice(ODD_TARGETS), ""
        connection = h11.Connection(our_role=h11.CLIENT)
        raw = connection.send(h11.Request(method=method, target=target, headers=headers)) or b""
        return Sent(raw + body, (method,), (credential.tenant,), (identifier,))

    def _credential(self, path: str, method: str) -> Credential:
        """Return a credential that may use the route, half of the time, or any."""
        by_session = path == "/api/v1/session" or self.chance.random() < 0.1
        if by_session and self.sessions and path != "/api/v1/sessions":
            return self.chance.choice(self.sessions[-20:])
        writes = path in ("/api/v1/logs", "/api/v1/logs/bulk") and method == "POST"
        usable = (
            {"platform"}
            if "/tenants" in path
            else {"admin"}
            if "{number}" in path or path == "/api/v1/keys"
            else {"admin", "writer" if writes else "auditor"}
        )
        found = [each for each in self.credentials if each.kind in usable] if self.chance.random() < 0.5 else []
        return self.chance.choice(found or self.credentials)

    def _path(self, path: str, credential: Credential) -> str:
        names = (*self.tenants, *self.tenants, "decklog", "nobody", "%2e%2e", "A" * 100)
        number = self.chance.choice((*map(str, range(12)), "-1", "9" * 30, "x", "%00", "0x1", "1.0", ""))
        own = self.chance.random() < 0.7
        numbers = [each for tenant, of, each in self.numbers if of in path and (tenant == credential.tenant or not own)]
        place = self.chance.choice(numbers[-10:]) if numbers and number.isdigit() else number
        return path.replace("{seq}", number).replace("{number}", place).replace("{name}", self.chance.choice(names))

    def _query(self, operation: dict[str, Any], credential: Credential) -> str:
        chance = self.chance
        pairs: list[tuple[str, str]] = []
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query" and chance.random() < (1.0 if parameter.get("required") else 0.06):
                name = (
                    f"metadata.{chance.choice(('mark', 'n', 'a.b', '..', ''))}"
                    if parameter["name"] == "metadata"
                    else parameter["name"]
                )
                pairs += [(name, self._value(parameter, credential))] * (2 if chance.random() < 0.03 else 1)
        if chance.random() < 0.03:
            pairs.append((chance.choice(("tenant", "tenant_id", "log[]", "", "\x00", "q" * 200)), chance.choice(self.tenants)))
        return "?" + "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs) if pairs else ""

    def _value(self, parameter: dict[str, Any], credential: Credential) -> str:
        chance, schema = self.chance, parameter.get("schema", {})
        marker = self.markers.get(credential.tenant, "hello")
        if parameter["name"] == "cursor" and self.cursors:
            return chance.choice(self.cursors)
        if chance.random() < 0.25:
            return chance.choice((*TEXTS, *self.tenants, marker))
        if choices := schema.get("enum") or schema.get("items", {}).get("enum"):
            return str(chance.choice(choices))
        if schema.get("type") == "integer":
            return str(chance.choice((0, 1, 2, 100, 1_000, 1_001, -1, chance.randrange(2**70))))
        if schema.get("format") == "date-time":
            return f"20{chance.randrange(10, 40)}-0{chance.randint(1, 9)}-11T00:00:00Z"
        return str(
            chance.choice((parameter.get("example") or marker, marker, "actor", "action,actor", "ndjson", "json", "csv", "-1"))
        )

    def _body(self, operation: dict[str, Any], credential: Credential) -> tuple[bytes, list[tuple[str, str]]]:
        """Return a body and the headers that describe it, truthful ones most of the time."""
        chance = self.chance
        sent_as = chance.choice(list(operation["requestBody"]["content"]))
        if chance.random() < 0.3:
            body = chance.choice(BODIES)
        else:
            record = {
                "action": chance.choice(("fuzz.act", self.markers.get(credential.tenant, "fuzz"))),
                "actor": {"id": chance.choice(("alice", "bob"))},
                "message": chance.choice(TEXTS).replace("\x00", "") or None,
                **chance.choice(({}, {"tenant": chance.choice(self.tenants)}, {"seq": 0}, {"id": f"f{chance.randrange(50)}"})),
            }
            made = self._made(operation["operationId"], record)
            lines = made if isinstance(made, list) and "ndjson" in sent_as else [made]
            body = b"\n".join(json.dumps(line).encode() for line in lines)
        headers = [("content-type", sent_as if chance.random() < 0.9 else chance.choice(TYPES))]
        if chance.random() < 0.2:
            headers.append(("content-encoding", chance.choice(ENCODINGS)))
            body = gzip.compress(body) if headers[-1][1] == "gzip" and chance.random() < 0.7 else body
        return body, headers

    def _made(self, operation: str, record: dict[str, Any]) -> object:
        """Return the body of an operation; `record` is that of an append."""
        chance = self.chance
        match operation:
            case "create_tenant":
                manifest = {"metadata": {"name": chance.choice(self.tenants)}, "spec": {"retention": {"days": 30}}}
                return {"apiVersion": "decklog.dev/v1", "kind": "Tenant", **manifest}
            case "save_search" | "replace_search":
                parameters = {"q": chance.choice(("hello", "actor:alice", "NOT", "since:1h"))}
                return {"name": f"s{chance.randrange(50)}", "parameters": parameters, "shared": chance.random() < 0.5}
            case "make_key":
                ends = chance.choice(({}, {"expires_in": chance.choice((60, 3600, -1, 2**70))}))
                return {
                    "role": chance.choice(("writer", "auditor", "admin", "platform")),
                    "name": f"k{chance.randrange(50)}",
                    **ends,
                }
            case "mint_viewer_token":
                fields = chance.choice((None, ["action", "message"], ["digest"], [], ["metadata.a.b", "seq"]))
                return {"query": chance.choice(("hello", "metadata.n:1", "NOT", "since:1h")), "fields": fields, "expires_in": 60}
            case "ask_question":
                return {"question": chance.choice(QUESTIONS), **chance.choice(({}, {"zone": "x"}, {"conversation": "0" * 16}))}
            case "search_records":
                return {"query": chance.choice(("hello", "actor:alice OR actor:bob", "-x", "a*b", "(", "since:1h"))}
            case "open_session":
                return {} if chance.random() < 0.9 else {"link": "A" * 43}
            case "append_bulk":
                return [record] * chance.randint(0, 3) + [{"action": 5}] * chance.randint(0, 1)
            case _:
                return record

    def _odd_headers(self) -> list[tuple[str, str]]:
        chance = self.chance
        other = chance.choice(self.tenants)
        values = (
            ("x-tenant", other),
            ("x-decklog-tenant", other),
            ("x-forwarded-for", "10.0.0.1, 127.0.0.1"),
            ("x-request-id", chance.choice(("r1", "a" * 500, "a|b", "<script>"))),
            ("idempotency-key", chance.choice(("k1", "k" * 300, "~ ~"))),
            ("last-event-id", chance.choice(("-1", "0", "1.2.3", "x" * 50, *self.cursors[:1]))),
            ("accept-encoding", "gzip"),
            ("accept", "text/event-stream"),
            ("range", "bytes=0-9"),
            ("origin", "https://other.example"),
            ("cookie", "authorization=x"),
            ("if-none-match", "*"),
            ("x-http-method-override", "DELETE"),
        )
        return chance.sample(values, k=chance.choice((0, 0, 0, 1, 2)))

    def _mutated(self, sent: Sent) -> Sent:
        """Return the request with a few bytes changed, without a credential of another tenant."""
        chance, raw = self.chance, bytearray(sent.raw)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(raw) + 1)
            match chance.randrange(7):
                case 0:
                    del raw[at : at + chance.randint(1, 20)]
                case 1:
                    raw[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
                case 2:
                    raw[at:at] = chance.choice((b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\x0b", b"\r\n\r\n"))
                case 3:
                    raw[at : at + 1] = bytes([chance.randrange(256)])
                case 4:
                    head = raw.find(b"\r\n")
                    line = chance.choice(
                        (
                            b"content-length: 7",
                            b"transfer-encoding: chunked",
                            b"transfer-encoding: x",
                            b"connection: close",
                            b"expect: 100-continue",
                            b" folded",
                            b"nocolon",
                            b"a b: c",
                        )
                    )
                    raw[head:head] = b"\r\n" + line
                case 5:
                    raw[at:at] = raw[max(0, at - 30) : at]
                case _:
                    del raw[at:]
            if not raw:
                raw = bytearray(b"\r\n")
        return replace(sent, raw=bytes(raw), operations=("",), well_formed=False)
