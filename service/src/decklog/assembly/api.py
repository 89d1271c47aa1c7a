"""Open the services of the HTTP API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

from decklog.api.services import ApiServices
from decklog.ask_settings import Ask as AskSettings
from decklog.assembly import backends
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.store import Announcements, Readiness, RecordStore, SearchIndex
from decklog.domain.tenant import PLATFORM_TENANT, Tenant
from decklog.outbound import chat_completions
from decklog.outbound.jwks import fetch, post
from decklog.services.ask.asking import SECONDS_MAX, Asking
from decklog.services.ask.conversations import OwnConversations
from decklog.services.ask.engine import Engine
from decklog.services.ask.grammar_engine import GrammarEngine
from decklog.services.ask.model import Model, ModelEngine
from decklog.services.budget import Budget
from decklog.services.coalescing import Coalescing, shared
from decklog.services.following.wake import Waker
from decklog.services.identity.identity import Identity
from decklog.services.identity.issuers import Issuers, load_issuers
from decklog.services.identity.oidc import OidcSignIn, Provider
from decklog.services.identity.registry import RegistryCache
from decklog.services.identity.sessions import Lives, Sessions
from decklog.services.identity.uses import KeyUses
from decklog.services.identity.viewer_tokens import ViewerTokens
from decklog.services.processor import Processor
from decklog.services.records.access_log import AccessLog
from decklog.services.records.attempts import Attempts
from decklog.services.records.drop_records import DropRecords
from decklog.services.records.ingest import CommitTraces, Ingest
from decklog.services.records.reading import Reading
from decklog.services.records.rejected import Rejected
from decklog.services.records.rejections import RejectionQueue
from decklog.services.records.retention import Retention
from decklog.services.records.searches import Searches
from decklog.services.records.sign_in import SignIn
from decklog.services.records.streaming import Limits, Streams
from decklog.services.records.viewers import Viewers
from decklog.services.records.views import POSITIONS
from decklog.services.sealing import Sealing, derived_key
from decklog.services.search.page import READING
from decklog.services.search.search import Search
from decklog.services.search.turned_store import TurnedCursors, TurnedStore, database_turns
from decklog.services.tenancy.keys import Keys
from decklog.services.tenancy.provisioning import Provisioner
from decklog.services.tenancy.tenants import Tenants
from decklog.services.tenancy.vaults import KeyVault
from decklog.services.turns import Turns
from decklog.settings import Board, Settings
from decklog.settings import Identity as IdentitySettings
from decklog.timescale.connection import Pool
from decklog.timescale.control.api_keys import PostgresApiKeys, PostgresKeyUses
from decklog.timescale.control.sessions import PostgresSessions
from decklog.timescale.control.usage import PostgresUsages
from decklog.timescale.records.announcements import PostgresAnnouncements
from decklog.timescale.records.conversations import PostgresConversations
from decklog.timescale.records.cursors import PostgresCursors
from decklog.timescale.records.drops import PostgresDrops
from decklog.timescale.records.keeper import PostgresReadiness
from decklog.timescale.records.rejected import PostgresRejected
from decklog.timescale.records.saved_searches import PostgresSavedSearches


class _Announcing:
    """Announces new records to other processes, and wakes the workers where there is a queue."""

    def __init__(self, inner: PostgresAnnouncements, registry: RegistryCache, waker: Waker | None) -> None:
        self._inner = inner
        self._registry = registry
        self._waker = waker

    def announce(self, tenant_id: int, log: LogName, next_seq: int) -> None:
        self._inner.announce(tenant_id, log, next_seq)
        if self._waker is None:
            return
        try:
            tenant = self._registry.cached_tenant(tenant_id)
        except DecklogError:
            return  # The registry is stale: the sweeper finds these records, as it does where the tenant has left the cache.
        if tenant is not None:
            self._waker.wake(tenant, log, next_seq)

    def subscribe(self, heard: Callable[[int, LogName, int], None]) -> Callable[[], None]:
        return self._inner.subscribe(heard)


class OneCheck:
    """Checks a backend once for all probes that wait: anybody may probe, and a flood of probes must cost a backend nothing."""

    def __init__(self, backend: Readiness) -> None:
        self._checks: Coalescing[None, None] = Coalescing(shared(lambda _: backend.check()))

    async def check(self) -> None:
        """See the protocol."""
        await self._checks(None)


@asynccontextmanager
async def open_api(
    settings: Settings,
    *,
    provisioner: Provisioner | None = None,
    vault: KeyVault | None = None,
    traces: CommitTraces | None = None,
) -> AsyncIterator[ApiServices]:
    """Open the services of the API. On exit they close in the opposite order, and waiting records are committed first.

    Args:
        settings: Needs a DSN and the fingerprint key.
        provisioner: Creates tenants over the API; None where Kubernetes owns the tenants.
        vault: Stores the keys of tenants that the API creates; None returns them in the answer alone.
        traces: Receives the spans of commits.

    Raises:
        DecklogError: `misconfigured`, or `storage-unavailable` where the database cannot be reached.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(backends.open_database(settings))
        registry = database.cache
        index, health, _ = await stack.enter_async_context(backends.open_index(settings)) or (None, None, None)
        announcements = await _open_announcements(settings, stack, database.upkeep, registry)
        turns = database_turns(settings.database.pool_max)
        records = await stack.enter_async_context(backends.open_store(settings, database.reads))
        store = TurnedStore(records, turns)
        rejected, rejections = await _open_rejected(settings, stack, database.reads)
        ingest = await _open_ingest(settings, stack, store, announcements, traces=traces, rejections=rejections)
        access_log = _open_access_log(stack, ingest, registry)
        viewer_tokens = ViewerTokens(settings.identity.fingerprint_key)
        identity = await _open_identity(settings, stack, database, viewer_tokens)
        sessions = _sessions(settings.board, database, identity, turns)
        reading, streams = _readings(
            settings, database, store, index, access_log, announcements=announcements, sessions=sessions, turns=turns
        )
        conversations = _conversations(settings.ask, database, access_log, turns)
        asking = await _open_asking(settings.ask, stack, reading, access_log, conversations)
        await _start(stack, attempts := Attempts(ingest))
        await stack.enter_async_context(backends.started(registry))
        drops = await _open_drops(stack, database, ingest)
        await _start(stack, streams)
        yield ApiServices(
            identity=identity,
            ingest=ingest,
            reading=reading,
            streams=streams,
            tenants=Tenants(database.registry, access_log, PostgresUsages(database.reads), provisioner=provisioner, vault=vault),
            readiness=_readiness(database, health),
            attempts=attempts,
            rejected=Rejected(rejected, ingest, access_log),
            searches=Searches(PostgresSavedSearches(database.reads), access_log, turns),
            keys=Keys(PostgresApiKeys(database.reads), access_log, turns),
            sessions=sessions,
            sign_in=SignIn(sessions, access_log),
            retention=Retention(records, drops, access_log, turns),
            viewers=Viewers(access_log, viewer_tokens.sign),
            conversations=conversations,
            asking=asking,
            oidc=_oidc(settings.board, identity),
        )


