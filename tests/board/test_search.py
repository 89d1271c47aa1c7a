"""The search in a real browser: every key, filters, the mark of a refused query, the timeline, the record, and long lists."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.support.board import LOOKS, SEEDED, Installation, Look, Watch, axe, shoot

SEARCH = "/board/search"
LIST = re.compile(r"/api/v1/logs\?")
REFUSED = r"status of 422"
HOSTILE = '<img src=x onerror="window.stolen=1"><script>window.stolen=1</script>\u202e\'"&lt;b&gt;'


def grid(page: Page) -> Locator:
    return page.get_by_role("grid", name="Records")


def box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Query")


def status(page: Page) -> Locator:
    return page.get_by_role("status")


def drawer(page: Page) -> Locator:
    return page.get_by_role("complementary", name=re.compile("^Record"))


def opened(page: Page, query: str = "") -> None:
    """Open the search, and wait until its records are counted."""
    page.goto(f"{SEARCH}{query}")
    expect(status(page)).to_contain_text("record")


def parameters(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_search_is_accessible_with_and_without_an_open_record(page: Page, look: Look) -> None:
    opened(page, "?q=actor.id:alice&range=24h")
    expect(page.get_by_role("img", name=re.compile("Timeline"))).to_be_visible()
    axe(page)
    shoot(page, f"search-{look}")
    grid(page).get_by_role("row").nth(1).get_by_role("gridcell").nth(1).click()
    expect(drawer(page).get_by_text("Matches")).to_be_visible()
    axe(page)
    shoot(page, f"search-record-{look}")


def test_colours_of_the_timeline_follow_the_scheme(page: Page) -> None:
    opened(page)
    page.get_by_role("button", name="Use dark colours").click()
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
    expect(page.get_by_role("img", name=re.compile("Timeline"))).to_be_visible()


def test_search_shows_all_records_in_the_order_of_their_time(page: Page) -> None:
    opened(page)
    expect(status(page)).to_have_text(f"{SEEDED} records")
    expect(grid(page)).to_have_attribute("aria-rowcount", str(SEEDED + 1))
    times = grid(page).locator("[data-column='0']").all_inner_texts()
    assert times == sorted(times, reverse=True)
    page.get_by_role("columnheader", name="Occurred").get_by_role("button").click()
    expect(page.get_by_role("columnheader", name="Occurred")).to_have_attribute("aria-sort", "ascending")
    assert parameters(page)["sort"] == "occurred_at"


def test_keys_move_open_filter_and_close(page: Page) -> None:
    opened(page)
    page.keyboard.press("/")
    expect(box(page)).to_be_focused()
    page.keyboard.press("Escape")
    for key in ("j", "j", "k", "ArrowDown", "j"):
        page.keyboard.press(key)
    selected = grid(page).locator("[aria-selected='true']")
    expect(selected).to_have_attribute("aria-rowindex", "4")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    actor = selected.locator("[data-column='2']").inner_text()
    page.keyboard.press("Enter")
    expect(drawer(page)).to_be_visible()
    first = parameters(page)["seq"]
    page.keyboard.press("]")
    expect(page).not_to_have_url(re.compile(f"seq={first}$"))
    page.keyboard.press("[")
    expect(page).to_have_url(re.compile(f"seq={first}$"))
    page.keyboard.press("Escape")
    expect(drawer(page)).to_have_count(0)
    page.keyboard.press("f")
    expect(box(page)).to_have_value(f"actor.id:{actor}")
    expect(status(page)).to_have_text(f"{SEEDED // 4} records")
    page.keyboard.press("j")
    page.keyboard.press("F")
    expect(box(page)).to_have_value(f"-actor.id:{actor}")
    expect(status(page)).to_have_text(f"{SEEDED - SEEDED // 4} records")
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keys")
    for text in ("Next record", "Write a query", "Only records with the value in focus", "Export this query"):
        expect(help_.get_by_text(text, exact=True)).to_be_visible()


@pytest.mark.parametrize(("key", "place"), [("l", "live"), ("e", "exports")])
def test_key_takes_the_query_to_another_screen(page: Page, key: str, place: str) -> None:
    opened(page, "?q=actor.id:alice")
    page.keyboard.press(key)
    expect(page).to_have_url(re.compile(f"/board/{place}\\?.*q=actor.id%3Aalice"))


def test_facet_includes_excludes_and_is_taken_back(page: Page) -> None:
    opened(page)
    facets = page.get_by_role("region", name="Facets")
    denied = facets.get_by_role("button", name=re.compile("^denied"))
    denied.click()
    expect(box(page)).to_have_value("outcome:denied")
    expect(status(page)).to_have_text(f"{SEEDED // 6} records")
    denied.click()
    expect(box(page)).to_have_value("")
    expect(facets.get_by_role("button", name=re.compile("^denied"))).to_be_visible()
    denied.focus()
    page.keyboard.press("F")
    expect(box(page)).to_have_value("-outcome:denied")
    expect(status(page)).to_have_text(f"{SEEDED - SEEDED // 6} records")
    facets.get_by_role("button", name="Do not exclude denied").click()
    expect(status(page)).to_have_text(f"{SEEDED} records")


def test_chip_is_turned_and_removed(page: Page) -> None:
    opened(page, "?q=actor.id:alice%20outcome:denied")
    chips = page.get_by_role("list", name="Conditions")
    chips.get_by_role("button", name="outcome:denied", exact=True).click()
    expect(box(page)).to_have_value("actor.id:alice -outcome:denied")
    chips.get_by_role("button", name="Remove -outcome:denied").click()
    expect(box(page)).to_have_value("actor.id:alice")


def test_query_box_completes_names_values_and_choices(page: Page) -> None:
    opened(page)
    box(page).press_sequentially("outc")
    expect(page.get_by_role("option").first).to_contain_text("outcome")
    page.keyboard.press("Tab")
    expect(box(page)).to_have_value("outcome:")
    page.keyboard.type("fail")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(box(page)).to_have_value("outcome:failure ")
    page.keyboard.type("actor.id:")
    expect(page.get_by_role("option", name=re.compile("alice"))).to_contain_text(str(SEEDED // 4))
    page.keyboard.type("dav")
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(box(page)).to_have_value("outcome:failure actor.id:dave ")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("q="))
    assert parameters(page)["q"] == "outcome:failure actor.id:dave"


def test_recent_query_is_offered_again(page: Page) -> None:
    opened(page)
    for query in ("actor.id:alice", "actor.id:bob"):
        box(page).fill(query)
        page.keyboard.press("Enter")
        expect(status(page)).to_have_text(f"{SEEDED // 4} records")
    box(page).fill("")
    page.get_by_role("option", name=re.compile("actor.id:alice")).click()
    assert parameters(page)["q"] == "actor.id:alice"


def test_refused_query_is_marked_at_the_character_and_mended_by_one_click(page: Page, watch: Watch) -> None:
    watch.allow(REFUSED)
    opened(page)
    box(page).fill("\U0001d4b3ray actor_idd:alice outcome:denied")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("There is no field 'actor_idd'")
    expect(box(page)).to_have_attribute("aria-invalid", "true")
    assert "".join(page.locator("[data-fault]").all_inner_texts()) == "actor_idd"
    axe(page)
    box(page).fill("actor_idd:alice outcome:denied")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Did you mean actor.id?").click()
    expect(box(page)).to_have_value("actor.id:alice outcome:denied")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_words_are_marked_where_they_stand(page: Page) -> None:
    opened(page, "?q=tea%20role*&columns=action,metadata.team")
    expect(grid(page).locator("mark").filter(has_text="tea").first).to_be_visible()
    expect(grid(page).locator("mark").filter(has_text="role").first).to_be_visible()
    opened(page, "?q=action:role.update")
    expect(grid(page).locator("mark")).to_have_count(0)


def test_record_says_what_happened_and_what_changed(page: Page) -> None:
    opened(page, "?q=action:role.update%20actor.id:dave")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    text = drawer(page)
    expect(text).to_contain_text(re.compile(r"Dave updated role The role \d from 192\.0\.2\.\d+: allowed"))
    expect(text.get_by_role("table", name="Before and after").get_by_role("row", name="role viewer editor")).to_be_visible()
    expect(text.get_by_text("Matches")).to_be_visible()
    text.get_by_role("button", name="Show JSON").click()
    raw = json.loads(text.get_by_label("Raw JSON").inner_text())
    assert raw["after"] == {"role": "editor"}
    assert str(raw["seq"]) == parameters(page)["seq"]
    text.get_by_role("button", name="Without metadata.number").click()
    expect(box(page)).to_have_value(re.compile(r"-metadata\.number:\d+$"))


def test_link_to_a_record_opens_it_alone(page: Page) -> None:
    page.goto(f"{SEARCH}?seq=3&range=15m")
    expect(drawer(page).get_by_role("heading", name="Record 3")).to_be_visible()
    expect(drawer(page)).to_contain_text("Dave updated role")


def test_every_view_has_an_address_and_back_returns(page: Page) -> None:
    opened(page)
    box(page).fill("actor.id:alice")
    page.keyboard.press("Enter")
    expect(status(page)).to_have_text(f"{SEEDED // 4} records")
    page.get_by_role("button", name=re.compile("^Time range")).click()
    page.get_by_role("button", name="Last 24 hours").click()
    expect(page).to_have_url(re.compile("range=24h"))
    page.go_back()
    expect(page).not_to_have_url(re.compile("range="))
    page.go_back()
    expect(box(page)).to_have_value("")
    page.go_forward()
    expect(box(page)).to_have_value("actor.id:alice")


def test_range_between_two_times_of_a_zone(page: Page, installation: Installation) -> None:
    opened(page)
    start = installation.now - timedelta(minutes=60)
    page.get_by_role("button", name=re.compile("^Time range")).click()
    page.get_by_label("From", exact=True).fill(start.strftime("%Y-%m-%dT%H:%M:%S"))
    page.get_by_role("button", name="Use these times").click()
    expect(status(page)).to_have_text("20 records")
    assert parameters(page)["range"] == f"{start:%Y-%m-%dT%H:%M:%S.000Z}.."


def test_dragging_over_the_timeline_zooms_and_a_key_goes_back(page: Page) -> None:
    opened(page, "?range=24h")
    chart = page.get_by_role("img", name=re.compile("Timeline"))
    expect(chart).to_have_attribute("aria-label", re.compile(rf"{SEEDED} records, {SEEDED // 3} failed or denied"))
    place = chart.locator(".u-over").bounding_box()
    assert place is not None
    middle = place["y"] + place["height"] / 2
    page.mouse.move(place["x"] + place["width"] * 0.75, middle)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] * 0.9, middle, steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"range=2\d\d\d-"))
    expect(status(page)).not_to_have_text(f"{SEEDED} records")
    page.keyboard.press("z")
    expect(page).to_have_url(re.compile("range=24h"))
    expect(status(page)).to_have_text(f"{SEEDED} records")
    page.get_by_role("button", name="Show the timeline as a table").click()
    rows = page.get_by_role("region", name="Records by time").get_by_role("row")
    assert sum(int(row.get_by_role("cell").nth(1).inner_text()) for row in rows.all()[1:]) == SEEDED
    rows.nth(1).get_by_role("button").click()
    expect(page).to_have_url(re.compile(r"range=2\d\d\d-"))


def test_columns_are_chosen_and_kept(page: Page) -> None:
    opened(page)
    page.get_by_role("button", name="Columns").click()
    page.get_by_role("checkbox", name="Severity").check()
    page.get_by_role("checkbox", name="From").uncheck()
    page.get_by_label("Leaf of metadata, before or after").fill("metadata.team")
    page.get_by_role("button", name="Add").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("columnheader", name="metadata.team")).to_be_visible()
    expect(page.get_by_role("columnheader", name="Severity")).to_be_visible()
    opened(page)
    expect(page.get_by_role("columnheader", name="metadata.team")).to_be_visible()
    expect(page.get_by_role("columnheader", name="From")).to_have_count(0)


def test_search_without_hits_names_the_condition_that_excludes(page: Page) -> None:
    page.goto(f"{SEARCH}?q=actor.id:alice%20outcome:unknown")
    expect(page.get_by_role("heading", name="No record matches")).to_be_visible()
    expect(page.get_by_text(f"{SEEDED // 4} records match without outcome:unknown")).to_be_visible()
    axe(page)
    page.get_by_role("button", name="Remove it").click()
    expect(status(page)).to_have_text(f"{SEEDED // 4} records")


def test_search_outside_of_the_range_says_where_records_are(page: Page) -> None:
    page.goto(f"{SEARCH}?range=..2020-01-01T00:00:00Z")
    page.get_by_role("button", name="Search all time").click()
    expect(status(page)).to_contain_text("records")


@pytest.mark.parametrize("who", [(("globex", "admin"),)], ids=["globex"])
def test_empty_log_has_a_command_without_a_key_and_shows_the_first_record(page: Page, installation: Installation) -> None:
    page.goto(SEARCH)
    expect(page.get_by_role("heading", name="The log of globex is empty")).to_be_visible()
    expect(page.get_by_text(f"curl {installation.url}/api/v1/logs")).to_be_visible()
    assert "dlk_" not in page.content()
    axe(page)
    installation.append({"action": "user.login", "actor": {"id": "erin"}}, tenant="globex")
    expect(grid(page)).to_contain_text("erin")


@pytest.mark.parametrize("who", [(("acme", "writer"),)], ids=["writer"])
def test_identity_without_the_right_to_read_has_no_search(page: Page, watch: Watch) -> None:
    watch.allow("status of 403")
    page.goto(SEARCH)
    expect(page.get_by_role("navigation", name="Screens")).to_be_visible()
    expect(page.get_by_role("link", name="Search")).to_have_count(0)
    expect(page).not_to_have_url(re.compile("/board/search"))


def _refuse(code: str, status_: int, detail: str) -> dict[str, Any]:
    problem = {"type": "about:blank", "title": code, "status": status_, "code": code, "detail": detail, "instance": "-"}
    return {"status": status_, "content_type": "application/problem+json", "body": json.dumps(problem)}


def test_search_that_takes_too_long_offers_a_shorter_range(page: Page, watch: Watch) -> None:
    watch.allow("status of 503")
    refused = _refuse("search-unavailable", 503, "The search took too long.")
    page.route(LIST, lambda route: route.fulfill(**refused) if "from=" not in route.request.url else route.continue_())
    page.goto(f"{SEARCH}?range=all")
    page.get_by_role("button", name="Search last 30 days instead").click()
    expect(status(page)).to_have_text(f"{SEEDED} records")


@pytest.mark.parametrize(
    ("code", "number", "advice"),
    [("tenant-suspended", 403, "The tenant's records are kept"), ("forbidden", 403, "Your role does not include this")],
)
def test_refusal_says_what_helps(page: Page, watch: Watch, code: str, number: int, advice: str) -> None:
    watch.allow("status of 403")
    page.route(LIST, lambda route: route.fulfill(**_refuse(code, number, "Refused.")))
    page.goto(SEARCH)
    expect(page.get_by_role("alert")).to_contain_text(advice)
    axe(page)


def test_lost_connection_is_said_and_tried_again(page: Page, watch: Watch) -> None:
    watch.allow("Failed to load resource")
    opened(page)
    page.route(re.compile("/api/"), lambda route: route.abort())
    page.keyboard.press("r")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect(status(page)).to_contain_text("records")


def test_new_records_are_announced_and_shown_on_request(page: Page, installation: Installation) -> None:
    page.clock.install()
    opened(page, "?q=actor.id:newcomer&range=all")
    installation.append({"action": "user.login", "actor": {"id": "newcomer"}})
    page.keyboard.press("r")
    expect(status(page)).to_have_text("1 record")
    installation.append({"action": "user.logout", "actor": {"id": "newcomer"}})
    page.clock.fast_forward(31_000)
    page.get_by_role("button", name="1 new").click()
    expect(status(page)).to_have_text("2 records")


def test_texts_of_a_record_are_inert_wherever_they_are_shown(page: Page, installation: Installation) -> None:
    leaf = {"metadata": {HOSTILE: HOSTILE, "list": [{"x": HOSTILE}]}, "before": {HOSTILE: HOSTILE}, "after": HOSTILE}
    installation.append(
        {
            "action": HOSTILE[:200],
            "actor": {"id": HOSTILE, "name": HOSTILE, "type": HOSTILE[:200]},
            "resource": {"type": HOSTILE[:200], "id": HOSTILE, "name": HOSTILE},
            "related": [{"type": HOSTILE[:200], "id": HOSTILE, "name": HOSTILE}],
            "message": HOSTILE,
            "source": {"ip": HOSTILE, "user_agent": HOSTILE},
            "session_id": HOSTILE,
            "correlation_id": HOSTILE,
            **leaf,
        }
    )
    columns = "actor.id,action,resource.type,resource.id,source.ip,message,session_id,correlation_id,metadata.list"
    opened(page, f"?q=onerror&columns={columns}")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(drawer(page)).to_contain_text(HOSTILE)
    drawer(page).get_by_role("button", name="Show JSON").click()
    box(page).fill(HOSTILE)
    assert page.evaluate("window.stolen") is None
    assert page.locator("img[src='x']").count() == 0
    drawer(page).get_by_role("link", name="This actor").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
    assert page.evaluate("window.stolen") is None
    assert page.locator("img[src='x']").count() == 0


PAGE_ROWS = 1000


def _generated(route: Route, rows: int) -> None:
    """Answer a list with the next of `rows` records."""
    cursor = int(parse_qs(urlsplit(route.request.url).query).get("cursor", ["0"])[0])
    items = [
        {
            "tenant": "acme", "log": "events", "epoch": 1, "seq": number, "received_at": "2026-01-01T00:00:00Z",
            "digest": "sha256:0", "action": f"document.action-{number % 40}", "actor": {"id": f"actor-{number % 900}"},
            "occurred_at": f"2026-01-01T{number % 24:02}:{number % 60:02}:00Z", "severity": "INFO",
            "outcome": "denied" if number % 9 == 0 else "success", "resource": {"type": "document", "id": f"d-{number}"},
            "source": {"ip": f"192.0.2.{number % 250}"}, "metadata": {"number": number},
        }
        for number in range(cursor, min(cursor + PAGE_ROWS, rows))
    ]  # fmt: skip
    end = cursor + PAGE_ROWS
    answer = {"head": rows, "indexed_from": 0, "indexed": rows, "engine": "postgres", "items": items}
    route.fulfill(json={**answer, "next": str(end) if end < rows else None})


SCROLL = """async () => {
    const grid = document.querySelector('[role=grid]');
    const frames = [];
    let before = 0;
    const frame = now => { if (before) frames.push(now - before); before = now; };
    for (let step = 0; step < 240; step += 1) {
        grid.scrollTop += 900;
        await new Promise(resolve => requestAnimationFrame(now => { frame(now); resolve(); }));
    }
    frames.sort((one, other) => one - other);
    return {
        frames: frames.length, median: frames[Math.floor(frames.length / 2)], late: frames.filter(each => each > 50).length,
        drawn: grid.querySelectorAll('[data-index]').length,
    };
}"""


@pytest.mark.parametrize("rows", [20_000, pytest.param(100_000, marks=pytest.mark.endurance)])
def test_long_list_scrolls_with_few_rows_in_the_page(page: Page, rows: int) -> None:
    """Frames are bounded loosely, as the machine of a test is slower than that of a person, and shared."""
    page.route(LIST, lambda route: _generated(route, rows))
    opened(page, "?range=all")
    while int(grid(page).evaluate("grid => Math.round(grid.scrollHeight / 30)")) < rows:
        before = grid(page).evaluate("grid => grid.scrollHeight")
        grid(page).evaluate("grid => grid.scrollTo({top: grid.scrollHeight})")
        page.wait_for_function("before => document.querySelector('[role=grid]').scrollHeight > before", arg=before)
    grid(page).evaluate("grid => grid.scrollTo({top: grid.scrollHeight})")
    expect(grid(page)).to_contain_text(f"d-{rows - 1}")
    grid(page).evaluate("grid => grid.scrollTo({top: 0})")
    measured = page.evaluate(SCROLL)
    assert measured["drawn"] < 100, measured
    assert measured["late"] < measured["frames"] / 2, measured
