"""The screen of retention: a calendar of the log, and the same as a table."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.board import LOOKS, SEEDED, Installation, Look, Watch, axe, shoot


def given(page: Page, ranges: list[dict[str, Any]], **members: Any) -> None:
    """Let the API answer these ranges."""
    found = {"tenant": "acme", "log": "events", "days": 30, "search_days": 10, "ranges": ranges, "dropped": [], **members}
    page.route("**/api/v1/retention**", lambda route: route.fulfill(content_type="application/json", body=json.dumps(found)))


def span(day: datetime, records: int, **members: Any) -> dict[str, Any]:
    """A range of one day."""
    written = [f"{at:%Y-%m-%dT00:00:00Z}" for at in (day, day + timedelta(days=1), day + timedelta(days=31))]
    times = {"from": written[0], "to": written[1], "hidden_after": written[2]}
    return {**times, "first_seq": 0, "end_seq": records, "records": records, "bytes": 2_048, "state": "closed", **members}


@pytest.mark.parametrize("look", LOOKS[::3], ids=str)
def test_calendar_shows_the_records_of_today(page: Page, installation: Installation, look: Look) -> None:
    page.goto("/board/retention")
    today = page.locator("td[aria-current=date]")
    expect(today).to_contain_text(f"{datetime.now(UTC).day}")
    expect(today).to_have_attribute("title", re.compile(r"[\d,]+ records, .*, hidden in \d+ days$"))
    shown = page.locator("dl").inner_text().replace(",", "")
    assert int(shown.partition("Records\n")[2].split()[0]) >= SEEDED
    assert "365 days" in shown
    axe(page)
    shoot(page, f"retention-{look}")


@pytest.mark.parametrize("look", LOOKS[::3], ids=str)
def test_calendar_covers_every_month_and_marks_what_is_hidden(page: Page, look: Look) -> None:
    now = datetime.now(UTC)
    days = [now - timedelta(days=number) for number in range(70, -1, -1)]
    given(page, [span(day, 3 ** (index % 9), state="hidden" if index < 39 else "closed") for index, day in enumerate(days)])
    page.goto("/board/retention")
    months = {f"{day:%B %Y}" for day in days}
    for month in months:
        expect(page.get_by_role("table", name=month)).to_be_visible()
    expect(page.locator("td[data-hidden]")).to_have_count(39)
    expect(page.locator("td[data-hidden]").first).to_contain_text("records, hidden")
    axe(page)
    shoot(page, f"retention-months-{look}")


def test_table_has_the_numbers_of_each_range(page: Page) -> None:
    now = datetime.now(UTC)
    lost = span(now - timedelta(days=40), 1_200, state="hidden", bytes=None) | {"from": None}
    given(page, [lost, span(now, 842, first_seq=1_200, end_seq=2_042, state="open")])
    page.goto("/board/retention")
    page.get_by_text("Table", exact=True).click()
    rows = page.get_by_role("table", name="Ranges of receipt time").get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text("1200 to 2041")
    expect(rows.nth(2)).to_contain_text("1,200")
    axe(page)


def test_log_without_records_says_so(page: Page) -> None:
    given(page, [])
    page.goto("/board/retention")
    expect(page.get_by_role("heading", name="This log holds no record yet")).to_be_visible()
    axe(page)


def test_access_log_is_asked_for_by_its_name(page: Page) -> None:
    page.goto("/board/retention")
    with page.expect_request("**/api/v1/retention?log=access"):
        page.get_by_role("main").get_by_text("Access", exact=True).click()


def test_suspended_tenant_is_told_apart(page: Page, watch: Watch) -> None:
    watch.allow(r"status of 403")

    def refuse(route: Route) -> None:
        problem = {"code": "tenant-suspended", "title": "Tenant suspended", "detail": "The tenant acme is suspended."}
        route.fulfill(status=403, content_type="application/problem+json", body=json.dumps(problem))

    page.route("**/api/v1/retention**", refuse)
    page.goto("/board/retention")
    expect(page.get_by_role("alert")).to_contain_text("The tenant's records are kept.")
    axe(page)


def test_dropped_ranges_are_listed_and_none_is_said_so(page: Page) -> None:
    day = datetime(2026, 1, 5, tzinfo=UTC)
    went = {**span(day, 400), "dropped_at": "2026-02-14T10:00:00Z"}
    given(page, [span(day + timedelta(days=40), 3)], dropped=[went])
    page.goto("/board/retention")
    page.get_by_text("Dropped", exact=True).click()
    row = page.get_by_role("table", name="Dropped ranges").get_by_role("row").nth(1)
    expect(row).to_contain_text("400")
    expect(row).to_contain_text("0 to 399")
    axe(page)
    shoot(page, "retention-dropped")
    given(page, [span(day, 3)])
    page.reload()
    page.get_by_text("Dropped", exact=True).click()
    expect(page.get_by_text("Nothing was dropped in the last 400 days")).to_be_visible()
