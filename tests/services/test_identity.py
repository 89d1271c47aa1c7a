"""Credentials of every kind: what proves something, and everything that must not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import warnings
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.tenant import State
from decklog.services.identity.identity import Identity
from decklog.services.identity.issuers import KEYS_SECONDS_MAX, IssuerConfig, Issuers, load_issuers
from decklog.services.identity.keys import key_hash, new_key
from decklog.services.identity.registry import RegistryCache
from tests.support.memory import MemoryRegistry, make_tenant

pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")

ISSUER = "https://issuer.example"
AUDIENCE = "decklog"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
KEYS: dict[str, RSAKey | ECKey | OKPKey] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def key_set(*keys: Key, **members: Any) -> bytes:
    return json.dumps({"keys": [{**key.as_dict(private=False), **members} for key in keys]}).encode()


class KeyServer:
    """What an issuer publishes; counts how often it was asked."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.asked = 0
        self.down = False

    async def fetch(self, url: str) -> bytes:
        assert url == ISSUER + "/keys"
        self.asked += 1
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
        issuers = Issuers(
            [IssuerConfig(**{**fields, **config})], fetch=self.server.fetch, now=lambda: self.time, monotonic=lambda: self.uptime
        )
        self.identity = Identity(self.cache, issuers, now=lambda: self.time)

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
        with pytest.raises(DecklogError) as caught:
            await self.identity.authenticate(token)
        assert caught.value.code is Code.UNAUTHENTICATED
        assert caught.value.detail == (
            "The credential is not valid: malformed, unknown, revoked, expired, or not meant for this service."
        )


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


# API keys


def test_a_new_key_names_its_id_and_only_its_hash_is_for_storing() -> None:
    key_id, token, digest = new_key()
    assert token.startswith(f"dlk_{key_id}_")
    assert digest == hashlib.sha256(token.encode()).digest() == key_hash(token)
    assert len(token.split("_")[2]) == 64
    assert new_key()[1] != token


@pytest.mark.parametrize("role", [Role.WRITER, Role.AUDITOR, Role.ADMIN])
async def test_a_key_speaks_for_its_tenant_and_role(role: Role) -> None:
    async with world() as it:
        token = it.registry.add_key(it.acme, role)
        principal = await it.identity.authenticate(token)
        assert (principal.kind, principal.role, principal.tenant) == ("api_key", role, it.acme)
        assert principal.subject == token.split("_")[1]
        assert token.split("_")[2] not in repr(principal)


async def test_the_platforms_key_speaks_for_no_tenant() -> None:
    async with world() as it:
        principal = await it.identity.authenticate(it.registry.add_key(None, Role.PLATFORM))
        assert (principal.role, principal.tenant) == (Role.PLATFORM, None)


async def test_a_key_of_no_tenant_with_a_tenants_role_proves_nothing_and_neither_does_the_reverse() -> None:
    async with world() as it:
        await it.refused(it.registry.add_key(None, Role.ADMIN))
        await it.refused(it.registry.add_key(it.acme, Role.PLATFORM))


async def test_a_key_made_a_moment_ago_is_known_at_once() -> None:
    async with world() as it:
        token = it.registry.add_key(it.acme, Role.WRITER)
        assert it.identity.recognise(token) is None
        assert (await it.identity.authenticate(token)).role is Role.WRITER
        assert it.identity.recognise(token) == await it.identity.authenticate(token)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token.upper(),
        lambda token: " " + token,
        lambda token: token + "\n",
        lambda token: token.replace("_", "-"),
        lambda token: new_key()[1],
        lambda token: "",
        lambda token: "dlk_",
        lambda token: "dlk__",
        lambda token: token.split("_")[2],
        lambda token: "dlk_" + "a" * 9_000,
        lambda token: "é" * 100,
        lambda token: "\ud800",
    ],
)
async def test_a_key_that_is_not_exactly_the_one_handed_out_is_refused(spoil: Any) -> None:
    async with world() as it:
        await it.refused(spoil(it.registry.add_key(it.acme, Role.WRITER)))


