"""Run the operator process: serve probes, connect to the cluster and the backends, acquire the Lease, then run Kopf."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, nullcontext, suppress
from typing import Any

import kopf
import structlog
from prometheus_client import REGISTRY

import decklog.settings
from decklog import log_lines as logs
from decklog.domain.errors import Code, DecklogError
from decklog.probes import serving
from decklog_operator import cluster, metrics, settings
from decklog_operator.handlers import tenant
from decklog_operator.lease import Lease
from decklog_operator.names import DEFINITION, FINALIZER, GROUP, OPERATOR, PLURAL, VERSION
from decklog_operator.reconcile import Provisioning, Reconciler
from decklog_operator.visits import Visits
from decklog_operator.watch import WatchLife

_SERVED_EVERY = 1.0
"""Seconds between two checks for the definition of Tenant. Kopf checks only once when it must not scan the cluster."""

_RETRIES = (0.5, 1.0, 2.0, 3.0, 5.0, *(10.0,) * 360)
"""Pauses of Kopf between attempts at an unreachable API server, in seconds, for an hour in total.

By default Kopf would end the process within a minute, and Kubernetes delays the start of a pod that restarts often.
"""

_log = structlog.get_logger(__name__)

OpenProvisioning = Callable[[decklog.settings.Settings], AbstractAsyncContextManager[Provisioning]]


async def run(environment: Mapping[str, str], open_provisioning: OpenProvisioning) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        DecklogError: `misconfigured` for wrong settings, `conflict` when another replica may lead now.
    """
    asyncio.get_running_loop().set_exception_handler(report_unless_generator)
    serving = asyncio.create_task(_serve(environment, open_provisioning))
    # Kopf handles signals later. Until then, an acquired Lease must be released on SIGTERM.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    with suppress(asyncio.CancelledError):
        await serving


