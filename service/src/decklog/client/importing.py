"""Import audit events of other systems into a log: read, map, send, and resume.

Every event has an id, so to send one again is safe. Batches are sent one after the other, so events keep their order. What is
not an event is refused by file and line, and the rest is imported.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import stamina
from msgspec.structs import replace

from decklog.client.checkpoint import Checkpoint, Checkpoints
from decklog.client.client import Client
from decklog.client.event_files import EventFile, Piece
from decklog.client.progress import Progress
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Permission
from decklog.domain.intake import cloudtrail, kubernetes_audit
from decklog.domain.intake.foreign_event import REPLACEMENT, NotAnEventError, storable
from decklog.domain.records.record import MESSAGE_CHARS_MAX, RECORD_BYTES_MAX, RecordInput
from decklog.shapes import BulkItem, ItemError

MAPPINGS: dict[str, Callable[[Any], RecordInput]] = {"cloudtrail": cloudtrail.record, "kubernetes": kubernetes_audit.record}
BATCH_RECORDS_MAX = 500
BATCH_BYTES_MAX = 8 * 1024 * 1024
REFUSALS_MAX = 1_000
"""Refusals that a report lists. Further ones are counted, and each is shown when it happens."""
RETRY_SECONDS_MAX = 600.0
"""Seconds for which one batch is retried while the server asks to retry later, or cannot be reached."""
RETRY_AFTER_MAX = 60.0

_LATER = {
    Code.RATE_LIMITED,
    Code.OVERLOADED,
    Code.OUTCOME_UNKNOWN,
    Code.STORAGE_UNAVAILABLE,
    Code.REGISTRY_STALE,
    Code.ISSUER_UNAVAILABLE,
    Code.CLOCK_BEHIND,
    Code.REQUEST_TIMEOUT,
}
_OF_RECORDS = {Code.INVALID_RECORD, Code.INVALID_JSON, Code.BODY_TOO_LARGE, Code.ID_CONFLICT}
"""Refusals of one record of a bulk. Any other in an item refuses a later part of the bulk, as an answer would the whole."""
_CODES = {code.value: code for code in Code}
_SMALLER = {Code.BATCH_EXCEEDS_BURST, Code.BODY_TOO_LARGE, Code.TOO_MANY_RECORDS}


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event that was not stored. `line` counts from 1 and is 0 for the file itself; `item` counts within one line."""

    file: str
    line: int
    reason: str
    item: int | None = None


class FileReport(msgspec.Struct):
    """Counts of one file.

    `resumed` is the number of pieces that an earlier, interrupted import had done; the other counts include them. `replaced` is
    the number of characters that cannot be stored and became U+FFFD.
    """

    file: str
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    replaced: int = 0
    resumed: int = 0


class Report(msgspec.Struct):
    """Counts of an import. `stopped` says why the import ended early; it is empty for a complete one."""

    kind: str
    url: str
    tenant: str
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    replaced: int = 0
    files: list[FileReport] = []
    refusals: list[Refusal] = []
    stopped: str = ""


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a number that can be stored")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def parsed(raw: bytes) -> Any:
    """Return the value of JSON text, in which lone surrogates are allowed. Raises NotAnEventError."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.ValidationError as error:
        raise NotAnEventError(f"it holds a number that cannot be stored ({error})") from None
    except UnicodeDecodeError:
        raise NotAnEventError("it is not UTF-8") from None
    except msgspec.DecodeError as error:
        try:
            return json.loads(raw.decode(), parse_constant=_no_constant, parse_float=_finite)
        except ValueError:
            raise NotAnEventError(f"it is not JSON ({error})") from None


def mapped(mapping: Callable[[Any], RecordInput], raw: bytes) -> tuple[bytes, int]:
    """Return a record as JSON, and the number of characters that were replaced in it. Raises NotAnEventError."""
    try:
        event, replaced = parsed(raw), 0
        if b"\\u" in raw:  # the only way to write what cannot be stored
            event, replaced = storable(event)
        record = mapping(event)
        if replaced:
            note = f"[{replaced} characters that cannot be stored were replaced by {REPLACEMENT}]"
            record = replace(record, message=f"{(record.message or '')[: MESSAGE_CHARS_MAX - len(note) - 1]} {note}".strip())
        encoded = msgspec.json.encode(record)
    except RecursionError:
        raise NotAnEventError("it is nested too deeply") from None
    if len(encoded) > RECORD_BYTES_MAX:
        raise NotAnEventError(f"its record would have {len(encoded)} bytes; at most {RECORD_BYTES_MAX} are allowed")
    return encoded, replaced


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
        return Checkpoint(
            self.read, self.digest(), self.sent, self.seq, report.stored, report.duplicates, report.refused, report.replaced
        )


def _raise_refused(items: Sequence[BulkItem]) -> None:
    """Raise the refusal of a later part of a bulk. Sending the whole again is safe: each record has an id."""
    for item in items:
        if item.error is not None and item.error.code not in _OF_RECORDS:
            raise DecklogError(_CODES.get(item.error.code, Code.INTERNAL), item.error.detail)


def _size(file: Path) -> int:
    """Return the size in bytes; 0 for a file that cannot be read, which the import refuses later."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


