"""How many examples a property test tries: few in `make test`, many in `make endurance`."""

from __future__ import annotations

import os

from hypothesis import settings

FACTOR = float(os.environ.get("DECKLOG_TEST_EXAMPLES", "0.25"))
"""Share of the examples that a law names as its full number; `make endurance` sets 10."""
EXAMPLES = 100
"""Full number of a law that names none."""


def examples(number: int) -> int:
    """Return how many of `number` examples this run tries, at least 10."""
    return max(10, round(number * FACTOR))


# No deadline: a slow machine is no fault of the code.
settings.register_profile("decklog", deadline=None, max_examples=examples(EXAMPLES))
settings.load_profile("decklog")
