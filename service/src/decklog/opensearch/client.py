"""The connection pool to OpenSearch, and the translation of its failures.

No exception of the client library may leave this package. Bodies of requests must never be logged: they contain the filters of users.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec
from opensearchpy import AIOHttpConnection, AsyncOpenSearch, ConnectionTimeout, JSONSerializer, SerializationError, TransportError

from decklog.domain.errors import Code, DecklogError
from decklog.settings import Search

REQUEST_TIME_MAX = timedelta(seconds=10)
"""For one request; a bulk of a few MiB takes 0.1 s on a healthy node."""
READY_TIME_MAX = timedelta(seconds=2)
"""For the health of the cluster."""
CONNECTIONS_MAX = 16
RETRY_AFTER_SECONDS = 1

# The client logs every failed request with its traceback, and bodies at debug level. Our errors name the failure.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)


class _Json(JSONSerializer):
    """The client's serializer, decoding in C. Bodies of bulks are bytes already."""

    def loads(self, s: str) -> Any:
        try:
            return msgspec.json.decode(s)
        except msgspec.DecodeError as error:
            raise SerializationError(s, error) from error


def connect(search: Search) -> AsyncOpenSearch:
    """Return a client for the address in the settings. It connects when first used; end it with `await client.close()`.

    Raises:
        DecklogError: `misconfigured` for an address that is no http URL or holds credentials.
    """
    parts = urlsplit(search.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DecklogError(Code.MISCONFIGURED, "DECKLOG_SEARCH_URL must be an http or https URL, like https://search:9200.")
    if parts.username or parts.password:
        raise DecklogError(
            Code.MISCONFIGURED,
            "DECKLOG_SEARCH_URL must not contain credentials; set DECKLOG_SEARCH_USER and DECKLOG_SEARCH_PASSWORD_FILE.",
        )
    return AsyncOpenSearch(
        hosts=[search.url],
        http_auth=(search.user, search.password) if search.user else None,
        connection_class=AIOHttpConnection,
        pool_maxsize=CONNECTIONS_MAX,
        timeout=REQUEST_TIME_MAX.total_seconds(),
        # One retry after a failed connection: every request to an index is idempotent.
        max_retries=1,
        retry_on_timeout=False,
        retry_on_status=(),
        serializer=_Json(),
    )


def unavailable(why: str) -> DecklogError:
    """Return `search-unavailable`; `why` is a predicate of "The search index"."""
    return DecklogError(Code.SEARCH_UNAVAILABLE, f"The search index {why}. Try again.", retry_after=RETRY_AFTER_SECONDS)


@contextmanager
def translated() -> Iterator[None]:
    """Translate exceptions of the client to `search-unavailable`, with the cause chained for the log."""
    try:
        yield
    except ConnectionTimeout as error:
        raise unavailable("did not answer in time") from error
    except TransportError as error:
        status = error.status_code
        raise unavailable("cannot be reached" if status == "N/A" else f"answered with status {status}") from error
    except SerializationError as error:
        raise unavailable("gave an answer that is not JSON") from error


class SearchReadiness:
    """The health of OpenSearch, for `/readyz`."""

    def __init__(self, client: AsyncOpenSearch) -> None:
        self._client = client

    async def check(self) -> None:
        """Raise `search-unavailable` if the cluster does not answer in `READY_TIME_MAX`, or lacks primary shards."""
        with translated():
            health = await self._client.cluster.health(params={"timeout": "1s"}, request_timeout=READY_TIME_MAX.total_seconds())
        if health.get("status") not in ("yellow", "green"):
            raise unavailable("is missing shards (cluster status red)")