def _readiness(database: backends.Database, search: Readiness | None) -> dict[str, Readiness]:
    """Return the checks of the backends of a process, by name."""
    found: dict[str, Readiness] = {"database": OneCheck(PostgresReadiness(database.upkeep))}
    return found if search is None else {**found, "search": OneCheck(search)}


def _open_access_log(stack: AsyncExitStack, ingest: Ingest, registry: RegistryCache) -> AccessLog:
    access_log = AccessLog(ingest, lambda: _platform_tenant(registry))
    stack.push_async_callback(access_log.stop)
    return access_log


def _conversations(settings: AskSettings, database: backends.Database, access_log: AccessLog, turns: Turns) -> OwnConversations:
    return OwnConversations(PostgresConversations(database.reads), access_log, turns, days=settings.conversation_days)


async def _open_asking(
    settings: AskSettings, stack: AsyncExitStack, reading: Reading, access_log: AccessLog, conversations: OwnConversations
) -> Asking:
    engine, seconds = await _open_engine(settings, stack)
    return Asking(reading, access_log, engine, conversations, seconds=seconds)


async def _open_engine(settings: AskSettings, stack: AsyncExitStack) -> tuple[Engine, float]:
    """Return the engine that answers questions, and the seconds that one may take. Raises `misconfigured`."""
    if not settings.model_url:
        return GrammarEngine(), SECONDS_MAX
    backends.require(settings.model, "DECKLOG_ASK_MODEL")
    complete = await stack.enter_async_context(
        chat_completions.opened(settings.model_url, settings.model_key, settings.model_seconds)
    )
    engine = ModelEngine(Model(complete, settings.model), GrammarEngine(), seconds=settings.model_seconds)
    return engine, SECONDS_MAX + settings.model_seconds


async def _open_drops(stack: AsyncExitStack, database: backends.Database, ingest: Ingest) -> PostgresDrops:
    drops, registry = PostgresDrops(database.upkeep), database.cache
    platform = partial(_platform_tenant, registry)
    await _start(stack, DropRecords(drops, ingest, tenant_now=registry.tenant, platform=platform))
    return drops


async def _open_identity(
    settings: Settings, stack: AsyncExitStack, database: backends.Database, viewers: ViewerTokens
) -> Identity:
    identity = Identity(database.cache, _issuers(settings.identity), viewers=viewers)
    await _start(stack, KeyUses(identity, PostgresKeyUses(database.upkeep)))
    return identity


def _sessions(settings: Board, database: backends.Database, identity: Identity, turns: Turns) -> Sessions:
    lives = Lives(timedelta(seconds=settings.session_idle_seconds), timedelta(seconds=settings.session_seconds))
    return Sessions(PostgresSessions(database.reads, lookups=database.registering), identity, turns, lives)


