"""Whether Kopf still hears of changes: a process whose watch is dead looks alive and does nothing.

Handlers are not called where nothing changes, so what is looked at is the stream itself: Kopf is given an HTTP session of
ours, which knows the response that the watch is read from. Each byte of it is a sign of life, and so is its orderly end
at the time that was asked for. Bookmarks would not do: without any change in the whole cluster there may be none for ten
minutes. So each stream is asked to be short; the next one goes on where it ended, for one request and no list.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import aiohttp
import kopf

_STREAMS = 3
"""Streams within the longest silence that is borne: two may be lost without a false alarm."""
_STREAM_MAX = 60.0
"""Seconds of a stream, whatever silence is borne: Kopf itself gives up one that says nothing for 70."""
_CONNECTIONS_MAX = 32
"""To the API at once, of which the watch has one: a thousand Tenants that change together would shake hands a thousand times."""
_ORDERLY_SHARE = 0.5
"""Of its time: a stream that ends earlier and says nothing was no stream, whoever ended it."""


class WatchLife:
    """Signs of life of one operator's watch. `silence_max` is in seconds."""

    def __init__(self, silence_max: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._silence_max = silence_max
        self._clock = clock
        self._stream: aiohttp.StreamReader | None = None
        self._bytes = 0
        self._alive_at: float | None = None
        self._given: tuple[kopf.ConnectionInfo, kopf.AiohttpSession] | None = None

    @property
    def stream_seconds(self) -> float:
        """How long one stream is to be."""
        return min(self._silence_max / _STREAMS, _STREAM_MAX)

    def begin(self) -> None:
        """From now on there should be a watch."""
        self._alive_at = self._clock()

    def session(self, info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
        """The session that Kopf would make of this, but that its connections are bounded and we see its responses.

        The same for the same: Kopf gives up on credentials that were refused and are offered again, and would not know
        them by a new session.
        """
        if self._given is not None and self._given[0] == info:
            return self._given[1]
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._answered)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            trace_configs=[trace],
        )
        made = kopf.AiohttpSession(
            aiohttp_session=session,
            server=info.server,
            default_namespace=info.default_namespace,
            priority=info.priority,
            expiration=info.expiration,
        )
        self._given = info, made
        return made

    def silence(self) -> float:
        """Seconds since the last sign of life; 0 before `begin`."""
        if self._stream is not None and self._stream.total_bytes != self._bytes:
            self._bytes, self._alive_at = self._stream.total_bytes, self._clock()
        return 0.0 if self._alive_at is None else self._clock() - self._alive_at

    def complaint(self) -> str:
        """Why this process should be started again; empty while all is well."""
        silence = self.silence()
        return f"the watch of Tenants has been silent for {silence:.0f} s" if silence > self._silence_max else ""

    async def _answered(self, _: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        if params.response.status == 200 and params.url.query.get("watch") == "true":
            self.silence()  # what the stream before had to say
            self._stream, self._bytes = params.response.content, 0
            self._stream.on_eof(partial(self._ended, self._clock()))

    def _ended(self, opened_at: float) -> None:
        """The end as the server wrote it; a connection that breaks does not come here."""
        if self._clock() - opened_at >= self.stream_seconds * _ORDERLY_SHARE:
            self._alive_at = self._clock()
