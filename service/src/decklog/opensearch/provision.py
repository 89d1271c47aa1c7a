"""A tenant's index: made with the mapping of `mapping.py`, marked with its owner, and put right where it differs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from opensearchpy import AsyncOpenSearch, NotFoundError, RequestError

from decklog.domain.errors import Code, DecklogError
from decklog.domain.plan import CreateIndex, IndexSeen, Mark, UpdateIndex
from decklog.opensearch.client import translated, unavailable
from decklog.opensearch.mapping import FIELDS, VERSION, mapping, settings

CALLS_MAX = 8
"""Requests of provisioning at once; creating an index is work for the whole cluster."""
_META = "decklog"


class OpenSearchProvisioning:
    """Where indices are made. `replicas` is the number of copies of each."""

    def __init__(self, client: AsyncOpenSearch, *, replicas: int) -> None:
        self._client = client
        self._replicas = replicas
        self._calls = asyncio.Semaphore(CALLS_MAX)

    async def observe(self, index: str) -> IndexSeen:
        """The index as it is. Raises `search-unavailable`."""
        async with self._calls:
            with translated():
                try:
                    answer: dict[str, Any] = await self._client.indices.get(index=index, params={"flat_settings": "true"})
                except NotFoundError:
                    return IndexSeen()
        [found] = answer.values()
        meta = found["mappings"].get("_meta", {}).get(_META, {})
        return IndexSeen(
            exists=True,
            owner=meta.get("uid"),
            uuid=found["settings"]["index.uuid"],
            drift=tuple(self._drift(found["mappings"], found["settings"], meta)),
        )

    def _drift(self, mappings: Mapping[str, Any], current: Mapping[str, str], meta: Mapping[str, Any]) -> list[str]:
        there = mappings.get("properties", {})
        drift = [f"field {name}" for name, field in FIELDS.items() if there.get(name) != field]
        if meta and meta.get("version", 0) < VERSION:
            drift.append("version")
        if str(mappings.get("dynamic")).lower() != "false":
            drift.append("dynamic")
        drift += [name for name, value in _changeable(self._replicas).items() if current.get(name) != value]
        return drift

    async def apply(self, action: CreateIndex | UpdateIndex) -> None:
        """Raises `search-unavailable`, `conflict` and `misconfigured`."""
        async with self._calls:
            if isinstance(action, CreateIndex):
                await self._create(action)
            else:
                await self._update(action)

    async def _create(self, action: CreateIndex) -> None:
        body = {"settings": settings(self._replicas), "mappings": mapping(_meta(action.mark))}
        with translated():
            try:
                answer = await self._client.indices.create(index=action.index, body=body)
            except RequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise
            else:
                if not answer.get("shards_acknowledged"):
                    raise unavailable("made the index but has not started its shard yet")
                return
        await self._check_owner(action)

    async def _check_owner(self, action: CreateIndex) -> None:
        """Somebody was faster; that is good if it was another one of us."""
        with translated():
            answer = await self._client.indices.get_mapping(index=action.index)
        [found] = answer.values()
        if found["mappings"].get("_meta", {}).get(_META, {}).get("uid") != action.mark.uid:
            raise DecklogError(Code.CONFLICT, f"The index {action.index!r} was just made by somebody else.")

    async def _update(self, action: UpdateIndex) -> None:
        wanted = mapping(_meta(action.mark))
        del wanted["_source"]  # cannot be changed, and is not told by what is there
        with translated():
            try:
                await self._client.indices.put_mapping(index=action.index, body=wanted)
            except RequestError as error:
                if error.error != "illegal_argument_exception":
                    raise
                raise DecklogError(
                    Code.MISCONFIGURED,
                    f"The index {action.index!r} has other types for some fields ({', '.join(action.drift)[:200]}). "
                    "Delete it: it is made again and filled from the records.",
                ) from error
            await self._client.indices.put_settings(index=action.index, body=_changeable(self._replicas))


def _meta(mark: Mark) -> dict[str, Any]:
    return {_META: {"tenant": mark.tenant, "uid": mark.uid, "version": VERSION}}


def _changeable(replicas: int) -> dict[str, str]:
    """The settings that an open index lets us change, as it tells them."""
    fixed = ("index.number_of_shards",)
    return {name: str(value) for name, value in settings(replicas).items() if name not in fixed}
