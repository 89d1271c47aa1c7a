"""Minutes of each test folder at the end of a run, for the table in CONTRIBUTING.md: time in workers, set-up included."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

_seconds = pytest.StashKey[dict[str, float]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_seconds] = defaultdict(float)
    config.pluginmanager.register(_Clock(config.stash[_seconds]))


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        folder = "/".join(report.nodeid.partition("::")[0].split("/")[:-1])
        self._seconds[folder] += report.duration


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    seconds = config.stash[_seconds]
    if sum(seconds.values()) < 60:
        return
    terminalreporter.section("minutes by folder")
    for folder, spent in sorted(seconds.items()):
        terminalreporter.write_line(f"{folder:<20} {spent / 60:6.1f}")
