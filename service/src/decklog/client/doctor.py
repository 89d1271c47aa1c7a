"""Checks of a running installation, each with a finding and an advice, for people and for programs.

The doctor is an ordinary client: it asks for the state of each backend, then writes a probe record in the tenant of the given
key, and checks that the record is streamed, read, found and indexed, and that reading it is recorded. It changes nothing
else, repairs nothing, and needs no access to a backend. Use a tenant made for probes.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from decklog import shapes
from decklog.client.client import Client, readiness
from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.status import QUOTA_EXCEEDED, READY, SYNCED, Condition, Part

ACTION = "decklog.probe"
ACTOR = "decklog-doctor"
POLL_SECONDS = 0.5
"""Between two looks at the progress of the index."""
_PERMISSIONS = frozenset({"append", "read"})
_READ_ACTION = "log.read"
"""Action of the access record of reading one record."""
_CONDITIONS = frozenset({READY, SYNCED, QUOTA_EXCEEDED, *Part})
"""Conditions that every tenant has once the operator has reconciled it."""

_ADVICE = {
    Code.UNAUTHENTICATED: "Read the key from the Secret <tenant>-decklog again: it may have been rotated, or the Tenant deleted.",
    Code.FORBIDDEN: "Use the key of the role admin, which may append and read.",
    Code.TENANT_SUSPENDED: "Set spec.suspend of the Tenant to false, or use a tenant made for probes.",
    Code.RATE_LIMITED: "The tenant's rate limit, or one at the edge, is reached. Use a tenant made for probes, and try again.",
    Code.QUOTA_EXCEEDED: "The tenant's quota is exceeded. Raise it in its spec, or use a tenant made for probes.",
    Code.STORAGE_UNAVAILABLE: "Check that PostgreSQL runs, that its disk has room, and that the role decklog_service can connect.",
    Code.SEARCH_UNAVAILABLE: "Check that OpenSearch runs, that its disk has room, and that the API can reach it.",
    Code.ACCESS_LOG_UNAVAILABLE: "Check PostgreSQL: the API answers no read that it cannot record.",
    Code.REGISTRY_STALE: "Check PostgreSQL and the network to it: the API cannot read its registry.",
    Code.ISSUER_UNAVAILABLE: "Check the token's issuer and the network to it: the API cannot read its keys.",
    Code.OUTCOME_UNKNOWN: "Check the proxies in front of the API, its pods, and PostgreSQL; then try again.",
    Code.OVERLOADED: "Add replicas of the API, or give PostgreSQL a faster disk.",
    Code.CLOCK_BEHIND: "Correct the clock of the database's machine: it is behind the log.",
}
_BACKENDS = {
    "database": "Check that PostgreSQL runs and accepts connections of the API. Until then nothing is stored.",
    "search": "Check that OpenSearch runs and that the API can reach it. Until then PostgreSQL answers searches.",
    "queue": "Check that the API can reach SQS. Until then the sweeper finds new records, later.",
}
_CONDITION_ADVICE = "Run kubectl describe tenant for the details. The operator retries until the cause is gone."
_NOT_RECONCILED = "Check that the operator, or decklog provision, runs: it has not reconciled this tenant."
_WORKER_ADVICE = "Check that the workers run and reach PostgreSQL and OpenSearch. Their log has the errors."
_DEFECT = "This is a defect of Decklog. Please report it."


class Outcome(StrEnum):
    """Result of one check."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True):
    """What one check found, and what to do if it failed."""

    check: str
    outcome: Outcome
    detail: str
    advice: str = ""


class Report(msgspec.Struct, frozen=True):
    """All findings in the order of the checks. Healthy: at least one check passed, and none failed."""

    url: str
    healthy: bool
    findings: list[Finding]

    @classmethod
    def of(cls, url: str, findings: list[Finding]) -> Report:
        """Return the report of these findings."""
        outcomes = {finding.outcome for finding in findings}
        return cls(url, Outcome.OK in outcomes and Outcome.FAILED not in outcomes, findings)


async def examine_backends(url: str, *, timeout: float) -> Report:
    """Check that the API answers and can use each backend; needs no credential. Raises `misconfigured`."""
    findings = await _backends(url, timeout)
    if all(finding.outcome is Outcome.SKIPPED for finding in findings):
        advice = "Use an address inside of the cluster, or examine the installation with a key."
        findings = [Finding(each.check, Outcome.FAILED, each.detail, advice) for each in findings]
    return Report.of(url, findings)


