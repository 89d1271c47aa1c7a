"""The threads of one process, and the connection that they use."""

from __future__ import annotations

import logging
import threading
from typing import Any

from decklog_client import lazily, ownership
from decklog_client.answers import Answer
from decklog_client.errors import SpoolError
from decklog_client.identity import Credential
from decklog_client.options import Options
from decklog_client.sender import Sender
from decklog_client.spool import Spool

_SYNC_SECONDS = 1.0

logger = logging.getLogger("decklog_client")


class Sending:
    """The threads of one process: the sender, and with `fsync="interval"` the one that asks the disk."""

    def __init__(self, spool: Spool, url: str, credential: Credential, chosen: Options) -> None:
        self._spool, self._url, self._credential, self._options = spool, url, credential, chosen
        self._transport: Any = None
        self._checked_key: str | None = None
        self._stop = threading.Event()
        self.sender = Sender(spool, self._append, chosen)
        self.sender.start()
        if chosen.fsync == "interval":
            threading.Thread(target=self._sync, name="decklog-fsync", daemon=True).start()

    def _append(self, records: list[bytes]) -> Answer:
        if self._transport is None:
            module = lazily.transport()
            self._transport = module.Transport(
                self._url, self._credential, timeout=self._options.request_timeout, context=self._options.ssl_context
            )
        blocked = self._blocked(self._transport)
        if blocked is not None:
            return blocked
        answer: Answer = self._transport.append(records)
        return answer

    def _blocked(self, transport: Any) -> Answer | None:
        """Return why the key may not send this folder; asked once for each key."""
        key = transport.key
        if key == self._checked_key:
            return None
        blocked = ownership.verdict(self._spool.folder, self._url, transport.whoami())
        self._checked_key = key if blocked is None else None
        return blocked

    def _sync(self) -> None:
        while not self._stop.wait(_SYNC_SECONDS):
            self._sync_once()

    def _sync_once(self) -> None:
        try:
            self._spool.sync()
        except (SpoolError, OSError) as error:
            logger.error("The Decklog client cannot sync its spool: %s", error)

    def close(self, timeout: float) -> bool:
        """End the threads; return whether nothing is left to be sent."""
        done = self.sender.close(timeout)
        self._stop.set()
        if self._transport is not None and self.sender.ended:
            self._transport.close()
        return done
