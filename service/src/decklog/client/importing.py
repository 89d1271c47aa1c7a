"""Import audit events of other systems into a log: read, map, send, and resume.

Every event has an id, so to send one again is safe. Batches are sent one after the other, so events keep their order. What is
not an event is counted by kind with a few examples, and the rest is imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import stamina

from decklog import shapes
from decklog.client.bulks import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, raise_refused
from decklog.client.checkpoint import Checkpoint, Checkpoints
from decklog.client.client import Client
from decklog.client.event_files import STDIN, EventFile, files_of
from decklog.client.import_report import COUNTS, FileReport, Reasons, Refusal, Report
from decklog.client.json_values import Piece
from decklog.client.known_ids import known
from decklog.client.patience import AFTER_MAX, LATER
from decklog.client.progress import Progress
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission
from decklog.domain.intake.foreign_event import REPLACEMENT, HoldsNoEventsError, NotAnEventError
from decklog.domain.intake.kinds import recorded
from decklog.shapes import BulkItem, ItemError

RETRY_SECONDS_MAX = 600.0
"""Seconds for which one batch is retried while the server asks to retry later, or cannot be reached."""
FORGETFUL = (
    "This key may not read the log, so the server alone recognises events: for the tenant's dedupWindow, 24 hours by default. Events "
    "that were imported before that are stored again. With --read-key-file FILE (role auditor) none is."
)
"""The line before an import that cannot ask the log."""
_Answer = TypeVar("_Answer")
_SMALLER = {Code.BATCH_EXCEEDS_BURST, Code.BODY_TOO_LARGE, Code.TOO_MANY_RECORDS}


class _Run:
    """The state of one file's import: pieces read, records that wait to be sent, and counts."""

    def __init__(self, source: EventFile, report: FileReport) -> None:
        self.source = source
        self.report = report
        self.pieces = iter(source)
        self.read = 0
        self.sent = 0
        self.seq = -1
        self.waiting: list[tuple[int, Piece, bytes]] = []
        self.waiting_bytes = 0
        self._digest = hashlib.sha256()

    def next(self) -> Piece | None:
        return next(self.pieces, None)

    def took(self, piece: Piece) -> int:
        """Count a piece as read, and return its number, from 1."""
        self.read += 1
        self._digest.update(b"%d:" % len(piece.raw or b"") + (piece.raw or b""))
        return self.read

    def digest(self) -> str:
        return self._digest.hexdigest()

    def checkpoint(self) -> Checkpoint:
        report = self.report
        return Checkpoint(self.read, self.digest(), self.sent, self.seq, *(getattr(report, name) for name in COUNTS))


class _Sent(msgspec.Struct):
    """The member of a record by which the log knows it."""

    id: str


_sent = msgspec.json.Decoder(_Sent).decode


