"""At most one replica works under any failure, and one works again as soon as that is safe."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.errors import Code, DecklogError
from decklog_operator.cluster import connect
from decklog_operator.lease import Json, Lease, Leases
from decklog_operator.manifests import NAMESPACE
from decklog_operator.names import OPERATOR
from tests.support import virtual_time
from tests.support.memory_leases import MemoryLeases

SECONDS = 15
END = 200.0
Fault = Literal["cut off", "answers lost", "killed", "stopped"]


class Link:
    """One replica's connection to the API, which may be slow, be cut or lose responses."""

    def __init__(self, api: MemoryLeases, latency: float) -> None:
        self._api, self._latency = api, latency
        self.cut_until = self.lossy_until = 0.0

    async def read_lease(self, namespace: str, name: str) -> Json | None:
        await self._way()
        found = await self._api.read_lease(namespace, name)
        await self._way_back()
        return found

    async def write_lease(self, lease: Json) -> Json:
        await self._way()
        written = await self._api.write_lease(lease)
        await self._way_back()
        return written

    async def _way(self) -> None:
        await asyncio.sleep(self._latency)
        if asyncio.get_running_loop().time() < self.cut_until:
            if self._latency:
                await asyncio.sleep(END)  # a connection that hangs
            raise DecklogError(Code.STORAGE_UNAVAILABLE, "cut off")

    async def _way_back(self) -> None:
        await asyncio.sleep(self._latency)
        if asyncio.get_running_loop().time() < self.lossy_until:
            raise DecklogError(Code.STORAGE_UNAVAILABLE, "the answer is lost")


class Replica:
    """A replica that works while it holds the Lease, stops within `stopping` seconds and restarts when it loses the Lease."""

    def __init__(self, api: MemoryLeases, latency: float, stopping: float) -> None:
        self.link, self._stopping = Link(api, latency), stopping
        self.work: list[list[float]] = []
        self._asked = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._asked.is_set():
            async with Lease(self.link, "ns", "one", seconds=SECONDS, leave=self._leave).held() as lost:
                self.work.append([asyncio.get_running_loop().time(), END * 10])
                waiting = [asyncio.create_task(each.wait()) for each in (lost, self._asked)]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for each in waiting:
                    each.cancel()
                await asyncio.sleep(self._stopping)
                self._leave()

    def _leave(self) -> None:
        if self.work:
            self.work[-1][1] = min(self.work[-1][1], asyncio.get_running_loop().time())

    @property
    def works(self) -> bool:
        return bool(self.work) and self.work[-1][1] > asyncio.get_running_loop().time()

    def kill(self) -> None:
        """End the replica without releasing anything."""
        self._leave()
        self.link.cut_until = float("inf")
        self._task.cancel()

    def stop(self) -> None:
        self._asked.set()
        if not self.works:
            self._task.cancel()


async def worked(faults: list[tuple[float, int, Fault, float]], latencies: list[float], stopping: list[float]) -> list[Replica]:
    """Return the replicas after these faults (time, replica, kind, duration) and a long time without faults."""
    api, loop = MemoryLeases(), asyncio.get_running_loop()
    replicas = [Replica(api, *given) for given in zip(latencies, stopping, strict=True)]
    for at, number, fault, lasting in sorted(faults):
        await asyncio.sleep(max(0.0, at - loop.time()))
        replica = replicas[number]
        match fault:
            case "cut off":
                replica.link.cut_until = max(replica.link.cut_until, loop.time() + lasting)
            case "answers lost":
                replica.link.lossy_until = loop.time() + lasting
            case "killed":
                replica.kill()
            case "stopped":
                replica.stop()
    await asyncio.sleep(END - loop.time())
    return replicas


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 120),
            st.integers(0, 2),
            st.sampled_from(get_args(Fault)),
            st.floats(0, 40),
        ),
        max_size=8,
    ),
    st.lists(st.sampled_from([0.0, 0.01, 0.2, 1.0]), min_size=3, max_size=3),
    st.lists(st.sampled_from([0.0, 1.0, 4.0, 60.0]), min_size=3, max_size=3),
)
def test_lease_has_at_most_one_holder_and_finally_one(
    faults: list[tuple[float, int, Fault, float]], latencies: list[float], stopping: list[float]
) -> None:
    async def scenario() -> None:
        replicas = await worked(faults, latencies, stopping)
        spans = sorted((begin, end) for replica in replicas for begin, end in replica.work)
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans)), spans
        ended = {number for _, number, fault, _ in faults if fault in ("killed", "stopped")}
        assert any(replica.works for replica in replicas) or len(ended) == len(replicas)

    virtual_time.run(scenario())


def gaps(faults: list[tuple[float, int, Fault, float]], latency: float = 0.01) -> list[tuple[float, int, float]]:
    """Return each handover between two replicas: time, successor and seconds without a worker."""

    async def scenario() -> list[tuple[float, int, float]]:
        replicas = await worked(faults, [latency, latency], [0.5, 0.5])
        spans = sorted((begin, end, number) for number, replica in enumerate(replicas) for begin, end in replica.work)
        return [(begin, number, begin - before) for (_, before, _), (begin, _, number) in itertools.pairwise(spans)]

    return virtual_time.run(scenario())


def test_lease_passes_on_within_two_seconds_of_a_stop() -> None:
    [(at, heir, gap)] = gaps([(50, 0, "stopped", 0)])
    assert (at < 52, heir, gap < 1) == (True, 1, True)


