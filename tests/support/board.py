"""The board in a real browser: its looks, what a page must never do, accessibility, and pictures to look at."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import ConsoleMessage, Frame, Page, Request

from tests.backends import browser
from tests.backends.resolve import required
from tests.support.dev import Dev

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / ".screenshots"
AXE = ROOT / "board/node_modules/axe-core/axe.min.js"
BUILT = ROOT / "service/src/decklog/board"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
"""Arguments of Chromium: root may run it, and it asks no other host for anything."""
WAIT_MS = 10_000


def missing(reason: str) -> NoReturn:
    """End a test that lacks something: skip it, or fail it where DECKLOG_TEST_REQUIRE names the browser."""
    if browser.NAME in required(os.environ):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Look:
    """A width and a colour scheme."""

    width: str
    scheme: str

    def __str__(self) -> str:
        return f"{self.width}-{self.scheme}"

    @property
    def options(self) -> dict[str, Any]:
        """The options of a browser context. Motion is reduced, so that nothing is half drawn when a test looks at it."""
        phone = self.width == "phone"
        return {
            "viewport": {"width": 390, "height": 844} if phone else {"width": 1440, "height": 900},
            "is_mobile": phone,
            "has_touch": phone,
            "color_scheme": self.scheme,
            "reduced_motion": "reduce",
            "locale": "en-GB",
            "timezone_id": "UTC",
        }


LOOKS = [Look(width, scheme) for width in ("desktop", "phone") for scheme in ("light", "dark")]


def origin_of(url: str) -> str:
    """Return scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@dataclass
class Watch:
    """Faults of a page, which no page may have: errors in the console, exceptions, and requests to another host.

    A violation of the content security policy is an error in the console.
    """

    origin: str
    hosts: set[str] = field(default_factory=set)
    """Further origins that the page may ask, and whose own pages may ask any host."""
    faults: list[str] = field(default_factory=list)
    _allowed: list[re.Pattern[str]] = field(default_factory=list)

    def attach(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        page.on("request", self._request)

    def allow(self, pattern: str) -> None:
        """Let errors in the console pass that match; they name the address that was asked, and the status."""
        self._allowed.append(re.compile(pattern))

    def _console(self, message: ConsoleMessage) -> None:
        told = f"{message.text} ({message.location.get('url', '')})"
        if message.type == "error" and not any(pattern.search(told) for pattern in self._allowed):
            self.faults.append(told)

    def _request(self, request: Request) -> None:
        if not request.is_navigation_request() and origin_of(request.frame.url) in self.hosts:
            return
        if urlsplit(request.url).scheme not in ("data", "blob") and origin_of(request.url) not in {self.origin, *self.hosts}:
            self.faults.append(f"a request to another host: {request.url}")


def violations(page: Page | Frame, *, within: str | None = None) -> list[str]:
    """Return what axe finds in the page, or in the elements of a selector: one line for each rule and element."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    script = "([within, tags]) => axe.run(within ?? document, {runOnly: tags, resultTypes: ['violations']})"
    found = page.evaluate(script, [within, TAGS])
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:200]}: {node['failureSummary'].splitlines()[-1].strip()}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def axe(page: Page | Frame, *, within: str | None = None) -> None:
    """Fail if the page has an accessibility violation of WCAG 2.2 AA or against best practice."""
    found = violations(page, within=within)
    assert found == [], "\n".join(found)


def shoot(page: Page, name: str) -> None:
    """Write a picture of the page into `.screenshots`, which is in no commit."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


SEEDED = 120
_PEOPLE = ("alice", "bob", "carol", "dave")
_EVENTS = (
    ("user.login", "session", "INFO", "success"),
    ("document.read", "document", "INFO", "success"),
    ("document.update", "document", "INFO", "success"),
    ("role.update", "role", "WARNING", "success"),
    ("user.login", "session", "WARNING", "denied"),
    ("document.delete", "document", "ERROR", "failure"),
)


def records(now: datetime) -> list[dict[str, Any]]:
    """Return `SEEDED` records, one every three minutes up to `now`: four people, five kinds of resource, and some failures."""
    found = []
    for number, (person, event) in enumerate(zip(cycle(_PEOPLE), cycle(_EVENTS), strict=False)):
        if number == SEEDED:
            break
        action, kind, severity, outcome = event
        at = now - timedelta(minutes=3 * (SEEDED - number))
        found.append(
            {
                "id": f"seeded-{number}",
                "occurred_at": at.isoformat().replace("+00:00", "Z"),
                "action": action,
                "severity": severity,
                "outcome": outcome,
                "actor": {"id": person, "type": "user", "name": person.title()},
                "resource": {"type": kind, "id": f"{kind}-{number % 7}", "name": f"The {kind} {number % 7}"},
                "source": {"ip": f"192.0.2.{10 + number % 5}", "user_agent": "Mozilla/5.0 Firefox/140.0"},
                "session_id": f"s-{number // 10}",
                "correlation_id": f"req-{number // 3}",
                "message": f"{person.title()}: {action} {kind}-{number % 7}",
                "metadata": {"number": number, "team": "tea"},
                **({"before": {"role": "viewer"}, "after": {"role": "editor"}} if action == "role.update" else {}),
            }
        )
    return found


@dataclass
class Installation:
    """A running `decklog dev`. Its tenant `acme` has the records of `records`, which tests count; `globex` has none.

    A test that appends uses `minimal`.
    """

    dev: Dev
    url: str
    now: datetime

    def key(self, tenant: str = "acme", role: str = "admin") -> str:
        """Return an API key of a tenant, or of the platform."""
        content = self.dev.content
        found: str = content["platform"]["key"] if tenant == "platform" else content["tenants"][tenant][role]
        return found

    def append(self, *new: dict[str, Any], tenant: str = "acme") -> None:
        """Append records by the tenant's writer."""
        with self.dev.client(tenant, "writer") as client:
            client.post("/api/v1/logs/bulk", json=list(new)).raise_for_status()


def seeded(dev: Dev) -> Installation:
    """Return a started `decklog dev` with its records."""
    installation = Installation(dev, dev.content["url"], datetime.now(UTC).replace(microsecond=0))
    installation.append(*records(installation.now))
    return installation
