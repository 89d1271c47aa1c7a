"""What an import did: counts for each file and as a whole, and refusals by kind with a few examples of each."""

from __future__ import annotations

import re

import msgspec

EXAMPLES_MAX = 5
"""Refusals of one kind that a report lists; all are counted."""
KINDS_MAX = 50
"""Kinds of refusal that a report tells apart."""
FILES_SHOWN_MAX = 20
"""Files that a summary lists one by one."""
_OTHER = "other reasons"
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|\(.*\)|\d+")
"""Parts of a reason that differ between refusals of one kind."""


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event that was not stored. `line` counts from 1 and is 0 for the file itself; `item` counts within one line."""

    file: str
    line: int
    reason: str
    item: int | None = None

    @property
    def place(self) -> str:
        """Return file, line and item as text."""
        return f"{self.file}:{self.line}" + (f" (item {self.item})" if self.item is not None else "") if self.line else self.file


class Kind(msgspec.Struct):
    """Refusals for the same reason. `reason` is that of the first."""

    reason: str
    count: int
    examples: list[Refusal]


class FileReport(msgspec.Struct):
    """Counts of one file.

    `resumed` is the number of pieces that an earlier, interrupted import had done; the other counts include them. `skipped` is the
    number of pieces that belong to the files and hold no events. `replaced` is the number of characters that cannot be stored and
    became U+FFFD.
    """

    file: str
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    skipped: int = 0
    replaced: int = 0
    resumed: int = 0


COUNTS = ("stored", "duplicates", "refused", "skipped", "replaced")


class Report(msgspec.Struct):
    """Counts of an import.

    `asked`: the log was asked which events it holds, so that none is there twice. `stopped` says why the import ended early; it is
    empty for a complete one.
    """

    kind: str
    url: str
    tenant: str
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    skipped: int = 0
    replaced: int = 0
    files: list[FileReport] = []
    refusals: list[Kind] = []
    asked: bool = False
    stopped: str = ""

    def total(self) -> None:
        """Set the counts to those of all files."""
        for name in COUNTS:
            setattr(self, name, sum(getattr(file, name) for file in self.files))


class Reasons:
    """Reasons by kind, in the order of their first occurrence."""

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}

    def add(self, refusal: Refusal) -> bool:
        """Count a refusal, and return whether it is among the examples of its kind."""
        key = _VALUE.sub("…", refusal.reason)
        if key not in self.kinds and len(self.kinds) >= KINDS_MAX:
            key = _OTHER
        kind = self.kinds.setdefault(key, Kind(_OTHER if key == _OTHER else refusal.reason, 0, []))
        kind.count += 1
        if len(kind.examples) >= EXAMPLES_MAX:
            return False
        kind.examples.append(refusal)
        return True


def summary(report: Report) -> str:
    """Return a report as lines of text: the files if they are few, one line for each kind of refusal, then the totals."""
    lines = _files(report.files)
    for kind in report.refusals:
        more = f" and {kind.count - len(kind.examples)} more" if kind.count > len(kind.examples) else ""
        lines.append(f"{kind.count} × {kind.reason}: {', '.join(refusal.place for refusal in kind.examples)}{more}")
    if report.stored and not report.asked:
        lines.append(
            "The server knows ids for the tenant's dedupWindow (24 hours by default). If these events were imported before that, they "
            "are stored twice now."
        )
    lines.append(f"{_counts(report)}, in tenant {report.tenant!r}.")
    if report.replaced:
        lines.append(f"{report.replaced} characters that cannot be stored were replaced.")
    if report.stopped:
        lines.append(f"Stopped early: {report.stopped} The same command continues from there.")
    return "\n".join(lines)


def _files(files: list[FileReport]) -> list[str]:
    if len(files) == 1:
        return []
    if len(files) > FILES_SHOWN_MAX:
        return [f"{len(files)} files"]
    return [f"{file.file}: {_counts(file)}" for file in files]


def _counts(counted: Report | FileReport) -> str:
    skipped = f", {counted.skipped} without events" if counted.skipped else ""
    return f"{counted.stored} stored, {counted.duplicates} already there, {counted.refused} refused{skipped}"
