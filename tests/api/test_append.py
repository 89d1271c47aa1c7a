"""Appending records, singly and in bulk, over a real socket."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zstandard

from decklog import shapes
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.log import LogName
from decklog.domain.records.canonical import canonical
from decklog.domain.records.recorder import RecordedBy
from decklog.domain.tenant import Limits
from tests.support.api_world import RECORD, World, code_of, connect
from tests.support.memory import make_tenant


async def test_append_returns_the_position_of_the_record(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        for seq in range(3):
            response = await client.post("/api/v1/logs", json=RECORD)
            assert response.status_code == 201
            receipt = msgspec.json.decode(response.content, type=shapes.Receipt)
            assert (receipt.tenant, receipt.log, receipt.seq, receipt.status) == ("acme", "events", seq, "stored")


async def test_append_returns_duplicate_for_a_retry_and_conflict_for_other_content(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        first = await client.post("/api/v1/logs", json={**RECORD, "id": "x"})
        again = await client.post("/api/v1/logs", json={**RECORD, "id": "x"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json() == {**first.json(), "status": "duplicate"}
        other = await client.post("/api/v1/logs", json={**RECORD, "id": "x", "message": "changed"})
        assert (other.status_code, code_of(other), other.json()["seq"]) == (409, "id-conflict", 0)


async def test_retry_with_a_guessed_secret_has_the_answer_of_any_retry(world: World) -> None:
    def sent(pin: str | int) -> dict[str, Any]:
        return {**RECORD, "id": "x", "metadata": {"account": "a-7", "password": pin}}

    async with world.client(Role.WRITER) as client:
        first = await client.post("/api/v1/logs", json=sent("0413"))
        answers = [await client.post("/api/v1/logs", json=sent(guess)) for guess in ("0412", "0413", 413, "", "0413" * 99)]
        assert [answer.status_code for answer in answers] == [200] * 5
        assert [answer.json() for answer in answers] == [{**first.json(), "status": "duplicate"}] * 5
        assert {answer.headers["content-length"] for answer in answers} == {answers[0].headers["content-length"]}
        bulk = await client.post("/api/v1/logs/bulk", json=[sent(f"{pin:04}") for pin in range(10_000)])
        assert (bulk.json()["duplicates"], bulk.json()["rejected"]) == (10_000, 0)


async def test_record_says_which_credential_stored_it_first(world: World) -> None:
    subject = world.keys["acme", Role.WRITER].split("_")[1]
    by = {"type": "api_key", "id": subject, "ip": "127.0.0.1"}
    async with world.client(Role.WRITER) as writer, world.client(Role.ADMIN) as admin:
        await writer.post("/api/v1/logs", json={**RECORD, "id": "x"})
        await writer.post("/api/v1/logs/bulk", json=[{**RECORD, "id": "y"}])
        again = await admin.post("/api/v1/logs", json={**RECORD, "id": "x"})
        assert (again.status_code, again.json()["seq"]) == (200, 0)
        record = (await admin.get("/api/v1/logs/0")).json()
        assert record["recorded_by"] == by
        assert msgspec.convert(record, shapes.Record).recorded_by == RecordedBy("api_key", subject, ip="127.0.0.1")
        served = {"tenant", "log", "epoch", "seq", "received_at", "digest"}
        content = canonical({name: value for name, value in record.items() if name not in served})
        assert record["digest"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert [item["recorded_by"] for item in (await admin.get("/api/v1/logs")).json()["items"]] == [by, by]
        rows = list(csv.DictReader((await admin.get("/api/v1/logs/export?format=csv")).text.splitlines()))
        assert [json.loads(row["recorded_by"]) for row in rows] == [by, by]


async def test_append_uses_the_idempotency_key_as_the_id(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        headers = {"Idempotency-Key": "order-7"}
        assert (await client.post("/api/v1/logs", json=RECORD, headers=headers)).status_code == 201
        assert (await client.post("/api/v1/logs", json=RECORD, headers=headers)).status_code == 200
        assert (await client.post("/api/v1/logs", json={**RECORD, "id": "order-7"})).status_code == 200
        bad = await client.post("/api/v1/logs", json=RECORD, headers={"Idempotency-Key": "x" * 300})
        assert (bad.status_code, code_of(bad)) == (422, "invalid-parameter")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid-json"),
        (b"{", 422, "invalid-json"),
        (b'{"action":"x","actor":{"id":"\\ud800"}}', 422, None),
        (b'{"action":"x\\u0000","actor":{"id":"a"}}', 422, "invalid-record"),
        (b"[]", 422, "invalid-record"),
        (b'{"action":"x","actor":{"id":"a"},"tenant":"other"}', 422, "invalid-record"),
        (b'{"action":"x","actor":{"id":"a"},"role":"admin"}', 422, "invalid-record"),
        (b'{"action":"x","actor":{"id":"a"},"seq":7}', 422, "invalid-record"),
        (b'{"action":"x","actor":{"id":"a"},"occurred_at":"2026-01-01T00:00:00"}', 422, "invalid-record"),
        (b'{"action":"x","actor":{"id":"a"},"message":"' + b"x" * 300_000 + b'"}', 413, "body-too-large"),
    ],
)
async def test_append_refuses_an_invalid_record_with_the_reason(world: World, body: bytes, status: int, code: str | None) -> None:
    async with world.client(Role.WRITER) as client:
        response = await client.post("/api/v1/logs", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status
        assert code is None or code_of(response) == code
        assert (await world.store.head(world.tenant("acme"), LogName.EVENTS)).next_seq == 0


@pytest.mark.parametrize(("path", "mebibytes"), [("/api/v1/logs", 1), ("/api/v1/logs/bulk", 17)])
async def test_append_refuses_an_oversized_body_before_it_ends(world: World, path: str, mebibytes: int) -> None:
    key = world.keys["acme", Role.WRITER]

    def send() -> bytes:
        with connect(world) as connection:
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nTransfer-Encoding: chunked\r\n"
                "Content-Type: application/json\r\n\r\n".encode()
            )
            for _ in range(mebibytes * 16):
                connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65_536)
            return answer

    answer = await asyncio.to_thread(send)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body-too-large"' in answer


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-Type": "text/plain"}, "unsupported-media-type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "unsupported-media-type"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "unsupported-encoding"),
    ],
)
async def test_append_refuses_other_media_types_and_encodings(world: World, headers: dict[str, str], code: str) -> None:
    async with world.client(Role.WRITER) as client:
        response = await client.post("/api/v1/logs", content=json.dumps(RECORD), headers=headers)
        assert (response.status_code, code_of(response)) == (415, code)


async def test_append_accepts_a_charset_parameter(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        headers = {"Content-Type": "Application/JSON; charset=utf-8"}
        assert (await client.post("/api/v1/logs", content=json.dumps(RECORD), headers=headers)).status_code == 201


async def test_append_sends_rate_limit_headers_before_and_at_the_limit(world: World) -> None:
    world.add(make_tenant("small"), events_per_second=1, burst=2)
    async with world.client(Role.WRITER, "small") as client:
        first = await client.post("/api/v1/logs", json=RECORD)
        assert first.headers["ratelimit-policy"] == '"append";q=2;w=2'
        assert first.headers["ratelimit"] == '"append";r=1;t=1'
        await client.post("/api/v1/logs", json=RECORD)
        refused = await client.post("/api/v1/logs", json=RECORD)
        assert (refused.status_code, code_of(refused)) == (429, "rate-limited")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["retry_after"] == int(refused.headers["retry-after"])


async def test_append_returns_503_with_retry_after_when_storage_is_unavailable(world: World) -> None:
    world.store.failing = DecklogError(Code.STORAGE_UNAVAILABLE, "Away on purpose.", retry_after=3)
    async with world.client(Role.WRITER) as client:
        for path, body in (("/api/v1/logs", RECORD), ("/api/v1/logs/bulk", [RECORD])):
            response = await client.post(path, json=body)
            assert (response.status_code, code_of(response)) == (503, "storage-unavailable")
            assert response.headers["retry-after"] == "3"


async def test_append_returns_an_opaque_internal_error_on_an_unexpected_exception(world: World) -> None:
    async def broken(*arguments: Any, **more: Any) -> Any:
        raise ZeroDivisionError("the secret is 42")

    world.ingest.append = broken  # type: ignore[method-assign]
    world.ingest.append_bulk = broken  # type: ignore[method-assign]
    async with world.client(Role.WRITER) as client:
        for path, body in (("/api/v1/logs", RECORD), ("/api/v1/logs/bulk", [RECORD])):
            response = await client.post(path, json=body)
            assert (response.status_code, code_of(response)) == (500, "internal")
            assert "the secret is" not in response.text


# Bulk


def streamed_zstd(body: bytes) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(body) + packer.flush()


FORMS = {
    "array": ("application/json", json.dumps([RECORD] * 3).encode()),
    "spaced array": ("application/json", b" [ " + b" , ".join([json.dumps(RECORD, indent=1).encode()] * 3) + b" ] \n"),
    "lines": ("application/x-ndjson", b"".join(json.dumps(RECORD).encode() + b"\n" for _ in range(3))),
    "lines with blank ones": ("application/x-ndjson", b"\n\r\n" + b"\r\n \n".join([json.dumps(RECORD).encode()] * 3)),
}
PACK: dict[str, Callable[[bytes], bytes]] = {
    "identity": lambda body: body,
    "gzip": gzip.compress,
    "two gzip members": lambda body: gzip.compress(body[:20], mtime=0) + gzip.compress(body[20:], mtime=0),
    "zstd": lambda body: zstandard.ZstdCompressor().compress(body),
    "two zstd frames": lambda body: zstandard.compress(body[:20]) + zstandard.compress(body[20:]),
    "streamed zstd": streamed_zstd,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pack", PACK)
async def test_bulk_accepts_every_media_type_and_encoding(world: World, form: str, pack: str) -> None:
    media_type, body = FORMS[form]
    encoding = pack.rsplit(" ", maxsplit=1)[-1] if "members" not in pack and "frames" not in pack else pack.split()[1]
    async with world.client(Role.WRITER) as client:
        response = await client.post(
            "/api/v1/logs/bulk",
            content=PACK[pack](body),
            headers={"Content-Type": media_type, "Content-Encoding": encoding},
        )
        assert response.status_code == 200, response.text
        answer = msgspec.json.decode(response.content, type=shapes.BulkAnswer)
        assert (answer.stored, answer.duplicates, answer.rejected) == (3, 0, 0)
        assert [item.seq for item in answer.items] == [0, 1, 2]


async def test_bulk_stores_valid_records_beside_invalid_ones_in_order(world: World) -> None:
    records = [{**RECORD, "id": "a"}, {"action": "x"}, {**RECORD, "id": "a"}, 7, {**RECORD, "id": "b"}]
    async with world.client(Role.WRITER) as client:
        response = await client.post("/api/v1/logs/bulk", json=records)
        assert response.status_code == 200
        answer = response.json()
        assert (answer["stored"], answer["duplicates"], answer["rejected"]) == (2, 1, 2)
        assert [item["status"] for item in answer["items"]] == ["stored", "rejected", "duplicate", "rejected", "stored"]
        assert [item.get("seq") for item in answer["items"]] == [0, None, 0, None, 1]
        assert {item["error"]["code"] for item in answer["items"] if "error" in item} == {"invalid-record"}


async def test_atomic_bulk_stores_nothing_when_one_record_is_invalid(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        refused = await client.post("/api/v1/logs/bulk?atomic=true", json=[RECORD, {"action": "x"}, RECORD])
        assert (refused.status_code, code_of(refused)) == (422, "batch-rejected")
        assert [error["index"] for error in refused.json()["errors"]] == [1]
        assert (await world.store.head(world.tenant("acme"), LogName.EVENTS)).next_seq == 0
        assert (await client.post("/api/v1/logs/bulk?atomic=true", json=[RECORD, RECORD])).json()["stored"] == 2


async def test_bulk_derives_item_ids_from_the_idempotency_key(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        headers = {"Idempotency-Key": "load-1"}
        first = await client.post("/api/v1/logs/bulk", json=[RECORD, RECORD], headers=headers)
        again = await client.post("/api/v1/logs/bulk", json=[RECORD, RECORD], headers=headers)
        assert (first.json()["stored"], again.json()["duplicates"]) == (2, 2)
        assert (await client.post("/api/v1/logs", json={**RECORD, "id": "load-1/1"})).json()["seq"] == 1


async def test_append_and_bulk_refuse_a_record_above_the_tenants_size_limit(world: World) -> None:
    world.add(make_tenant("brief", limits=Limits(record_bytes_max=1_024)))
    fits, too_large = ({**RECORD, "message": "x" * length} for length in (900, 1_024))
    async with world.client(Role.WRITER, "brief") as client, world.client(Role.WRITER) as other:
        assert (await client.post("/api/v1/logs", json=fits)).status_code == 201
        refused = await client.post("/api/v1/logs", json=too_large)
        assert (refused.status_code, code_of(refused)) == (413, "body-too-large")
        assert "'brief' may have at most 1024 bytes" in refused.json()["detail"]
        items = (await client.post("/api/v1/logs/bulk", json=[too_large, fits])).json()["items"]
        assert (items[0]["error"]["code"], items[1]["status"]) == ("body-too-large", "stored")
        lines = b"\n".join(json.dumps(record).encode() for record in (fits, too_large))
        kind = {"Content-Type": "application/x-ndjson"}
        items = (await client.post("/api/v1/logs/bulk", content=lines, headers=kind)).json()["items"]
        assert (items[0]["status"], items[1]["error"]["code"]) == ("stored", "body-too-large")
        assert (await other.post("/api/v1/logs", json=too_large)).status_code == 201


async def test_bulk_accepts_an_empty_array(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        assert (await client.post("/api/v1/logs/bulk", json=[])).json() == {
            "stored": 0,
            "duplicates": 0,
            "rejected": 0,
            "items": [],
        }


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{}", {}, 422, "invalid-json"),
        (b'"x"', {}, 422, "invalid-json"),
        (b"[1,", {}, 422, "invalid-json"),
        (b"[" * 100_000, {}, 422, "invalid-json"),
        (b"[\xff]", {}, 422, "invalid-json"),
        (b"[]", {"Content-Type": "text/csv"}, 415, "unsupported-media-type"),
        (b"[]", {"Content-Encoding": "br"}, 415, "unsupported-encoding"),
        (b"[]", {"Content-Encoding": "gzip, gzip"}, 415, "unsupported-encoding"),
        (b"[]", {"Content-Encoding": "gzip"}, 415, "unsupported-encoding"),
        (b"[]", {"Content-Encoding": "zstd"}, 415, "unsupported-encoding"),
        (b"", {"Content-Encoding": "gzip"}, 415, "unsupported-encoding"),
        (b"", {"Content-Encoding": "zstd"}, 415, "unsupported-encoding"),
        (gzip.compress(b"[]" * 1000, mtime=0)[:-9], {"Content-Encoding": "gzip"}, 415, "unsupported-encoding"),
        (zstandard.compress(b"[]" * 1000)[:-3], {"Content-Encoding": "zstd"}, 415, "unsupported-encoding"),
        (b"[" + b"0," * 10_000 + b"0]", {}, 413, "too-many-records"),
        (b"[" + b"0," * 8_000_000 + b"0]", {}, 413, "too-many-records"),
        (b"0\n" * 10_001, {"Content-Type": "application/x-ndjson"}, 413, "too-many-records"),
        (b"\n" * 16_000_000, {"Content-Type": "application/x-ndjson"}, 413, "too-many-records"),
        (b" " * (16 * 1024 * 1024 + 1), {}, 413, "body-too-large"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_bulk_refuses_a_body_that_is_invalid_as_a_whole(
    world: World, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with world.client(Role.WRITER) as client:
        response = await client.post("/api/v1/logs/bulk", content=body, headers={"Content-Type": "application/json", **headers})
        assert (response.status_code, code_of(response)) == (status, code)
        assert (await world.store.head(world.tenant("acme"), LogName.EVENTS)).next_seq == 0


def _zstd_bomb() -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(500)), packer.flush()])


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_bulk_stops_a_decompression_bomb_at_the_limit(world: World, encoding: str) -> None:
    bomb = gzip.compress(bytes(200_000_000), 9, mtime=0) if encoding == "gzip" else _zstd_bomb()
    assert len(bomb) < 1_000_000
    async with world.client(Role.WRITER) as client:
        response = await client.post(
            "/api/v1/logs/bulk",
            content=bomb,
            headers={"Content-Type": "application/json", "Content-Encoding": encoding},
        )
        assert (response.status_code, code_of(response)) == (413, "body-too-large")


async def test_bulk_accepts_the_maximum_number_of_records(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        response = await client.post("/api/v1/logs/bulk", json=[RECORD] * 10_000)
        assert response.json()["stored"] == 10_000


async def test_api_keeps_serving_when_a_client_disconnects_during_its_body(world: World) -> None:
    key = world.keys["acme", Role.WRITER]
    for path in ("/api/v1/logs", "/api/v1/logs/bulk"):
        with connect(world) as connection:
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 100\r\n"
                'Content-Type: application/json\r\n\r\n{"action":'.encode()
            )
    async with world.client(Role.WRITER) as client:
        assert (await client.post("/api/v1/logs", json=RECORD)).json()["seq"] == 0
