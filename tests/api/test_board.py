"""The board's files as the API serves them, from a folder like that of a build."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from decklog.api.app import create_app
from decklog.api.routes import board
from decklog.api.server import serve
from decklog.settings import Board, Settings
from tests.support.api_world import World, code_of

PAGE = b"<!doctype html><title>Decklog</title>"
FRAMED = b"<!doctype html><title>Records</title>"
SCRIPT = b"console.log('board')" * 100
ASSET = "/board/assets/app-8d1f0a.js"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A built board: a page, a script with a hash in its name and its compressed forms, a picture, and the build's own file."""
    files = {
        "index.html": PAGE,
        "mark.svg": b"<svg/>",
        "embed.html": FRAMED,
        "embed.js": SCRIPT,
        "assets/app-8d1f0a.js": SCRIPT,
        "assets/app-8d1f0a.js.gz": gzip.compress(SCRIPT),
        "assets/app-8d1f0a.js.br": b"by brotli",
        "assets/app-8d1f0a.js.zst": b"by zstandard",
        ".vite/manifest.json": b"{}",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


@asynccontextmanager
async def visiting(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: Path, *, enabled: bool = True, ancestors: str = ""
) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(board, "FOLDER", folder)
    app = create_app(world.services, Settings(board=Board(enabled=enabled, frame_ancestors=ancestors)))
    async with (
        serve(app, "127.0.0.1", 0, freeze=False) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers={"Accept-Encoding": "identity"}) as client,
    ):
        yield client


