"""Names of the kind, its Secret, its labels and its annotations, shared by several modules."""

from __future__ import annotations

from decklog.domain.tenancy.manifest import API_VERSION

GROUP, _, VERSION = API_VERSION.partition("/")
PLURAL = "tenants"
DEFINITION = f"{PLURAL}.{GROUP}"
TENANT_LABEL = f"{GROUP}/tenant"
CHECKSUM = f"{GROUP}/checksum"
"""Annotation of a tenant's Secret: a digest that changes with its content and does not reveal it."""
FINALIZER = f"{GROUP}/release"
"""Finalizer that keeps a deleted Tenant until its deletion policy is carried out."""
PAUSED = f"{GROUP}/paused"
"""Annotation of a Tenant: "true" stops the operator from changing anything for it."""
RECONCILE = f"{GROUP}/reconcile"
"""Annotation of a Tenant: a new value requests a visit now."""
OPERATOR = "decklog-operator"
"""Name of the operator as field manager, source of Events and service account."""
EVENTS_NAMESPACE = "default"
"""Namespace of Events of cluster-scoped objects. `kubectl describe` finds them only there."""


def secret_name(tenant: str) -> str:
    """Return the name of the Secret with a tenant's keys."""
    return f"{tenant}-decklog"
