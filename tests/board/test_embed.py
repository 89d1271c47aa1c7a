"""The embedded viewer in a browser: the element in a page of another origin, its frame, and what neither shows."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Frame, Page, expect

from tests.support.board import LOOKS, WAIT_MS, Installation, Look, axe, shoot

INSIDE, OUTSIDE = "c-embedded", "c-other"
TENANT = "minimal"
HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=2</script>"
RECORDS = 60
SCOPE = {
    "query": f"metadata.customer:{INSIDE}",
    "fields": ["occurred_at", "action", "actor.name", "resource.name", "outcome", "message"],
    "subject": "customer-1",
}
ELEMENT_BYTES_MAX, PAGE_BYTES_MAX = 2 * 1024, 10 * 1024


class _Host(BaseHTTPRequestHandler):
    """A product's page with the element."""

    def __init__(self, html: str, *given: Any) -> None:
        self._html = html
        super().__init__(*given)

    def do_GET(self) -> None:
        body = self._html.encode() if self.path == "/" else b""
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        # A strict host: nothing of its own page is inline but what the nonce names.
        self.send_header("Content-Security-Policy", "style-src 'none'; object-src 'none'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def html(url: str, token: str) -> str:
    return f"""<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Product</title><body><h1>Product</h1>
<decklog-viewer src="{url}" label="Audit log of the product"></decklog-viewer>
<script src="{url}/board/embed.js"></script>
<script>
  window.wanted = 0;
  const viewer = document.querySelector("decklog-viewer");
  viewer.style.setProperty("--decklog-radius", "9px");
  viewer.addEventListener("token-wanted", () => {{ window.wanted += 1; }});
  viewer.token = {json.dumps(token)};
</script>"""


Serve = Callable[..., str]


@pytest.fixture
def serve(installation: Installation) -> Iterator[Serve]:
    """A function that serves the product's page with a token at a host, and returns its address."""
    servers: list[ThreadingHTTPServer] = []

    def serving(token: str, host: str = "localhost", page: str = "") -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Host, page or html(installation.url, token)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://{host}:{server.server_port}/"

    yield serving
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def customers(installation: Installation) -> Installation:
    """The installation with records of two customers, those of one hostile."""
    made = [
        {
            "action": "invoice.paid" if number % 2 else "invoice.sent",
            "actor": {"id": f"secret-{number}", "name": "Ada"},
            "resource": {"type": "invoice", "id": f"i-{number}", "name": f"Invoice {number}"},
            "outcome": "success",
            "message": HOSTILE if number == RECORDS - 1 else f"Inside {number}",
            "metadata": {"customer": INSIDE, "price": "hidden-price"},
        }
        for number in range(RECORDS)
    ]
    other = {"action": "other.action", "actor": {"id": "mallory"}, "message": "Outside", "metadata": {"customer": OUTSIDE}}
    installation.append(*made[:-1], other, made[-1], other, tenant=TENANT)
    return installation


def minted(installation: Installation, **changes: Any) -> str:
    with installation.dev.client(TENANT, "auditor") as client:
        answer = client.post("/api/v1/viewer-tokens", json=SCOPE | changes)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])


def framed(page: Page) -> Frame:
    """The frame of the element, which is in a closed shadow root."""
    [frame] = page.frames[1:]
    return frame


def rows(frame: Frame) -> Any:
    return frame.get_by_role("list", name="Records").get_by_role("listitem")


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_element_shows_the_records_of_its_token_and_no_other(
    visitor: BrowserContext, customers: Installation, serve: Serve, look: Look
) -> None:
    token = minted(customers)
    page, asked, told = visitor.new_page(), list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    host = serve(token)
    page.goto(host)
    frame = framed(page)
    expect(rows(frame)).to_have_count(50)
    frame.get_by_role("button", name="Show more").click()
    expect(rows(frame)).to_have_count(RECORDS)
    rows(frame).first.get_by_role("button").click()
    drawer = frame.get_by_role("complementary", name="Details of a record")
    expect(drawer).to_contain_text(HOSTILE)
    assert "hidden-price" not in frame.content()
    axe(frame)
    shoot(page, f"embed-{look}")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    assert not any(text in frame.content() for text in ("Outside", "mallory", OUTSIDE, "secret-"))
    assert frame.evaluate("window.hacked") is None
    assert page.evaluate("window.hacked") is None
    assert frame.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--radius')") == "9px"
    assert {f"{url.scheme}://{url.netloc}" for url in map(urlsplit, asked)} == {host.rstrip("/"), customers.url}
    assert not any(token in url for url in asked)
    assert frame.url == f"{customers.url}/board/embed"
    assert told == []


