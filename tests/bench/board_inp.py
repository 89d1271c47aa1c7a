"""The board over a log of a year: from an input to the next paint, while lists and counts of the log are asked for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from tests.backends import UnavailableError
from tests.bench.board_steps import Job, Seen
from tests.bench.context import Context
from tests.bench.figures import Figure, median, percentile, value_at_most
from tests.bench.long_log import Loaded, long_log
from tests.bench.processes import HOST, apart
from tests.bench.year_reads import records_of
from tests.support.board import BUILT

NAMES = ("board_inp_10m",)
_ROUNDS = 8
_PAINT_MAX = 200.0
"""Milliseconds: the bound of a good INP (https://web.dev/articles/inp)."""


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the p75 of the time to the next paint. Raises UnavailableError where the board is not built."""
    if not (BUILT / "index.html").exists():
        raise UnavailableError("the board is not built: run `make board`")
    async with long_log(context.servers.postgres, context.servers.opensearch, records_of(context), context.say) as log:
        yield await measured(context, log)


async def measured(context: Context, log: Loaded) -> Figure:
    """Return the p75 over all interactions of a browser, that of each kind beside it."""
    context.say(f"board_inp_10m: a browser over {log.replay.count:,} records")
    async with log.place.api() as server:
        job = Job(f"http://{HOST}:{server.port}", log.customer.auditor, 2 if context.small else _ROUNDS)
        seen = await apart("tests.bench.board_steps", job, Seen)
    times = [each for paints in seen.paints.values() for each in paints]
    kinds = ", ".join(
        f"{kind} {percentile(paints, 0.75):.0f} (answered after {median(seen.shown[kind]):,.0f})"
        for kind, paints in seen.paints.items()
    )
    note = f"{len(times)} interactions; p75 of each kind: {kinds}; longest {max(times):.0f} ms; {os.cpu_count()} cores"
    return Figure("board_inp_10m", percentile(times, 0.75), "ms", None, value_at_most(_PAINT_MAX), note)
