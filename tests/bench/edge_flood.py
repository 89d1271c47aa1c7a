"""Latency of appends through Envoy while another client floods the edge, against the same appends without a flood.

Envoy Gateway configures Envoy from the chart's objects. Envoy limits each client. It admits more than the flooding tenant may append, so
the tenant's own limit refuses most of the rest.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from decklog.domain.tenant import Isolation
from tests.backends.cache import provision
from tests.backends.tools import TOOLS
from tests.bench import load, payloads
from tests.bench.context import Context
from tests.bench.figures import Figure, median, ratio_at_most
from tests.bench.load import Job, Outcome
from tests.bench.processes import HOST, Server
from tests.bench.stand import Customer, stand
from tests.support.charts import Helm
from tests.support.envoy_gateway import envoy_gateway

NAMES = ("edge_flood_p99",)
_HOSTNAME = "decklog"  # the Host of the load generator's requests
_CALM, _FLOODING = "127.0.0.3", "127.0.0.2"
_LIMIT = 10_000
"""Requests a minute of one client to the log routes, as in ci/edge.yaml."""
_TENANT_PER_SECOND = 20
"""Rate limit of the flooding tenant: less than the others append, because admitted records are no flood."""
_SECONDS, _WARMUP = 6.0, 1.0
_TURNS = 3
"""Rounds for each round of the context. They are short, because other load on the machine disturbs some of them more than a flood."""
_RATIO_MAX = 1.5


@dataclass(frozen=True)
class _Round:
    """Appends without and with the flood, one after the other, and the answers to the flood."""

    idle: Outcome
    flooded: Outcome
    flood: Outcome

    @property
    def ratio(self) -> float:
        return self.flooded.p99 / self.idle.p99


@asynccontextmanager
async def _edge(api: Server) -> AsyncIterator[int]:
    """Yield the port of an Envoy that the chart's objects lead to this API."""
    programs, helm, gateway = [await asyncio.to_thread(provision, TOOLS[name]) for name in ("edge", "helm", "gateway")]
    with tempfile.TemporaryDirectory() as name, ExitStack() as kept:
        folder = Path(name)
        chart = Helm(helm / "helm", folder)
        edge = envoy_gateway(gateway / "envoy-gateway", programs / "envoy", chart, folder, host=_HOSTNAME, api_port=api.port)
        yield await asyncio.to_thread(kept.enter_context, edge)


class _Clients:
    """Two clients of one edge, each with the key of its own tenant. No id is sent twice."""

    def __init__(self, context: Context, port: int, calm: Customer, flooding: Customer) -> None:
        self._seconds, self._port = context.seconds(_SECONDS), port
        self._calm, self._flooding = (
            [load.request("POST", "/api/v1/logs", customer.writer, payloads.single(i)) for i in range(100)]
            for customer in (calm, flooding)
        )
        self._numbers = Counter[str]()

    async def calm(self) -> Outcome:
        """Append about 80 records a second, below the limit of a client. Raise RuntimeError if one is refused."""
        job = Job(HOST, self._port, self._calm, 4, _WARMUP, self._seconds, self._numbers[_CALM], pause=0.04, client=_CALM)
        outcome = await load.apply(job)
        self._numbers[_CALM] = outcome.next_number
        if set(outcome.statuses) != {201}:
            raise RuntimeError(f"not every answer was a 201: {outcome.statuses}, {outcome.odd_answer}")
        return outcome

    async def flooded(self) -> tuple[Outcome, Outcome]:
        """Append while the other client sends about four times its limit, and return both outcomes.

        Raise RuntimeError if the machine is too slow for a flood.
        """
        warmup, seconds = _WARMUP / 2, self._seconds + 1.5 * _WARMUP
        job = Job(
            HOST,
            self._port,
            self._flooding,
            32,
            warmup,
            seconds,
            self._numbers[_FLOODING],
            pause=0.045,
            client=_FLOODING,
            reconnects=True,
        )
        flood, calm = await asyncio.gather(load.apply(job), self.calm())
        self._numbers[_FLOODING] = flood.next_number
        if 429 not in flood.statuses:
            raise RuntimeError(f"at {flood.rate:,.0f} requests a second nothing was refused: the machine is too slow for a flood")
        return calm, flood


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the p99 of appends during a flood."""
    async with stand(context.postgres("postgres")) as place:
        [calm] = await place.customers(1, Isolation.DEDICATED)
        [flooding] = await place.customers(1, Isolation.DEDICATED, per_second=_TENANT_PER_SECOND)
        async with place.api() as api, _edge(api) as port:
            clients = _Clients(context, port, calm, flooding)
            rounds = list[_Round]()
            for _ in range(_TURNS * context.rounds):
                context.say(f"edge_flood_p99: through Envoy at {_LIMIT:,} requests a minute for each client")
                idle = await clients.calm()
                rounds.append(_Round(idle, *await clients.flooded()))
    rounds.sort(key=lambda each: each.ratio)
    middle = rounds[(len(rounds) - 1) // 2]
    floods = [each.flood for each in rounds]
    yield Figure(
        "edge_flood_p99",
        middle.flooded.p99,
        "ms",
        middle.idle.p99,
        ratio_at_most(_RATIO_MAX),
        f"the middle one of the ratios {', '.join(f'{each.ratio:.2f}' for each in rounds)};"
        f" p50 {middle.flooded.p50:.1f} and {middle.idle.p50:.1f} ms;"
        f" the flood sent {median([flood.rate for flood in floods]):,.0f}/s and was answered {_statuses(floods)}",
    )


def _statuses(outcomes: list[Outcome]) -> str:
    counted = sum((Counter(outcome.statuses) for outcome in outcomes), Counter[int]())
    return ", ".join(f"{status} {count:,} times" for status, count in sorted(counted.items()))
