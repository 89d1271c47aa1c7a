"""The order of a list: by receipt or by the time of the event, ascending or descending."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from decklog.domain.errors import NAME_CHARS_MAX, invalid_parameter

RECEIVED_AT, OCCURRED_AT = "received_at", "occurred_at"
SORTS = (f"-{RECEIVED_AT}", RECEIVED_AT, f"-{OCCURRED_AT}", OCCURRED_AT)
"""Values of the parameter `sort`, the default first. A minus means descending."""
ORDERS = ("asc", "desc")
"""Values of the parameter `order`."""


class Order(msgspec.Struct, frozen=True):
    """What a list is sorted by: `received_at`, which is the order of `seq`, or `occurred_at` and then `seq`."""

    by: str = RECEIVED_AT
    newest_first: bool = True

    @property
    def by_time(self) -> bool:
        """Whether the order is that of `occurred_at`."""
        return self.by == OCCURRED_AT

    def __str__(self) -> str:
        return f"{'-' if self.newest_first else ''}{self.by}"


NEWEST_FIRST, OLDEST_FIRST = Order(), Order(newest_first=False)


class Place(NamedTuple):
    """The place of a record in the order of `occurred_at`: numbers decide among equal times."""

    occurred_at: datetime
    seq: int


def parse_order(sort: str | None, order: str | None) -> Order:
    """Return the order that `sort` and `order` name; newest first without both.

    A minus in `sort` already says the direction, so it must not be given together with `order`.

    Raises:
        DecklogError: `invalid-parameter`.
    """
    if sort is not None and sort not in SORTS:
        raise invalid_parameter("sort", f"{sort[:NAME_CHARS_MAX]!r} is not one of {', '.join(SORTS)}.")
    if order is not None and order not in ORDERS:
        raise invalid_parameter("order", f"{order[:NAME_CHARS_MAX]!r} is not one of {', '.join(ORDERS)}.")
    if sort is None:
        return OLDEST_FIRST if order == "asc" else NEWEST_FIRST
    if sort.startswith("-") and order is not None:
        raise invalid_parameter(
            "order", f"`sort={sort}` already says the direction. Give `sort={sort[1:]}` with `order`, or no `order`."
        )
    return Order(sort.removeprefix("-"), sort.startswith("-") or order == "desc")
