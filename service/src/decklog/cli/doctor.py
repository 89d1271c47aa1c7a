"""`decklog doctor`."""

from __future__ import annotations

import sys

import msgspec
from cyclopts import App

from decklog.cli.connection import KEY_HELP, Connection
from decklog.cli.manual import manual
from decklog.cli.options import Flag, Json
from decklog.client import doctor as examination
from decklog.domain.errors import Code, DecklogError

app = App(
    name="doctor",
    help_epilogue=manual(
        f"""Asks the API whether its backends answer. Then it writes a probe record in the tenant of the key, and checks that the record
is streamed, read, found and indexed, and that reading it is recorded. The probes stay in that tenant's log, so use a tenant
made for them. Nothing else is changed.

{KEY_HELP}""",
        "decklog doctor --url https://decklog.example.com --key-file probe.key",
        "decklog doctor --ready --url http://127.0.0.1:8321",
        exits="0 (all checks passed), 1 (a check failed), 2 (the examination could not begin)",
    ),
)


@app.default
async def doctor(
    *,
    connection: Connection | None = None,
    ready: Flag = False,
    timeout: float = 30.0,
    as_json: Json = False,
) -> int:
    """Check a running installation end to end.

    Args:
        connection: Address and credential.
        ready: Check the backends only, as a health probe; needs no key.
        timeout: Seconds that each check may take.
        as_json: Write the findings as JSON.
    """
    if not timeout > 0:
        raise DecklogError(Code.MISCONFIGURED, "--timeout must be more than 0 seconds.")
    api = connection or Connection()
    if ready:
        report = await examination.examine_backends(api.address(), timeout=timeout)
    else:
        async with api.client() as client:
            report = await examination.examine(client, timeout=timeout)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n" if as_json else examination.as_text(report))
    return 0 if report.healthy else 1
