"""The operator as installed: the real Provisioner on PostgreSQL, OpenSearch and SQS, with the rights of the manifests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from decklog.domain.tenant import State
from decklog_operator.manifests import NAMESPACE
from decklog_operator.names import OPERATOR
from tests.backends import LocalSqs, PostgresServer, S3Server
from tests.backends.sqs import SqsServer
from tests.support.archives import bucket, s3_client
from tests.support.operator_installation import Installation, Installing, hashes, keys_of
from tests.support.operators import LABEL, ROOT, Kubernetes, Operator, until
from tests.support.records import FINGERPRINT_KEY
from tests.support.stack import Program
from tests.support.stores import Database, drop_database, new_database

pytestmark = pytest.mark.xdist_group("kubernetes")


VERSIONS = "{range .items[*]}{.metadata.name} {.metadata.resourceVersion}{'\\n'}{end}"


@pytest.fixture(params=["postgres", "timescale"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    server: PostgresServer = request.getfixturevalue(f"{request.param}_server")
    made = await new_database(server)
    yield made
    await drop_database(made)


async def test_examples_get_schema_index_queue_and_working_keys(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    installation, operator = await install(sqs_server)
    documents = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "manifests/examples").glob("*.yaml"))]
    for document in documents:
        document["metadata"] = {"name": kubernetes.name(document["metadata"]["name"]), "labels": {LABEL: kubernetes.run}}
    kubernetes.apply(*documents)
    kubernetes("wait", "--for=condition=Ready", "tenant", "-l", kubernetes.selector, "--timeout=120s")
    for document in documents:
        name = document["metadata"]["name"]
        status = (kubernetes.get("tenant", name) or {})["status"]
        row = await installation.row(name)
        assert (status["database"], row["schema"]) == ({"schema": row["schema"], "tenantId": row["id"]}, row["schema"])
        assert {each["type"]: each["status"] for each in status["conditions"]}.keys() >= {
            "DatabaseReady",
            "SearchReady",
            "QueueReady",
        }
        assert await installation.has_schema(status["database"]["schema"])
        assert installation.ranges(status["search"]["index"])
        assert {status["queue"]["name"], f"{status['queue']['name']}-dlq"} <= installation.queues()
        assert len(hashes(kubernetes.secret(name))) == 3
        assert hashes(kubernetes.secret(name)) == await installation.live_hashes(name)
    told = operator.log.read_text() + kubernetes("get", "tenants,events", "-A", "-o", "json")
    for document in documents:
        for key in keys_of(kubernetes.secret(document["metadata"]["name"])).values():
            assert key not in told


async def test_drift_is_named_and_then_repaired_or_only_reported(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    installation, operator = await install(sqs_server)
    name, reported = kubernetes.name(), kubernetes.name("r")
    kubernetes.apply(kubernetes.tenant(name), kubernetes.tenant(reported, {"retention": {"days": 30}, "driftPolicy": "Report"}))
    kubernetes.wait_ready(name, reported)

    def status(of: str) -> dict[str, Any]:
        return dict((kubernetes.get("tenant", of) or {})["status"])

    def named(of: str, field: str) -> None:
        until(f"{field} is named", lambda: field in status(of).get("drift", {}).get("fields", ()))

    for each in (name, reported):
        schema = status(each)["database"]["schema"]
        await installation.database.execute(f"DROP INDEX {schema}.records_actor")
        named(each, "index records_actor")
        installation.drop_queue(status(each)["queue"]["name"])
        named(each, "queue")
    until("the queue is back", lambda: status(name)["queue"]["name"] in installation.queues())
    kubernetes.wait_ready(name)
    drift = status(name)["drift"]
    assert (drift["detected"], drift["repairs"], drift["standing"]) == (2, 2, False)
    assert "DriftRepaired" in kubernetes("describe", "tenant", name).partition("Events:")[2]
    assert (operator.metric("decklog_provisioning_drift_repairs_total", part="database") or 0) >= 1
    assert (operator.metric("decklog_provisioning_drift_found_total", part="queue", thing="queue") or 0) >= 2

    assert (kubernetes.condition(reported)["status"], kubernetes.condition(reported, "Synced")["reason"]) == ("False", "Drifted")
    assert kubernetes.condition(reported, "DatabaseReady")["status"] == "True"
    assert (status(reported)["drift"]["repairs"], status(reported)["drift"]["standing"]) == (0, True)
    assert status(reported)["queue"]["name"] not in installation.queues()
    kubernetes.patch(reported, {"spec": {"driftPolicy": "Repair"}})
    kubernetes.wait_ready(reported)
    assert status(reported)["queue"]["name"] in installation.queues()
    until("nothing is called broken any more", lambda: not status(reported)["drift"]["standing"])
    usage = status(name)["usage"]
    assert usage["storageBytes"] > 0
    assert usage["records"] >= 1  # the access log of the tenant contains the actions


async def test_kubectl_and_decklog_tenants_print_the_same_table(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    installation, _ = await install(sqs_server)
    wide, shared, suspended = (kubernetes.name(prefix) for prefix in ("dedicated-with-a-long", "s", "off"))
    kubernetes.apply(
        kubernetes.tenant(wide),
        kubernetes.tenant(shared, {"isolation": "Shared", "retention": {"days": 60}}),
        kubernetes.tenant(suspended, {"retention": {"days": 3650}, "suspend": True}),
    )
    kubernetes.wait_ready(wide, shared, suspended)
    variables = {"PATH": os.environ["PATH"], "DECKLOG_DATABASE_DSN": installation.database.worker_dsn}

    def lines(text: str) -> list[str]:
        # One age counts from the object, the other from its registration, and time passes between the two.
        return [re.sub(r"( AGE| [0-9]+s) *", " AGE ", line).rstrip() for line in text.splitlines()]

    for flags, words in ((["-o", "wide"], ["--wide"]), ([], [])):
        kubectl = kubernetes("get", "tenants", "-l", kubernetes.selector, *flags)
        ours = subprocess.run(
            [sys.executable, "-m", "decklog", "tenants", *words], env=variables, capture_output=True, text=True, check=True
        )
        assert lines(ours.stdout) == lines(kubectl)
        assert len(lines(kubectl)) == 4


async def test_retained_tenant_keeps_its_number_and_records_but_loses_its_keys(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    installation, _ = await install(sqs_server)
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    before, old = await installation.row(name), hashes(kubernetes.secret(name))
    kubernetes("delete", "tenant", name, "--timeout=60s")
    assert await installation.live_hashes(name) == set()
    assert (await installation.row(name))["state"] == State.DELETED
    assert await installation.has_schema(before["schema"])
    assert kubernetes.secret(name) is None
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    after = await installation.row(name)
    assert (after["id"], after["state"]) == (before["id"], State.ACTIVE)
    assert after["uid"] != before["uid"]
    assert hashes(kubernetes.secret(name)).isdisjoint(old)
    assert await installation.live_hashes(name) == hashes(kubernetes.secret(name))


FOR_GOOD = {"retention": {"days": 30}, "deletionPolicy": "Delete"}


async def test_deleted_tenant_leaves_nothing_and_its_name_can_be_used_again(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    installation, _ = await install(sqs_server)
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name, FOR_GOOD))
    kubernetes.wait_ready(name)
    before, uid = await installation.row(name), (kubernetes.get("tenant", name) or {})["metadata"]["uid"]
    kubernetes("delete", "tenant", name, "--timeout=120s")
    await nothing_is_left(installation, before)
    assert kubernetes.secret(name) is None
    events = kubernetes("get", "events", "-o", "json", f"--field-selector=involvedObject.uid={uid}")
    told = {(event["type"], event["reason"]) for event in json.loads(events)["items"]}
    assert {("Normal", "Deleting"), ("Normal", "Removed")} <= told
    assert not [kind for kind, _ in told if kind != "Normal"], told
    kubernetes.apply(kubernetes.tenant(name, FOR_GOOD))
    kubernetes.wait_ready(name)
    assert (await installation.row(name))["id"] > before["id"]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_deletion_by_archive_waits_until_every_record_is_archived(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer, s3_server: S3Server
) -> None:
    installation, operator = await install(sqs_server)
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name, {**FOR_GOOD, "deletionPolicy": "Archive"}))
    kubernetes.wait_ready(name)
    row, uid = await installation.row(name), (kubernetes.get("tenant", name) or {})["metadata"]["uid"]
    assert kubernetes.condition(name, "ArchiveReady")["reason"] == "NoArchive"
    kubernetes("delete", "tenant", name, "--wait=false")
    until("it waits", lambda: kubernetes.condition(name, "Synced")["reason"] == "NoArchive")
    assert await installation.has_schema(row["schema"])

    async with bucket(s3_server) as evidence:
        own = {
            "DECKLOG_DATABASE_DSN": installation.database.worker_dsn,
            "DECKLOG_IDENTITY_FINGERPRINT_KEY": FINGERPRINT_KEY.decode(),
            "DECKLOG_ARCHIVE_BUCKET": evidence,
            "DECKLOG_ARCHIVE_ENDPOINT_URL": s3_server.url,
            "DECKLOG_ARCHIVE_REGION": s3_server.region,
            "DECKLOG_ARCHIVE_ACCESS_KEY_ID": s3_server.access_key,
            "DECKLOG_ARCHIVE_SECRET_ACCESS_KEY": s3_server.secret_key,
        }
        inherited = {variable: value for variable, value in os.environ.items() if not variable.startswith("DECKLOG_")}
        worker = Program("worker", {**inherited, **installation.variables, **own}, operator.log.with_name("worker.log"))
        worker.start()
        try:
            kubernetes("wait", "--for=delete", f"tenant/{name}", "--timeout=180s")
        finally:
            worker.stop()
        await nothing_is_left(installation, row)
        listed = s3_client(s3_server).list_objects_v2(Bucket=evidence, Prefix=f"{name}/{uid}/")["Contents"]
        assert {each["Key"].split("/")[2].partition("-")[0] for each in listed} == {"access", "manifest"}
    assert kubernetes.secret(name) is None
    events = json.loads(kubernetes("get", "events", "-o", "json", f"--field-selector=involvedObject.uid={uid}"))["items"]
    [last] = [event["message"] for event in events if event["reason"] == "Archived"]
    assert any(each["Key"] in last for each in listed)
    # The operator exports no traces and imports no exporter.
    assert "pyarrow" not in Path(f"/proc/{operator.pid}/maps").read_text()
    assert s3_server.secret_key not in operator.log.read_text()


async def nothing_is_left(installation: Installation, row: Any) -> None:
    """Assert that no backend has an object of the Dedicated tenant with this registry row."""
    assert not await installation.has_schema(row["schema"])
    assert not installation.ranges(row["index"])
    assert {row["queue"], f"{row['queue']}-dlq"}.isdisjoint(installation.queues())
    assert await installation.database.execute("SELECT 1 FROM decklog.tenants WHERE id = $1", row["id"]) == []


async def test_deletions_finish_when_the_operator_is_killed_repeatedly(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    installation, operator = await install(sqs_server)
    names, kept = [kubernetes.name() for _ in range(3)], kubernetes.name("kept")
    kubernetes.apply(*(kubernetes.tenant(name, FOR_GOOD) for name in names), kubernetes.tenant(kept))
    kubernetes.wait_ready(*names, kept)
    rows, retained = [await installation.row(name) for name in names], await installation.row(kept)
    kubernetes("delete", "tenant", *names, kept, "--wait=false")
    for line in ("status changed", "removing", "RemoveTenant"):
        until(f"it has come to {line!r}, or is done", lambda line=line: line in operator.log.read_text())  # type: ignore[misc]
        operator.kill()
        operator.start()
    kubernetes("wait", "--for=delete", *(f"tenant/{name}" for name in (*names, kept)), "--timeout=120s")
    for name, row in zip(names, rows, strict=True):
        await nothing_is_left(installation, row)
        until("the Secret is gone", lambda name=name: kubernetes.secret(name) is None)  # type: ignore[misc]
    assert await installation.has_schema(retained["schema"])
    assert (await installation.row(kept))["state"] == State.DELETED


async def test_drift_of_every_backend_is_repaired(kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer) -> None:
    installation, operator = await install(sqs_server)
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    index = (kubernetes.get("tenant", name) or {})["status"]["search"]["index"]
    installation.drop_index(index)
    until("the index is back", lambda: installation.ranges(index))
    old = hashes(kubernetes.secret(name))
    kubernetes("delete", "secret", f"{name}-decklog")
    until("the Secret is back", lambda: kubernetes.secret(name) is not None)
    kubernetes.wait_ready(name)
    assert hashes(kubernetes.secret(name)).isdisjoint(old)
    while await installation.live_hashes(name) != hashes(kubernetes.secret(name)):
        assert operator.running()


async def test_unavailable_backend_is_named_and_the_others_are_ready(
    kubernetes: Kubernetes, install: Installing, private_sqs: Callable[[], LocalSqs]
) -> None:
    queues = private_sqs()
    installation, _ = await install(queues.address)
    queues.kill9()
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    until("it is told", lambda: kubernetes.condition(name, "QueueReady").get("status") == "False", longest=120)
    until("the rest is there", lambda: kubernetes.condition(name, "CredentialsReady").get("status") == "True", longest=120)
    assert kubernetes.condition(name)["status"] == "False"
    assert kubernetes.condition(name, "SearchReady")["status"] == "True"
    assert await installation.live_hashes(name) == hashes(kubernetes.secret(name))
    queues.start()
    kubernetes.wait_ready(name)
    assert {(kubernetes.get("tenant", name) or {})["status"]["queue"]["name"]} <= installation.queues()


async def test_next_operator_finishes_what_a_killed_one_started(
    kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer
) -> None:
    installation, operator = await install(sqs_server)
    names = [kubernetes.name() for _ in range(3)]
    kubernetes.apply(*map(kubernetes.tenant, names))
    for _ in range(3):
        until("it is at work or done", lambda: "provisioning" in operator.log.read_text())
        operator.kill()
        operator.start()
    kubernetes.wait_ready(*names)
    for name in names:
        assert await installation.live_hashes(name) == hashes(kubernetes.secret(name))


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_replicas_take_over_without_doing_work_twice(
    kubernetes: Kubernetes, the_lease: None, install: Installing, sqs_server: SqsServer
) -> None:
    lease = {"LEASE_NAMESPACE": NAMESPACE, "LEASE_NAME": OPERATOR, "LEASE_SECONDS": "4"}
    installation, leading = await install(sqs_server, **{f"DECKLOG_OPERATOR_{name}": value for name, value in lease.items()})
    until("the first one leads", lambda: leading.leads)
    waiting = leading.another("another")
    try:
        waiting.start()
        names: list[str] = []
        for leave in (Operator.stop, Operator.kill):
            new = [kubernetes.name() for _ in range(6)]
            names += new
            kubernetes.apply(*map(kubernetes.tenant, new))
            until("it is in the midst of it", lambda new=new: any(kubernetes.condition(name) for name in new))  # type: ignore[misc]
            leave(leading)
            leading, waiting = waiting, leading
            kubernetes.wait_ready(*names)
            waiting.start()
        for name in names:
            done = await installation.done_to(name)
            assert max(done[action] for action in ("RegisterTenant", "CreateRelations", "CreateIndex", "CreateQueue")) <= 1, done
            assert await installation.live_hashes(name) == hashes(kubernetes.secret(name))
        # From here on no operator has anything to do.
        left = await installation.traces(names)
        versions = written(kubernetes, names)
        for leave in (Operator.stop, Operator.kill):
            leave(leading)
            leading, waiting = waiting, leading
            until("all are looked at again", lambda it=leading: (visits(it) or 0) >= 2 * len(names))  # type: ignore[misc]
            waiting.start()
            for line in leading.lines():
                of = [name for name in names if name in json.dumps(line)]
                assert not of or ([line["tenant"]], line["generation"]) == (of, 1), line
        assert await installation.traces(names) == left
        assert written(kubernetes, names) == versions
    finally:
        waiting.end()
        leading.end()


def written(kubernetes: Kubernetes, names: Sequence[str]) -> list[str]:
    """Return the versions of these Tenants and their Secrets; other tests share the cluster."""
    lines = kubernetes("get", "tenant,secret", "-A", "-o", f"jsonpath={VERSIONS}").splitlines()
    found = [line for line in lines if any(name in line for name in names)]
    assert len(found) >= 2 * len(names)
    return found


def visits(operator: Operator) -> float | None:
    return operator.metric("decklog_operator_reconciles_total", kind="visit", result="done")


async def test_deletion_waits_for_the_database(kubernetes: Kubernetes, install: Installing, sqs_server: SqsServer) -> None:
    installation, _ = await install(sqs_server)
    name = kubernetes.name()
    kubernetes.apply(kubernetes.tenant(name))
    kubernetes.wait_ready(name)
    role = "ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}"
    server = await asyncpg.connect(installation.database.server.dsn)
    try:
        await server.execute(role.format(installation.database.name, "false"))
        await server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", installation.database.name
        )
        kubernetes("delete", "tenant", name, "--wait=false")
        until("it is told", lambda: kubernetes.condition(name, "Synced").get("status") == "False")
        assert kubernetes.get("tenant", name) is not None
        await server.execute(role.format(installation.database.name, "true"))
    finally:
        await server.close()
    kubernetes("wait", "--for=delete", f"tenant/{name}", "--timeout=60s")
    assert (await installation.row(name))["state"] == State.DELETED
    assert await installation.live_hashes(name) == set()
