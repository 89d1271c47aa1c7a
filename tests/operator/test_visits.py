"""Each Tenant is visited when it is new, after an edit and after its pause, one visit at a time, and never after it is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from structlog.testing import capture_logs

from decklog_operator.visits import Visits
from tests.support import virtual_time

LONG = 300.0


class Desk:
    """A stand-in for `Reconciler` with given answers. A visit takes `seconds` and asks for a pause of `pause` seconds."""

    def __init__(self, seconds: float = 1.0, pause: float = LONG) -> None:
        self.seconds, self.pause = seconds, pause
        self.wanted = True
        self.fails = self.ends = 0
        self.seen: list[tuple[float, str, int]] = []
        self.at_once: Counter[str] = Counter()

    def notice(self, body: Mapping[str, Any], *, gone: bool, listed: bool) -> bool:
        return self.wanted and not gone

    async def visit(self, body: Mapping[str, Any]) -> float:
        metadata = body["metadata"]
        self.seen.append((asyncio.get_running_loop().time(), metadata["uid"], metadata["generation"]))
        self.at_once[metadata["uid"]] += 1
        assert self.at_once[metadata["uid"]] == 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.at_once[metadata["uid"]] -= 1
        self.ends += 1
        if self.fails:
            self.fails -= 1
            raise ZeroDivisionError
        return self.pause

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.seen]


def body(generation: int = 1, uid: str = "u", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": f"t-{uid}", "uid": uid, "generation": generation, **metadata}}


def tell(visits: Visits, told: dict[str, Any], *, gone: bool = False) -> None:
    visits.notice(told, gone=gone, listed=False)


def played(desk: Desk, *news: tuple[float, dict[str, Any], bool], until: float) -> Desk:
    """Return the desk after these changes (time, name, whether it is gone) and this time."""

    async def scenario() -> Desk:
        visits = Visits(desk)  # type: ignore[arg-type]
        async with visits.going_on():
            for at, told, gone in news:
                await asyncio.sleep(at - asyncio.get_running_loop().time())
                tell(visits, told, gone=gone)
            await asyncio.sleep(until - asyncio.get_running_loop().time())
        ended = len(desk.seen)
        await asyncio.sleep(10 * LONG)
        assert len(desk.seen) == ended, "somebody was visited after the end"
        return desk

    return virtual_time.run(scenario())


def test_new_tenant_is_visited_at_once_and_after_each_pause() -> None:
    desk = played(Desk(), (5, body(), False), until=5 + 2 * (LONG + 1) + 10)
    assert desk.times == [5, 5 + LONG + 1, 5 + 2 * (LONG + 1)]


def test_edit_ends_the_pause_and_the_visit_sees_it() -> None:
    desk = played(Desk(), (5, body(1), False), (50, body(2), False), until=60)
    assert desk.seen == [(5, "u", 1), (50, "u", 2)]


def test_edit_during_a_visit_causes_another_right_after() -> None:
    desk = played(Desk(seconds=10), (5, body(1), False), (7, body(2), False), (9, body(3), False), until=100)
    assert desk.seen == [(5, "u", 1), (15, "u", 3)]


def test_irrelevant_changes_do_not_end_the_pause() -> None:
    desk = Desk()

    async def scenario() -> None:
        visits = Visits(desk)  # type: ignore[arg-type]
        async with visits.going_on():
            tell(visits, body(1))
            await asyncio.sleep(20)
            desk.wanted = False
            tell(visits, body(1, resourceVersion="2"))
            await asyncio.sleep(LONG + 5)

    virtual_time.run(scenario())
    assert desk.times == [0, LONG + 1]


def test_gone_tenant_is_no_longer_visited_and_its_visit_is_cancelled() -> None:
    assert played(Desk(), (5, body(), False), (50, body(), True), until=2 * LONG).times == [5]
    during = played(Desk(seconds=30), (5, body(), False), (10, body(), True), until=2 * LONG)
    assert (during.times, during.ends) == ([5], 0)


def test_visit_is_cancelled_by_a_deletion() -> None:
    desk = played(Desk(seconds=30), (5, body(), False), (10, body(deletionTimestamp="now"), False), until=20)
    assert (desk.times, desk.ends) == ([5], 0)


def test_fault_is_logged_and_the_visit_retried_after_ten_seconds() -> None:
    desk = Desk()
    desk.fails = 1
    with capture_logs() as logs:
        assert played(desk, (5, body(), False), until=100).times == [5, 16]
    [line] = [line for line in logs if line["event"] == "visit failed"]
    assert (line["log_level"], line["tenant"], line["generation"]) == ("error", "t-u", 1)


def test_tenants_do_not_wait_for_each_other() -> None:
    desk = played(Desk(seconds=50), *((1, body(uid=str(number)), False) for number in range(100)), until=20)
    assert desk.times == [1] * 100


def test_running_visits_are_cancelled_at_the_end() -> None:
    desk = played(Desk(seconds=1_000), (1, body(), False), until=20)
    assert (desk.times, desk.ends) == ([1], 0)