class Importer:
    """Imports files of one kind through one client. With `checkpoints` None, an interrupted import cannot be resumed."""

    def __init__(self, client: Client, kind: str, progress: Progress, checkpoints: Checkpoints | None) -> None:
        self._client = client
        self._mapping = MAPPINGS[kind]
        self._progress = progress
        self._checkpoints = checkpoints
        self._report = Report(kind, client.url, "")
        self._at_once = BATCH_RECORDS_MAX
        self._done = 0

    async def run(self, files: Sequence[Path], *, restart: bool = False) -> Report:
        """Import the files in order.

        Args:
            files: Paths. A file that cannot be opened is refused, and the others are imported.
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
        self._progress.begin(sum(_size(file) for file in files))
        for file in files:
            found = FileReport(str(file).encode(errors="replace").decode())  # a name need not be text, a report must
            report.files.append(found)
            try:
                await self._file(file, found, restart=restart)
            except DecklogError as error:
                report.stopped = f"{file}: {error.detail}"
                break
        for name in ("stored", "duplicates", "refused", "replaced"):
            setattr(report, name, sum(getattr(file, name) for file in report.files))
        self._progress.clear()
        return report

    async def _file(self, path: Path, report: FileReport, *, restart: bool) -> None:
        try:
            source = EventFile(path)
        except OSError as error:
            self._refuse(report, 0, None, f"it cannot be read ({error.strerror})")
            return
        key = self._key(path)
        with source:
            found = self._checkpoints.load(key) if self._checkpoints is not None and not restart else None
            run = _Run(source, report) if found is None else await self._resumed(source, report, found)
            while (piece := run.next()) is not None:
                await self._piece(run, piece, key)
            await self._send(run, key)
        if self._checkpoints is not None:
            self._checkpoints.forget(key)
        self._done += source.size

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
            for name in ("stored", "duplicates", "refused", "replaced"):
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
            record, _ = mapped(self._mapping, last.raw)
        except NotAnEventError:
            return False
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
            record, replaced = mapped(self._mapping, piece.raw)
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
            self._progress.say(
                f"{run.report.file}:{piece.place}: {replaced} characters that cannot be stored were replaced by {REPLACEMENT}"
            )

    async def _send(self, run: _Run, key: tuple[str, ...]) -> None:
        """Send the waiting records, and save a checkpoint."""
        report = run.report
        if run.waiting:
            items = await self._deliver([record for _, _, record in run.waiting])
            for (number, piece, _), item in zip(run.waiting, items, strict=True):
                if item.seq is None:
                    error = item.error or ItemError("", "no reason was given")
                    self._refuse(report, piece.line, piece.item, f"{error.code}: {error.detail}")
                    continue
                run.sent, run.seq = number, item.seq
                report.stored += item.status == "stored"
                report.duplicates += item.status == "duplicate"
            run.waiting, run.waiting_bytes = [], 0
        if self._checkpoints is not None:
            try:
                self._checkpoints.save(key, run.checkpoint())
            except OSError as error:
                self._progress.say(f"The checkpoint cannot be saved ({error}); continuing without.")
                self._checkpoints = None
        records = sum(file.stored + file.duplicates for file in self._report.files)
        self._progress.advance(report.file, self._done + run.source.position, records)

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
        """Send one bulk, and retry where the server asks for it or cannot be reached; ids make that safe."""
        async for attempt in stamina.retry_context(
            on=self._wait, attempts=None, timeout=RETRY_SECONDS_MAX, wait_initial=0.5, wait_max=30.0
        ):
            with attempt:
                items = (await self._client.append_bulk(records)).items
                _raise_refused(items)
        return items

    def _wait(self, error: Exception) -> bool | float:
        """Return whether to retry, or the seconds to wait where the server names them."""
        if not isinstance(error, DecklogError) or error.code not in _LATER:
            return False
        self._progress.waiting(error.detail)
        return True if error.retry_after is None else min(error.retry_after, RETRY_AFTER_MAX)

    def _refuse(self, report: FileReport, line: int, item: int | None, reason: str) -> None:
        report.refused += 1
        place = f"{report.file}:{line}" + (f" (item {item})" if item is not None else "") if line else report.file
        self._progress.say(f"{place}: refused: {reason}")
        if len(self._report.refusals) < REFUSALS_MAX:
            self._report.refusals.append(Refusal(report.file, line, reason, item))
