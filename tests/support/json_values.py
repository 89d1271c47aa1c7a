"""Arbitrary JSON for property tests: strategies, and other spellings of one value."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st

# What `text` and `json` columns can carry: no U+0000 and no surrogates.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
integers = st.one_of(st.integers(), st.integers(min_value=-(10**300), max_value=10**300))
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(st.none(), st.booleans(), integers, floats, texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
objects = st.dictionaries(texts, values, max_size=5)


def respelled(value: Any, chance: random.Random) -> str:
    """Return the same JSON value with another order of keys, other white space and other escapes."""
    space = chance.choice(["", " ", "\n\t", "  "])
    if isinstance(value, dict):
        items = list(value.items())
        chance.shuffle(items)
        inner = f",{space}".join(f"{respelled(key, chance)}{space}:{respelled(item, chance)}" for key, item in items)
        return f"{{{space}{inner}{space}}}"
    if isinstance(value, list):
        return f"[{space}" + f"{space},".join(respelled(item, chance) for item in value) + "]"
    if isinstance(value, str) and chance.random() < 0.5:
        return json.dumps(value)
    if isinstance(value, float) and chance.random() < 0.5:
        return f"{value!r}e0" if "e" not in repr(value) else repr(value).replace("e", "E")
    return json.dumps(value, ensure_ascii=False)
