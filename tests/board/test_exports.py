"""Exports in a browser: the file has the bytes of the API, also after the connection broke."""

from __future__ import annotations

import gzip
import secrets
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.board.conftest import Who
from tests.support.board import LOOKS, Installation, Look, Watch, axe, shoot
from tests.support.relay import Relay

TENANT = "minimal"
IN_MEMORY = "delete window.showSaveFilePicker"
"""No test can answer the browser's question where to write; without the question the browser downloads."""


@pytest.fixture
def who() -> Who:
    return ((TENANT, "admin"),)


@pytest.fixture
def origin(relay: Relay) -> str:
    return f"http://127.0.0.1:{relay.port}"


@pytest.fixture
def visitor(visitor: BrowserContext) -> BrowserContext:
    visitor.add_init_script(IN_MEMORY)
    return visitor


def by_api(installation: Installation, **parameters: str) -> bytes:
    with installation.dev.client(TENANT, "auditor") as client:
        return client.get("/api/v1/logs/export", params=parameters).raise_for_status().content


def exported(page: Page) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("button", name="Export", exact=True).click()
    return Path(download.value.path()).read_bytes()


def events(text: str, count: int, pad: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "action": "export.me",
            "actor": {"id": text},
            "message": f'=1+1; "{number}"\n é',
            "metadata": {"pad": secrets.token_hex(pad)},
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("name", ["NDJSON", "JSON", "CSV"])
def test_file_has_the_bytes_of_the_api(page: Page, installation: Installation, name: str) -> None:
    installation.append(*events(f"bytes-{name}", 30), tenant=TENANT)
    page.goto(f"/board/exports?q=actor.id:bytes-{name}")
    page.get_by_role("radiogroup", name="Format").get_by_text(name, exact=True).click()
    assert exported(page) == by_api(installation, q=f"actor.id:bytes-{name}", format=name.lower())
    expect(page.get_by_text("30 of 30 records")).to_be_visible()


def test_chosen_fields_byte_order_mark_and_gzip(page: Page, installation: Installation) -> None:
    installation.append(*events("fields", 5), tenant=TENANT)
    page.goto("/board/exports?q=actor.id:fields&format=csv&fields=seq,action,message")
    page.get_by_label("Byte order mark").check()
    page.get_by_label("gzip").check()
    expected = by_api(installation, q="actor.id:fields", format="csv", fields="seq,action,message", bom="true")
    assert gzip.decompress(exported(page)) == expected


def test_export_that_breaks_continues_to_the_same_bytes(
    page: Page, installation: Installation, relay: Relay, watch: Watch
) -> None:
    watch.allow("ERR_")
    installation.append(*events("cut", 120, pad=20_000), tenant=TENANT)
    expected = by_api(installation, q="actor.id:cut", format="ndjson")
    page.goto("/board/exports?q=actor.id:cut")
    relay.seconds_late = 0.05
    with page.expect_download() as download:
        page.get_by_role("button", name="Export", exact=True).click()
        expect(page.get_by_text("of 120 records")).to_be_visible()
        relay.cut()
        expect(page.get_by_text("The connection broke.").first).to_be_visible()
        installation.append(*events("cut", 3), tenant=TENANT)
        relay.seconds_late = 0
        relay.mend()
    assert Path(download.value.path()).read_bytes() == expected
    expect(page.get_by_text("nothing missed")).to_be_visible()


def test_cancelled_export_keeps_no_file(page: Page, installation: Installation, relay: Relay) -> None:
    installation.append(*events("cancel", 60, pad=20_000), tenant=TENANT)
    downloads: list[str] = []
    page.on("download", lambda each: downloads.append(each.suggested_filename))
    page.goto("/board/exports?q=actor.id:cancel")
    relay.seconds_late = 0.05
    page.get_by_role("button", name="Export", exact=True).click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled. No file was kept.")).to_be_visible()
    assert downloads == []


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_history_tells_of_every_export_of_the_tenant(page: Page, installation: Installation, look: Look) -> None:
    by_api(installation, q=f"actor.id:history-{look}")
    page.goto("/board/exports")
    row = page.get_by_role("row").filter(has_text=f"history-{look}").first
    expect(row).to_contain_text("as NDJSON: 0 records")
    axe(page)
    shoot(page, f"exports-{look}")
    row.get_by_role("link", name="Use again").click()
    expect(page.get_by_label("Query")).to_have_value(f"actor.id:history-{look}")
