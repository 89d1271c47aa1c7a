"""Register the fixtures that all tests share."""

from __future__ import annotations

pytest_plugins = [
    "tests.backends.fixtures",
    "tests.lines.reporting",
    "tests.support.examples",
    "tests.support.minutes",
    "tests.support.stores",
    "tests.support.release",
]
