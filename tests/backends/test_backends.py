"""Test the test servers: requests, crashes, the order of sources, the cache and the end of runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
import boto3
import pytest
import yaml

from tests.backends import (
    BACKENDS,
    BadAddressError,
    KubernetesServer,
    LocalOpenSearch,
    LocalSqs,
    OpenSearchServer,
    PostgresServer,
    S3Server,
    SqsServer,
    UnavailableError,
    cache,
    compose,
    opensearch,
    postgres,
    resolve,
    s3,
    server,
    timescale,
)
from tests.backends.backend import Backend, LocalServer
from tests.backends.fixtures import PrivatePostgres
from tests.backends.run import RUN_VARIABLE, Run, sweep

ROOT = Path(__file__).parents[2]


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


# --- requests to each server


@pytest.mark.parametrize("name", ["timescale", "postgres"])
async def test_postgres_stores_a_row_with_synchronous_commit(name: str, request: pytest.FixtureRequest) -> None:
    postgres_like: PostgresServer = request.getfixturevalue(f"{name}_server")
    connection = await asyncpg.connect(postgres_like.dsn)
    try:
        assert (await connection.fetchval("select version()")).startswith("PostgreSQL")
        assert await connection.fetchval("show synchronous_commit") == "on"
        await connection.execute("create temporary table kept (n int); insert into kept values (42)")
        assert await connection.fetchval("select n from kept") == 42
    finally:
        await connection.close()


async def test_timescale_creates_a_hypertable_in_a_new_database(timescale_server: PostgresServer) -> None:
    database = fresh("hyper")
    owner = await asyncpg.connect(timescale_server.dsn)
    try:
        await owner.execute(f'create database "{database}"')
        connection = await asyncpg.connect(timescale_server.dsn_for(database))
        try:
            await connection.execute("create extension if not exists timescaledb")
            await connection.execute("create table t (at timestamptz not null, n int)")
            assert await connection.fetchval("select hypertable_id from create_hypertable('t', by_range('at'))")
            await connection.execute("insert into t select now() - n * interval '1 day', n from generate_series(1, 30) n")
            assert await connection.fetchval("select count(*) from show_chunks('t')") > 1
        finally:
            await connection.close()
        await owner.execute(f'create database "{database}-copy" template "{database}"')
        await owner.execute(f'drop database "{database}-copy"')
        await owner.execute(f'drop database "{database}"')
    finally:
        await owner.close()


async def test_postgres_rejects_a_wrong_password(postgres_server: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres_server.dsn_for("postgres", "postgres", "wrong"))


def test_opensearch_finds_an_indexed_document(opensearch_server: OpenSearchServer) -> None:
    def call(method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{opensearch_server.url}/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    index = fresh("found")
    call("PUT", f"{index}/_doc/1?refresh=true", {"action": "login", "n": 1})
    call("PUT", f"{index}/_doc/2?refresh=true", {"action": "logout", "n": 2})
    hits = call("POST", f"{index}/_search", {"query": {"match": {"action": "logout"}}})["hits"]["hits"]
    assert [hit["_id"] for hit in hits] == ["2"]
    call("DELETE", index)


def test_sqs_delivers_a_sent_message(sqs_server: SqsServer) -> None:
    client = boto3.client(
        "sqs",
        endpoint_url=sqs_server.url,
        region_name=sqs_server.region,
        aws_access_key_id=sqs_server.access_key,
        aws_secret_access_key=sqs_server.secret_key,
    )
    queue = client.create_queue(QueueName=fresh("queue"))["QueueUrl"]
    client.send_message(QueueUrl=queue, MessageBody="reached 7")
    [message] = client.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "reached 7"
    client.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    client.delete_queue(QueueUrl=queue)


def test_s3_returns_a_stored_object_and_enforces_legal_hold(s3_server: S3Server) -> None:
    client: Any = boto3.client(
        "s3",
        endpoint_url=s3_server.url,
        region_name=s3_server.region,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
    )
    bucket = fresh("bucket")
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    client.put_object(Bucket=bucket, Key="log/1", Body=b"bytes")
    assert client.get_object(Bucket=bucket, Key="log/1")["Body"].read() == b"bytes"
    version = client.put_object(Bucket=bucket, Key="held", Body=b"x", ObjectLockLegalHoldStatus="ON")["VersionId"]
    with pytest.raises(client.exceptions.ClientError):
        client.delete_object(Bucket=bucket, Key="held", VersionId=version)


def test_kubernetes_stores_a_config_map_and_deletes_its_namespace(kubernetes_server: KubernetesServer) -> None:
    namespace = fresh("made")
    kubernetes_server.kubectl("create", "namespace", namespace)
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"days": "30"}}
    kubernetes_server.kubectl("apply", "--namespace", namespace, "-f", "-", stdin=json.dumps(manifest))
    words = ("--namespace", namespace, "get", "configmap", "settings", "-o", "jsonpath={.data.days}")
    assert kubernetes_server.kubectl(*words) == "30"
    with pytest.raises(subprocess.CalledProcessError) as raised:
        kubernetes_server.kubectl("--namespace", namespace, "get", "configmap", "absent")
    assert "not found" in raised.value.__notes__[0]
    kubernetes_server.kubectl("delete", "namespace", namespace, "--timeout=60s")


# --- private servers


@pytest.mark.chaos
@pytest.mark.parametrize("variant", ["timescale", "postgres"])
async def test_private_postgres_keeps_a_committed_row_after_kill_9(
    variant: postgres.Variant, private_postgres: PrivatePostgres
) -> None:
    with private_postgres(variant) as own:
        connection = await asyncpg.connect(own.dsn)
        assert await connection.fetchval("show fsync") == "on"
        await connection.execute("create table kept (n int)")
        await connection.execute("insert into kept values (42)")
        own.kill9()
        assert not own.running
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await connection.fetchval("select 1")
        own.start()
        again = await asyncpg.connect(own.dsn)
        assert await again.fetchval("select n from kept") == 42
        await again.close()
        own.stop()
        own.start()
        assert postgres.accepts(own.address)
    assert not own.running
    assert not own.folder.exists()


async def test_private_postgres_applies_settings(private_postgres: PrivatePostgres) -> None:
    with private_postgres("postgres", max_connections="17") as own:
        connection = await asyncpg.connect(own.dsn)
        assert await connection.fetchval("show max_connections") == "17"
        await connection.close()


@pytest.mark.chaos
@pytest.mark.slow
def test_private_opensearch_restarts_after_kill_9(private_opensearch: Callable[[], LocalOpenSearch]) -> None:
    with private_opensearch() as own:
        own.kill9()
        assert not opensearch.BACKEND.answers(own.address)
        own.start()
        assert opensearch.BACKEND.answers(own.address)


@pytest.mark.chaos
def test_private_sqs_restarts_after_kill_9(private_sqs: Callable[[], LocalSqs]) -> None:
    with private_sqs() as own:
        own.kill9()
        own.start()
        assert BACKENDS["sqs"].answers(own.address)


# --- finding a server


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for this test alone, outside of any run."""
    monkeypatch.setenv("DECKLOG_CACHE", str(tmp_path))
    monkeypatch.delenv(RUN_VARIABLE, raising=False)
    return tmp_path


