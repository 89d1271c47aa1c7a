"""Exports over a real socket: the form that a client asks for, compressed, chosen fields, and never a part that looks whole."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import zlib
from typing import Any

import httpx
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from decklog.api.content_coding import coding_for, weights
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.records import projection
from decklog.domain.records.wire import evaluable
from tests.support.api_world import World, code_of
from tests.support.memory_store import fill

PATH = "/api/v1/logs/export"


def unpacked(coding: str, data: bytes) -> tuple[bytes, bool]:
    """Return what can be decompressed, and whether it is whole."""
    decoder: Any = zlib.decompressobj(31) if coding == "gzip" else zstandard.ZstdDecompressor().decompressobj()
    return decoder.decompress(data), decoder.eof


async def raw(client: httpx.AsyncClient, query: str = "", **headers: str) -> tuple[httpx.Response, bytes]:
    """Return an answer, and its body as it was sent."""
    async with client.stream("GET", PATH + query, headers=headers) as response:
        return response, b"".join([part async for part in response.aiter_raw()])


@pytest.mark.parametrize("form", ["ndjson", "json", "csv"])
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_export_is_compressed_as_the_client_accepts(world: World, coding: str, form: str) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": f"{n} " + "x" * 2_000} for n in range(2_500)))
    async with world.client(Role.AUDITOR) as client:
        plain, whole = await raw(client, f"?format={form}", **{"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        coded, body = await raw(client, f"?format={form}", **{"accept-encoding": coding})
        assert coded.headers["content-encoding"] == coding
        assert coded.headers["vary"] == "Accept, Accept-Encoding"
        assert len(body) * 10 < len(whole)
        assert unpacked(coding, body) == (whole, True)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_compressed_export_that_fails_midway_is_visibly_cut_and_readable_up_to_there(world: World, coding: str) -> None:
    await fill(world.store, world.tenant("acme"), *({"message": f"{n} " + "x" * 2_000} for n in range(6_000)))
    real, reads = world.store.read, 0

    async def failing(*arguments: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 5:
            raise DecklogError(Code.STORAGE_UNAVAILABLE, "Broke on purpose.")
        return await real(*arguments, **more)

    world.store.read = failing  # type: ignore[method-assign]
    received = b""
    async with world.client(Role.AUDITOR) as client, client.stream("GET", PATH, headers={"accept-encoding": coding}) as response:
        with contextlib.suppress(httpx.RemoteProtocolError):
            async for part in response.aiter_raw():
                received += part
    text, whole = unpacked(coding, received)
    assert not whole
    assert [json.loads(line)["seq"] for line in text.splitlines()] == list(range(text.count(b"\n")))
    assert text.endswith(b"\n")
    assert text.count(b"\n") > 100


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("identity", None),
        ("br, deflate", None),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP;Q=0.5", "gzip"),
        ("GZIP;q=0.5, identity;q=0.1", "gzip"),
        ("gzip;q=1.0, zstd;q=0.9", "gzip"),
        ("zstd;q=0, gzip;q=0", None),
        ("*", "zstd"),
        ("*;q=0, gzip", "gzip"),
        ("zstd;q=0, *", "gzip"),
        ("gzip;q=nonsense, zstd", "zstd"),
        ("identity, gzip;q=0.5", None),
        (",,;=", None),
    ],
)
def test_coding_follows_the_weights_of_the_header(header: str, expected: str | None) -> None:
    found = coding_for(header)
    assert (found and found.name) == expected


@given(st.text(max_size=60))
def test_weights_of_any_header_lie_between_zero_and_one(header: str) -> None:
    assert all(0 <= weight <= 1 for weight in weights(header).values())


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/csv", "text/csv"),
        ("application/json", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
        ("text/*", "text/csv"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/x-ndjson"),
        ("application/json;q=0.5, text/csv;q=0.9", "text/csv"),
        ("TEXT/CSV; header=present", "text/csv"),
    ],
)
async def test_export_has_the_format_that_accept_prefers_and_format_precedes(world: World, accept: str, media_type: str) -> None:
    async with world.client(Role.AUDITOR) as client:
        assert (await client.get(PATH, headers={"accept": accept})).headers["content-type"].partition(";")[0] == media_type
        chosen = await client.get(PATH + "?format=csv", headers={"accept": accept})
        assert chosen.headers["content-type"].startswith("text/csv")


async def test_export_refuses_an_accept_header_without_its_types(world: World) -> None:
    async with world.client(Role.AUDITOR) as client:
        for accept in ("application/vnd.ms-excel", "text/csv;q=0", "image/*"):
            response = await client.get(PATH, headers={"accept": accept})
            assert (response.status_code, code_of(response)) == (415, "unsupported-media-type")
            assert "text/csv" in response.json()["detail"]


RECORD: dict[str, Any] = {
    "actor": {"id": "alice", "type": "user"},
    "message": "=x",
    "metadata": {"big": 2**70, "a.b": {"c": "deep"}, "a": {"b": {"c": "hidden", "d": 1.0}}, "list": [1, {"x": 2}], "none": None},
}


async def test_export_writes_the_chosen_fields_only(world: World) -> None:
    await fill(world.store, world.tenant("acme"), RECORD, {})
    fields = "seq,actor.id,metadata.big,metadata.a.b.c,metadata.a.b.d,metadata.none,message,session_id"
    async with world.client(Role.AUDITOR) as client:
        lines = (await client.get(f"{PATH}?fields={fields}")).text.splitlines()
        table = (await client.get(f"{PATH}?fields={fields}&format=csv&bom=true")).content
    first = json.loads(lines[0])
    assert first["seq"] == 0
    assert first["actor"] == {"id": "alice"}
    assert first["metadata"] == {"big": 2**70, "a.b.c": "deep", "a.b.d": 1, "none": None}
    assert "1180591620717411303424" in lines[0]
    assert json.loads(lines[1]).keys() == {"seq", "actor"}
    assert table.startswith(b"\xef\xbb\xbfseq,")
    header, row, _ = csv.reader(io.StringIO(table.decode("utf-8-sig"), newline=""))
    assert header == fields.split(",")
    assert row == ["0", "alice", str(2**70), "deep", "1", "null", "'=x", ""]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("fields=", "'' is not a field"),
        ("fields=seq,", "'' is not a field"),
        ("fields=colour", "'colour' is not a field. Fields: tenant, log,"),
        ("fields=actor.colour", "Allowed: actor.type, actor.id, actor.name"),
        ("fields=action.x", "'action.x' is not a field"),
        ("fields=metadata.", "'metadata.' is not a field"),
        ("fields=seq,seq", "'seq' is there twice"),
        ("fields=" + ",".join(f"metadata.{n}" for n in range(51)), "at most 50 fields"),
        ("fields=seq&format=json", "is for format=ndjson and format=csv only"),
        ("bom=true", "is for format=csv only"),
        ("bom=yes&format=csv", "'yes' is not one of true, false"),
    ],
)
async def test_export_refuses_what_a_form_does_not_have(world: World, query: str, reason: str) -> None:
    async with world.client(Role.AUDITOR) as client:
        response = await client.get(f"{PATH}?{query}")
    assert (response.status_code, code_of(response)) == (422, "invalid-parameter")
    assert reason in response.json()["detail"]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: st.dictionaries(st.text(alphabet="ab.", min_size=1, max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    st.text(alphabet="ab.", min_size=1, max_size=6),
)
def test_chosen_value_is_one_that_a_path_of_names_leads_to(metadata: Any, path: str) -> None:
    def reached(value: Any, rest: str) -> list[Any]:
        if not isinstance(value, dict):
            return []
        inner = [found for name in value if rest.startswith(name + ".") for found in reached(value[name], rest[len(name) + 1 :])]
        return ([value[rest]] if rest in value else []) + inner

    [found] = projection.chosen(json.dumps({"metadata": metadata}), [f"metadata.{path}"])
    possible = reached(metadata, path)
    assert (found is None) == (not possible)
    assert found is None or json.loads(bytes(found)) in possible


@pytest.mark.parametrize("coding", ["gzip", "identity"])
async def test_slow_export_moves_on_before_it_is_complete(world: World, coding: str) -> None:
    """What was read is sent and readable, although the next batch does not come."""
    await fill(world.store, world.tenant("acme"), *({"message": f"{n} " + "x" * 2_000} for n in range(6_000)))
    real, reads, resume = world.store.read, 0, asyncio.Event()

    async def slow(*arguments: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 5:
            await resume.wait()
        return await real(*arguments, **more)

    world.store.read = slow  # type: ignore[method-assign]
    decoder = zlib.decompressobj(31)
    async with world.client(Role.AUDITOR) as client, client.stream("GET", PATH, headers={"accept-encoding": coding}) as response:
        parts, text = response.aiter_raw(), b""
        while text.count(b"\n") < 200:
            part = await asyncio.wait_for(anext(parts), 20)
            text += decoder.decompress(part) if coding == "gzip" else part
        resume.set()
        async for part in parts:
            text += decoder.decompress(part) if coding == "gzip" else part
    assert text.count(b"\n") == 6_000


async def test_export_continues_after_a_position_and_counts_what_it_has(world: World) -> None:
    await fill(world.store, world.tenant("acme"), *({"severity": "ERROR" if n % 2 else "INFO"} for n in range(50)))
    async with world.client(Role.AUDITOR) as client:
        first = await client.get(PATH + "?count=exact&severity=ERROR")
        assert first.headers["decklog-total"] == "25"
        position = first.headers["decklog-position"]
        assert "decklog-total" not in (await client.get(PATH + f"?after={position}")).headers
        assert (await client.get(PATH + f"?after={position}")).text == ""
        await fill(world.store, world.tenant("acme"), *({"severity": "ERROR" if n % 2 else "INFO"} for n in range(10)))
        rest = await client.get(PATH + f"?after={position}&count=exact&severity=ERROR")
        found = [json.loads(line)["seq"] for line in first.text.splitlines() + rest.text.splitlines()]
        assert (rest.headers["decklog-total"], found) == ("5", list(range(1, 60, 2)))
        last = json.loads(rest.text.splitlines()[0])["seq"]
        assert [json.loads(line)["seq"] for line in (await client.get(PATH + f"?after={last}")).text.splitlines()] == list(
            range(52, 60)
        )
        for after in ("60", "9.1769860800123456.3", "x", "1-2"):
            refused = await client.get(PATH, params={"after": after})
            assert (refused.status_code, code_of(refused)) == (422, "invalid-parameter"), after


async def test_csv_export_is_guarded_and_the_guard_is_reversible(world: World) -> None:
    evils = [start + "cmd|' /C calc'!A0" for start in ("=", "a;=", 'a;"=', "a\n-", "\t@", "'=", "a;'+")]
    await fill(world.store, world.tenant("acme"), *({"message": evil} for evil in evils))
    async with world.client(Role.AUDITOR) as client:
        text = (await client.get(PATH + "?format=csv")).text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [evaluable(row["message"]) for row in rows] == evils
    assert all(row["message"] != evil for row, evil in zip(rows, evils, strict=True))
