"""Looks after tenants without Kubernetes: creates them from files, corrects drift, and replaces keys when they are due.

`decklog provision` runs this as a process, `decklog dev` inside its own. It does for files what the operator does for custom
resources, with the same provisioning. Only one process may run it, because the keys are in its file.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from msgspec.structs import replace

from decklog.assembly import control_plane
from decklog.domain.errors import Code, DecklogError
from decklog.domain.pauses import backoff, between
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.status import READY, Condition, TenantStatus
from decklog.domain.tenant import PLATFORM_TENANT, State
from decklog.files.keys import KeyFile, held
from decklog.files.manifests import Wanted, read_manifests
from decklog.probes import serving
from decklog.services.tenancy.provisioning import Provisioner
from decklog.services.tenancy.vaults import Handout, Handover
from decklog.settings import Settings

INTERVAL = 60.0
"""Seconds between two looks at all tenants: the longest delay of a rotation, and the longest time that drift lasts."""
VISITS_MAX = 8
"""Tenants that are visited concurrently."""
_RETRY_FIRST = 1.0
"""Seconds before the next look when a tenant is not ready. Each further pause is twice as long, up to the interval."""
_JITTER = 0.2
"""Largest share by which a pause is shortened at random."""

_log = structlog.get_logger("decklog.provision")


@dataclass(frozen=True)
class Options:
    """Options of `decklog provision`. `keys` is the file for the keys, `interval` is in seconds, `health_port` 0 means no probe."""

    manifests: tuple[Path, ...]
    keys: Path
    url: str = ""
    platform_key: bool = False
    once: bool = False
    interval: float = INTERVAL
    health_host: str = "127.0.0.1"
    health_port: int = 0


class Upkeep:
    """Visits all tenants at each `look`: those of the files, and other registered ones.

    `keys` holds the keys of all tenants of the files. `keeps_all`: it holds those of the other tenants, too. Otherwise their
    users are assumed to have their keys, and only keys that are replaced here are written to the file.
    """

    def __init__(
        self,
        provisioner: Provisioner,
        keys: KeyFile,
        manifests: Sequence[Path],
        *,
        keeps_all: bool = False,
        platform_key: bool = False,
    ) -> None:
        """Read the manifests. Raises `misconfigured` and `invalid-tenant` where a file cannot be read."""
        self._provisioner = provisioner
        self._keys = keys
        self._manifests = manifests
        self._keeps_all = keeps_all
        self._platform_key = platform_key
        self._files = read_manifests(manifests)
        self.names: list[str] = list(self._files)
        """The tenants of the last look, those of the files first."""
        self._told: dict[str, tuple[Condition, ...]] = {}
        self._visits = asyncio.Semaphore(VISITS_MAX)
        self.checks: Mapping[str, str] = {"tenants": "not seen yet"}
        """Result for the readiness probe: `ok`, or the number of tenants that are not ready."""

    async def look(self) -> dict[str, str]:
        """Make every tenant what its manifest says, as far as that can be done now.

        Returns why tenants are not ready, by name. Raises `storage-unavailable` and `misconfigured` where the registry cannot
        be read.
        """
        platform = await self._provisioner.ensure_platform_tenant()
        if self._platform_key:
            self._keys.set_platform(await self._provisioner.ensure_platform_key(self._keys.platform))
        wanted = self._files | {
            listing.name: Wanted(listing.spec)
            for listing in await self._provisioner.tenants()
            if listing.spec is not None
            and listing.state is not State.DELETED
            and listing.name not in (PLATFORM_TENANT, *self._files)
        }
        visits = await asyncio.gather(*(self._visit(name, each) for name, each in wanted.items()))
        self.names = list(wanted)
        found = {PLATFORM_TENANT: _trouble(platform), **dict(zip(wanted, visits, strict=True))}
        self._told = {name: told for name, told in self._told.items() if name in wanted}
        troubles = {name: trouble for name, trouble in found.items() if trouble is not None}
        self.checks = {"tenants": f"{len(troubles)} not ready" if troubles else "ok"}
        return troubles

    async def keep(self, stop: asyncio.Event, interval: float, *, pause: float = 0.0) -> None:
        """Look at all tenants every `interval` seconds until `stop` is set, for the first time after `pause` seconds.

        While a tenant is not ready, the next look comes sooner. Errors are logged and never end the loop.
        """
        failures = 0
        while not await _set_within(stop, pause):
            self._read_again()
            try:
                troubles = await self.look()
            except DecklogError as error:
                troubles = {PLATFORM_TENANT: error.detail}
                self.checks = {"tenants": error.code.value}
            for name, trouble in troubles.items():
                _log.warning("not ready", tenant=name, reason=trouble)
            failures = failures + 1 if troubles else 0
            pause = backoff(failures, first=_RETRY_FIRST, longest=interval) if failures else interval
            pause *= between(1 - _JITTER, 1)

    async def _visit(self, name: str, wanted: Wanted) -> str | None:
        """Why the tenant is not ready after a visit; None where it is."""
        async with self._visits:
            try:
                manifest = replace(await self._provisioner.manifest(name, wanted.spec), rotate=wanted.rotate)
            except DecklogError as error:
                return error.detail
            mine = self._keeps_all or name in self._files or bool(self._keys.keys_of(name))
            elsewhere = Handover(None)
            status = await self._provisioner.reconcile(manifest, self._keys if mine else elsewhere, self._told.get(name, ()))
            await self._take(manifest, elsewhere)
        self._told[name] = status.conditions
        return _trouble(status)

    async def _take(self, manifest: Manifest, elsewhere: Handover) -> None:
        """Write keys to the file that this visit made for a tenant outside the files: no other place shows them."""
        if elsewhere.made:
            await self._keys.write(manifest, Handout(elsewhere.made))
            _log.info("keys written to the file", tenant=manifest.name)

    def _read_again(self) -> None:
        """Read the files again; where that fails, the manifests of the last reading stay valid."""
        try:
            self._files = read_manifests(self._manifests)
        except DecklogError as error:
            _log.warning("manifests cannot be read; the last ones stay valid", reason=error.detail)


def _trouble(status: TenantStatus) -> str | None:
    ready = status.condition(READY)
    return None if ready.status == "True" else f"{ready.message} ({ready.reason})"


async def _set_within(stop: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


async def run(options: Options, settings: Settings, stop: asyncio.Event) -> int:
    """Run `decklog provision` until `stop` is set or, with `once`, for one look. Returns the exit code.

    Raises `misconfigured`, `invalid-tenant` and, with `once`, `storage-unavailable`.
    """
    if settings.tenants.owner != "decklog":
        raise DecklogError(
            Code.MISCONFIGURED,
            "DECKLOG_TENANTS_OWNER is kubernetes: the operator looks after the tenants. Set it to decklog, or apply the tenants by kubectl.",
        )
    if not options.keys.parent.is_dir():
        raise DecklogError(Code.MISCONFIGURED, f"The folder {options.keys.parent} for the keys does not exist.")
    lock = options.keys.with_suffix(".lock")
    async with AsyncExitStack() as stack:
        stack.enter_context(held(lock, f"Another decklog provision uses {options.keys}. Only one may run: stop it, or wait."))
        keys = KeyFile(options.keys)
        keys.set_url(options.url)
        provisioner = await stack.enter_async_context(control_plane.open_provisioner(settings))
        upkeep = Upkeep(provisioner, keys, options.manifests, platform_key=options.platform_key)
        if options.once:
            troubles = await upkeep.look()
            sys.stderr.writelines(f"Not ready: {name}: {trouble}\n" for name, trouble in troubles.items())
            return 1 if troubles else 0
        if options.health_port:
            probes = serving(options.health_host, options.health_port, checks=lambda: upkeep.checks)
            await stack.enter_async_context(probes)
        _log.info("provisioning started", keys=str(options.keys))
        await upkeep.keep(stop, options.interval)
    return 0
