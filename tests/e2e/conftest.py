"""Installations for the tests of the whole."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.backends.opensearch import OpenSearchServer
from tests.backends.sqs import SqsServer
from tests.support.stack import Stack, installed
from tests.support.stores import Database, drop_database, new_database

Install = Callable[..., Any]


def search_variables(server: OpenSearchServer) -> dict[str, str]:
    return {"DECKLOG_SEARCH_URL": server.url, "DECKLOG_SEARCH_REPLICAS": "0"}


def queue_variables(server: SqsServer) -> dict[str, str]:
    return {
        "DECKLOG_QUEUE_ENABLED": "true",
        "DECKLOG_QUEUE_ENDPOINT_URL": server.url,
        "DECKLOG_QUEUE_REGION": server.region,
        "DECKLOG_QUEUE_ACCESS_KEY_ID": server.access_key,
        "DECKLOG_QUEUE_SECRET_ACCESS_KEY": server.secret_key,
    }


def own_prefix() -> dict[str, str]:
    """Names of indices and queues that no other test uses on the shared servers."""
    return {"DECKLOG_PREFIX": f"t{secrets.token_hex(4)}"}


@pytest.fixture
async def full_stack(
    timescale_server: Any, opensearch_server: OpenSearchServer, sqs_server: SqsServer, tmp_path: Path
) -> AsyncIterator[Stack]:
    """TimescaleDB, OpenSearch and SQS, and no process of ours yet."""
    async with AsyncExitStack() as stack:
        database: Database = await new_database(timescale_server)
        stack.push_async_callback(drop_database, database)
        yield await stack.enter_async_context(
            installed(
                tmp_path,
                service_dsn=database.service_dsn,
                owner_dsn=database.owner_dsn,
                **search_variables(opensearch_server),
                **queue_variables(sqs_server),
                **own_prefix(),
            )
        )
