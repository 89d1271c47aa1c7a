"""`decklog doctor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
from cyclopts import App

from decklog import settings
from decklog.assembly.maintenance import open_audit
from decklog.cli.connection import KEY_HELP, Connection
from decklog.cli.dev_folder import DevFolder
from decklog.cli.manual import manual
from decklog.cli.options import Flag, Form, Json
from decklog.client import doctor as examination
from decklog.domain.errors import Code, DecklogError

app = App(
    name="doctor",
    help_epilogue=manual(
        f"""Asks the API whether its backends answer. Then it writes a probe record in the tenant of the key, and checks that the record
is streamed, read, found and indexed, and that reading it is recorded. The probes stay in that tenant's log, so use a tenant
made for them. Nothing else is changed.

With --database it reads every record of every log instead, as the owner (DECKLOG_DATABASE_OWNER_DSN) or as a worker
(DECKLOG_DATABASE_DSN). It finds records that were inserted, changed or removed behind Decklog's back, heads and cursors that
were moved, archives that nobody wrote, and rights that the roles should not have. It changes nothing.

{KEY_HELP}""",
        "decklog doctor --url https://decklog.example.com --key-file probe.key",
        "decklog doctor --ready --url http://127.0.0.1:8321",
        "decklog doctor --database",
        "decklog doctor --database --data-dir .decklog",
        exits="0 (all checks passed), 1 (a check failed), 2 (the examination could not begin)",
    ),
)


@app.default
async def doctor(
    *,
    connection: Connection | None = None,
    ready: Flag = False,
    database: Flag = False,
    data_dir: Path | None = None,
    timeout: float = 30.0,
    as_json: Json = False,
    output: Form = "text",
) -> int:
    """Check a running installation end to end.

    Args:
        connection: Address and credential.
        ready: Check the backends only, as a health probe; needs no key.
        database: Check what the database holds: numbers, heads, digests, archives and rights. Needs no API and no key.
        data_dir: Data folder of a running decklog dev, whose database --database then checks.
        timeout: Seconds that each check may take.
        as_json: Write the findings as JSON.
        output: Text, or JSON.
    """
    as_json = as_json or output == "json"
    if not timeout > 0:
        raise DecklogError(Code.MISCONFIGURED, "--timeout must be more than 0 seconds.")
    if database:
        configured = settings.load(os.environ) if data_dir is None else DevFolder(data_dir).running_settings()
        return await _database(configured, as_json=as_json)
    if data_dir is not None:
        raise DecklogError(Code.MISCONFIGURED, "--data-dir names the database that --database checks. Give both, or neither.")
    api = connection or Connection()
    if ready:
        report = await examination.examine_backends(api.address(), timeout=timeout)
    else:
        async with api.client() as client:
            report = await examination.examine(client, timeout=timeout)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n" if as_json else examination.as_text(report))
    return 0 if report.healthy else 1


_RIGHTS_ADVICE = "If the last upgrade is complete, run decklog migrate --post, which revokes rights of older versions."
_FAULT_ADVICE = (
    "No role of a process can do this: find out who connected as a superuser or as the owner. Keep the database as it is, and compare "
    "it with a backup."
)


async def _database(configured: settings.Settings, *, as_json: bool) -> int:
    """Write what the database holds wrongly, one finding per log."""
    findings = []
    async with open_audit(configured) as audit:
        async for checked in audit.run():
            outcome = examination.Outcome.FAILED if checked.faults else examination.Outcome.OK
            detail = (
                "; ".join(f"{fault.kind}: {fault.detail}" for fault in checked.faults) or f"{checked.records} records are sound."
            )
            if not checked.faults and not checked.subject.startswith("log "):
                detail = "Nothing is wrong."
            advice = (_RIGHTS_ADVICE if checked.subject == "rights" else _FAULT_ADVICE) if checked.faults else ""
            findings.append(examination.Finding(checked.subject, outcome, detail, advice))
    report = examination.Report.of("database", findings)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n" if as_json else examination.as_text(report))
    return 0 if report.healthy else 1
