"""An issuer of tokens, and the identity that trusts it, over a registry in memory."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from decklog.domain.errors import Code, DecklogError
from decklog.services.identity.identity import Identity
from decklog.services.identity.issuers import IssuerConfig, Issuers
from decklog.services.identity.registry import RegistryCache
from decklog.services.identity.viewer_tokens import ViewerTokens
from tests.support.memory import MemoryRegistry, make_tenant

ISSUER = "https://issuer.example"
AUDIENCE = "decklog"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
KEYS: dict[str, RSAKey | ECKey | OKPKey] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def key_set(*keys: Key, **members: Any) -> bytes:
    return json.dumps({"keys": [{**key.as_dict(private=False), **members} for key in keys]}).encode()


class KeyServer:
    """Keys that an issuer publishes; counts how often it was asked."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.asked = 0
        self.down = False
        self.hangs = False
        self.goes_on = asyncio.Event()

    async def fetch(self, url: str) -> bytes:
        assert url == ISSUER + "/keys"
        self.asked += 1
        if self.hangs:
            await self.goes_on.wait()
        if self.down:
            raise OSError("down on purpose")
        return self.body


class World:
    """A registry with two tenants, one issuer bound to `acme`, and the identity over both."""

    def __init__(self, **config: Any) -> None:
        self.registry = MemoryRegistry()
        self.acme = self.registry.add_tenant(make_tenant("acme"))
        self.other = self.registry.add_tenant(make_tenant("other"))
        self.cache = RegistryCache(self.registry, interval=0.02)
        self.server = KeyServer(key_set(RSA, EC, ED))
        self.time = float(int(time.time()))
        self.uptime = 0.0
        fields: dict[str, Any] = {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "algorithms": ["EdDSA", "ES256", "RS256"],
            "tenants": ["acme"],
            "jwks_url": ISSUER + "/keys",
        }
        limits = {name: config.pop(name) for name in ("token_seconds_max", "unreachable_seconds_max") if name in config}
        self.issuers = Issuers(
            [IssuerConfig(**{**fields, **config})],
            fetch=self.server.fetch,
            now=lambda: self.time,
            monotonic=lambda: self.uptime,
            **limits,
        )
        self.viewer_tokens = ViewerTokens("a fingerprint key of the tests, of 32")
        self.identity = Identity(self.cache, self.issuers, viewers=self.viewer_tokens, now=lambda: self.time)

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self.time)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "iat": now,
            "exp": now + 300,
            "decklog_tenant": "acme",
            "decklog_role": "auditor",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, algorithm: str = "ES256", *, key: Key | None = None, header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        key = key or KEYS[algorithm]
        return jwt.encode({"alg": algorithm, "kid": key.kid, **(header or {})}, self.claims(**changes), key, [algorithm])

    async def refused(self, token: str) -> None:
        """Check that the token gets the one answer of every credential that is not valid."""
        with pytest.raises(DecklogError) as caught:
            await self.identity.authenticate(token)
        assert caught.value.code is Code.UNAUTHENTICATED
        assert caught.value.detail == (
            "The credential is not valid: malformed, unknown, revoked, expired, or not meant for this service."
        )

    async def unavailable(self, token: str) -> float:
        """Check that the token cannot be judged, as the keys of its issuer are missing. Return the seconds to wait."""
        with pytest.raises(DecklogError) as caught:
            await self.identity.authenticate(token)
        assert caught.value.code is Code.ISSUER_UNAVAILABLE
        assert caught.value.retry_after is not None
        return caught.value.retry_after


@asynccontextmanager
async def world(**config: Any) -> AsyncIterator[World]:
    made = World(**config)
    await made.cache.start()
    try:
        yield made
    finally:
        await made.cache.stop()


def segment(value: Any) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
