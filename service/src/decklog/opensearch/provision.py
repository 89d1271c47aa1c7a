"""Provisioning of indices: creates them with the mapping of `mapping.py` and a mark of their owner, and repairs drift."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from opensearchpy import AsyncOpenSearch, NotFoundError, RequestError

from decklog.domain.errors import Code, DecklogError
from decklog.domain.tenancy.parts.part import Mark
from decklog.domain.tenancy.parts.search import CreateIndex, IndexSeen, RemoveDocuments, RemoveIndex, UpdateIndex
from decklog.opensearch.client import translated, unavailable
from decklog.opensearch.index import remove_some
from decklog.opensearch.mapping import PROPERTIES, VERSION, alias, mapping, new_index, settings

CALLS_MAX = 8
"""Concurrent requests of provisioning; every new index is work for the whole cluster."""
_META = "decklog"


class OpenSearchProvisioning:
    """The indices of one cluster. `replicas` is the number of copies of each."""

    def __init__(self, client: AsyncOpenSearch, *, replicas: int) -> None:
        self._client = client
        self._replicas = replicas
        self._calls = asyncio.Semaphore(CALLS_MAX)

    async def observe(self, index: str) -> IndexSeen:
        """Return the state of an index. Raises `search-unavailable`."""
        async with self._calls:
            with translated():
                try:
                    answer: dict[str, Any] = await self._client.indices.get(index=index, params={"flat_settings": "true"})
                except NotFoundError:
                    return IndexSeen()
        [found] = answer.values()
        meta = found["mappings"].get("_meta", {}).get(_META, {})
        drift = self._drift(found["mappings"], found["settings"], meta)
        if found["aliases"].get(alias(index)) != {}:
            drift.append("alias")
        return IndexSeen(
            exists=True,
            owner=meta.get("uid"),
            uuid=found["settings"]["index.uuid"],
            drift=tuple(drift),
        )

    def _drift(self, mappings: Mapping[str, Any], current: Mapping[str, str], meta: Mapping[str, Any]) -> list[str]:
        there = mappings.get("properties", {})
        drift = [f"field {name}" for name, field in PROPERTIES.items() if there.get(name) != field]
        if meta and meta.get("version", 0) < VERSION:
            drift.append("version")
        if str(mappings.get("dynamic")).lower() != "false":
            drift.append("dynamic")
        drift += [name for name, value in _changeable(self._replicas).items() if current.get(name) != value]
        return drift

    async def apply(self, action: CreateIndex | UpdateIndex | RemoveIndex | RemoveDocuments) -> None:
        """Apply one action of a plan; applying it again changes nothing.

        Raises:
            DecklogError: `search-unavailable`; `conflict` for an index of another owner; `misconfigured` for fields of other types.
        """
        async with self._calls:
            match action:
                case CreateIndex():
                    await self._create(action)
                case UpdateIndex():
                    await self._update(action)
                case RemoveIndex(index=index):
                    with translated():
                        await self._client.indices.delete(index=index, params={"ignore_unavailable": "true"})
                case RemoveDocuments():
                    await self._remove_documents(action)

    async def _remove_documents(self, action: RemoveDocuments) -> None:
        with translated():
            # Documents that are written but not refreshed would not be found, and so not removed.
            await self._client.indices.refresh(index=action.index, params={"ignore_unavailable": "true"})
        query = {"term": {"tenant_id": {"value": action.tenant_id}}}
        while sum(await remove_some(self._client, action.index, query)):
            pass

    async def _create(self, action: CreateIndex) -> None:
        body = new_index(action.index, _meta(action.mark), self._replicas)
        with translated():
            try:
                answer = await self._client.indices.create(index=action.index, body=body)
            except RequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise
            else:
                if not answer.get("shards_acknowledged"):
                    raise unavailable("was created, but its shard has not started yet")
                return
        await self._check_owner(action)

    async def _check_owner(self, action: CreateIndex) -> None:
        """Raise `conflict` unless the index that exists already carries this owner: another replica may have created it."""
        with translated():
            answer = await self._client.indices.get_mapping(index=action.index)
        [found] = answer.values()
        if found["mappings"].get("_meta", {}).get(_META, {}).get("uid") != action.mark.uid:
            raise DecklogError(Code.CONFLICT, f"The index {action.index!r} exists and belongs to another owner.")

    async def _update(self, action: UpdateIndex) -> None:
        wanted = mapping(_meta(action.mark))
        del wanted["_source"]  # cannot be changed
        with translated():
            try:
                await self._client.indices.put_mapping(index=action.index, body=wanted)
            except RequestError as error:
                if error.error != "illegal_argument_exception":
                    raise
                raise DecklogError(
                    Code.MISCONFIGURED,
                    f"The index {action.index!r} has other types for some fields ({', '.join(action.drift)[:200]}). "
                    "Delete it: provisioning creates it again, and the indexer fills it from the records.",
                ) from error
            await self._client.indices.put_settings(index=action.index, body=_changeable(self._replicas))
            await self._client.indices.put_alias(index=action.index, name=alias(action.index))


def _meta(mark: Mark) -> dict[str, Any]:
    return {_META: {"tenant": mark.tenant, "uid": mark.uid, "version": VERSION}}


def _changeable(replicas: int) -> dict[str, str]:
    """Return the settings that can be changed on an open index, as OpenSearch reports them."""
    fixed = ("index.number_of_shards",)
    return {name: str(value) for name, value in settings(replicas).items() if name not in fixed}