async def test_an_expired_key_is_refused() -> None:
    async with world() as it:
        expiry = datetime.fromtimestamp(it.time, UTC) + timedelta(seconds=10)
        token = it.registry.add_key(it.acme, Role.WRITER, expires_at=expiry)
        principal = await it.identity.authenticate(token)
        assert it.identity.still_valid(principal)
        it.time += 10
        assert not it.identity.still_valid(principal)
        await it.refused(token)


async def test_a_revoked_key_is_refused_and_what_it_opened_is_no_longer_valid() -> None:
    async with world() as it:
        token = it.registry.add_key(it.acme, Role.AUDITOR)
        principal = await it.identity.authenticate(token)
        it.registry.revoke(token)
        await it.cache.changed().wait()
        assert not it.identity.still_valid(principal)
        await it.refused(token)


async def test_a_deleted_tenants_key_is_refused_and_a_suspended_ones_is_known_but_no_longer_valid_for_streams() -> None:
    async with world() as it:
        token = it.registry.add_key(it.acme, Role.AUDITOR)
        principal = await it.identity.authenticate(token)
        it.registry.add_tenant(make_suspended(it))
        await it.cache.changed().wait()
        known = await it.identity.authenticate(token)
        assert known.tenant is not None
        assert known.tenant.state is State.SUSPENDED
        assert not it.identity.still_valid(principal)
        it.registry.remove_tenant(it.acme)
        await it.cache.changed().wait()
        assert not it.identity.still_valid(principal)
        await it.refused(token)


def make_suspended(it: World) -> Any:
    import msgspec

    return msgspec.structs.replace(it.acme, state=State.SUSPENDED)


async def test_a_stale_registry_is_said_to_be_stale_and_not_the_credential_wrong() -> None:
    it = World()
    it.cache = RegistryCache(it.registry, max_age=0.05, interval=60)
    it.identity = Identity(it.cache, Issuers([], fetch=it.server.fetch))
    await it.cache.start()
    token = it.registry.add_key(it.acme, Role.AUDITOR)
    await it.cache.refresh()
    principal = await it.identity.authenticate(token)
    await asyncio.sleep(0.06)
    assert it.identity.recognise(token) is None
    it.registry.broken = True
    for _ in range(2):
        with pytest.raises(DecklogError) as caught:
            await it.identity.authenticate(token)
        assert caught.value.code is Code.REGISTRY_STALE
    with pytest.raises(DecklogError) as caught:
        it.identity.still_valid(principal)
    assert caught.value.code is Code.REGISTRY_STALE
    await it.cache.stop()


async def test_a_process_that_stood_still_reads_the_registry_before_it_refuses_anybody() -> None:
    it = World()
    it.cache = RegistryCache(it.registry, max_age=0.5, interval=60)
    it.identity = Identity(it.cache, Issuers([], fetch=it.server.fetch))
    token = it.registry.add_key(it.acme, Role.AUDITOR)
    await it.cache.start()
    await asyncio.sleep(0.6)
    loads = it.registry.loads
    found = await asyncio.gather(*(it.identity.authenticate(token) for _ in range(100)))
    assert {principal.tenant for principal in found} == {it.acme}
    assert it.registry.loads == loads + 1
    await it.cache.stop()


# JSON Web Tokens


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("role", ["writer", "auditor", "admin"])
async def test_a_token_speaks_for_the_tenant_and_role_of_its_claims(algorithm: str, role: str) -> None:
    async with world() as it:
        principal = await it.identity.authenticate(it.token(algorithm, decklog_role=role))
        assert (principal.kind, principal.subject, principal.issuer) == ("jwt", "alice", ISSUER)
        assert (principal.role, principal.tenant) == (Role(role), it.acme)