class FakeS3(s3.S3Backend):
    """A backend that starts no process."""

    def __init__(self, lacks: str | None = None) -> None:
        self.lacks = lacks
        self.started = 0

    def from_compose(self, compose: compose.Compose) -> S3Server:
        return S3Server("http://container", "r", "k", "s")

    def provision(self) -> None:
        if self.lacks:
            raise UnavailableError(self.lacks)

    def local(self, folder: Path, *, durable: bool = False) -> Any:
        self.started += 1

        class Fake:
            address = S3Server("http://made-here", "r", "k", "s")

            def start(self) -> None:
                pass

        return Fake()

    def answers(self, address: S3Server) -> bool:
        return "dead" not in address.url


GIVEN = {"DECKLOG_TEST_S3_URL": "http://given", "DECKLOG_TEST_S3_ACCESS_KEY": "k", "DECKLOG_TEST_S3_SECRET_KEY": "s"}


def test_resolve_prefers_the_environment_then_docker_then_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "docker_lacks", lambda: None)
    assert resolve.resolve(FakeS3(), tmp_path / "s3", GIVEN).source == "environment"
    assert resolve.resolve(FakeS3(), tmp_path / "s3", {}).source == "docker"
    monkeypatch.setattr(resolve, "docker_lacks", lambda: "switched off")
    assert resolve.resolve(FakeS3(), tmp_path / "s3", {}).source == "cache"