def test_lease_is_released_on_stop_even_when_the_api_is_slow_or_fails_at_first() -> None:
    [(slow, heir, _)] = gaps([(50, 0, "stopped", 0)], latency=1.0)
    assert (slow < 50 + SECONDS - 3, heir) == (True, 1)
    [(lossy, heir, _)] = gaps([(50, 0, "answers lost", 3), (50, 0, "stopped", 0)])
    assert (lossy < 50 + 5, heir) == (True, 1)


def test_lease_is_taken_after_it_expires_when_the_holder_dies() -> None:
    [(at, heir, _)] = gaps([(50, 0, "killed", 0)])
    assert (at < 50 + SECONDS + 1, heir) == (True, 1)


def test_lease_holder_stops_before_a_successor_starts_when_cut_off() -> None:
    [(at, heir, gap)] = gaps([(50, 0, "cut off", 100)])
    assert (at < 50 + SECONDS + 1, heir, gap > 0) == (True, 1, True)


@pytest.mark.parametrize("fault", ["cut off", "answers lost"])
def test_lease_survives_a_short_api_outage(fault: Fault) -> None:
    assert gaps([(50, 0, fault, 7)], latency=0.0) == []
    assert gaps([(50, 0, fault, 5)], latency=0.1) == []


def test_lease_stays_with_its_holder_after_it_is_deleted_by_hand() -> None:
    async def scenario() -> None:
        api = MemoryLeases()
        first, second = (Replica(api, 0.01, 0.0) for _ in range(2))
        await asyncio.sleep(50)
        api.delete("ns", "one")
        await asyncio.sleep(50)
        assert (first.works, second.works) == (True, False)
        first.link.cut_until = END
        api.delete("ns", "one")
        await asyncio.sleep(50)
        assert second.work[0][0] >= first.work[0][1]

    virtual_time.run(scenario())


def test_lease_ends_the_process_when_work_outlasts_the_loss() -> None:
    class Broken(MemoryLeases):
        async def read_lease(self, namespace: str, name: str) -> Json | None:
            if asyncio.get_running_loop().time() > 30:
                raise ZeroDivisionError
            return await super().read_lease(namespace, name)

    async def scenario() -> None:
        left: list[float] = []
        loop = asyncio.get_running_loop()
        with suppress(ZeroDivisionError):
            async with Lease(Broken(), "ns", "one", seconds=SECONDS, leave=lambda: left.append(loop.time())).held() as lost:
                await lost.wait()
                assert loop.time() < 30 + SECONDS / 3
                await asyncio.sleep(END)
        assert 0 < left[0] - 30 < SECONDS

    virtual_time.run(scenario())


def test_lease_is_free_when_emptied_or_created_by_hand() -> None:
    async def scenario(spec: Json) -> Json:
        api = MemoryLeases()
        await api.write_lease({"metadata": {"namespace": "ns", "name": "one"}, **spec})
        async with Lease(api, "ns", "one", seconds=SECONDS).held():
            assert asyncio.get_running_loop().time() < 1
            held = await api.read_lease("ns", "one")
            assert held is not None
            return held

    for spec in ({}, {"spec": None}, {"spec": {"holderIdentity": ""}}, {"spec": {"leaseTransitions": 4}}):
        virtual_time.run(scenario(spec))


# --- the in-memory and the real Lease ----------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "kubernetes"])
async def leases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Leases, str]]:
    """The Leases and a name that may be written in the namespace decklog-system."""
    if request.param == "memory":
        yield MemoryLeases(), "one"
        return
    monkeypatch.setenv("KUBECONFIG", str(request.getfixturevalue("least_rights")))
    request.getfixturevalue("the_lease")
    async with connect() as cluster:
        yield cluster, OPERATOR


async def test_lease_writes_name_the_version_and_never_recreate_it(leases: tuple[Leases, str]) -> None:
    store, name = leases
    new = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15},
    }
    assert await store.read_lease(NAMESPACE, name) is None
    made = await store.write_lease(new)
    assert await store.read_lease(NAMESPACE, name) == made
    renewed = await store.write_lease({**made, "spec": {**made["spec"], "holderIdentity": "b"}})
    assert renewed["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    for late in (new, made):
        with pytest.raises(DecklogError) as caught:
            await store.write_lease(late)
        assert caught.value.code is Code.CONFLICT
    found = await store.read_lease(NAMESPACE, name)
    assert found is not None
    assert found["spec"]["holderIdentity"] == "b"


async def test_lease_is_acquired_renewed_and_released_on_a_real_api_server(leases: tuple[Leases, str]) -> None:
    store, name = leases
    one, two = (Lease(store, NAMESPACE, name, seconds=3) for _ in range(2))
    async with one.held() as lost:
        taken = await store.read_lease(NAMESPACE, name)
        assert taken is not None
        waiting = asyncio.create_task(two.held().__aenter__())
        while (now := await store.read_lease(NAMESPACE, name)) == taken:
            await asyncio.sleep(0.05)
        assert now is not None
        assert now["spec"]["holderIdentity"] == one.identity
        assert now["spec"]["acquireTime"] == taken["spec"]["acquireTime"]
        assert (lost.is_set(), waiting.done()) == (False, False)
    await waiting
    now = await store.read_lease(NAMESPACE, name)
    assert now is not None
    assert (now["spec"]["holderIdentity"], now["spec"]["leaseTransitions"]) == (two.identity, 2)
