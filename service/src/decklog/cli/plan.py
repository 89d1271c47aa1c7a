"""`decklog plan`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from decklog import settings
from decklog.assembly.control_plane import MAPPING_VERSION, open_provisioner
from decklog.cli.dev_folder import DevFolder
from decklog.cli.manual import manual
from decklog.cli.options import Flag, Json
from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.parts.part import Installation
from decklog.domain.tenancy.preview import NEW, Planned, empty_world, lines, plain, planned
from decklog.domain.tenancy.spec import TenantSpec
from decklog.domain.tenant import PLATFORM_TENANT
from decklog.files.manifests import read_manifests
from decklog.settings import Settings

SOMETHING_TO_DO = 3
"""Exit code of `--detailed-exitcode`; 1 and 2 mean what they mean for every other verb."""

app = App(
    name="plan",
    help_epilogue=manual(
        """Compares with the backends of the settings and changes nothing there; or with --offline, with an empty installation. Without
any backend in the settings the plan is offline, and every part is taken to be configured. Each Tenant is planned by itself.
API keys are taken to be where they were put.

Needs DECKLOG_DATABASE_OWNER_DSN, and DECKLOG_SEARCH_ and DECKLOG_QUEUE_ as the operator has them; or --data-dir; or --offline.""",
        "decklog plan -f tenant.yaml",
        "kubectl get tenants -o yaml | decklog plan -f -",
        "decklog plan -f tenants/ --data-dir .decklog --detailed-exitcode",
        exits=f"0, 1 (a Tenant is refused, or a backend does not answer), 2 (wrong use, settings or manifest, or no database), {SOMETHING_TO_DO} (--detailed-exitcode, and there is something to do)",
    ),
)


@app.default
async def plan(
    *,
    files: Annotated[list[Path], Parameter(name=("--file", "-f"), allow_leading_hyphen=True)],
    offline: Flag = False,
    detailed_exitcode: Flag = False,
    as_json: Json = False,
    data_dir: Path | None = None,
) -> int:
    """Print what provisioning would do for Tenant manifests, without doing it.

    Args:
        files: YAML file, folder of YAML files, or - for standard input. May be repeated.
        offline: Compare with an empty installation, and call no backend.
        detailed_exitcode: Exit with 3 where there is something to do.
        as_json: Write the plan as JSON.
        data_dir: Data folder of a running decklog dev, in place of the settings of the environment.
    """
    configured = DevFolder(data_dir).running_settings() if data_dir is not None else settings.load(os.environ)
    specs = {name: wanted.spec for name, wanted in read_manifests(files, stdin=sys.stdin.buffer).items()}
    if not specs:
        raise DecklogError(Code.MISCONFIGURED, "There is no Tenant in these files.")
    offline = offline or not _has_backends(configured)
    found = _offline(configured, specs) if offline else await _against_backends(configured, specs)
    if as_json:
        platform_first = any(each.platform_first for each in found)
        shown = {"offline": offline, "platform_first": platform_first, "tenants": [plain(each) for each in found]}
        sys.stdout.write(msgspec.json.encode(shown).decode() + "\n")
    else:
        sys.stdout.write(_text(found, offline=offline))
    if any(each.refused or each.unseen for each in found):
        return 1
    return SOMETHING_TO_DO if detailed_exitcode and any(each.actions for each in found) else 0


def _has_backends(configured: Settings) -> bool:
    database = configured.database
    return bool(database.dsn or database.owner_dsn or configured.search.url or configured.queue.enabled)


def _offline(configured: Settings, specs: Mapping[str, TenantSpec]) -> list[Planned]:
    """Plan against an empty installation with the parts that the settings name, or with all of them where they name none."""
    everything = not _has_backends(configured)
    world = empty_world(
        Installation(prefix=configured.prefix, cell=configured.cell),
        search=MAPPING_VERSION if configured.search.url or everything else None,
        queue=configured.queue.enabled or everything,
    )
    return [planned(Manifest(name, NEW, 1, spec), world, datetime.now(UTC)) for name, spec in specs.items()]


async def _against_backends(configured: Settings, specs: Mapping[str, TenantSpec]) -> list[Planned]:
    found: list[Planned] = []
    async with open_provisioner(configured) as provisioner:
        for name, spec in specs.items():
            manifest = await provisioner.manifest(name, spec)
            found.append(planned(manifest, await provisioner.observe(manifest, None), datetime.now(UTC)))
    return found


def _text(found: list[Planned], *, offline: bool) -> str:
    head = ["Offline: compared with an empty installation."] if offline else []
    if any(each.platform_first for each in found):
        head.append(f"{PLATFORM_TENANT}: the platform's own tenant is created first")
    return "".join(f"{line}\n" for line in [*head, *(line for each in found for line in lines(each))])