def test_search_in_the_frame_stays_within_the_scope(visitor: BrowserContext, customers: Installation, serve: Serve) -> None:
    page = visitor.new_page()
    page.goto(serve(minted(customers)))
    frame = framed(page)
    expect(rows(frame)).to_have_count(50)
    search = frame.get_by_role("searchbox", name="Search")
    for query, notice in (
        ("Outside", "No records."),
        (f"metadata.customer:{OUTSIDE}", "does not show the field"),
        ("actor.id:secret-1", "does not show the field"),
        ("action:", "q:"),
    ):
        search.fill(query)
        search.press("Enter")
        expect(frame.get_by_role("status")).to_contain_text(notice)
        expect(rows(frame)).to_have_count(0)
    search.fill('"Inside 7"')
    search.press("Enter")
    expect(rows(frame)).to_have_count(1)
    search.fill("")
    frame.get_by_label("To").fill("2020-01-01T00:00")
    search.press("Enter")
    expect(frame.get_by_role("status")).to_contain_text("No records.")


def test_page_of_an_origin_that_is_not_configured_gets_nothing(
    visitor: BrowserContext, customers: Installation, serve: Serve
) -> None:
    page, told = visitor.new_page(), list[str]()
    page.on("console", lambda message: told.append(message.text))
    page.goto(serve(minted(customers), host="127.0.0.1"), wait_until="load")
    assert framed(page).url == "chrome-error://chromewebdata/"
    assert any("frame-ancestors" in text for text in told), told


def test_frame_asks_for_a_token_when_its_own_is_refused_and_shows_records_by_the_next(
    visitor: BrowserContext, customers: Installation, serve: Serve
) -> None:
    page = visitor.new_page()
    page.goto(serve("dlv_refused"))
    frame = framed(page)
    expect(frame.get_by_role("status")).to_contain_text("The credential is not valid")
    page.wait_for_function("window.wanted === 1")
    page.evaluate("token => { document.querySelector('decklog-viewer').token = token }", minted(customers))
    expect(rows(frame)).to_have_count(50)
    assert page.evaluate("document.querySelector('decklog-viewer').token") is None


FRAME = """<!doctype html><html lang="en"><title>Product</title><body>
<iframe src="{url}/board/embed" title="Audit log"></iframe>
<script>
  window.told = [];
  window.addEventListener("message", (event) => {{ window.told.push([event.origin, event.data.type]); }});
</script>"""


def test_plain_frame_listens_to_the_page_around_it_alone(visitor: BrowserContext, customers: Installation, serve: Serve) -> None:
    page = visitor.new_page()
    page.goto(serve("", page=FRAME.format(url=customers.url)))
    frame = framed(page)
    page.wait_for_function("window.told.length === 1")
    assert page.evaluate("window.told") == [[customers.url, "decklog:ready"]]
    show = {"type": "decklog:show", "token": minted(customers), "scheme": "dark", "style": {"accent": "url(https://x.example)"}}
    send = "([show, to]) => window.frames[0].postMessage(show, to)"
    frame.evaluate("show => window.postMessage(show, '*')", show)  # by the frame itself
    for message in ({**show, "token": 7}, {**show, "type": "other"}, None, "text"):
        page.evaluate(send, [message, customers.url])
    expect(frame.get_by_role("status")).to_contain_text("Waiting")
    page.evaluate(send, [show, customers.url])
    expect(rows(frame)).to_have_count(50)
    assert frame.evaluate("document.documentElement.dataset.scheme") == "dark"
    assert frame.evaluate("document.documentElement.style.length") == 0
    assert page.evaluate("window.told.length") == 1


def test_page_outside_of_a_frame_says_where_it_belongs(visitor: BrowserContext, installation: Installation) -> None:
    page = visitor.new_page()
    page.goto(f"{installation.url}/board/embed")
    expect(page.get_by_role("status")).to_contain_text("belongs into a frame", timeout=WAIT_MS)


def test_embedded_viewer_is_small(built: Path) -> None:
    manifest = json.loads((built / ".vite/manifest.json").read_text())
    page = manifest["embed.html"]
    assert not page.get("imports"), "it shares nothing with the board"
    assert sum((built / f"{name}.gz").stat().st_size for name in (page["file"], *page["css"])) < PAGE_BYTES_MAX
    assert (built / "embed.js.gz").stat().st_size < ELEMENT_BYTES_MAX
    assert "import" not in (built / "embed.js").read_text()
