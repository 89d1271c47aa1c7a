"""Verifies an archive from its manifest and its files alone: no database and no running Decklog are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from decklog.domain.archive.manifest import (
    MANIFEST_BYTES_MAX,
    PART_BYTES_MAX,
    ArchiveError,
    ArchiveManifest,
    ArchiveObjects,
    DecodePart,
    Part,
    manifest_problems,
    part_problems,
)
from decklog.domain.errors import Code, DecklogError

PROBLEMS_MAX = 100
"""Problems that are listed. The check continues to the end and counts all of them."""


class ArchiveReport(msgspec.Struct):
    """The result of a verification. `records` counts the records of parts without a problem."""

    manifest: str
    tenant: str
    uid: str
    keep_until: str
    parts: int = 0
    records: int = 0
    bytes: int = 0
    logs: dict[str, int] = {}
    problems: list[str] = []
    problem_count: int = 0

    @property
    def sound(self) -> bool:
        """True where no problem was found."""
        return self.problem_count == 0

    def note(self, problem: str) -> None:
        """Count a problem and list it, within `PROBLEMS_MAX`."""
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


async def check_archive(
    objects: ArchiveObjects, name: str, decode: DecodePart, *, progress: Callable[[str], None] = lambda _: None
) -> ArchiveReport:
    """Read a manifest and every file that it lists, one at a time, and return what is wrong with them.

    Checks are SHA-256 and size of files, counts, gapless numbers, and the digest of each record.

    Args:
        objects: The archive.
        name: Name of the manifest in it.
        decode: Decodes the records of a part.
        progress: Receives a line of text after each file.

    Raises:
        ArchiveError: A file could not be read for another reason than that it is missing or damaged.
        DecklogError: `misconfigured` where the named object is not a manifest.
    """
    content = await objects.get(name, bytes_max=MANIFEST_BYTES_MAX)
    try:
        manifest = msgspec.json.decode(content, type=ArchiveManifest)
    except msgspec.DecodeError as error:
        raise DecklogError(Code.MISCONFIGURED, f"{objects.place}/{name} is not the manifest of an archive: {error}.") from None
    report = ArchiveReport(name, manifest.tenant, manifest.uid, manifest.keep_until, logs={}, problems=[])
    if manifest.name != name:
        report.note(f"the manifest names itself {manifest.name}")
    for problem in manifest_problems(manifest):
        report.note(problem)
    total = sum(len(log.parts) for log in manifest.logs.values())
    for log, archived in manifest.logs.items():
        report.logs[log] = archived.next_seq
        for part in archived.parts:
            await _check_part(objects, part, decode, report)
            progress(f"{report.parts} of {total} files, {report.records} records")
    return report


async def _check_part(objects: ArchiveObjects, part: Part, decode: DecodePart, report: ArchiveReport) -> None:
    report.parts += 1
    try:
        content = await objects.get(part.name, bytes_max=PART_BYTES_MAX)
    except ArchiveError as error:
        if error.reason not in {"NotFound", "Damaged"}:
            raise
        report.note(f"{part.name}: {error.detail}")
        return
    report.bytes += len(content)
    if (len(content), hashlib.sha256(content).hexdigest()) != (part.bytes, part.sha256):
        report.note(f"{part.name}: its {len(content)} bytes differ from those that were written (SHA-256)")
        return
    try:
        wrong = part_problems(part, decode(content))
    except ArchiveError as error:
        wrong = [error.detail]
    for problem in wrong:
        report.note(f"{part.name}: {problem}")
    if not wrong:
        report.records += part.rows
