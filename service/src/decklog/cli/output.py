"""Output of a verb: a table on a terminal, plain lines for a pipe, and JSON, NDJSON or CSV where they are asked for."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from decklog.cli.columns import Column, Item
from decklog.client.progress import printable
from decklog.domain.records.wire import inert

Output = Annotated[Literal["table", "wide", "json", "ndjson", "csv"], Parameter(name=("--output", "-o"))]
"""How a list is printed."""
OUTPUT_HELP = """On a terminal a list is a table that fits its width. A pipe gets the same columns without heading and colour: one line for each
item, with tabs between values that are never cut. -o wide has more columns, none of them cut, -o csv has a heading, -o json is one document as the API
answers, and -o ndjson has one item a line, both with the very bytes of the server."""

_GAP = 2
_WIDTH_MIN = 6
"""Columns of a terminal that a cell keeps however narrow the terminal is."""
_USUAL_WIDTH = 40
_USUAL_WIDTHS = {"seq": 8, "time": 19, "received": 19, "outcome": 7, "severity": 8, "ip": 15}
"""Columns of a terminal for values that come one by one."""
_COLOURS = {
    "success": "green",
    "failure": "yellow",
    "denied": "red",
    "unknown": "dim",
    "WARNING": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold red",
}


def decoded(item: bytes | msgspec.Raw) -> Item:
    """Return the members of an item. Numbers with a fraction are texts, so that they keep their digits."""
    found: Item = json.loads(bytes(item), parse_float=str)
    return found


def encoded(items: Sequence[Any]) -> list[bytes]:
    """Return structs as the bytes of their JSON."""
    return [msgspec.json.encode(item) for item in items]


class Listing:
    """Prints a list of items, each given as the bytes of a JSON object. Use it as a context manager.

    Args:
        columns: Columns of the table; JSON and NDJSON have whole items.
        output: The form.
        live: Whether a person reads on a terminal.
        flowing: Whether each item is printed at once, in columns of usual widths.
    """

    def __init__(self, columns: Sequence[Column], output: str, *, live: bool, flowing: bool = False) -> None:
        self._columns = columns
        self._flowing = flowing
        self._output = output
        self._live = live
        self._rows: list[list[str]] = []
        self._items: list[bytes] = []
        self.count = 0
        if output == "csv":
            csv.writer(sys.stdout, lineterminator="\n").writerow([column.name for column in columns])

    def add(self, item: bytes | msgspec.Raw) -> None:
        """Print an item, or keep it where the form needs all of them."""
        self.count += 1
        if self._output == "json":
            self._items.append(bytes(item))
        elif self._output == "ndjson":
            sys.stdout.write(bytes(item).decode() + "\n")
        else:
            self._add_row(decoded(item))
        if self._flowing:
            sys.stdout.flush()

    def _add_row(self, item: Item) -> None:
        cells = [column.cell(item) for column in self._columns]
        if self._output == "csv":
            csv.writer(sys.stdout, lineterminator="\n").writerow([inert(cell) for cell in cells])
        elif self._live and self._flowing:
            shown = [printable(cell) for cell in cells]
            screen = console()
            screen.print(row_text(shown, self._columns, _usual_widths(self._columns, screen.width)))
        elif self._live:
            self._rows.append([printable(cell) for cell in cells])
        else:
            sys.stdout.write("\t".join(printable(cell) for cell in cells) + "\n")

    def close(self, members: Mapping[str, Any] | None = None) -> None:
        """Print what was kept. `members` stand beside `items` in a JSON document."""
        if self._output == "json":
            rest = "".join(
                f",{json.dumps(name)}:{msgspec.json.encode(value).decode()}" for name, value in (members or {}).items()
            )
            sys.stdout.write(f'{{"items":[{b",".join(self._items).decode()}]{rest}}}\n')
        elif self._rows:
            _print_table(self._columns, self._rows, cut=self._output != "wide")
        sys.stdout.flush()


def is_live(output: str) -> bool:
    """Return whether a table is read by a person: the output is one, and goes to a terminal."""
    return output in ("table", "wide") and sys.stdout.isatty()


def console() -> Console:
    """Return the terminal. Texts are printed as they are: nothing in a record is markup."""
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)


def fitted(widths: Sequence[int], fixed: Sequence[bool], room: int) -> list[int]:
    """Return widths that together need no more than `room`, as far as columns that are not `fixed` can be narrowed.

    The widest one is narrowed first, so columns that are narrow anyway keep their width.
    """
    found = list(widths)
    loose = [index for index, kept in enumerate(fixed) if not kept]
    excess = sum(found) - room
    while excess > 0 and loose:
        widest = max(found[index] for index in loose)
        at_widest = [index for index in loose if found[index] == widest]
        if widest <= _WIDTH_MIN:
            break
        below = max([_WIDTH_MIN, *(found[index] for index in loose if found[index] < widest)])
        step = max(1, min(widest - below, excess // len(at_widest)))
        for index in at_widest:
            if excess > 0:
                found[index] -= step
                excess -= step
    return found


def shortened(text: str, width: int, *, tail: bool) -> str:
    """Return a text of at most `width` columns. An ellipsis stands for the beginning where `tail` is set, else for the end."""
    if cell_len(text) <= width:
        return text
    if tail:
        return "…" + (chop_cells(text[::-1], width - 1) or [""])[0][::-1]
    return (chop_cells(text, width - 1) or [""])[0] + "…"


def _usual_widths(columns: Sequence[Column], width: int) -> list[int]:
    """Return widths for rows that are not known yet."""
    natural = [_USUAL_WIDTHS.get(column.name, _USUAL_WIDTH) for column in columns]
    return fitted(natural, [column.fixed for column in columns], width - _GAP * (len(columns) - 1))


def _print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, cut: bool) -> None:
    screen = console()
    heads = [column.name.upper() for column in columns]
    natural = [max(map(cell_len, cells)) for cells in zip(heads, *rows, strict=True)]
    room = screen.width - _GAP * (len(columns) - 1)
    widths = fitted(natural, [column.fixed for column in columns], room) if cut else natural
    screen.print(row_text(heads, columns, widths, style="bold"))
    for row in rows:
        screen.print(row_text(row, columns, widths))


def row_text(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int], *, style: str = "") -> Text:
    """Return one line of a table; one with a style of its own is the heading, which keeps its beginning."""
    line = Text()
    for number, (cell, column, width) in enumerate(zip(cells, columns, widths, strict=True)):
        shown = shortened(cell, width, tail=column.tail and not style)
        line.append(shown, style=style or _COLOURS.get(cell, ""))
        if number < len(columns) - 1:
            line.append(" " * (width - cell_len(shown) + _GAP))
    return line
