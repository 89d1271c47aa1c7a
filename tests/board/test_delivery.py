"""The board as it is delivered: its policy in a real browser, its size, and its places."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from decklog.api.routes.board import CODINGS, MEDIA_TYPES
from tests.support.board import LOOKS, Installation, Look, Watch, axe, shoot

FIRST_LOAD_BYTES_MAX = 300 * 1024
NOT_SIGNED_IN = r"status of 401.*/api/v1/session\b"


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_sign_in_page_obeys_the_policy_and_is_accessible(guest: Page, watch: Watch, look: Look) -> None:
    watch.allow(NOT_SIGNED_IN)
    guest.goto("/board")
    expect(guest.get_by_role("heading", level=1)).to_be_visible()
    axe(guest)
    shoot(guest, f"sign-in-{look}")


@pytest.mark.parametrize("who", [(("acme", "admin"),), (("acme", "auditor"),), (("platform", "platform"),)], ids=str)
def test_every_screen_of_a_role_obeys_the_policy(page: Page, who: object) -> None:
    """The fixture `watch` fails on a violation. A screen has one heading of the first level, and its address is its own."""
    page.goto("/board")
    navigation = page.get_by_role("navigation")
    expect(navigation.get_by_role("link").first).to_be_visible()
    places = [link.get_attribute("href") or "" for link in navigation.get_by_role("link").all()]
    assert places
    for place in places:
        page.goto(place)
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        assert page.url.partition("?")[0].endswith(place)


@pytest.mark.parametrize("place", ["/board/search", "/board/live?q=alice", "/board/none/17"])
def test_every_place_of_the_board_can_be_opened_directly(guest: Page, watch: Watch, place: str) -> None:
    watch.allow(NOT_SIGNED_IN)
    answer = guest.goto(place)
    assert answer is not None
    assert answer.status == 200
    expect(guest.get_by_role("heading", level=1)).to_be_visible()
    assert guest.url.endswith(place)


def test_policy_stops_what_a_record_could_bring(guest: Page, watch: Watch) -> None:
    """Inline scripts and styles, other hosts, text as code: each is refused by the browser, and logged."""
    watch.allow(NOT_SIGNED_IN)
    guest.goto("/board")
    watch.allow("Content Security Policy|TrustedHTML|TrustedScript|ERR_BLOCKED|violates the following|Refused to")
    done = guest.evaluate("""async () => {
        const done = [];
        const script = document.createElement('script');
        script.append('window.inline = 1');
        try { document.head.append(script); } catch { }
        if (window.inline) done.push('an inline script ran');
        try { document.body.innerHTML += '<img src=x onerror="window.handled = 1">'; done.push('text became HTML'); } catch { }
        try { await fetch('http://192.0.2.1/'); done.push('another host was asked'); } catch { }
        const style = document.createElement('style');
        style.textContent = 'body { display: none }';
        document.head.append(style);
        if (getComputedStyle(document.body).display === 'none') done.push('an inline style applied');
        // In a task of its own, as the browser lets this script of the test evaluate text.
        await new Promise(resolve => setTimeout(() => {
            try { eval('window.evaluated = 1'); } catch { }
            resolve();
        }));
        return window.handled || window.evaluated ? [...done, 'code ran'] : done;
    }""")
    assert done == []
    watch.faults[:] = [fault for fault in watch.faults if "192.0.2.1" not in fault]  # asked, and stopped before it left


class _Framing(BaseHTTPRequestHandler):
    """A page of another origin that shows an address in a frame."""

    def __init__(self, framed: str, *given: Any) -> None:
        self._framed = framed
        super().__init__(*given)

    def do_GET(self) -> None:
        body = f'<!doctype html><iframe src="{self._framed}"></iframe>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def framing(installation: Installation) -> Iterator[str]:
    """The address of a foreign page with the board in a frame."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Framing, f"{installation.url}/board/search"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_page_of_another_origin_cannot_frame_the_board(visitor: BrowserContext, framing: str) -> None:
    page = visitor.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(framing, wait_until="load")
    [framed] = page.frames[1:]
    assert framed.url == "chrome-error://chromewebdata/"
    assert any("frame-ancestors" in text for text in refused), refused


def test_second_visit_takes_scripts_from_the_cache(guest: Page, watch: Watch) -> None:
    watch.allow(NOT_SIGNED_IN)
    sizes = "performance.getEntriesByType('resource').filter(e => e.name.includes('/assets/')).map(e => [e.name, e.transferSize])"
    for visit in range(2):
        guest.goto("/board", wait_until="networkidle")
        loaded: list[tuple[str, int]] = guest.evaluate(sizes)
        assert loaded
        assert all(size == 0 for _, size in loaded) is (visit == 1), loaded


def _compressed(built: Path, name: str) -> int:
    """Return the bytes of a file as gzip sends it."""
    compressed = built / f"{name}.gz"
    return (compressed if compressed.exists() else built / name).stat().st_size


def _needed(manifest: dict[str, Any], name: str, found: set[str]) -> set[str]:
    """Return the files that a chunk needs before it runs: itself, what it imports, their styles and pictures."""
    chunk = manifest[name]
    new = {chunk["file"], *chunk.get("css", ()), *chunk.get("assets", ())}
    if chunk["file"] not in found:
        found |= new
        for each in chunk.get("imports", ()):
            _needed(manifest, each, found)
    return found


def test_first_load_of_every_screen_keeps_to_its_budget(built: Path) -> None:
    """By gzip, the largest of the three codings: the page, the entry, one screen, and what that screen loads later."""
    manifest = json.loads((built / ".vite/manifest.json").read_text())
    entry = manifest["index.html"]
    assert entry["dynamicImports"]
    sizes = {}
    for screen in entry["dynamicImports"]:
        needed = _needed(manifest, screen, _needed(manifest, "index.html", {"index.html"}))
        for later in manifest[screen].get("dynamicImports", ()):
            _needed(manifest, later, needed)
        sizes[screen] = sum(_compressed(built, name) for name in needed)
    assert {screen: size for screen, size in sizes.items() if size > FIRST_LOAD_BYTES_MAX} == {}


def test_build_has_only_known_media_types_and_compresses_every_large_text(built: Path) -> None:
    files = [path for path in built.rglob("*") if path.is_file() and ".vite" not in path.parts]
    plain = [path for path in files if path.suffix not in CODINGS.values()]
    assert {path.suffix for path in plain} <= MEDIA_TYPES.keys()
    for path in plain:
        if path.suffix in (".js", ".css") and path.stat().st_size >= 1024:
            assert all(path.with_name(path.name + suffix).exists() for suffix in CODINGS.values()), path


def test_page_of_the_build_loads_only_its_own_files(built: Path) -> None:
    text = (built / "index.html").read_text()
    assert "<style" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert text.count("<script") == text.count('<script type="module" crossorigin src="/board/assets/')
