"""Whether a running installation does all that it promises, and in plain words what is wrong and what to do.

It asks like any client: each backend's state, then a probe record is written, streamed, read and found in the tenant of
the given key, which should be one made for this. It changes nothing else, repairs nothing, and needs no access to a backend.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from decklog.client.client import Client, Readiness, readiness
from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.status import QUOTA_EXCEEDED

ACTION = "decklog.probe"
ACTOR = "decklog-doctor"
POLL_SECONDS = 0.5
"""Between two looks at how far the index is."""
_NEEDED = {"append", "read"}

_ADVICE = {
    Code.UNAUTHENTICATED: "Take the key from the Secret <tenant>-decklog again: it may have been changed, or its Tenant deleted.",
    Code.FORBIDDEN: "Use the key of the role admin, which may write and read.",
    Code.TENANT_SUSPENDED: "Set spec.suspend of the Tenant to false, or use a tenant that is made for probes.",
    Code.RATE_LIMITED: "The tenant's limit, or one at the edge, is used up: use a tenant that is made for probes, and try again.",
    Code.QUOTA_EXCEEDED: "The tenant's quota is used up: raise it in its spec, or use a tenant that is made for probes.",
    Code.STORAGE_UNAVAILABLE: "Look at PostgreSQL: whether it runs, its disk has room, and the role decklog_service may connect.",
    Code.SEARCH_UNAVAILABLE: "Look at OpenSearch: whether it runs, its disk has room, and the API may reach it.",
    Code.ACCESS_LOG_UNAVAILABLE: "Nothing is given out that cannot be recorded: look at PostgreSQL.",
    Code.REGISTRY_STALE: "The API cannot read its registry: look at PostgreSQL and at the way to it.",
    Code.OUTCOME_UNKNOWN: "Look at what is between here and the API, at its pods, and at PostgreSQL; then try again.",
    Code.OVERLOADED: "Add pods of the API, or give PostgreSQL a faster disk.",
    Code.CLOCK_BEHIND: "The clock of the database's machine went back: set it right.",
}
_BACKENDS = {
    "database": "Look at PostgreSQL: whether it runs, accepts connections, and the API may reach it. Nothing is taken in until then.",
    "search": "Look at OpenSearch: whether it runs, and the API may reach it. Records are taken in and found by PostgreSQL meanwhile.",
    "queue": "Look at SQS: whether the API may reach it. The sweeper finds what no message tells of.",
}
_CONDITIONS = "kubectl describe tenant tells more; the operator tries again by itself once what it needs is there."


class Outcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True):
    """What one check saw, and what to do about it where it failed."""

    check: str
    outcome: Outcome
    detail: str
    advice: str = ""


class Report(msgspec.Struct, frozen=True):
    """All findings, in the order in which they were made."""

    url: str
    healthy: bool
    findings: list[Finding]

    @classmethod
    def of(cls, url: str, findings: list[Finding]) -> Report:
        return cls(url, all(finding.outcome is not Outcome.FAILED for finding in findings), findings)


async def examine_backends(url: str, *, timeout: float) -> Report:
    """Whether the API is there, and each of its backends; without a credential. Raises `misconfigured`."""
    return Report.of(url, await _backends(url, timeout))


async def examine(client: Client, *, timeout: float) -> Report:
    """All checks, each of which may take `timeout` seconds. What cannot be tried any more after a failure is skipped."""
    findings = await _backends(client.url, timeout)
    if any(finding.check == "api" and finding.outcome is Outcome.FAILED for finding in findings):
        return Report.of(client.url, findings)
    visit = _Visit(client, timeout, findings)
    await visit.run()
    return Report.of(client.url, findings)


async def _backends(url: str, timeout: float) -> list[Finding]:
    try:
        found = await readiness(url, timeout=timeout)
    except DecklogError as error:
        if error.code is Code.MISCONFIGURED:
            raise
        return [
            Finding(
                "api", Outcome.FAILED, error.detail, "Look at the address, at its certificate, and whether pods of the API run."
            )
        ]
    if found is None:
        return [Finding("backends", Outcome.SKIPPED, "/readyz is not exposed at this address; inside of the cluster it is.")]
    return [Finding("api", Outcome.OK, f"It answers, and says that it is {found.status}."), *_each(found)]


def _each(found: Readiness) -> list[Finding]:
    return [
        Finding(name, Outcome.OK, "It answers the API.")
        if result == "ok"
        else Finding(name, Outcome.FAILED, f"The API cannot use it: {result}.", _BACKENDS.get(name, ""))
        for name, result in found.checks.items()
    ]


class _Visit:
    """One examination as a client; each check adds a finding."""

    def __init__(self, client: Client, timeout: float, findings: list[Finding]) -> None:
        self._client, self._timeout, self._findings = client, timeout, findings
        self._word = "probe" + secrets.token_hex(8)
        self._since = datetime.now(UTC) - timedelta(minutes=10)  # our clock and the server's may differ
        self._seq = 0
        self._name = ""

    async def run(self) -> None:
        if await self._check("credential", self._credential):
            await self._check("tenant", self._tenant)
            if await self._check("write and stream", self._write_and_stream):
                for name, check in (("read", self._read), ("search", self._search), ("index", self._index)):
                    await self._check(name, check)
                await self._check("access log", self._access_log)

    async def _check(self, name: str, check: Callable[[], Awaitable[str]]) -> bool:
        """Whether it went well; `check` returns what was seen."""
        try:
            async with asyncio.timeout(self._timeout):
                detail = await check()
        except TimeoutError:
            finding = Finding(
                name, Outcome.FAILED, f"It took longer than {self._timeout:g} seconds.", _ADVICE[Code.OUTCOME_UNKNOWN]
            )
        except _WrongError as wrong:
            finding = Finding(name, Outcome.FAILED, wrong.detail, wrong.advice)
        except DecklogError as error:
            finding = Finding(
                name, Outcome.FAILED, error.detail, _ADVICE.get(error.code, f"See {error.code} in docs/reference/errors.md.")
            )
        else:
            finding = Finding(name, Outcome.OK, detail)
        self._findings.append(finding)
        return finding.outcome is Outcome.OK

    async def _credential(self) -> str:
        who = await self._client.whoami()
        if who.tenant is None or not set(who.permissions) >= _NEEDED:
            raise _WrongError(f"This key of the role {who.role} may not both write and read.", _ADVICE[Code.FORBIDDEN])
        self._name = who.tenant
        return f"The key speaks for the tenant {who.tenant}, as {who.role}."

    async def _tenant(self) -> str:
        listing = await self._client.tenant(self._name)
        conditions = listing.get("status", {}).get("conditions", [])
        wanted = {QUOTA_EXCEEDED: "False"}
        bad = [each for each in conditions if each["status"] != wanted.get(each["type"], "True") and each["type"] != "Ready"]
        if bad:
            words = "; ".join(
                f"{each['type']} is {each['status']} ({each.get('reason', '')}): {each.get('message', '')}" for each in bad
            )
            raise _WrongError(words, _CONDITIONS)
        return f"All {len(conditions)} conditions are as they should be."

    async def _write_and_stream(self) -> str:
        record = {
            "id": self._word,
            "action": ACTION,
            "actor": {"id": ACTOR, "type": "service"},
            "message": f"Is it written, streamed and found? {self._word}",
        }
        content = msgspec.json.encode(record)
        async with self._client.stream({"action": ACTION, "actor": ACTOR}) as records:
            began = time.monotonic()
            answer = await self._client.append(content)
            committed = time.monotonic() - began
            self._seq = answer.seq
            again = await self._client.append(content)
            if (again.status, again.seq) != ("duplicate", answer.seq):
                raise _WrongError(
                    f"The same record again was {again.status} as number {again.seq}.", "This is a fault of ours; report it."
                )
            async for streamed in records:
                if streamed["id"] == self._word:
                    break
            else:
                raise _WrongError("The stream ended before the record came.", _ADVICE[Code.OUTCOME_UNKNOWN])
        took = time.monotonic() - began
        return f"Record {answer.seq} was committed in {committed:.2f} s, its retry recognised, and it came by the stream after {took:.2f} s."

    async def _read(self) -> str:
        found = await self._client.get(self._seq)
        if found["id"] != self._word:
            raise _WrongError(f"Record {self._seq} is another one than was written.", "This is a fault of ours; report it.")
        return f"Record {self._seq} is what was written."

    async def _search(self) -> str:
        page = await self._client.list({"q": self._word, "from": self._since.isoformat()})
        if [item["seq"] for item in page.items] != [self._seq]:
            raise _WrongError(
                f"A search for its words finds {len(page.items)} records, not the one.", "Look at the index and the workers."
            )
        return f"It is found by its words; {page.engine} found it."

    async def _index(self) -> str:
        """How long the record takes to be in the index, which lists go by; without OpenSearch every record is at once."""
        began = time.monotonic()
        while True:
            page = await self._client.list({"limit": 1})
            if page.indexed > self._seq:
                return f"Indexed after {time.monotonic() - began:.1f} s; {page.head - page.indexed} records are behind."
            if time.monotonic() - began > self._timeout - 2 * POLL_SECONDS:
                raise _WrongError(
                    f"After {self._timeout:g} seconds {page.head - page.indexed} records are not in the index.",
                    "Look at the workers: whether they run, and reach PostgreSQL and OpenSearch. Their lines say why they fail.",
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _access_log(self) -> str:
        page = await self._client.list({"log": "access", "limit": 1})
        if not page.items:
            raise _WrongError("Reading left no record in the access log.", "This is a fault of ours; report it.")
        return "Reading is recorded."


class _WrongError(Exception):
    """What a check saw that should not be, and what to do."""

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.detail, self.advice = detail, advice


def told(report: Report) -> str:
    """A report for people: a line for each finding, and what to do below those that failed."""
    marks = {Outcome.OK: "ok     ", Outcome.FAILED: "FAILED ", Outcome.SKIPPED: "skipped"}
    lines = []
    for finding in report.findings:
        lines.append(f"{marks[finding.outcome]}  {finding.check}: {finding.detail}")
        if finding.advice:
            lines.append(f"         {finding.advice}")
    failed = sum(finding.outcome is Outcome.FAILED for finding in report.findings)
    lines.append(f"{report.url} is well." if report.healthy else f"{report.url} is not well: {failed} checks failed.")
    return "\n".join(lines) + "\n"
