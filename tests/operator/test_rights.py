"""Each right of the operator is needed: without it the operator reports a failure, and with it the work continues.

One operator runs with a copy of the installation's rights. Each test removes one verb of one rule for a while.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from decklog_operator.manifests import ACCOUNT, NAMESPACE, rights
from tests.backends import KubernetesServer
from tests.support.operators import Json, Kubernetes, Operator, operator_environment, speaking_as, until
from tests.support.provisioning import FOLDER_VARIABLE, FolderProvisioner

pytestmark = pytest.mark.xdist_group("kubernetes")


def renamed(value: Any, name: str) -> Any:
    """Return the objects with another name for the account, its roles and its Lease."""
    if isinstance(value, dict):
        return {key: renamed(each, name) for key, each in value.items()}
    if isinstance(value, list):
        return [renamed(each, name) for each in value]
    return name if value == ACCOUNT else value


class World:
    """An operator with its own account."""

    def __init__(self, server: KubernetesServer, folder: Path) -> None:
        self.kubernetes = Kubernetes(server)
        self.name = f"{ACCOUNT}-{self.kubernetes.run}"
        self.objects: list[Json] = renamed(rights(), self.name)
        self.kubernetes("apply", "-f", "-", stdin=yaml.safe_dump_all(self.objects))
        self.backends = FolderProvisioner(folder)
        environment = operator_environment(
            self.kubernetes,
            speaking_as(server, self.name, folder),
            **{
                FOLDER_VARIABLE: str(folder),
                "DECKLOG_OPERATOR_LEASE_NAMESPACE": NAMESPACE,
                "DECKLOG_OPERATOR_LEASE_NAME": self.name,
                "DECKLOG_OPERATOR_LEASE_SECONDS": "3",
            },
        )
        self.operator = Operator(["tests.support.operator_on_folder"], environment, folder)

    @contextmanager
    def without(self, resource: str, verb: str) -> Iterator[None]:
        """Remove this right while the block runs."""
        [role] = [
            each
            for each in self.objects
            for rule in each.get("rules", ())
            if resource in rule["resources"] and verb in rule["verbs"]
        ]
        left = [
            {**rule, "verbs": [each for each in rule["verbs"] if (rule["resources"], each) != ([resource], verb)]}
            for rule in role["rules"]
        ]
        self._apply({**role, "rules": [rule for rule in left if rule["verbs"]]})
        try:
            self._told(role, resource, verb, "no")
            yield
        finally:
            self._apply(role)
            self._told(role, resource, verb, "yes")

    def _apply(self, role: Json) -> None:
        self.kubernetes("replace", "-f", "-", stdin=json.dumps(role))

    def _told(self, role: Json, resource: str, verb: str, answer: str) -> None:
        kind, _, part = resource.partition("/")
        words = ["auth", "can-i", verb, f"leases/{self.name}" if kind == "leases" else kind]
        words += [f"--subresource={part}"] if part else []
        words += ["-n", role["metadata"]["namespace"]] if role["kind"] == "Role" else []

        def told() -> str:
            try:
                return self.kubernetes(*words, f"--as=system:serviceaccount:{NAMESPACE}:{self.name}").strip()
            except subprocess.CalledProcessError as no:
                return str(no.stdout).strip()

        until(f"the API server has learnt of {verb} {resource}", lambda: told() == answer)

    def apply(self) -> str:
        """Apply a new Tenant and return its name."""
        name = self.kubernetes.name()
        self.kubernetes.apply(self.kubernetes.tenant(name))
        return name

    def ready(self) -> str:
        """Apply a new Tenant and return its name when it is ready."""
        name = self.apply()
        self.kubernetes.wait_ready(name)
        return name

    def says(self, name: str, text: str, kind: str = "CredentialsReady") -> None:
        until(f"{kind} says {text!r}", lambda: text in self.kubernetes.condition(name, kind).get("message", ""))

    def logs(self, text: str) -> None:
        until(f"the log says {text!r}", lambda: any(text in json.dumps(line) for line in self.operator.lines()))

    def events(self, name: str) -> str:
        return self.kubernetes("get", "events", "-o", "name", f"--field-selector=involvedObject.name={name}")

    def passes(self, name: str) -> int:
        row = self.backends.row(name)
        return row.passes if row else 0

    def is_looked_after(self, name: str) -> None:
        seen = self.passes(name)
        until("it is looked after", lambda: self.passes(name) > seen + 1)

    def nobody_leads(self, text: str) -> None:
        self.operator.launch()
        self.logs(text)
        assert not self.operator.leads

    def end(self) -> None:
        self.operator.end()
        self.kubernetes.clean()
        self.kubernetes("delete", "lease", self.name, "-n", NAMESPACE, "--ignore-not-found")
        self.kubernetes("delete", "-f", "-", stdin=yaml.safe_dump_all(self.objects))


@pytest.fixture(scope="module")
def world(kubernetes_server: KubernetesServer, least_rights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(kubernetes_server, tmp_path_factory.mktemp("world"))
    made.operator.start()
    yield made
    made.end()


# Each case runs to its first `yield` with all rights, to the second without one right, and to its end with all rights again.


def a_start_waits_until_tenants_may_be_listed(world: World) -> Iterator[None]:
    world.operator.stop()
    yield
    world.operator.launch()
    world.logs("may not read the kind")
    assert world.operator.ask("/readyz")[0] == 503
    yield
    until("it leads", lambda: world.operator.leads)


def what_is_new_is_not_seen_until_tenants_may_be_watched(world: World) -> Iterator[None]:
    old = world.ready()
    world.operator.stop()
    yield
    world.operator.start()
    world.is_looked_after(old)
    new = world.apply()
    world.is_looked_after(old)
    assert world.passes(new) == 0
    yield
    world.kubernetes.wait_ready(new)


def nothing_is_begun_that_no_finalizer_holds(world: World) -> Iterator[None]:
    old = world.ready()
    yield
    new = world.apply()
    world.is_looked_after(old)
    assert world.passes(new) == 0
    yield
    world.kubernetes.wait_ready(new)


def nobody_is_told_of_what_was_done(world: World) -> Iterator[None]:
    yield
    name = world.apply()
    world.is_looked_after(name)
    world.logs("may not write the Tenant")
    assert "status" not in (world.kubernetes.get("tenant", name) or {})
    yield
    world.kubernetes.wait_ready(name)


def keys_that_are_there_cannot_be_seen(world: World) -> Iterator[None]:
    name = world.ready()
    yield
    world.says(name, "may not read the Secret")
    yield
    world.kubernetes.wait_ready(name)


def keys_cannot_be_handed_out(world: World) -> Iterator[None]:
    yield
    name = world.apply()
    world.says(name, "may not create the Secret")
    yield
    world.kubernetes.wait_ready(name)


def keys_cannot_be_changed(world: World) -> Iterator[None]:
    name = world.ready()
    yield
    world.kubernetes("patch", "secret", f"{name}-decklog", "--type=merge", "-p", '{"data":null}')
    world.says(name, "may not write the Secret")
    yield
    world.kubernetes.wait_ready(name)


def a_deletion_leaves_no_keys_behind_so_it_waits(world: World) -> Iterator[None]:
    name = world.ready()
    yield
    world.kubernetes("delete", "tenant", name, "--wait=false")
    world.says(name, "may not delete the Secret", "Synced")
    assert world.kubernetes.secret(name) is not None
    yield
    world.kubernetes("wait", "--for=delete", f"tenant/{name}", "--timeout=60s")


def no_event_tells_of_a_change(world: World) -> Iterator[None]:
    yield
    first = world.ready()
    world.logs("may not create the Event")
    yield
    second = world.ready()
    until("an event tells", lambda: world.events(second))
    assert not world.events(first)


def nobody_leads_who_cannot_see_the_lease(world: World) -> Iterator[None]:
    world.operator.stop()
    yield
    world.nobody_leads("may not read the Lease")
    yield
    until("it leads", lambda: world.operator.leads)


def nobody_leads_where_no_lease_can_be_made(world: World) -> Iterator[None]:
    world.operator.stop()
    world.kubernetes("delete", "lease", world.name, "-n", NAMESPACE)
    yield
    world.nobody_leads("may not write the Lease")
    yield
    until("it leads", lambda: world.operator.leads)


def nobody_leads_who_cannot_take_the_lease(world: World) -> Iterator[None]:
    world.operator.stop()
    yield
    world.nobody_leads("may not write the Lease")
    yield
    until("it leads", lambda: world.operator.leads)


BREAKS: dict[tuple[str, str], Callable[[World], Iterator[None]]] = {
    ("tenants", "list"): a_start_waits_until_tenants_may_be_listed,
    ("tenants", "watch"): what_is_new_is_not_seen_until_tenants_may_be_watched,
    ("tenants", "patch"): nothing_is_begun_that_no_finalizer_holds,
    ("tenants/status", "patch"): nobody_is_told_of_what_was_done,
    ("secrets", "get"): keys_that_are_there_cannot_be_seen,
    ("secrets", "create"): keys_cannot_be_handed_out,
    ("secrets", "patch"): keys_cannot_be_changed,
    ("secrets", "delete"): a_deletion_leaves_no_keys_behind_so_it_waits,
    ("events", "create"): no_event_tells_of_a_change,
    ("leases", "get"): nobody_leads_who_cannot_see_the_lease,
    ("leases", "create"): nobody_leads_where_no_lease_can_be_made,
    ("leases", "update"): nobody_leads_who_cannot_take_the_lease,
}


def test_every_installed_right_has_a_case() -> None:
    granted = [
        (resource, verb)
        for each in rights()
        for rule in each.get("rules", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    assert sorted(granted) == sorted(BREAKS)


@pytest.mark.parametrize(("resource", "verb"), BREAKS, ids=[breaks.__name__ for breaks in BREAKS.values()])
def test_operator_names_the_missing_right(world: World, resource: str, verb: str) -> None:
    steps = BREAKS[resource, verb](world)
    next(steps)
    with world.without(resource, verb):
        next(steps)
    assert next(steps, "worked again") == "worked again"