async def test_a_verified_token_is_recognised_until_it_expires_or_the_keys_change() -> None:
    async with world() as it:
        token = it.token()
        assert it.identity.recognise(token) is None
        principal = await it.identity.authenticate(token)
        assert it.identity.recognise(token) == principal
        it.uptime += KEYS_SECONDS_MAX
        it.server.body = key_set(ED)
        await it.identity.authenticate(it.token("EdDSA"))
        assert it.identity.recognise(token) is None
        await it.refused(token)
        fresh = it.token("EdDSA")
        await it.identity.authenticate(fresh)
        it.time += 331
        await it.refused(fresh)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"aud": "another"},
        {"aud": None},
        {"aud": []},
        {"sub": None},
        {"sub": 7},
        {"sub": ""},
        {"sub": "x" * 600},
        {"exp": None},
        {"exp": 1},
        {"exp": "tomorrow"},
        {"exp": True},
        {"nbf": 99_999_999_999},
        {"iat": 99_999_999_999},
        {"decklog_role": None},
        {"decklog_role": "root"},
        {"decklog_role": ["admin"]},
        {"decklog_role": "ADMIN"},
        {"decklog_role": "platform"},
        {"decklog_role": "platform", "decklog_tenant": None},
        {"decklog_tenant": None},
        {"decklog_tenant": "other"},
        {"decklog_tenant": "decklog"},
        {"decklog_tenant": "nobody"},
        {"decklog_tenant": ["acme"]},
        {"decklog_tenant": "*"},
    ],
    ids=str,
)
async def test_a_token_whose_claims_are_not_all_right_is_refused(changes: dict[str, Any]) -> None:
    async with world() as it:
        await it.refused(it.token(**changes))


async def test_an_audience_among_several_is_enough() -> None:
    async with world() as it:
        assert (await it.identity.authenticate(it.token(aud=["mail", AUDIENCE]))).tenant == it.acme


async def test_claims_of_other_names_neither_help_nor_harm() -> None:
    async with world(tenant_claim="org", role_claim="may") as it:
        await it.refused(it.token())
        principal = await it.identity.authenticate(
            it.token(org="acme", may="writer", decklog_tenant="other", decklog_role="admin")
        )
        assert (principal.tenant, principal.role) == (it.acme, Role.WRITER)


async def test_an_issuer_for_all_tenants_still_cannot_speak_for_the_reserved_one() -> None:
    async with world(tenants=["*"]) as it:
        it.registry.add_tenant(make_tenant("decklog"))
        await it.cache.refresh()
        assert (await it.identity.authenticate(it.token(decklog_tenant="other"))).tenant == it.other
        await it.refused(it.token(decklog_tenant="decklog"))


async def test_only_a_designated_issuer_speaks_for_the_platform() -> None:
    async with world(platform=True) as it:
        principal = await it.identity.authenticate(it.token(decklog_role="platform", decklog_tenant=None))
        assert (principal.role, principal.tenant) == (Role.PLATFORM, None)
        await it.refused(it.token(decklog_role="platform"))


async def test_an_unsigned_token_is_refused() -> None:
    async with world() as it:
        for algorithm in ("none", "None", "NONE", ""):
            await it.refused(f"{segment({'alg': algorithm})}.{segment(it.claims())}.")


@pytest.mark.parametrize("kid", ["rsa", "ec", "ed", None])
async def test_a_public_key_used_as_an_hmac_secret_is_refused(kid: str | None) -> None:
    async with world() as it:
        for key in KEYS.values():
            for secret in (key.as_pem(private=False), key_set(key), json.dumps(key.as_dict(private=False)).encode()):
                signed = f"{segment({'alg': 'HS256', 'kid': kid})}.{segment(it.claims())}"
                mac = urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()
                await it.refused(f"{signed}.{mac}")


async def test_an_issuer_may_only_use_the_algorithms_it_is_configured_with() -> None:
    async with world(algorithms=["EdDSA"]) as it:
        await it.refused(it.token("RS256"))
        await it.refused(it.token("ES256"))
        assert (await it.identity.authenticate(it.token("EdDSA"))).tenant == it.acme


async def test_another_algorithm_of_the_same_key_is_refused() -> None:
    async with world() as it:
        await it.refused(jwt.encode({"alg": "PS256", "kid": "rsa"}, it.claims(), RSA, ["PS256"]))
        await it.refused(jwt.encode({"alg": "RS512", "kid": "rsa"}, it.claims(), RSA, ["RS512"]))


