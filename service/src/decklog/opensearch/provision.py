"""Provisioning of indices: creates them with the mapping of `mapping.py` and a mark of their owner, and repairs drift."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from opensearchpy import AsyncOpenSearch, RequestError

from decklog.domain.errors import Code, DecklogError
from decklog.domain.index_generation import parse_name, parse_range_index, range_index
from decklog.domain.tenancy.parts.part import Mark
from decklog.domain.tenancy.parts.search import CreateIndex, IndexSeen, RangeSeen, RemoveDocuments, RemoveIndex, UpdateIndex
from decklog.opensearch.client import translated, unavailable
from decklog.opensearch.mapping import META, PROPERTIES, VERSION, aliases, mapping, new_index, settings

CALLS_MAX = 8
"""Concurrent requests of provisioning; every new index is work for the whole cluster."""
REMOVED_AT_ONCE = 5_000
"""Documents that one request removes, far below its time limit."""


class OpenSearchProvisioning:
    """The indices of one cluster. `replicas` is the number of copies of each."""

    def __init__(self, client: AsyncOpenSearch, *, replicas: int) -> None:
        self._client = client
        self._replicas = replicas
        self._calls = asyncio.Semaphore(CALLS_MAX)

    async def observe(self, index: str) -> IndexSeen:
        """Return the indices whose names are this one or begin with it and a dot. Raises `search-unavailable`."""
        async with self._calls:
            with translated():
                answer: dict[str, Any] = await self._client.indices.get(
                    index=f"{index},{index}.*", params={"flat_settings": "true", "ignore_unavailable": "true"}
                )
        return IndexSeen(VERSION, tuple(self._seen(index, name, answer[name]) for name in sorted(answer)))

    def _seen(self, index: str, name: str, found: Mapping[str, Any]) -> RangeSeen:
        meta = found["mappings"].get("_meta", {}).get(META, {})
        drift = self._drift(name, found) if _of_this_version(index, name) else []
        return RangeSeen(name, found["settings"]["index.uuid"], meta.get("uid"), tuple(drift))

    def _drift(self, name: str, found: Mapping[str, Any]) -> list[str]:
        there, current = found["mappings"].get("properties", {}), found["settings"]
        drift = [f"field {field}" for field, wanted in PROPERTIES.items() if there.get(field) != wanted]
        if str(found["mappings"].get("dynamic")).lower() != "false":
            drift.append("dynamic")
        drift += [setting for setting, value in _changeable(self._replicas).items() if current.get(setting) != value]
        drift += ["alias"] if any(found["aliases"].get(alias) != {} for alias in aliases(name)) else []
        return drift

    async def apply(self, action: CreateIndex | UpdateIndex | RemoveIndex | RemoveDocuments) -> None:
        """Apply one action of a plan; applying it again changes nothing.

        Raises:
            DecklogError: `search-unavailable`; `conflict` for an index of another owner; `misconfigured` for fields of other types.
        """
        async with self._calls:
            match action:
                case CreateIndex():
                    for start in action.starts:
                        await self._create(range_index(action.index, action.generation, start), action.mark)
                case UpdateIndex():
                    for name in action.indices:
                        await self._update(action, name)
                case RemoveIndex():
                    await self._remove(action.indices)
                case RemoveDocuments():
                    await self._remove_documents(action)

    async def _remove(self, names: tuple[str, ...]) -> None:
        for name in names:
            with translated():
                await self._client.indices.delete(index=name, params={"ignore_unavailable": "true"})

    async def _remove_documents(self, action: RemoveDocuments) -> None:
        """Remove the documents of a tenant, a bounded number with each request: a single one would exceed its time limit."""
        names, missing = f"{action.index},{action.index}.*", {"ignore_unavailable": "true"}
        with translated():
            # Documents that are written but not refreshed would not be found, and so not removed.
            await self._client.indices.refresh(index=names, params=missing)
        query = {"query": {"term": {"tenant_id": {"value": action.tenant_id}}}}
        params = {"max_docs": str(REMOVED_AT_ONCE), "conflicts": "proceed", "refresh": "true", **missing}
        left = True
        while left:
            with translated():
                answer = await self._client.delete_by_query(index=names, body=query, params=params)
            if answer.get("failures"):
                raise unavailable("could not remove documents")
            # Documents that changed meanwhile remain, and are removed next time.
            left = bool(answer.get("deleted", 0) + answer.get("version_conflicts", 0))

    async def _create(self, name: str, mark: Mark) -> None:
        body = new_index(name, _meta(mark), self._replicas)
        with translated():
            try:
                answer = await self._client.indices.create(index=name, body=body)
            except RequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise
            else:
                if not answer.get("shards_acknowledged"):
                    raise unavailable("was created, but its shard has not started yet")
                return
        await self._check_owner(name, mark)

    async def _check_owner(self, name: str, mark: Mark) -> None:
        """Raise `conflict` unless the index that exists already carries this owner: another replica may have created it."""
        with translated():
            answer = await self._client.indices.get_mapping(index=name)
        [found] = answer.values()
        if found["mappings"].get("_meta", {}).get(META, {}).get("uid") != mark.uid:
            raise DecklogError(Code.CONFLICT, f"The index {name!r} exists and belongs to another owner.")

    async def _update(self, action: UpdateIndex, name: str) -> None:
        whole = _of_this_version(action.index, name)
        wanted = mapping(_meta(action.mark))
        del wanted["_source"]  # cannot be changed
        with translated():
            try:
                await self._client.indices.put_mapping(index=name, body=wanted if whole else {"_meta": wanted["_meta"]})
            except RequestError as error:
                if error.error != "illegal_argument_exception":
                    raise
                raise DecklogError(
                    Code.MISCONFIGURED,
                    f"The index {name!r} has other types for some fields ({', '.join(action.drift)[:200]}). "
                    "Delete it: provisioning creates a new generation, and the indexer fills it from the records.",
                ) from error
            if whole:
                await self._client.indices.put_settings(index=name, body=_changeable(self._replicas))
                for alias in aliases(name):
                    await self._client.indices.put_alias(index=name, name=alias)


def _of_this_version(index: str, name: str) -> bool:
    """Return whether this is the index of a range with the mapping of this version."""
    place = parse_range_index(index, name)
    return place is not None and parse_name(place[0])[0] == VERSION


def _meta(mark: Mark) -> dict[str, Any]:
    return {META: {"tenant": mark.tenant, "uid": mark.uid, "version": VERSION}}


def _changeable(replicas: int) -> dict[str, str]:
    """Return the settings that can be changed on an open index, as OpenSearch reports them."""
    fixed = ("index.number_of_shards",)
    return {name: str(value) for name, value in settings(replicas).items() if name not in fixed}
