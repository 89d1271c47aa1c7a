"""Names that several modules must agree on: of the kind, of its Secret, of labels. No logic beyond them."""

from __future__ import annotations

from decklog.domain.tenancy.manifest import API_VERSION

GROUP, _, VERSION = API_VERSION.partition("/")
PLURAL = "tenants"
DEFINITION = f"{PLURAL}.{GROUP}"
TENANT_LABEL = f"{GROUP}/tenant"
CHECKSUM = f"{GROUP}/checksum"
"""Annotation of a tenant's Secret: changes whenever anything in it does, and tells nothing of it."""
FINALIZER = f"{GROUP}/release"
"""Holds a Tenant that is deleted until its policy is carried out."""
PAUSED = f"{GROUP}/paused"
"""Annotation of a Tenant: "true" keeps the operator's hands off it."""
RECONCILE = f"{GROUP}/reconcile"
"""Annotation of a Tenant: a value that was not there before asks for a visit now."""
OPERATOR = "decklog-operator"
"""The operator as a field manager, a component of Events and a service account."""
EVENTS_NAMESPACE = "default"
"""Where Kubernetes wants events of cluster-scoped objects; anywhere else `kubectl describe` does not find them."""


def secret_name(tenant: str) -> str:
    """The Secret with a tenant's keys."""
    return f"{tenant}-decklog"
