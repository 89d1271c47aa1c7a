"""Names of a tenant's schema, index and queue: pure functions of the tenant's name, so that creation may be repeated."""

from __future__ import annotations

import re

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.spec import TenantSpec, retention_class
from decklog.domain.tenant import Isolation

PREFIX = "decklog"
"""Prefix of indices and queues. Installations that share a cluster or an account must have different ones."""
NAME_CHARS_MAX = 40
"""Characters of a tenant's name, so that the names derived from it fit Postgres and SQS."""
NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"


def check_name(name: str) -> str:
    """Return the name. Raises `invalid-tenant` where it is not a valid name of a tenant."""
    if len(name) > NAME_CHARS_MAX or not re.fullmatch(NAME_PATTERN, name):
        raise DecklogError(
            Code.INVALID_TENANT,
            f"metadata.name {name[:80]!r} must have at most {NAME_CHARS_MAX} characters of a-z, 0-9 and '-', and start with a letter.",
        )
    return name


def _suffix(name: str, spec: TenantSpec) -> tuple[str, str]:
    if spec.isolation is Isolation.DEDICATED:
        return "t", name
    return "shared", str(retention_class(spec.retention.days))


def schema_name(name: str, spec: TenantSpec) -> str:
    """Return the Postgres schema of a tenant's records, at most 63 bytes: `t_acme`, `shared_365`."""
    return "_".join(_suffix(name, spec)).replace("-", "_")


def index_name(name: str, spec: TenantSpec, prefix: str = PREFIX) -> str:
    """Return the OpenSearch index of a tenant's records: `decklog-t-acme`, `decklog-shared-365`."""
    return "-".join((prefix, *_suffix(name, spec)))


def queue_name(name: str, spec: TenantSpec, prefix: str = PREFIX) -> str:
    """Return the SQS queue of a tenant's wake-ups, at most 80 characters including the `-dlq` of its dead-letter queue.

    Without a suffix of its own, the queue of a tenant `acme-dlq` would be the dead-letter queue of `acme`.
    """
    return index_name(name, spec, prefix) + "-wake"