async def examine(client: Client, *, timeout: float) -> Report:
    """Run all checks, each within `timeout` seconds. Checks that depend on a failed one are left out."""
    findings = await _backends(client.url, timeout)
    if not any(finding.check == "api" and finding.outcome is Outcome.FAILED for finding in findings):
        await _Examination(client, timeout, findings).run()
    return Report.of(client.url, findings)


async def _backends(url: str, timeout: float) -> list[Finding]:
    try:
        found = await readiness(url, timeout=timeout)
    except DecklogError as error:
        if error.code is Code.MISCONFIGURED:
            raise
        advice = "Check the address, the certificate of the server, and that pods of the API run."
        return [Finding("api", Outcome.FAILED, error.detail, advice)]
    if found is None:
        return [Finding("backends", Outcome.SKIPPED, "/readyz is not exposed at this address; it is inside of the cluster.")]
    return [_api(found), *(_backend(name, result) for name, result in found.checks.items())]


def _api(found: shapes.Readiness) -> Finding:
    if found.status == "stopping":
        return Finding("api", Outcome.FAILED, "The API is stopping.", "Try again: another replica should answer.")
    if "event loop" in found.checks:  # A worker or `decklog provision`, which serve no API and whose probes use this check.
        return Finding("process", Outcome.OK, f"The process answers: {found.status}.")
    if "database" not in found.checks:
        return Finding("api", Outcome.FAILED, f"The API is {found.status} but reports no database.", _DEFECT)
    return Finding("api", Outcome.OK, f"The API answers: {found.status}.")


def _backend(name: str, result: str) -> Finding:
    if result == "ok":
        return Finding(name, Outcome.OK, "The API can use it.")
    return Finding(name, Outcome.FAILED, f"The API cannot use it: {result}.", _BACKENDS.get(name, ""))


def _shown(condition: Condition) -> str:
    return f"{condition.type} is {condition.status} ({condition.reason}): {condition.message}"


