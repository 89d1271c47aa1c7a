"""Sign-in by OpenID Connect, against a provider that runs beside."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.outbound.jwks import post
from decklog.services.identity.oidc import OidcSignIn, Provider, checked_return
from tests.support.api_world import World, access_actions, code_of, running_world
from tests.support.identity_provider import CLIENT, running_provider, trusting_world


@dataclass
class Desk:
    """A running API that trusts the provider, a browser, and the forms that the API sent to the provider."""

    world: World
    provider: str
    browser: httpx.AsyncClient
    forms: list[Mapping[str, str]] = field(default_factory=list)

    async def begin(self, **parameters: str) -> str:
        """Begin a sign-in and return the address at the provider."""
        answer = await self.browser.get("/board/oidc/start", params=parameters)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def consent(self, location: str, user: str = "alice") -> str:
        """Sign in at the provider and return the address that it sends the browser to, without this host."""
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(location, data={"sub": user})
        back = answer.headers["location"]
        assert back.startswith(self.world.url + "/board/oidc/callback?")
        return str(back.removeprefix(self.world.url))


def refusal_of(answer: httpx.Response) -> str:
    """Return the code with which an answer sends the browser to the sign-in page."""
    page, _, code = answer.headers["location"].partition("#refused=")
    assert (answer.status_code, page) == (303, "/board")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    return str(code)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    forms: list[Mapping[str, str]] = []

    async def recorded(url: str, form: Mapping[str, str], user: tuple[str, str] | None) -> bytes:
        forms.append(form)
        return await post(url, form, user)

    with running_provider() as issuer:
        async with trusting_world(issuer, recorded) as world, world.client() as browser:
            yield Desk(world, issuer, browser, forms)


async def test_sign_in_ends_at_the_page_with_a_session_of_the_token(desk: Desk) -> None:
    location = await desk.begin(**{"return": "/board/search?q=a%20b"})
    asked = {name: value[0] for name, value in parse_qs(urlsplit(location).query).items()}
    assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", CLIENT, "openid profile")
    assert asked["redirect_uri"] == desk.world.url + "/board/oidc/callback"
    finished = await desk.browser.get(await desk.consent(location))
    assert finished.status_code == 303
    page, _, code = finished.headers["location"].partition("#link=")
    assert page == "/board/search?q=a%20b"
    assert "decklog_oidc" not in desk.browser.cookies

    [form] = desk.forms
    digest = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    assert (asked["code_challenge"], asked["code_challenge_method"]) == (digest, "S256")

    opened = await desk.browser.post("/api/v1/sessions", json={"link": code})
    [identity] = opened.json()["identities"]
    assert (identity["kind"], identity["subject"], identity["issuer"]) == ("jwt", "alice", desk.provider)
    assert (identity["tenant"], identity["role"]) == ("acme", "auditor")
    assert identity["expires_at"] is not None
    assert (await desk.browser.get("/api/v1/logs")).status_code == 200
    assert {"sessions.link", "sessions.open"} <= set(await access_actions(desk.world))


async def test_cookie_of_a_begun_sign_in_is_short_lived_and_out_of_reach_of_scripts(desk: Desk) -> None:
    header = (await desk.browser.get("/board/oidc/start")).headers["set-cookie"]
    assert re.fullmatch(r"decklog_oidc=[\w.-]+; Path=/; Max-Age=600; HttpOnly; SameSite=Lax", header)


async def test_state_of_another_sign_in_is_refused(desk: Desk) -> None:
    back = await desk.consent(await desk.begin())
    wrong = re.sub(r"state=[^&]+", "state=" + "A" * 43, back)
    for address in (wrong, re.sub(r"&?state=[^&]+", "", back), "/board/oidc/callback?code=x&state=y"):
        assert refusal_of(await desk.browser.get(address)) == Code.UNAUTHENTICATED.value
    async with desk.world.client() as another:  # the page of an attacker sends the victim's browser to the attacker's code
        assert refusal_of(await another.get(back)) == Code.UNAUTHENTICATED.value
    assert desk.forms == []
    twice = await desk.browser.get(back + "&state=" + "A" * 43)
    assert code_of(twice) == Code.INVALID_PARAMETER.value


async def test_code_is_worth_one_sign_in(desk: Desk) -> None:
    back = await desk.consent(await desk.begin())
    kept = desk.browser.cookies["decklog_oidc"]
    assert (await desk.browser.get(back)).status_code == 303
    assert refusal_of(await desk.browser.get(back)) == Code.UNAUTHENTICATED.value
    desk.browser.cookies.set("decklog_oidc", kept)
    assert refusal_of(await desk.browser.get(back)) == Code.UNAUTHENTICATED.value
    assert len(desk.forms) == 2  # the provider itself refused the second use


async def test_token_of_another_sign_in_is_refused_by_its_nonce(desk: Desk) -> None:
    location = await desk.begin()
    other = re.sub(r"nonce=[^&]+", "nonce=" + "B" * 43, location)
    assert refusal_of(await desk.browser.get(await desk.consent(other))) == Code.UNAUTHENTICATED.value
    none = re.sub(r"&nonce=[^&]+", "", await desk.begin())
    assert refusal_of(await desk.browser.get(await desk.consent(none))) == Code.UNAUTHENTICATED.value


@pytest.mark.parametrize("user", ["mallory", "nobody", "root", "unknown"])
async def test_provider_grants_only_what_the_issuers_file_binds_it_to(desk: Desk, user: str) -> None:
    back = await desk.consent(await desk.begin(), user)
    assert refusal_of(await desk.browser.get(back)) == Code.UNAUTHENTICATED.value
    if user == "mallory":  # signed for a tenant that the issuer may not speak for
        for _ in range(200):
            if "access.refused" in await access_actions(desk.world, "other"):
                return
        pytest.fail("the attempt is not in the access log of the tenant")


async def test_id_token_for_the_page_is_no_token_of_the_api(desk: Desk) -> None:
    location = await desk.begin()
    asked = {name: value[0] for name, value in parse_qs(urlsplit(location).query).items()}
    code = parse_qs(urlsplit(await desk.consent(location)).query)["code"][0]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": asked["redirect_uri"], "code_verifier": "x"}
    async with httpx.AsyncClient() as client:
        token = (await client.post(f"{desk.provider}/oauth2/token", data=form, auth=(CLIENT, "secret"))).json()["id_token"]
    refused = await desk.browser.get("/api/v1/whoami", headers={"authorization": f"Bearer {token}"})
    assert code_of(refused) == Code.UNAUTHENTICATED.value


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/",
        "//evil.example/board",
        "/board//evil.example",
        "/board/../../evil",
        "/board/%2e%2E/evil",
        "/boardroom",
        "/board@evil.example",
        "/board\\evil",
        "/board/\n/evil",
        "javascript:alert(1)",
        "/api/v1/logs",
        "/board#link=x",
        "",
        "/board/" + "a" * 1_000,
    ],
)
async def test_sign_in_returns_to_no_other_place(desk: Desk, address: str) -> None:
    assert code_of(await desk.browser.get("/board/oidc/start", params={"return": address})) == Code.INVALID_PARAMETER.value
    # Nor where the browser's cookie was changed.
    back = await desk.consent(await desk.begin())
    kept = desk.browser.cookies["decklog_oidc"].rpartition(".")[0]
    changed = base64.urlsafe_b64encode(address.encode()).rstrip(b"=").decode()
    desk.browser.cookies.clear()
    desk.browser.cookies.set("decklog_oidc", f"{kept}.{changed}")
    assert (await desk.browser.get(back)).headers["location"].startswith("/board#link=")


@pytest.mark.parametrize(
    "path", ["/board", "/board/", "/board/search", "/board/search?q=action:user.login&from=-1h", "/board/keys/x/"]
)
def test_pages_of_the_board_are_places_to_return_to(path: str) -> None:
    assert checked_return(path) == path


async def test_refusal_of_the_provider_ends_at_the_sign_in_page(desk: Desk) -> None:
    await desk.begin()
    answer = await desk.browser.get("/board/oidc/callback?error=access_denied&error_description=no&hd=example.com")
    assert refusal_of(answer) == Code.UNAUTHENTICATED.value
    assert "access_denied" not in answer.headers["location"]


async def test_provider_that_is_down_or_another_is_unavailable() -> None:
    answers: list[Any] = [
        OSError("down"),
        b"{",
        b'{"issuer":"https://other.example","authorization_endpoint":"x","token_endpoint":"y"}',
    ]

    async def found(url: str) -> bytes:
        assert url == "https://issuer.example/.well-known/openid-configuration"
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return bytes(answer)

    provider = Provider("https://issuer.example", CLIENT, "", "openid", "Example")
    made = running_world(oidc=lambda identity: OidcSignIn(provider, identity, fetch=found, post=post))
    async with made as world, world.client() as browser:
        while answers:
            answer = await browser.get("/board/oidc/start")
            assert refusal_of(answer) == Code.ISSUER_UNAVAILABLE.value


async def test_plain_http_is_refused_beyond_this_machine() -> None:
    with pytest.raises(OSError, match="https only"):
        await post("http://issuer.example/token", {}, None)


async def test_board_learns_the_name_of_the_provider(desk: Desk) -> None:
    config = (await desk.browser.get("/board/config.json")).json()
    assert config["oidc"] == {"name": "Example"}
    assert set(config) == {"version", "oidc"}
    async with running_world() as world, world.client() as browser:
        assert (await browser.get("/board/config.json")).json()["oidc"] is None
        assert code_of(await browser.get("/board/oidc/start")) == Code.NOT_FOUND.value
        assert code_of(await browser.get("/board/oidc/callback?code=x&state=y")) == Code.NOT_FOUND.value


def test_return_path_error_names_the_parameter() -> None:
    with pytest.raises(DecklogError, match="return"):
        checked_return("https://evil.example")
