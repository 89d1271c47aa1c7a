"""Detect a dead watch. A process with a dead watch looks alive and does nothing.

Without changes Kopf calls no handler, so this module observes the stream itself, through an HTTP session that it gives to Kopf.
Each received byte is a sign of life, and so is the orderly end of a stream at the requested time. Bookmarks do not suffice:
without a change in the whole cluster there may be none for ten minutes. Streams are therefore short; the next stream continues
where the last one ended, at the cost of one request and no list.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import aiohttp
import kopf

_STREAMS = 3
"""Streams within the longest allowed silence, so that two may be lost without a false alarm."""
_STREAM_MAX = 60.0
"""Longest stream in seconds. Kopf itself ends a stream that is silent for 70 s."""
_CONNECTIONS_MAX = 32
"""Connections to the API at once, one of them for the watch. A thousand changed Tenants would otherwise open a thousand."""
_ORDERLY_SHARE = 0.5
"""Share of its time that a silent stream must last to count as a sign of life."""


class WatchLife:
    """Track the signs of life of the watch. `silence_max` is in seconds."""

    def __init__(self, silence_max: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._silence_max = silence_max
        self._clock = clock
        self._stream: aiohttp.StreamReader | None = None
        self._bytes = 0
        self._alive_at: float | None = None
        self._given: tuple[kopf.ConnectionInfo, kopf.AiohttpSession] | None = None

    @property
    def stream_seconds(self) -> float:
        """Return the requested duration of one stream in seconds."""
        return min(self._silence_max / _STREAMS, _STREAM_MAX)

    def begin(self) -> None:
        """Expect a watch from now on."""
        self._alive_at = self._clock()

    def session(self, info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
        """Return the session that Kopf would build, with bounded connections and a trace of its responses.

        Equal credentials get the same session: Kopf gives up on refused credentials that it gets again, and recognises them by
        their session.
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
        """Return the seconds since the last sign of life; 0 before `begin`."""
        if self._stream is not None and self._stream.total_bytes != self._bytes:
            self._bytes, self._alive_at = self._stream.total_bytes, self._clock()
        return 0.0 if self._alive_at is None else self._clock() - self._alive_at

    def complaint(self) -> str:
        """Return why this process must be restarted; empty while the watch is alive."""
        silence = self.silence()
        return f"the watch of Tenants has been silent for {silence:.0f} s" if silence > self._silence_max else ""

    async def _answered(self, _: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        if params.response.status == 200 and params.url.query.get("watch") == "true":
            self.silence()  # counts the last bytes of the previous stream
            self._stream, self._bytes = params.response.content, 0
            self._stream.on_eof(partial(self._ended, self._clock()))

    def _ended(self, opened_at: float) -> None:
        """Handle the end that the server sent. A broken connection does not call this."""
        if self._clock() - opened_at >= self.stream_seconds * _ORDERLY_SHARE:
            self._alive_at = self._clock()
