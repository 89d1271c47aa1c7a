"""The parameters of a list beside its filters."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from decklog.domain.errors import NAME_CHARS_MAX, invalid_parameter
from decklog.domain.log import Position
from decklog.domain.search.order import OLDEST_FIRST, Order, parse_order

Parameters = Sequence[tuple[str, str]]

LIMIT_DEFAULT = 100
LIMIT_MAX = 1_000
"""Records of one page."""
COUNTS = ("none", "exact")
"""Values of `count`, the default first."""
HIGHLIGHTS = ("false", "true")
"""Values of `highlight`, the default first."""
WAIT = "wait"
"""Name of the parameter of every search that waits for the index."""
LIST_PARAMETERS = ("limit", "cursor", "sort", "order", "after", "count", "highlight", WAIT)
"""Names of the parameters of a list, beside its filters."""

_SEQ = re.compile(r"[0-9]{1,18}")
_LIMIT = re.compile(r"[1-9][0-9]{0,3}")


class ListOptions(msgspec.Struct, frozen=True):
    """What a list is asked for, beside its filters. `after` and `cursor` are None where they are not given."""

    limit: int
    cursor: str | None
    order: Order
    after: Position | int | None
    counted: bool
    highlighted: bool

    @classmethod
    def parse(cls, parameters: Parameters) -> ListOptions:
        """Return the options of a list; names that it does not know are left to the filters. Raises `invalid-parameter`."""
        after = one(parameters, "after")
        order = parse_order(one(parameters, "sort"), one(parameters, "order"))
        if after is not None:
            order = _after_is_ascending(parameters, order)
        return cls(
            limit=_limit(parameters),
            cursor=one(parameters, "cursor"),
            order=order,
            after=None if after is None else Position.parse(after),
            counted=choice(parameters, "count", COUNTS) == "exact",
            highlighted=choice(parameters, "highlight", HIGHLIGHTS) == "true",
        )

    @property
    def begins_after(self) -> str | None:
        """The text of `after`, for cursors and access records."""
        return None if self.after is None else str(self.after)


def _after_is_ascending(parameters: Parameters, order: Order) -> Order:
    named = any(name in ("sort", "order") for name, _ in parameters)
    if named and order != OLDEST_FIRST:
        raise invalid_parameter(
            "after", f"it lists what follows a position, oldest first, and not by `sort={order}`. Leave `sort` and `order` out."
        )
    return OLDEST_FIRST


def one(parameters: Parameters, name: str) -> str | None:
    """Return the value of a parameter, None where it is not given. Raises `invalid-parameter` where it is given twice."""
    values = [value for key, value in parameters if key == name]
    if len(values) > 1:
        raise invalid_parameter(name, "may be given once only.")
    return values[0] if values else None


def choice(parameters: Parameters, name: str, allowed: Sequence[str]) -> str | None:
    """Return the value of a parameter, None where it is not given. Raises `invalid-parameter` for one that is not allowed."""
    value = one(parameters, name)
    if value is not None and value not in allowed:
        raise invalid_parameter(name, f"{value[:NAME_CHARS_MAX]!r} is not one of {', '.join(allowed)}.")
    return value


def waited_for(parameters: Parameters) -> int | None:
    """Return the `seq` that a search waits for until the index finds it, None for no wait. Raises `invalid-parameter`."""
    text = one(parameters, WAIT)
    if text is not None and not _SEQ.fullmatch(text):
        raise invalid_parameter(WAIT, "must be the sequence number of a record.")
    return None if text is None else int(text)


def _limit(parameters: Parameters) -> int:
    text = one(parameters, "limit")
    if text is None:
        return LIMIT_DEFAULT
    if not _LIMIT.fullmatch(text) or int(text) > LIMIT_MAX:
        raise invalid_parameter("limit", f"must be a number from 1 to {LIMIT_MAX}.")
    return int(text)
