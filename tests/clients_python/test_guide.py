"""Every example of the client's guide runs, with the libraries that it names."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decklog.domain.identity.access import Role
from tests.clients_python.test_sending import stored
from tests.docs.pages import ROOT
from tests.support.api_world import World

GUIDE = (ROOT / "docs/guides/client-python.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: ([a-z-]+) -->\n```python\n(.*?)```", GUIDE, re.DOTALL))
EXPECTED = {
    "start": ["order.approve"],
    "commit": ["key.delete"],
    "context": ["order.approve", "order.ship"],
    "action": ["user.delete"],
    "asyncio": ["order.approve"],
    "fastapi": ["order.approve", "http.request"],
    "litestar": ["order.approve"],
    "django": ["order.approve"],
    "logging": ["user.login"],
    "celery": ["report.send"],
    "sqlalchemy": ["user.insert", "user.update", "user.delete"],
    "testing": [],
    "statistics": ["order.approve"],
    "reading": ["order.approve"],
}
"""The actions that each example records."""


def test_guide_marks_each_of_its_examples() -> None:
    assert list(EXAMPLES) == list(EXPECTED)
    assert GUIDE.count("```python\n") == len(EXAMPLES)


PROGRAM = """
import runpy, sys
from decklog_client import client
for name in sys.argv[1:]:
    runpy.run_path(name, run_name="__main__")
    client.close_all()  # as at the end of the program that the example is
"""


def run(folder: Path, url: str, key: str) -> None:
    """Run the examples one after the other, in one process, as each would have to import its framework again."""
    for name, text in EXAMPLES.items():
        (folder / f"example_{name}.py").write_text(text)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *(f"example_{name}.py" for name in EXAMPLES)],
        env={**inherited, "DECKLOG_URL": url, "DECKLOG_KEY": key, "DECKLOG_SPOOL": str(folder / "spool")},
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert key not in done.stdout + done.stderr


async def test_examples_of_the_guide_record_what_they_show(world: World, tmp_path: Path) -> None:
    await asyncio.to_thread(run, tmp_path, world.url, world.keys["acme", Role.ADMIN])
    found = await stored(world)
    assert [record["action"] for record in found] == [action for actions in EXPECTED.values() for action in actions]
    by_example = dict(zip(EXPECTED, grouped(found), strict=True))
    for name in ("fastapi", "litestar", "django"):
        assert {record["actor"]["id"] for record in by_example[name]} == {"alice"}
        assert {record["correlation_id"] for record in by_example[name]} == {"r-1"}
        assert all("ip" in record["source"] for record in by_example[name])
    changes = [(record.get("before"), record.get("after")) for record in by_example["sqlalchemy"]]
    assert changes == [
        (None, {"id": 1, "email": "a@example.com"}),
        ({"email": "a@example.com"}, {"email": "b@example.com"}),
        ({"id": 1, "email": "b@example.com"}, None),
    ]


def grouped(records: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The records of each example."""
    rest = iter(records)
    for actions in EXPECTED.values():
        yield [next(rest) for _ in actions]