async def test_a_key_of_another_kind_under_the_same_id_is_refused() -> None:
    async with world() as it:
        mine = RSAKey.generate_key(2048, {"kid": "ec"})
        await it.refused(it.token("RS256", key=mine))
        await it.refused(it.token("ES256", key=ECKey.generate_key("P-256", {"kid": "ec"})))


async def test_keys_that_a_token_brings_along_are_never_used() -> None:
    async with world() as it:
        mine = ECKey.generate_key("P-256", {"kid": "mine"})
        for header in ({"jwk": mine.as_dict(private=False)}, {"jku": ISSUER + "/evil"}, {"x5u": ISSUER + "/evil"}):
            await it.refused(it.token("ES256", key=mine, header=header))
            await it.refused(it.token("ES256", key=mine, header={**header, "kid": "ec"}))


@pytest.mark.parametrize("header", [{"typ": "id+jwt"}, {"typ": "dpop+jwt"}, {"b64": True, "crit": ["b64"]}, {"kid": "unknown"}])
async def test_a_token_of_another_type_or_with_critical_headers_is_refused(header: dict[str, Any]) -> None:
    async with world() as it:
        await it.refused(it.token(header=header))


async def test_an_access_tokens_type_is_accepted() -> None:
    async with world() as it:
        for kind in ("at+jwt", "application/at+jwt", "JWT"):
            assert (await it.identity.authenticate(it.token(header={"typ": kind}))).subject == "alice"


async def test_a_changed_payload_or_signature_is_refused() -> None:
    async with world() as it:
        head, _, signature = it.token("EdDSA").split(".")
        await it.refused(f"{head}.{segment(it.claims(decklog_role='admin'))}.{signature}")
        other = it.token("EdDSA", sub="bob").split(".")
        await it.refused(f"{other[0]}.{other[1]}.{signature}")


async def test_a_token_above_the_size_limit_is_refused_before_it_is_read() -> None:
    async with world() as it:
        await it.refused(it.token(padding="x" * 9_000))
        assert it.server.asked == 0


async def test_weak_private_symmetric_and_other_purpose_keys_of_a_set_are_left_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weak = RSAKey.generate_key(1024, {"kid": "weak"})
    private = ECKey.generate_key("P-256", {"kid": "private"})
    async with world() as it:
        it.server.body = json.dumps(
            {
                "keys": [
                    weak.as_dict(private=False),
                    private.as_dict(private=True),
                    {"kty": "oct", "k": "AAAA", "kid": "oct"},
                    {**EC.as_dict(private=False), "use": "enc"},
                    {**RSA.as_dict(private=False), "alg": "RS512"},
                    {"kty": "OKP", "crv": "Ed25519", "x": "not a point", "kid": "bad"},
                    {"kty": "ML-DSA", "kid": "future"},
                    ED.as_dict(private=False),
                ]
            }
        ).encode()
        await it.refused(it.token("RS256", key=weak))
        await it.refused(it.token("ES256", key=private))
        await it.refused(it.token("ES256"))
        await it.refused(it.token("RS256"))
        assert (await it.identity.authenticate(it.token("EdDSA"))).tenant == it.acme


async def test_a_token_without_key_id_is_verified_by_the_only_key_that_fits_and_refused_among_several() -> None:
    second = ECKey.generate_key("P-256", {"kid": "second"})
    async with world() as it:
        it.server.body = key_set(EC, second)
        unnamed = _without_kid(it, EC)
        await it.refused(unnamed)
    async with world() as it:
        it.server.body = key_set(EC, ED)
        assert (await it.identity.authenticate(_without_kid(it, EC))).tenant == it.acme


