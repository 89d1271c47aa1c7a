"""The report of coverage at the end of a run with `--lines-min`, which fails below that share of lines.

It is printed before pytest's last line, which stays the last one.
"""

from __future__ import annotations

from collections.abc import Generator
from io import StringIO
from typing import Any

import pytest
from coverage import Coverage, CoverageData

from tests.lines.sitecustomize import Hits

_report = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lines-min", type=float, help="fail if fewer per cent of the lines ran; see tests/lines")


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    result = yield
    wanted = session.config.getoption("lines_min")
    if wanted is not None and not hasattr(session.config, "workerinput"):
        share, session.config.stash[_report] = measured()
        if share < wanted:
            session.config.stash[_report] += f"FAIL: {share:.2f} % of the lines ran, fewer than {wanted:g} %\n"
            session.testsfailed += 1
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if _report in config.stash:
        terminalreporter.section("lines that ran")
        terminalreporter.write(config.stash[_report])


def measured() -> tuple[float, str]:
    """Return the share of lines that ran in per cent, and the report; `coverage report` shows it again."""
    hits = Hits()
    ran = {path: [line for line, hit in enumerate(hits.of(path)) if hit] for path in hits}
    data = CoverageData()
    data.erase()
    data.add_lines({path: lines for path, lines in ran.items() if lines})
    data.touch_files([path for path, lines in ran.items() if not lines])
    data.write()
    coverage, text = Coverage(), StringIO()
    coverage.load()
    share = coverage.report(file=text)
    return share, text.getvalue()