def test_resolve_reports_the_reason_of_each_source_when_all_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "docker_lacks", lambda: "docker is not installed")
    with pytest.raises(UnavailableError, match=r"DECKLOG_TEST_S3_URL is not set; docker: docker is not installed; cache: no Go"):
        resolve.resolve(FakeS3(lacks="no Go"), tmp_path / "s3", {})


def test_resolve_fails_on_unreachable_or_malformed_address_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "GIVEN_MAX", timedelta(0))
    with pytest.raises(BadAddressError, match="no server answers"):
        resolve.resolve(FakeS3(), tmp_path / "s3", {**GIVEN, "DECKLOG_TEST_S3_URL": "http://dead"})
    with pytest.raises(BadAddressError, match="SECRET_KEY"):
        resolve.resolve(FakeS3(), tmp_path / "s3", {"DECKLOG_TEST_S3_URL": "http://given"})
    with pytest.raises(BadAddressError, match="postgresql://"):
        resolve.resolve(postgres.BACKEND, tmp_path / "postgres", {"DECKLOG_TEST_POSTGRES_DSN": "host=elsewhere"})


@pytest.mark.parametrize("name", list(BACKENDS))
def test_exports_contain_every_variable_of_the_backend(name: str) -> None:
    backend: Backend[Any] = BACKENDS[name]
    fields: dict[str, Any] = {
        field: {"port": 5432, "kubeconfig": Path("kubeconfig"), "kubectl_program": Path("kubectl")}.get(field, "text")
        for field in backend.address_type.__dataclass_fields__
    }
    assert tuple(backend.exports(backend.address_type(**fields))) == backend.variables


def test_parse_dsn_returns_the_server_that_built_the_dsn() -> None:
    given = PostgresServer("db.example", 5433, "o'wner", "p@ss/word", "timescale", "audit log", "sslmode=require")
    assert postgres.parse_dsn(given.dsn, "timescale") == given
    assert timescale.BACKEND.from_environment({"DECKLOG_TEST_TIMESCALE_DSN": given.dsn}) == given


def test_unavailable_backend_skips_the_test_or_fails_it_when_required(own_cache: Path) -> None:
    test = own_cache / "test_needs_timescale.py"
    test.write_text("def test_it(s3_server):\n    pass\n")
    environ = {**os.environ, "DECKLOG_TEST_DOCKER": "0", "PATH": os.fspath(Path(sys.executable).parent)}
    environ |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environ.pop("DECKLOG_TEST_REQUIRE", None)
    code = "import sys, pytest; from tests.backends import s3, packages\n"
    code += "def none(name): raise packages.UnavailableError(f'`{name}` is not installed')\n"
    code += "s3.command = none\nsys.exit(pytest.main(sys.argv[1:]))"
    words = [
        sys.executable,
        "-c",
        code,
        "-p",
        "tests.backends.fixtures",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(own_cache),
    ]
    skipped = subprocess.run([*words, str(test)], env=environ, cwd=own_cache, capture_output=True, text=True, check=False)
    assert skipped.returncode == 0, skipped.stdout
    assert "1 skipped" in skipped.stdout
    assert "unavailable backends" in skipped.stdout
    assert "cache: `go` is not installed" in skipped.stdout
    for value in ("all", "sqs, s3"):
        failed = subprocess.run(
            [*words, str(test)],
            env={**environ, "DECKLOG_TEST_REQUIRE": value},
            cwd=own_cache,
            capture_output=True,
            text=True,
            check=False,
        )
        assert failed.returncode == 1
        assert "1 error" in failed.stdout
    unknown = subprocess.run(
        [*words, str(test)],
        env={**environ, "DECKLOG_TEST_REQUIRE": "oracle"},
        cwd=own_cache,
        capture_output=True,
        text=True,
        check=False,
    )
    assert unknown.returncode == pytest.ExitCode.USAGE_ERROR
    assert "unknown backend oracle" in unknown.stderr


