"""The first minute of a new user: `make run` in a fresh folder, the printed link, the story, and a record from curl."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.board import ROOT, WAIT_MS, Look, Watch, axe, shoot

SECONDS_MAX = 60.0


@dataclass
class Clone:
    """A folder like a new clone in which `make run` runs, on a free port."""

    folder: Path

    @property
    def printed(self) -> str:
        return (self.folder / "log").read_text()

    def line(self, beginning: str) -> str:
        """Return the rest of a printed line, once it is there."""
        deadline = time.monotonic() + SECONDS_MAX
        while not (found := re.search(rf"^{re.escape(beginning)}.*$", self.printed, re.MULTILINE)):
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.05)
        return found[0].removeprefix(beginning).strip()


def command() -> list[str]:
    """Return the command of `make run`, on a free port."""
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^run:.*\n\t(.+)$", makefile, re.MULTILINE)
    assert recipe
    words = shlex.split(recipe[1].replace("$(BIN)", ".venv/bin"))
    words[words.index("--port") + 1] = "0"
    return words


@pytest.fixture(scope="module")
def clone(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    made = Clone(tmp_path_factory.mktemp("first-minute"))
    for name in (".venv", "manifests"):
        (made.folder / name).symlink_to(ROOT / name)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
    with (made.folder / "log").open("w") as log:
        process = subprocess.Popen(command(), cwd=made.folder, env=environment, stdout=log, stderr=log)
    yield made
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0, made.printed


def test_first_minute_goes_from_the_printed_link_to_a_live_record(clone: Clone, browser: Browser) -> None:
    link = clone.line("Board (this link works once, for 10 minutes):")
    watch = Watch(link.partition("/board")[0])
    context = browser.new_context(**Look("desktop", "light").options)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    watch.attach(page)

    page.goto(link)
    expect(page.get_by_role("heading", level=1, name="Search")).to_be_visible()
    expect(page.get_by_role("combobox", name="Identity")).to_have_value("Marram Tea (demo) · admin")
    deadline = time.monotonic() + SECONDS_MAX
    while not json.loads((clone.folder / ".decklog/demo.json").read_bytes())["whole"]:
        assert time.monotonic() < deadline, clone.printed
        time.sleep(0.1)
    page.keyboard.press("r")
    table = page.get_by_role("grid", name="Records")
    expect(table.get_by_role("row").nth(10)).to_be_visible()
    axe(page)
    shoot(page, "first-minute-1-story")

    page.get_by_label("Query", exact=True).fill("severity:CRITICAL")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    expect(table.get_by_text("trail.delete")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    record = page.get_by_role("complementary", name=re.compile("^Record "))
    expect(record).to_contain_text("Jonas Lindqvist")
    shoot(page, "first-minute-2-record")

    record.get_by_role("button", name=re.compile(r"^Only \S+ 203\.0\.113\.66$")).focus()
    page.keyboard.press("f")
    expect(page).to_have_url(re.compile("203.0.113.66"))
    shoot(page, "first-minute-3-filter")

    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page.get_by_role("heading", level=1, name="Live")).to_be_visible()
    keys = json.loads((clone.folder / ".decklog/dev.json").read_text())
    body = json.dumps({"action": "kettle.boil", "actor": {"id": "new-user"}})
    curl = [
        "curl", "-sf", f"{keys['url']}/api/v1/logs", "-H", f"Authorization: Bearer {keys['tenants']['demo']['writer']}",
        "-H", "Content-Type: application/json", "-d", body,
    ]  # fmt: skip
    expect(page.get_by_text("Live", exact=True).first).to_be_visible()
    subprocess.run(curl, check=True, capture_output=True)
    expect(page.get_by_text("kettle.boil").first).to_be_visible()
    shoot(page, "first-minute-4-live")
    context.close()
    assert watch.faults == []
