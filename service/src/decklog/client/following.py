"""A log that is followed over broken connections, without a gap and without a double."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from decklog.client.client import Client, Parameters
from decklog.client.patience import Patience
from decklog.client.server_events import ServerEvent
from decklog.domain.errors import Code, DecklogError

_PASSING = frozenset({Code.READER_TOO_SLOW, Code.TOO_MANY_STREAMS, Code.TOO_MANY_CONNECTIONS, Code.INTERNAL})
"""Ends of a stream after which it may be opened again, beside those of `LATER`."""


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a log was followed: of which server, with which query, and the position."""

    url: str
    log: str
    query: str
    position: str


class PlaceFile:
    """The file that keeps how far a log was followed."""

    def __init__(self, path: Path, url: str, log: str, query: str) -> None:
        self.path = path
        self._place = Place(url, log, query, "")

    def load(self) -> str | None:
        """Return the position, None where there is no file. Raises `misconfigured` for a file of another log or query."""
        try:
            held = msgspec.json.decode(self.path.read_bytes(), type=Place)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise DecklogError(Code.MISCONFIGURED, f"{self.path} holds no position of decklog tail.") from None
        if msgspec.structs.replace(held, position="") != self._place:
            raise DecklogError(
                Code.MISCONFIGURED,
                f"{self.path} holds the position of log {held.log} with the query {held.query!r} at {held.url}. Use a file for each.",
            )
        return held.position

    def save(self, position: str) -> None:
        """Replace the position as one step."""
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(msgspec.structs.replace(self._place, position=position)) + b"\n")
        beside.replace(self.path)


async def follow(
    client: Client, parameters: Parameters, after: str | None, say: Callable[[str], None], waiting: Callable[[str], None]
) -> AsyncIterator[ServerEvent]:
    """Yield records and heartbeats, each with its position, and open the stream again where it breaks.

    Args:
        client: The client.
        parameters: Filters.
        after: Position or number to begin after, None for now.
        say: Is called when a broken stream goes on.
        waiting: Is called with the reason before each wait.

    Raises:
        DecklogError: The stream cannot be opened the first time, or its error does not pass by itself.
    """
    patience, reached = Patience(waiting), after
    opened = False
    while True:
        try:
            async with client.events({**parameters, **({} if reached is None else {"after": reached})}) as events:
                async for event in events:
                    if patience.failed:
                        say(f"Connected again, behind position {reached}. Nothing was missed.")
                    opened, reached = True, event.position or reached
                    patience.succeeded()
                    if event.kind != "opened":
                        yield event
            broken = DecklogError(Code.OUTCOME_UNKNOWN, f"{client.url} ended the stream.")
        except DecklogError as error:
            if not opened:
                raise
            broken = error
        await patience.wait(broken, also=_PASSING)
