"""The story of a request, a session, an actor and a resource in a real browser."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.board import LOOKS, SEEDED, Installation, Look, axe, shoot


def deeds(page: Page) -> Locator:
    return page.locator("[data-row]")


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_story_is_accessible(page: Page, look: Look) -> None:
    page.goto("/board/story?session_id=s-3")
    expect(deeds(page)).to_have_count(10)
    axe(page)
    shoot(page, f"story-{look}")
    deeds(page).first.click()
    expect(page.get_by_role("complementary").get_by_text("Matches")).to_be_visible()
    axe(page)


@pytest.mark.parametrize(
    ("query", "title", "count"),
    [
        ("correlation_id=req-7", "Story of request req-7", 3),
        ("session_id=s-3", "Story of session s-3", 10),
        ("actor=dave", "Story of actor dave", SEEDED // 4),
        ("resource_id=role-3&resource_type=role", "Story of role role-3", 3),
    ],
)
def test_story_has_everything_of_its_subject_oldest_first(page: Page, query: str, title: str, count: int) -> None:
    page.goto(f"/board/story?{query}")
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    expect(deeds(page)).to_have_count(count)
    times = page.locator("li time").all_inner_texts()
    assert times == sorted(times)


def test_record_links_to_its_stories_and_the_story_to_the_search(page: Page) -> None:
    page.goto("/board/search?seq=3&range=all")
    page.get_by_role("link", name="This request").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Story of request req-1")
    page.get_by_role("link", name="Search in it").click()
    expect(page.get_by_role("textbox", name="Query")).to_have_value("correlation_id:req-1")
    expect(page.get_by_role("status")).to_have_text("3 records")


def test_pause_divides_a_story(page: Page, installation: Installation) -> None:
    start = datetime(2026, 1, 5, 9, tzinfo=UTC)
    for seconds in (0, 2, 90):
        at = (start + timedelta(seconds=seconds)).isoformat()
        installation.append({"action": "job.run", "actor": {"id": "cron"}, "occurred_at": at, "correlation_id": "req-paused"})
    page.goto("/board/story?correlation_id=req-paused")
    expect(deeds(page)).to_have_count(3)
    expect(page.get_by_text("1 minute later")).to_have_count(1)


def test_keys_walk_through_a_story(page: Page) -> None:
    page.goto("/board/story?session_id=s-3")
    expect(deeds(page)).to_have_count(10)
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(deeds(page).nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    opened = page.get_by_role("complementary")
    expect(opened.get_by_role("heading", level=2)).to_have_text("Record 31")
    page.keyboard.press("]")
    expect(opened.get_by_role("heading", level=2)).to_have_text("Record 32")
    page.keyboard.press("[")
    expect(opened.get_by_role("heading", level=2)).to_have_text("Record 31")
    page.keyboard.press("Escape")
    expect(opened).to_have_count(0)
    expect(deeds(page).nth(1)).to_be_focused()


def test_long_story_continues_on_request(page: Page, installation: Installation) -> None:
    installation.append(*({"action": "job.run", "actor": {"id": "busy"}} for _ in range(130)))
    page.goto("/board/story?actor=busy")
    expect(page.get_by_text(re.compile(r"^100\+ records"))).to_be_visible()
    page.get_by_role("button", name="Load what follows").click()
    expect(deeds(page)).to_have_count(130)


def test_story_without_a_subject_or_records_says_what_to_do(page: Page) -> None:
    page.goto("/board/story")
    expect(page.get_by_role("heading", name="Whose story?")).to_be_visible()
    page.goto("/board/story?actor=nobody-at-all")
    expect(page.get_by_role("heading", name="Nothing is known of it")).to_be_visible()
    axe(page)
