"""Alerts on a running stack: they fire while something is wrong, and resolve after recovery.

The rules are those that the chart renders, and Prometheus' own engine evaluates them over samples that were scraped from a
running worker. No test waits for the minutes that a rule asks for: what was scraped at a moment is laid on the time line as if
it had been found in each of some minutes, and the next moment follows. A worker that could not be scraped has a stale marker
there, as Prometheus writes it, and then nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.backends import OpenSearchServer, PostgresServer
from tests.backends.sqs import SqsServer
from tests.e2e.conftest import whole
from tests.support.alerts import firing
from tests.support.charts import Helm, Json, of
from tests.support.relay import Relay
from tests.support.stack import Program, Stack

BEHIND_RECORDS = 500
RECORD = {"action": "document.create", "actor": {"id": "alice"}}
Samples = dict[str, float]


async def scraped(program: Program) -> Samples:
    """Scrape the metrics of Decklog, by name and labels of each series as Prometheus stores them."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{program.url}/metrics")).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("decklog_"):
                labels = {**sample.labels, "namespace": "decklog-system", "pod": "worker-0"}
                told = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
                found[f"{sample.name}{{{told}}}"] = sample.value
    return found


def behind(samples: Samples) -> float:
    values = [value for name, value in samples.items() if name.startswith('decklog_consumer_behind_records{consumer="indexer"')]
    return values[0] if values else float("nan")  # before its first sweep


async def once(program: Program, true: Callable[[Samples], bool]) -> Samples:
    """Scrape until `true` holds for the samples, and return them."""
    async with asyncio.timeout(120):
        while True:
            if true(samples := await scraped(program)):
                return samples
            await asyncio.sleep(0.1)


class Line:
    """A time line of samples, each of which lasts for some minutes."""

    def __init__(self) -> None:
        self._moments: list[tuple[int, Samples | None]] = []

    def add(self, minutes: int, samples: Samples | None) -> range:
        """Add samples, and return their minutes. None stands for a worker that could not be scraped."""
        begin = self.minutes
        self._moments.append((minutes, samples))
        return range(begin, begin + minutes)

    @property
    def minutes(self) -> int:
        return sum(minutes for minutes, _ in self._moments)

    @property
    def series(self) -> list[str]:
        names = {name for _, samples in self._moments if samples is not None for name in samples}
        return [f"{name} {' '.join(self._values(name))}" for name in sorted(names)]

    def _values(self, name: str) -> list[str]:
        found: list[str] = []
        for minutes, samples in self._moments:
            if samples is not None and name in samples:
                found += [f"{samples[name]:.17g}"] * minutes
            else:
                found += ["stale" if found and found[-1] not in ("_", "stale") else "_"] + ["_"] * (minutes - 1)
        return found


def rules(helm: Path, home: Path) -> dict[str, Json]:
    """Return the chart's alerts, with a threshold of records that a test can reach."""
    words = ("--set", f"metrics.prometheusRule.behindRecords={BEHIND_RECORDS}")
    [rule] = of(Helm(helm, home).render("everything", *words), "PrometheusRule")
    return {each["alert"]: each for group in rule["spec"]["groups"] for each in group["rules"]}


@pytest.fixture
async def stack(
    timescale_server: PostgresServer, opensearch_server: OpenSearchServer, sqs_server: SqsServer, tmp_path: Path
) -> AsyncIterator[Stack]:
    async with whole(tmp_path, timescale_server, opensearch_server, sqs_server) as made:
        await made.provision(acme={"retention": {"days": 30}})
        yield made


async def test_alerts_fire_for_a_late_index_and_absent_workers_and_resolve_after_recovery(
    stack: Stack, opensearch_server: OpenSearchServer, helm: Path, promql: Path, tmp_path: Path
) -> None:
    address = urlsplit(opensearch_server.url)
    relay = Relay(address.hostname or "", address.port or 0)
    line = Line()
    try:
        api = await stack.api()
        worker = await stack.worker(DECKLOG_SEARCH_URL=f"http://127.0.0.1:{relay.port}", DECKLOG_WORKER_SWEEP_SECONDS="0.2")
        async with stack.client(api.url, stack.key("acme", "writer")) as client:

            async def post(count: int) -> None:
                answer = await client.post("/api/v1/logs/bulk", json=[RECORD] * count)
                assert answer.json()["stored"] == count, answer.text

            await post(10)
            done = 'decklog_consumer_records_total{consumer="indexer", namespace="decklog-system", pod="worker-0"}'
            well = line.add(15, await once(worker, lambda found: found.get(done, 0) >= 10 and behind(found) == 0))
            relay.cut()
            await post(BEHIND_RECORDS + 100)
            first = await once(worker, lambda found: behind(found) > BEHIND_RECORDS)
            fallen = line.add(8, first)
            await post(100)
            later = line.add(8, await once(worker, lambda found: behind(found) > behind(first)))
            relay.mend()
            better = line.add(15, await once(worker, lambda found: behind(found) == 0 and found[done] >= BEHIND_RECORDS + 210))
        assert await asyncio.to_thread(worker.stop) == 0
        away = line.add(15, None)
        worker.start()
        await worker.ready()
        back = line.add(15, await once(worker, lambda found: behind(found) == 0))
    finally:
        relay.close()
    alerts = rules(helm, tmp_path)
    late = firing(promql, alerts["DecklogSearchBehind"], line.series, line.minutes)
    assert not any(late[minute] for minute in (*well, *better, *away, *back))
    assert [minute for minute in (*fallen, *later) if late[minute]] == list(range(fallen.start + 10, later.stop))
    gone = firing(promql, alerts["DecklogWorkersAway"], line.series, line.minutes)
    assert not any(gone[minute] for minute in (*well, *fallen, *later, *better, *back))
    assert [minute for minute in away if gone[minute]] == list(range(away.start + 5, away.stop))
