"""The thread that sends the spool to the server."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from decklog_client import rejected
from decklog_client.answers import Answer, Item, ItemError, Meaning
from decklog_client.errors import DecklogError, Refusal, ServerError
from decklog_client.options import Options
from decklog_client.spool import Batch, Spool

State = Literal["idle", "sending", "waiting", "paused", "closed"]
_BACKOFF_FIRST = 0.2
"""Seconds of the first pause between two attempts, before jitter."""
_REFUSALS_KEPT = 100
"""Refusals that are kept for `commit`. The file has all of them."""

logger = logging.getLogger("decklog_client")


class Sent(msgspec.Struct):
    """Counts of the sender since the process began."""

    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    batches: int = 0
    retries: int = 0
    state: State = "idle"
    reason: str = ""


class Sender:
    """Sends what is in a spool, in order, until it is closed. `append` sends records and returns the answer."""

    def __init__(self, spool: Spool, append: Callable[[list[bytes]], Answer], options: Options) -> None:
        self._spool, self._append, self._options = spool, append, options
        self.sent = Sent()
        self._refusals: deque[tuple[int, Refusal]] = deque()
        self._unkept: int | None = None
        """Number of the first refused record that had no room among the refusals."""
        self._looked = -options.scan
        self._halt = threading.Event()
        self._drained = threading.Event()
        self._closing = False
        self._ceiling = options.batch_records
        self._attempt = 0
        self._thread = threading.Thread(target=self._run, name="decklog-sender", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """True if the caller is the thread of the sender."""
        return threading.current_thread() is self._thread

    @property
    def ended(self) -> bool:
        """True if the thread has ended."""
        return not self._thread.is_alive()

    def take_refusals(self, number: int) -> list[Refusal]:
        """Return the refusals of the first `number` records that no call has returned yet."""
        found = []
        while self._refusals and self._refusals[0][0] <= number:
            found.append(self._refusals.popleft()[1])
        if not found and self._unkept is not None and self._unkept <= number:
            self._unkept = None
            found = [Refusal("", "refused", f"Further records are in {rejected.NAME}.", {})]
        return found

    def close(self, timeout: float) -> bool:
        """Send the rest within `timeout` seconds and end; return whether nothing is left."""
        self._closing = True
        self._spool.hurry()
        if not self.ended:
            self._drained.wait(timeout)
        self._halt.set()
        self._spool.wake.set()
        if not self.is_current:
            self._thread.join(max(1.0, timeout))
        return not self._spool.waiting

    def _run(self) -> None:
        while not self._halt.is_set():
            self._spool.wake.clear()
            try:
                self._look()
                if not self._send_next():
                    self._rest()
            except (OSError, DecklogError) as error:
                self._wait(f"{type(error).__name__}: {error}")
            except Exception:
                logger.exception("A fault of the Decklog client. The records stay in the spool.")
                self._wait("a fault of the client")
        self._note("closed")

    def _look(self) -> None:
        """Look for segments of dead processes, and for the size of the folder, where the time for it has come."""
        if time.monotonic() - self._looked >= self._options.scan:
            self._looked = time.monotonic()
            with contextlib.suppress(OSError):
                self._spool.adopt()

    def _rest(self) -> None:
        """Wait for records, at most until the next look for segments of dead processes."""
        self._spool.reclaim()
        self._note("idle")
        if not self._spool.waiting:
            self._spool.urgent.clear()
            if self._closing:
                self._drained.set()
        if self._spool.wake.wait(self._options.scan) and not self._halt.is_set():
            self._spool.urgent.wait(self._options.linger)

    def _send_next(self) -> bool:
        """Send one batch, if there is one."""
        batch = self._spool.next_batch(self._options.batch_records)
        if batch is None:
            return False
        pending = list(range(len(batch.records)))
        while pending and not self._halt.is_set():
            pending = self._attempt_once(batch, pending)
        if not pending:
            self._spool.settle(batch)
        return True

    def _attempt_once(self, batch: Batch, pending: list[int]) -> list[int]:
        """Send the first of the pending records of a batch, and return those that are pending then."""
        part, later = pending[: self._ceiling], pending[self._ceiling :]
        if self._attempt == 0:  # else the reason of the wait stays until an attempt succeeds
            self._note("sending")
        self.sent.batches += 1
        try:
            answer = self._append([batch.records[index] for index in part])
        except ServerError as error:
            self._wait(str(error))
            return pending
        meaning = answer.meaning(len(part))
        if meaning is Meaning.SPLIT and len(part) > 1:
            self._ceiling = len(part) // 2
            return pending
        if meaning is Meaning.SPLIT:
            refused = Item("rejected", ItemError(answer.body.code or "body-too-large", str(answer.error())))
            self._refuse(batch, part, [refused])
            self._attempt = 0
            return later
        if meaning is Meaning.ITEMS:
            return self._judge(batch, part, answer) + later
        self._wait(str(answer.error()), answer.retry_after, paused=meaning is Meaning.PAUSE)
        return pending

    def _judge(self, batch: Batch, part: list[int], answer: Answer) -> list[int]:
        """Note the results of records, and return those that must be sent again."""
        items = answer.body.items or []
        if answer.body.stored + answer.body.duplicates == len(part):
            return self._all_stored(answer)
        refused = [(index, item) for index, item in zip(part, items, strict=True) if item.refused]
        if refused:
            self._refuse(batch, [index for index, _ in refused], [item for _, item in refused])
        again = [index for index, item in zip(part, items, strict=True) if not item.stored and not item.refused]
        duplicates = sum(item.status == "duplicate" for item in items)
        self.sent.duplicates += duplicates
        self.sent.stored += len(part) - len(refused) - len(again) - duplicates
        if again:
            first = next(item.error for item in items if not item.stored and not item.refused)
            self._wait("" if first is None else f"{first.code}: {first.detail}", answer.retry_after)
        else:
            self._progressed()
        return again

    def _all_stored(self, answer: Answer) -> list[int]:
        """Note that all records of an answer are stored; most answers are so, and cost the application no look at each item."""
        self.sent.stored += answer.body.stored
        self.sent.duplicates += answer.body.duplicates
        self._progressed()
        return []

    def _progressed(self) -> None:
        self._attempt = 0
        self._ceiling = min(self._ceiling + 1, self._options.batch_records)

    def _refuse(self, batch: Batch, indices: Sequence[int], items: Sequence[Item]) -> None:
        """Keep refused records in their file, and call back. Raises OSError where the file cannot be written."""
        refusals = [_refusal(batch.records[index], item) for index, item in zip(indices, items, strict=True)]
        rejected.keep(self._spool.folder, refusals, bytes_max=self._options.rejected_bytes)
        self.sent.refused += len(refusals)
        if batch.first is not None:
            self._report(batch.first, indices, refusals)
        logger.error("Decklog refused %d records, which are in %s: %s", len(refusals), rejected.NAME, refusals[0].code)
        for each in refusals:
            self._call_back(each)

    def _report(self, first: int, indices: Sequence[int], refusals: Sequence[Refusal]) -> None:
        """Keep the oldest refusals for `commit`, and the number of the first one that is not kept."""
        for index, each in zip(indices, refusals, strict=True):
            if len(self._refusals) < _REFUSALS_KEPT:
                self._refusals.append((first + index, each))
            elif self._unkept is None:
                self._unkept = first + index

    def _call_back(self, refusal: Refusal) -> None:
        if self._options.on_rejected is None:
            return
        try:
            self._options.on_rejected(refusal)
        except Exception:
            logger.exception("on_rejected of the Decklog client raised an error.")

    def _note(self, state: State, reason: str = "") -> None:
        if state == "paused" and (self.sent.state, self.sent.reason) != (state, reason):
            logger.warning("Decklog cannot be sent to, and records are kept on disk: %s", reason)
        self.sent.state, self.sent.reason = state, reason

    def _wait(self, reason: str, retry_after: float | None = None, *, paused: bool = False) -> None:
        """Wait before the next attempt: as long as the server says, else longer after each attempt, with jitter."""
        self.sent.retries += 1
        self._note("paused" if paused else "waiting", reason)
        longest = self._options.pause if paused else min(self._options.backoff_max, _BACKOFF_FIRST * 2 ** min(self._attempt, 20))
        self._attempt += 1
        asked = min(retry_after or 0.0, self._options.retry_after_max)
        self._rest_until(time.monotonic() + asked + _jitter() * (longest if not asked else min(longest, 1.0)))

    def _rest_until(self, end: float) -> None:
        """Wait, and look after the folder meanwhile: its bound counts the files of other processes, which an outage makes grow."""
        while not self._halt.wait(min(max(0.0, end - time.monotonic()), max(self._options.scan, 0.01))):
            self._look()
            if time.monotonic() >= end:
                return


def _jitter() -> float:
    """Return a number between 0.5 and 1, so that clients which failed together do not come back together."""
    return 0.5 + int.from_bytes(os.urandom(2), "big") / 0x1FFFE


def _refusal(record: bytes, item: Item) -> Refusal:
    content: dict[str, Any] = msgspec.json.decode(record)
    error = item.error or ItemError("unknown")
    return Refusal(str(content.get("id", "")), error.code, error.detail, content)
