"""The verbs of the command line that look at the control plane from a terminal, and change nothing there."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.columns import table
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.part import Installation
from decklog.domain.tenancy.preview import NEW, Planned, empty_world, lines, plain, planned
from decklog.domain.tenancy.spec import TenantSpec
from decklog.domain.tenancy.status import TenantListing
from decklog.domain.tenant import PLATFORM_TENANT, State

if TYPE_CHECKING:
    from decklog.settings import Settings

SOMETHING_TO_DO = 3
"""Exit code of `decklog plan --detailed-exitcode`; 1 and 2 mean what they mean for every other verb."""


def add_parsers(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's verbs; each sets `run`, a coroutine function of the parsed arguments that returns the exit code."""
    tenants = verbs.add_parser(
        "tenants",
        help="print the table of tenants, as kubectl get tenants does",
        description="""Print who exists and whether all that they asked for is there, from the registry in the database:
        the table of kubectl get tenants, also where there is no Kubernetes.""",
        epilog="Needs DECKLOG_DATABASE_DSN, or DECKLOG_DATABASE_OWNER_DSN. Exits with 0, or with 2 where it could not be done.",
    )
    tenants.add_argument("--wide", action="store_true", help="also schema, index, queue and message")
    tenants.add_argument("--all", action="store_true", help="also the platform's own tenant, and deleted ones that are retained")
    tenants.add_argument("--json", action="store_true", help="as GET /api/v1/tenants answers")
    tenants.set_defaults(run=run_tenants)
    plan = verbs.add_parser(
        "plan",
        help="print what provisioning would do for Tenant manifests, and do nothing",
        description="""Print what would be done for these Tenants: against the backends of the settings, where nothing is
        changed, or offline, as if nothing were there yet. Without any backend in the settings it is offline, and
        everything is taken to be configured. Each Tenant is planned by itself; API keys are taken to be where they
        were put.""",
        epilog=f"""Needs DECKLOG_DATABASE_OWNER_DSN, and DECKLOG_SEARCH_ and DECKLOG_QUEUE_ as the operator has them, unless offline.
        Exits with 0, 1 (a Tenant is refused, or a backend does not answer) or 2 (wrong use, settings or manifest, or
        no database); with --detailed-exitcode, {SOMETHING_TO_DO} says that there is something to do.""",
    )
    plan.add_argument(
        "-f",
        "--file",
        dest="files",
        action="append",
        type=Path,
        required=True,
        help="YAML file, or folder of them; may be repeated",
    )
    plan.add_argument("--offline", action="store_true", help="ask no backend")
    plan.add_argument(
        "--detailed-exitcode", action="store_true", help=f"exit with {SOMETHING_TO_DO} where there is something to do"
    )
    plan.add_argument("--json", action="store_true", help="write the plan as JSON")
    plan.set_defaults(run=run_plan)
    archive = verbs.add_parser("archive", help="look at what was archived of deleted tenants")
    archiving = archive.add_subparsers(dest="archive_verb", required=True, metavar="VERB")
    verify = archiving.add_parser(
        "verify",
        help="check an archive from its manifest alone",
        description="""Read a manifest and every file that it names: SHA-256 of each, counts, sequence numbers without a gap, and
        the digest of each record against its content. Needs no database and no running Decklog. Two folders above the
        manifest is where the names in it begin, so keep the folders when you copy an archive.""",
        epilog="""A bucket is asked with DECKLOG_ARCHIVE_ENDPOINT_URL, _REGION, _ACCESS_KEY_ID and _SECRET_ACCESS_KEY, or the SDK's own
        chain; it takes s3:GetObject. Exits with 0, 1 (something is wrong) or 2 (it could not be done).""",
    )
    verify.add_argument("manifest", metavar="MANIFEST", help="s3://bucket/…/<tenant>/<uid>/manifest-….json, or a path")
    verify.add_argument("--json", action="store_true", help="write what was found as JSON")
    verify.set_defaults(run=run_archive_verify)


def _listed(listing: TenantListing) -> bool:
    """Whether Kubernetes would have it."""
    return listing.name != PLATFORM_TENANT and listing.state is not State.DELETED


