"""Credentials of every kind: what proves something, and everything that must not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry
from structlog.testing import CapturingLogger

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.tenant import State
from decklog.services.identity.identity import Identity
from decklog.services.identity.issuers import Issuers, load_issuers
from decklog.services.identity.key_sets import KEYS_SECONDS_MAX
from decklog.services.identity.keys import key_hash, new_key
from decklog.services.identity.registry import RegistryCache
from tests.support import json_values
from tests.support.issuers import AUDIENCE, EC, ED, ISSUER, KEYS, RSA, World, key_set, segment, world
from tests.support.memory import make_tenant

pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")

# API keys


def test_new_key_carries_its_id_and_is_stored_as_a_hash_only() -> None:
    key_id, token, digest = new_key()
    assert token.startswith(f"dlk_{key_id}_")
    assert digest == hashlib.sha256(token.encode()).digest() == key_hash(token)
    assert len(token.split("_")[2]) == 64
    assert new_key()[1] != token


@pytest.mark.parametrize("role", [Role.WRITER, Role.AUDITOR, Role.ADMIN])
async def test_key_authenticates_its_tenant_and_role(role: Role) -> None:
    async with world() as it:
        token = it.registry.add_key(it.acme, role)
        principal = await it.identity.authenticate(token)
        assert (principal.kind, principal.role, principal.tenant) == ("api_key", role, it.acme)
        assert principal.subject == token.split("_")[1]
        assert token.split("_")[2] not in repr(principal)


async def test_platform_key_authenticates_no_tenant() -> None:
    async with world() as it:
        principal = await it.identity.authenticate(it.registry.add_key(None, Role.PLATFORM))
        assert (principal.role, principal.tenant) == (Role.PLATFORM, None)


async def test_key_is_refused_when_its_role_does_not_fit_its_tenant() -> None:
    async with world() as it:
        await it.refused(it.registry.add_key(None, Role.ADMIN))
        await it.refused(it.registry.add_key(it.acme, Role.PLATFORM))


async def test_key_authenticates_right_after_its_creation() -> None:
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
async def test_altered_key_is_refused(spoil: Any) -> None:
    async with world() as it:
        await it.refused(spoil(it.registry.add_key(it.acme, Role.WRITER)))


async def test_expired_key_is_refused() -> None:
    async with world() as it:
        expiry = datetime.fromtimestamp(it.time, UTC) + timedelta(seconds=10)
        token = it.registry.add_key(it.acme, Role.WRITER, expires_at=expiry)
        principal = await it.identity.authenticate(token)
        assert await it.identity.still_valid(principal)
        it.time += 10
        assert not await it.identity.still_valid(principal)
        await it.refused(token)


async def test_revoked_key_is_refused_and_ends_what_it_opened() -> None:
    async with world() as it:
        token = it.registry.add_key(it.acme, Role.AUDITOR)
        principal = await it.identity.authenticate(token)
        it.registry.revoke(token)
        await it.cache.changed().wait()
        assert not await it.identity.still_valid(principal)
        await it.refused(token)


async def test_key_of_a_deleted_tenant_is_refused_and_of_a_suspended_one_ends_streams() -> None:
    async with world() as it:
        token = it.registry.add_key(it.acme, Role.AUDITOR)
        principal = await it.identity.authenticate(token)
        it.registry.add_tenant(make_suspended(it))
        await it.cache.changed().wait()
        known = await it.identity.authenticate(token)
        assert known.tenant is not None
        assert known.tenant.state is State.SUSPENDED
        assert not await it.identity.still_valid(principal)
        it.registry.remove_tenant(it.acme)
        await it.cache.changed().wait()
        assert not await it.identity.still_valid(principal)
        await it.refused(token)


def make_suspended(it: World) -> Any:
    import msgspec

    return msgspec.structs.replace(it.acme, state=State.SUSPENDED)


async def test_authentication_raises_registry_stale_and_not_unauthenticated_when_the_registry_is_stale() -> None:
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
        await it.identity.still_valid(principal)
    assert caught.value.code is Code.REGISTRY_STALE
    await it.cache.stop()


async def test_authentication_reads_the_registry_first_after_the_process_was_suspended() -> None:
    it = World()
    it.cache = RegistryCache(it.registry, max_age=0.5, interval=60)
    it.identity = Identity(it.cache, Issuers([], fetch=it.server.fetch))
    token = it.registry.add_key(it.acme, Role.AUDITOR)
    await it.cache.start()
    await asyncio.sleep(0.6)
    polls = it.registry.polls
    found = await asyncio.gather(*(it.identity.authenticate(token) for _ in range(100)))
    assert {principal.tenant for principal in found} == {it.acme}
    assert it.registry.polls == polls + 1
    await it.cache.stop()


# JSON Web Tokens


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("role", ["writer", "auditor", "admin"])
async def test_token_authenticates_the_tenant_and_role_of_its_claims(algorithm: str, role: str) -> None:
    async with world() as it:
        principal = await it.identity.authenticate(it.token(algorithm, decklog_role=role))
        assert (principal.kind, principal.subject, principal.issuer) == ("jwt", "alice", ISSUER)
        assert (principal.role, principal.tenant) == (Role(role), it.acme)


async def test_verified_token_is_recognised_until_it_expires_or_the_keys_change() -> None:
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
        {"exp": [1]},
        {"exp": -1},
        {"exp": 0},
        {"exp": -0.0},
        {"exp": 10**400},
        {"exp": -(10**400)},
        {"exp": 1e308},
        {"exp": 2**53 + 1},
        {"nbf": 10**400},
        {"nbf": "now"},
        {"nbf": False},
        {"iat": 10**400},
        {"iat": -1},
        {"iat": True},
        {"iat": {}},
        {"sub": "a\0b"},
        {"sub": "a\nb"},
        {"sub": "a\u202eb"},
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
async def test_token_with_an_invalid_claim_is_refused(changes: dict[str, Any]) -> None:
    async with world() as it:
        await it.refused(it.token(**changes))


async def test_token_is_refused_beyond_the_longest_life_and_the_log_names_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = CapturingLogger()
    monkeypatch.setattr("decklog.services.identity.identity._log", logged)
    async with world() as it:
        now = int(it.time)
        await it.identity.authenticate(it.token(exp=now + 86_400))
        await it.identity.authenticate(it.token(exp=now + 300.5, iat=now - 0.5))
        for changes, reason in (
            ({"exp": (now + 300) * 1_000}, "milliseconds"),
            ({"exp": now + 86_431, "iat": None}, "86400 are allowed"),
            ({"exp": now + 300, "iat": now - 86_400}, "from iat to exp"),
            ({"exp": 10**400}, "exp is not a number"),
        ):
            await it.refused(it.token(**changes))
            assert reason in str(logged.calls[-1])


async def test_longest_life_of_a_token_is_a_setting() -> None:
    async with world(token_seconds_max=3_600) as it:
        now = int(it.time)
        await it.identity.authenticate(it.token(exp=now + 3_600))
        await it.refused(it.token(exp=now + 3_700))


ANYTHING = json_values.values | st.floats() | st.text()  # with what is no JSON: NaN, infinity
CLAIMS = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "decklog_role", "decklog_tenant", "other"])


@given(
    st.dictionaries(CLAIMS, ANYTHING, max_size=4),
    st.dictionaries(st.sampled_from(["kid", "typ", "crit", "b64", "cty"]), ANYTHING),
)
@settings(deadline=None)
def test_token_of_any_claims_is_accepted_or_refused_as_every_other(claims: dict[str, Any], header: dict[str, Any]) -> None:
    """The signature is good, so only the claims and the header decide. Anything but one refusal would be a 500."""

    async def ask() -> Code | None:
        async with world() as it:
            signed = f"{segment({'alg': 'EdDSA', 'kid': 'ed', **header})}.{segment({**it.claims(), **claims})}"
            token = f"{signed}.{urlsafe_b64encode(sign(signed.encode())).rstrip(b'=').decode()}"
            try:
                principal = await it.identity.authenticate(token)
            except DecklogError as error:
                return error.code
            assert await it.identity.still_valid(principal)
            return None

    assert asyncio.run(ask()) in (Code.UNAUTHENTICATED, None)


def sign(content: bytes) -> bytes:
    return JWSRegistry.algorithms["EdDSA"].sign(content, ED)


async def test_token_is_accepted_when_one_of_its_audiences_matches() -> None:
    async with world() as it:
        assert (await it.identity.authenticate(it.token(aud=["mail", AUDIENCE]))).tenant == it.acme


async def test_token_claims_of_other_names_are_ignored() -> None:
    async with world(tenant_claim="org", role_claim="may") as it:
        await it.refused(it.token())
        principal = await it.identity.authenticate(
            it.token(org="acme", may="writer", decklog_tenant="other", decklog_role="admin")
        )
        assert (principal.tenant, principal.role) == (it.acme, Role.WRITER)


async def test_issuer_of_all_tenants_is_refused_for_the_reserved_tenant() -> None:
    async with world(tenants=["*"]) as it:
        it.registry.add_tenant(make_tenant("decklog"))
        await it.cache.refresh()
        assert (await it.identity.authenticate(it.token(decklog_tenant="other"))).tenant == it.other
        await it.refused(it.token(decklog_tenant="decklog"))


async def test_platform_role_is_accepted_from_a_designated_issuer_only() -> None:
    async with world(platform=True) as it:
        principal = await it.identity.authenticate(it.token(decklog_role="platform", decklog_tenant=None))
        assert (principal.role, principal.tenant) == (Role.PLATFORM, None)
        await it.refused(it.token(decklog_role="platform"))


async def test_unsigned_token_is_refused() -> None:
    async with world() as it:
        for algorithm in ("none", "None", "NONE", ""):
            await it.refused(f"{segment({'alg': algorithm})}.{segment(it.claims())}.")


@pytest.mark.parametrize("kid", ["rsa", "ec", "ed", None])
async def test_token_signed_with_the_public_key_as_hmac_secret_is_refused(kid: str | None) -> None:
    async with world() as it:
        for key in KEYS.values():
            for secret in (key.as_pem(private=False), key_set(key), json.dumps(key.as_dict(private=False)).encode()):
                signed = f"{segment({'alg': 'HS256', 'kid': kid})}.{segment(it.claims())}"
                mac = urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()
                await it.refused(f"{signed}.{mac}")


async def test_token_of_an_algorithm_that_is_not_configured_is_refused() -> None:
    async with world(algorithms=["EdDSA"]) as it:
        await it.refused(it.token("RS256"))
        await it.refused(it.token("ES256"))
        assert (await it.identity.authenticate(it.token("EdDSA"))).tenant == it.acme


async def test_token_of_another_algorithm_for_the_same_key_is_refused() -> None:
    async with world() as it:
        await it.refused(jwt.encode({"alg": "PS256", "kid": "rsa"}, it.claims(), RSA, ["PS256"]))
        await it.refused(jwt.encode({"alg": "RS512", "kid": "rsa"}, it.claims(), RSA, ["RS512"]))


async def test_token_signed_by_another_kind_of_key_with_the_same_id_is_refused() -> None:
    async with world() as it:
        mine = RSAKey.generate_key(2048, {"kid": "ec"})
        await it.refused(it.token("RS256", key=mine))
        await it.refused(it.token("ES256", key=ECKey.generate_key("P-256", {"kid": "ec"})))


async def test_keys_in_a_token_header_are_ignored() -> None:
    async with world() as it:
        mine = ECKey.generate_key("P-256", {"kid": "mine"})
        for header in ({"jwk": mine.as_dict(private=False)}, {"jku": ISSUER + "/evil"}, {"x5u": ISSUER + "/evil"}):
            await it.refused(it.token("ES256", key=mine, header=header))
            await it.refused(it.token("ES256", key=mine, header={**header, "kid": "ec"}))


@pytest.mark.parametrize("header", [{"typ": "id+jwt"}, {"typ": "dpop+jwt"}, {"b64": True, "crit": ["b64"]}, {"kid": "unknown"}])
async def test_token_of_another_type_or_with_critical_headers_is_refused(header: dict[str, Any]) -> None:
    async with world() as it:
        await it.refused(it.token(header=header))


async def test_token_of_the_access_token_type_is_accepted() -> None:
    async with world() as it:
        for kind in ("at+jwt", "application/at+jwt", "JWT"):
            assert (await it.identity.authenticate(it.token(header={"typ": kind}))).subject == "alice"


async def test_token_with_a_changed_payload_or_signature_is_refused() -> None:
    async with world() as it:
        head, _, signature = it.token("EdDSA").split(".")
        await it.refused(f"{head}.{segment(it.claims(decklog_role='admin'))}.{signature}")
        other = it.token("EdDSA", sub="bob").split(".")
        await it.refused(f"{other[0]}.{other[1]}.{signature}")


async def test_token_above_the_size_limit_is_refused_before_parsing() -> None:
    async with world() as it:
        await it.refused(it.token(padding="x" * 9_000))
        assert it.server.asked == 0


async def test_token_without_key_id_is_accepted_only_when_one_key_fits() -> None:
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
    signed = f"{segment({'alg': 'ES256'})}.{segment(it.claims())}"
    signature = JWSRegistry.algorithms["ES256"].sign(signed.encode(), key)
    return f"{signed}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@given(st.text(max_size=200))
def test_authentication_refuses_arbitrary_texts(text: str) -> None:
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


async def test_issuers_file_may_name_a_key_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(key_set(EC))
    entry = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "tenants": ["acme"], "jwks_file": "keys.json"}
    async with world() as it:
        identity = Identity(it.cache, load_issuers(issuers_file(tmp_path, entry), fetch=no_network))
        assert (await identity.authenticate(it.token())).tenant == it.acme


async def test_token_is_refused_without_an_issuers_file() -> None:
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
def test_invalid_issuers_file_is_refused_at_start(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(DecklogError) as caught:
        load_issuers(issuers_file(tmp_path, entry), fetch=no_network)
    assert caught.value.code is Code.MISCONFIGURED


def test_issuers_file_that_is_missing_or_names_an_issuer_twice_is_refused_at_start(tmp_path: Path) -> None:
    entry = {"issuer": ISSUER, "audience": "a", "algorithms": ["ES256"], "jwks_file": "k"}
    for path in (issuers_file(tmp_path, entry, entry), str(tmp_path / "none.json")):
        with pytest.raises(DecklogError) as caught:
            load_issuers(path, fetch=no_network)
        assert caught.value.code is Code.MISCONFIGURED
