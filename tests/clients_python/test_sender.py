"""The sender decides by the server's answer: it waits, splits, pauses or keeps a refusal, and loses nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from decklog_client import Options, Refusal, ServerError, SpoolFullError
from decklog_client.answers import Answer, parse
from decklog_client.sender import Sender
from decklog_client.spool import Spool

SECONDS_MAX = 20.0
FAST: dict[str, Any] = {"linger": 0.0, "backoff_max": 0.0, "pause": 0.0, "retry_after_max": 0.0, "scan": 0.01}


class Server:
    """Answers from a script, then stores everything. It keeps what it stored, and the sizes of the requests."""

    def __init__(self, *script: Callable[[list[bytes]], Answer]) -> None:
        self.script = list(script)
        self.stored: list[str] = []
        self.sizes: list[int] = []

    def append(self, records: list[bytes]) -> Answer:
        self.sizes.append(len(records))
        return self.script.pop(0)(records) if self.script else self.store(records)

    def store(self, records: list[bytes], *, most: int | None = None) -> Answer:
        """Store the first records, or all; the others are refused for the rate."""
        ids = [json.loads(record)["id"] for record in records]
        items: list[dict[str, Any]] = []
        for index, name in enumerate(ids):
            if most is not None and index >= most:
                items.append({"status": "rejected", "error": {"code": "rate-limited", "detail": "later"}})
            elif name in self.stored:
                items.append({"status": "duplicate", "seq": 1})
            else:
                items.append({"status": "stored", "seq": 1})
                self.stored.append(name)
        found = [item["status"] for item in items]
        return answer(200, items=items, stored=found.count("stored"), duplicates=found.count("duplicate"))


def answer(status: int, code: str = "", *, retry_after: str = "", **members: Any) -> Answer:
    return parse(status, json.dumps({"code": code, "detail": "why", **members}).encode(), retry_after)


def record(name: str) -> bytes:
    return json.dumps({"id": name, "action": "a.b", "actor": {"id": "alice"}}).encode()


@contextmanager
def sending(folder: Path, server: Server, *names: str, **values: Any) -> Iterator[tuple[Sender, Spool]]:
    """A sender of records with these ids."""
    options = Options(**{**FAST, **values})
    spool = Spool(folder, options)
    for name in names:
        spool.append(record(name), wait=0)
    sender = Sender(spool, server.append, options)
    sender.start()
    try:
        yield sender, spool
    finally:
        sender.close(0.0)
        spool.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(
    "refusal",
    [
        answer(503, "overloaded", retry_after="1"),
        answer(429, "rate-limited", retry_after="1"),
        answer(502),
        answer(200),
        answer(200, items=[]),
        answer(401, "unauthenticated"),
        answer(403, "tenant-suspended"),
        answer(403),
        answer(404),
        answer(301),
        answer(400, "malformed-request"),
        answer(422, "unheard-of"),
        answer(422, "quota-exceeded"),
    ],
)
def test_sender_repeats_a_batch_that_is_refused_as_a_whole(refusal: Answer, tmp_path: Path) -> None:
    server = Server(lambda _: refusal, lambda _: refusal)
    with sending(tmp_path, server, "a", "b", "c") as (sender, spool):
        assert spool.wait_settled(3, SECONDS_MAX)
        assert sender.sent.retries == 2
    assert server.stored == ["a", "b", "c"]
    assert server.sizes == [3, 3, 3]


def test_sender_repeats_a_batch_without_an_answer_under_the_same_ids(tmp_path: Path) -> None:
    server = Server()

    def lost(records: list[bytes]) -> Answer:
        server.store(records)
        raise ServerError("unreachable", "the connection broke")

    server.script.append(lost)
    with sending(tmp_path, server, "a", "b") as (sender, spool):
        assert spool.wait_settled(2, SECONDS_MAX)
        assert (sender.sent.stored, sender.sent.duplicates) == (0, 2)
    assert server.stored == ["a", "b"]


def test_sender_repeats_only_the_records_that_were_put_off(tmp_path: Path) -> None:
    server = Server()
    server.script.append(lambda records: server.store(records, most=2))
    with sending(tmp_path, server, "a", "b", "c", "d") as (sender, spool):
        assert spool.wait_settled(4, SECONDS_MAX)
        assert sender.sent.stored == 4
    assert server.sizes == [4, 2]


@pytest.mark.parametrize("refusal", [answer(413), answer(413, "body-too-large"), answer(422, "batch-exceeds-burst")])
def test_sender_splits_a_batch_that_is_too_large(refusal: Answer, tmp_path: Path) -> None:
    server = Server(lambda _: refusal, lambda _: refusal)
    with sending(tmp_path, server, *"abcdefgh") as (_, spool):
        assert spool.wait_settled(8, SECONDS_MAX)
    assert server.stored == list("abcdefgh")
    assert server.sizes[:3] == [8, 4, 2]


def test_sender_keeps_a_record_that_is_too_large_alone(tmp_path: Path) -> None:
    seen: list[Refusal] = []
    server = Server(lambda _: answer(413), lambda _: answer(413))
    with sending(tmp_path, server, "a", "b", on_rejected=seen.append) as (sender, spool):
        assert spool.wait_settled(2, SECONDS_MAX)
        until(lambda: sender.sent.refused == 1)
    assert server.stored == ["b"]
    assert [(each.id, each.code) for each in seen] == [("a", "body-too-large")]
    [line] = (tmp_path / "rejected.ndjson").read_text().splitlines()
    assert json.loads(line)["record"]["id"] == "a"


def refusing(*wrong: str) -> Callable[[list[bytes]], Answer]:
    def refuse(records: list[bytes]) -> Answer:
        ids = [json.loads(record)["id"] for record in records]
        error = {"status": "rejected", "error": {"code": "id-conflict", "detail": "other content"}}
        return answer(422, "nothing-stored", items=[error if name in wrong else {"status": "stored"} for name in ids])

    return refuse


def test_sender_survives_a_callback_that_raises_and_reports_refusals_by_number(tmp_path: Path) -> None:
    def broken(_: Refusal) -> None:
        raise RuntimeError("no")

    server = Server(refusing("b", "c"))
    with sending(tmp_path, server, "a", "b", "c", on_rejected=broken) as (sender, spool):
        assert spool.wait_settled(3, SECONDS_MAX)
        assert [each.id for each in sender.take_refusals(2)] == ["b"]
        assert [each.id for each in sender.take_refusals(3)] == ["c"]
        assert sender.take_refusals(3) == []


def test_refusals_that_are_not_kept_for_a_commit_are_reported_as_one(tmp_path: Path) -> None:
    names = [str(number) for number in range(150)]
    server = Server(refusing(*names))
    with sending(tmp_path, server, *names) as (sender, spool):
        assert spool.wait_settled(150, SECONDS_MAX)
        assert [each.id for each in sender.take_refusals(100)] == names[:100]
        assert sender.take_refusals(100) == []
        assert [each.code for each in sender.take_refusals(150)] == ["refused"]
        assert sender.take_refusals(150) == []
    assert len((tmp_path / "rejected.ndjson").read_text().splitlines()) == 150


def test_bound_of_the_folder_counts_what_other_processes_wrote_during_an_outage(tmp_path: Path) -> None:
    server = Server(lambda _: answer(503, "overloaded", retry_after="3600"))
    other = Spool(tmp_path, Options())
    with sending(tmp_path, server, "a", retry_after_max=3600.0, spool_bytes=20_000) as (sender, spool):
        until(lambda: sender.sent.state == "waiting")
        other.append(b"x" * 19_000, wait=0)
        until(lambda: spool.size > 19_000)
        with pytest.raises(SpoolFullError):
            spool.append(b"y" * 1_000, wait=0)


def test_sender_keeps_records_where_the_file_of_refusals_is_full(tmp_path: Path) -> None:
    server = Server(*[refusing("a")] * 100_000)
    (tmp_path / "rejected.ndjson").write_bytes(b"x" * 200)
    with sending(tmp_path, server, "a", rejected_bytes=250) as (sender, spool):
        until(lambda: sender.sent.retries >= 2)
        assert spool.waiting
        assert "Move it away" in sender.sent.reason
        (tmp_path / "rejected.ndjson").unlink()
        assert spool.wait_settled(1, SECONDS_MAX)


def test_sender_waits_as_long_as_the_server_says_and_tells_why(tmp_path: Path) -> None:
    server = Server(lambda _: answer(429, "rate-limited", retry_after="3600"))
    with sending(tmp_path, server, "a", retry_after_max=3600.0) as (sender, spool):
        until(lambda: sender.sent.state == "waiting")
        assert "rate-limited: why" in sender.sent.reason
        assert not spool.wait_settled(1, 0.1)
        assert server.sizes == [1]
        began = time.monotonic()
        assert not sender.close(0.05)
        assert time.monotonic() - began < SECONDS_MAX


def test_sender_pauses_where_somebody_must_act(tmp_path: Path) -> None:
    server = Server(lambda _: answer(401, "unauthenticated"))
    with sending(tmp_path, server, "a", pause=3600.0) as (sender, spool):
        until(lambda: sender.sent.state == "paused")
        assert "unauthenticated" in sender.sent.reason
        assert spool.waiting


def test_sender_takes_over_the_files_of_a_process_that_ends_later(tmp_path: Path) -> None:
    other = Spool(tmp_path, Options())
    other.append(record("other"), wait=0)
    server = Server()
    with sending(tmp_path, server, "mine") as (_, spool):
        assert spool.wait_settled(1, SECONDS_MAX)
        assert server.stored == ["mine"]
        other.forked()
        until(lambda: server.stored == ["mine", "other"])


def test_sender_releases_space_for_a_record_that_waits_for_it(tmp_path: Path) -> None:
    server = Server()
    options: dict[str, Any] = {"spool_bytes": 600, "segment_bytes": 100_000}
    with sending(tmp_path, server, **options) as (_, spool):
        for number in range(50):
            spool.append(record(f"{number}"), wait=SECONDS_MAX)
        assert spool.wait_settled(50, SECONDS_MAX)
    assert server.stored == [str(number) for number in range(50)]


def test_a_fault_of_the_transport_loses_nothing(tmp_path: Path) -> None:
    def fault(_: list[bytes]) -> Answer:
        raise ZeroDivisionError

    server = Server(fault, fault)
    with sending(tmp_path, server, "a") as (sender, spool):
        assert spool.wait_settled(1, SECONDS_MAX)
        assert sender.sent.retries == 2
    assert server.stored == ["a"]
