"""Advances the logs of one place together: leases, reads, effects and moves of cursors, each for many logs at once.

Records are read from the logs themselves and never from messages, so wake-ups may be lost, doubled or reordered. A cursor moves only
after the effect is settled, so a record may be applied twice (effects must be idempotent) and is never left out. No transaction is
open while an effect runs. A batch that fails for several logs is tried again in parts, so that one log does not hold up the others.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from decklog.domain.consumers import Cursor, LogKey, Standing
from decklog.domain.errors import Code, DecklogError
from decklog.services.following.batches import (
    BATCH_LOGS,
    BATCHES,
    PROGRESS,
    Batch,
    Move,
    Share,
    attempted,
    error_of,
    halves,
    observe,
)
from decklog.services.following.consumer import Consumer
from decklog.services.following.leases import RENEWALS_PER_LEASE
from decklog.services.following.lines import Ended, Line, shares

BATCH_BYTES = 2 * 1024 * 1024
"""Content of a batch, plus at most one record."""
LOOK_AGAIN_SECONDS = 0.1
"""Between reads of the heads while work is in hand, so that records that arrive meanwhile form one batch."""
READ_SECONDS_MAX = 20.0
PROBES = 3
"""Logs of a batch that failed which are tried by themselves. Where all of them fail, so will the others, which then wait."""
PROBES_MORE = 10
"""Logs that may fail one after the other where one has succeeded before."""


class Advance:
    """The advance of the logs of one place, from the first that joins until the last has ended.

    Batches are read in order and applied, several at once where the effect allows it. Applied batches are settled while the next ones
    are applied, and the cursors follow. `over` is called when no log can join any more.
    """

    def __init__(self, of: Consumer, cursor: str, *, over: Callable[[], None]) -> None:
        self._of = of
        self._cursor = cursor
        self._over = over
        self._joining: list[Line] = []
        self._taking: list[Line] = []
        """Logs whose leases are being taken."""
        self._lines: dict[LogKey, Line] = {}
        """Logs under a lease, in the order of their turns."""
        self._leaving: list[tuple[Line, Ended]] = []
        """Logs whose leases are to be ended."""
        self._applying: deque[Batch] = deque()
        self._traced: list[Batch] = []
        self._settling: asyncio.Task[list[Standing]] | None = None
        self._moves: list[Move] = []
        self._defect: Exception | None = None
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"advance {cursor}")

    def join(self, line: Line) -> None:
        """Add a log. `line.ended` says how its advance ends."""
        self._joining.append(line)
        self._changed.set()

    async def leave(self, line: Line) -> None:
        """Give a log up, and return when its lease has ended."""
        self._end(line, Ended.LOST)
        self._give_up_if_empty()
        await asyncio.wait((line.ended,))

    async def _run(self) -> None:
        renewal = asyncio.create_task(self._renew(), name=f"leases {self._cursor}")
        try:
            if (defect := await attempted(self._work())) is not None:
                self._fail_all((*self._lines.values(), *self._joining, *self._taking), defect)
        finally:
            self._over()
            await self._end_all(renewal)

    async def _work(self) -> None:
        while self._joining or self._lines or self._leaving:
            self._changed.clear()
            await self._step()

    async def _step(self) -> None:
        if self._defect is not None:
            raise self._defect
        if self._joining:
            await self._take()
        await self._collect()
        self._take_over_moves()
        self._settle()
        self._close()
        if self._leaving:
            await self._release()
        if not self._lines:
            return
        if (following := self._next()) is not None:
            await self._begin_batch(following)
        else:
            await self._wait()

    # --- joining and leaving ---

    async def _take(self) -> None:
        """Take the leases of the logs that join."""
        self._taking, self._joining = self._joining, []
        leased_until = asyncio.get_running_loop().time() + self._of.lease_seconds
        for line in self._taking:
            line.leased_until = leased_until  # for all that is known if this is cancelled
        try:
            standings = await self._of.cursors.lease_all(
                self._cursor,
                [line.key for line in self._taking],
                owner=self._of.owner,
                seconds=self._of.lease_seconds,
            )
        except DecklogError as error:
            self._fail_all(self._taking, error)
            standings = []
        by_log = {standing.cursor.key: standing for standing in standings}
        for line in self._taking:
            self._begin(line, by_log.get(line.key))
        self._taking = []

    def _begin(self, line: Line, standing: Standing | None) -> None:
        if standing is None or not standing.cursor.owner:
            held = standing is not None and standing.behind
            line.leased_until = 0.0
            self._end(line, Ended.HELD if held else Ended.DONE)
            return
        line.begin(standing)
        if line.live:
            self._lines[line.key] = line

    def _close(self) -> None:
        """End the logs of which nothing is left to do, and read nothing more of those whose time is over."""
        now = self._of.clock()
        for line in list(self._lines.values()):
            closed = self._of.stopping or now >= line.until
            if closed:
                line.close()
            if line.idle:
                self._end(line, Ended.MORE if closed and not self._of.stopping else Ended.DONE)

    def _end(self, line: Line, ended: Ended) -> None:
        """End the advance of a log; its lease ends with the next step, unless it ended before."""
        if line.live:
            line.live = False
            self._lines.pop(line.key, None)
            if line in self._joining:
                self._joining.remove(line)
                line.ended.set_result(ended)
            else:
                self._leaving.append((line, ended))
            self._changed.set()

    def _fail(self, line: Line, error: Exception, *, alone: bool) -> None:
        if line.live:
            line.error, line.alone = error, alone
            self._end(line, Ended.FAILED)

    def _fail_all(self, lines: Sequence[Line], error: Exception) -> None:
        for line in list(lines):
            self._fail(line, error, alone=len(lines) == 1)

    async def _release(self) -> None:
        """End the leases of the logs that leave."""
        leaving, self._leaving = self._leaving, []
        of = (self._cursor, self._of.owner)
        held = [Cursor(of[0], *line.key, 0, 0, of[1]) for line, ended in leaving if line.leased_until]
        try:
            if held:
                # A release that fails costs the next worker a wait until the lease expires, nothing else.
                with suppress(DecklogError):
                    await self._of.cursors.release_all(held)
        finally:
            for line, ended in leaving:
                line.ended.set_result(ended)

    def _give_up_if_empty(self) -> None:
        """End what runs for no log any more, even an effect that hangs."""
        if not self._lines and not self._joining and not any(line.live for line in self._taking):
            self._over()
            self._task.cancel()

    async def _end_all(self, renewal: asyncio.Task[None]) -> None:
        tasks: list[asyncio.Task[Any] | None] = [renewal, self._settling, *(batch.task for batch in self._applying)]
        left = [task for task in tasks if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for line in (*self._joining, *self._taking, *self._lines.values()):
            self._end(line, Ended.LOST)
        await self._release()
        self._end_traces()

    # --- leases ---

    async def _renew(self) -> None:
        """Renew the leases until cancelled; logs whose leases are lost end."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._of.lease_seconds / RENEWALS_PER_LEASE)
            held, asked_at = list(self._lines.values()), loop.time()
            if not held:
                continue
            kept = await attempted(
                self._of.cursors.renew_all(
                    [line.cursor for line in held if line.cursor is not None], seconds=self._of.lease_seconds
                )
            )
            if isinstance(kept, DecklogError):
                self._lose(line for line in held if loop.time() >= line.leased_until)
            elif isinstance(kept, Exception):
                self._defect = kept  # raised by the advance itself
                self._changed.set()
                return
            else:
                self._renewed(held, kept, asked_at + self._of.lease_seconds)

    def _renewed(self, held: Sequence[Line], kept: set[LogKey], until: float) -> None:
        for line in held:
            if line.key in kept:
                line.leased_until = until
        self._lose(line for line in held if line.key not in kept)

    def _lose(self, lost: Iterable[Line]) -> None:
        """End logs whose leases another worker has, and cancel what is done for them alone."""
        for line in list(lost):
            if line.live:
                self._end(line, Ended.LOST)
        for batch in self._applying:
            if batch.task is not None and not batch.live:
                batch.task.cancel()
        self._give_up_if_empty()

    # --- batches ---

    def _next(self) -> list[tuple[Line, int]] | None:
        """Return what the next batch is to have of each log; None where there is none, or no room for one."""
        following = shares(self._lines.values(), self._of.records_max)
        if not following:
            return None
        one_by_one = following[0][0].wary or any(batch.wary for batch in self._applying)
        return following if len(self._applying) < (1 if one_by_one else self._of.effect.parallel) else None

    async def _begin_batch(self, following: Sequence[tuple[Line, int]]) -> None:
        await self._of.slots.acquire()
        try:
            batch = await attempted(self._read(following))
        except BaseException:
            self._of.slots.release()
            raise
        if isinstance(batch, Exception):
            self._of.slots.release()
            await self._isolate([line for line, _ in following], batch)
            return
        batch.task = asyncio.create_task(self._apply(batch))
        batch.task.add_done_callback(self._batch_ended)
        self._applying.append(batch)

    def _batch_ended(self, _: asyncio.Task[None]) -> None:
        self._of.slots.release()
        self._changed.set()

    async def _read(self, following: Sequence[tuple[Line, int]]) -> Batch:
        """Read a batch. The logs of which it has records have their next turn after the others."""
        wanted = [(line, line.reading(limit)) for line, limit in following if line.live]
        if not wanted:
            return Batch([])
        found = await self._of.store.read_logs(
            [reading for _, reading in wanted], timeout=READ_SECONDS_MAX, bytes_max=BATCH_BYTES
        )
        parts = []
        for (line, reading), (records, onward) in zip(wanted, found, strict=True):
            if not reading.span.first <= onward <= reading.span.end:
                raise DecklogError(Code.INTERNAL, f"A reading that began at {reading.span.first} would go on at {onward}.")
            if line.live and onward > reading.span.first:
                line.read_to = onward
                parts.append(Share(line, records, reading.span.first, onward))
                self._lines[line.key] = self._lines.pop(line.key)
        if not parts and any(line.live for line, _ in wanted):
            raise DecklogError(Code.INTERNAL, f"A reading of {len(wanted)} logs returned nothing of any.")
        return Batch(parts)

    async def _apply(self, batch: Batch) -> None:
        if given := batch.given:
            if self._of.traces is not None:
                batch.trace = self._of.traces.batch(self._of.name, given)
                self._traced.append(batch)
            await self._of.effect.apply(given)
            BATCHES.labels(self._of.name).inc()
            BATCH_LOGS.labels(self._of.name).inc(len(given))

    async def _collect(self) -> None:
        """Take the batches that have been applied, in order. Logs of one that failed are tried again in parts."""
        while (task := self._oldest) is not None and task.done():
            if (error := error_of(task)) is None:
                self._applying.popleft().applied()
            else:
                await self._isolate(await self._drain(), error)

    @property
    def _oldest(self) -> asyncio.Task[None] | None:
        return self._applying[0].task if self._applying else None

    async def _drain(self) -> list[Line]:
        """Wait for all batches that are being applied; return the logs of those that failed."""
        suspects: dict[Line, None] = {}
        while (task := self._oldest) is not None:
            await asyncio.wait((task,))
            batch = self._applying.popleft()
            if error_of(task) is None:
                batch.applied()
            else:
                suspects.update(dict.fromkeys(part.line for part in batch.parts))
        return list(suspects)

    async def _isolate(self, suspects: Sequence[Line], error: Exception) -> None:
        """Try logs again of which a batch failed: first a few by themselves, then the others in ever smaller parts."""
        left = [line for line in suspects if line.live]
        for line in left:
            line.back()
        if len(left) == 1:
            self._fail(left[0], error, alone=True)
            return
        random.shuffle(left)
        parts = deque([[line] for line in left[:PROBES]] + halves(left[PROBES:]))
        failed, bound = 0, PROBES
        while parts:
            part = parts.popleft()
            if failed >= bound:
                for line in part:
                    self._fail(line, error, alone=False)
            elif (problem := await self._try(part)) is None:
                failed, bound = 0, PROBES_MORE
            elif len(part) > 1:
                parts.extendleft(reversed(halves(part)))
            else:
                failed, error = failed + 1, problem
                self._fail(part[0], problem, alone=True)

    async def _try(self, lines: Sequence[Line]) -> Exception | None:
        """Read and apply what comes next of these logs; return the error if that fails."""
        following = shares((line for line in lines if line.live), self._of.records_max)
        if not following:
            return None
        async with self._of.slots:
            batch = await attempted(self._read(following))
            problem = batch if isinstance(batch, Exception) else await attempted(self._apply(batch))
        if isinstance(batch, Batch) and problem is None:
            batch.applied()
            return None
        for line, _ in following:
            line.back()
        return problem

    # --- settling ---

    def _settle(self) -> None:
        """Begin to settle what has been applied, unless something is being settled."""
        if self._settling is None:
            lines = [line for line in self._lines.values() if line.applied > line.settled]
            self._moves = [Move(line, line.applied, line.oldest) for line in lines]
            if self._moves:
                for line in lines:
                    line.oldest = None
                self._settling = asyncio.create_task(self._settle_to(self._moves))
                self._settling.add_done_callback(lambda _: self._changed.set())

    async def _settle_to(self, moves: Sequence[Move]) -> list[Standing]:
        """Settle everything that was applied, and move the cursors."""
        given = [(move.line.cursor, move.to) for move in moves if move.line.cursor is not None]
        await self._of.effect.settle(list({move.line.tenant.id: move.line.tenant for move in moves}.values()))
        return await self._of.cursors.move_all(given, seconds=self._of.lease_seconds)

    def _take_over_moves(self) -> None:
        """Take over the cursors of a settling that has ended."""
        if self._settling is None or not self._settling.done():
            return
        settling, self._settling = self._settling, None
        if (error := error_of(settling)) is not None:
            self._fail_all([move.line for move in self._moves], error)
            return
        moved = {standing.cursor.key: standing for standing in settling.result()}
        for move in self._moves:
            if move.line.live:
                self._moved(move, moved.get(move.line.key))
        PROGRESS.labels(self._of.name).set_to_current_time()
        self._end_traces(only_passed=True)

    def _moved(self, move: Move, standing: Standing | None) -> None:
        line = move.line
        if standing is None:
            self._end(line, Ended.LOST)
            return
        observe(self._of.name, move)
        line.cursor, line.moved = standing.cursor, True
        if standing.cursor.owner:
            line.leased_until = asyncio.get_running_loop().time() + self._of.lease_seconds
            line.saw(standing.head_seq)
        else:  # the move has ended the lease
            line.leased_until = 0.0
            self._end(line, Ended.DONE)

    def _end_traces(self, *, only_passed: bool = False) -> None:
        self._traced = [batch for batch in self._traced if not batch.passed() and only_passed]

    # --- waiting ---

    async def _wait(self) -> None:
        """Wait until something has ended or joined; look again at the heads after a while."""
        try:
            async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            await self._look()

    async def _look(self) -> None:
        """Read the heads of the logs that have been read to their ends, unless the worker stops."""
        read = [line.key for line in self._lines.values() if not line.unread]
        if read and not self._of.stopping:
            with suppress(DecklogError):  # the next statement that is needed fails too
                for key, head in (await self._of.store.heads(read)).items():
                    if key in self._lines:
                        self._lines[key].saw(head.next_seq)
