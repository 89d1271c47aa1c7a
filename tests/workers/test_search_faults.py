"""Faults of OpenSearch: unavailable, overloaded, rejected documents and partial answers are errors."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import stamina
from msgspec.structs import replace
from opensearchpy import AsyncOpenSearch
from structlog.testing import capture_logs

from decklog.domain.consumers import indexer_of
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName, Span
from decklog.domain.search.order import NEWEST_FIRST, OLDEST_FIRST, parse_order
from decklog.domain.search.query import Query, matches, parse
from decklog.domain.search.stats import Grouping
from decklog.domain.store import SearchDocument
from decklog.domain.tenant import Tenant
from decklog.opensearch import index as index_module
from decklog.opensearch import mapping, search
from decklog.opensearch.client import SearchReadiness, connect
from decklog.opensearch.documents import REMOVABLE, document_id, lines
from decklog.opensearch.mapping import write_alias
from decklog.opensearch.search import OpenSearchIndex
from decklog.services.search.matching import terms_of
from decklog.services.search.search import Search as Searches
from decklog.settings import Search
from tests.backends import OpenSearchServer
from tests.support.desk import Desk
from tests.support.documents import documents, made
from tests.support.generations import LONG_AGO, generation, living, make_indices, remove_indices
from tests.support.memory import make_tenant
from tests.support.memory_store import fill, index_all
from tests.support.relay import Relay

Answer = Callable[[str, str, bytes], Awaitable[tuple[int, Any]] | tuple[int, Any]]


class Node:
    """An HTTP server with the subset that the client of OpenSearch needs; tests choose its answers."""

    def __init__(self) -> None:
        self.answer: Answer = lambda method, path, body: (200, {})
        self.requests: list[tuple[str, str, bytes]] = []
        self.authorizations: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split(" ")
                length = 0
                while (header := await reader.readline()) != b"\r\n":
                    name, _, value = header.decode().partition(":")
                    if name.lower() == "content-length":
                        length = int(value)
                    elif name.lower() == "authorization":
                        self.authorizations.append(value.strip())
                body = await reader.readexactly(length)
                self.requests.append((method, path, body))
                answered = self.answer(method, path, body)
                status, value = answered if isinstance(answered, tuple) else await answered
                text = value if isinstance(value, bytes) else json.dumps(value).encode()
                head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
                writer.write(head.encode() + text)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made_node = Node()
    server = await asyncio.start_server(made_node.serve, "127.0.0.1", 0)
    made_node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made_node
    server.close()


@pytest.fixture
async def client(node: Node) -> AsyncIterator[AsyncOpenSearch]:
    made_client = connect(Search(url=node.url))
    yield made_client
    await made_client.close()


@pytest.fixture
def quick_retries() -> Iterator[None]:
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


def ids(body: bytes) -> list[str]:
    return [json.loads(line)["index"]["_id"] for line in body.splitlines()[::2]]


def taken(count: int, status: int = 201) -> tuple[int, Any]:
    return 200, {"errors": False, "items": [{"index": {"status": status}}] * count}


def some(tenant: Tenant, count: int) -> list[SearchDocument]:
    return documents(tenant, [made()] * count)


async def refused(call: Awaitable[Any]) -> DecklogError:
    with pytest.raises(DecklogError) as raised:
        await call
    assert raised.value.code is Code.SEARCH_UNAVAILABLE
    assert raised.value.retry_after
    return raised.value


async def test_write_retries_only_documents_with_status_429(node: Node, client: AsyncOpenSearch, quick_retries: None) -> None:
    sent: list[list[str]] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, Any]:
        sent.append(ids(body))
        items = [{"index": {"status": 429 if number % 2 and len(sent) < 3 else 201}} for number in range(len(sent[-1]))]
        return 200, {"errors": True, "items": items}

    node.answer = answer
    tenant = living(make_tenant("acme"))
    await OpenSearchIndex(client).add(tenant, some(tenant, 4))
    names = list(map(document_id, some(tenant, 4)))
    assert sent == [names, names[1::2], names[3:]]


async def test_write_fails_when_a_node_refuses_for_too_long(node: Node, client: AsyncOpenSearch, quick_retries: None) -> None:
    node.answer = lambda method, path, body: taken(len(ids(body)), 429)
    tenant = living(make_tenant("acme"))
    error = await refused(OpenSearchIndex(client).add(tenant, some(tenant, 3)))
    assert "overloaded" in error.detail
    assert len([request for request in node.requests if request[0] == "POST"]) == 4


@pytest.mark.parametrize("status", [400, 409, 413, 500, 503])
async def test_write_fails_when_one_document_is_always_rejected(node: Node, client: AsyncOpenSearch, status: int) -> None:
    problem = {"status": status, "error": {"type": "mapper_parsing_exception", "reason": "alice's secret"}}

    def answer(method: str, path: str, body: bytes) -> tuple[int, Any]:
        created = [{"index": {"status": 201}}] * (len(ids(body)) - 1)
        return 200, {"errors": True, "items": [*created, {"index": problem}]}

    node.answer = answer
    tenant = living(make_tenant("acme"))
    error = await refused(OpenSearchIndex(client).add(tenant, some(tenant, 2)))
    assert "mapper_parsing_exception" in error.detail
    assert "alice" not in error.detail


@pytest.mark.parametrize(
    ("reason", "left"),
    [
        ("failed to parse field [severity] of type [keyword]: 'field alice'", {"action", "actor", "words"}),
        ('Document contains at least one immense term in field="words" (alice)', {"action", "actor", "severity"}),
        ("failed to parse field [seq] of type [long]", set()),
        ("no field is named", set()),
    ],
)
async def test_write_stores_a_refused_document_without_what_is_refused(
    node: Node, client: AsyncOpenSearch, reason: str, left: set[str]
) -> None:
    refusals = [{"status": 400, "error": {"type": "mapper_parsing_exception", "reason": reason}}]
    stored: list[dict[str, Any]] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, Any]:
        items = [refusals.pop() if refusals else {"status": 201} for _ in ids(body)]
        stored.extend(
            json.loads(line) for line, item in zip(body.splitlines()[1::2], items, strict=True) if item["status"] == 201
        )
        return 200, {"errors": True, "items": [{"index": item} for item in items]}

    node.answer = answer
    tenant = living(make_tenant("acme"))
    with capture_logs() as log:
        assert await OpenSearchIndex(client).add(tenant, some(tenant, 2)) == 1
    assert sorted(document["seq"] for document in stored) == [0, 1]
    [lessened] = [document for document in stored if "index_refused" in document]
    [whole] = [document for document in stored if "index_refused" not in document]
    assert {"action", "actor", "severity", "words"} & set(lessened) == left
    assert set(whole) - set(lessened) <= set(lessened["index_refused"])
    [line] = log
    assert (line["tenant_id"], line["seq"]) == (tenant.id, lessened["seq"])
    assert "alice" not in str(line)


async def test_write_splits_a_bulk_that_is_too_large_and_lessens_a_document_that_is(node: Node, client: AsyncOpenSearch) -> None:
    stored: list[str] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, Any]:
        if len(body) > 2_000:
            return 413, {}
        stored.extend(ids(body))
        return taken(len(ids(body)))

    node.answer = answer
    tenant = living(make_tenant("acme"))
    large = documents(tenant, [made(), made(message="x " * 3_000), *[made()] * 9])
    assert await OpenSearchIndex(client).add(tenant, large) == 1
    assert sorted(stored) == list(map(document_id, large))


@pytest.mark.parametrize("answer", [{"errors": False, "items": []}, {}, b"not JSON", taken(1)[1]])
async def test_write_fails_when_the_answer_misses_a_document(node: Node, client: AsyncOpenSearch, answer: Any) -> None:
    node.answer = lambda method, path, body: (200, answer)
    tenant = living(make_tenant("acme"))
    await refused(OpenSearchIndex(client).add(tenant, some(tenant, 2)))


async def test_write_splits_large_bulk_requests(node: Node, client: AsyncOpenSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "BULK_BYTES_MAX", 2_000)
    node.answer = lambda method, path, body: taken(len(ids(body)))
    tenant = living(make_tenant("acme"))
    await OpenSearchIndex(client).add(tenant, some(tenant, 20))
    bodies = [body for method, _, body in node.requests if method == "POST"]
    assert len(bodies) > 2
    assert all(len(body) <= 2_000 for body in bodies)
    assert [name for body in bodies for name in ids(body)] == list(map(document_id, some(tenant, 20)))


@pytest.mark.parametrize(
    "answer",
    [
        {"timed_out": True, "_shards": {"failed": 0, "total": 1}, "hits": {"hits": [{"sort": [1]}]}},
        {"timed_out": False, "_shards": {"failed": 1, "total": 1}, "hits": {"hits": [{"sort": [1]}]}},
        {"timed_out": False, "_shards": {"failed": 0, "total": 0}, "hits": {"hits": [{"sort": [1]}]}},
        {"hits": {"hits": [{"sort": [1]}]}},
        {},
    ],
)
async def test_find_and_count_refuse_partial_answers(node: Node, client: AsyncOpenSearch, answer: Any) -> None:
    node.answer = lambda method, path, body: (200, answer)
    asked: dict[str, Any] = {"span": Span(0, 10), "query": Query(), "limit": 10}
    await refused(OpenSearchIndex(client).find(living(make_tenant("acme")), LogName.EVENTS, newest_first=True, **asked))
    await refused(
        OpenSearchIndex(client).count(living(make_tenant("acme")), LogName.EVENTS, grouping=Grouping(("action",)), **asked)
    )


async def test_refresh_fails_when_a_shard_fails(node: Node, client: AsyncOpenSearch) -> None:
    index, tenant = OpenSearchIndex(client), living(make_tenant("acme"))
    node.answer = lambda method, path, body: (200, {"_shards": {"total": 2, "successful": 1, "failed": 1}})
    await refused(index.refresh(tenant))
    # An unassigned copy on a single node is no failure.
    node.answer = lambda method, path, body: (200, {"_shards": {"total": 2, "successful": 1, "failed": 0}})
    await index.refresh(tenant)


async def every_call(index: OpenSearchIndex, tenant: Tenant) -> None:
    asked: dict[str, Any] = {"span": Span(0, 10), "query": Query(), "limit": 10}
    await refused(index.add(tenant, some(tenant, 1)))
    await refused(index.refresh(tenant))
    await refused(index.find(tenant, LogName.EVENTS, newest_first=True, **asked))
    await refused(index.count(tenant, LogName.EVENTS, grouping=Grouping(("action",)), **asked))


async def test_every_call_fails_when_the_server_is_away() -> None:
    client = connect(Search(url="http://127.0.0.1:9"))
    await every_call(OpenSearchIndex(client), living(make_tenant("acme")))
    await refused(SearchReadiness(client).check())
    await client.close()


async def test_find_fails_when_the_server_never_answers(
    node: Node, client: AsyncOpenSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "ANSWER_TIME_MAX", timedelta(milliseconds=50))

    async def never(method: str, path: str, body: bytes) -> tuple[int, Any]:
        await asyncio.sleep(3_600)
        return 200, {}

    node.answer = never
    async with asyncio.timeout(10):
        asked: dict[str, Any] = {"span": Span(0, 10), "query": Query(), "limit": 10}
        await refused(OpenSearchIndex(client).find(living(make_tenant("acme")), LogName.EVENTS, newest_first=True, **asked))


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_every_call_fails_when_the_server_refuses(node: Node, client: AsyncOpenSearch, status: int) -> None:
    node.answer = lambda method, path, body: (status, {"error": {"type": "some_exception", "reason": "some secret"}})
    await every_call(OpenSearchIndex(client), living(make_tenant("acme")))
    await refused(SearchReadiness(client).check())


async def test_readiness_fails_when_shards_are_lost(node: Node, client: AsyncOpenSearch) -> None:
    status = "green"
    node.answer = lambda method, path, body: (200, {"status": status})
    await SearchReadiness(client).check()
    status = "yellow"
    await SearchReadiness(client).check()
    status = "red"
    await refused(SearchReadiness(client).check())


@pytest.mark.parametrize("fault", ["silent", "cut", "slow"])
async def test_searches_go_on_over_postgres_while_the_server_does_not_answer(
    opensearch_server: OpenSearchServer, fault: str
) -> None:
    address = urlsplit(opensearch_server.url)
    relay = Relay(address.hostname or "", address.port or 0)
    client = connect(Search(url=f"{address.scheme}://127.0.0.1:{relay.port}"))
    at = Desk()
    at.acme = living(replace(at.acme, index=f"decklog-fault-{uuid.uuid4().hex[:8]}"))  # other tests share the server
    at.search = Searches(at.store, index=OpenSearchIndex(client), cursors=at.cursors, timeout=5.0)
    try:
        await make_indices(client, generation(at.acme.index))
        await fill(at.store, at.acme, *[{"message": "needle"} for _ in range(5)])
        await index_all(at.store, at.acme, OpenSearchIndex(client), at.cursors, indexer_of(at.acme))
        query = parse([("q", "needle"), ("from", "2000-01-01T00:00:00Z")])[1]
        assert (await at.search.page(at.acme, LogName.EVENTS, query, limit=9)).coverage.engine == "opensearch"
        if fault == "slow":
            relay.seconds_late = 30.0
        else:
            (relay.silence if fault == "silent" else relay.cut)()
        for _ in range(3):
            async with asyncio.timeout(20):  # sooner than the server answers
                page = await at.search.page(at.acme, LogName.EVENTS, query, limit=9)
                counted = await at.search.count(at.acme, LogName.EVENTS, query)
            assert (len(page.items), page.coverage.engine) == (5, "postgres")
            assert (counted.total, counted.coverage.engine) == (5, "postgres")
        relay.seconds_late = 0.0
        relay.mend()
        async with asyncio.timeout(30):
            while (await at.search.page(at.acme, LogName.EVENTS, query, limit=9)).coverage.engine != "opensearch":
                await asyncio.sleep(0.1)
    finally:
        relay.seconds_late = 0.0
        relay.mend()
        await remove_indices(client, at.acme.index)
        await client.close()
        relay.close()


async def test_missing_index_is_neither_created_nor_searched(opensearch_server: OpenSearchServer) -> None:
    client = connect(Search(url=opensearch_server.url))
    tenant = living(make_tenant(f"missing-{uuid.uuid4().hex[:8]}"))
    await every_call(OpenSearchIndex(client), tenant)
    assert await client.indices.get(index=f"{tenant.index}*") == {}
    await client.close()


async def test_find_count_and_refresh_refuse_to_leave_out_a_lost_range(opensearch_server: OpenSearchServer) -> None:
    client = connect(Search(url=opensearch_server.url))
    tenant = living(make_tenant(f"lost-{uuid.uuid4().hex[:8]}"), LONG_AGO, date(2100, 1, 1))
    index = OpenSearchIndex(client)
    assert tenant.live is not None
    await make_indices(client, tenant.live)
    await index.add(tenant, some(tenant, 1))
    await index.refresh(tenant)
    asked: dict[str, Any] = {"span": Span(0, 10), "query": Query(), "limit": 10}
    assert await index.find(tenant, LogName.EVENTS, newest_first=True, **asked) == [0]
    await client.indices.delete(index=tenant.live.range_indices[1])
    await refused(index.find(tenant, LogName.EVENTS, newest_first=True, **asked))
    await refused(index.count(tenant, LogName.EVENTS, grouping=Grouping(("action",)), **asked))
    await refused(index.refresh(tenant))
    await remove_indices(client, tenant.index)
    await client.close()


async def test_index_of_another_mapping_is_neither_read_nor_written(node: Node, client: AsyncOpenSearch) -> None:
    tenant = make_tenant("acme")
    older = replace(generation(tenant.index), name=f"v{mapping.VERSION - 1}-1")
    for each in (tenant, replace(tenant, live=older)):
        await every_call(OpenSearchIndex(client), each)
    assert node.requests == []


async def test_add_rejects_documents_of_another_tenant(opensearch_server: OpenSearchServer) -> None:
    client = connect(Search(url=opensearch_server.url))
    one, other = living(make_tenant("one")), living(make_tenant("other"))
    with pytest.raises(ValueError, match="another tenant"):
        await OpenSearchIndex(client).add(one, some(other, 1))
    await client.close()


@pytest.mark.parametrize("url", ["", "search:9200", "ftp://search", "http://", "https://admin:hunter2@search:9200"])
def test_connect_rejects_unusable_addresses_without_repeating_them(url: str) -> None:
    with pytest.raises(DecklogError) as raised:
        connect(Search(url=url))
    assert raised.value.code is Code.MISCONFIGURED
    assert "hunter2" not in raised.value.detail


async def test_credentials_are_sent_and_never_logged(node: Node) -> None:
    client = connect(Search(url=node.url, user="decklog", password="hunter2"))
    node.answer = lambda method, path, body: (401, {"error": "no"})
    error = await refused(SearchReadiness(client).check())
    assert node.authorizations == ["Basic " + base64.b64encode(b"decklog:hunter2").decode()]
    assert "hunter2" not in f"{error!r} {error.__cause__!r}"
    await client.close()


async def test_mapping_has_every_field_of_a_document(opensearch_server: OpenSearchServer) -> None:
    client = connect(Search(url=opensearch_server.url))
    tenant = living(make_tenant(f"strict-{uuid.uuid4().hex[:8]}"))
    strict = mapping.mapping({}) | {"dynamic": "strict"}
    [name] = generation(tenant.index).range_indices
    await client.indices.create(index=name, body={**mapping.new_index(name, {}, 0), "mappings": strict})
    whole = made(
        actor={"id": "a", "type": "t"},
        resource={"type": "t", "id": "i"},
        source={"ip": "192.0.2.1"},
        session_id="s",
        correlation_id="c",
        id="i",
        metadata={"a": 1},
    )
    await OpenSearchIndex(client).add(tenant, documents(tenant, [whole]))
    await remove_indices(client, tenant.index)
    await client.close()


REFUSED_PARTS: dict[int, frozenset[str]] = {
    0: frozenset({"leaves"}),
    1: frozenset({"leaves", "numbers", "paths"}),
    2: frozenset({"words", "message"}),
    3: REMOVABLE,
    4: frozenset({"action"}),
}
"""The parts that the index refused, by the number of the record."""


async def test_searches_miss_no_record_of_which_the_index_refused_a_part(
    opensearch_server: OpenSearchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decklog.services.search.question.INDEX_TIME", timedelta(seconds=20))  # a busy machine is no outage
    client = connect(Search(url=opensearch_server.url))
    at = Desk()
    at.acme = living(replace(at.acme, index=f"decklog-refused-{uuid.uuid4().hex[:8]}"))
    index = OpenSearchIndex(client)
    at.search = Searches(at.store, index=index, cursors=at.cursors, timeout=40.0)
    assert at.acme.live is not None
    try:
        await make_indices(client, at.acme.live)
        values = [{"action": f"a.{n % 2}", "message": f"needle {n}", "metadata": {"k": "vw"[n % 2], "n": n}} for n in range(8)]
        await fill(at.store, at.acme, *values)
        await index_all(at.store, at.acme, index, at.cursors, indexer_of(at.acme))
        stored, _ = await at.store.read(
            at.acme, LogName.EVENTS, Span(0, 8), query=Query(), limit=9, newest_first=False, timeout=5.0
        )
        for record in stored:
            document = SearchDocument(at.acme.id, LogName.EVENTS, 1, record.seq, record.received_at, terms_of(record))
            start = at.acme.live.range_of(record.received_at)
            assert start is not None
            body = lines(document, write_alias(at.acme.live.range_index(start)), REFUSED_PARTS.get(record.seq, ()))
            assert not (await client.bulk(body=body))["errors"]
        await index.refresh(at.acme)
        for text in (
            *(
                "metadata.k:v",
                "NOT metadata.k:v",
                "metadata.n:>=1",
                "exists:metadata.k",
                "needle",
                'message:"needle 2"',
                "needl*",
            ),
            *(
                "action:a.1",
                "NOT action:a.0 metadata.k:w",
                "metadata.k:v OR needle",
                "(action:a.0 metadata.k:w) OR seq:3",
                "seq:>2",
            ),
            *("actor.id:?* OR action:a.*1", "absent", "outcome:unknown"),
        ):
            query = parse([("q", text), ("from", "2000-01-01T00:00:00Z")])[1]
            expected = [record.seq for record in stored if matches(query, terms_of(record))]
            for order in (OLDEST_FIRST, NEWEST_FIRST, parse_order("occurred_at", None)):
                page = await at.search.page(at.acme, LogName.EVENTS, query, limit=9, order=order)
                assert sorted(record.seq for record in page.items) == expected, text
                assert page.coverage.engine == "opensearch", text
            walked = [r.seq async for batch in at.search.walk(at.acme, LogName.EVENTS, query, end=8) for r in batch]
            assert walked == expected, text
            counted = await at.search.count(at.acme, LogName.EVENTS, query, Grouping(("action",)), facets=("outcome",))
            groups = Counter(terms_of(record).action for record in stored if record.seq in expected)
            assert {bucket.key[0]: bucket.count for bucket in counted.buckets} == groups, text
            assert counted.total == sum(count for _, count in counted.facets[0].values) == len(expected), text
        assert (await at.search.count(at.acme, LogName.EVENTS, parse([("q", "seq:>4")])[1])).coverage.engine == "opensearch"
        error = await refused(at.search.count(at.acme, LogName.EVENTS, parse([("q", "needle")])[1]))
        assert error.code is Code.SEARCH_UNAVAILABLE
    finally:
        await remove_indices(client, at.acme.index)
        await client.close()
