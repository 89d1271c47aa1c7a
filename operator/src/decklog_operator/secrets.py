"""Where a tenant's API keys are kept: one Secret in the namespace that the tenant named.

Nothing here is logged, and no key leaves but through `read`. A Secret of that name that is not ours is
never written: somebody else's is a conflict; one of an earlier life of the same tenant is replaced.
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
    """Keeps the keys of every tenant beside `url`, the address of the API, so that a Secret is all a client needs.

    `revision` grows with each change of it, `validUntil` is when the keys may stop working (empty: not by themselves)."""

    def __init__(self, cluster: Cluster, api_url: str) -> None:
        self._cluster = cluster
        self._api_url = api_url

    async def read(self, manifest: Manifest) -> Handout | None:
        """The keys that are there and look like keys, and where the rest is not as we wrote it; None where no Secret is.

        Raises `conflict` when the Secret is somebody else's.
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
        """Make the Secret hold exactly these keys and what is said of them. Raises `conflict`, and `invalid-tenant` where the namespace is not there."""
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
        """Remove the tenant's Secret from a namespace, if it is there and ours."""
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
        # The names of tenants are unique, so the Tenant that owned this one is gone: its keys were revoked with it.
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
                # Kubernetes removes the Secret with the Tenant, even where the operator is not there to do it.
                "ownerReferences": [{"apiVersion": API_VERSION, "kind": KIND, "name": manifest.name, "uid": manifest.uid}],
            },
            "type": "Opaque",
            "data": {name: base64.b64encode(value.encode()).decode() for name, value in values.items()},
        }


def _checksum(values: dict[str, str]) -> str:
    """SHA-256, in hex. Each key in it has 256 random bits, so nobody can guess his way back, nor from one key to another."""
    text = "".join(f"{name}={value}\n" for name, value in sorted(values.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _belongs(secret: dict[str, Any], manifest: Manifest) -> bool:
    """Whether this very Tenant owns it, also where somebody took our labels off."""
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
