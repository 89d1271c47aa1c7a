"""Several operators at once: replicas that share a Lease, and shards that serve different Tenants."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from decklog_operator.manifests import ACCOUNT, NAMESPACE
from decklog_operator.names import OPERATOR
from tests.support.operators import LABEL, Kubernetes, Operator, operator_environment, until
from tests.support.provisioning import FOLDER_VARIABLE, FolderProvisioner
from tests.support.relay import Relay

pytestmark = pytest.mark.xdist_group("kubernetes")

LONG, SHORT = "600", "4"
"""Seconds of a Lease that no test waits for, and of one that it does."""

Replica = Callable[..., Operator]


@pytest.fixture
def replica(
    kubernetes: Kubernetes, the_lease: None, least_rights: Path, backends: FolderProvisioner, tmp_path: Path
) -> Iterator[Replica]:
    """A factory: given a name, it returns an operator with the same Lease and backends, not started."""
    made: list[Operator] = []

    def make(name: str, *, seconds: str = LONG, config: Path = least_rights, **variables: str) -> Operator:
        environment = operator_environment(
            kubernetes,
            config,
            **{
                FOLDER_VARIABLE: str(backends.folder),
                "DECKLOG_OPERATOR_LEASE_NAMESPACE": NAMESPACE,
                "DECKLOG_OPERATOR_LEASE_NAME": OPERATOR,
                "DECKLOG_OPERATOR_LEASE_SECONDS": seconds,
                **variables,
            },
        )
        made.append(Operator(["tests.support.operator_on_folder"], environment, tmp_path, name))
        return made[-1]

    yield make
    for each in made:
        each.end()


def holder(kubernetes: Kubernetes, name: str = OPERATOR) -> str:
    lease = kubernetes.get("lease", name, NAMESPACE) or {"spec": {}}
    return str(lease["spec"].get("holderIdentity", ""))


def allow_leases(kubernetes: Kubernetes, *names: str) -> None:
    patch = [{"op": "replace", "path": "/rules/0/resourceNames", "value": names}]
    kubernetes("patch", "role", ACCOUNT, "-n", NAMESPACE, "--type=json", "-p", json.dumps(patch))


def turns(backends: FolderProvisioner) -> list[int]:
    """Return the processes in the order of their work. Fail when two worked at once, or one again after another."""
    journal = backends.journal()
    order = [pid for pid, _ in itertools.groupby(entry.pid for entry in journal)]
    assert len(order) == len(set(order)), f"they took turns more often than they should: {order}"
    return order


def last_to_work(backends: FolderProvisioner, tenant: str) -> int:
    return [entry.pid for entry in backends.journal() if entry.tenant == tenant][-1]


def first_work(backends: FolderProvisioner, pid: int, after: float) -> float:
    """Return the start of the process's first visit after this time, by the machine's clock."""
    found: list[float] = until(
        f"{pid} works", lambda: [entry.at for entry in backends.journal() if entry.pid == pid and entry.at > after]
    )
    return found[0]


def wait_for_work(backends: FolderProvisioner, entries: int) -> None:
    seen = len(backends.journal())
    until("work goes on", lambda: len(backends.journal()) > seen + entries)


def test_one_replica_leads_and_both_are_ready(kubernetes: Kubernetes, replica: Replica, backends: FolderProvisioner) -> None:
    first, second = replica("first"), replica("second")
    first.start()
    until("the first one leads", lambda: first.leads)
    second.start()
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    assert second.ask("/readyz") == (200, "standing by\n")
    assert second.ask("/healthz")[0] == 200
    assert (first.metric("decklog_operator_leader"), second.metric("decklog_operator_leader")) == (1, 0)
    assert turns(backends) == [first.pid]
    assert second.stop() == 0
    assert "Traceback" not in second.log.read_text()
    assert first.leads


def test_leader_hands_over_under_load_before_its_lease_expires(
    kubernetes: Kubernetes, replica: Replica, backends: FolderProvisioner
) -> None:
    first, second = replica("first"), replica("second")
    first.start()
    until("the first one leads", lambda: first.leads)
    second.start()
    names = [kubernetes.name() for _ in range(30)]
    kubernetes.apply(*map(kubernetes.tenant, names))
    until("it is at work", lambda: len(backends.journal()) > 10)
    assert first.stop() == 0
    until("the second one leads", lambda: second.leads)
    kubernetes("wait", "--for=condition=Ready", "tenant", "-l", kubernetes.selector, "--timeout=60s")
    kubernetes.patch(names[0], {"spec": {"displayName": "Edited"}})
    kubernetes("wait", "--for=jsonpath={.status.observedGeneration}=2", f"tenant/{names[0]}", "--timeout=60s")
    assert turns(backends) == [first.pid, second.pid]
    assert "Traceback" not in first.log.read_text() + second.log.read_text()


def test_leader_hands_over_within_two_seconds_of_a_stop(
    kubernetes: Kubernetes, replica: Replica, backends: FolderProvisioner
) -> None:
    leading, waiting = replica("first"), replica("second")
    leading.start()
    until("the first one leads", lambda: leading.leads)
    waiting.start()
    names = [kubernetes.name() for _ in range(10)]
    kubernetes.apply(*map(kubernetes.tenant, names))
    kubernetes.wait_ready(*names)
    taken: list[float] = []
    while min(taken, default=9.0) > 2 and len(taken) < 5:  # retry on a busy machine
        asked = time.monotonic()
        assert leading.stop() == 0
        taken.append(first_work(backends, waiting.pid, asked) - asked)
        leading.start()
        leading, waiting = waiting, leading
    assert min(taken) <= 2, taken


def test_standby_takes_over_after_the_lease_of_a_dead_leader_expires(
    kubernetes: Kubernetes, replica: Replica, backends: FolderProvisioner
) -> None:
    first, second = replica("first", seconds=SHORT), replica("second", seconds=SHORT)
    first.start()
    until("the first one leads", lambda: first.leads)
    second.start()
    names = [kubernetes.name() for _ in range(30)]
    kubernetes.apply(*map(kubernetes.tenant, names))
    until("it is at work", lambda: len(backends.journal()) > 10)
    first.kill()
    kubernetes("delete", "tenant", names[0], "--wait=false")
    kubernetes("wait", "--for=delete", f"tenant/{names[0]}", "--timeout=60s")
    kubernetes("wait", "--for=condition=Ready", "tenant", "-l", kubernetes.selector, "--timeout=60s")
    assert turns(backends) == [first.pid, second.pid]
    for name in names[1:]:
        row = backends.row(name)
        assert row is not None
        assert len(row.hashes) == 3


def test_leader_ends_before_a_successor_starts_when_the_api_is_unreachable(
    kubernetes: Kubernetes, replica: Replica, away: tuple[Relay, Path], backends: FolderProvisioner
) -> None:
    relay, config = away
    first, second = replica("first", seconds=SHORT, config=config), replica("second", seconds=SHORT)
    first.start()
    until("the first one leads", lambda: first.leads)
    second.start()
    names = [kubernetes.name() for _ in range(5)]
    kubernetes.apply(*map(kubernetes.tenant, names))
    kubernetes.wait_ready(*names)
    relay.cut()
    until("the first one ended", lambda: not first.running())
    assert first.exit_code == 1
    until("the second one leads", lambda: second.leads)
    until("it works", lambda: backends.journal()[-1].pid == second.pid)
    assert turns(backends) == [first.pid, second.pid]
    assert "leadership lost" in first.log.read_text()


def test_frozen_leader_ends_when_it_resumes_after_its_lease(
    kubernetes: Kubernetes, replica: Replica, backends: FolderProvisioner
) -> None:
    first, second = replica("first", seconds=SHORT), replica("second", seconds=SHORT)
    first.start()
    until("the first one leads", lambda: first.leads)
    second.start()
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    first.freeze()
    until("the second one leads", lambda: second.leads)
    first.thaw()
    until("the first one ended", lambda: not first.running())
    assert second.leads
    kubernetes.patch(name, {"spec": {"displayName": "Edited"}})
    kubernetes("wait", "--for=jsonpath={.status.observedGeneration}=2", f"tenant/{name}", "--timeout=60s")


def test_selector_without_its_own_lease_is_rejected(replica: Replica) -> None:
    operator = replica("first", DECKLOG_OPERATOR_LEASE_NAME="")
    with pytest.raises(AssertionError, match="DECKLOG_OPERATOR_LEASE_NAME"):
        operator.start()


def test_shards_serve_their_own_tenants_and_follow_label_changes(
    kubernetes: Kubernetes, replica: Replica, backends: FolderProvisioner
) -> None:
    leases = [f"{OPERATOR}-{shard}" for shard in "ab"]
    allow_leases(kubernetes, *leases)
    try:
        first, second = (
            replica(
                shard,
                DECKLOG_OPERATOR_SELECTOR=f"{kubernetes.selector},shard={shard}",
                DECKLOG_OPERATOR_LEASE_NAME=f"{OPERATOR}-{shard}",
            )
            for shard in "ab"
        )
        for each in (first, second):
            each.start()
            until("it leads its shard", lambda each=each: each.leads)  # type: ignore[misc]
        assert all(holder(kubernetes, lease) for lease in leases)
        names = {shard: [kubernetes.name(shard) for _ in range(5)] for shard in "ab"}
        kubernetes.apply(
            *(kubernetes.tenant(name, labels={LABEL: kubernetes.run, "shard": shard}) for shard in "ab" for name in names[shard])
        )
        kubernetes.wait_ready(*names["a"], *names["b"])
        worked = {(entry.pid, entry.tenant) for entry in backends.journal()}
        assert worked == {(first.pid, name) for name in names["a"]} | {(second.pid, name) for name in names["b"]}
        moved = names["a"][0]
        kubernetes("label", "tenant", moved, "shard=b", "--overwrite")
        until("it is looked after by the other", lambda: last_to_work(backends, moved) == second.pid)
        wait_for_work(backends, 20)  # earlier visits have ended
        seen = len(backends.journal())
        wait_for_work(backends, 50)
        assert {entry.pid for entry in backends.journal()[seen:] if entry.tenant == moved} == {second.pid}
        kubernetes("label", "tenant", moved, "shard=a", "--overwrite")
        until("it is looked after by the first again", lambda: last_to_work(backends, moved) == first.pid)
        kubernetes("label", "tenant", moved, "shard=b", "--overwrite")
        until("and by the other", lambda: last_to_work(backends, moved) == second.pid)
        kubernetes("delete", "tenant", moved, "--timeout=60s")
    finally:
        allow_leases(kubernetes, OPERATOR)
