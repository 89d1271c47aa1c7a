"""The words of a log: values that its records have, by which a question is understood."""

from __future__ import annotations

import msgspec


class Vocabulary(msgspec.Struct, frozen=True):
    """Values that the records of one log have, the most frequent first.

    `every_action` is False where the log has more actions than `actions` names. `actors` and `resource_types` are the most frequent ones
    only.
    """

    actions: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    resource_types: tuple[str, ...] = ()
    every_action: bool = False
