"""Times as a person reads them: in a time zone, on a terminal without what every line has in common."""

from __future__ import annotations

import difflib
import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from decklog.domain.errors import Code, DecklogError

_LOCAL = Path("/etc/localtime")
_ZONES = "zoneinfo/"


class Clock:
    """Writes times in a zone.

    Args:
        zone: Name of the IANA database, None for that of this machine on a terminal, and UTC elsewhere.
        live: Whether a person reads on a terminal.

    Raises:
        DecklogError: `misconfigured` for an unknown zone.
    """

    def __init__(self, zone: str | None, *, live: bool) -> None:
        self._live = live
        self.name = zone or (local_zone() if live else "UTC")
        self._zone: tzinfo | None = None if zone is None and live else _zone(self.name)

    def text(self, moment: str) -> str:
        """Return a time of the API: as RFC 3339, or without offset and parts of a second on a terminal."""
        try:
            found = datetime.fromisoformat(moment)
        except ValueError:  # a leap second, or more digits than a datetime has
            return moment
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        there = found.astimezone(self._zone)
        if self._live:
            return there.strftime("%Y-%m-%d %H:%M:%S")
        return there.isoformat().replace("+00:00", "Z")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        pass
    near = difflib.get_close_matches(name, available_timezones(), 1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise DecklogError(Code.MISCONFIGURED, f"--zone: {name[:80]!r} is no time zone of the IANA database.{meant}")


def local_zone() -> str:
    """Return the name of this machine's time zone, "UTC" where it has none that is known by name."""
    named = os.environ.get("TZ", "").removeprefix(":")
    if not named:
        _, found, named = str(_LOCAL.resolve()).partition(_ZONES)
        named = named if found else "UTC"
    return named if named in available_timezones() else "UTC"
