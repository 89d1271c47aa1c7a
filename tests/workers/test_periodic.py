"""The loop of periodic duties: when the next turn begins."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry, Counter

from decklog.domain.errors import Code, DecklogError
from decklog.workers.periodic import JITTER, Pace, Turn, repeat

AWAY = DecklogError(Code.STORAGE_UNAVAILABLE, "away")
PACE = Pace(timedelta(seconds=100), retry=timedelta(seconds=5), retry_max=timedelta(seconds=12))


class Script:
    """Turns that end as scripted, and a clock that never waits: `slept` has the pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *turns: Turn | Exception) -> None:
        self.turns = list(turns)
        self.slept: list[float] = []
        self.failures = Counter("failures", "Failed turns.", registry=CollectorRegistry())
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def _turn(self) -> Turn:
        if not self.turns:
            raise asyncio.CancelledError
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return turn

    async def run(self, pace: Pace = PACE) -> list[float]:
        """The pauses after each turn of the script."""
        with pytest.raises(asyncio.CancelledError):
            await repeat(self._turn, pace, failures=self.failures, failed="a turn failed", consumer="test")
        return self.slept


@pytest.fixture
def _without_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)


@pytest.mark.usefixtures("_without_jitter")
async def test_repeat_waits_for_the_interval_after_a_turn_and_not_at_all_when_more_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await Script(monkeypatch, Turn.DONE, Turn.MORE, Turn.MORE, Turn.DONE).run() == [100, 0, 0, 100]


@pytest.mark.usefixtures("_without_jitter")
async def test_repeat_doubles_the_pause_with_each_failure_in_a_row_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, AWAY, Turn.FAILED, AWAY, AWAY, Turn.DONE, AWAY, Turn.MORE, AWAY)
    assert await script.run() == [5, 10, 12, 12, 100, 5, 0, 5]
    # A turn that returns FAILED has counted its own failures.
    assert script.failures._value.get() == 5


@pytest.mark.usefixtures("_without_jitter")
async def test_pace_every_keeps_the_same_pause_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, AWAY, AWAY, Turn.DONE)
    assert await script.run(Pace.every(timedelta(seconds=7))) == [7, 7, 7]
    script = Script(monkeypatch, AWAY, AWAY, Turn.DONE)
    assert await script.run(Pace.every(timedelta(seconds=7), retry=timedelta(seconds=2))) == [2, 2, 7]


async def test_repeat_jitters_each_pause_within_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = await Script(monkeypatch, *[Turn.DONE] * 200).run()
    assert len(set(slept)) > 100
    assert all(100 * (1 - JITTER) <= seconds <= 100 * (1 + JITTER) for seconds in slept)


async def test_repeat_ends_on_an_error_that_must_not_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        await repeat(script._turn, PACE, failures=script.failures, failed="a turn failed")
