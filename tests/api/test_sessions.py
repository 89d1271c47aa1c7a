"""Sessions of browsers over HTTP: sign in, be recognised by the cookie, sign out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from litestar.routes import HTTPRoute
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import InvalidStatus

from decklog.domain.errors import Code
from decklog.domain.identity.access import Role
from decklog.domain.identity.session import IDENTITIES_MAX
from decklog.domain.tenant import State
from tests.support.api_world import RECORD, World, access_actions, code_of, running_world
from tests.support.memory import make_tenant

SESSION, SESSIONS = "/api/v1/session", "/api/v1/sessions"


def bearer(world: World, role: Role = Role.ADMIN, tenant: str | None = "acme") -> dict[str, str]:
    return {"authorization": f"Bearer {world.keys[tenant, role]}"}


@asynccontextmanager
async def signed_in(
    world: World, role: Role = Role.ADMIN, tenant: str | None = "acme"
) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    """A browser with a session, and the session. The browser sends the CSRF header with every request."""
    async with world.client() as browser:
        opened = await browser.post(SESSIONS, json={}, headers=bearer(world, role, tenant))
        assert opened.status_code == 201, opened.text
        browser.headers["decklog-csrf"] = opened.json()["csrf"]
        yield browser, opened.json()


async def followed(world: World) -> None:
    """Wait until the process has followed all changes of the registry."""
    async with asyncio.timeout(10):
        while world.cache.version < world.registry.version:
            await asyncio.sleep(0.01)


async def test_session_of_a_key_reads_and_appends_and_ends(world: World) -> None:
    async with signed_in(world) as (browser, session):
        [identity] = session["identities"]
        assert (identity["tenant"], identity["role"], identity["state"]) == ("acme", "admin", "active")
        assert (await browser.get(SESSION)).json()["csrf"] == session["csrf"]
        assert (await browser.post("/api/v1/logs", json=RECORD)).status_code == 201
        listed = (await browser.get("/api/v1/logs")).json()["items"]
        assert listed[0]["recorded_by"]["id"] == identity["subject"]
        whoami = (await browser.get("/api/v1/whoami")).json()
        assert (whoami["kind"], whoami["subject"]) == ("api_key", identity["subject"])

        token = browser.cookies["decklog_session"]
        closed = await browser.delete(SESSION)
        assert (closed.status_code, closed.content) == (204, b"")
        assert "decklog_session" not in browser.cookies
        browser.cookies.set("decklog_session", token)
        assert code_of(await browser.get(SESSION)) == Code.UNAUTHENTICATED.value
        assert code_of(await browser.get("/api/v1/logs")) == Code.UNAUTHENTICATED.value
    assert {"sessions.open", "sessions.close"} <= set(await access_actions(world))


async def test_cookie_is_out_of_reach_of_scripts_and_other_sites(world: World) -> None:
    async with world.client() as browser:
        header = (await browser.post(SESSIONS, json={}, headers=bearer(world))).headers["set-cookie"]
    name, *attributes = header.split("; ")
    assert name.startswith("decklog_session=")
    assert {each.partition("=")[0] for each in attributes} == {"Path", "Max-Age", "HttpOnly", "SameSite"}
    assert {"Path=/", "SameSite=Strict", f"Max-Age={7 * 86_400}"} <= set(attributes)
    token = name.partition("=")[2]
    assert token not in str(world.stored_sessions.held)


async def test_cookie_behind_a_trusted_proxy_that_ends_tls_is_bound_to_this_host() -> None:
    secure = {"x-forwarded-proto": "https", "host": "audit.example.com"}
    async with running_world(trusted_proxies="127.0.0.1") as world, world.client() as browser:
        opened = await browser.post(SESSIONS, json={}, headers={**bearer(world), **secure})
        name, *attributes = opened.headers["set-cookie"].split("; ")
        assert name.startswith("__Host-decklog_session=")
        assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
        assert not any(each.startswith("Domain") for each in attributes)
        token = name.partition("=")[2]
        own = {**secure, "cookie": f"__Host-decklog_session={token}"}
        assert (await browser.get(SESSION, headers=own)).status_code == 200
        # A cookie without the prefix may come from a neighbour of the host, or from plain HTTP.
        for planted in (f"decklog_session={token}", f"__Host-decklog_session={token}; __Host-decklog_session={'A' * 43}"):
            assert code_of(await browser.get(SESSION, headers={**secure, "cookie": planted})) == Code.UNAUTHENTICATED.value
        link = await browser.post(f"{SESSIONS}/links", headers={**own, "decklog-csrf": opened.json()["csrf"]})
        assert link.json()["url"].startswith("https://audit.example.com/board/#link=")
        upgrade = {
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        plain = await browser.get("/api/v1/logs/stream", headers={**own, **upgrade, "origin": "http://audit.example.com"})
        assert code_of(plain) == Code.CSRF.value
    async with running_world() as world, world.client() as browser:
        untrusted = await browser.post(SESSIONS, json={}, headers={**bearer(world), **secure})
        assert untrusted.headers["set-cookie"].startswith("decklog_session=")


async def test_token_changes_at_each_sign_in_and_the_earlier_session_ends(world: World) -> None:
    async with signed_in(world) as (browser, first):
        before = browser.cookies["decklog_session"]
        second = (await browser.post(SESSIONS, json={}, headers=bearer(world, Role.AUDITOR, "other"))).json()
        assert browser.cookies["decklog_session"] != before
        assert second["id"] != first["id"]
        assert [(each["tenant"], each["role"]) for each in second["identities"]] == [("other", "auditor"), ("acme", "admin")]
        async with world.client(cookies={"decklog_session": before}) as thief:
            assert code_of(await thief.get(SESSION)) == Code.UNAUTHENTICATED.value


async def test_planted_token_is_never_adopted(world: World) -> None:
    planted = "A" * 43
    async with world.client(cookies={"decklog_session": planted}) as browser:
        opened = await browser.post(SESSIONS, json={}, headers=bearer(world))
        assert opened.status_code == 201
        assert planted not in opened.headers["set-cookie"]
    async with world.client(cookies={"decklog_session": planted}) as attacker:
        assert code_of(await attacker.get(SESSION)) == Code.UNAUTHENTICATED.value


async def test_identity_header_chooses_and_never_reaches_beyond_the_session(world: World) -> None:
    async with signed_in(world) as (browser, _), signed_in(world, tenant="other") as (_, foreign):
        both = (await browser.post(SESSIONS, json={}, headers=bearer(world, Role.AUDITOR))).json()
        browser.headers["decklog-csrf"] = both["csrf"]
        by_role = {each["role"]: each["id"] for each in both["identities"]}
        for role, number in by_role.items():
            answer = await browser.get("/api/v1/whoami", headers={"decklog-identity": number})
            assert answer.json()["role"] == role
        refused = await browser.post("/api/v1/logs", json=RECORD, headers={"decklog-identity": by_role["auditor"]})
        assert code_of(refused) == Code.FORBIDDEN.value
        for strange in (foreign["identities"][0]["id"], "", "0" * 32, "*"):
            answer = await browser.get("/api/v1/logs", headers={"decklog-identity": strange})
            assert code_of(answer) == Code.FORBIDDEN.value


async def test_authorization_precedes_the_cookie(world: World) -> None:
    async with signed_in(world) as (browser, _):
        answer = await browser.get("/api/v1/whoami", headers=bearer(world, Role.AUDITOR, "other"))
        assert answer.json()["tenant"] == "other"
        assert (
            code_of(await browser.get("/api/v1/whoami", headers={"authorization": "Bearer nothing"}))
            == Code.UNAUTHENTICATED.value
        )
        assert code_of(await browser.get(SESSION, headers=bearer(world))) == Code.UNAUTHENTICATED.value


async def test_every_unsafe_route_refuses_the_cookie_without_the_csrf_header(world: World) -> None:
    async with signed_in(world) as (browser, session):
        del browser.headers["decklog-csrf"]
        routes = [
            (method, route.path_format)
            for route in world.routes
            if isinstance(route, HTTPRoute)
            for method in route.methods - {"GET", "HEAD", "OPTIONS"}
        ]
        assert len(routes) > 10
        for method, path in routes:
            for headers in ({}, {"decklog-csrf": "0" * 64}, {"decklog-csrf": session["csrf"][:-1]}):
                answer = await browser.request(method, path.replace("{number}", "1"), json={}, headers=headers)
                # A sign-in does not take the cookie for a credential at all.
                expected = Code.UNAUTHENTICATED if path == SESSIONS else Code.CSRF
                assert (path, code_of(answer)) == (path, expected.value)
        assert (await browser.get(SESSION)).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_requests_that_another_site_causes_are_refused(world: World, site: str) -> None:
    async with signed_in(world) as (browser, _):
        foreign = {"sec-fetch-site": site}
        for path in ("/api/v1/logs", "/api/v1/logs/export", "/api/v1/logs/stream", SESSION, "/api/v1/whoami"):
            assert code_of(await browser.get(path, headers=foreign)) == Code.CSRF.value
        assert code_of(await browser.post("/api/v1/logs", json=RECORD, headers=foreign)) == Code.CSRF.value
        assert code_of(await browser.post(SESSIONS, json={}, headers={**bearer(world), **foreign})) == Code.CSRF.value
        for own in ("same-origin", "none"):
            assert (await browser.get("/api/v1/logs", headers={"sec-fetch-site": own})).status_code == 200
        # With a token the browser adds nothing by itself, so there is nothing to forge.
        assert (await browser.get("/api/v1/logs", headers={**bearer(world), **foreign})).status_code == 200


async def test_answers_may_not_be_framed(world: World) -> None:
    async with signed_in(world) as (browser, _):
        for path in (SESSION, SESSIONS, "/api/v1/logs"):
            headers = (await browser.get(path)).headers
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert headers["cache-control"] == "no-store"


async def test_websocket_by_cookie_needs_the_origin_of_the_request(world: World) -> None:
    async with signed_in(world) as (browser, _):
        cookie = {"cookie": f"decklog_session={browser.cookies['decklog_session']}"}
        async with connect_socket(world.socket_url(), origin=world.url, additional_headers=cookie) as socket:  # type: ignore[arg-type]
            assert '"type":"open"' in str(await socket.recv())
        for origin in (None, "http://evil.example", "null", world.url.replace("127.0.0.1", "localhost"), world.url + "0"):
            with pytest.raises(InvalidStatus) as refused:
                async with connect_socket(world.socket_url(), origin=origin, additional_headers=cookie):  # type: ignore[arg-type]
                    pass
            assert refused.value.response.status_code == 403


async def test_link_signs_in_once(world: World) -> None:
    async with world.client(Role.AUDITOR) as client, world.client() as browser:
        link = (await client.post(f"{SESSIONS}/links")).json()
        base, _, code = link["url"].partition("/board/#link=")
        assert base == world.url
        assert code not in str(world.stored_sessions.codes)
        opened = await browser.post(SESSIONS, json={"link": code})
        assert [each["role"] for each in opened.json()["identities"]] == ["auditor"]
        assert (await browser.get("/api/v1/logs")).status_code == 200
        again = await browser.post(SESSIONS, json={"link": code})
        assert code_of(again) == Code.UNAUTHENTICATED.value
        assert "used before" in again.json()["detail"]
        both = await browser.post(SESSIONS, json={"link": code}, headers=bearer(world))
        assert code_of(both) == Code.INVALID_PARAMETER.value
    assert "sessions.link" in await access_actions(world)


async def test_link_of_a_session_has_all_its_identities(world: World) -> None:
    async with signed_in(world) as (browser, _), world.client() as another:
        both = (await browser.post(SESSIONS, json={}, headers=bearer(world, Role.PLATFORM, None))).json()
        link = await browser.post(f"{SESSIONS}/links", headers={"decklog-csrf": both["csrf"]})
        opened = await another.post(SESSIONS, json={"link": link.json()["url"].partition("=")[2]})
        assert [each["role"] for each in opened.json()["identities"]] == ["platform", "admin"]


async def test_link_of_a_revoked_key_opens_nothing(world: World) -> None:
    async with world.client(Role.AUDITOR) as client, world.client() as browser:
        code = (await client.post(f"{SESSIONS}/links")).json()["url"].partition("=")[2]
        world.registry.revoke(world.keys["acme", Role.AUDITOR])
        await followed(world)
        assert code_of(await browser.post(SESSIONS, json={"link": code})) == Code.UNAUTHENTICATED.value


async def test_link_expires() -> None:
    moment = [datetime(2026, 1, 1, tzinfo=UTC)]
    async with running_world(now=lambda: moment[0]) as world, world.client(Role.AUDITOR) as client, world.client() as browser:
        code = (await client.post(f"{SESSIONS}/links")).json()["url"].partition("=")[2]
        moment[0] += timedelta(minutes=10)
        assert code_of(await browser.post(SESSIONS, json={"link": code})) == Code.UNAUTHENTICATED.value


async def test_ticket_opens_one_stream_and_nothing_else(world: World) -> None:
    async with signed_in(world, Role.AUDITOR) as (browser, _), world.client() as nobody:

        async def ticket() -> str:
            return str((await browser.post("/api/v1/logs/stream/tickets")).json()["ticket"])

        one = await ticket()
        async with nobody.stream("GET", "/api/v1/logs/stream", params={"ticket": one}) as stream:
            assert stream.status_code == 200
            assert code_of(await nobody.get("/api/v1/logs/stream", params={"ticket": one})) == Code.UNAUTHENTICATED.value
        two = await ticket()
        for path in ("/api/v1/logs", "/api/v1/logs/export", "/api/v1/whoami", SESSION):
            answer = await nobody.get(path, params={"ticket": two})
            assert code_of(answer) in (Code.UNAUTHENTICATED.value, Code.UNKNOWN_PARAMETER.value)
            answer = await nobody.get(path, params={"ticket": two}, headers=bearer(world))
            assert code_of(answer) in (Code.UNAUTHENTICATED.value, Code.UNKNOWN_PARAMETER.value)
        assert code_of(await nobody.post(SESSIONS, json={"link": two})) == Code.UNAUTHENTICATED.value
        mixed = await nobody.get("/api/v1/logs/stream", params={"ticket": two}, headers=bearer(world))
        assert code_of(mixed) == Code.INVALID_PARAMETER.value
        async with nobody.stream("GET", "/api/v1/logs/stream", params={"ticket": two}) as stream:
            assert stream.status_code == 200
        link = (await browser.post(f"{SESSIONS}/links")).json()["url"].partition("=")[2]
        assert code_of(await nobody.get("/api/v1/logs/stream", params={"ticket": link})) == Code.UNAUTHENTICATED.value


async def test_stream_of_a_session_ends_with_it(world: World) -> None:
    async with signed_in(world) as (browser, session), world.client(Role.ADMIN) as admin, world.client() as nobody:
        ticket = (await browser.post("/api/v1/logs/stream/tickets")).json()["ticket"]
        async with (
            browser.stream("GET", "/api/v1/logs/stream") as by_cookie,
            nobody.stream("GET", "/api/v1/logs/stream", params={"ticket": ticket}) as by_ticket,
        ):
            assert (await admin.delete(f"{SESSIONS}/{session['id']}")).status_code == 204
            async with asyncio.timeout(10):
                texts = [(await each.aread()).decode() for each in (by_cookie, by_ticket)]
            assert all('"code":"unauthenticated"' in text for text in texts)


async def test_revoked_key_ends_its_identity_and_suspension_is_told(world: World) -> None:
    async with signed_in(world) as (browser, _):
        both = (await browser.post(SESSIONS, json={}, headers=bearer(world, Role.AUDITOR, "other"))).json()
        ids = {each["tenant"]: each["id"] for each in both["identities"]}
        world.registry.revoke(world.keys["acme", Role.ADMIN])
        await followed(world)
        assert [each["tenant"] for each in (await browser.get(SESSION)).json()["identities"]] == ["other"]
        gone = await browser.get("/api/v1/logs", headers={"decklog-identity": ids["acme"]})
        assert code_of(gone) == Code.UNAUTHENTICATED.value
        assert (await browser.get("/api/v1/logs", headers={"decklog-identity": ids["other"]})).status_code == 200
        world.registry.revoke(world.keys["other", Role.AUDITOR])
        await followed(world)
        assert code_of(await browser.get(SESSION)) == Code.UNAUTHENTICATED.value


async def test_list_shows_own_sessions_and_to_an_admin_those_of_its_tenant(world: World) -> None:
    async with (
        signed_in(world) as (admin, mine),
        signed_in(world, Role.AUDITOR) as (auditor, theirs),
        signed_in(world, tenant="other") as (
            stranger,
            foreign,
        ),
    ):
        await stranger.post(SESSIONS, json={}, headers=bearer(world, Role.AUDITOR))  # a session of two tenants
        listed = (await admin.get(SESSIONS)).json()["items"]
        assert {each["id"] for each in listed} >= {mine["id"], theirs["id"]}
        assert {one["tenant"] for each in listed for one in each["identities"]} == {"acme"}
        assert [each["id"] for each in listed if each["current"]] == [mine["id"]]
        assert {(each["address"], each["user_agent"][:5]) for each in listed} == {("127.0.0.1", "pytho")}
        assert len(listed) == 3
        own = (await auditor.get(SESSIONS)).json()["items"]
        assert all(one["role"] == "auditor" for each in own for one in each["identities"])
        assert mine["id"] not in {each["id"] for each in own}

        for number in (mine["id"], foreign["id"], "0" * 16, "x", "%00"):
            assert code_of(await auditor.delete(f"{SESSIONS}/{number}")) == Code.NOT_FOUND.value
        assert (await admin.delete(f"{SESSIONS}/{theirs['id']}")).status_code == 204
        assert code_of(await auditor.get(SESSION)) == Code.UNAUTHENTICATED.value
        assert code_of(await admin.delete(f"{SESSIONS}/{theirs['id']}")) == Code.NOT_FOUND.value
    assert {"sessions.list", "sessions.end"} <= set(await access_actions(world))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"link": "x"}, Code.UNAUTHENTICATED),
        ({"link": "x" * 300}, Code.INVALID_PARAMETER),
        ({"link": 5}, Code.INVALID_PARAMETER),
        ({"key": "dlk_"}, Code.INVALID_PARAMETER),
        ([], Code.INVALID_PARAMETER),
        ({}, Code.UNAUTHENTICATED),
    ],
)
async def test_sign_in_refuses_what_it_does_not_understand(world: World, body: Any, code: Code) -> None:
    async with world.client() as browser:
        answer = await browser.post(SESSIONS, json=body)
        assert code_of(answer) == code.value
        assert "set-cookie" not in answer.headers


async def test_sign_in_takes_no_form_that_another_site_could_post(world: World) -> None:
    async with world.client() as browser:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            answer = await browser.post(SESSIONS, content=b"{}", headers={**bearer(world), "content-type": kind})
            assert code_of(answer) == Code.UNSUPPORTED_MEDIA_TYPE.value
        assert code_of(
            await browser.post(SESSIONS, content=b"{", headers={**bearer(world), "content-type": "application/json"})
        ) == (Code.INVALID_JSON.value)


async def test_suspended_tenant_is_left_out_of_a_sign_in_with_others(world: World) -> None:
    async with signed_in(world) as (browser, _):
        await browser.post(SESSIONS, json={}, headers=bearer(world, Role.ADMIN, "other"))
        session = (await browser.get(SESSION)).json()
        link = await browser.post(f"{SESSIONS}/links", headers={"decklog-csrf": session["csrf"]})
        world.registry.add_tenant(msgspec.structs.replace(world.tenant("acme"), state=State.SUSPENDED))
        world.store.set_state(world.tenant("acme"), State.SUSPENDED)
        await followed(world)
        async with world.client() as another:
            opened = await another.post(SESSIONS, json={"link": link.json()["url"].partition("=")[2]})
            assert [each["tenant"] for each in opened.json()["identities"]] == ["other"]
            assert code_of(await another.post(SESSIONS, json={}, headers=bearer(world))) == Code.TENANT_SUSPENDED.value
        assert {each["tenant"]: each["state"] for each in (await browser.get(SESSION)).json()["identities"]} == {
            "other": "active",
            "acme": "suspended",
        }


async def test_session_holds_a_bounded_number_of_identities(world: World) -> None:
    async with world.client() as browser:
        for number in range(IDENTITIES_MAX):
            world.add(make_tenant(f"t{number}"))
            opened = await browser.post(SESSIONS, json={}, headers=bearer(world, tenant=f"t{number}"))
            assert len(opened.json()["identities"]) == number + 1
        more = await browser.post(SESSIONS, json={}, headers=bearer(world))
        assert code_of(more) == Code.CONFLICT.value
        again = await browser.post(SESSIONS, json={}, headers=bearer(world, tenant="t0"))
        assert len(again.json()["identities"]) == IDENTITIES_MAX


async def test_idle_and_absolute_end() -> None:
    moment = [datetime(2026, 1, 1, tzinfo=UTC)]
    async with running_world(now=lambda: moment[0]) as world:
        async with signed_in(world) as (browser, session):
            assert session["idle_ends_at"] == "2026-01-01T08:00:00.000000Z"
            moment[0] += timedelta(hours=7, minutes=59)
            used = (await browser.get(SESSION)).json()
            assert (used["last_used_at"], used["idle_ends_at"]) == ("2026-01-01T07:59:00.000000Z", "2026-01-01T15:59:00.000000Z")
            moment[0] += timedelta(hours=8)
            assert code_of(await browser.get(SESSION)) == Code.UNAUTHENTICATED.value
        async with signed_in(world) as (browser, session):
            begun = moment[0]
            while moment[0] + timedelta(hours=7) < begun + timedelta(days=7):
                moment[0] += timedelta(hours=7)
                assert (await browser.get(SESSION)).json()["ends_at"] == session["ends_at"]
            moment[0] = begun + timedelta(days=7)
            assert code_of(await browser.get(SESSION)) == Code.UNAUTHENTICATED.value


async def test_use_is_noted_once_a_minute() -> None:
    moment = [datetime(2026, 1, 1, tzinfo=UTC)]
    async with running_world(now=lambda: moment[0]) as world, signed_in(world) as (browser, _):
        for seconds in (0, 59, 60, 61, 119, 120):
            moment[0] = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
            await browser.get("/api/v1/logs")
        assert world.stored_sessions.touches == 2
