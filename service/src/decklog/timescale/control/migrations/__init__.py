"""Migrations of the control tables, in order of their names; each is run once, by `decklog.timescale.control.tables`.

A migration only adds (the stage `pre`): it runs while processes of the version before serve, which go on with what it leaves them.
What takes something away (the stage `post`) says so in its name, `m0012_post_…`, so that the database tells it to versions that
have never heard of it. It runs once no process is connected that was made before it, and must not be needed by a later `pre` one.
"""

from __future__ import annotations

import pkgutil


def names() -> list[str]:
    """The migrations of this version, in order; a migration's id is the name of its module."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def number(name: str) -> int:
    """The place of a migration among all."""
    return int(name[1:5])


def is_post(name: str) -> bool:
    """Whether a migration takes something away, also one that this version does not know."""
    return name.split("_")[1] == "post"


def level() -> int:
    """The newest migration that this version knows, which is what tells versions apart in the database."""
    return number(names()[-1])
