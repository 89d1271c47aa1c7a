"""Live in a browser: records appear as they are stored, and a broken connection loses and doubles none."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.board.conftest import Who
from tests.support.board import LOOKS, Installation, Look, Watch, axe, shoot
from tests.support.relay import Relay

TENANT = "minimal"
HOSTILE = "<img src=x onerror=\"document.title='run'\"><b>bold</b>"


def event(message: str, **more: Any) -> dict[str, Any]:
    return {"action": "door.open", "actor": {"id": "eve"}, "outcome": "success", "message": message, **more}


@pytest.fixture
def who() -> Who:
    return ((TENANT, "admin"),)


@pytest.fixture
def origin(relay: Relay) -> str:
    return f"http://127.0.0.1:{relay.port}"


def opened(page: Page, address: str = "/board/live") -> None:
    page.goto(address)
    expect(page.get_by_role("status").get_by_text("Live", exact=True)).to_be_visible()


def drawn(page: Page, prefix: str) -> list[str]:
    """Return the messages that begin so, as the list has them from the top."""
    cells = page.get_by_role("gridcell").filter(has_text=prefix).all_inner_texts()
    return [text for text in cells if text.startswith(prefix)]


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_record_appears_as_text_when_it_is_stored(page: Page, installation: Installation, look: Look) -> None:
    opened(page)
    installation.append(event(f"live {look}", actor={"id": HOSTILE}, severity="ERROR", outcome="denied"), tenant=TENANT)
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    assert page.title() == "Live · Decklog"
    axe(page)
    shoot(page, f"live-{look}")


def test_paused_tail_counts_what_comes_and_draws_it_afterwards(page: Page, installation: Installation) -> None:
    opened(page)
    page.keyboard.press("p")
    installation.append(*(event(f"held {number}") for number in range(12)), tenant=TENANT)
    expect(page.get_by_role("button", name="12 new")).to_be_visible()
    assert drawn(page, "held") == []
    page.get_by_role("button", name="12 new").click()
    expect(page.get_by_text("held 11")).to_be_visible()
    assert drawn(page, "held") == [f"held {number}" for number in range(11, -1, -1)]


def test_broken_connection_goes_on_without_gap_or_double(
    page: Page, installation: Installation, relay: Relay, watch: Watch
) -> None:
    watch.allow("ERR_")
    opened(page)
    installation.append(event("broken 0"), tenant=TENANT)
    expect(page.get_by_text("broken 0")).to_be_visible()
    for turn in (1, 2):
        relay.cut()
        expect(page.get_by_text("Connection lost")).to_be_visible()
        installation.append(event(f"broken {2 * turn - 1}"), event(f"broken {2 * turn}"), tenant=TENANT)
        relay.mend()
        # The page may have connected by itself meanwhile, and then it has no such button.
        page.get_by_role("button", name="Connect now").evaluate_all("buttons => buttons.forEach((each) => each.click())")
        expect(page.get_by_text(f"broken {2 * turn}", exact=True)).to_be_visible()
        expect(page.get_by_text("nothing was missed")).to_have_count(turn)
    assert drawn(page, "broken") == [f"broken {number}" for number in range(4, -1, -1)]
    expect(page.get_by_text("did not arrive")).to_have_count(0)


def test_query_narrows_the_tail_and_a_refused_one_says_why(page: Page, installation: Installation, watch: Watch) -> None:
    watch.allow("status of 422")
    opened(page, "/board/live?q=outcome:denied")
    installation.append(event("let in"), event("kept out", outcome="denied"), tenant=TENANT)
    expect(page.get_by_text("kept out")).to_be_visible()
    assert drawn(page, "let in") == []
    page.goto("/board/live?q=color:red")
    expect(page.get_by_text("There is no field 'color'").first).to_be_visible()


def test_record_opens_by_key_and_pauses_the_tail(page: Page, installation: Installation) -> None:
    installation.append(event("to be opened"), tenant=TENANT)
    opened(page)
    expect(page.get_by_text("to be opened")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary").get_by_text("eve").first).to_be_visible()
    expect(page.get_by_role("status").get_by_text("Live, drawing paused")).to_be_visible()
    axe(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary")).to_have_count(0)
    expect(page.get_by_role("grid")).to_be_focused()


def test_tail_ends_with_the_session(page: Page, watch: Watch) -> None:
    watch.allow("status of 401|ERR_")
    opened(page)
    csrf = page.context.request.get("/api/v1/session").json()["csrf"]
    assert page.context.request.delete("/api/v1/session", headers={"Decklog-Csrf": csrf}).status == 204
    expect(page.get_by_role("heading", name="Sign in to Decklog")).to_be_visible()
