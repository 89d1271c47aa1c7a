"""The screen of tenants: the own one with its conditions, and all of them for the platform."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.board import LOOKS, Look, Watch, axe, shoot

PLATFORM = (("platform", "platform"),)
HOSTILE = "<script>alert(1)</script>"


def changed(page: Page, **members: Any) -> None:
    """Let the API answer the own tenant with other members."""

    def answer(route: Route) -> None:
        found = route.fetch().json()
        route.fulfill(content_type="application/json", body=json.dumps(found | members))

    page.route("**/api/v1/tenants/*", answer)


@pytest.mark.parametrize("look", LOOKS[::3], ids=str)
def test_admin_sees_the_own_tenant_with_conditions_and_manifest(page: Page, look: Look) -> None:
    page.goto("/board/tenants")
    expect(page.get_by_role("heading", level=1, name="Acme Corporation")).to_be_visible()
    conditions = page.get_by_role("table", name="Conditions")
    first = conditions.get_by_role("row").nth(1)
    expect(first).to_contain_text("Ready")
    expect(first).to_contain_text("True")
    expect(conditions).to_contain_text("DatabaseReady")
    expect(page.locator("dl").last).to_contain_text("quotas.eventsPerSecond")
    usage = page.locator("dl").first
    expect(usage).to_contain_text("Access records")
    expect(usage).to_contain_text(re.compile("Size[0-9.]+ [KM]iB"))  # the tenant is Dedicated
    axe(page)
    shoot(page, f"tenant-{look}")


@pytest.mark.parametrize("look", LOOKS[::3], ids=str)
@pytest.mark.parametrize("who", [PLATFORM], ids=["platform"])
def test_platform_lists_filters_and_opens_tenants(page: Page, look: Look) -> None:
    page.goto("/board/tenants")
    table = page.get_by_role("table", name="Tenants")
    expect(table.get_by_role("link", name="acme")).to_be_visible()
    expect(table.get_by_role("link", name="globex")).to_be_visible()
    axe(page)
    shoot(page, f"tenants-{look}")
    box = page.get_by_label("Filter by name")
    box.fill("GLOB")
    expect(table.get_by_role("link", name="acme")).to_have_count(0)
    box.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Globex")).to_be_visible()
    assert page.url.endswith("/board/tenants?name=globex")
    page.get_by_role("link", name="All tenants").click()
    expect(table).to_be_visible()


@pytest.mark.parametrize("who", [PLATFORM], ids=["platform"])
def test_tenant_that_does_not_exist_is_named(page: Page) -> None:
    page.goto("/board/tenants?name=%3Cb%3Enone")
    expect(page.get_by_role("heading", name="There is no tenant <b>none")).to_be_visible()


@pytest.mark.parametrize(
    ("state", "told"), [("suspended", "Appends and reads are refused"), ("deleted", "Nothing can be read or appended")]
)
def test_state_that_stops_requests_is_explained(page: Page, state: str, told: str) -> None:
    changed(page, state=state, deleted_at="2026-01-01T00:00:00Z")
    page.goto("/board/tenants")
    expect(page.get_by_role("alert")).to_contain_text(told)
    axe(page)


def test_failed_condition_shows_its_reason_and_message_as_text(page: Page) -> None:
    condition = {
        "type": "Ready", "status": "False", "reason": "DatabaseFailed", "message": HOSTILE, "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    changed(page, conditions=[condition], display_name=HOSTILE)
    page.goto("/board/tenants")
    row = page.get_by_role("table", name="Conditions").get_by_role("row").nth(1)
    expect(row).to_contain_text(f"DatabaseFailed{HOSTILE}")
    expect(page.get_by_text("Not ready")).to_be_visible()
    expect(page.get_by_role("heading", level=1, name=HOSTILE)).to_be_visible()


def test_refusal_is_shown_with_its_code_and_tried_again(page: Page, watch: Watch) -> None:
    watch.allow(r"status of 503")
    problem = {"code": "overloaded", "title": "Overloaded", "detail": "Too many requests wait."}
    page.route(
        "**/api/v1/tenants/*",
        lambda route: route.fulfill(
            status=503, headers={"Retry-After": "2", "Content-Type": "application/problem+json"}, body=json.dumps(problem)
        ),
    )
    page.goto("/board/tenants")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Too many requests wait.")
    expect(alert).to_contain_text("overloaded")
    page.unroute("**/api/v1/tenants/*")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", level=1, name="Acme Corporation")).to_be_visible()


def test_page_is_loaded_anew_where_a_file_of_it_is_lost_and_shows_the_error_where_that_does_not_help(
    page: Page, watch: Watch
) -> None:
    watch.allow(r"ERR_FAILED|preload")
    page.goto("/board/sessions")
    expect(page.get_by_role("heading", level=1, name="Sessions")).to_be_visible()
    page.route(re.compile(r"/assets/tenants-[^/]+$"), lambda route: route.abort(), times=1)
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page.get_by_role("heading", level=1, name="Acme Corporation")).to_be_visible()
    page.goto("/board/sessions")
    expect(page.get_by_role("heading", level=1, name="Sessions")).to_be_visible()
    page.route(re.compile(r"/assets/tenants-[^/]+$"), lambda route: route.abort())
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page.get_by_role("alert")).to_contain_text("The page failed")