async def test_page_is_returned_at_every_path_that_is_no_file(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    async with visiting(world, monkeypatch, folder) as client:
        for path in ("/board", "/board/", "/board/search", "/board/records/17/story.v2", "/board/exports", "/board/stream"):
            answer = await client.get(path)
            assert (answer.status_code, answer.content) == (200, PAGE), path
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["cache-control"] == "no-cache"
        front = await client.get("/")
        assert (front.status_code, front.headers["location"]) == (302, "/board")
        assert (await client.post("/board")).headers["allow"] == "GET, HEAD, OPTIONS"


async def test_files_with_a_hash_in_their_names_are_immutable_and_others_are_revalidated(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    async with visiting(world, monkeypatch, folder) as client:
        script, picture = await client.get(ASSET), await client.get("/board/mark.svg")
        assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert (picture.headers["cache-control"], picture.headers["content-type"]) == ("no-cache", "image/svg+xml")
        again = await client.get("/board/mark.svg", headers={"If-None-Match": f'"other", W/{picture.headers["etag"]}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", picture.headers["etag"])
        changed = await client.get("/board/mark.svg", headers={"If-None-Match": '"other"'})
        assert changed.status_code == 200


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=0.5, zstd", "zstd"),
        ("br;q=0, *", "zstd"),
        ("identity, br;q=0.5", None),
        ("", None),
    ],
)
async def test_file_is_sent_by_the_coding_that_the_client_prefers(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: Path, accepted: str, coding: str | None
) -> None:
    async with (
        visiting(world, monkeypatch, folder) as client,
        client.stream("GET", ASSET, headers={"Accept-Encoding": accepted}) as answer,
    ):
        raw = b"".join([piece async for piece in answer.aiter_raw()])
        suffix = "" if coding is None else board.CODINGS[coding]
        assert raw == (folder / f"assets/app-8d1f0a.js{suffix}").read_bytes()
        assert answer.headers.get("content-encoding") == coding
        assert answer.headers["content-length"] == str(len(raw))
        assert answer.headers["vary"] == "accept-encoding"
        assert answer.headers["etag"].endswith(f'-{coding or "identity"}"')


async def test_absent_script_is_not_found_and_never_the_page(world: World, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A page of an older build asks for scripts that are gone. As a script, the page would fail without a reason."""
    async with visiting(world, monkeypatch, folder) as client:
        answer = await client.get("/board/assets/app-000000.js")
        assert (answer.status_code, code_of(answer)) == (404, "not-found")
        assert "reload" in answer.json()["detail"]
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/board/../pyproject.toml",
        "/board/%2e%2e/%2e%2e/settings.py",
        "/board/..%2f..%2fsettings.py",
        "/board/%00",
        "/board/assets/..%5c..%5csettings.py",
        "/board//etc/passwd",
        "/board/.vite/manifest.json",
        "/board/assets/app-8d1f0a.js.gz",
        "/board/" + "a/" * 500,
    ],
)
async def test_no_path_leads_out_of_the_folder_or_to_files_of_the_build(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: Path, path: str
) -> None:
    async with visiting(world, monkeypatch, folder) as client:
        target = httpx.URL(client.base_url, raw_path=path.encode())  # as written: httpx would resolve the dots
        answer = await client.send(httpx.Request("GET", target))
        assert answer.content == PAGE or answer.status_code in (400, 404), path


async def test_page_forbids_other_hosts_inline_scripts_and_frames(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    async with visiting(world, monkeypatch, folder) as client:
        headers = (await client.get("/board")).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'",
            "img-src": "'self' data:", "font-src": "'self'", "base-uri": "'none'", "form-action": "'self'",
            "frame-ancestors": "'none'", "require-trusted-types-for": "'script'",
        }  # fmt: skip
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert [name for name, _ in headers.multi_items()].count("content-security-policy") == 1


async def test_board_that_is_not_built_says_how_and_leaves_the_api_as_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with visiting(world, monkeypatch, tmp_path) as client:
        for path in ("/board", "/board/search", ASSET):
            answer = await client.get(path)
            assert (answer.status_code, code_of(answer)) == (404, "not-found")
            assert "`make board`" in answer.json()["detail"]
        assert (await client.get("/")).headers["location"] == "/schema"
        assert (await client.get("/healthz")).status_code == 200


async def test_board_is_left_out_when_a_setting_says_so(world: World, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    async with visiting(world, monkeypatch, folder, enabled=False) as client:
        answer = await client.get("/board")
        assert (answer.status_code, code_of(answer)) == (404, "not-found")
        assert (await client.get("/")).headers["location"] == "/schema"


async def test_metrics_count_the_board_by_route_and_not_by_path(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    async with visiting(world, monkeypatch, folder) as client:
        for number in range(5):
            await client.get(f"/board/records/{number}")
        routes = set(re.findall(r'route="([^"]*board[^"]*)"', (await client.get("/metrics")).text))
        assert routes <= {"/board", "/board/{path}", "/board/{path:path}"}


ORIGINS = "https://app.example.com https://*.example.org:8443"


@pytest.mark.parametrize(("ancestors", "allowed"), [("", "'none'"), (ORIGINS, ORIGINS)])
async def test_frames_are_for_one_page_and_for_the_configured_origins(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: Path, ancestors: str, allowed: str
) -> None:
    async with visiting(world, monkeypatch, folder, ancestors=ancestors) as client:
        for path, content, wanted in (
            ("/board/embed", FRAMED, allowed),
            ("/board/embed/", FRAMED, allowed),
            ("/board", PAGE, "'none'"),
            ("/board/embed/other", PAGE, "'none'"),
            ("/board/embed.html", FRAMED, "'none'"),
        ):
            answer = await client.get(path)
            assert (answer.status_code, answer.content) == (200, content), path
            assert f"frame-ancestors {wanted};" in answer.headers["content-security-policy"]
            assert "script-src 'self'; style-src 'self'" in answer.headers["content-security-policy"]


async def test_script_of_the_element_is_for_every_origin_and_no_other_file_is(
    world: World, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    async with visiting(world, monkeypatch, folder) as client:
        element = await client.get("/board/embed.js", headers={"Origin": "https://app.example.com"})
        assert (element.content, element.headers["cache-control"]) == (SCRIPT, "no-cache")
        assert element.headers["access-control-allow-origin"] == "*"
        assert element.headers["cross-origin-resource-policy"] == "cross-origin"
        for path in ("/board", "/board/mark.svg", ASSET):
            answer = await client.get(path, headers={"Origin": "https://app.example.com"})
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "'self'",
        "https:",
        "app.example.com",
        "https://a.example/path",
        "https://a.example;",
        "https://a.example  https://b.example",
        "javascript:x",
    ],
)
def test_frame_ancestors_are_origins_and_nothing_else(value: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"frame_ancestors": value}, Board)
