"""A browser that works with the board: `python -m tests.bench.board_steps` reads a `Job` and writes `Seen`, as JSON.

The times are those of the Event Timing API (https://www.w3.org/TR/event-timing/): from the input to the next paint, in steps of 8 ms. Of
the events of one interaction, the longest counts, as for the metric INP. Entries below 16 ms do not exist, so such an interaction counts
as 16 ms.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable

import msgspec
from playwright.sync_api import Page, sync_playwright

from tests.backends import browser
from tests.support.board import FLAGS, Look

_SHORTEST = 16.0
_WAIT_MS = 60_000
_QUIET_LOOKS = 4
_OBSERVE = """window.seen = [];
new PerformanceObserver((list) => { for (const each of list.getEntries()) if (each.interactionId) window.seen.push([each.interactionId, each.duration]); })
  .observe({type: "event", durationThreshold: 16, buffered: true});"""


class Job(msgspec.Struct, frozen=True):
    """The board's address, the key of an auditor, and how often each interaction is repeated."""

    url: str
    key: str
    rounds: int


class Seen(msgspec.Struct, frozen=True):
    """Milliseconds from each input to the next paint, and from the first input to the last answer, by kind of interaction."""

    paints: dict[str, list[float]]
    shown: dict[str, list[float]]


class _Session:
    def __init__(self, page: Page) -> None:
        self.page = page
        self.paints: dict[str, list[float]] = {}
        self.shown: dict[str, list[float]] = {}
        self.asked = 0
        self.answered_at = 0.0
        page.on("request", lambda _: self._count(1))
        page.on("requestfinished", lambda _: self._count(-1))
        page.on("requestfailed", lambda _: self._count(-1))

    def _count(self, change: int) -> None:
        self.asked += change
        self.answered_at = time.perf_counter()

    def settle(self) -> None:
        """Wait until the page has asked nothing for a moment. Raises TimeoutError."""
        ends_at, quiet = time.perf_counter() + _WAIT_MS / 1_000, 0
        while quiet < _QUIET_LOOKS:
            self.page.wait_for_timeout(50)
            quiet = 0 if self.asked else quiet + 1
            if time.perf_counter() > ends_at:
                raise TimeoutError(f"the board still waits for {self.asked} answers")

    def do(self, kind: str, inputs: list[Callable[[], None]]) -> None:
        """Make inputs one after the other, and note the time to the next paint of each, and to the last answer that the page got."""
        self.page.evaluate("window.seen = []")
        began = self.answered_at = time.perf_counter()
        for each in inputs:
            each()
        self.settle()
        self.shown.setdefault(kind, []).append((self.answered_at - began) * 1_000)
        longest: dict[int, float] = {}
        for interaction, duration in self.page.evaluate("window.seen"):
            longest[interaction] = max(duration, longest.get(interaction, 0.0))
        times = sorted(longest.values(), reverse=True)[: len(inputs)]
        self.paints.setdefault(kind, []).extend([*times, *[_SHORTEST] * (len(inputs) - len(times))])


def _round(session: _Session, number: int) -> None:
    page = session.page
    press = page.keyboard.press
    grid = page.get_by_role("grid", name="Records")
    page.goto(f"/board/search?range={('24h', '7d', '30d', '90d')[number % 4]}")
    grid.get_by_role("row").nth(1).wait_for()
    session.settle()
    session.do("j and k", [lambda key=key: press(key) for key in "jjjjkkjj"])  # type: ignore[misc]
    session.do("open a record", [lambda: press("Enter")])
    page.get_by_role("complementary", name=re.compile("^Record")).wait_for()
    session.do("next record", [lambda: press("]"), lambda: press("]"), lambda: press("[")])
    session.do("close a record", [lambda: press("Escape")])
    session.do("paging", [lambda: press("End"), lambda: press("PageUp"), lambda: press("End"), lambda: press("Home")])
    session.do("typing", [lambda: press("/"), *[lambda key=key: press(key) for key in "decrypt"], lambda: press("Enter")])
    page.keyboard.press("Escape")
    facets = page.get_by_role("region", name="Facets").get_by_role("button", name=re.compile("^success"))
    if facets.count():
        session.do("facet", [facets.first.click])
    chart = page.get_by_role("img", name=re.compile("Timeline"))
    place = chart.locator(".u-over").bounding_box() if chart.count() else None
    if place:
        at = place["y"] + place["height"] / 2
        page.mouse.move(place["x"] + place["width"] * 0.4, at)
        page.mouse.down()
        page.mouse.move(place["x"] + place["width"] * 0.7, at, steps=8)
        session.do("brushing", [page.mouse.up])
        page.wait_for_url(re.compile(r"range=2\d\d\d-"))


def _work(job: Job) -> Seen:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser.chromium(), args=FLAGS)
        context = started.new_context(base_url=job.url, **Look("desktop", "light").options)
        context.set_default_timeout(_WAIT_MS)
        answer = context.request.post("/api/v1/sessions", headers={"Authorization": f"Bearer {job.key}"}, data={})
        if not answer.ok:
            raise RuntimeError(f"the session was refused: {answer.status} {answer.text()[:300]}")
        context.add_init_script(_OBSERVE)
        session = _Session(context.new_page())
        for number in range(job.rounds):
            _round(session, number)
        started.close()
    return Seen(session.paints, session.shown)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_work(msgspec.json.decode(sys.stdin.buffer.read(), type=Job))))