class _Examination:
    """The checks that need a key, in order; each adds a finding."""

    def __init__(self, client: Client, timeout: float, findings: list[Finding]) -> None:
        self._client, self._timeout, self._findings = client, timeout, findings
        self._word = "probe" + secrets.token_hex(8)
        self._since = datetime.now(UTC) - timedelta(minutes=10)  # the clocks of client and server may differ
        self._seq = 0
        self._name = ""

    async def run(self) -> None:
        """Run the checks until one fails that the others depend on."""
        if await self._check("credential", self._credential):
            await self._check("tenant", self._tenant)
            if await self._check("write and stream", self._write_and_stream):
                for name, check in (("read", self._read), ("search", self._search), ("index", self._index)):
                    await self._check(name, check)
                await self._check("access log", self._access_log)

    async def _check(self, name: str, check: Callable[[], Awaitable[str]]) -> bool:
        """Return whether the check passed. `check` returns what it found."""
        try:
            async with asyncio.timeout(self._timeout):
                finding = Finding(name, Outcome.OK, await check())
        except TimeoutError:
            late = f"The check took longer than {self._timeout:g} seconds."
            finding = Finding(name, Outcome.FAILED, late, _ADVICE[Code.OUTCOME_UNKNOWN])
        except _FailedError as failed:
            finding = Finding(name, Outcome.FAILED, failed.detail, failed.advice)
        except DecklogError as error:
            advice = _ADVICE.get(error.code, f"See {error.code} in the reference of errors.")
            finding = Finding(name, Outcome.FAILED, error.detail, advice)
        self._findings.append(finding)
        return finding.outcome is Outcome.OK

    async def _credential(self) -> str:
        who = await self._client.whoami()
        if who.tenant is None or not _PERMISSIONS.issubset(who.permissions):
            raise _FailedError(f"A key of the role {who.role} may not both append and read.", _ADVICE[Code.FORBIDDEN])
        self._name = who.tenant
        return f"The key belongs to the tenant {who.tenant}, with the role {who.role}."

    async def _tenant(self) -> str:
        conditions = (await self._client.tenant(self._name)).conditions
        bad = [condition for condition in conditions if not condition.good]
        causes = [condition for condition in bad if condition.type != READY] or bad
        if causes:
            raise _FailedError("; ".join(map(_shown, causes)), _CONDITION_ADVICE)
        if missing := sorted(_CONDITIONS.difference(condition.type for condition in conditions)):
            raise _FailedError(f"The tenant {self._name} lacks the conditions {', '.join(missing)}.", _NOT_RECONCILED)
        return f"All {len(conditions)} conditions are good."

    async def _write_and_stream(self) -> str:
        record = {
            "id": self._word,
            "action": ACTION,
            "actor": {"id": ACTOR, "type": "service"},
            "message": f"Probe of decklog doctor {self._word}",
        }
        content = msgspec.json.encode(record)
        async with self._client.stream({"action": ACTION, "actor": ACTOR}) as records:
            began = time.monotonic()
            first = await self._client.append(content)
            committed = time.monotonic() - began
            self._seq = first.seq
            again = await self._client.append(content)
            if (again.status, again.seq) != ("duplicate", first.seq):
                raise _FailedError(f"A retry was {again.status} as record {again.seq}, not a duplicate of {first.seq}.", _DEFECT)
            async for streamed in records:
                if streamed.id == self._word:
                    break
            else:
                raise _FailedError("The stream ended before it sent the record.", _ADVICE[Code.OUTCOME_UNKNOWN])
        took = time.monotonic() - began
        return f"Record {first.seq} was committed in {committed:.2f} s, its retry was a duplicate, and it was streamed after {took:.2f} s."

    async def _read(self) -> str:
        found = await self._client.get(self._seq)
        if found.id != self._word:
            raise _FailedError(f"Record {self._seq} is not the one that was written.", _DEFECT)
        return f"Record {self._seq} is the one that was written."

    async def _search(self) -> str:
        page = await self._client.list({"q": self._word, "from": self._since.isoformat()})
        if [item.seq for item in page.items] != [self._seq]:
            raise _FailedError(
                f"A full-text search for the record found {len(page.items)} records instead of this one.", _WORKER_ADVICE
            )
        return f"{page.engine} finds the record by its words."

    async def _index(self) -> str:
        """Wait until the search index has the record; without OpenSearch that is at once."""
        began = time.monotonic()
        while True:
            page = await self._client.list({"limit": 1})
            if page.indexed > self._seq:
                return f"Indexed after {time.monotonic() - began:.1f} s; {page.head - page.indexed} records are not indexed yet."
            if time.monotonic() - began > self._timeout - 2 * POLL_SECONDS:
                raise _FailedError(
                    f"After {self._timeout:g} seconds {page.head - page.indexed} records are not in the index.", _WORKER_ADVICE
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _access_log(self) -> str:
        """Read the record once more, and find the access record of exactly this request."""
        await self._client.get(self._seq)
        request = self._client.request_id
        if not request:
            raise _FailedError("The answer has no X-Request-Id.", "Let the proxies in front of the API pass this header on.")
        page = await self._client.list({"log": "access", "action": _READ_ACTION, "correlation_id": request})
        read = [item.metadata["seq"] for item in page.items if isinstance(item.metadata, dict) and "seq" in item.metadata]
        if read != [str(self._seq)]:
            raise _FailedError(f"The access log has no record of request {request}, which read record {self._seq}.", _DEFECT)
        return f"Request {request}, which read record {self._seq}, is recorded."


class _FailedError(Exception):
    """A check found something wrong. `advice` says what to do."""

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.detail, self.advice = detail, advice


def as_text(report: Report) -> str:
    """Return the report for people: one line for each finding, then the advice if it failed."""
    marks = {Outcome.OK: "ok     ", Outcome.FAILED: "FAILED ", Outcome.SKIPPED: "skipped"}
    lines = []
    for finding in report.findings:
        lines.append(f"{marks[finding.outcome]}  {finding.check}: {finding.detail}")
        if finding.advice:
            lines.append(f"         {finding.advice}")
    failed = sum(finding.outcome is Outcome.FAILED for finding in report.findings)
    lines.append(f"{report.url} is healthy." if report.healthy else f"{report.url} is not healthy: {failed} checks failed.")
    return "\n".join(lines) + "\n"
