"""Rejected records in a browser: why, what was sent, mend and replay, delete."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.board.conftest import Who
from tests.support.board import LOOKS, Installation, Look, Watch, axe, shoot

TENANT = "minimal"


@pytest.fixture
def who() -> Who:
    return ((TENANT, "admin"),)


def reject(installation: Installation, content: str) -> None:
    """Send a record that is refused."""
    with installation.dev.client(TENANT, "writer") as client:
        answer = client.post("/api/v1/logs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text


def listed(page: Page, detail: str) -> None:
    """Open the screen and wait until the rejected record is kept, which its sender does not wait for."""
    page.goto("/board/rejected")
    found = page.get_by_role("row").filter(has_text=detail)
    for _ in range(50):
        if found.count():
            break
        page.get_by_role("button", name="Read again").click()
        page.wait_for_timeout(100)
    found.first.click()


def stored(installation: Installation, identifier: str) -> list[dict[str, Any]]:
    with installation.dev.client(TENANT, "auditor") as client:
        found: list[dict[str, Any]] = client.get("/api/v1/logs", params={"id": identifier}).json()["items"]
    return found


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_rejected_record_says_why_and_shows_what_was_sent_masked(page: Page, installation: Installation, look: Look) -> None:
    reject(installation, json.dumps({"action": "a", "wrong": str(look), "metadata": {"password": "hunter2", "html": "<b>x</b>"}}))
    listed(page, "invalid-record")
    panel = page.get_by_role("dialog")
    expect(panel.get_by_text("invalid-record")).to_be_visible()
    sent = panel.get_by_label("What was sent, with secrets masked")
    expect(sent).to_contain_text("<b>x</b>")
    expect(sent).not_to_contain_text("hunter2")
    axe(page)
    shoot(page, f"rejected-{look}")


def test_mended_record_is_stored_in_place_of_the_rejected_one(page: Page, installation: Installation, watch: Watch) -> None:
    watch.allow("status of 422")
    number = 2**70
    reject(installation, f'{{"action":"mend.me","id":"mended-1","metadata":{{"n":{number}}}}}')
    listed(page, "actor")
    panel = page.get_by_role("dialog")
    panel.get_by_role("button", name="Replay", exact=True).click()
    expect(panel.get_by_role("alert")).to_contain_text("actor")
    panel.get_by_role("button", name="Mend").click()
    box = panel.get_by_label("Mended record")
    content = box.input_value()
    box.fill(content[:-1])
    expect(panel.get_by_role("button", name="Replay mended")).to_be_disabled()
    box.fill(content.replace('"mend.me"', '"mended", "actor": {"id": "eve"}'))
    panel.get_by_role("button", name="Replay mended").click()
    expect(panel.get_by_text("It is stored as")).to_be_visible()
    [record] = stored(installation, "mended-1")
    assert (record["action"], record["metadata"]["n"]) == ("mended", number)
    panel.get_by_role("button", name="Close", exact=True).last.click()
    expect(page.get_by_role("row").filter(has_text="mended-1")).to_have_count(0)


def test_rejected_record_is_deleted_after_a_question(page: Page, installation: Installation) -> None:
    reject(installation, '{"action":"delete.me","actor":{"id":"x"},"severity":"LOUD"}')
    listed(page, "LOUD")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    question = page.get_by_role("dialog").filter(has_text="What was sent is gone then")
    axe(page)
    question.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("row").filter(has_text="LOUD")).to_have_count(0)


@pytest.mark.parametrize("who", [((TENANT, "auditor"),)], ids=["auditor"])
def test_auditor_has_no_screen_of_rejected_records(page: Page) -> None:
    page.goto("/board/rejected")
    expect(page.get_by_role("navigation", name="Screens").get_by_role("link", name="Live")).to_be_visible()
    expect(page.get_by_role("link", name="Rejected")).to_have_count(0)
    assert not page.url.endswith("/rejected")