async def run_tenants(arguments: argparse.Namespace) -> int:
    """`decklog tenants`. Raises `misconfigured` and `storage-unavailable`."""
    from decklog import settings  # noqa: PLC0415 - other verbs do without all that they load
    from decklog.assembly import control_plane  # noqa: PLC0415 - other verbs do without all that they load

    async with control_plane.open_directory(settings.load(os.environ)) as directory:
        found = [listing for listing in await directory.tenants() if arguments.all or _listed(listing)]
    found.sort(key=lambda listing: listing.name)  # the database may sort by the rules of a language
    if arguments.json:
        sys.stdout.write(msgspec.json.encode({"items": [listing.shown() for listing in found]}).decode() + "\n")
    elif found:
        sys.stdout.write(table(found, datetime.now(UTC), wide=arguments.wide))
    else:
        sys.stderr.write("There are no tenants.\n")
    return 0


async def run_plan(arguments: argparse.Namespace) -> int:
    """`decklog plan`. Raises `misconfigured`, `invalid-tenant` and `storage-unavailable`."""
    from decklog import settings  # noqa: PLC0415 - as above
    from decklog.files.manifests import read_manifests  # noqa: PLC0415

    configured = settings.load(os.environ)
    specs = {name: wanted.spec for name, wanted in read_manifests(arguments.files).items()}
    if not specs:
        raise DecklogError(Code.MISCONFIGURED, "There is no Tenant in these files.")
    database, search, queue = configured.database, bool(configured.search.url), configured.queue.enabled
    known = bool(database.dsn or database.owner_dsn or search or queue)
    offline = arguments.offline or not known
    if offline:
        installation = Installation(prefix=configured.prefix, cell=configured.cell)
        world = empty_world(installation, search=search or not known, queue=queue or not known)
        found = [planned(Manifest(name, NEW, 1, spec), world, datetime.now(UTC)) for name, spec in specs.items()]
    else:
        found = await _against_backends(configured, specs)
    first = any(each.platform_first for each in found)
    if arguments.json:
        shown = {"offline": offline, "platform_first": first, "tenants": [plain(each) for each in found]}
        sys.stdout.write(msgspec.json.encode(shown).decode() + "\n")
    else:
        if offline:
            sys.stdout.write("Offline: as if nothing were there yet.\n")
        if first:
            sys.stdout.write(f"{PLATFORM_TENANT}: the platform's own tenant is made first\n")
        sys.stdout.writelines(f"{line}\n" for each in found for line in lines(each))
    if any(each.refused or each.unseen for each in found):
        return 1
    return SOMETHING_TO_DO if arguments.detailed_exitcode and any(each.actions for each in found) else 0


async def run_archive_verify(arguments: argparse.Namespace) -> int:
    """`decklog archive verify`. Raises `misconfigured` and what the archive raises where it cannot be read."""
    from decklog import settings  # noqa: PLC0415 - as above
    from decklog.assembly import backends  # noqa: PLC0415 - as above
    from decklog.services.archive.verify import check_archive  # noqa: PLC0415

    live = sys.stderr.isatty()

    def progress(text: str) -> None:
        if live:
            sys.stderr.write(f"\r{text}\x1b[K")

    async with backends.open_archive(settings.load(os.environ), arguments.manifest) as (objects, name, decode):
        report = await check_archive(objects, name, decode, progress=progress)
    progress("")
    if arguments.json:
        sys.stdout.write(msgspec.json.encode({"sound": report.sound, **msgspec.to_builtins(report)}).decode() + "\n")
        return 0 if report.sound else 1
    for problem in report.problems:
        sys.stdout.write(f"wrong: {problem}\n")
    told = ", ".join(f"{count} in {log}" for log, count in report.logs.items())
    sys.stdout.write(f"{report.tenant} ({report.uid}): {report.records} records in {report.parts} files; the logs had {told}.\n")
    if report.keep_until:
        sys.stdout.write(f"To be kept until {report.keep_until}.\n")
    sys.stdout.write("All is as it was written.\n" if report.sound else f"{report.problem_count} things are wrong.\n")
    return 0 if report.sound else 1


async def _against_backends(configured: Settings, specs: Mapping[str, TenantSpec]) -> list[Planned]:
    from decklog.assembly import control_plane  # noqa: PLC0415 - as above

    found: list[Planned] = []
    async with control_plane.open_provisioner(configured) as provisioner:
        for name, spec in specs.items():
            manifest = await provisioner.manifest(name, spec)
            found.append(planned(manifest, await provisioner.observe(manifest, None), datetime.now(UTC)))
    return found
