"""Access in a browser: who read what, as sentences."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.board.conftest import Who
from tests.support.board import LOOKS, Installation, Look, axe, shoot

TENANT = "minimal"


@pytest.fixture
def who() -> Who:
    return ((TENANT, "admin"),)


def read(installation: Installation, role: str, **parameters: str) -> httpx.Response:
    with installation.dev.client(TENANT, role) as client:
        return client.get("/api/v1/logs", params=parameters)


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_search_is_told_as_a_sentence(page: Page, installation: Installation, look: Look) -> None:
    actor = f"alice-{look}"
    assert read(installation, "auditor", q=f"actor.id:{actor}").status_code == 200
    page.goto("/board/access")
    key = installation.key(TENANT, "auditor").split("_")[1]
    row = page.get_by_role("row").filter(has_text=actor).first
    expect(row).to_contain_text(f"Auditor key {key}")
    expect(row).to_contain_text(f"searched actor.id:{actor}: 0 records")
    axe(page)
    shoot(page, f"access-{look}")


def test_refused_attempts_stand_out(page: Page, installation: Installation) -> None:
    assert read(installation, "writer", q="stolen").status_code == 403
    page.goto("/board/access")
    page.get_by_role("switch", name="Refused and failed only").check()
    refused = page.get_by_role("row").filter(has_text="was refused")
    # One task writes these records after the refusal was answered.
    for _ in range(50):
        if refused.count():
            break
        page.get_by_role("button", name="Read again").click()
        page.wait_for_timeout(100)
    expect(refused.first).to_contain_text("Refused")
    expect(refused.first).to_contain_text("forbidden")
    expect(page.get_by_role("row").filter(has_text="searched stolen")).to_have_count(0)
    assert "concerns=true" in page.url


def test_query_of_a_reading_opens_in_search(page: Page, installation: Installation) -> None:
    read(installation, "auditor", q="outcome:denied actor.id:mallory", **{"from": "2026-01-01T00:00:00Z"})
    page.goto("/board/access?action=log.search")
    row = page.get_by_role("row").filter(has_text="mallory").first
    row.get_by_role("link", name="Search").click()
    page.wait_for_url("**/board/search?*")
    asked = parse_qs(urlsplit(page.url).query)
    assert "mallory" in asked["q"][0]
    assert asked["range"] == ["2026-01-01T00:00:00Z.."]


def test_actor_filter_and_record_by_key(page: Page, installation: Installation) -> None:
    read(installation, "auditor", q="actor.id:by-key")
    key = installation.key(TENANT, "auditor").split("_")[1]
    page.goto(f"/board/access?actor={key}")
    expect(page.get_by_role("row").filter(has_text="by-key").first).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="Admin key")).to_have_count(0)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary").get_by_text("log.search").first).to_be_visible()
    axe(page)
