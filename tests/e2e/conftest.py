"""Installations for end-to-end tests."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.backends import PostgresServer
from tests.backends.opensearch import OpenSearchServer
from tests.backends.sqs import SqsServer
from tests.support.dev import Dev
from tests.support.stack import Stack, installed
from tests.support.stores import drop_database, new_database


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """Run one `decklog dev` for all tests of a module."""
    made = Dev(tmp_path_factory.mktemp("dev"))
    made.start()
    yield made
    made.close()


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
    """Return a prefix of indices and queues that no other test uses on the shared servers."""
    return {"DECKLOG_PREFIX": f"t{secrets.token_hex(4)}"}


@asynccontextmanager
async def whole(
    folder: Path, server: PostgresServer, search: OpenSearchServer, sqs: SqsServer, **variables: str
) -> AsyncIterator[Stack]:
    """Make an installation over a new database of this server, OpenSearch and SQS, with its own names and no process yet."""
    database = await new_database(server)
    try:
        dsns = {"service_dsn": database.service_dsn, "owner_dsn": database.owner_dsn}
        async with installed(
            folder, **dsns, **search_variables(search), **queue_variables(sqs), **own_prefix(), **variables
        ) as stack:
            yield stack
    finally:
        await drop_database(database)
