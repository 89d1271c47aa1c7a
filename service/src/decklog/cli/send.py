"""`decklog send`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND, NOTHING
from decklog.cli.manual import manual
from decklog.client.event_files import STDIN, EventFile
from decklog.client.json_values import Piece
from decklog.client.progress import Progress, printable
from decklog.client.sending import Sent, maker, send_all
from decklog.domain.errors import Code, DecklogError

app = App(
    name="send",
    help_epilogue=manual(
        f"""Stores one record that the options describe, or the records of a file: NDJSON, an array or any other JSON, plain or
compressed; - is standard input. A record without an id gets a random one. The same ids are in every retry, so a record is stored once,
however often the connection breaks.

Where the command itself may be repeated, give --idempotency-key: record i then has the id KEY/i in each run. Exit code 3 says that it
is not known whether everything is stored.

Refused records are named on standard error by their lines; the others are stored.

{KEY_HELP}""",
        "decklog send --action document.delete --actor alice --resource document/d-17 --metadata reason=retention",
        "decklog send events.ndjson --idempotency-key 2026-03-01",
        'journalctl -o json -u shop --since today | jq -c \'{action: "shop.log", actor: {id: "shop"}, message: .MESSAGE}\' | decklog send -',
        exits=EXITS,
    ),
)


@Parameter(name="*")
@dataclass(frozen=True)
class Described:
    """A record, described by options."""

    action: str | None = None
    """Action, such as document.delete."""
    actor: str | None = None
    """Actor: an id, or type/id."""
    resource: str | None = None
    """Resource: type/id."""
    outcome: Literal["success", "failure", "denied", "unknown"] | None = None
    """How it ended."""
    severity: Literal["INFO", "WARNING", "ERROR", "CRITICAL"] | None = None
    """How grave it is."""
    message: str | None = None
    """Text for people."""
    occurred_at: str | None = None
    """When it happened, as RFC 3339 (now)."""
    session: str | None = None
    """Id of the session."""
    request: str | None = None
    """Id of the request, correlation_id."""
    ip: str | None = None
    """Address of the source."""
    metadata: Annotated[tuple[str, ...], Parameter(name="--metadata", show_default=False, consume_multiple=False)] = ()
    """Further fact as name=value; may be repeated."""
    id: str | None = None
    """Id of the record. A second record of this id is not stored."""

    def record(self) -> bytes | None:
        """Return the record, None where no option is given. Raises `misconfigured`."""
        if self == Described():
            return None
        if self.action is None or self.actor is None:
            raise DecklogError(Code.MISCONFIGURED, "A record needs --action and --actor at least.")
        kind, slash, name = self.actor.partition("/")
        plain = {"id": self.id, "action": self.action, "occurred_at": self.occurred_at, "severity": self.severity}
        plain |= {"outcome": self.outcome, "message": self.message, "session_id": self.session, "correlation_id": self.request}
        found: dict[str, Any] = {member: value for member, value in plain.items() if value is not None}
        found["actor"] = {"type": kind, "id": name} if slash else {"id": self.actor}
        if self.resource is not None:
            found["resource"] = _resource(self.resource)
        if self.ip is not None:
            found["source"] = {"ip": self.ip}
        if self.metadata:
            found["metadata"] = dict(_fact(each) for each in self.metadata)
        return msgspec.json.encode(found)


def _resource(text: str) -> dict[str, str]:
    kind, _, name = text.partition("/")
    return {"type": kind, "id": name} if name else {"type": kind}


def _fact(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise DecklogError(Code.MISCONFIGURED, f"--metadata: {text[:80]!r} has not the form name=value.")
    return name, value


@app.default
async def send(
    file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    described: Described | None = None,
    connection: Asking | None = None,
    idempotency_key: str | None = None,
    output: Annotated[Literal["text", "ndjson"], Parameter(name=("--output", "-o"))] = "text",
) -> int:
    """Store records.

    Args:
        file: File with records as JSON, or - for standard input.
        described: The record, by options.
        connection: Address and credential.
        idempotency_key: Makes the ids of records without one, so that the command may be repeated.
        output: Text, or the answer for each record as a line of JSON.
    """
    record = (described or Described()).record()
    if (record is None) == (file is None):
        raise DecklogError(Code.MISCONFIGURED, "Give a file, or - for standard input, or a record by --action and --actor.")
    counts = Counter[str]()
    progress = Progress(sys.stderr, live=sys.stderr.isatty())

    def told(sent: Sent) -> None:
        status = "refused" if sent.item is None or sent.item.error else sent.item.status
        counts[status] += 1
        _say(sent, str(file or "the record"), status, output)

    make = maker(idempotency_key)
    try:
        with _pieces(record, file) as pieces:
            async with (connection or Asking()).client() as client:
                await send_all(client, pieces, make, progress.waiting, told)
    finally:
        progress.clear()
        if counts.total() != 1 or counts["refused"]:
            kinds = ("stored", "duplicate", "refused")
            sys.stderr.write(", ".join(f"{counts[kind]:,} {kind}" for kind in kinds) + ".\n")
    return NOTHING if counts["refused"] else FOUND


@contextmanager
def _pieces(record: bytes | None, file: Path | None) -> Iterator[Iterable[Piece]]:
    if record is not None:
        yield [Piece(1, record)]
        return
    with EventFile(file or STDIN) as opened:
        yield opened


def _say(sent: Sent, source: str, status: str, output: str) -> None:
    """Print the answer for one record; why one was refused goes to standard error."""
    if status == "refused":
        error = sent.item.error if sent.item is not None else None
        why = sent.problem if error is None else f"{error.code}: {error.detail}"
        sys.stderr.write(f"{source}:{sent.place}: {printable(why)}\n")
    if output == "ndjson":
        answer = {} if sent.item is None else msgspec.to_builtins(sent.item)
        sys.stdout.write(msgspec.json.encode({"place": sent.place, "id": sent.id, **answer}).decode() + "\n")
    elif status != "refused" and sent.item is not None:
        sys.stdout.write(f"{status} as {sent.item.seq}, id {printable(sent.id)}\n")
