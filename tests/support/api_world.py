"""The whole API on a real socket: real services over in-memory stores, two tenants, and a key for each role."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from litestar.routes import BaseRoute

from decklog.api.app import Application, create_app
from decklog.api.server import serve
from decklog.api.services import ApiServices
from decklog.domain.consumers import Cursors
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.domain.store import SearchIndex
from decklog.domain.tenancy.parts.keys import TENANT_ROLES, IssuedKey
from decklog.domain.tenant import PLATFORM_TENANT, Isolation, Tenant
from decklog.services.ask.asking import Asking
from decklog.services.ask.conversations import OwnConversations
from decklog.services.ask.grammar_engine import GrammarEngine
from decklog.services.identity.identity import Identity
from decklog.services.identity.issuers import Issuers
from decklog.services.identity.oidc import OidcSignIn
from decklog.services.identity.registry import RegistryCache
from decklog.services.identity.sessions import Lives, Sessions
from decklog.services.identity.viewer_tokens import ViewerTokens
from decklog.services.records.access_log import AccessLog
from decklog.services.records.attempts import Attempts
from decklog.services.records.ingest import Ingest
from decklog.services.records.reading import Reading
from decklog.services.records.rejected import Rejected
from decklog.services.records.rejections import RejectionQueue
from decklog.services.records.retention import Retention
from decklog.services.records.searches import Searches
from decklog.services.records.sign_in import SignIn
from decklog.services.records.streaming import Limits, Streams
from decklog.services.records.viewers import Viewers
from decklog.services.search.search import Search
from decklog.services.tenancy.keys import Keys
from decklog.services.tenancy.provisioning import Provisioner
from decklog.services.tenancy.tenants import Tenants
from decklog.services.turns import Turns
from decklog.settings import Settings
from tests.support.memory import MemoryRegistry, make_tenant
from tests.support.memory_control import ServedControl
from tests.support.memory_conversations import MemoryConversations
from tests.support.memory_drops import MemoryDrops
from tests.support.memory_keys import MemoryKeys, MemoryUsages
from tests.support.memory_rejected import MemoryRejected
from tests.support.memory_searches import MemorySearches
from tests.support.memory_sessions import MemorySessions
from tests.support.memory_store import FINGERPRINT_KEY, MemoryAnnouncements, MemoryStore
from tests.support.openapi_conformance import Conformance
from tests.support.vaults import MemoryVault


class Backend:
    """The readiness of a backend. Its check raises `error` if it is set."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def check(self) -> None:
        if self.error is not None:
            raise self.error


RECORD = {"action": "login", "actor": {"id": "alice"}}
"""The smallest record."""


@dataclass
class World:
    """A running API. `keys` are by tenant (None for the platform) and role."""

    registry: MemoryRegistry
    store: MemoryStore
    announcements: MemoryAnnouncements
    cache: RegistryCache
    identity: Identity
    ingest: Ingest
    access_log: AccessLog
    sessions: Sessions
    reading: Reading
    streams: Streams
    tenants: Tenants
    control: ServedControl
    vault: MemoryVault
    attempts: Attempts
    rejected: MemoryRejected
    viewer_tokens: ViewerTokens
    backends: dict[str, Backend] = field(default_factory=lambda: {"database": Backend(), "search": Backend()})
    keys: dict[tuple[str | None, Role], str] = field(default_factory=dict)
    searches: MemorySearches = field(default_factory=MemorySearches)
    conversations: MemoryConversations = field(default_factory=MemoryConversations)
    drops: MemoryDrops = field(default_factory=MemoryDrops)
    stored_sessions: MemorySessions = field(default_factory=MemorySessions)
    url: str = ""
    oidc: OidcSignIn | None = None
    asking: Callable[[World], Asking] | None = None
    routes: Sequence[BaseRoute] = ()

    @property
    def services(self) -> ApiServices:
        """The services for `create_app`."""
        parts = (self.identity, self.ingest, self.reading, self.streams, self.tenants, self.backends, self.attempts)
        turns = Turns(10, each=5, of="database")
        searches = Searches(self.searches, self.access_log, turns)
        keys = Keys(MemoryKeys(self.registry), self.access_log, turns)
        rejected = Rejected(self.rejected, self.ingest, self.access_log)
        sign_in, retention = SignIn(self.sessions, self.access_log), Retention(self.store, self.drops, self.access_log, turns)
        viewers = Viewers(self.access_log, self.viewer_tokens.sign)
        conversations = OwnConversations(self.conversations, self.access_log, turns, days=30)
        asking = self.asking(self) if self.asking else Asking(self.reading, self.access_log, GrammarEngine(), conversations)
        of_users = (viewers, conversations, asking)
        return ApiServices(*parts, rejected, searches, keys, self.sessions, sign_in, retention, *of_users, self.oidc)

    def add(self, tenant: Tenant, **quotas: Any) -> Tenant:
        """Add a tenant with its heads and a key for each role."""
        self.store.register(tenant, **quotas)
        self.registry.add_tenant(tenant)
        for role in TENANT_ROLES:
            self.keys[tenant.name, role] = self.registry.add_key(tenant, role)
        keys = (key for key in self.registry.keys.values() if key.tenant_id == tenant.id)
        self.control.put(tenant, [IssuedKey(key.id, key.role, key.hash, datetime(2026, 1, 1, tzinfo=UTC)) for key in keys])
        return tenant

    def tenant(self, name: str) -> Tenant:
        return next(tenant for tenant in self.registry.tenants.values() if tenant.name == name)

    def client(self, role: Role | None = None, tenant: str | None = "acme", **options: Any) -> httpx.AsyncClient:
        """Return a client with the key of this role; without a role, without a credential."""
        token = None if role is None else self.keys[None if role is Role.PLATFORM else tenant, role]
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, **options)

    def socket_url(self, query: str = "") -> str:
        return self.url.replace("http", "ws") + "/api/v1/logs/stream" + query


