"""TLS of the API: what it serves with, changed files, and handshakes of hostile clients."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from prometheus_client import REGISTRY
from websockets.asyncio.client import connect

from decklog.api.app import create_app
from decklog.api.certificates import Certificates, certificates_of
from decklog.api.connections import Limits
from decklog.api.server import serve
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.settings import Api, Settings
from tests.api.test_connections import LONG, QUICK, opened, refusal, refused, stalled
from tests.backends.certificates import write_pki
from tests.support.api_world import RECORD, World, polled
from tests.support.memory_store import fill


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders, each with a certificate for localhost, its key and its authority, as in a Secret of cert-manager."""
    folders = []
    for number in range(2):
        folder = tmp_path_factory.mktemp(f"issued-{number}")
        write_pki(folder, ["localhost"], ["127.0.0.1"])
        for name, target in (("apiserver.crt", "tls.crt"), ("apiserver.key", "tls.key")):
            shutil.copy(folder / name, folder / target)
        folders.append(folder)
    return folders


class Mounted:
    """A volume of a Secret: files behind a symbolic link that is replaced as a whole."""

    def __init__(self, folder: Path, content: Path) -> None:
        self.folder = folder
        (folder / "..data").symlink_to(content)
        for name in ("tls.crt", "tls.key"):
            (folder / name).symlink_to(Path("..data") / name)
        self.certificates = Certificates(folder / "tls.crt", folder / "tls.key", period=0.05)

    def swap(self, content: Path) -> None:
        """Show other files under the same names, at once."""
        (self.folder / "..next").symlink_to(content)
        (self.folder / "..next").rename(self.folder / "..data")


@pytest.fixture
def mounted(issued: list[Path], tmp_path: Path) -> Mounted:
    return Mounted(tmp_path, issued[0])


@asynccontextmanager
async def served(world: World, certificates: Certificates, limits: Limits = LONG) -> AsyncIterator[int]:
    app = create_app(world.services, Settings())
    async with serve(app, "127.0.0.1", 0, freeze=False, limits=limits, certificates=certificates) as server:
        yield server.port


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "ca.crt"))


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("decklog_http_certificate_reloads_total", {"outcome": outcome}) or 0.0


async def test_records_and_streams_pass_over_tls(world: World, mounted: Mounted, issued: list[Path]) -> None:
    context = trusting(issued[0])
    key = world.keys["acme", Role.ADMIN]
    async with served(world, mounted.certificates) as port:
        headers = {"Authorization": f"Bearer {key}"}
        url = f"wss://127.0.0.1:{port}/api/v1/logs/stream"
        async with (
            httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=context, headers=headers) as client,
            connect(url, ssl=context, additional_headers=headers) as listener,
        ):
            assert '"type":"open"' in str(await listener.recv())
            assert (await client.post("/api/v1/logs", json=RECORD)).status_code == 201
            assert '"type":"record"' in str(await listener.recv())
            assert (await client.get("/api/v1/logs", headers={"X": "a" * 40_000})).status_code == 431
    assert mounted.certificates.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert mounted.certificates.context.options & ssl.OP_NO_RENEGOTIATION


async def test_changed_certificate_is_served_to_new_connections_and_old_ones_go_on(
    world: World, mounted: Mounted, issued: list[Path]
) -> None:
    before, expiry = count("loaded"), REGISTRY.get_sample_value("decklog_http_certificate_expiry_timestamp_seconds")
    assert expiry is not None
    async with served(world, mounted.certificates) as port:
        async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=trusting(issued[0])) as old:
            assert (await old.get("/healthz")).status_code == 200
            mounted.swap(issued[1])
            async with asyncio.timeout(20):
                while count("loaded") == before:
                    await asyncio.sleep(0.02)
            assert (await old.get("/healthz")).status_code == 200
            async with httpx.AsyncClient(verify=trusting(issued[1])) as new:
                assert (await new.get(f"https://127.0.0.1:{port}/healthz")).status_code == 200
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient(verify=trusting(issued[0])) as late:
                await late.get(f"https://127.0.0.1:{port}/healthz")


def test_unusable_files_are_reported_once_and_the_old_certificate_stays(
    mounted: Mounted, issued: list[Path], tmp_path: Path
) -> None:
    certificates = mounted.certificates
    old, loaded, failed = certificates.context, count("loaded"), count("failed")
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(issued[1] / "tls.crt", broken / "tls.crt")
    shutil.copy(issued[0] / "tls.key", broken / "tls.key")
    mounted.swap(broken)
    for _ in range(3):
        certificates.reload()
    assert (certificates.context, count("failed")) == (old, failed + 1)
    (broken / "tls.key").unlink()
    for _ in range(3):
        certificates.reload()
    assert (certificates.context, count("failed")) == (old, failed + 2)
    shutil.copy(issued[1] / "tls.key", broken / "tls.key")
    certificates.reload()
    assert certificates.context is not old
    assert (count("loaded"), count("failed")) == (loaded + 1, failed + 2)


