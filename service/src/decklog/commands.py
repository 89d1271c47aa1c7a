"""The verbs of the command line that look at the control plane from a terminal, and change nothing there."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime

import msgspec

from decklog.domain.columns import table
from decklog.domain.status import TenantListing
from decklog.domain.tenant import PLATFORM_TENANT, State


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


def _listed(listing: TenantListing) -> bool:
    """Whether Kubernetes would have it."""
    return listing.name != PLATFORM_TENANT and listing.state is not State.DELETED


async def run_tenants(arguments: argparse.Namespace) -> int:
    """`decklog tenants`. Raises `misconfigured` and `storage-unavailable`."""
    from decklog import factory, settings  # noqa: PLC0415 - other verbs do without all that they load

    async with factory.open_directory(settings.load(os.environ)) as directory:
        found = [listing for listing in await directory.tenants() if arguments.all or _listed(listing)]
    found.sort(key=lambda listing: listing.name)  # the database may sort by the rules of a language
    if arguments.json:
        sys.stdout.write(msgspec.json.encode({"items": [listing.shown() for listing in found]}).decode() + "\n")
    elif found:
        sys.stdout.write(table(found, datetime.now(UTC), wide=arguments.wide))
    else:
        sys.stderr.write("There are no tenants.\n")
    return 0
