"""`decklog recover`: what an operator says once after a disaster; see `decklog.services.tenancy.recovery` and the README."""

from __future__ import annotations

import argparse
import os
import sys


def add_parsers(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's verb, which sets `run`, a coroutine function of the parsed arguments that returns the exit code."""
    recover = verbs.add_parser("recover", help="say once what was lost in a disaster")
    what = recover.add_subparsers(dest="recover_verb", required=True, metavar="WHAT")
    database = what.add_parser(
        "database",
        help="the database was restored from a copy",
        description="""Say that the database lost records that it had acknowledged: it was restored from a copy, or a standby took over that
        was behind. Every log begins a new epoch, and the search indices are removed, which provisioning and workers make and fill
        again. Run it after `decklog migrate` and before the first process that writes.""",
        epilog="""Needs DECKLOG_DATABASE_OWNER_DSN, and DECKLOG_SEARCH_ as the operator has them. May run again. Exits with 0, with 1
        where an index is left, which is told, or with 2 where it could not be done.""",
    )
    database.set_defaults(run=run_database)
    tenants = what.add_parser(
        "tenants",
        help="the Tenant objects are lost, and the database is not",
        description="""Say that the objects of these tenants are lost: a cluster is gone with its Tenants, and the database is not. Each
        tenant is stopped, its keys are revoked, and all its data is kept; a Tenant of the same name that is applied then takes it
        over, with its numbers going on.""",
        epilog="""Needs DECKLOG_DATABASE_OWNER_DSN. May run again. Exits with 0, with 1 where a tenant is left as it was, or with 2 where it
        could not be done.""",
    )
    tenants.add_argument("names", nargs="*", metavar="NAME", help="of a tenant")
    tenants.add_argument("--all", action="store_true", help="all tenants of this installation")
    tenants.set_defaults(run=run_tenants)


async def run_database(_: argparse.Namespace) -> int:
    """`decklog recover database`. Raises `misconfigured` and `storage-unavailable`."""
    from decklog import settings  # noqa: PLC0415 - other verbs do without all that they load
    from decklog.assembly import maintenance  # noqa: PLC0415 - other verbs do without all that they load

    configured = settings.load(os.environ)
    done = await maintenance.recover_database(configured)
    sys.stdout.write(f"{done.logs} logs have begun a new epoch.\n")
    for index in done.indices:
        sys.stdout.write(f"removed the index {index}; it is made and filled again\n")
    for index, why in done.left.items():
        sys.stdout.write(f"left the index {index}: {why} It may find what is lost: delete it.\n")
    if not configured.search.url:
        sys.stdout.write("No search is configured here. Where there is one, give DECKLOG_SEARCH_URL and run this again.\n")
    return 1 if done.left else 0


async def run_tenants(arguments: argparse.Namespace) -> int:
    """`decklog recover tenants`. Raises `misconfigured` and `storage-unavailable`."""
    from decklog import settings  # noqa: PLC0415 - as above
    from decklog.assembly import control_plane  # noqa: PLC0415 - as above
    from decklog.services.tenancy.recovery import recover_tenants  # noqa: PLC0415

    if bool(arguments.names) is arguments.all:
        sys.stderr.write("decklog: Give names of tenants, or --all.\n")
        return 2
    async with control_plane.open_provisioner(settings.load(os.environ)) as provisioner:
        told = await recover_tenants(provisioner, None if arguments.all else arguments.names)
    for name, trouble in sorted(told.items()):
        sys.stdout.write(f"{name}: {trouble or 'kept, for the next Tenant of this name to take over'}\n")
    return 1 if any(told.values()) else 0
