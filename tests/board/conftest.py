"""The board in a browser: `page` is signed in, `guest` is not.

Tests of this folder are synchronous, because a worker has no other event loop while Playwright runs. All of them run in one
worker, so one browser and one `decklog dev` serve them. Tests that create network interfaces run in the same worker:
Chromium ends its requests when an interface comes or goes. A test overrides `look` or `who` by parametrizing it:

    @pytest.mark.parametrize("look", LOOKS, ids=str)
    def test_search_…(page: Page, look: Look) -> None:
        page.goto("/board/search")

A page that logs an error, violates the content security policy or asks another host fails its test; `watch.allow` names exceptions.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.board import BUILT, FLAGS, WAIT_MS, Installation, Look, Watch, missing, seeded, shoot
from tests.support.dev import Dev
from tests.support.relay import Relay

Who = tuple[tuple[str, str], ...]
"""Tenants and roles whose keys a session has, as in `(("acme", "admin"), ("platform", "platform"))`."""
_failed = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("interfaces"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_failed] = report.failed
    return report


@pytest.fixture(scope="package")
def built() -> Path:
    """The folder of the built board."""
    if not (BUILT / "index.html").exists():
        missing("the board is not built: run `make board`")
    return BUILT


@pytest.fixture(scope="package")
def installation(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    dev = Dev(tmp_path_factory.mktemp("board"))
    dev.start()
    yield seeded(dev)
    dev.close()


@pytest.fixture(scope="package")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def look() -> Look:
    return Look("desktop", "light")


@pytest.fixture
def who() -> Who:
    return (("acme", "admin"),)


@pytest.fixture
def relay(installation: Installation) -> Iterator[Relay]:
    """A relay in front of the installation, for tests that cut connections: they open the board at its address."""
    address = urlsplit(installation.url)
    made = Relay(str(address.hostname), int(address.port or 0))
    yield made
    made.close()


@pytest.fixture
def origin(installation: Installation) -> str:
    """The address at which the browser finds the board."""
    return installation.url


@pytest.fixture
def watch(origin: str) -> Iterator[Watch]:
    made = Watch(origin)
    yield made
    assert made.faults == [], "\n".join(made.faults)


@pytest.fixture
def visitor(browser: Browser, origin: str, look: Look) -> Iterator[BrowserContext]:
    """A browser without cookies and without stored values."""
    context: Any = browser.new_context(base_url=origin, **look.options)
    context.set_default_timeout(WAIT_MS)
    yield context
    context.close()


@pytest.fixture
def guest(visitor: BrowserContext, watch: Watch, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that is not signed in and has not been opened yet. A picture of it is kept if the test fails."""
    page = visitor.new_page()
    watch.attach(page)
    yield page
    if request.node.stash.get(_failed, False):
        shoot(page, f"failed-{request.node.name.replace('/', '-')[:120]}")


@pytest.fixture
def page(guest: Page, installation: Installation, who: Who) -> Page:
    """A page with a session of `who`, not opened yet."""
    for tenant, role in who:
        headers = {"Authorization": f"Bearer {installation.key(tenant, role)}"}
        answer = guest.context.request.post("/api/v1/sessions", headers=headers, data={})
        assert answer.status == 201, answer.text()
    return guest
