"""Find the browser of the board's tests: Debian's Chromium, which Playwright drives. Root installs it if it is missing."""

from __future__ import annotations

from pathlib import Path

from tests.backends.cache import Building, Recipe, UnavailableError, cache_folder, provision, remove
from tests.backends.packages import command, command_or_package, obtainable

NAME = "browser"
"""The name by which DECKLOG_TEST_REQUIRE requires it."""
PROGRAM = "chromium"
FONTS = "fonts-liberation"


def _build(building: Building) -> None:
    command_or_package(building, PROGRAM, also=(FONTS,))


RECIPE = Recipe("chromium", (PROGRAM, FONTS), _build)


def chromium() -> Path:
    """Return the path of Chromium. Raises `UnavailableError` where it is not installed and cannot be."""
    try:
        return Path(command(PROGRAM))
    except UnavailableError:
        obtainable(PROGRAM)
    remove(cache_folder() / RECIPE.key)  # the cache of another machine does not say what is installed on this one
    provision(RECIPE)
    return Path(command(PROGRAM))
