"""Whole records in an export, of which the last one may be cut off anywhere."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from decklog.domain.log import Position

_SCAN_BYTES = 1024 * 1024


class Rows:
    """Finds the ends of rows in pieces of an export: line feeds, in CSV those outside of quotes."""

    def __init__(self, *, quoted: bool) -> None:
        self._quoted = quoted
        self._within = False
        self.ended = 0
        """Rows that have ended so far."""

    def ends(self, piece: bytes) -> list[int]:
        """Return the offsets behind the rows that end in a piece."""
        found: list[int] = []
        if not self._quoted:
            at = piece.find(b"\n")
            while at >= 0:
                found.append(at + 1)
                at = piece.find(b"\n", at + 1)
        else:
            start = 0
            for line in piece.splitlines(keepends=True):
                self._within ^= line.count(b'"') % 2 == 1
                start += len(line)
                if line.endswith(b"\n") and not self._within:
                    found.append(start)
        self.ended += len(found)
        return found


class Whole(NamedTuple):
    """The whole records of a file that was cut off: their number, the bytes that they take, and the place of the last one."""

    records: int
    size: int
    last: Position | int | None
    """None where there is no record."""


def whole_records(file: Path, format_: str) -> Whole:
    """Return the whole records at the beginning of a file. Raises ValueError where the last of them has no number."""
    rows, size = Rows(quoted=format_ == "csv"), 0
    header = row = rest = b""
    with file.open("rb") as opened:
        while piece := opened.read(_SCAN_BYTES):
            if not (ends := rows.ends(piece)):
                rest += piece
                continue
            header = header or rest + piece[: ends[0]]
            row = piece[ends[-2] : ends[-1]] if len(ends) > 1 else rest + piece[: ends[-1]]
            size = opened.tell() - len(piece) + ends[-1]
            rest = piece[ends[-1] :]
    if format_ != "csv":
        return Whole(rows.ended, size, _place_of_json(row) if row else None)
    records = max(rows.ended - 1, 0)
    return Whole(records, size if records else 0, _place_of_csv(header, row) if records else None)


def _place_of_json(row: bytes) -> Position | int:
    found: dict[str, Any] = msgspec.json.decode(row)
    return _place(found)


def _place_of_csv(header: bytes, row: bytes) -> Position | int:
    names, cells = (next(csv.reader(io.StringIO(text.decode("utf-8-sig"), newline=""))) for text in (header, row))
    return _place(dict(zip(names, cells, strict=True)))


def _place(members: dict[str, Any]) -> Position | int:
    """Return the position of a record, or its number alone where the export leaves out the rest."""
    if "seq" not in members:
        raise ValueError("the records have no seq")
    seq = int(members["seq"])
    if "epoch" not in members or "received_at" not in members:
        return seq
    return msgspec.convert(
        {"epoch": int(members["epoch"]), "received_at": members["received_at"], "seq": seq}, Position, strict=False
    )