def _size(file: Path) -> int:
    """Return the size in bytes; 0 for a file that cannot be read, which the import refuses later."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


class Importer:
    """Imports files of one kind through one client.

    With `checkpoints` None, an interrupted import cannot be resumed. `reader` is a client whose key may read the log; None where that
    of `client` may, or none is at hand.
    """

    def __init__(
        self,
        client: Client,
        kind: str,
        progress: Progress,
        checkpoints: Checkpoints | None,
        *,
        reader: Client | None = None,
    ) -> None:
        self._client = client
        self._reader = reader
        self._kind = kind
        self._progress = progress
        self._checkpoints = checkpoints
        self._report = Report(kind, client.url, "")
        self._at_once = BATCH_RECORDS_MAX
        self._done = 0
        self._refused, self._noted = Reasons(), Reasons()

    async def run(self, paths: Sequence[Path], *, restart: bool = False) -> Report:
        """Import the files in order.

        Args:
            paths: Files, folders with files, or `-` for standard input. A file that cannot be opened is refused, and the others are
                imported.
            restart: Ignore checkpoints.

        Returns:
            The report. An error of the server during the import is in `stopped`.

        Raises:
            DecklogError: The server cannot be reached, or refuses the credential, before anything is sent.
        """
        report = self._report
        who = await self._client.whoami()
        if who.tenant is None or Permission.APPEND not in who.permissions:
            raise DecklogError(Code.FORBIDDEN, f"This key's role is {who.role!r}; importing needs a tenant's writer or admin.")
        report.tenant = who.tenant
        await self._choose_reader(who)
        report.asked = self._reader is not None
        files = files_of(paths)
        self._progress.begin(sum(_size(file) for file in files), len(files))
        try:
            for number, file in enumerate(files, start=1):
                self._progress.file(number)
                await self._file(file, self._listed(file), restart=restart)
        except DecklogError as error:
            report.stopped = f"{report.files[-1].file}: {error.detail}"
        else:
            self._forget(files)
        report.total()
        report.refusals = list(self._refused.kinds.values())
        self._progress.clear()
        return report

    async def _choose_reader(self, writer: shapes.WhoAmI) -> None:
        """Find the client that may ask the log for ids, or say that none may. Raises `forbidden` for a reader of another log."""
        if self._reader is not None:
            who = await self._reader.whoami()
            if who.tenant != writer.tenant or Permission.READ not in who.permissions:
                why = f"The key to read has the role {who.role!r} in the tenant {who.tenant!r}; auditor or admin of {writer.tenant!r} is needed."
                raise DecklogError(Code.FORBIDDEN, why)
        elif Permission.READ in writer.permissions:
            self._reader = self._client
        else:
            self._progress.say(FORGETFUL)

    def _listed(self, file: Path) -> FileReport:
        found = FileReport(str(file).encode(errors="replace").decode())  # a name need not be text, a report must
        self._report.files.append(found)
        return found

    def _forget(self, files: Sequence[Path]) -> None:
        """Remove the checkpoints of a complete import. Until then those of complete files stay, so that they are not sent again."""
        for file in files if self._checkpoints is not None else ():
            self._checkpoints.forget(self._key(file))  # type: ignore[union-attr]  # checked in the line above

    async def _file(self, path: Path, report: FileReport, *, restart: bool) -> None:
        try:
            source = EventFile(path)
        except OSError as error:
            self._refuse(report, 0, None, f"it cannot be read ({error.strerror})")
            return
        key = self._key(path)
        with source:
            resumable = self._checkpoints is not None and not restart and path != STDIN
            found = self._checkpoints.load(key) if resumable and self._checkpoints is not None else None
            run = _Run(source, report) if found is None else await self._resumed(source, report, found)
            while (piece := run.next()) is not None:
                await self._piece(run, piece, key)
            await self._send(run, key)
        self._done += source.position

    def _key(self, path: Path) -> tuple[str, ...]:
        return (self._client.url, self._report.tenant, self._report.kind, str(path.resolve()))

    async def _resumed(self, source: EventFile, report: FileReport, found: Checkpoint) -> _Run:
        """Return the state where an interrupted import left the file, or that of the file's start if file or log have changed."""
        run = _Run(source, report)
        last: Piece | None = None
        while run.read < found.pieces and (piece := run.next()) is not None:
            if run.took(piece) == found.sent:
                last = piece
        if run.digest() == found.digest and await self._known(last, found):
            report.resumed = run.read
            run.sent, run.seq = found.sent, found.seq
            for name in COUNTS:
                setattr(report, name, getattr(found, name))
            self._progress.skip(source.position, report.stored + report.duplicates)
            self._progress.say(f"{report.file}: resuming after {run.read} events")
            return run
        self._progress.say(f"{report.file}: the file or the log has changed; starting over")
        return _Run(source, report)

    async def _known(self, last: Piece | None, found: Checkpoint) -> bool:
        """Return whether the log still has what was acknowledged: the last such record, sent again, must be a duplicate."""
        if last is None or last.raw is None:
            return found.sent == 0
        try:
            record, _ = recorded(last.raw, self._kind)
        except NotAnEventError:
            return False
        if self._reader is not None:
            there = await self._there([record])
            return found.seq in there.values()
        item = (await self._deliver([record]))[0]
        if item.status == "stored" and item.seq is not None and item.seq > found.seq:
            self._progress.say(f"The dedup window has passed: record {found.seq} is in the log again as {item.seq}.")
            return True
        conflict = item.error is not None and item.error.code == Code.ID_CONFLICT
        return conflict or (item.status == "duplicate" and item.seq == found.seq)

    async def _piece(self, run: _Run, piece: Piece, key: tuple[str, ...]) -> None:
        try:
            if piece.raw is None:
                raise NotAnEventError(piece.problem)
            record, replaced = recorded(piece.raw, self._kind)
        except HoldsNoEventsError as error:
            run.took(piece)
            run.report.skipped += 1
            self._note(Refusal(run.report.file, piece.line, str(error), piece.item))
            return
        except NotAnEventError as error:
            run.took(piece)
            self._refuse(run.report, piece.line, piece.item, str(error))
            return
        if len(run.waiting) == BATCH_RECORDS_MAX or run.waiting_bytes + len(record) >= BATCH_BYTES_MAX:
            await self._send(run, key)
        run.waiting.append((run.took(piece), piece, record))
        run.waiting_bytes += len(record) + 1
        if replaced:
            run.report.replaced += replaced
            why = f"{replaced} characters that cannot be stored were replaced by {REPLACEMENT}"
            self._note(Refusal(run.report.file, piece.line, why, piece.item))

    async def _send(self, run: _Run, key: tuple[str, ...]) -> None:
        """Send the waiting records, and save a checkpoint."""
        report = run.report
        if run.waiting:
            items = await self._stored([record for _, _, record in run.waiting])
            for (number, piece, _), item in zip(run.waiting, items, strict=True):
                if item.seq is None:
                    error = item.error or ItemError("", "no reason was given")
                    self._refuse(report, piece.line, piece.item, f"{error.code}: {error.detail}")
                    continue
                run.sent, run.seq = number, item.seq
                report.stored += item.status == "stored"
                report.duplicates += item.status == "duplicate"
            run.waiting, run.waiting_bytes = [], 0
        if self._checkpoints is not None and run.source.path != STDIN:
            try:
                self._checkpoints.save(key, run.checkpoint())
            except OSError as error:
                self._progress.say(f"The checkpoint cannot be saved ({error}); continuing without.")
                self._checkpoints = None
        records = sum(file.stored + file.duplicates for file in self._report.files)
        self._progress.advance(report.file, self._done + run.source.position, records)

    async def _stored(self, records: Sequence[bytes]) -> list[BulkItem]:
        """Return the outcome of each record: of those that the log holds without sending them again."""
        there = await self._there(records)
        places = [there.get(_sent(record).id) for record in records] if there else [None] * len(records)
        sent = iter(await self._deliver([record for record, seq in zip(records, places, strict=True) if seq is None]))
        return [next(sent) if seq is None else BulkItem("duplicate", seq) for seq in places]

    async def _there(self, records: Sequence[bytes]) -> dict[str, int]:
        """Return the ids of records that the log holds, as far as it can be asked."""
        if (reader := self._reader) is None:
            return {}

        async def ask(body: dict[str, Any]) -> shapes.Page:
            return await self._patiently(lambda: reader.search(body))

        return await known(ask, (_sent(record).id for record in records))

    async def _deliver(self, records: Sequence[bytes]) -> list[BulkItem]:
        """Return the outcome of each record. Where the server refuses the size of a batch, later batches are smaller."""
        items: list[BulkItem] = []
        while len(items) < len(records):
            batch = records[len(items) : len(items) + self._at_once]
            try:
                items += await self._append(batch)
            except DecklogError as error:
                if error.code not in _SMALLER:
                    raise
                if len(batch) == 1:
                    items.append(BulkItem("rejected", None, ItemError(error.code.value, error.detail)))
                self._at_once = max(1, len(batch) // 2)
        return items

    async def _append(self, records: Sequence[bytes]) -> list[BulkItem]:
        """Send one bulk; ids make a retry safe."""

        async def send() -> list[BulkItem]:
            items = (await self._client.append_bulk(records, trim=True)).items
            raise_refused(items)
            return items

        return await self._patiently(send)

    async def _patiently(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Return an answer of the server; retry where it asks for that or cannot be reached."""
        async for attempt in stamina.retry_context(
            on=self._wait, attempts=None, timeout=RETRY_SECONDS_MAX, wait_initial=0.5, wait_max=30.0
        ):
            with attempt:
                answer = await ask()
        return answer

    def _wait(self, error: Exception) -> bool | float:
        """Return whether to retry, or the seconds to wait where the server names them."""
        if not isinstance(error, DecklogError) or error.code not in LATER:
            return False
        self._progress.waiting(error.detail)
        return True if error.retry_after is None else min(error.retry_after, AFTER_MAX)

    def _refuse(self, report: FileReport, line: int, item: int | None, reason: str) -> None:
        report.refused += 1
        self._say(self._refused, Refusal(report.file, line, reason, item), "refused: ")

    def _note(self, refusal: Refusal) -> None:
        self._say(self._noted, refusal, "")

    def _say(self, reasons: Reasons, refusal: Refusal, what: str) -> None:
        """Show a refusal while its kind has few of them. The summary counts all."""
        if reasons.add(refusal):
            self._progress.say(f"{refusal.place}: {what}{refusal.reason}")
