"""`decklog provision`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import App, Parameter
from cyclopts.validators import Number

from decklog import settings, upkeep
from decklog.cli.manual import manual
from decklog.cli.options import Flag, Port
from decklog.cli.signals import stop_on_signal

app = App(
    name="provision",
    help_epilogue=manual(
        """Does from files what the operator does from custom resources: creates tenants, repairs drift, and rotates keys when they are due.
The files are read again before each pass. Tenants that were created over the API are kept right, too. A tenant whose file is
removed stays.

Needs DECKLOG_TENANTS_OWNER=decklog, DECKLOG_DATABASE_OWNER_DSN, and DECKLOG_SEARCH_ and DECKLOG_QUEUE_ as the API has them.""",
        "decklog provision --manifests tenants/ --keys /etc/decklog/keys.json",
        "decklog provision --manifests acme.yaml --manifests globex.yaml --keys keys.json --once",
        exits="0, 1 (--once left a tenant not ready), 2 (provisioning could not begin)",
    ),
)


@app.default
def provision(
    *,
    manifests: list[Path],
    keys: Path,
    url: str = "",
    platform_key: Flag = False,
    once: Flag = False,
    interval: Annotated[float, Parameter(validator=Number(gte=1, lte=3_600))] = upkeep.INTERVAL,
    health_host: str = "127.0.0.1",
    health_port: Port = 0,
) -> int:
    """Create tenants from files and keep them right, without Kubernetes.

    Args:
        manifests: YAML file, or folder of YAML files. May be repeated.
        keys: File that stores the keys. Only its owner can read it.
        url: Address of the API, which is stored beside the keys.
        platform_key: Store a key of the platform there, and revoke all others.
        once: End after one pass.
        interval: Seconds between two passes, 1 to 3600.
        health_host: Address of /healthz, /readyz and /metrics.
        health_port: Port of /healthz, /readyz and /metrics; 0 for none.
    """
    options = upkeep.Options(tuple(manifests), keys, url, platform_key, once, interval, health_host, health_port)
    return uvloop.run(_run(options))


async def _run(options: upkeep.Options) -> int:
    with stop_on_signal() as stop:
        return await upkeep.run(options, settings.load(os.environ), stop)
