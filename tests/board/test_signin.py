"""Signing in to the board: by a key, by a one-time link, and what the page says when it does not work."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.support.board import LOOKS, Installation, Look, Watch, axe, shoot

NOT_SIGNED_IN = r"status of 401.*/api/v1/session"


@pytest.fixture(autouse=True)
def _refusals_are_logged(watch: Watch) -> None:
    """The browser logs each answer of status 401, and a sign-in begins with one."""
    watch.allow(NOT_SIGNED_IN)


def link(installation: Installation) -> str:
    """Return a new one-time link of acme's admin."""
    with installation.dev.client("acme", "admin") as client:
        answer = client.post("/api/v1/sessions/links", json={})
        assert answer.status_code == 201, answer.text
        url: str = answer.json()["url"]
        return url


def end_all(installation: Installation) -> None:
    """End every session of acme."""
    with installation.dev.client("acme", "admin") as client:
        for session in client.get("/api/v1/sessions").json()["items"]:
            client.delete(f"/api/v1/sessions/{session['id']}")


def test_key_signs_in_and_the_page_keeps_none_of_it(guest: Page, installation: Installation) -> None:
    key = installation.key()
    guest.goto("/board")
    guest.get_by_label("API key or token").fill(f"  {key} ")
    guest.keyboard.press("Enter")
    expect(guest.get_by_role("heading", level=1, name="Search")).to_be_visible()
    kept = guest.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state])"
    )
    assert key not in kept
    assert "dlk_" not in guest.content()
    assert guest.evaluate("document.cookie") == ""


def test_wrong_key_is_refused_with_advice_and_can_be_mended(guest: Page, installation: Installation) -> None:
    guest.goto("/board")
    box = guest.get_by_label("API key or token")
    box.fill("dlk_0000000000000000_wrong")
    guest.get_by_role("button", name="Sign in with the key").click()
    expect(guest.get_by_role("alert")).to_contain_text("Check that the whole key was pasted")
    box.fill(installation.key("acme", "auditor"))
    guest.get_by_role("button", name="Sign in with the key").click()
    expect(guest.get_by_role("heading", level=1, name="Search")).to_be_visible()


@pytest.mark.parametrize("look", LOOKS[::3], ids=str)
def test_link_signs_in_once_and_leaves_the_address(
    guest: Page, browser: Browser, watch: Watch, installation: Installation, look: Look
) -> None:
    url = link(installation)
    guest.goto(url)
    expect(guest.get_by_role("heading", level=1, name="Search")).to_be_visible()
    assert "link=" not in guest.evaluate("location.href + document.referrer")
    again = browser.new_context(**look.options)
    try:
        page = again.new_page()
        watch.attach(page)
        page.goto(url)
        expect(page.get_by_role("status")).to_contain_text("The link did not sign you in")
        assert "link=" not in page.url
        axe(page)
        shoot(page, f"link-used-{look}")
    finally:
        again.close()


def test_ended_session_asks_for_a_sign_in_and_goes_on_at_the_same_page(page: Page, installation: Installation) -> None:
    page.goto("/board/sessions")
    expect(page.get_by_role("table", name="Open sessions")).to_be_visible()
    end_all(installation)
    page.reload()
    page.get_by_label("API key or token").fill(installation.key())
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Sessions")).to_be_visible()


def test_session_that_ends_in_an_open_page_is_named(page: Page, watch: Watch, installation: Installation) -> None:
    watch.allow(r"status of 401")
    page.goto("/board/sessions")
    expect(page.get_by_role("table", name="Open sessions")).to_be_visible()
    end_all(installation)
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page.get_by_role("status").filter(has_text="Your session ended")).to_be_visible()
    axe(page)


def test_signing_out_ends_the_session_on_the_server(page: Page) -> None:
    page.goto("/board/search")
    page.get_by_role("button", name="Account").click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_role("status").filter(has_text="You are signed out")).to_be_visible()
    assert page.context.request.get("/api/v1/session").status == 401


def test_sign_in_by_a_provider_comes_back_to_the_same_page(guest: Page) -> None:
    def config(route: Route) -> None:
        route.fulfill(content_type="application/json", body=json.dumps({"version": "1", "oidc": {"name": "<b>Example</b>"}}))

    guest.route("**/board/config.json", config)
    guest.goto("/board/keys?from=mail")
    button = guest.get_by_role("link", name="Sign in with <b>Example</b>")
    expect(button).to_have_attribute("href", "/board/oidc/start?return=%2Fboard%2Fkeys%3Ffrom%3Dmail")


def test_page_says_that_the_server_cannot_be_reached_and_tries_again(guest: Page, watch: Watch) -> None:
    watch.allow(r"ERR_FAILED|ERR_CONNECTION")
    guest.route("**/api/v1/session", lambda route: route.abort())
    guest.goto("/board")
    expect(guest.get_by_role("alert")).to_contain_text("cannot be reached")
    guest.unroute("**/api/v1/session")
    guest.get_by_role("button", name="Try again").click()
    expect(guest.get_by_label("API key or token")).to_be_visible()


def test_session_cannot_be_fixed_before_sign_in(visitor: BrowserContext, guest: Page, installation: Installation) -> None:
    visitor.add_cookies([{"name": "decklog_session", "value": "chosen-by-another", "url": installation.url}])
    guest.goto("/board")
    guest.get_by_label("API key or token").fill(installation.key())
    guest.keyboard.press("Enter")
    expect(guest.get_by_role("heading", level=1, name="Search")).to_be_visible()
    [cookie] = [each for each in visitor.cookies() if re.search("decklog_session", each.get("name", ""))]
    assert cookie.get("value") != "chosen-by-another"
    assert cookie.get("httpOnly")
    assert cookie.get("sameSite") == "Strict"
