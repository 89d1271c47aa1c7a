"""Random choices of tests that can be repeated: the seed is printed, and read from `DECKLOG_TEST_SEED`."""

from __future__ import annotations

import os
import random
import secrets

VARIABLE = "DECKLOG_TEST_SEED"


def seeded() -> random.Random:
    """Return a generator with the seed of the environment, or with a new one. Pytest shows the seed when the test fails."""
    seed = int(os.environ.get(VARIABLE) or secrets.randbelow(2**32))
    print(f"{VARIABLE}={seed}")
    return random.Random(seed)
