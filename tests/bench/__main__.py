"""Run the benchmarks: `python -m tests.bench [--scale full|small] [--only NAME]`.

It prints a table and writes `.bench/results.json`. The exit code is 0 when every benchmark ran; the table shows which targets are met.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from pathlib import Path
from types import ModuleType

import structlog
import uvloop

from tests.backends import Servers, UnavailableError, running
from tests.bench import (
    board_inp,
    client_record,
    edge_flood,
    export,
    ingest_bulk,
    ingest_single,
    listing,
    noisy_neighbour,
    operator_idle,
    operator_tenants,
    read_audit,
    registry,
    searchable,
    stream,
    year_reads,
)
from tests.bench.context import Context, Scale
from tests.bench.figures import Figure, table, write_results

BENCHMARKS: tuple[ModuleType, ...] = (
    ingest_single,
    ingest_bulk,
    stream,
    searchable,
    listing,
    year_reads,
    board_inp,
    read_audit,
    export,
    edge_flood,
    noisy_neighbour,
    registry,
    operator_tenants,
    operator_idle,
    client_record,
)
RESULTS = Path(".bench") / "results.json"


def _chosen(only: str | None) -> list[ModuleType]:
    if only is None:
        return list(BENCHMARKS)
    found = [benchmark for benchmark in BENCHMARKS if set(only.split(",")) & set(benchmark.NAMES)]
    if not found:
        known = ", ".join(name for benchmark in BENCHMARKS for name in benchmark.NAMES)
        raise SystemExit(f"There is no benchmark {only!r}. There are: {known}")
    return found


async def _all(benchmarks: list[ModuleType], servers: Servers, scale: Scale, only: str | None) -> tuple[list[Figure], int]:
    async with contextlib.AsyncExitStack() as kept:
        return await _measure(benchmarks, Context(servers, scale, kept, frozenset((only or "").split(",")) - {""}))


async def _measure(benchmarks: list[ModuleType], context: Context) -> tuple[list[Figure], int]:
    figures: list[Figure] = []
    failures = 0
    for benchmark in benchmarks:
        try:
            async with contextlib.aclosing(benchmark.run(context)) as measured:
                async for figure in measured:
                    context.say(f"{figure.name}: {figure.value:,.4g} {figure.unit} {figure.note}")
                    figures.append(figure)
                    write_results(figures, RESULTS)
        except UnavailableError as reason:
            context.say(f"{', '.join(benchmark.NAMES)} left out: {reason}")
            failures += 1
        except Exception as error:  # noqa: BLE001 - what one benchmark cannot measure must not cost the others
            context.say(f"{', '.join(benchmark.NAMES)} failed: {type(error).__name__}: {error}")
            failures += 1
    return figures, failures


def main() -> int:
    """Return the exit code: 1 when a benchmark did not run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure Decklog.")
    parser.add_argument("--scale", choices=("full", "small"), default="full")
    parser.add_argument("--only", metavar="NAME", help="one benchmark, or several with commas")
    arguments = parser.parse_args()
    benchmarks = _chosen(arguments.only)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with running(durable=True) as servers:
        figures, failures = uvloop.run(_all(benchmarks, servers, arguments.scale, arguments.only))
    sys.stdout.write(table(figures) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
