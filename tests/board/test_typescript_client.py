"""The TypeScript client in a browser: it sends and reads from a page of the API's own origin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route

from tests.support.board import ROOT, Installation, missing

CLIENT = ROOT / "clients/typescript"
TOOLS = ROOT / "board/node_modules/.bin"
USE = """
async ([url, key]) => {
  const { Decklog } = await import("/client/index.js");
  const client = new Decklog({ url, key });
  const { seq } = await client.append({ action: "page.open", actor: { id: "browser" } });
  await client.record({ action: "page.close", actor: { id: "browser" } });
  await client.close();
  const found = [];
  for await (const { record } of client.tail({ actor: "browser", after: "-1" })) {
    found.push([record.seq - seq, record.action]);
    if (found.length === 2) break;
  }
  for await (const record of client.search({ q: "page", sort: "received_at" })) found.push(record.action);
  for await (const record of client.export({ actor: "browser" })) found.push(record.action);
  return found;
}
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules of the package. `tests/senders` checks their types."""
    if not (TOOLS / "tsc").exists():
        missing("the packages of the board are not installed: `make test` installs them")
    folder = tmp_path_factory.mktemp("client")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(
        [TOOLS / "tsc", "-p", CLIENT, "--noCheck", "--declaration", "false", "--outDir", folder], env=environment, check=True
    )
    return folder


def test_client_sends_and_reads_in_a_browser(guest: Page, installation: Installation, modules: Path) -> None:
    def serve(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        if name == "page":
            route.fulfill(body="<!doctype html><title>A page</title>", content_type="text/html")
        else:
            route.fulfill(path=modules / name, content_type="text/javascript")

    guest.route("**/client/*", serve)
    guest.goto("/client/page")
    found = guest.evaluate(USE, [installation.url, installation.key("acme", "admin")])
    both = ["page.open", "page.close"]
    assert found == [[0, both[0]], [1, both[1]], *both, *both]
