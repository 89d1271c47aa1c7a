"""Store a tenant's API keys in one Secret, in the namespace that the tenant names.

This module logs nothing, and only `read` returns keys. A foreign Secret of the same name is never written: that is a conflict.
The Secret of an earlier Tenant of the same name is replaced.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any

from msgspec.structs import replace

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.manifest import API_VERSION, KIND, Manifest
from decklog.domain.tenancy.parts.keys import TENANT_ROLES
from decklog.services.tenancy.vaults import Handout
from decklog_operator.cluster import Cluster, NotFoundError
from decklog_operator.names import CHECKSUM, OPERATOR, TENANT_LABEL, secret_name

_NUMBER = re.compile(r"[0-9]{1,18}")
_KEY = re.compile(r"dlk_[0-9a-z]{8,32}_[0-9A-Za-z]{32,128}")


class SecretVault:
    """Key vault over Secrets. A Secret also holds the API's `url`, so that clients need nothing else.

    `revision` grows with each change. `validUntil` is the earliest end of the keys; empty without a schedule.
    """

    def __init__(self, cluster: Cluster, api_url: str) -> None:
        self._cluster = cluster
        self._api_url = api_url

    async def read(self, manifest: Manifest) -> Handout | None:
        """Return the well-formed keys of the Secret and the names of edited fields; None without a Secret.

        Raises `conflict` for a foreign Secret.
        """
        found = await self._own(manifest)
        if found is None:
            return None
        data, metadata = found.get("data") or {}, found["metadata"]
        given = {name: text for name, value in data.items() if (text := _decoded(value)) is not None}
        keys = {role: key for role in TENANT_ROLES if _KEY.fullmatch(key := given.get(role.value, ""))}
        revision = given.get("revision", "")
        handout = Handout(keys, int(revision) if _NUMBER.fullmatch(revision) else 0, given.get("validUntil", ""))
        wanted = self._rendered(manifest, handout)
        drift = [name for name, value in wanted["data"].items() if data.get(name) != value]
        ours = wanted["metadata"]
        drift += [name for name in ("labels", "annotations") if not ours[name].items() <= (metadata.get(name) or {}).items()]
        return replace(handout, drift=tuple(drift))

    async def write(self, manifest: Manifest, handout: Handout) -> None:
        """Write exactly these keys and their validity to the Secret.

        Raises:
            DecklogError: `conflict` for a foreign Secret, `invalid-tenant` for a missing namespace.
        """
        secret = self._rendered(manifest, handout)
        try:
            if not await self._cluster.create_secret(secret):
                await self._own(manifest)
                await self._cluster.apply_secret(secret)
        except NotFoundError:
            raise DecklogError(
                Code.INVALID_TENANT,
                f"spec.credentials.secretNamespace {manifest.spec.credentials.secret_namespace!r} does not exist. Create it.",
            ) from None

    async def forget(self, manifest: Manifest, namespace: str) -> None:
        """Delete the tenant's Secret from a namespace, unless it is foreign or absent."""
        found = await self._cluster.read_secret(namespace, secret_name(manifest.name))
        if found is not None and (_belongs(found, manifest) or _label(found) == manifest.name):
            await self._cluster.delete_secret(namespace, secret_name(manifest.name), found["metadata"]["uid"])

    async def _own(self, manifest: Manifest) -> dict[str, Any] | None:
        namespace, name = manifest.spec.credentials.secret_namespace, secret_name(manifest.name)
        found = await self._cluster.read_secret(namespace, name)
        if found is None or _belongs(found, manifest):
            return found
        if _label(found) != manifest.name:
            raise DecklogError(
                Code.CONFLICT,
                f"The Secret {namespace}/{name} exists and is not Decklog's (no label {TENANT_LABEL}={manifest.name}). Rename or delete it.",
            )
        # Tenant names are unique, so the Tenant that owned this Secret is gone, and its keys are revoked.
        await self._cluster.delete_secret(namespace, name, found["metadata"]["uid"])
        return None

    def _rendered(self, manifest: Manifest, handout: Handout) -> dict[str, Any]:
        values = {
            "url": self._api_url,
            **{role.value: key for role, key in handout.keys.items()},
            "revision": str(handout.revision or 0),
            "validUntil": handout.valid_until or "",
        }
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": secret_name(manifest.name),
                "namespace": manifest.spec.credentials.secret_namespace,
                "labels": {"app.kubernetes.io/managed-by": OPERATOR, TENANT_LABEL: manifest.name},
                "annotations": {CHECKSUM: _checksum(values)},
                # Kubernetes deletes the Secret with the Tenant, even when no operator runs.
                "ownerReferences": [{"apiVersion": API_VERSION, "kind": KIND, "name": manifest.name, "uid": manifest.uid}],
            },
            "type": "Opaque",
            "data": {name: base64.b64encode(value.encode()).decode() for name, value in values.items()},
        }


def _checksum(values: dict[str, str]) -> str:
    """Return the SHA-256 in hex. Each key has 256 random bits, so the digest reveals neither of them."""
    text = "".join(f"{name}={value}\n" for name, value in sorted(values.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _belongs(secret: dict[str, Any], manifest: Manifest) -> bool:
    """Return whether this Tenant owns the Secret, even if its labels were removed."""
    return any(owner.get("uid") == manifest.uid for owner in secret["metadata"].get("ownerReferences") or [])


def _label(secret: dict[str, Any]) -> str | None:
    labels = secret["metadata"].get("labels") or {}
    label = labels.get(TENANT_LABEL)
    return label if isinstance(label, str) else None


def _decoded(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
