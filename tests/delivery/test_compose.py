"""The compose file is valid, its programs accept their arguments and variables, and it contains no secret.

These tests start no containers. tests/e2e/test_compose_stack.py runs the programs over real servers.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from cyclopts import CycloptsError

from decklog import settings
from decklog.domain.errors import DecklogError
from decklog.files.manifests import read_manifests
from decklog.s3.objects import S3Objects
from tests.backends.s3 import LocalS3
from tests.support.compose import (
    COMPOSE,
    DOCKERFILE,
    FILE,
    OURS,
    PROGRAMS,
    SERVICES,
    arguments,
    interpolated,
    make_secrets,
    mounts,
    variables,
)
from tests.support.images import ROOT, source_in_checkout, stages

PORTS = {"timescale": 5432, "opensearch": 9200, "elasticmq": 9324, "s3": 7070}
"""Ports of the servers."""


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the service `secrets` fills."""
    root = tmp_path_factory.mktemp("volumes")
    make_secrets(root)
    return root


def read(composefile: Path, file: Path, **environment: str) -> dict[str, Any]:
    """Return the file as compose's own reader parses it. Raises `subprocess.CalledProcessError`."""
    argv: list[str | Path] = [composefile, file]
    told = subprocess.run(argv, env=environment, cwd=file.parent, capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_compose_file_is_read_alike_by_compose_and_these_tests(composefile: Path) -> None:
    found = read(composefile, FILE)
    assert found["services"].keys() == SERVICES.keys()
    assert found["volumes"].keys() == COMPOSE["volumes"].keys()
    for name, service in SERVICES.items():
        other = found["services"][name]
        for key in ("image", "command", "entrypoint", "environment", "read_only", "cap_drop", "user", "network_mode"):
            assert other.get(key) == service.get(key), (name, key)
        assert {each["target"]: each["source"] for each in other.get("volumes", [])} == mounts(service)
        assert other.get("healthcheck", {}).get("test") == service.get("healthcheck", {}).get("test")
    [port] = read(composefile, FILE, HTTP_PORT="9000")["services"]["api"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "9000", 8321)


def test_compose_reader_rejects_a_misspelled_key(composefile: Path, tmp_path: Path) -> None:
    for right, slip in (("mem_limit: 2g", "mem_limits: 2g"), ("migrate: {cond", "migrates: {cond"), ("- index:/", "- indices:/")):
        assert right in FILE.read_text()
        (tmp_path / "docker-compose.yml").write_text(FILE.read_text().replace(right, slip))
        with pytest.raises(subprocess.CalledProcessError):
            read(composefile, tmp_path / "docker-compose.yml")


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_accepts_its_arguments_and_variables(name: str, volumes: Path) -> None:
    service = PROGRAMS[name]
    assert service["command"][0] == name
    arguments(service["command"])
    loaded = settings.load(variables(service, volumes))
    if name in ("api", "worker"):
        assert (loaded.database.dsn != "", len(loaded.identity.fingerprint_key) >= 32) == (True, name == "api")
    if name in ("api", "provision"):
        assert (loaded.database.owner_dsn != "", loaded.tenants.owner) == (True, "decklog")
    if name != "migrate":
        assert (urlsplit(loaded.search.url).netloc, loaded.queue.enabled) == ("opensearch:9200", True)
        assert urlsplit(loaded.queue.endpoint_url).netloc == "elasticmq:9324"


def test_archive_settings_match_the_s3_server(volumes: Path) -> None:
    archive = settings.load(variables(SERVICES["worker"], volumes)).archive
    s3 = SERVICES["s3"]
    assert urlsplit(archive.endpoint_url).netloc == f"s3:{PORTS['s3']}"
    assert s3["command"][s3["command"].index("--port") + 1] == f":{PORTS['s3']}"
    assert s3["command"][s3["command"].index("--region") + 1] == archive.region
    assert archive.access_key_id == s3["environment"]["ROOT_ACCESS_KEY_ID"]
    script, objects = s3["entrypoint"][2], s3["command"][-1]
    assert f"mkdir -p {objects}/{archive.bucket}\n" in script
    assert f"cat /secrets/archive/{(volumes / 'archive/secret-key').name}" in script
    assert archive.secret_access_key == (volumes / "archive/secret-key").read_text()


async def test_s3_server_serves_a_folder_as_a_bucket(private_s3: Callable[[], LocalS3]) -> None:
    server = private_s3()
    (server.folder / "objects/decklog").mkdir()
    address = server.address
    objects = S3Objects(
        settings.Archive(
            bucket="decklog",
            endpoint_url=address.url,
            region=address.region,
            access_key_id=address.access_key,
            secret_access_key=address.secret_key,
        )
    )
    await objects.put("acme/1", b"bytes")
    assert await objects.get("acme/1", bytes_max=10) == b"bytes"
    assert not await objects.locked()
    await objects.close()


def test_dsns_name_the_database_service_and_one_role_each(volumes: Path) -> None:
    users = {}
    for group in ("admin", "owner", "service", "worker"):
        address = urlsplit((volumes / group / "dsn").read_text())
        assert (address.hostname, address.port, address.path) == ("timescale", PORTS["timescale"], "/decklog")
        assert address.password == (volumes / group / "password").read_text()
        users[group] = address.username
    roles = {"owner": "decklog_owner", "service": "decklog_service", "worker": "decklog_worker"}
    assert users == {"admin": "postgres", **roles}
    migration = settings.load(variables(SERVICES["migrate"], volumes)).database
    for group in roles:
        assert getattr(migration, f"{group}_password") == urlsplit((volumes / group / "dsn").read_text()).password
    assert SERVICES["timescale"]["environment"]["POSTGRES_DB"] == "decklog"


def test_services_mount_only_the_secrets_of_their_role() -> None:
    given = {
        name: {path.rsplit("/", 1)[1] for path in mounts(service) if path.startswith("/secrets/")}
        for name, service in SERVICES.items()
    }
    assert given == {
        "secrets": {"admin", "owner", "service", "worker", "archive", "keys"},
        "timescale": {"admin"},
        "migrate": {"admin", "owner"},
        "provision": {"owner", "keys"},
        "api": {"owner", "service"},
        "worker": {"worker", "archive"},
        "s3": {"archive"},
        "opensearch": set(),
        "elasticmq": set(),
    }
    writable = {
        (name, path)
        for name, service in SERVICES.items()
        for path in service.get("volumes", [])
        if ":/secrets/" in path and not path.endswith(":ro") and name != "secrets"
    }
    assert writable == {("provision", "keys:/secrets/keys")}


def test_secrets_are_created_once_and_differ_between_installations(volumes: Path, tmp_path: Path) -> None:
    def content(root: Path) -> dict[str, str]:
        return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}

    before = content(volumes)
    make_secrets(volumes)
    assert content(volumes) == before
    assert {path.stat().st_mode & 0o777 for path in volumes.rglob("*") if path.is_file()} == {0o444}
    assert (volumes / "keys").stat().st_mode & 0o777 == 0o700
    make_secrets(tmp_path)
    assert set(content(tmp_path).values()) & set(before.values()) == set()
    assert content(tmp_path).keys() == before.keys()
    named = set(re.findall(r"/secrets/([\w-]+/[\w.-]+)", FILE.read_text())) - {"keys/keys.json"}
    assert named <= before.keys()
    text = FILE.read_text()
    for name in re.findall(r"^\s+(\w*(?:PASSWORD|SECRET|DSN|_KEY)\w*): ", text, re.MULTILINE):
        assert name.endswith(("_FILE", "_ID")), f"{name} has a fixed value"


