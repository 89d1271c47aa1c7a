"""The service's settings for an SQS server of tests."""

from __future__ import annotations

from decklog.settings import Queue
from tests.backends import SqsServer


def queue_settings(server: SqsServer) -> Queue:
    return Queue(
        enabled=True,
        endpoint_url=server.url,
        region=server.region,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
    )
