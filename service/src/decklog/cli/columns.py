"""The columns of a table of records: the short names that a person types, and any path of a record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from decklog.cli.zone import Clock
from decklog.domain.errors import Code, DecklogError
from decklog.domain.records.projection import ROOTS, checked

Item = Mapping[str, Any]


class Column(NamedTuple):
    """One column. `cell` returns its text; `fixed` columns are never narrowed, and the others keep their end where `tail` is set."""

    name: str
    cell: Callable[[Item], str]
    fixed: bool = False
    tail: bool = False


def value_at(item: Any, path: str) -> Any:
    """Return the value at a path with dots between names, None where there is none. The longest name that exists counts."""
    if not isinstance(item, Mapping):
        return None
    if path in item:
        return item[path]
    end = path.rfind(".")
    while end > 0:
        if (found := value_at(item.get(path[:end]), path[end + 1 :])) is not None:
            return found
        end = path.rfind(".", 0, end)
    return None


def text_of(value: Any) -> str:
    """Return a value as one text: strings as they are, other values as JSON, and nothing for what is absent."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _first(*paths: str) -> Callable[[Item], str]:
    return lambda item: next((text for path in paths if (text := text_of(value_at(item, path)))), "")


def member(name: str, *, fixed: bool = True) -> Column:
    """Return the column of one member of an item."""
    return Column(name, lambda item: text_of(item[name]), fixed=fixed, tail=not fixed)


def moment(name: str, clock: Clock) -> Column:
    """Return the column of one member that is a time; empty where it is null."""
    return Column(name, lambda item: clock.text(item[name]) if item[name] else "", fixed=True)


def _resource(item: Item) -> str:
    kind, name = _first("resource.type")(item), _first("resource.name", "resource.id")(item)
    return f"{kind} {name}".strip()


def _time(path: str, clock: Clock) -> Callable[[Item], str]:
    return lambda item: clock.text(text) if (text := text_of(value_at(item, path))) else ""


_SHORT = ("seq", "time", "received", "actor", "action", "resource", "outcome", "severity", "ip", "session", "request", "message")
_FIXED = frozenset({"seq", "time", "received", "outcome", "severity", "ip"})
_TABLE = ("seq", "time", "actor", "action", "resource", "outcome")
_WIDE = ("seq", "time", "received", "actor", "action", "resource", "outcome", "severity", "ip", "session", "request", "message")


def column_names(_: Any = None) -> Iterable[str]:
    """Return the names that --columns takes, for completion."""
    return (*_SHORT, *ROOTS)


def record_columns(names: str | None, clock: Clock, *, wide: bool) -> list[Column]:
    """Return the columns of these names, separated by commas; without names, the usual ones. Raises `misconfigured`."""
    wanted = names.split(",") if names else (_WIDE if wide else _TABLE)
    return [_column(name.strip(), clock) for name in wanted]


def _column(name: str, clock: Clock) -> Column:
    cells: dict[str, Callable[[Item], str]] = {
        "time": _time("occurred_at", clock),
        "received": _time("received_at", clock),
        "occurred_at": _time("occurred_at", clock),
        "received_at": _time("received_at", clock),
        "actor": _first("actor.name", "actor.id"),
        "resource": _resource,
        "ip": _first("source.ip"),
        "session": _first("session_id"),
        "request": _first("correlation_id"),
    }
    if name not in _SHORT:
        _check(name)
    return Column(
        name,
        cells.get(name) or _first(name),
        fixed=name in _FIXED or (name in cells and name.endswith("_at")),
        tail=name != "message",
    )


def _check(name: str) -> None:
    try:
        checked([name])
    except DecklogError:
        short = ", ".join(_SHORT)
        raise DecklogError(
            Code.MISCONFIGURED,
            f"--columns: {name[:80]!r} is no column. Columns are {short}, and paths of a record such as actor.id or metadata.reason.",
        ) from None
