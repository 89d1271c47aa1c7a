"""Find or start a server of one kind: from the environment, from Docker compose or from the cache, in this order.

If the environment has an address that is malformed or unreachable, the result is an error. Tests must never use another server
instead.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, Literal

from tests.backends import browser, kubernetes, opensearch, postgres, progress, s3, sqs, timescale
from tests.backends.backend import Address, Backend
from tests.backends.cache import UnavailableError, cache_folder, make_folder, provisioned
from tests.backends.compose import Compose, docker_lacks

Source = Literal["environment", "docker", "cache"]

GIVEN_MAX = timedelta(seconds=15)  # for a server in the environment to respond
CONTAINER_MAX = timedelta(seconds=60)  # for a container whose image has no health check
REQUIRE_VARIABLE = "DECKLOG_TEST_REQUIRE"

BACKENDS: dict[str, Backend[Any]] = {
    backend.name: backend
    for backend in (timescale.BACKEND, postgres.BACKEND, opensearch.BACKEND, sqs.BACKEND, s3.BACKEND, kubernetes.BACKEND)
}


class BadAddressError(Exception):
    """An address in the environment is not usable. Tests fail and are never skipped."""


@dataclass(frozen=True)
class Found(Generic[Address]):
    address: Address
    source: Source


def named(*names: str) -> list[Backend[Any]]:
    """Return the backends of these names, or all without names. Raises `ValueError` for an unknown name."""
    if unknown := sorted(set(names) - BACKENDS.keys()):
        raise ValueError(f"unknown backend {', '.join(unknown)}; choose from {', '.join(BACKENDS)}")
    return [BACKENDS[name] for name in names] if names else list(BACKENDS.values())


def required(environ: Mapping[str, str]) -> set[str]:
    """Return the names of the backends, and of the browser, whose absence is an error. Raises `ValueError` for an unknown name."""
    names = {name.strip() for name in environ.get(REQUIRE_VARIABLE, "").split(",") if name.strip()}
    if names == {"all"}:
        return {*BACKENDS, browser.NAME}
    if backends := names - {browser.NAME}:
        named(*backends)
    return names


def resolve(backend: Backend[Address], folder: Path, environ: Mapping[str, str], *, durable: bool = False) -> Found[Address]:
    """Find a server, or start one with its files in `folder`. Raises `UnavailableError` with the reasons of all sources."""
    if given := _given(backend, environ):
        return Found(given, "environment")
    reasons = [f"environment: {backend.variables[0]} is not set"]
    if lacks := docker_lacks():
        reasons.append(f"docker: {lacks}")
    else:
        try:
            return Found(_in_container(backend, Compose.of(folder.parent, durable=durable)), "docker")
        except UnavailableError as unavailable:
            reasons.append(f"docker: {unavailable}")
    try:
        return Found(_started(backend, folder, durable=durable), "cache")
    except UnavailableError as unavailable:
        reasons.append(f"cache: {unavailable}")
        raise UnavailableError("; ".join(reasons)) from unavailable


def prospects(backend: Backend[Any], environ: Mapping[str, str]) -> Iterator[tuple[Source, str | None, str]]:
    """Yield each source that `resolve` tries, the reason why it is not usable (None if it is), and the server that it offers."""
    given = environ.get(backend.variables[0])
    yield "environment", None if given else f"{backend.variables[0]} is not set", "the address in the variable"
    yield "docker", docker_lacks(), "a container"
    try:
        backend.check()
        lacks = None
    except UnavailableError as unavailable:
        lacks = str(unavailable)
    missing = [recipe.key for recipe in backend.recipes() if not provisioned(recipe)]
    yield "cache", lacks, f"to be provisioned first: {', '.join(missing)}" if missing else "ready in the cache"


def _given(backend: Backend[Address], environ: Mapping[str, str]) -> Address | None:
    try:
        address = backend.from_environment(environ)
    except ValueError as error:
        raise BadAddressError(str(error)) from error
    if address is None:
        return None
    if not _answers_within(backend, address, GIVEN_MAX):
        raise BadAddressError(f"no server answers at the address in {backend.variables[0]}")
    return address


def _in_container(backend: Backend[Address], compose: Compose) -> Address:
    address = backend.from_compose(compose)
    if not _answers_within(backend, address, CONTAINER_MAX):
        raise UnavailableError(f"the container of {backend.name} runs, but its server does not answer")
    return address


def _answers_within(backend: Backend[Address], address: Address, longest: timedelta) -> bool:
    deadline = time.monotonic() + longest.total_seconds()
    while not backend.answers(address):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _started(backend: Backend[Address], folder: Path, *, durable: bool) -> Address:
    backend.provision()
    server = backend.local(folder, durable=durable)
    try:
        with progress.doing(f"starting {backend.name}"):
            server.start()
    except UnavailableError as unavailable:
        raise UnavailableError(f"{unavailable} (logs in {keep_logs(folder)})") from unavailable
    return server.address


def keep_logs(folder: Path) -> Path:
    """Copy the logs of a server that did not start to a folder that outlives the run, and return that folder."""
    logs = cache_folder() / "failed" / folder.name
    make_folder(logs)
    for log in folder.glob("*.log"):
        shutil.copy(log, logs / log.name)
    return logs