@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - {"migrate"}))
def test_health_checks_probe_the_port_that_the_program_listens_on(name: str, volumes: Path) -> None:
    service = PROGRAMS[name]
    [entry] = stages(ROOT / "service/Dockerfile")[-1].of("ENTRYPOINT")
    how, python, *_, probe = service["healthcheck"]["test"]
    assert (how, python) == ("CMD", entry[0])
    loaded = settings.load(variables(service, volumes))
    listens = {
        "api": loaded.api.port,
        "worker": loaded.worker.metrics_port,
        "provision": arguments(service["command"]).get("health_port"),
    }[name]
    assert listens
    assert f"urlopen('http://127.0.0.1:{listens}/readyz'" in probe


def test_mounts_networks_and_dependencies_exist() -> None:
    named: set[str] = set()
    for name, service in SERVICES.items():
        named.update(mounts(service).values())
        for other, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            assert condition in ("service_healthy", "service_completed_successfully")
            assert ("healthcheck" in SERVICES[other]) == (condition == "service_healthy"), (name, other)
        if service.get("network_mode") != "none":
            assert set(service["networks"]) <= COMPOSE["networks"].keys()
            assert "backends" in service["networks"]
    assert named == COMPOSE["volumes"].keys()
    given = arguments(SERVICES["provision"]["command"])
    examples = [source_in_checkout(DOCKERFILE, str(path)) for path in given["manifests"]]
    assert {"acme", "globex", "minimal"} <= read_manifests(examples).keys()
    assert str(given["keys"].parent) in mounts(SERVICES["provision"])


