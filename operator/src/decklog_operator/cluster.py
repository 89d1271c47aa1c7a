"""Client for the Kubernetes API. Only this module sends requests to it, apart from Kopf's watch and finalizer.

Requests are plain JSON over the client's transport, because its typed models would use more memory than the rest of the
operator. Every failure is raised as a DecklogError that names the object and never its content.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from decklog.domain.errors import Code, DecklogError
from decklog_operator.metrics import REQUESTS
from decklog_operator.names import DEFINITION, EVENTS_NAMESPACE, GROUP, OPERATOR, PLURAL, VERSION

_REQUEST_MAX = 15.0
"""Deadline of a request in seconds. A healthy API server answers within milliseconds, and the next visit retries."""
_MESSAGE_CHARS_MAX = 1_024
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_VERBS = {"GET": "read", "PATCH": "write", "PUT": "write", "DELETE": "delete", "POST": "create"}

Json = dict[str, Any]


class NotFoundError(DecklogError):
    """The object or its namespace does not exist."""

    def __init__(self, what: str) -> None:
        super().__init__(Code.NOT_FOUND, f"Kubernetes has no {what}.")


class Cluster:
    """Read and write the objects that the operator needs. Many tasks may use one instance at once."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def tenants_served(self) -> bool:
        """Return whether the API server serves the kind Tenant, that is, whether its definition is installed."""
        try:
            await self._request("GET", f"/apis/{GROUP}/{VERSION}/{PLURAL}?limit=1", f"kind {DEFINITION}")
        except NotFoundError:
            return False
        return True

    async def apply_status(self, name: str, uid: str, status: Json) -> str:
        """Write the operator's fields of a Tenant's status and return the new resource version.

        Server-side apply needs no resource version, so a concurrent edit of the spec never makes it fail. The UID protects a
        newer object of the same name.

        Raises:
            NotFoundError: The object is gone.
        """
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Tenant", "metadata": {"name": name, "uid": uid}, "status": status}
        path = f"/apis/{GROUP}/{VERSION}/{PLURAL}/{quote(name)}/status?fieldManager={OPERATOR}&force=true"
        found = await self._request("PATCH", path, f"Tenant {name}", body, kind="application/apply-patch+yaml")
        return str(found["metadata"]["resourceVersion"])

    async def read_secret(self, namespace: str, name: str) -> Json | None:
        """Return the Secret with its data in base64; None when it does not exist."""
        try:
            return await self._request("GET", _secret_path(namespace, name), f"Secret {namespace}/{name}")
        except NotFoundError:
            return None

    async def create_secret(self, secret: Json) -> bool:
        """Create the Secret; return False when one of this name exists. Raises NotFoundError for a missing namespace."""
        namespace, name = secret["metadata"]["namespace"], secret["metadata"]["name"]
        path = f"{_secrets_path(namespace)}?fieldManager={OPERATOR}"
        try:
            await self._request("POST", path, f"Secret {namespace}/{name}", secret)
        except DecklogError as error:
            if error.code is Code.CONFLICT:
                return False
            raise
        return True

    async def apply_secret(self, secret: Json) -> None:
        """Create or update the Secret. Raises NotFoundError for a missing namespace."""
        namespace, name = secret["metadata"]["namespace"], secret["metadata"]["name"]
        path = f"{_secret_path(namespace, name)}?fieldManager={OPERATOR}&force=true"
        await self._request("PATCH", path, f"Secret {namespace}/{name}", secret, kind="application/apply-patch+yaml")

    async def delete_secret(self, namespace: str, name: str, uid: str) -> None:
        """Delete the Secret with this UID. Do nothing when it is already gone."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        try:
            await self._request("DELETE", _secret_path(namespace, name), f"Secret {namespace}/{name}", body)
        except NotFoundError:
            return

    async def post_event(self, *, name: str, uid: str, kind: str, reason: str, message: str, now: str) -> None:
        """Create an Event about a Tenant. `kind` is Normal or Warning, `now` a time in RFC 3339."""
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{name}.", "namespace": EVENTS_NAMESPACE},
            "involvedObject": {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Tenant", "name": name, "uid": uid},
            "type": kind,
            "reason": reason,
            "message": message[:_MESSAGE_CHARS_MAX],
            "source": {"component": OPERATOR},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._request("POST", f"/api/v1/namespaces/{EVENTS_NAMESPACE}/events", f"Event in {EVENTS_NAMESPACE}", body)

    async def read_lease(self, namespace: str, name: str) -> Json | None:
        """Return the Lease; None when it does not exist."""
        try:
            return await self._request("GET", _lease_path(namespace, name), f"Lease {namespace}/{name}")
        except NotFoundError:
            return None

    async def write_lease(self, lease: Json) -> Json:
        """Create the Lease when it has no resource version, else replace that version; return the stored Lease.

        PUT does both and, unlike POST, RBAC can allow it for a single name. Raises `conflict` when another writer was faster.
        """
        namespace, name = lease["metadata"]["namespace"], lease["metadata"]["name"]
        path = f"{_lease_path(namespace, name)}?fieldManager={OPERATOR}"
        return await self._request("PUT", path, f"Lease {namespace}/{name}", lease)

    async def _request(
        self, method: str, path: str, what: str, body: Json | None = None, *, kind: str = "application/json"
    ) -> Json:
        configuration = self._client.configuration
        headers = {"Accept": "application/json", "Content-Type": kind, **self._client.default_headers}
        try:
            for each in (await configuration.auth_settings()).values():  # the token may be newer than the last request
                headers[each["key"]] = each["value"]
            response = await self._client.rest_client.request(
                method, configuration.host + path, headers=headers, body=body, _request_timeout=_REQUEST_MAX
            )
            content = await response.read()
            REQUESTS.labels(method, str(response.status)).inc()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            REQUESTS.labels(method, "unreachable").inc()
            raise DecklogError(
                Code.STORAGE_UNAVAILABLE, f"The Kubernetes API is unreachable ({type(error).__name__}).", retry_after=1
            ) from None
        if response.status >= 400:
            raise _refusal(response.status, method, what)
        found: Json = msgspec.json.decode(content)
        return found


def _refusal(status: int, method: str, what: str) -> DecklogError:
    if status == 404:
        return NotFoundError(what)
    verb = _VERBS[method]
    if status in (401, 403):
        return DecklogError(
            Code.MISCONFIGURED,
            f"The operator may not {verb} the {what} ({status}). Check its service account, ClusterRole and Roles.",
        )
    if status in (409, 422):
        return DecklogError(
            Code.CONFLICT, f"Kubernetes refused to {verb} the {what} ({status}): its version or content conflicts."
        )
    return DecklogError(Code.STORAGE_UNAVAILABLE, f"Kubernetes failed to {verb} the {what} ({status}).", retry_after=1)


def _secrets_path(namespace: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace)}/secrets"


def _secret_path(namespace: str, name: str) -> str:
    return f"{_secrets_path(namespace)}/{quote(name)}"


def _lease_path(namespace: str, name: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases/{quote(name)}"


def in_pod() -> bool:
    """Return whether this process uses the cluster that it runs in."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and not os.environ.get("KUBECONFIG")


def own_namespace() -> str:
    """Return the namespace of this pod; empty outside a cluster."""
    return _NAMESPACE_FILE.read_text().strip() if in_pod() and _NAMESPACE_FILE.exists() else ""


@asynccontextmanager
async def connect() -> AsyncIterator[Cluster]:
    """Connect to the cluster of KUBECONFIG, else to that of this pod, else to that of ~/.kube/config.

    Raises `misconfigured` when none is configured.
    """
    configuration = Configuration()
    try:
        if in_pod():
            config.load_incluster_config(client_configuration=configuration)
        else:
            named = os.environ.get("KUBECONFIG") or None
            await config.load_kube_config(named, client_configuration=configuration, persist_config=False)
    except (config.ConfigException, OSError) as error:
        raise DecklogError(Code.MISCONFIGURED, f"No Kubernetes API is configured: {error}. Set KUBECONFIG.") from None
    # Without a proxy in the environment, aiohttp need not read it and ~/.netrc for each request.
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    async with ApiClient(configuration) as client:
        yield Cluster(client)
