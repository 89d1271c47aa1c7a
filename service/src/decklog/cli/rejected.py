"""`decklog rejected`: the rejected records of a tenant, over the API."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from decklog import shapes
from decklog.cli.connection import KEY_HELP, Connection
from decklog.cli.manual import manual
from decklog.cli.options import Flag, Form, Json
from decklog.client.client import Client
from decklog.client.progress import printable
from decklog.domain.errors import Code, DecklogError

EXITS = "0, 1 (a record was refused again, or is not there), 2 (the command could not be completed)"
_OF_RECORD = (
    *(Code.NOT_FOUND, Code.CONFLICT, Code.INVALID_RECORD, Code.INVALID_JSON, Code.BODY_TOO_LARGE, Code.ID_CONFLICT),
    Code.INVALID_PARAMETER,
)
"""Refusals of one record; the others of a command are tried all the same."""
Id = Annotated[int, Parameter(validator=Number(gte=1))]
Limit = Annotated[int, Parameter(validator=Number(gte=1, lte=1_000))]

app = App(name="rejected", help_epilogue=f"Role: admin.\n\n{KEY_HELP}")
app.command(
    list_app := App(
        name="list",
        help="List rejected records, newest first.",
        help_epilogue=manual(
            f"Prints number, time, code, bytes and the reason. A tenant keeps 1,000 rejected records for at most 30 days.\n\n{KEY_HELP}",
            "decklog rejected list --url https://decklog.example.com --key-file admin.key",
            "decklog rejected list --limit 20 --json",
            exits="0, 2 (the list could not be read)",
        ),
    )
)
app.command(
    show_app := App(
        name="show",
        help="Print the content of a rejected record.",
        help_epilogue=manual(
            f"Prints the JSON as it was sent, with secrets masked, and what is known about it on standard error.\n\n{KEY_HELP}",
            "decklog rejected show 17 > record.json",
            exits="0, 1 (its content is not kept), 2 (there is none of this number, or the command could not be completed)",
        ),
    )
)
app.command(
    replay_app := App(
        name="replay",
        help="Store rejected records after a fix.",
        help_epilogue=manual(
            f"""Stores what is kept of each record, for example after a limit was raised, or the content of --file in place of the one record that
is named. A record that is refused again stays as it is, and the others are tried.

{KEY_HELP}""",
            "decklog rejected replay 17 18 19",
            "decklog rejected replay 17 --file record.json",
            exits=EXITS,
        ),
    )
)
app.command(
    delete_app := App(
        name="delete",
        help="Delete rejected records. They were never part of the log.",
        help_epilogue=manual(KEY_HELP, "decklog rejected delete 17 18", exits=EXITS),
    )
)


@list_app.default
async def listed(
    *,
    connection: Connection | None = None,
    limit: Limit = 100,
    before: Id | None = None,
    as_json: Json = False,
    output: Form = "text",
) -> int:
    """List rejected records, newest first.

    Args:
        connection: Address and credential.
        limit: Number of records.
        before: List records with smaller numbers.
        as_json: As GET /api/v1/rejected answers.
        output: Text, or JSON.
    """
    as_json = as_json or output == "json"
    async with (connection or Connection()).client() as client:
        page = await client.rejected(limit=limit, before=before)
    if as_json:
        sys.stdout.write(msgspec.json.encode(page).decode() + "\n")
        return 0
    for item in page.items:
        sys.stdout.write(f"{_line(item)}\n")
    sys.stderr.write(
        f"{page.kept} kept of {page.rejected} rejected records; {page.unkept} were not kept, {page.dropped} dropped.\n"
    )
    if page.next is not None:
        sys.stderr.write(f"More: --before {page.next}\n")
    return 0


def _line(item: shapes.RejectedItem) -> str:
    time = item.rejected_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    content = "" if item.has_content else " (content not kept)"
    return f"{item.id}  {time}  {item.code}  {item.bytes} bytes{content}  {printable(item.detail)}"


@show_app.default
async def show(number: Id, /, *, connection: Connection | None = None, as_json: Json = False, output: Form = "text") -> int:
    """Print the content of a rejected record.

    Args:
        number: Number of the rejected record.
        connection: Address and credential.
        as_json: As GET /api/v1/rejected/{number} answers.
        output: Text, or JSON.
    """
    as_json = as_json or output == "json"
    async with (connection or Connection()).client() as client:
        found = await client.rejected_record(number)
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        sender = printable(" ".join(f"{name}={value}" for name, value in found.recorded_by.items()))
        sys.stderr.write(f"{_line(found)}\nsent by {sender}, request {printable(found.request_id)}\n")
        if found.content is not None:
            sys.stdout.write((printable(found.content) if sys.stdout.isatty() else found.content) + "\n")
    return 0 if found.content is not None else 1


@replay_app.default
async def replay(
    *numbers: Id,
    file: Path | None = None,
    trim: Flag = False,
    connection: Connection | None = None,
    as_json: Json = False,
    output: Form = "text",
) -> int:
    """Store rejected records after a fix.

    Args:
        numbers: Numbers of the rejected records.
        file: File with the mended record, as JSON, in place of the one that is named.
        trim: Remove the largest or deepest values of a record that is too large or too deep.
        connection: Address and credential.
        as_json: Write the receipts as JSON, one a line.
        output: Text, or JSON.
    """
    as_json = as_json or output == "json"
    _check_numbers(numbers)
    if file is not None and len(numbers) > 1:
        raise DecklogError(Code.MISCONFIGURED, "--file holds one record, so one number is needed.")
    mended = b"" if file is None else _read(file)

    async def store(client: Client, number: int) -> str:
        receipt = await client.replay_rejected(number, mended, trim=trim)
        return msgspec.json.encode(receipt).decode() if as_json else f"{number}: {receipt.status} as {receipt.seq}"

    return await _each(connection, numbers, store)


@delete_app.default
async def delete(*numbers: Id, connection: Connection | None = None) -> int:
    """Delete rejected records. They were never part of the log.

    Args:
        numbers: Numbers of the rejected records.
        connection: Address and credential.
    """
    _check_numbers(numbers)

    async def remove(client: Client, number: int) -> str:
        await client.delete_rejected(number)
        return f"{number}: deleted"

    return await _each(connection, numbers, remove)


def _check_numbers(numbers: Sequence[int]) -> None:
    if not numbers:
        raise DecklogError(Code.MISCONFIGURED, "No number is given: decklog rejected list prints them.")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DecklogError(Code.MISCONFIGURED, f"{file} cannot be read ({error.strerror}).") from None


async def _each(connection: Connection | None, numbers: Sequence[int], do: Callable[[Client, int], Awaitable[str]]) -> int:
    """Do something with each rejected record; return 1 where one was refused. Any other error ends the command."""
    refused = 0
    async with (connection or Connection()).client() as client:
        for number in dict.fromkeys(numbers):
            try:
                sys.stdout.write(f"{await do(client, number)}\n")
            except DecklogError as error:
                if error.code not in _OF_RECORD:
                    raise
                refused += 1
                sys.stderr.write(f"{number}: {error.code.value}: {printable(error.detail)}\n")
    return 1 if refused else 0