@asynccontextmanager
async def running_world(
    *,
    heartbeat: float = 15.0,
    settings: Settings | None = None,
    issuers: Issuers | None = None,
    owned: bool = True,
    kept: bool = False,
    index: SearchIndex | None = None,
    cursors: Callable[[MemoryStore], Cursors] | None = None,
    lives: Lives | None = None,
    oidc: Callable[[Identity], OidcSignIn] | None = None,
    asking: Callable[[World], Asking] | None = None,
    trusted_proxies: str = "",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[World]:
    """Start all services and the server; stop them in the opposite order.

    `owned`: Decklog manages the tenants; `kept`: and keeps their keys in a vault; `index`, with
    `cursors`: the search index; `lives` and `now`: the lives and the clock of sessions. Fails at the end if a response deviates from the OpenAPI document.
    """
    registry, store, announcements = MemoryRegistry(), MemoryStore(), MemoryAnnouncements()
    # The registry is in this process: it is stale only where a busy machine stops the process for seconds.
    cache = RegistryCache(registry, interval=0.05, max_age=30)
    viewer_tokens = ViewerTokens(FINGERPRINT_KEY.decode())
    identity = Identity(cache, issuers or Issuers([], fetch=_nothing), viewers=viewer_tokens)
    rejected = MemoryRejected()
    rejections = RejectionQueue(rejected)
    ingest = Ingest(store, announcements, fingerprint_key=FINGERPRINT_KEY, rejections=rejections)
    platform = make_tenant(PLATFORM_TENANT)
    store.register(platform)
    access_log = AccessLog(ingest, lambda: platform)
    stored_sessions = MemorySessions()
    sessions = Sessions(stored_sessions, identity, Turns(10, each=5, of="database"), lives, now=now)
    streams = Streams(
        store,
        announcements,
        access_log,
        still_valid=sessions.still_valid,
        tenant_now=cache.tenant,
        limits=Limits(heartbeat=heartbeat, poll=0.05),
    )
    search = Search(store, index=index, cursors=None if cursors is None else cursors(store))
    reading = Reading(search, store, access_log, still_valid=sessions.still_valid)
    control, vault = ServedControl(registry, store), MemoryVault()
    provisioner = Provisioner(control, None, None, directory=control) if owned else None
    tenants = Tenants(
        control, access_log, provisioner=provisioner, vault=vault if kept else None, usages=MemoryUsages(registry, store)
    )
    attempts = Attempts(ingest, tick=0.01)
    parts = (registry, store, announcements, cache, identity, ingest, access_log, sessions, reading, streams, tenants)
    world = World(*parts, control, vault, attempts, rejected, viewer_tokens, stored_sessions=stored_sessions)
    world.oidc = None if oidc is None else oidc(identity)
    world.asking = asking
    world.add(make_tenant("acme"))
    world.add(make_tenant("other", isolation=Isolation.SHARED))
    registry.add_tenant(platform)
    control.put(platform, ())
    world.keys[None, Role.PLATFORM] = registry.add_key(None, Role.PLATFORM)
    async with AsyncExitStack() as stack:
        for part in (cache, rejections, ingest, attempts, streams):
            await part.start()
            stack.push_async_callback(part.stop)
        stack.push_async_callback(access_log.stop)
        made = create_app(world.services, settings or Settings())
        assert isinstance(made, Application)
        world.routes = made.routes
        app = Conformance(made)
        server = await stack.enter_async_context(serve(app, "127.0.0.1", 0, freeze=False, trusted_proxies=trusted_proxies))
        world.url = f"http://127.0.0.1:{server.port}"
        yield world
    assert not app.faults, "answers that the OpenAPI document does not describe:\n" + "\n".join(app.faults)


@contextmanager
def in_thread(opening: Callable[[], AbstractAsyncContextManager[World]]) -> Iterator[World]:
    """Run an API in a thread with an event loop of its own, for tests that have none. Raises what the API raises at its end."""
    opened: Future[tuple[World, Callable[[], object]]] = Future()

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        async with opening() as world:
            opened.set_result((world, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: asyncio.run(run()))
        either: list[Future[Any]] = [opened, running]
        wait(either, return_when=FIRST_COMPLETED)
        if not opened.done():
            running.result()
        world, stop = opened.result()
        try:
            yield world
        finally:
            stop()
            running.result()


async def _nothing(url: str) -> bytes:
    raise OSError(f"{url}: these tests have no network")


def code_of(response: httpx.Response) -> str:
    """Return the error code of an answer, and check the members of its problem document."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document: dict[str, Any] = response.json()
    assert document["status"] == response.status_code
    assert document["type"] == "https://decklog.dev/problems/" + document["code"]
    assert document["instance"] == response.headers["x-request-id"]
    return str(document["code"])


def connect(world: World) -> socket.socket:
    """Return a raw connection to the API."""
    host, port = world.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


async def access_actions(world: World, name: str = "acme") -> list[str]:
    """Return the actions in the tenant's access log, oldest first."""
    tenant = world.tenant(name)
    head = await world.store.head(tenant, LogName.ACCESS)
    found = await world.store.fetch(tenant, LogName.ACCESS, range(head.next_seq))
    return [json.loads(record.content)["action"] for record in sorted(found, key=lambda record: record.seq)]


async def polled(world: World) -> AsyncIterator[list[str]]:
    """Yield the actions in the access log again and again, for at most ten seconds."""
    for _ in range(200):
        yield await access_actions(world)
        await asyncio.sleep(0.05)
    raise AssertionError("the expected record was not written within ten seconds")
