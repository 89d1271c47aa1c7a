"""Send the bytes of a fuzz over one connection, read what comes back, and judge it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field

import h11

from tests.attacks.fuzz import Credential, Fuzz, Sent
from tests.attacks.wire import Answer, streams

CLIENT = "127.0.0.4"
ANSWER_SECONDS_MAX = 30.0
"""Seconds for the first byte after a well-formed request."""
QUIET_SECONDS = 0.3
"""Seconds without a byte that end a stream, or the wait for an answer to bytes that are no whole request."""
BUSY = frozenset({"overloaded", "search-unavailable"})
"""Codes of a 503 that a client may cause: the share of its tenant is in use, or its search took too long."""
CURSORS_MAX = 50
NUMBERS_MAX = 200


@dataclass
class Findings:
    """Answers of a round. `faults` must stay empty."""

    statuses: Counter[int] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    own_markers: int = 0
    unanswered: int = 0


class _Reader:
    """Reads answers from one connection by h11, and keeps all bytes."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.raw = b""

    async def answers(self, sent: Sent) -> list[Answer]:
        """Read one answer for each request, as far as they come. Raises h11.RemoteProtocolError for bytes that are none."""
        connection = h11.Connection(our_role=h11.CLIENT)
        found: list[Answer] = []
        for method in sent.methods:
            # The upgrade is proposed always, so that h11 accepts a 101.
            shown = "HEAD" if method == "HEAD" else "GET"
            proposal = [("host", "decklog"), ("upgrade", "websocket"), ("connection", "upgrade")]
            connection.send(h11.Request(method=shown, target="/", headers=proposal))
            connection.send(h11.EndOfMessage())
            answer, whole = await self._answer(connection, ANSWER_SECONDS_MAX if sent.well_formed else QUIET_SECONDS)
            if answer is not None:
                found.append(answer)
            if not whole or connection.their_state is not h11.DONE or connection.our_state is not h11.DONE:
                break
            connection.start_next_cycle()
        return found

    async def _answer(self, connection: h11.Connection, seconds: float) -> tuple[Answer | None, bool]:
        answer: Answer | None = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await self._more(seconds)
                seconds = QUIET_SECONDS
                if data is None:
                    break
                connection.receive_data(data)
            elif isinstance(event, h11.InformationalResponse | h11.Response):
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                answer = Answer(event.status_code, headers, b"")
                if event.status_code == 101:
                    await self._rest(connection)
                    break
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert answer is not None
                return Answer(answer.status, answer.headers, bytes(body)), True
            else:
                break
        return (Answer(answer.status, answer.headers, bytes(body)) if answer else None), False

    async def _rest(self, connection: h11.Connection) -> None:
        """Read the messages of a WebSocket until it is quiet."""
        self.raw += connection.trailing_data[0]
        while await self._more(QUIET_SECONDS):
            pass

    async def _more(self, seconds: float) -> bytes | None:
        try:
            async with asyncio.timeout(seconds):
                data = await self._reader.read(65_536)
        except (TimeoutError, ConnectionError):
            return None
        self.raw += data
        return data


async def converse(port: int, fuzz: Fuzz, sent: Sent, findings: Findings) -> None:
    """Send it over a new connection, and note what came back."""
    reader, writer = await streams(port, CLIENT)
    received = _Reader(reader)
    try:
        writer.write(sent.raw)
        answers = await received.answers(sent)
    except h11.RemoteProtocolError as error:
        findings.faults.append(f"no HTTP came back, {error}: {sent.raw[:300]!r} -> {received.raw[:300]!r}")
        return
    finally:
        writer.close()
    findings.unanswered += not answers
    foreign = [name for name, marker in fuzz.markers.items() if name not in sent.tenants and marker.encode() in received.raw]
    if foreign:
        findings.faults.append(f"records of {foreign} were returned for {sent.tenants}: {sent.raw[:500]!r}")
    for number, answer in enumerate(answers):
        judge(fuzz, sent, number, answer, findings)


def judge(fuzz: Fuzz, sent: Sent, number: int, answer: Answer, findings: Findings) -> None:
    """Note one answer, and what is wrong with it."""
    findings.statuses[answer.status] += 1
    where = f"{sent.raw[:400]!r} -> {answer.status} {answer.body[:400]!r}"
    content = answer.body + str(answer.headers).encode()
    tenant = sent.tenants[number]
    for name, marker in fuzz.markers.items():
        if marker.encode() in content and name != tenant:
            findings.faults.append(f"answer {number} for {tenant!r} has records of {name}: {where}")
    findings.own_markers += bool(tenant) and fuzz.markers.get(tenant, "\0").encode() in content
    if answer.status < 400 and (operation := sent.operations[number]):
        findings.operations[operation] += 1
        remember(fuzz, operation, tenant, answer)
    problem = answer.problem
    if answer.status >= 500:
        stated = answer.status == 503 and problem is not None and problem["code"] in BUSY and "retry-after" in answer.headers
        if not stated:
            findings.faults.append(f"unexpected failure: {where}")
    elif answer.status >= 400 and answer.body and problem is None:
        findings.faults.append(f"a refusal without a problem: {where}")


def remember(fuzz: Fuzz, operation: str, tenant: str, answer: Answer) -> None:
    """Keep the cursor of a page, and the numbers of what a tenant has, for requests with any credential."""
    if not answer.body or operation not in ("list_records", "list_rejected", "save_search", "make_key", "open_session"):
        return
    found = json.loads(answer.body)
    if operation == "save_search":
        fuzz.numbers.append((tenant, "searches", found["id"]))
    elif operation == "open_session":
        cookie = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
        role = found["identities"][0]["role"]
        fuzz.sessions.append(Credential("", tenant, role, cookie, found["csrf"]))
        fuzz.numbers.append((tenant, "sessions", found["id"]))
    elif operation == "make_key":
        fuzz.numbers.append((tenant, "keys", found["id"]))
    elif operation == "list_rejected":
        fuzz.numbers += [(tenant, "rejected", str(each["id"])) for each in found["items"][:5]]
    elif found.get("next") and len(fuzz.cursors) < CURSORS_MAX:
        fuzz.cursors.append(found["next"])
    del fuzz.numbers[:-NUMBERS_MAX], fuzz.sessions[:-NUMBERS_MAX]


async def run(port: int, fuzz: Fuzz, requests: int, connections: int) -> Findings:
    """Send so many requests, some of which share a connection, over so many connections at once."""
    findings = Findings()
    left = requests

    async def some() -> None:
        nonlocal left
        while left > 0:
            sent = fuzz.next()
            left -= len(sent.methods)
            await converse(port, fuzz, sent, findings)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(some())
    return findings