def report_unless_generator(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that no task handles, unless it is from closing a generator when the loop ends.

    Kopf leaves its watch open when it is stopped between two events. The loop then closes the watch and the contexts inside it at the
    same time, and they fail on each other. The process ends then anyway, and a visit that was stopped is made again.
    """
    if "asyncgen" not in context:
        loop.default_exception_handler(context)


async def _serve(environment: Mapping[str, str], open_provisioning: OpenProvisioning) -> None:
    own, others = settings.load(environment), decklog.settings.load(settings.split(environment)[1])
    census, watch = metrics.Census(), WatchLife(own.watch_silence_max_seconds)
    log_to_stderr(others.log_format, census)
    async with AsyncExitStack() as stack:
        probes = await stack.enter_async_context(serving(own.health_host, own.health_port))
        kubernetes = await stack.enter_async_context(cluster.connect())
        _log.info("probes answered", port=probes.port)
        lease = await _lease(own, stack)
        await _until_served(kubernetes)
        provisioning = await stack.enter_async_context(open_provisioning(others))
        probes.ready_as, probes.complaint = "standing by", watch.complaint
        async with lease.held() if lease else nullcontext(asyncio.Event()) as lost:
            probes.ready_as = "leading"
            registry = kopf.OperatorRegistry()
            registry_login(registry, watch)
            reconciler = Reconciler(provisioning, kubernetes, own)
            visits = Visits(reconciler)
            tenant.register(registry, reconciler, visits, census)
            with _measured(reconciler, census, watch):
                platform = asyncio.create_task(reconciler.keep_platform(), name="platform")
                try:
                    async with visits.going_on():
                        await _operate(registry, own, watch, lost)
                finally:
                    platform.cancel()
            if lost.is_set():
                raise DecklogError(
                    Code.CONFLICT, "The Lease could not be renewed in time, so another replica may lead. This replica ends."
                )


async def _lease(own: settings.OperatorSettings, stack: AsyncExitStack) -> Lease | None:
    """Return the Lease that elects one working replica; None outside a cluster without a configured namespace."""
    namespace = own.lease_namespace or cluster.own_namespace()
    if not namespace:
        return None
    if own.selector and not own.lease_name:
        raise DecklogError(
            Code.MISCONFIGURED,
            "DECKLOG_OPERATOR_SELECTOR is set: set DECKLOG_OPERATOR_LEASE_NAME to a name of its own. "
            "With a common Lease, the Tenants of another selector would wait forever.",
        )
    # The Lease has its own connection, so that a thousand visits that wait for one never delay a renewal.
    connection = await stack.enter_async_context(cluster.connect())
    return Lease(connection, namespace, own.lease_name or OPERATOR, seconds=own.lease_seconds)


@contextmanager
def _measured(reconciler: Reconciler, census: metrics.Census, watch: WatchLife) -> Iterator[None]:
    """Connect the metrics to this operator while the block runs."""
    metrics.LEADER.set(1)
    metrics.ROTATIONS_DUE.set_function(reconciler.rotations_due)
    metrics.WATCH_SILENCE.set_function(watch.silence)
    REGISTRY.register(census)
    try:
        yield
    finally:
        metrics.LEADER.set(0)
        REGISTRY.unregister(census)


async def _operate(
    registry: kopf.OperatorRegistry, own: settings.OperatorSettings, watch: WatchLife, lost: asyncio.Event
) -> None:
    """Run Kopf until a signal stops it or `lost` is set."""
    ready = asyncio.Event()
    kopf_settings = settings_of_kopf(own.selector, watch.stream_seconds)
    # By default Kopf looks up the user's name, which the numeric user of the image does not have.
    identity: Any = socket.gethostname()
    # Kopf's `stop_flag` is not used: Kopf would wait five seconds for its waiters at every stop.
    operating = asyncio.create_task(
        kopf.operator(
            registry=registry, settings=kopf_settings, standalone=True, clusterwide=True, ready_flag=ready, identity=identity
        )
    )

    async def report() -> None:
        await ready.wait()
        watch.begin()
        _log.info("operator started", selector=own.selector)

    async def end() -> None:
        await lost.wait()
        operating.cancel()

    beside = [asyncio.create_task(report()), asyncio.create_task(end())]
    try:
        await operating
    except asyncio.CancelledError:
        if not lost.is_set():
            raise
    finally:
        for task in beside:
            task.cancel()


async def _until_served(kubernetes: cluster.Cluster) -> None:
    """Wait for the API server, the rights and the definition. All three may appear after this process starts."""
    logged = ""
    while True:
        try:
            if await kubernetes.tenants_served():
                return
            detail = f"The cluster does not serve {DEFINITION} yet: kubectl apply -f manifests/crd.yaml."
        except DecklogError as error:
            detail = error.detail
        if detail != logged:
            _log.warning("waiting for the cluster", detail=detail)
            logged = detail
        await asyncio.sleep(_SERVED_EVERY)


class _NothingToCompare(kopf.DiffBaseStorage):
    """Store no copy of handled specs. Visits compare generations, and a copy would cost one write per edit."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: kopf.Body) -> None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        return


def settings_of_kopf(selector: str, stream_seconds: float) -> kopf.OperatorSettings:
    """Return the settings of Kopf. Each line replaces a harmful default."""
    found = kopf.OperatorSettings()
    found.scanning.disabled = True  # scanning needs rights to list definitions and namespaces
    found.posting.enabled = False  # Kopf posts Events of cluster-scoped objects where `kubectl describe` does not find them
    found.persistence.finalizer = FINALIZER
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(
        prefix=GROUP, v1=False
    )  # Kopf's state does not belong in the status
    found.persistence.diffbase_storage = _NothingToCompare()
    found.networking.request_timeout = 30.0
    found.networking.connect_timeout = 10.0
    found.networking.error_backoffs = _RETRIES
    found.watching.server_timeout = math.ceil(stream_seconds)  # see `watch`; by default the server chooses
    if selector:
        found.watching.label_selectors[GROUP, VERSION, PLURAL] = selector
    return found


def registry_login(registry: kopf.OperatorRegistry, watch: WatchLife) -> None:
    """Give Kopf the credentials that `cluster.connect` uses."""

    @kopf.on.login(registry=registry, id="login")
    async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
        info = kopf.login_with_service_account(**kwargs) if cluster.in_pod() else kopf.login_with_kubeconfig(**kwargs)
        return watch.session(info) if info else None


def log_to_stderr(form: str, census: metrics.Census) -> None:
    """Log as every Decklog process does. Kopf's log lines about a Tenant also name it and its generation."""
    logs.configure(form)

    def name_the_tenant(record: logging.LogRecord) -> bool:
        reference = getattr(record, "k8s_ref", None)
        if reference is not None:
            record.tenant, record.generation = reference["name"], census.generation(reference["uid"])
        return True

    logging.getLogger("kopf.objects").addFilter(name_the_tenant)
