"""Operators to measure: `python -m tests.bench.operator_process decklog|empty VISITS PORT`.

`decklog` is the installed operator that also appends the name of each visited tenant to the file VISITS: a visit of an unchanged
tenant leaves no other trace. `empty` is the floor, a Kopf operator with an empty handler.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import kopf
import uvloop

import decklog.settings
from decklog.assembly.control_plane import open_provisioner
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.status import Condition, TenantStatus
from decklog.services.tenancy.provisioning import Provisioner
from decklog.services.tenancy.vaults import KeyVault
from decklog_operator import settings
from decklog_operator.names import GROUP, PLURAL, VERSION
from decklog_operator.run import run
from tests.bench.processes import HOST


class _Visits:
    """Append lines to a file without buffering; another process counts them."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def add(self, name: str) -> None:
        os.write(self._file, f"{name}\n".encode())


class _Noting:
    """The real Provisioner, which notes the end of every visit."""

    def __init__(self, provisioner: Provisioner, visits: _Visits) -> None:
        self._provisioner = provisioner
        self._visits = visits

    async def reconcile(self, manifest: Manifest, vault: KeyVault | None, previous: Sequence[Condition] = ()) -> TenantStatus:
        status = await self._provisioner.reconcile(manifest, vault, previous)
        self._visits.add(manifest.name)
        return status

    async def remove(self, manifest: Manifest, vault: KeyVault | None = None, previous: Sequence[Condition] = ()) -> TenantStatus:
        return await self._provisioner.remove(manifest, vault, previous)

    async def ensure_platform_tenant(self) -> TenantStatus:
        return await self._provisioner.ensure_platform_tenant()


async def _decklog(visits: _Visits, _port: int) -> None:
    @asynccontextmanager
    async def opened(configured: decklog.settings.Settings) -> AsyncIterator[_Noting]:
        async with open_provisioner(configured) as provisioner:
            yield _Noting(provisioner, visits)

    await run(os.environ, opened)


async def _empty(visits: _Visits, port: int) -> None:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, id="login")
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.create(GROUP, VERSION, PLURAL, registry=registry, id="empty")
    @kopf.on.update(GROUP, VERSION, PLURAL, registry=registry, id="empty")
    @kopf.on.resume(GROUP, VERSION, PLURAL, registry=registry, id="empty")
    async def empty(*, name: str, **_: Any) -> None:
        visits.add(name)

    found = kopf.OperatorSettings()  # Kopf's own, but for what the rights forbid
    found.scanning.disabled = True
    found.posting.enabled = False
    found.watching.label_selectors[GROUP, VERSION, PLURAL] = settings.load(os.environ).selector
    endpoint = f"http://{HOST}:{port}/healthz"
    await kopf.operator(registry=registry, settings=found, standalone=True, clusterwide=True, liveness_endpoint=endpoint)


if __name__ == "__main__":
    kind, path, number = sys.argv[1:]
    uvloop.run({"decklog": _decklog, "empty": _empty}[kind](_Visits(path), int(number)))
