"""The parameters of counts beside their filters."""

from __future__ import annotations

import re

import msgspec

from decklog.domain.errors import invalid_parameter
from decklog.domain.search.stats import TOP_DEFAULT, TOP_MAX, UTC_NAME, Grouping, facet_fields
from decklog.services.records.list_options import WAIT, Parameters, choice, one

COUNT_PARAMETERS = ("by", "interval", "tz", "fill", "facets", "top", WAIT)
"""Names of the parameters of counts, beside their filters."""
FILLS = ("none", "zero")
"""Values of `fill`, the default first."""

_TOP = re.compile(r"[1-9][0-9]{0,2}")


class CountOptions(msgspec.Struct, frozen=True):
    """What a count is asked for, beside its filters: the grouping, intervals without records, and facets with their `top` values."""

    grouping: Grouping
    zero_filled: bool
    facets: tuple[str, ...]
    top: int

    @classmethod
    def parse(cls, parameters: Parameters) -> CountOptions:
        """Return the options of a count; names that it does not know are left to the filters. Raises `invalid-parameter`."""
        interval, tz = one(parameters, "interval"), one(parameters, "tz")
        zero_filled = choice(parameters, "fill", FILLS) == "zero"
        for name, given in (("tz", tz is not None), ("fill", zero_filled)):
            if given and interval is None:
                raise invalid_parameter(name, "is about the intervals of a count, and there are none. Give `interval`, too.")
        grouping = Grouping(_listed(parameters, "by"), interval, UTC_NAME if tz is None else tz)
        return cls(grouping, zero_filled, facet_fields(_listed(parameters, "facets")), _top(parameters))


def _listed(parameters: Parameters, name: str) -> tuple[str, ...]:
    return tuple(part for key, value in parameters if key == name for part in value.split(","))


def _top(parameters: Parameters) -> int:
    text = one(parameters, "top")
    if text is None:
        return TOP_DEFAULT
    if not _listed(parameters, "facets"):
        raise invalid_parameter("top", "is the number of values of each facet, and there are none. Give `facets`, too.")
    if not _TOP.fullmatch(text) or int(text) > TOP_MAX:
        raise invalid_parameter("top", f"must be a number from 1 to {TOP_MAX}.")
    return int(text)
