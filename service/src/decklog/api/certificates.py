"""TLS of the API: the certificate and its key, read again whenever their files change, and the handshake before HTTP begins.

Files are compared by content: cert-manager and Kubernetes replace them through a symbolic link, so names and times tell little.
Open connections go on with the certificate that they began with.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import prometheus_client
import structlog
from cryptography import x509

from decklog.api.connections import Connection, Connections
from decklog.domain.errors import Code, DecklogError
from decklog.settings import Api

CERTIFICATE: Final = "DECKLOG_API_TLS_CERTIFICATE_FILE"
KEY: Final = "DECKLOG_API_TLS_KEY_FILE"
RELOAD_SECONDS: Final = 10.0
"""Seconds between two looks at the files."""
FILE_BYTES_MAX: Final = 1024 * 1024
SHUTDOWN_SECONDS: Final = 2.0
"""Seconds that a closed connection may take to say so in TLS."""
WRITE_BYTES_MAX: Final = 64 * 1024
"""Bytes of an answer that may wait in a connection, as without TLS; the event loop's own bound is eight times that."""
EARLY_BYTES_MAX: Final = 512 * 1024
"""Bytes of a client that may arrive between the end of the handshake and the beginning of HTTP: two reads of the event loop."""

_reloads = prometheus_client.Counter(
    "decklog_http_certificate_reloads", "Changes of the TLS files, by outcome: loaded or failed.", ["outcome"]
)
_expiry = prometheus_client.Gauge(
    "decklog_http_certificate_expiry_timestamp_seconds",
    "End of the served TLS certificate, in seconds since 1970; 0 without TLS.",
)
_log = structlog.get_logger(__name__)


class _Files(NamedTuple):
    certificate: bytes
    key: bytes


class Certificates:
    """The certificate that new connections are served with.

    Args:
        certificate: PEM file of the certificate and its intermediates, the server's own first.
        key: PEM file of its private key, not encrypted.
        period: Seconds between two looks at the files.

    Raises:
        DecklogError: `misconfigured`, if the files cannot be served with.
    """

    def __init__(self, certificate: Path, key: Path, *, period: float = RELOAD_SECONDS) -> None:
        self._paths = certificate, key
        self._period = period
        self._loaded = self._read()
        self.context = self._context(self._loaded)
        self._failed: _Files | str | None = None

    async def keep_watch(self) -> None:
        """Serve new connections with changed files, until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        """Load the files if they changed. Files that cannot be used are logged and counted once; the old ones stay."""
        found: _Files | None = None
        try:
            found = self._read()
            if found == self._loaded:
                self._failed = None
                return
            context = self._context(found)
        except DecklogError as error:
            # The same files are tried again: a certificate and its key may be read while they are being replaced.
            if self._failed != (found or error.detail):
                self._failed = found or error.detail
                _reloads.labels("failed").inc()
                _log.error("TLS files cannot be used; the old certificate stays", reason=error.detail)
            return
        self._loaded, self.context, self._failed = found, context, None
        _reloads.labels("loaded").inc()
        _log.info("TLS certificate loaded")

    def _read(self) -> _Files:
        read: list[bytes] = []
        for name, path in zip((CERTIFICATE, KEY), self._paths, strict=True):
            try:
                with path.open("rb") as file:
                    read.append(file.read(FILE_BYTES_MAX))
            except OSError as error:
                raise _unusable(f"{name}: the file cannot be read ({error.strerror}).") from None
        return _Files(*read)

    def _context(self, files: _Files) -> ssl.SSLContext:
        try:
            expires = x509.load_pem_x509_certificates(files.certificate)[0].not_valid_after_utc
        except (ValueError, IndexError):
            raise _unusable(f"{CERTIFICATE}: the file contains no certificate in PEM.") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(*self._paths, password=str)  # an empty password, as OpenSSL would ask the terminal for one
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise _unusable(f"{KEY}: the key does not belong to the certificate.") from None
            raise _unusable(f"{KEY}: the file contains no private key in PEM without a password ({error.reason}).") from None
        except OSError as error:
            raise _unusable(f"{KEY}: the file cannot be read ({error.strerror}).") from None
        _expiry.set(expires.timestamp())
        return context


def _unusable(why: str) -> DecklogError:
    return DecklogError(Code.MISCONFIGURED, why)


def certificates_of(settings: Api) -> Certificates | None:
    """Return the certificate that the settings of the API name, None for HTTP without TLS.

    Raises:
        DecklogError: `misconfigured`, if only one file is named or one cannot be used.
    """
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise _unusable(f"Set both {CERTIFICATE} and {KEY}, or neither.")
    return Certificates(Path(certificate), Path(key))


class Handshake(asyncio.Protocol):
    """One connection until TLS is agreed upon; `proceed` then makes the protocol that continues on it.

    The connection is counted from its first packet. Uvicorn's way would count it after the handshake only, so that half-open
    handshakes were bounded by nothing.

    Args:
        table: The connections of the server.
        certificates: What to serve with.
        proceed: Makes the protocol that follows; it gets this one, in whose place it is counted.
        beside: Uvicorn's set of open connections, each of which it shuts down when it stops.
    """

    def __init__(
        self,
        table: Connections,
        certificates: Certificates,
        proceed: Callable[[Connection], asyncio.Protocol],
        beside: set[Any],
    ) -> None:
        self._table = table
        self._certificates = certificates
        self._proceed = proceed
        self._beside = beside
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def waits_for_client(self) -> bool:
        """Always: nothing was requested yet."""
        return True

    def connection_made(self, transport: Any) -> None:
        """Begin the handshake, unless there are too many connections. No answer can be read before it, so none is sent."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        refusal = self._table.admit(self, peer[0] if isinstance(peer, tuple) else None)
        if refusal is not None:
            self._table.refused(refusal.code.value)
            self._table.left(self)
            self.drop()
            return
        self._beside.add(self)
        self._task = asyncio.get_running_loop().create_task(self._shake(transport), name="TLS handshake")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._table.left(self)
        self._beside.discard(self)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Keep what is decrypted before HTTP begins, a moment after the handshake."""
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes > EARLY_BYTES_MAX:
            self.drop()

    def look(self, now: float) -> None:
        """Do nothing: the event loop bounds the time of a handshake."""

    def shutdown(self) -> None:
        """End the handshake, as the server stops."""
        self.drop()

    def drop(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _shake(self, transport: asyncio.Transport) -> None:
        limits = self._table.limits
        try:
            agreed = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                self._certificates.context,
                server_side=True,
                ssl_handshake_timeout=limits.header_timeout,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except OSError:  # of TLS, of the network, or a timeout: a scanner, or a client that speaks no TLS
            self._table.refused("tls-handshake")
            transport.abort()
            self.connection_lost(None)
            return
        if agreed is None or agreed.is_closing() or self._transport is None:
            transport.abort()
            self.connection_lost(None)
            return
        self._beside.discard(self)
        agreed.set_write_buffer_limits(high=WRITE_BYTES_MAX)
        protocol = self._proceed(self)
        agreed.set_protocol(protocol)
        protocol.connection_made(agreed)
        for data in self._early:
            protocol.data_received(data)