def test_services_with_secrets_wait_for_their_creation() -> None:
    def waited(name: str) -> set[str]:
        direct = SERVICES[name].get("depends_on", {})
        return set(direct).union(*(waited(other) for other in direct))

    for name, service in SERVICES.items():
        if name != "secrets" and any(path.startswith("/secrets/") for path in mounts(service)):
            assert "secrets" in waited(name), name


def test_services_are_confined_and_have_resource_limits() -> None:
    for name, service in SERVICES.items():
        assert {"mem_limit", "pids_limit", "restart"} <= service.keys(), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    for name, service in OURS.items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
    assert {name for name, service in OURS.items() if "user" in service} == {"secrets"}
    assert SERVICES["secrets"]["network_mode"] == "none"


def test_compose_builds_its_image_and_never_pulls_it() -> None:
    assert {service["pull_policy"] for service in OURS.values()} == {"never"}
    assert [name for name, service in SERVICES.items() if "build" in service] == ["secrets"]


def test_services_mount_no_file_of_the_checkout() -> None:
    assert [source for service in SERVICES.values() for source in mounts(service).values() if "/" in source] == []


def test_services_work_on_an_engine_that_may_not_raise_limits() -> None:
    assert [name for name, service in SERVICES.items() if "ulimits" in service] == []


def test_telemetry_is_switched_off_by_a_setting_that_the_oss_licence_allows() -> None:
    timescale = SERVICES["timescale"]
    assert timescale["image"].endswith("-oss")
    assert "-ctimescaledb.telemetry_level=off" in timescale["command"]
    assert "TIMESCALEDB_TELEMETRY" not in timescale["environment"]


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8321:8321"]}
    assert COMPOSE["networks"]["backends"] == {"internal": True}


def test_images_are_pinned_and_equal_those_of_the_tests() -> None:
    tests = yaml.safe_load(interpolated((ROOT / "tests/backends/compose.yaml").read_text().replace(":?", ":-")))["services"]
    for name, other in (("timescale", "timescale"), ("opensearch", "opensearch"), ("elasticmq", "sqs"), ("s3", "s3")):
        assert SERVICES[name]["image"] == tests[other]["image"]
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", SERVICES[name]["image"])
    [built] = [service["build"] for service in OURS.values() if "build" in service]
    assert (ROOT / built["context"] / built["dockerfile"]).is_file()
    assert stages(ROOT / built["dockerfile"])[-1].of("ENTRYPOINT") == [["/opt/decklog/bin/python", "-m", "decklog"]]


def test_program_rejects_misspelled_arguments_and_variables(volumes: Path) -> None:
    with pytest.raises(CycloptsError):
        arguments(["provision", "--manifest", "x", "--key", "y", "--nothing"])
    with pytest.raises(DecklogError, match="DECKLOG_SERCH_URL"):
        settings.load({**variables(SERVICES["api"], volumes), "DECKLOG_SERCH_URL": "x"})
