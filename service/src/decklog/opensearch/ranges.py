"""`Ranges` over OpenSearch: the indices of ranges, as workers make and remove them while time passes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from opensearchpy import AsyncOpenSearch, RequestError

from decklog.domain.index_generation import IndexGeneration
from decklog.opensearch.client import translated, unavailable
from decklog.opensearch.mapping import META, VERSION, new_index


class OpenSearchRanges:
    """The ranges of one cluster. `replicas` is the number of copies of each new one."""

    version = VERSION

    def __init__(self, client: AsyncOpenSearch, *, replicas: int) -> None:
        self._client = client
        self._replicas = replicas

    async def uuids(self, index: str) -> dict[str, str]:
        """See the protocol."""
        params = {"filter_path": f"*.settings.index.uuid,*.mappings._meta.{META}.uid", "ignore_unavailable": "true"}
        with translated():
            answer: dict[str, Any] = await self._client.indices.get(index=f"{index},{index}.*", params=params)
        return {name: found["settings"]["index"]["uuid"] for name, found in answer.items() if "mappings" in found}

    async def documents(self, name: str) -> int:
        """See the protocol."""
        params = {"filter_path": "_all.primaries.docs.count", "ignore_unavailable": "true"}
        with translated():
            answer = await self._client.indices.stats(index=name, metric="docs", params=params)
        count: int = answer.get("_all", {}).get("primaries", {}).get("docs", {}).get("count", 0)
        return count

    async def make(self, generation: IndexGeneration, start: date, *, like: str) -> str:
        """See the protocol."""
        name = generation.range_index(start)
        with translated():
            [found] = (await self._client.indices.get_mapping(index=like)).values()
            body = new_index(name, found["mappings"]["_meta"], self._replicas)
            try:
                await self._client.indices.create(index=name, body=body)
            except RequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise
        uuid = (await self.uuids(generation.index)).get(name)
        if uuid is None:
            raise unavailable("of a new range is not there yet")
        return uuid

    async def remove(self, names: Sequence[str]) -> None:
        """See the protocol."""
        for name in names:
            with translated():
                await self._client.indices.delete(index=name, params={"ignore_unavailable": "true"})