# --- the cache


def test_provision_builds_a_recipe_once_for_parallel_callers(own_cache: Path) -> None:
    built: list[int] = []

    def build(building: cache.Building) -> None:
        built.append(1)
        time.sleep(0.2)
        building.run(["cp", "/dev/null", building.folder / "program"])

    recipe = cache.Recipe("fake", ("1",), build)
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: cache.provision(recipe), range(8)))
    assert len(built) == 1
    assert [path.name for path in folders.pop().iterdir()] == ["program"]
    assert cache.provision(cache.Recipe("fake", ("2",), build)).name != recipe.key


def test_provision_keeps_only_the_log_of_a_failed_build(own_cache: Path) -> None:
    recipe = cache.Recipe("fake", ("1",), lambda building: building.run(["sh", "-c", "echo no such thing >&2; exit 3"]))
    with pytest.raises(UnavailableError, match=r"exited with 3: .*no such thing"):
        cache.provision(recipe)
    assert not [path for path in own_cache.iterdir() if path.is_dir()]


def test_provision_removes_unused_folders_of_older_recipes(own_cache: Path) -> None:
    def made(name: str, *parts: str) -> Path:
        return cache.provision(cache.Recipe(name, parts, lambda building: (building.folder / "file").touch()))

    forgotten, used, other = made("fake", "1"), made("fake", "2"), made("fake-too", "1")
    long_ago = time.time() - 2 * cache.UNUSED_MAX.total_seconds()
    for folder in (forgotten, used, other):
        os.utime(folder, (long_ago, long_ago))
    assert made("fake", "2") == used
    newest = made("fake", "3")
    assert not forgotten.exists()
    assert not forgotten.with_name(f"{forgotten.name}.log").exists()
    assert used.is_dir()
    assert newest.is_dir()
    assert other.is_dir()


