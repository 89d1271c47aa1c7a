"""Create tenants with the release's own code and Python: specs as JSON on standard input, API keys on standard output.

Imports name modules of the release. Never adapt them when modules of this tree move.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from decklog import factory, settings  # type: ignore[attr-defined]
from decklog.domain.tenant import parse_spec  # type: ignore[attr-defined]


class Vault:
    """Keep the keys of all tenants for the life of this process."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    async def read(self, manifest: Any) -> Any:
        return self.kept.get(manifest.name)

    async def write(self, manifest: Any, handout: Any) -> None:
        self.kept[manifest.name] = handout


async def main() -> None:
    vault = Vault()
    async with factory.open_provisioner(settings.load(os.environ)) as provisioner:
        status = await provisioner.ensure_platform_tenant()
        assert status.ready, status
        for name, spec in json.load(sys.stdin).items():
            status = await provisioner.reconcile(await provisioner.manifest(name, parse_spec(spec)), vault)
            assert status.ready, status
    json.dump({name: {role.value: key for role, key in handout.keys.items()} for name, handout in vault.kept.items()}, sys.stdout)


asyncio.run(main())
