"""Sign-in to the board by a provider of OpenID Connect, in a browser that goes there and comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.api_world import in_thread
from tests.support.board import Watch, axe, shoot
from tests.support.identity_provider import running_provider, trusting_world


@pytest.fixture
def provider() -> Iterator[str]:
    with running_provider() as issuer:
        yield issuer


@pytest.fixture
def origin(built: Path, provider: str) -> Iterator[str]:
    """The address of an API that trusts the provider."""
    with in_thread(lambda: trusting_world(provider)) as world:
        yield world.url


@pytest.fixture(autouse=True)
def _faults_of_a_sign_in_elsewhere(watch: Watch, visitor: BrowserContext, provider: str) -> None:
    visitor.route(re.compile("^https:"), lambda route: route.fulfill(content_type="text/css", body=""))  # style of the provider
    watch.allow(r"status of 401.*/api/v1/session")
    watch.allow(rf"{provider}/favicon.ico")
    watch.hosts.add(provider)


def sign_in(page: Page, subject: str) -> None:
    """Press the button, and name a person at the provider."""
    page.get_by_role("link", name="Sign in with Example").click()
    page.get_by_placeholder("sub").fill(subject)
    page.get_by_role("button", name="Authorize").click()


def test_sign_in_by_a_provider_ends_at_the_page_that_was_asked_for(guest: Page, visitor: BrowserContext, provider: str) -> None:
    guest.goto("/board/sessions")
    sign_in(guest, "alice")
    expect(guest.get_by_role("heading", level=1, name="Sessions")).to_be_visible()
    assert "link=" not in guest.url
    [identity] = visitor.request.get("/api/v1/session").json()["identities"]
    assert (identity["subject"], identity["issuer"], identity["tenant"]) == ("alice", provider, "acme")


def test_person_whom_the_provider_may_not_speak_for_is_told_so(guest: Page) -> None:
    guest.goto("/board/sessions")
    sign_in(guest, "mallory")
    expect(guest.get_by_role("status")).to_contain_text("The provider did not sign you in")
    assert guest.url.endswith("/board/sessions")
    axe(guest)
    shoot(guest, "provider-refused")
    sign_in(guest, "alice")
    expect(guest.get_by_role("heading", level=1, name="Sessions")).to_be_visible()
