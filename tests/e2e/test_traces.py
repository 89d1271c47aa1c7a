"""Traces of running processes, from the edge's span to commit and index; and no tracing where it is not configured."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from tests.backends import OpenSearchServer, PostgresServer
from tests.backends.sqs import SqsServer
from tests.e2e.conftest import whole
from tests.support.collector import Collector, Span
from tests.support.records import FINGERPRINT_KEY
from tests.support.stack import Program, Stack, installed
from tests.support.stores import drop_database, new_database

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
EDGE = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
RECORD = {"id": "order-17", "action": "order.approve", "actor": {"id": "alice"}, "message": "unspeakable-content"}
SPEC = {"retention": {"days": 30}}


def secrets_of(stack: Stack, sqs: SqsServer) -> set[str]:
    """Return every secret, and every word that no span may contain."""
    found = {key for keys in stack.vault.keys.values() for key in keys.values()} | {stack.platform_key}
    for dsn in (stack.settings.database.dsn, stack.settings.database.owner_dsn):
        found |= {dsn, unquote(urlsplit(dsn).password or dsn)}
    return found | {FINGERPRINT_KEY.decode(), sqs.secret_key, "unspeakable-content", "unspeakable-question", "unspeakable-key"}


def one(spans: list[Span], **attributes: object) -> Span:
    [found] = [
        span for span in spans if all(span.attributes.get(f"decklog.{name}") == value for name, value in attributes.items())
    ]
    return found


def indexed(collector: Collector) -> set[str]:
    """Return the commits that spans of the indexer link to."""
    return {link for span in collector.named("indexer") for link in span.links}


async def test_traces_link_request_commit_and_indexing_and_contain_no_secret(
    timescale_server: PostgresServer, opensearch_server: OpenSearchServer, sqs_server: SqsServer, tmp_path: Path
) -> None:
    with Collector() as collector:
        async with whole(tmp_path, timescale_server, opensearch_server, sqs_server) as stack:
            await stack.provision(acme=SPEC)
            told = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
            api, worker = await stack.api(**told), await stack.worker(**told)
            async with stack.client(api.url, stack.key("acme", "writer")) as client:
                answer = await client.post("/api/v1/logs", json=RECORD, headers=EDGE)
                assert answer.status_code == 201, answer.text
            async with stack.client(api.url, stack.key("acme", "auditor")) as client:
                assert (await client.get("/api/v1/logs?q=unspeakable-question", headers=EDGE)).status_code == 200
            async with stack.client(api.url, "dlk_abcdefgh01_" + "unspeakablekey" * 3) as client:
                assert (await client.get("/api/v1/logs/0", headers=EDGE)).status_code == 401
            await asyncio.to_thread(
                collector.until,
                lambda found: len({span.place for span in found.named("commit")} & indexed(found)) == 2,
            )
            assert [await asyncio.to_thread(program.stop) for program in (api, worker)] == [0, 0]
            lines = [json.loads(line) for line in api.log.read_text().splitlines()]

            request = one(collector.named("POST /api/v1/logs"))
            assert (request.service, request.trace, request.parent, request.failed) == ("decklog-api", TRACE, CALLER, False)
            assert request.attributes == {
                "http.request.method": "POST", "http.route": "/api/v1/logs",
                "http.response.status_code": 201, "decklog.tenant": "acme",
            }  # fmt: skip
            commit, indexing = (one(collector.named(name), log="events") for name in ("commit", "indexer"))
            assert commit.links == (request.place,)
            assert indexing.links == (commit.place,)
            assert (commit.service, indexing.service) == ("decklog-api", "decklog-worker")
            place = {"decklog.tenant": "acme", "decklog.seq.first": 0, "decklog.seq.last": 0, "decklog.records": 1}
            assert place.items() <= commit.attributes.items()
            assert place.items() <= indexing.attributes.items()
            [wait] = [span for span in collector.named("wait for commit") if span.links == (commit.place,)]
            assert f"{wait.trace}-{wait.parent}" == request.place
            assert request.start <= wait.start <= wait.end == commit.start <= commit.end <= request.end
            assert commit.end <= indexing.end

            # A search is connected with its access record in the same way.
            search, recorded = one(collector.named("GET /api/v1/logs")), one(collector.named("commit"), log="access")
            assert recorded.links == (search.place,)
            assert recorded.place in indexed(collector)

            refused = one(collector.named("GET /api/v1/logs/{seq}"))
            assert "decklog.tenant" not in refused.attributes
            [line] = [line for line in lines if line.get("trace_id") == TRACE]
            assert refused.place == f"{line['trace_id']}-{line['span_id']}"

            sent = b"".join(collector.bodies).decode("utf-8", "replace")
            assert "acme" in sent
            assert [secret for secret in secrets_of(stack, sqs_server) if secret in sent] == []
            assert "unspeakable" not in sent


async def metrics(api: Program) -> dict[str, float]:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{api.url}/metrics")).text
    found = (line.rpartition(" ") for line in text.splitlines() if line.startswith("decklog_trace_spans_total"))
    return {name.partition('"')[2].partition('"')[0]: float(value) for name, _, value in found}


def loaded(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in path.read_text().splitlines()} & {"opentelemetry", "google"}


async def test_tracing_never_blocks_on_a_silent_collector_and_is_not_loaded_without_one(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    # Whatever a process has loaded when it ends, it writes down.
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, pathlib, sys\n"
        "atexit.register(lambda: pathlib.Path(os.environ['LOADED']).write_text('\\n'.join(sys.modules)))\n"
    )
    into = tmp_path / "loaded"
    given = {"PYTHONPATH": str(tmp_path), "LOADED": str(into)}
    record = {"action": "a.b", "actor": {"id": "x"}}
    database = await new_database(postgres_server)
    try:
        async with installed(tmp_path, service_dsn=database.service_dsn, owner_dsn=database.owner_dsn) as stack:
            await stack.provision(acme=SPEC)
            for start in (stack.api, stack.worker):
                program = await start(**given)
                if program.verb == "api":
                    async with stack.client(program.url, stack.key("acme", "writer")) as client:
                        assert (await client.post("/api/v1/logs", json=record, headers=EDGE)).status_code == 201
                    assert await metrics(program) == {}
                assert await asyncio.to_thread(program.stop) == 0
                assert loaded(into) == set()
            with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and nobody reads them
                api = await stack.api(
                    **given,
                    OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
                    OTEL_EXPORTER_OTLP_TIMEOUT="1",
                    OTEL_BSP_SCHEDULE_DELAY="50",
                    OTEL_BSP_MAX_QUEUE_SIZE="4",
                )
                counts: dict[str, float] = {}
                async with stack.client(api.url, stack.key("acme", "writer")) as client, asyncio.timeout(120):
                    while not (counts.get("dropped") and counts.get("failed")):
                        assert (await client.post("/api/v1/logs", json=record, headers=EDGE)).status_code == 201
                        counts = await metrics(api)
                assert counts["exported"] == 0
                assert await asyncio.to_thread(api.stop) == 0
            assert loaded(into) == {"opentelemetry", "google"}
    finally:
        await drop_database(database)
