"""Tenants kept right without Kubernetes: made from files, repaired, and given new keys when those are due.

`decklog provision` is this as a process, and `decklog dev` does it in its own. It is to files what the operator is to
custom resources, over the same provisioning. One process of it does it all, as the keys are in its file.
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
"""Seconds between two looks at all tenants: so late a rotation may be, and so long a change behind our back may last."""
VISITS_MAX = 8
"""Tenants that are visited at once."""
_RETRY_FIRST = 1.0
"""Seconds before the next look where something is missing; each further pause is twice as long, up to the interval."""
_JITTER = 0.2

_log = structlog.get_logger("decklog.provision")


@dataclass(frozen=True)
class Options:
    """What the command line of `decklog provision` says; `keys` is the file for them, `health_port` 0 for none."""

    manifests: tuple[Path, ...]
    keys: Path
    url: str = ""
    platform_key: bool = False
    once: bool = False
    interval: float = INTERVAL
    health_host: str = "127.0.0.1"
    health_port: int = 0


class Upkeep:
    """Visits all tenants at each `look`: those of the files, and those that the registry has beside them.

    The keys of all tenants of the files are in `keys`. `keeps_all`: whoever makes the others puts theirs there, too;
    otherwise these are in good hands until they have to be made anew, and only then go to the file.
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
        """Raises `misconfigured` and `invalid-tenant` where the files cannot be read."""
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
        """What a probe is told: `ok`, or how many tenants are not ready."""

    async def look(self) -> dict[str, str]:
        """Make every tenant what is asked for, as far as that can be done now; gives the names of those that are not ready,
        with the reason. Raises `storage-unavailable` and `misconfigured` where not even the registry can be read."""
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
        """Look again and again until `stop` is set, for the first time after `pause` seconds: each `interval`, and sooner
        where something is missing. What is wrong is logged, and never ends this."""
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
        """Why the tenant is not ready after this; None where it is."""
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
        """Keys that were made here for a tenant that has no others, or whose schedule asked for them: they are told nowhere else."""
        if elsewhere.made:
            await self._keys.write(manifest, Handout(elsewhere.made))
            _log.info("keys are in the file now", tenant=manifest.name)

    def _read_again(self) -> None:
        """What the files say now; where that cannot be read, what they said last holds."""
        try:
            self._files = read_manifests(self._manifests)
        except DecklogError as error:
            _log.warning("the files are as before", reason=error.detail)


def _trouble(status: TenantStatus) -> str | None:
    ready = status.condition(READY)
    return None if ready.status == "True" else f"{ready.message} ({ready.reason})"


async def _set_within(stop: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


async def run(options: Options, settings: Settings, stop: asyncio.Event) -> int:
    """`decklog provision`, until `stop` is set or, with `once`, after one look; gives the exit code.

    Raises `misconfigured`, `invalid-tenant` and, with `once`, `storage-unavailable`.
    """
    if settings.tenants.owner != "decklog":
        raise DecklogError(
            Code.MISCONFIGURED,
            "DECKLOG_TENANTS_OWNER is kubernetes, whose operator looks after the tenants. Set it to decklog, or apply them by kubectl.",
        )
    if not options.keys.parent.is_dir():
        raise DecklogError(Code.MISCONFIGURED, f"There is no folder {options.keys.parent} for the keys.")
    lock = options.keys.with_suffix(".lock")
    async with AsyncExitStack() as stack:
        stack.enter_context(held(lock, f"Another decklog provision keeps {options.keys}. One is enough; stop it, or wait."))
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
