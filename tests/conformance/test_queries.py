"""Generated queries have the same answer by OpenSearch, by PostgreSQL, by the matcher of streams, and by their plain meaning.

The seed is printed by a failure, and read from DECKLOG_TEST_SEED.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import msgspec
import pytest
import pytest_asyncio

from decklog.domain.log import LogName, Span
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.records.record import Prepared, StoredRecord
from decklog.domain.search import syntax
from decklog.domain.search.conditions import PATTERN_CHARS_MAX, PATTERNS_MAX, PHRASE_WORDS_MAX, WILDCARDS_MAX
from decklog.domain.search.decided import UndecidedError
from decklog.domain.search.grammar import CLAUSES_MAX, DEPTH_MAX
from decklog.domain.search.query import Query
from decklog.domain.search.stats import Grouping
from decklog.domain.store import RecordStore, SearchDocument, SearchIndex
from decklog.domain.tenant import Isolation, Tenant
from decklog.opensearch.client import connect
from decklog.opensearch.search import OpenSearchIndex
from decklog.services.search.matching import Matcher, terms_of
from decklog.settings import Search
from tests.backends import OpenSearchServer
from tests.support import corpus, naive
from tests.support.examples import examples
from tests.support.generations import living, make_indices, remove_indices
from tests.support.questions import NOW, Questions
from tests.support.stores import drop_database, new_database

SEED = int(os.environ.get("DECKLOG_TEST_SEED", random.SystemRandom().randrange(10**6)))
MADE_UP, REAL = 160, 40
APPENDED_AT_ONCE = 23
"""Records with the same receipt time."""
QUERIES = examples(500)
EVENTS = LogName.EVENTS
EVERYTHING = Span(0, 10**6)

pytestmark = pytest.mark.asyncio(loop_scope="module")


class World(NamedTuple):
    """The same records in every engine."""

    tenant: Tenant
    store: RecordStore
    search_index: SearchIndex
    records: list[StoredRecord]

    async def by_postgres(self, query: Query) -> list[int]:
        """What conditions let through, and the matcher where columns do not decide."""
        found, onwards = await self.store.read(
            self.tenant, EVENTS, EVERYTHING, query=query, limit=10_000, newest_first=False, timeout=30.0
        )
        assert onwards is None
        matcher = Matcher(query)
        return [record.seq for record in found if not query.needs_content or matcher(record)]

    async def by_index(self, query: Query) -> list[int]:
        """What the index finds, compared where it does not decide; and its count, where it has one."""
        matcher = Matcher(query)
        query = query.numbered({at: await self.store.first_since(self.tenant, EVENTS, at, timeout=30.0) for at in query.receipts})
        found = await self.search_index.find(self.tenant, EVENTS, EVERYTHING, query=query, limit=10_000, newest_first=False)
        matching = [seq for seq in found if query.index_decides or matcher(self.records[seq])]
        try:
            buckets = await self.search_index.count(self.tenant, EVENTS, EVERYTHING, query=query, grouping=Grouping(), limit=10)
        except UndecidedError:
            assert not query.index_decides
        else:
            assert sum(bucket.count for bucket in buckets) == len(matching)
        return matching


def meant(record: StoredRecord) -> dict[str, Any]:
    """A record as its plain meaning is evaluated."""
    return {**corpus.decoded(record.content), "seq": record.seq, "received_at": record.received_at}


def _corpus(source: random.Random) -> list[Prepared]:
    return [*(corpus.made_up(source) for _ in range(MADE_UP)), *corpus.real(source, REAL // 2)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = _corpus(random.Random(SEED))
    server: OpenSearchServer = request.getfixturevalue("opensearch_server")
    async with AsyncExitStack() as stack:
        database = await new_database(request.getfixturevalue("timescale_server"))
        stack.push_async_callback(drop_database, database)
        store, tenant = await database.records(), await database.tenant(isolation=Isolation.SHARED)
        for at in range(0, len(made), APPENDED_AT_ONCE):
            [result] = await store.append([AppendRequest(tenant, EVENTS, made[at : at + APPENDED_AT_ONCE])])
            assert isinstance(result, Appended), result
        records, _ = await store.read(tenant, EVENTS, EVERYTHING, query=Query(), limit=10_000, newest_first=False, timeout=30.0)
        client = connect(Search(url=server.url))
        stack.push_async_callback(client.close)
        indexed = living(msgspec.structs.replace(tenant, index=f"decklog-test-{uuid.uuid4().hex}"))
        assert indexed.live is not None
        await make_indices(client, indexed.live)
        stack.push_async_callback(remove_indices, client, indexed.index)
        index = OpenSearchIndex(client)
        documents = [
            SearchDocument(tenant.id, EVENTS, item.epoch, item.seq, item.received_at, terms_of(item)) for item in records
        ]
        await index.add(indexed, documents)
        await index.refresh(indexed)
        yield World(indexed, store, index, records)


@pytest.mark.parametrize(
    "query",
    [
        " OR ".join(f"w{number}" for number in range(CLAUSES_MAX)),
        " ".join(f"exists:metadata.k{number}" for number in range(CLAUSES_MAX)),
        " OR ".join(chr(0x4E00 + number) for number in range(CLAUSES_MAX // 16 * 5)),
        "metadata.a:(" + " OR ".join(f"v{number}" for number in range(CLAUSES_MAX - 1)) + ")",
        " OR ".join([f"*a?b*c?d*{number}" for number in range(PATTERNS_MAX)]),
        " OR ".join([f"metadata.a:*{'?' * (WILDCARDS_MAX - 1)}{number}" for number in range(PATTERNS_MAX)]),
        f"metadata.a:*{'ab' * (PATTERN_CHARS_MAX // 2 - 6)}{'?' * (WILDCARDS_MAX - 1)}",
        '"' + " ".join(["a"] * PHRASE_WORDS_MAX) + '"',
        "(" * DEPTH_MAX + "NOT a" + ")" * DEPTH_MAX,
        "NOT (" * DEPTH_MAX + "a OR b" + " c)" * DEPTH_MAX,
    ],
    ids=range(10),
)
async def test_engines_answer_the_largest_queries(world: World, query: str) -> None:
    asked = Query(syntax.read(query, NOW))
    expected = [record.seq for record in world.records if naive.satisfies(asked.root, meant(record))]
    assert await world.by_postgres(asked) == expected
    assert await world.by_index(asked) == expected


async def test_engines_agree_on_generated_queries(world: World) -> None:
    source = random.Random(SEED + 1)
    questions, found_some = Questions(source), 0
    for _ in range(QUERIES):
        query = questions.query(terms_of(source.choice(world.records)))
        said = f"seed {SEED}: {query.text}"
        assert syntax.read(query.text, NOW) == query.root, said
        matcher = Matcher(query)
        expected = [record.seq for record in world.records if naive.satisfies(query.root, meant(record))]
        assert [record.seq for record in world.records if matcher(record)] == expected, said
        assert await world.by_postgres(query) == expected, said
        assert await world.by_index(query) == expected, said
        found_some += 0 < len(expected) < len(world.records)
    assert found_some > QUERIES / 3