def _oidc(settings: Board, identity: Identity) -> OidcSignIn | None:
    """Return the sign-in by OpenID Connect; None where none is configured. Raises `misconfigured`."""
    if not settings.oidc_issuer:
        return None
    backends.require(settings.oidc_client_id, "DECKLOG_BOARD_OIDC_CLIENT_ID")
    if not identity.trusts(settings.oidc_issuer):
        raise DecklogError(
            Code.MISCONFIGURED,
            "DECKLOG_BOARD_OIDC_ISSUER is not an issuer of the issuers file, which says for which tenants and roles it may speak.",
        )
    if "openid" not in settings.oidc_scopes.split():
        raise DecklogError(Code.MISCONFIGURED, "DECKLOG_BOARD_OIDC_SCOPES must contain openid.")
    names = (settings.oidc_client_id, settings.oidc_client_secret, settings.oidc_scopes, settings.oidc_name)
    return OidcSignIn(Provider(settings.oidc_issuer, *names), identity, fetch=fetch, post=post)


def _readings(
    settings: Settings,
    database: backends.Database,
    store: RecordStore,
    index: SearchIndex | None,
    access_log: AccessLog,
    *,
    announcements: Announcements,
    sessions: Sessions,
    turns: Turns,
) -> tuple[Reading, Streams]:
    """Return the services that give records. They share slices of the processor, the bytes of unsent answers, and the key of positions."""
    processor, budget = Processor(), Budget(settings.api.reading_bytes_max, of=READING)
    # The same in every process with the same fingerprint key, so that a position may go on in another one.
    sealing = Sealing(derived_key(settings.identity.fingerprint_key, POSITIONS))
    cursors = TurnedCursors(PostgresCursors(database.reads), turns) if index is not None else None
    timeout = settings.api.search_timeout
    search = Search(store, index=index, cursors=cursors, timeout=timeout, processor=processor, budget=budget)
    reading = Reading(
        search,
        store,
        access_log,
        still_valid=sessions.still_valid,
        checked_share=settings.api.checked_share,
        processor=processor,
        budget=budget,
        sealing=sealing,
    )
    streams = Streams(
        store,
        announcements,
        access_log,
        still_valid=sessions.still_valid,
        tenant_now=database.cache.tenant,
        limits=Limits(streams_max=settings.api.streams_max),
        processor=processor,
        budget=budget,
        sealing=sealing,
    )
    return reading, streams


def _issuers(settings: IdentitySettings) -> Issuers:
    return load_issuers(
        settings.issuers_file,
        fetch=fetch,
        token_seconds_max=settings.token_seconds_max,
        unreachable_seconds_max=settings.unreachable_seconds_max,
    )


async def _open_announcements(settings: Settings, stack: AsyncExitStack, pool: Pool, registry: RegistryCache) -> _Announcing:
    queue = await stack.enter_async_context(backends.open_queue(settings))
    announcements = PostgresAnnouncements(settings.database.dsn, pool)
    await announcements.start()
    stack.push_async_callback(announcements.stop)
    waker = Waker(queue) if queue is not None else None
    if waker is not None:
        stack.push_async_callback(waker.stop)
    return _Announcing(announcements, registry, waker)


async def _start(stack: AsyncExitStack, part: Attempts | Streams | RejectionQueue | Ingest | KeyUses | DropRecords) -> None:
    await part.start()
    stack.push_async_callback(part.stop)


async def _open_rejected(settings: Settings, stack: AsyncExitStack, pool: Pool) -> tuple[PostgresRejected, RejectionQueue]:
    rejected = PostgresRejected(settings.database.dsn, pool)
    stack.callback(rejected.close)
    rejections = RejectionQueue(rejected)
    await _start(stack, rejections)
    return rejected, rejections


async def _open_ingest(
    settings: Settings,
    stack: AsyncExitStack,
    store: RecordStore,
    announcements: Announcements,
    *,
    traces: CommitTraces | None,
    rejections: RejectionQueue,
) -> Ingest:
    ingest = Ingest(
        store,
        announcements,
        fingerprint_key=settings.identity.fingerprint_key.encode(),
        waiting_requests_max=settings.api.waiting_requests_max,
        waiting_bytes_max=settings.api.waiting_bytes_max,
        body_bytes_max=settings.api.body_bytes_max,
        traces=traces,
        rejections=rejections,
    )
    await _start(stack, ingest)
    return ingest


def _platform_tenant(registry: RegistryCache) -> Tenant:
    tenant = registry.cached_named(PLATFORM_TENANT)
    if tenant is None:
        raise DecklogError(
            Code.STORAGE_UNAVAILABLE,
            "The platform's own tenant does not exist yet. Provisioning creates it first.",
            retry_after=5,
        )
    return tenant
