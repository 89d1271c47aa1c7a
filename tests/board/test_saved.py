"""Saved searches in a browser: save on Search, open, rename and share, delete."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.board.conftest import Who
from tests.support.board import LOOKS, Installation, Look, axe, shoot

TENANT = "minimal"


@pytest.fixture
def who() -> Who:
    return ((TENANT, "admin"),)


def save(page: Page, name: str, address: str) -> None:
    page.goto(address)
    page.get_by_role("button", name="Save this search").click()
    page.get_by_role("dialog").get_by_label("Name").fill(name)
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_search_is_saved_and_opens_as_it_was(page: Page, look: Look) -> None:
    name = f"Denied on {look}"
    save(page, name, "/board/search?q=outcome%3Adenied+OR+severity%3AERROR&range=24h&sort=occurred_at")
    page.goto("/board/saved")
    row = page.get_by_role("row").filter(has_text=name)
    expect(row).to_contain_text("(outcome:denied OR severity:ERROR) since:24h")
    axe(page)
    shoot(page, f"saved-{look}")
    row.get_by_text(name).click()
    page.wait_for_url("**/board/search?*")
    asked = parse_qs(urlsplit(page.url).query)
    assert asked["q"] == ["(outcome:denied OR severity:ERROR) since:24h"]
    assert (asked["range"], asked["sort"]) == (["all"], ["occurred_at"])


def test_search_is_renamed_shared_and_deleted_by_key(page: Page, installation: Installation) -> None:
    save(page, "To rename", "/board/search?q=rename&range=all")
    page.goto("/board/saved")
    page.get_by_role("button", name="Change To rename").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("A new name")
    dialog.get_by_role("switch", name="Shared with all readers").check()
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row").filter(has_text="A new name")).to_contain_text("yours, shared")
    with installation.dev.client(TENANT, "auditor") as client:
        assert "A new name" in [each["name"] for each in client.get("/api/v1/searches").json()["items"]]
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("A new name", exact=True)).to_have_count(0)


def test_search_by_other_clients_opens_with_its_filters_as_clauses(page: Page, installation: Installation) -> None:
    body = {"name": "By API", "parameters": {"actor": "a b", "severity": ["ERROR", "CRITICAL"]}, "shared": True}
    with installation.dev.client(TENANT, "auditor") as client:
        client.post("/api/v1/searches", json=body).raise_for_status()
    page.goto("/board/saved")
    row = page.get_by_role("row").filter(has_text="By API")
    expect(row).to_contain_text('actor.id:"a b" severity:(ERROR OR CRITICAL)')
    expect(row).to_contain_text("shared by")
