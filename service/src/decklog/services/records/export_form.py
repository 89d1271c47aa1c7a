"""The forms of an export: what begins and ends the file, and how records are written."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

import msgspec

from decklog.domain.errors import invalid_parameter
from decklog.domain.records import projection
from decklog.domain.records.record import StoredRecord
from decklog.domain.records.wire import csv_cells, csv_header, csv_rows, inert
from decklog.services.records.list_options import WAIT
from decklog.services.records.views import View

CONTENT_TYPES = {
    "ndjson": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8; header=present",
}
"""The formats of an export, the default first."""
EXPORT_PARAMETERS = ("format", "fields", "bom", "after", "count", WAIT)
"""Names of the parameters of an export, beside its filters."""


class Form(msgspec.Struct, frozen=True):
    """The form of one export. `fields` are the paths of the chosen fields, empty for records as they are visible.

    Raises:
        DecklogError: `invalid-parameter` for what the format does not have.
    """

    format: str
    fields: tuple[str, ...] = ()
    bom: bool = False

    def __post_init__(self) -> None:
        if self.bom and self.format != "csv":
            raise invalid_parameter("bom", "is for format=csv only.")
        if self.fields and self.format == "json":
            raise invalid_parameter("fields", "is for format=ndjson and format=csv only.")

    @property
    def content_type(self) -> str:
        """Return the media type, with its parameters."""
        return CONTENT_TYPES[self.format]

    @property
    def opening(self) -> bytes:
        """Return what precedes the records."""
        if self.format == "json":
            return b"["
        if self.format != "csv":
            return b""
        header = csv_rows([self.fields]) if self.fields else csv_header()
        return (codecs.BOM_UTF8 if self.bom else b"") + header.encode()

    @property
    def closing(self) -> bytes:
        """Return what follows the records."""
        return b"\n]\n" if self.format == "json" else b""

    def joined(self, written: Sequence[bytes], *, first: bool) -> bytes:
        """Return written records as one text. `first` says whether no record precedes them."""
        if self.format == "csv":
            return b"".join(written)
        if self.format == "json":
            return (b"\n" if first else b",\n") + b",\n".join(written)
        return b"\n".join(written) + b"\n"

    def writer(self, view: View) -> Callable[[StoredRecord], bytes]:
        """Return the function that writes one record as this view shows it."""
        fields, render = self.fields, view.writer()
        if self.format != "csv":
            return (
                (lambda record: projection.as_object(render(record), fields))
                if fields
                else lambda record: render(record).encode()
            )
        if fields:
            return lambda record: csv_rows([[inert(cell) for cell in projection.as_cells(render(record), fields)]]).encode()
        return lambda record: csv_rows([csv_cells(view.tenant.name, view.log, record)]).encode()