def _decoded(text: str) -> bytes:
    from base64 import urlsafe_b64decode

    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _without_kid(it: World, key: ECKey) -> str:
    from joserfc.jws import JWSRegistry

    signed = f"{segment({'alg': 'ES256'})}.{segment(it.claims())}"
    signature = JWSRegistry.algorithms["ES256"].sign(signed.encode(), key)
    return f"{signed}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_a_rotated_key_is_found_by_reading_the_set_again_but_not_more_often_than_allowed() -> None:
    async with world() as it:
        await it.identity.authenticate(it.token())
        assert it.server.asked == 1
        rotated = ECKey.generate_key("P-256", {"kid": "rotated"})
        it.server.body = key_set(rotated)
        for _ in range(20):
            await it.refused(it.token("ES256", key=rotated))
        assert it.server.asked == 1
        it.uptime += 31
        tokens = [it.token("ES256", key=rotated, sub=f"user-{n}") for n in range(20)]
        principals = await asyncio.gather(*(it.identity.authenticate(token) for token in tokens))
        assert {principal.tenant for principal in principals} == {it.acme}
        assert it.server.asked == 2


async def test_keys_stay_good_while_the_issuer_cannot_be_reached() -> None:
    async with world() as it:
        await it.identity.authenticate(it.token())
        it.server.down = True
        it.uptime += KEYS_SECONDS_MAX
        assert (await it.identity.authenticate(it.token(sub="bob"))).subject == "bob"
        assert it.server.asked == 2


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"keys": 7}', b'{"keys": [7]}', b'{"keys":[' + b"{}," * 200 + b"{}]}", b" " * 300_000]
)
async def test_a_broken_key_set_trusts_nobody_and_breaks_nothing(body: bytes) -> None:
    async with world() as it:
        it.server.body = body
        await it.refused(it.token())


@given(st.text(max_size=200))
def test_no_text_at_all_authenticates_by_accident(text: str) -> None:
    async def ask() -> None:
        async with world() as it:
            await it.refused(text)
            await it.refused(f"{text}.{text}.{text}")

    asyncio.run(ask())


# The issuers file


def issuers_file(folder: Path, *entries: dict[str, Any]) -> str:
    path = folder / "issuers.json"
    path.write_text(json.dumps(entries))
    return str(path)


async def no_network(url: str) -> bytes:
    raise AssertionError(f"{url} was read")


async def test_keys_can_be_a_file_beside_the_issuers_file(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(key_set(EC))
    entry = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "tenants": ["acme"], "jwks_file": "keys.json"}
    async with world() as it:
        identity = Identity(it.cache, load_issuers(issuers_file(tmp_path, entry), fetch=no_network))
        assert (await identity.authenticate(it.token())).tenant == it.acme


async def test_without_an_issuers_file_no_token_is_good() -> None:
    async with world() as it:
        it.identity = Identity(it.cache, load_issuers("", fetch=no_network))
        await it.refused(it.token())


@pytest.mark.parametrize(
    "entry",
    [
        {"issuer": ISSUER},
        {"issuer": ISSUER, "audience": "a", "algorithms": ["HS256"], "jwks_file": "k"},
        {"issuer": ISSUER, "audience": "a", "algorithms": ["none"], "jwks_file": "k"},
        {"issuer": ISSUER, "audience": "a", "algorithms": [], "jwks_file": "k"},
        {"issuer": ISSUER, "audience": "a", "algorithms": ["ES256"]},
        {"issuer": ISSUER, "audience": "a", "algorithms": ["ES256"], "jwks_file": "k", "jwks_url": "u"},
        {"issuer": ISSUER, "audience": "a", "algorithms": ["ES256"], "jwks_file": "k", "tenant": "acme"},
    ],
)
def test_an_issuers_file_that_is_not_right_is_refused_at_the_start(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(DecklogError) as caught:
        load_issuers(issuers_file(tmp_path, entry), fetch=no_network)
    assert caught.value.code is Code.MISCONFIGURED


def test_an_issuer_named_twice_or_a_missing_file_is_refused_at_the_start(tmp_path: Path) -> None:
    entry = {"issuer": ISSUER, "audience": "a", "algorithms": ["ES256"], "jwks_file": "k"}
    for path in (issuers_file(tmp_path, entry, entry), str(tmp_path / "none.json")):
        with pytest.raises(DecklogError) as caught:
            load_issuers(path, fetch=no_network)
        assert caught.value.code is Code.MISCONFIGURED
