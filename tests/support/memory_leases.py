"""Leases of a Kubernetes API in memory. `tests/operator/test_lease.py` tests it and a real API server alike."""

from __future__ import annotations

import copy

from decklog.domain.errors import Code, DecklogError
from decklog_operator.cluster import NotFoundError
from decklog_operator.lease import Json


class MemoryLeases:
    def __init__(self) -> None:
        self._leases: dict[tuple[str, str], Json] = {}
        self._version = 0

    async def read_lease(self, namespace: str, name: str) -> Json | None:
        return copy.deepcopy(self._leases.get((namespace, name)))

    async def write_lease(self, lease: Json) -> Json:
        key = lease["metadata"]["namespace"], lease["metadata"]["name"]
        there, version = self._leases.get(key), lease["metadata"].get("resourceVersion")
        if there is None and version is not None:
            raise NotFoundError(f"Lease {'/'.join(key)}")
        if there is not None and there["metadata"]["resourceVersion"] != version:
            raise DecklogError(
                Code.CONFLICT, f"Kubernetes refused to write the Lease {'/'.join(key)}: its version or content conflicts."
            )
        self._version += 1
        self._leases[key] = {**copy.deepcopy(lease), "metadata": {**lease["metadata"], "resourceVersion": str(self._version)}}
        return copy.deepcopy(self._leases[key])

    def delete(self, namespace: str, name: str) -> None:
        self._leases.pop((namespace, name), None)