def test_files_that_cannot_be_served_with_are_refused_at_the_start(issued: list[Path], tmp_path: Path) -> None:
    certificate, key = str(issued[0] / "tls.crt"), str(issued[0] / "tls.key")
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAo=\n-----END ENCRYPTED PRIVATE KEY-----\n")
    for api, complaint in (
        (Api(tls_certificate_file=certificate), "Set both DECKLOG_API_TLS_CERTIFICATE_FILE and DECKLOG_API_TLS_KEY_FILE"),
        (Api(tls_key_file=key), "Set both"),
        (Api(tls_certificate_file="/absent", tls_key_file=key), "CERTIFICATE_FILE: the file cannot be read (No such file"),
        (Api(tls_certificate_file=certificate, tls_key_file="/absent"), "KEY_FILE: the file cannot be read (No such file"),
        (Api(tls_certificate_file=key, tls_key_file=key), "CERTIFICATE_FILE: the file contains no certificate"),
        (Api(tls_certificate_file=certificate, tls_key_file=certificate), "KEY_FILE: the file contains no private key"),
        (Api(tls_certificate_file=certificate, tls_key_file=str(locked)), "KEY_FILE: the file contains no private key"),
        (Api(tls_certificate_file=certificate, tls_key_file=str(issued[1] / "tls.key")), "the key does not belong"),
    ):
        with pytest.raises(DecklogError) as caught:
            certificates_of(api)
        assert caught.value.code is Code.MISCONFIGURED
        assert complaint in caught.value.detail
    assert certificates_of(Api()) is None
    assert certificates_of(Api(tls_certificate_file=certificate, tls_key_file=key)) is not None


async def test_handshakes_are_bounded_in_time_and_number(world: World, mounted: Mounted, issued: list[Path]) -> None:
    connections, before = opened(), refused("tls-handshake")
    async with served(world, mounted.certificates, msgspec.structs.replace(QUICK, idle_timeout=60)) as port:
        client = httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=trusting(issued[0]))
        hostile = []
        for number in range(100):
            hostile.append(socket.create_connection(("127.0.0.1", port)))
            hostile[-1].sendall(
                b"\x16\x03\x01\x02\x00\x01" if number % 2 else b"GET / HTTP/1.1\r\n\r\n" if number % 3 else b"\x16"
            )
        async with client:
            for _ in range(10):
                assert (await client.get("/healthz")).status_code == 200
            async with asyncio.timeout(20):
                while opened() > connections + 1:
                    await asyncio.sleep(0.05)
        for each in hostile:
            each.close()
        assert refused("tls-handshake") == before + 100
    assert opened() == connections


async def test_handshake_counts_for_the_bound_of_its_address(world: World, mounted: Mounted, issued: list[Path]) -> None:
    async with served(world, mounted.certificates, msgspec.structs.replace(LONG, per_address_max=3)) as port:
        half = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        await asyncio.sleep(0.1)
        async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=trusting(issued[0])) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/healthz")
            for each in half:
                each.close()
            await asyncio.sleep(0.1)
            assert (await client.get("/healthz")).status_code == 200


async def test_refusal_over_tls_is_a_problem(world: World, mounted: Mounted, issued: list[Path]) -> None:
    async with served(world, mounted.certificates) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(issued[0]))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")
        assert refusal(await asyncio.wait_for(reader.read(), 20)) == (400, "malformed-request")
        writer.close()


async def test_reader_over_tls_that_stops_reading_is_disconnected(world: World, mounted: Mounted, issued: list[Path]) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": "x" * 8_000} for _ in range(2_000)))
    before, connections = stalled("http"), opened()
    async with served(world, mounted.certificates, QUICK) as port:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        raw.connect(("127.0.0.1", port))
        context = trusting(issued[0])
        _, writer = await asyncio.open_connection(sock=raw, ssl=context, server_hostname="127.0.0.1", limit=1_024)
        key = world.keys["acme", Role.AUDITOR]
        writer.write(f"GET /api/v1/logs/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        async for actions in polled(world):
            if actions[-1:] == ["log.export.close"]:
                break
        assert stalled("http") == before + 1
        async with asyncio.timeout(20):
            while opened() > connections:
                await asyncio.sleep(0.05)
        writer.close()


async def test_server_with_tls_stops_while_handshakes_are_under_way(world: World, mounted: Mounted) -> None:
    async with served(world, mounted.certificates) as port:
        half = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        await asyncio.sleep(0.1)
    for each in half:
        assert each.recv(1) == b""
        each.close()
