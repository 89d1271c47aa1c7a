"""The operator process: probes first, then the cluster, the backends and, once Tenants are served, Kopf."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import kopf
import structlog

import decklog.settings
from decklog import logs
from decklog.domain.errors import DecklogError
from decklog_operator import cluster, health, settings
from decklog_operator.handlers import tenant
from decklog_operator.names import DEFINITION, GROUP, PLURAL, VERSION
from decklog_operator.reconcile import Provisioning, Reconciler

_SERVED_EVERY = 1.0
"""Seconds between two looks for the definition of Tenant: Kopf, told not to scan the cluster, looks only once."""

_RETRIES = (0.5, 1.0, 2.0, 3.0, 5.0, *(10.0,) * 360)
"""Pauses of Kopf between attempts at an API server that is away, in seconds, for an hour. By default it would end the
process within a minute, and a process that was restarted often enough is started late by Kubernetes."""

_log = structlog.get_logger(__name__)

OpenProvisioning = Callable[[decklog.settings.Settings], AbstractAsyncContextManager[Provisioning]]


async def run(environment: Mapping[str, str], open_provisioning: OpenProvisioning) -> None:
    """Serve until SIGTERM or SIGINT. Raises `misconfigured`."""
    own, others = settings.load(environment), decklog.settings.load(settings.split(environment)[1])
    log_to_stderr(others.log_format)
    async with health.serving(own.health_host, own.health_port) as probes, cluster.connect() as kubernetes:
        _log.info("probes answered", port=probes.port)
        await _until_served(kubernetes)
        async with open_provisioning(others) as provisioning:
            registry = kopf.OperatorRegistry()
            registry_login(registry)
            tenant.register(registry, Reconciler(provisioning, kubernetes, own))
            await _operate(registry, own, probes)


async def _operate(registry: kopf.OperatorRegistry, own: settings.OperatorSettings, probes: health.Health) -> None:
    ready = asyncio.Event()

    async def report() -> None:
        await ready.wait()
        probes.ready = True
        _log.info("operator started", selector=own.selector)

    reporting = asyncio.create_task(report())
    try:
        await kopf.operator(
            registry=registry, settings=kopf_settings(own.selector), standalone=True, clusterwide=True, ready_flag=ready
        )
    finally:
        probes.ready = False
        reporting.cancel()


async def _until_served(kubernetes: cluster.Cluster) -> None:
    """Wait for the definition, the rights and the API server: all three may come after this process."""
    told = ""
    while True:
        try:
            if await kubernetes.tenants_served():
                return
            detail = f"The cluster does not serve {DEFINITION} yet: kubectl apply -f manifests/crd.yaml."
        except DecklogError as error:
            detail = error.detail
        if detail != told:
            _log.warning("waiting for the cluster", detail=detail)
            told = detail
        await asyncio.sleep(_SERVED_EVERY)


class _NothingToCompare(kopf.DiffBaseStorage):
    """Keeps no copy of handled specs: visits compare generations, and a copy would cost a write for every edit."""

    def fetch(self, *, body: kopf.Body) -> None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        return


def kopf_settings(selector: str) -> kopf.OperatorSettings:
    """How Kopf is to behave; each line against a default that hurts."""
    found = kopf.OperatorSettings()
    found.scanning.disabled = True  # no right to list definitions and namespaces is needed
    found.posting.enabled = False  # Kopf puts events of cluster-scoped objects where `kubectl describe` does not look
    found.persistence.finalizer = f"{GROUP}/release"
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)  # status is for people
    found.persistence.diffbase_storage = _NothingToCompare()
    found.networking.request_timeout = 30.0
    found.networking.connect_timeout = 10.0
    found.networking.error_backoffs = _RETRIES
    if selector:
        found.watching.label_selectors[GROUP, VERSION, PLURAL] = selector
    return found


def registry_login(registry: kopf.OperatorRegistry) -> None:
    """Give Kopf the same credentials as `cluster.connect` takes."""

    @kopf.on.login(registry=registry, id="login")
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if os.environ.get("KUBECONFIG") or not os.environ.get("KUBERNETES_SERVICE_HOST"):
            return kopf.login_with_kubeconfig(**kwargs)
        return kopf.login_with_service_account(**kwargs)


def log_to_stderr(form: str) -> None:
    """Log as every Decklog process does; Kopf's lines about an object also say which one."""
    logs.configure(form)
    logging.getLogger("kopf.objects").addFilter(_name_the_tenant)


def _name_the_tenant(record: logging.LogRecord) -> bool:
    name = getattr(record, "k8s_ref", {}).get("name")
    if name and record.levelno >= logging.WARNING:
        record.msg = f"Tenant {name}: {record.msg}"
    return True
