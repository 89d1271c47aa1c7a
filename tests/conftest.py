"""What all tests share: the real backends, and databases on them."""

from __future__ import annotations

pytest_plugins = [
    "tests.backends.fixtures",
    "tests.support.examples",
    "tests.support.minutes",
    "tests.support.stores",
    "tests.support.release",
]
