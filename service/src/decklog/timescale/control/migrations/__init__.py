"""Migrations of the control tables, in the order of their names. `decklog.timescale.control.tables` runs each of them once.

A migration of the stage `pre` only adds, because it runs while processes of the previous version serve. One of the stage `post`
removes something and has `post` in its name (`m0012_post_…`), so that older versions recognise it in the database. It runs once no
process of an older version is connected; no later `pre` migration may depend on it.
"""

from __future__ import annotations

import pkgutil


def names() -> list[str]:
    """Return the migrations of this version, in order. A migration's id is the name of its module."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def number(name: str) -> int:
    """Return the number in a migration's name."""
    return int(name[1:5])


def is_post(name: str) -> bool:
    """Return whether a migration removes something. The name may be one that this version does not have."""
    return name.split("_")[1] == "post"


def level() -> int:
    """Return the number of this version's newest migration, by which connections show their version."""
    return number(names()[-1])