def test_provision_waits_for_a_build_that_outlives_its_run(own_cache: Path) -> None:
    code = (
        "from tests.backends import cache\n"
        "cache.provision(cache.Recipe('fake', ('1',), lambda b: b.run(['sh', '-c', 'echo at it; sleep 1.5'])))"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    log = own_cache / f"{cache.Recipe('fake', ('1',), lambda _: None).key}.log"
    while not (log.exists() and "at it\n" in log.read_text()):
        assert run.poll() is None
        time.sleep(0.01)
    run.kill()
    run.wait()
    start = time.monotonic()
    cache.provision(cache.Recipe("fake", ("1",), lambda building: (building.folder / "mine").touch()))
    assert time.monotonic() - start > 0.5


# --- runs


SLEEPER = ["sleep", "1000"]


def sleeping(run: Run, name: str = "sleeper") -> server.Process:
    pids = run.folder / name / "pids"
    pids.mkdir(parents=True)
    return server.spawn(SLEEPER, pid_file=pids / "sleep.pid", log=run.folder / name / "sleep.log")


def test_run_stops_its_processes_and_removes_its_folder_on_close(own_cache: Path) -> None:
    run = Run.open({})
    process = sleeping(run)
    assert process.alive
    run.close()
    assert not process.alive
    assert not list((own_cache / "runs").iterdir())


def test_run_cleans_up_after_a_killed_run_but_not_a_live_one(own_cache: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.backends.run import Run; from tests.backends.test_backends import sleeping\n"
        "run = Run.open({}); print(sleeping(run).pid, flush=True); time.sleep(1000)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert killed.stdout
    pid = int(killed.stdout.readline())
    sweep()
    assert server.start_mark(pid), "the process of a live run was killed"
    killed.kill()
    killed.wait()
    assert server.start_mark(pid)
    run = Run.open({})
    assert not server.start_mark(pid)
    assert [path.name for path in (own_cache / "runs").iterdir()] == [run.folder.name]
    run.close()


def test_run_does_not_kill_another_process_with_a_reused_pid(own_cache: Path) -> None:
    run = Run.open({})
    process = sleeping(run)
    file = run.folder / "sleeper" / "pids" / "sleep.pid"
    stranger = server.Process(process.name, process.pid, f"{process.mark}0", signal.SIGKILL)
    text = file.read_text()
    file.write_text(text.replace(f" {process.mark} ", f" {stranger.mark} "))
    run.close()
    assert process.alive
    process.kill()


def test_run_shares_servers_and_failures_between_processes(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "docker_lacks", lambda: "switched off")
    owner = Run.open({})
    worker = Run.open({RUN_VARIABLE: str(owner.folder)})
    backend = FakeS3()
    assert worker.address(backend) == owner.address(backend)
    assert backend.started == 1
    worker.close()
    assert owner.folder.exists()
    lacking = FakeS3(lacks="no Go")
    lacking.name = "other"  # type: ignore[misc]
    for run in (owner, worker):
        with pytest.raises(UnavailableError, match="no Go"):
            run.address(lacking)
    lacking.lacks = None
    with pytest.raises(UnavailableError, match="no Go"):
        worker.address(lacking)
    assert {name: bool(note.unavailable) for name, note in owner.notes()} == {"s3": False, "other": True}
    owner.close()


def test_run_reuses_kept_servers_while_they_answer(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "docker_lacks", lambda: "switched off")
    backend = FakeS3()
    for _ in range(2):
        run = Run.open({"DECKLOG_TEST_KEEP": "1"})
        run.address(backend)
        run.close()
    assert backend.started == 1
    monkeypatch.setattr(backend, "answers", lambda _: False)
    run = Run.open({"DECKLOG_TEST_KEEP": "1"})
    run.address(backend)
    run.close()
    assert backend.started == 2


class LocalWeb(LocalServer[int]):
    """The HTTP server of Python, which needs no recipe."""

    choices: ClassVar[Iterator[int]]

    def prepare(self) -> None:
        self.address = next(self.choices)

    def launch(self) -> None:
        self.spawn("web", [sys.executable, "-m", "http.server", str(self.address), "--bind", server.LOOPBACK])
        url = f"http://{server.LOOPBACK}:{self.address}/"
        server.wait_ready("web", lambda: server.http_status(url) == 200, self.processes, self.log("web"), timedelta(seconds=30))


def test_local_server_starts_on_another_port_when_its_port_is_taken(own_cache: Path) -> None:
    taken, free = server.free_ports(2)
    LocalWeb.choices = iter([taken, free])
    with socket.create_server((server.LOOPBACK, taken)), LocalWeb(own_cache / "web") as web:
        web.start()
        assert web.address == free


def test_local_server_reports_the_reason_when_it_does_not_start(own_cache: Path) -> None:
    LocalWeb.choices = iter([-1])
    with LocalWeb(own_cache / "web") as web, pytest.raises(UnavailableError, match=r"web exited.*: .*port"):
        web.start()


def test_free_ports_returns_no_recently_returned_port(own_cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        ports = [port for some in pool.map(lambda _: server.free_ports(10), range(20)) for port in some]
    assert len(set(ports)) == 200


# --- containers


def test_compose_returns_the_published_address_and_run_removes_the_container(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = own_cache / "programs"
    programs.mkdir()
    docker = programs / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {own_cache / "calls"}\n[ "$8" = port ] && echo 127.0.0.1:40123\nexit 0\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("DECKLOG_TEST_DOCKER", raising=False)
    monkeypatch.setattr(postgres, "accepts", lambda _: True)
    compose.docker_lacks.cache_clear()
    try:
        run = Run.open({})
        found = resolve.resolve(postgres.BACKEND, run.shared / "postgres", {})
        run.close()
    finally:
        compose.docker_lacks.cache_clear()
    assert found.source == "docker"
    assert (found.address.host, found.address.port) == ("127.0.0.1", 40123)
    calls = (own_cache / "calls").read_text().splitlines()
    assert [call.split()[7] for call in calls[2:]] == ["up", "port", "down"]
    assert len({call.split()[2] for call in calls[2:]}) == 1
    assert {call.split()[6] for call in calls[2:]} == {str(compose.DIGESTS)}


def test_compose_file_has_a_loopback_service_with_a_pinned_image_for_each_backend() -> None:
    services = yaml.safe_load(compose.FILE.read_text())["services"]
    assert services.keys() == BACKENDS.keys()
    for service in services.values():
        assert all(port.startswith("127.0.0.1::") for port in service["ports"])
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")
