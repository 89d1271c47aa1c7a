"""A provider of OpenID Connect that runs beside a test, and an API that trusts it."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from decklog.outbound.jwks import fetch, post
from decklog.services.identity.issuers import IssuerConfig, Issuers
from decklog.services.identity.oidc import OidcSignIn, Post, Provider
from tests.support.api_world import World, running_world

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from oidc_provider_mock import User, run_server_in_thread  # type: ignore[import-untyped]

CLIENT = "decklog-board"
USERS = {
    "alice": {"decklog_tenant": "acme", "decklog_role": "auditor"},
    "mallory": {"decklog_tenant": "other", "decklog_role": "admin"},
    "nobody": {},
    "root": {"decklog_role": "platform"},
}
"""Claims of the people at the provider, which may speak for acme only."""


@contextmanager
def running_provider() -> Iterator[str]:
    """Run the provider and yield its issuer."""
    with run_server_in_thread(user_claims=[User(sub=sub, claims=claims) for sub, claims in USERS.items()]) as server:
        yield f"http://localhost:{server.server_port}"


@asynccontextmanager
async def trusting_world(issuer: str, post: Post = post) -> AsyncIterator[World]:
    """Run an API that people sign in to by the provider."""
    trusted = IssuerConfig(issuer=issuer, audience="api", algorithms=["RS256"], tenants=["acme"], jwks_url=issuer + "/jwks")
    provider = Provider(issuer, CLIENT, "secret", "openid profile", "Example")
    async with running_world(
        issuers=Issuers([trusted], fetch=fetch), oidc=lambda identity: OidcSignIn(provider, identity, fetch=fetch, post=post)
    ) as world:
        yield world
