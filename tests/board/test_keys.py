"""The screen of API keys: make one, use it, revoke it."""

from __future__ import annotations

import shlex
import subprocess
import time

import httpx
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.support.board import LOOKS, Installation, Look, Watch, axe, shoot


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("table", name="API keys").get_by_role("row").filter(has_text=name)


def make(page: Page, name: str, role: str = "Writer") -> str:
    """Make a key by the keyboard and return it; the dialog that shows it stays open."""
    expect(page.get_by_role("table", name="API keys")).to_be_visible()
    page.keyboard.press("n")
    dialog = page.get_by_role("dialog", name="New key")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("radio", name=role).check()
    page.keyboard.press("Enter")
    shown = page.get_by_role("dialog", name=f"The key {name}")
    expect(shown.get_by_label("Key", exact=True)).to_be_visible()
    return shown.get_by_label("Key", exact=True).input_value()


def close(page: Page) -> None:
    page.get_by_role("button", name="I have stored the key").click()


@pytest.mark.parametrize("look", LOOKS[::3], ids=str)
def test_keys_are_listed_with_role_source_and_last_use(page: Page, look: Look) -> None:
    page.goto("/board/keys")
    provisioned = row(page, "Key of the manifest")
    expect(provisioned).to_have_count(3)
    expect(provisioned.filter(has_text="you are signed in with it")).to_contain_text("admin")
    expect(provisioned.filter(has_text="auditor")).to_contain_text("Provisioning")
    expect(provisioned.get_by_role("button")).to_have_count(0)
    axe(page)
    shoot(page, f"keys-{look}")


@pytest.mark.parametrize("who", [(("minimal", "admin"),)], ids=["minimal"])
def test_new_key_is_shown_once_with_a_command_that_works(page: Page, installation: Installation) -> None:
    page.goto("/board/keys")
    key = make(page, "Billing <b>service")
    axe(page)
    shoot(page, "key-shown")
    command = page.get_by_role("dialog").locator("pre").inner_text()
    done = subprocess.run(
        ["bash", "-c", f"{command} -o /dev/null -w '%{{http_code}}'"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "201"
    assert shlex.split(command)[0] == "curl"
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_visible()
    close(page)
    assert key not in page.content()
    page.reload()
    expect(row(page, "Billing <b>service")).to_contain_text("In force")
    assert key not in page.content()


def test_key_of_an_auditor_shows_a_command_that_reads(page: Page) -> None:
    page.goto("/board/keys")
    make(page, "Night audit", "Auditor")
    command = page.get_by_role("dialog").locator("pre").inner_text()
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert '"items":' in done.stdout


def test_revoked_key_is_refused_and_listed_among_ended_ones(page: Page, installation: Installation) -> None:
    page.goto("/board/keys")
    key = make(page, "Short lived")
    close(page)
    page.get_by_role("button", name="Revoke Short lived").click()
    dialog = page.get_by_role("dialog", name="Revoke Short lived?")
    expect(dialog).to_contain_text("within two seconds")
    axe(page)
    dialog.get_by_role("button", name="Revoke").click()
    expect(row(page, "Short lived")).to_have_count(0)
    page.get_by_role("switch", name="Ended keys too").check()
    expect(row(page, "Short lived")).to_contain_text("Revoked")
    deadline = time.monotonic() + 10
    while (answer := httpx.get(f"{installation.url}/api/v1/whoami", headers={"Authorization": f"Bearer {key}"})).is_success:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert answer.status_code == 401


def test_key_of_the_session_is_revoked_only_after_its_name_is_typed(
    page: Page, visitor: BrowserContext, watch: Watch, installation: Installation
) -> None:
    watch.allow(r"status of 401")
    page.goto("/board/keys")
    key = make(page, "Own access", "Admin")
    close(page)
    visitor.clear_cookies()
    answer = visitor.request.post("/api/v1/sessions", headers={"Authorization": f"Bearer {key}"}, data={})
    assert answer.status == 201
    page.goto("/board/keys")
    page.get_by_role("button", name="Revoke Own access").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("You are signed in with this key.")
    button = dialog.get_by_role("button", name="Revoke")
    expect(button).to_be_disabled()
    dialog.get_by_role("textbox").fill("Own")
    expect(button).to_be_disabled()
    dialog.get_by_role("textbox").fill("Own access")
    axe(page)
    button.click()
    expect(dialog).to_have_count(0)


@pytest.mark.parametrize("who", [(("acme", "auditor"),)], ids=["auditor"])
def test_auditor_has_no_screen_of_keys(page: Page) -> None:
    page.goto("/board/keys")
    expect(page.get_by_role("heading", level=1, name="Search")).to_be_visible()
    expect(page.get_by_role("navigation", name="Screens").get_by_role("link", name="Keys")).to_have_count(0)


def test_refused_key_stays_in_the_form_with_the_reason(page: Page, watch: Watch) -> None:
    watch.allow(r"status of 409")
    page.goto("/board/keys")
    page.route(
        "**/api/v1/keys",
        lambda route: route.fallback() if route.request.method == "GET" else route.fulfill(
            status=409, content_type="application/problem+json",
            body='{"code": "conflict", "title": "Conflict", "detail": "The tenant has 100 keys in force."}',
        ),
    )  # fmt: skip
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog", name="New key")
    dialog.get_by_label("Name").fill("One too many")
    dialog.get_by_role("button", name="Make the key").click()
    expect(dialog.get_by_role("alert")).to_contain_text("The tenant has 100 keys in force.")
    expect(dialog.get_by_label("Name")).to_have_value("One too many")
