"""Clients of AWS services: the one way from settings to a boto3 client, with every time and connection bounded."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import boto3
from botocore.config import Config

ATTEMPTS_MAX = 2
"""Of one call, the first included, unless a client has its own bound."""


class Access(Protocol):
    """Settings that every AWS service has."""

    @property
    def endpoint_url(self) -> str:
        """URL of the service; empty for AWS's own."""
        ...

    @property
    def region(self) -> str:
        """AWS region, such as `eu-central-1`."""
        ...

    @property
    def access_key_id(self) -> str:
        """Static credential; empty for the SDK's own chain, such as IRSA."""
        ...

    @property
    def secret_access_key(self) -> str:
        """Secret of `access_key_id`."""
        ...


def client(
    service: Literal["s3", "sqs"],
    access: Access,
    *,
    connect_timeout: int,
    read_timeout: int,
    connections: int,
    attempts: int = ATTEMPTS_MAX,
    options: Config | None = None,
) -> Any:
    """Return a client for one service.

    Args:
        service: AWS's name of the service.
        access: Endpoint, region and credentials.
        connect_timeout: Seconds until a connection stands.
        read_timeout: Seconds until an answer begins, and between two pieces of it.
        connections: Connections kept open at most; a call beyond them opens one and closes it.
        attempts: Of one call, the first included.
        options: What only this service needs.
    """
    limits = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    return boto3.session.Session().client(
        service,
        region_name=access.region,
        endpoint_url=access.endpoint_url or None,
        aws_access_key_id=access.access_key_id or None,
        aws_secret_access_key=access.secret_access_key or None,
        config=limits.merge(options) if options else limits,
    )
