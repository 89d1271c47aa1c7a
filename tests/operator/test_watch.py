"""A dead watch is detected whatever the cause, and a quiet watch is not taken for dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import kopf
import pytest
from aiohttp import web

from decklog_operator.run import report_unless_generator
from decklog_operator.watch import WatchLife
from tests.support.operators import Kubernetes, Operator, operator_environment, until
from tests.support.provisioning import FOLDER_VARIABLE, FolderProvisioner
from tests.support.watch_relay import Mode, WatchRelay

pytestmark = pytest.mark.xdist_group("kubernetes")

SILENCE_MAX = 9.0


class Api:
    """Respond to every request with headers, then continue as `speak`, `end` and `cut` say."""

    url = ""

    def __init__(self) -> None:
        self._lines = asyncio.Condition()
        self._word = "speak"

    async def say(self, word: str) -> None:
        async with self._lines:
            self._word = word
            self._lines.notify_all()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=403 if "forbidden" in request.query else 200)
        await response.prepare(request)
        while True:
            async with self._lines:
                await self._lines.wait()
            match self._word:
                case "speak":
                    await response.write(b"{}\n")
                case "end":
                    return response
                case "cut":
                    assert request.transport is not None
                    request.transport.abort()
                    return response


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made, app = Api(), web.Application()
    app.router.add_route("*", "/", made.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("query", "seconds", "word", "lives"),
    [
        ("watch=true", 1, "speak", True),
        ("watch=true", 3, "end", True),
        ("watch=true", 1, "end", False),
        ("watch=true", 3, "cut", False),
        ("watch=true", 3, "nothing", False),
        ("limit=1", 3, "speak", False),
        ("watch=true&forbidden=", 3, "speak", False),
    ],
)
async def test_watch_is_alive_on_each_byte_and_on_an_orderly_end(
    api: Api, query: str, seconds: float, word: str, lives: bool
) -> None:
    clock = Clock()
    life = WatchLife(SILENCE_MAX, clock=clock)
    life.begin()
    clock.now += 100
    info = life.session(kopf.ConnectionInfo(server=api.url, token="t0ken"))
    async with info.aiohttp_session as session, session.get(f"{api.url}/?{query}") as response:
        assert response.request_info.headers["Authorization"] == "Bearer t0ken"
        clock.now += seconds
        await api.say(word)
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(0.2 if word == "nothing" else None):
                await response.content.readline()
        assert life.silence() == (0 if lives else 100 + seconds)
        assert (life.complaint() == "") == lives


async def test_session_is_reused_for_the_same_credentials(api: Api) -> None:
    life = WatchLife(SILENCE_MAX)
    first, again, other = (life.session(kopf.ConnectionInfo(server=api.url, token=token)) for token in ("a", "a", "b"))
    async with first.aiohttp_session, other.aiohttp_session:
        assert (first == again, first == other) == (True, False)


def test_silence_is_zero_before_the_watch_begins() -> None:
    clock = Clock()
    life = WatchLife(SILENCE_MAX, clock=clock)
    clock.now += 1_000
    assert (life.silence(), life.complaint()) == (0, "")
    life.begin()
    clock.now += 100
    assert life.complaint() == "the watch of Tenants has been silent for 100 s"


def red(operator: Operator) -> bool:
    return operator.ask("/healthz")[0] == 503


def test_healthz_follows_the_life_of_the_watch(
    kubernetes: Kubernetes, least_rights: Path, backends: FolderProvisioner, tmp_path: Path
) -> None:
    with WatchRelay(least_rights).running() as relay:
        environment = operator_environment(
            kubernetes,
            relay.kubeconfig(tmp_path / "by-the-relay"),
            **{FOLDER_VARIABLE: str(backends.folder), "DECKLOG_OPERATOR_WATCH_SILENCE_MAX_SECONDS": f"{SILENCE_MAX:g}"},
        )
        operator = Operator(["tests.support.operator_on_folder"], environment, tmp_path)
        operator.start()
        try:
            first, second = kubernetes.name(), kubernetes.name()
            kubernetes.apply(kubernetes.tenant(first))
            kubernetes.wait_ready(first)
            end = time.monotonic() + 1.5 * SILENCE_MAX
            while time.monotonic() < end:
                assert not red(operator), operator.ask("/healthz")
                time.sleep(0.2)
            modes: tuple[Mode, ...] = ("kill", "freeze")
            for mode in modes:
                relay.mode = mode
                until(f"it is red for want of a watch ({mode})", lambda: red(operator))
                row = backends.row(first)
                assert row is not None
                until("it works all the same", lambda row=row: (backends.row(first) or row).passes > row.passes)  # type: ignore[misc]
                assert "the watch of Tenants has been silent" in operator.ask("/healthz")[1]
                relay.mode = "pass"
                until("it is green again", lambda: not red(operator), longest=120)
            kubernetes.apply(kubernetes.tenant(second))
            kubernetes.wait_ready(second)
        finally:
            operator.end()


def test_watch_left_open_between_two_events_is_closed_without_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def unpaused() -> AsyncIterator[None]:
        with suppress(GeneratorExit):
            yield
        yield  # as Python sees a context that is closed while the watch around it is

    async def watch() -> AsyncIterator[int]:
        async with unpaused():
            yield 1

    async def stop_between_two_events() -> AsyncIterator[int]:
        asyncio.get_running_loop().set_exception_handler(report_unless_generator)
        events = watch()
        assert await anext(events) == 1
        return events

    events = asyncio.run(stop_between_two_events())
    assert not caplog.records
    del events


def test_error_that_no_task_handles_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail_in_a_callback() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(report_unless_generator)
        loop.call_soon([].pop)
        await asyncio.sleep(0)

    asyncio.run(fail_in_a_callback())
    assert "pop from empty list" in caplog.text
