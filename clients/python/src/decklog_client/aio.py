"""The client for asyncio: the spool and the thread of `Decklog`, and no wait that blocks the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from decklog_client import identity
from decklog_client.actions import Function, ResourceOf
from decklog_client.client import Decklog, Statistics
from decklog_client.errors import SpoolFullError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from decklog_client.making import CallFields, Fields
    from decklog_client.options import OptionValues


class AsyncDecklog:
    """A client with a spool, for asyncio. Arguments are those of `Decklog`. Close it, or use `async with`."""

    def __init__(
        self,
        *,
        url: str,
        key: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        spool: str | os.PathLike[str],
        **values: Unpack[OptionValues],
    ) -> None:
        self._client = Decklog(url=url, key=key, key_file=key_file, spool=spool, **values)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, **values: Unpack[OptionValues]) -> Self:
        """Return the client that the environment names, as `Decklog.from_env` does."""
        found = os.environ if environment is None else environment
        return cls(**identity.of_environment(found), spool=identity.required(found, identity.SPOOL), **values)

    def __repr__(self) -> str:
        return f"Async{self._client!r}"

    async def record(self, action: str, **fields: Unpack[Fields]) -> str:
        """Return the id of a record, once it is on disk, as `Decklog.record` does. Other tasks run while it waits for room."""
        if self._client.options.fsync == "always":
            return await asyncio.to_thread(self._client.record, action, **fields)
        try:
            return self._client.record_now(action, **fields)
        except SpoolFullError:
            if self._client.options.when_full == "raise":
                raise
        return await asyncio.to_thread(self._client.record, action, **fields)

    def action(self, name: str, *, resource: ResourceOf = None, **fields: Unpack[CallFields]) -> Callable[[Function], Function]:
        """Return a decorator that records each call of a function, as `Decklog.action` does."""
        return self._client.action(name, resource=resource, **fields)

    async def commit(self, timeout: float = 30.0) -> None:
        """Return once the server has stored everything that this process recorded before the call, as `Decklog.commit` does."""
        await asyncio.to_thread(self._client.commit, timeout)

    def stats(self) -> Statistics:
        """Return what this client did since its process began."""
        return self._client.stats()

    async def close(self, timeout: float = 5.0) -> bool:
        """Take no further record, and return whether all of them are stored within `timeout` seconds. The rest stays on disk."""
        return await asyncio.to_thread(self._client.close, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
