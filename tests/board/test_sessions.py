"""The screen of open sessions: which is this one, and ending others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.board.test_signin import end_all
from tests.support.board import LOOKS, WAIT_MS, Installation, Look, Watch, axe, shoot

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def _alone(installation: Installation, watch: Watch) -> None:
    """No session is left of other tests. After a sign-out the page asks for a session, and is refused."""
    end_all(installation)
    watch.allow(r"status of 401.*/api/v1/session")


@pytest.fixture
def other(browser: Browser, installation: Installation, _alone: None) -> Iterator[Page]:
    """Another browser with a session of the same admin, which calls itself something hostile."""
    context = browser.new_context(base_url=installation.url, user_agent=HOSTILE)
    context.set_default_timeout(WAIT_MS)
    headers = {"Authorization": f"Bearer {installation.key()}"}
    assert context.request.post("/api/v1/sessions", headers=headers, data={}).status == 201
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("look", LOOKS[::3], ids=str)
def test_sessions_are_listed_with_this_one_marked_and_text_inert(other: Page, page: Page, look: Look) -> None:
    page.goto("/board/sessions")
    table = page.get_by_role("table", name="Open sessions")
    expect(table.get_by_role("row").filter(has_text="127.0.0.1")).to_have_count(2)
    own = table.get_by_role("row").filter(has_text="this one")
    expect(own).to_have_count(1)
    expect(own).to_contain_text("Chrome")
    expect(own).to_contain_text("acme · admin")
    expect(table).to_contain_text(HOSTILE)
    axe(page)
    shoot(page, f"sessions-{look}")


def test_another_session_is_ended_after_a_question(other: Page, page: Page) -> None:
    page.goto("/board/sessions")
    row = page.get_by_role("row").filter(has_text=HOSTILE)
    row.get_by_role("button", name="End").click()
    dialog = page.get_by_role("dialog", name="End this session?")
    expect(dialog).to_be_visible()
    axe(page)
    dialog.get_by_role("button", name="Cancel").click()
    expect(row).to_be_visible()
    row.get_by_role("button", name="End").click()
    dialog.get_by_role("button", name="End").click()
    expect(row).to_have_count(0)
    assert other.context.request.get("/api/v1/session").status == 401


def test_all_others_end_and_this_one_stays(other: Page, page: Page) -> None:
    page.goto("/board/sessions")
    page.get_by_role("button", name="End all others").click()
    page.get_by_role("dialog").get_by_role("button", name="End").click()
    expect(page.get_by_role("row").filter(has_text="127.0.0.1")).to_have_count(1)
    expect(page.get_by_role("button", name="End all others")).to_be_disabled()
    assert page.context.request.get("/api/v1/session").status == 200
    assert other.context.request.get("/api/v1/session").status == 401


def test_own_row_signs_out(page: Page) -> None:
    page.goto("/board/sessions")
    page.get_by_role("row").filter(has_text="this one").get_by_role("button", name="Sign out").click()
    page.get_by_role("dialog", name="Sign out here?").get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status").filter(has_text="You are signed out")).to_be_visible()


def test_refused_end_stays_in_the_dialog_with_its_reason(other: Page, page: Page, watch: Watch) -> None:
    watch.allow(r"status of 503")
    page.goto("/board/sessions")
    page.route(
        "**/api/v1/sessions/*",
        lambda route: route.fulfill(
            status=503, content_type="application/problem+json",
            body='{"code": "storage-unavailable", "title": "Storage unavailable", "detail": "The database does not answer."}',
        ),
    )  # fmt: skip
    page.get_by_role("row").filter(has_text=HOSTILE).get_by_role("button", name="End").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="End").click()
    expect(dialog.get_by_role("alert")).to_contain_text("The database does not answer.")
