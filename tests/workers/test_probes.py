"""The probe server of processes without an API: what it answers, also while their event loop hangs."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request

import pytest

from decklog import probes as module
from decklog.probes import SILENCE_MAX, Probes, serving


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def readiness(probes: Probes) -> tuple[str, dict[str, object]]:
    status, kind, body = probes.answer(b"GET", b"/readyz")
    assert kind == "application/json"
    return status, json.loads(body)


async def test_probes_fail_when_the_event_loop_hangs_and_recover_with_its_next_beat() -> None:
    now = 0.0
    probes = Probes(dict, clock=lambda: now)
    assert probes.answer(b"GET", b"/healthz").status == "200 OK"
    assert readiness(probes) == ("200 OK", {"status": "ready", "checks": {"event loop": "ok"}})
    now = SILENCE_MAX.total_seconds() + 1
    assert probes.answer(b"GET", b"/healthz").status == "503 Service Unavailable"
    unready = {"status": "unready", "checks": {"event loop": "timeout"}}
    assert readiness(probes) == ("503 Service Unavailable", unready)
    beating = asyncio.create_task(probes.beat())
    await asyncio.sleep(0)
    assert probes.answer(b"GET", b"/healthz").status == "200 OK"
    beating.cancel()


def test_readyz_is_red_when_one_check_is_not_ok() -> None:
    assert readiness(Probes(lambda: {"tenants": "2 not ready"})) == (
        "503 Service Unavailable",
        {"status": "unready", "checks": {"event loop": "ok", "tenants": "2 not ready"}},
    )


async def test_healthz_answers_503_while_the_event_loop_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_MAX", SILENCE_MAX / 300)
    async with serving("127.0.0.1", 0) as probes:
        answers: list[tuple[int, str]] = []
        asking = threading.Timer(0.3, lambda: answers.append(get(probes.port, "/healthz")))
        asking.start()
        time.sleep(0.6)  # the event loop of this test hangs, and with it the process that is probed
        await asyncio.to_thread(asking.join)
        assert answers == [(503, "the event loop hangs\n")]


async def test_serving_raises_when_the_port_is_taken() -> None:
    async with serving("127.0.0.1", 0) as probes:
        with pytest.raises(OSError, match="in use"):
            async with serving("127.0.0.1", probes.port):
                pass


async def test_serving_closes_its_port_after_the_block() -> None:
    async with serving("127.0.0.1", 0) as probes:
        assert (await asyncio.to_thread(get, probes.port, "/healthz"))[0] == 200
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(get, probes.port, "/healthz")
