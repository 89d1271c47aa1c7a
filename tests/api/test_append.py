"""Appending records, singly and in bulk, over a real socket."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import json
from collections.abc import Callable
from typing import Any

import httpx
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


async def test_bulk_of_which_every_record_is_rejected_is_no_success(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        await client.post("/api/v1/logs", json={**RECORD, "id": "taken"})
        refused = await client.post("/api/v1/logs/bulk", json=[{"action": "x"}, {**RECORD, "id": "taken", "message": "other"}])
        assert (refused.status_code, code_of(refused)) == (422, "nothing-stored")
        problem = msgspec.json.decode(refused.content, type=shapes.Problem)
        assert (problem.stored, problem.duplicates, problem.rejected) == (0, 0, 2)
        assert problem.items is not None
        assert [item.error.code for item in problem.items if item.error] == ["invalid-record", "id-conflict"]
        assert refused.headers["decklog-rejected"] == "2"
        assert "retry-after" not in refused.headers


async def test_bulk_counts_its_rejected_records_in_a_header(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        partly = await client.post("/api/v1/logs/bulk", json=[RECORD, 7, {"action": "x"}])
        wholly = await client.post("/api/v1/logs/bulk", json=[RECORD, RECORD])
        assert [(each.status_code, each.headers["decklog-rejected"]) for each in (partly, wholly)] == [(200, "2"), (200, "0")]


async def test_strict_bulk_stores_nothing_when_one_record_is_rejected_and_lists_every_item(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        await client.post("/api/v1/logs", json={**RECORD, "id": "taken"})
        conflicting = {**RECORD, "id": "taken", "message": "other"}
        for bad, code in (({"action": "x"}, "invalid-record"), (conflicting, "id-conflict")):
            refused = await client.post("/api/v1/logs/bulk?strict=true", json=[{**RECORD, "id": "a"}, bad, RECORD])
            assert (refused.status_code, code_of(refused), refused.headers["decklog-rejected"]) == (422, "batch-rejected", "1")
            items = refused.json()["items"]
            assert [item["status"] for item in items] == ["withheld", "rejected", "withheld"]
            assert items[1]["error"]["code"] == code
        assert (await world.store.head(world.tenant("acme"), LogName.EVENTS)).next_seq == 1
        whole = await client.post("/api/v1/logs/bulk?strict=true", json=[{**RECORD, "id": "a"}, {**RECORD, "id": "taken"}])
        assert [item["status"] for item in whole.json()["items"]] == ["stored", "duplicate"]
        wrong = await client.post("/api/v1/logs/bulk?strict=yes", json=[RECORD])
        assert (wrong.status_code, wrong.json()["parameter"]) == (422, "strict")


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


async def test_bulk_refuses_its_key_for_other_items_and_stores_nothing_of_them(world: World) -> None:
    first, bad, third = {**RECORD, "action": "A"}, {"action": "B"}, {**RECORD, "action": "C"}
    async with world.client(Role.WRITER) as client, world.client(Role.ADMIN) as admin:

        async def sent(*records: object, key: str = "batch-1") -> httpx.Response:
            return await client.post("/api/v1/logs/bulk", json=records, headers={"Idempotency-Key": key})

        async def stored() -> list[tuple[str, str]]:
            found = (await admin.get("/api/v1/logs")).json()["items"]
            return [(record["action"], record["id"]) for record in reversed(found)]

        answer = (await sent(first, bad, third)).json()
        assert [item["status"] for item in answer["items"]] == ["stored", "rejected", "stored"]
        mended = {**RECORD, "action": "B"}
        for others in ([first, third], [mended], [first, mended, third], [first, bad, third, first], [bad, third, first]):
            refused = await sent(*others)
            assert (refused.status_code, code_of(refused)) == (422, "idempotency-key-reused"), others
        assert await stored() == [("A", "batch-1/0"), ("C", "batch-1/2")]
        again = (await sent(first, bad, third, key='"batch-1"')).json()
        assert [item["status"] for item in again["items"]] == ["duplicate", "rejected", "duplicate"]
        assert (await sent(mended, key="batch-2")).json()["stored"] == 1


async def test_key_of_a_bulk_of_which_nothing_is_valid_stays_free(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        headers = {"Idempotency-Key": "mend-me"}
        assert (await client.post("/api/v1/logs/bulk", json=[{"action": "B"}], headers=headers)).json()["rejected"] == 1
        assert (await client.post("/api/v1/logs/bulk", json=[RECORD], headers=headers)).json()["stored"] == 1


async def test_key_in_quotes_and_without_is_one_key_and_two_headers_are_refused(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        for written, status in (('"k2"', 201), ("k2", 200)):
            assert (await client.post("/api/v1/logs", json=RECORD, headers={"Idempotency-Key": written})).status_code == status
        for path, body in (("/api/v1/logs", RECORD), ("/api/v1/logs/bulk", [RECORD])):
            twice = await client.post(path, json=body, headers=[("Idempotency-Key", "k4"), ("Idempotency-Key", "k5")])
            assert (twice.status_code, code_of(twice)) == (422, "invalid-parameter")
            assert "has 2 values" in twice.json()["detail"]


async def test_record_that_is_too_large_or_too_deep_is_stored_trimmed_on_request(world: World) -> None:
    deep: object = "end"
    for _ in range(40):
        deep = {"a": deep}
    large = {**RECORD, "id": "l", "metadata": {"verb": "create", "object": {"filler": "x" * 300_000, "name": "n"}}}
    async with world.client(Role.WRITER) as client, world.client(Role.ADMIN) as admin:
        assert (await client.post("/api/v1/logs", json=large)).status_code == 413
        one = await client.post("/api/v1/logs?oversize=trim", json=large)
        again = await client.post("/api/v1/logs?oversize=trim", json=large)
        assert [(each.status_code, each.json()["trimmed"]) for each in (one, again)] == [
            (201, ["/metadata/object/filler"]),
            (200, ["/metadata/object/filler"]),
        ]
        record = (await admin.get("/api/v1/logs/0")).json()
        assert record["metadata"] == {"verb": "create", "object": {"name": "n"}}
        assert record["trimmed"] == [
            {
                "path": "/metadata/object/filler",
                "bytes": 300_002,
                "sha256": hashlib.sha256(b'"%s"' % (b"x" * 300_000)).hexdigest(),
            }
        ]
        bulk = await client.post("/api/v1/logs/bulk?oversize=trim", json=[{**RECORD, "metadata": deep}, RECORD, large])
        items = bulk.json()["items"]
        assert [item["status"] for item in items] == ["stored", "stored", "duplicate"]
        assert [len(item.get("trimmed", ())) for item in items] == [1, 0, 1]
        wrong = await client.post("/api/v1/logs?oversize=cut", json=RECORD)
        assert (wrong.status_code, wrong.json()["parameter"]) == (422, "oversize")


async def test_tenant_that_trims_stores_what_others_refuse_unless_the_request_says_otherwise(world: World) -> None:
    world.add(make_tenant("trims", limits=Limits(record_bytes_max=1_024, trims=True)))
    large = {**RECORD, "after": {"kept": 1, "gone": "x" * 5_000}}
    async with world.client(Role.WRITER, "trims") as client:
        assert (await client.post("/api/v1/logs", json=large)).json()["trimmed"] == ["/after/gone"]
        assert (await client.post("/api/v1/logs/bulk", json=[large])).json()["items"][0]["trimmed"] == ["/after/gone"]
        assert (await client.post("/api/v1/logs?oversize=reject", json=large)).status_code == 413
        assert (await client.post("/api/v1/logs", json={**RECORD, "message": "x" * 2_000})).status_code == 413
        assert (await client.post("/api/v1/logs", json={**RECORD, "after": "x" * 4_194_304})).status_code == 413


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
            "kept": 0,
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


# Refusals that teach, and what the wire carries


async def test_append_lists_all_faults_of_a_record(world: World) -> None:
    sent = {"user_id": "alice", "actor": {"id": "u"}, "severity": "info", "occurred_at": "2026-11-30"}
    async with world.client(Role.WRITER) as client:
        response = await client.post("/api/v1/logs", json=sent)
        problem = msgspec.json.decode(response.content, type=shapes.Problem)
        assert (response.status_code, problem.code) == (422, "invalid-record")
        faults = msgspec.convert(problem.errors, list[shapes.Fault])
        assert {fault.path: fault.meant for fault in faults} == {
            "action": None,
            "occurred_at": None,
            "severity": "INFO",
            "user_id": "actor.id",
        }


@pytest.mark.parametrize("count", [1, 300])
async def test_bulk_items_list_their_faults_within_a_bound(world: World, count: int) -> None:
    async with world.client(Role.WRITER) as client:
        response = await client.post("/api/v1/logs/bulk", json=[{f"k{number}": 1 for number in range(30)}] * count)
        items = msgspec.json.decode(response.content, type=shapes.BulkAnswer).items
        first = items[0].error
        assert first is not None
        assert len(first.errors or ()) == 20
        assert all(item.error and item.error.detail.startswith("action: is required") for item in items)
        assert sum(len(item.error.errors or ()) for item in items if item.error) <= 1_000


@pytest.mark.parametrize("padding", [0, 20_000])
async def test_append_and_bulk_refuse_a_name_twice(world: World, padding: int) -> None:
    twice = b'{"action":"a","actor":{"id":"x"},"message":"%b","metadata":{"a":1,"\\u0061":2}}' % (b"m" * padding)
    async with world.client(Role.WRITER) as client:
        one = await client.post("/api/v1/logs", content=twice, headers={"Content-Type": "application/json"})
        many = await client.post("/api/v1/logs/bulk", content=b"[" + twice + b"]", headers={"Content-Type": "application/json"})
    assert (one.status_code, code_of(one)) == (422, "invalid-record")
    assert one.json()["detail"].startswith("metadata.a: the name 'a' occurs twice in metadata")
    [item] = many.json()["items"]
    assert item["error"]["detail"] == one.json()["detail"]
    assert (await world.store.head(world.tenant("acme"), LogName.EVENTS)).next_seq == 0


@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson"])
async def test_byte_order_mark_costs_no_record(world: World, form: str) -> None:
    records = [json.dumps(RECORD).encode()] * 2
    body = b"\xef\xbb\xbf" + (b"[" + b",".join(records) + b"]" if form == "application/json" else b"\n".join(records))
    async with world.client(Role.WRITER) as client:
        bulk = await client.post("/api/v1/logs/bulk", content=body, headers={"Content-Type": form})
        assert (bulk.json()["stored"], bulk.json()["rejected"]) == (2, 0)
        one = await client.post(
            "/api/v1/logs", content=b"\xef\xbb\xbf" + records[0], headers={"Content-Type": "application/json"}
        )
        assert one.status_code == 201


async def test_idempotency_key_of_other_characters_is_refused_and_never_changed(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        for key in ("köy".encode(), "köy".encode("latin-1")):
            response = await client.post("/api/v1/logs", json=RECORD, headers={b"Idempotency-Key": key})
            assert (response.status_code, code_of(response)) == (422, "invalid-parameter")
    assert (await world.store.head(world.tenant("acme"), LogName.EVENTS)).next_seq == 0


async def test_failed_sign_in_under_a_long_name_is_recorded_whole(world: World) -> None:
    sent = {"action": "user.login", "outcome": "failure", "actor": {"id": "u" * 3_000}}
    async with world.client(Role.WRITER) as client:
        assert (await client.post("/api/v1/logs", json=sent)).status_code == 201
    async with world.client(Role.AUDITOR) as client:
        assert (await client.get("/api/v1/logs/0")).json()["actor"] == {"id": "u" * 3_000}


async def test_time_is_answered_as_it_was_sent(world: World) -> None:
    async with world.client(Role.WRITER) as client:
        assert (
            await client.post("/api/v1/logs", json={**RECORD, "occurred_at": "2026-01-31T23:59:59.9999999+01:00"})
        ).status_code == 201
    async with world.client(Role.AUDITOR) as client:
        record = (await client.get("/api/v1/logs/0")).json()
        assert record["occurred_at"] == "2026-01-31T23:59:59.9999999+01:00"
        found = await client.get("/api/v1/logs", params={"from": "2026-01-31T22:59:59.999999Z", "to": "2026-01-31T23:00:00Z"})
        assert [item["seq"] for item in found.json()["items"]] == [0]
