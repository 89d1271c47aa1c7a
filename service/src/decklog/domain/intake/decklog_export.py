"""Mapping of records that another log of Decklog exported, as JSON or as CSV.

The fields of the record stay as they are. What the server of the other log assigned goes to `metadata.decklog`: a client cannot
assign it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from decklog.domain.intake.foreign_event import NotAnEventError, required
from decklog.domain.records.wire import CSV_PATHS, evaluable

ORIGIN = "decklog"
"""Member of `metadata` with what the other server assigned."""
ASSIGNED = ("tenant", "log", "epoch", "seq", "received_at", "digest", "recorded_by", "masked")
_KNOWN = {"seq", "received_at", "digest", "action"}
_JSON_COLUMNS = frozenset({"metadata", "before", "after", "related", "recorded_by", "masked"})


def is_export(event: dict[str, Any]) -> bool:
    """Return whether an object is a record with what a server assigned."""
    return event.keys() >= _KNOWN


def record(event: Any) -> dict[str, Any]:
    """Return the record to append, as plain JSON. Raises NotAnEventError.

    Its id is that of the exported record, or its place in the other log. A record that was imported into the other log keeps the
    origin that it has.
    """
    if not isinstance(event, dict):
        raise NotAnEventError("it is not a JSON object")
    required(event, "action")
    if not is_export(event):
        raise NotAnEventError(f"it has no {sorted(_KNOWN - event.keys())[0]}, so it is not an exported record")
    content = {name: value for name, value in event.items() if name not in ASSIGNED}
    origin = {name: event[name] for name in ASSIGNED if name in event}
    metadata = content.get("metadata", {})
    if not isinstance(metadata, dict):
        metadata = {"value": metadata}
    place = "/".join(str(event.get(name, "")) for name in ("tenant", "log", "epoch", "seq"))
    return {"id": f"decklog:{place}", **content, "metadata": {ORIGIN: origin, **metadata}}


def of_cells(columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """Return the record of one row of a CSV export. Raises NotAnEventError."""
    if len(cells) != len(columns):
        raise NotAnEventError(f"it has {len(cells)} cells, and the first row has {len(columns)}")
    event: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=True):
        if cell == "":
            continue
        *parents, name = CSV_PATHS.get(column, (column,))
        holder = event
        for parent in parents:
            holder = holder.setdefault(parent, {})
        holder[name] = _value(column, evaluable(cell))
    return event


def _value(column: str, text: str) -> Any:
    if column not in _JSON_COLUMNS and column not in ("seq", "epoch"):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise NotAnEventError(f"its {column} is not JSON") from None
