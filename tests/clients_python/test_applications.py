"""What an application uses around `record`: context, decorators, middleware, the handler of logging, and captured records."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog_client import ConfigurationError, Decklog, InvalidRecordError, RecordTooLargeError, context
from decklog_client.asgi import AuditMiddleware
from decklog_client.django import audit_context
from decklog_client.log_handler import AuditHandler
from decklog_client.making import encoded, new_id
from decklog_client.testing import recorded

Records = list[dict[str, Any]]


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Decklog]:
    client = Decklog(url="http://127.0.0.1:1", key="k", spool=tmp_path)
    yield client
    client.close(0.0)


@pytest.fixture
def records(audit: Decklog) -> Iterator[Records]:
    with recorded() as found, context(actor="alice"):
        yield found


def test_captured_records_are_neither_written_nor_sent(audit: Decklog, records: Records, tmp_path: Path) -> None:
    name = audit.record("a.b")
    audit.commit(0.0)
    with recorded() as inner:
        audit.record("c.d")
    assert [record["id"] for record in records] == [name]
    assert [record["action"] for record in inner] == ["c.d"]
    assert list(tmp_path.iterdir()) == []
    assert audit.stats().recorded == 0


def test_decorator_records_the_outcome_and_the_exception_goes_on(audit: Decklog, records: Records) -> None:
    @audit.action("user.delete", resource=lambda name, error=None: {"type": "user", "id": name}, metadata={"via": "cli"})
    def delete(name: str, error: Exception | None = None) -> str:
        if error is not None:
            raise error
        return name

    assert delete("bob") == "bob"
    for error in (PermissionError("secret"), ValueError("secret")):
        with pytest.raises(type(error)):
            delete("bob", error=error)
    assert [record["outcome"] for record in records] == ["success", "denied", "failure"]
    assert [record["metadata"].get("error") for record in records] == [None, "PermissionError", "ValueError"]
    assert all(record["resource"] == {"type": "user", "id": "bob"} and record["metadata"]["via"] == "cli" for record in records)
    assert "secret" not in str(records)


async def test_decorator_records_coroutines_and_their_cancellation(audit: Decklog, records: Records) -> None:
    @audit.action("job.run")
    async def run(wait: bool) -> int:
        await asyncio.sleep(3600 if wait else 0)
        return 1

    assert await run(wait=False) == 1
    task = asyncio.create_task(run(wait=True))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(record["outcome"], record.get("metadata")) for record in records] == [
        ("success", None),
        ("failure", {"error": "CancelledError"}),
    ]


def test_decorator_logs_a_record_that_is_not_taken_beside_the_exception(audit: Decklog, caplog: pytest.LogCaptureFixture) -> None:
    """There is no actor here. A call that succeeds must not look as if it were recorded."""

    @audit.action("a.b")
    def fail(error: bool) -> None:
        if error:
            raise KeyError

    with pytest.raises(KeyError):
        fail(error=True)
    assert "actor: is required" in caplog.text
    with pytest.raises(InvalidRecordError):
        fail(error=False)


def test_decorator_refuses_generators(audit: Decklog) -> None:
    def rows() -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="generator"):
        audit.action("a.b")(rows)


async def test_context_belongs_to_a_task_and_a_thread(audit: Decklog, records: Records) -> None:
    async def work(name: str) -> None:
        with context(actor=name):
            await asyncio.sleep(0)
            audit.record("a.b")

    await asyncio.gather(work("one"), work("two"))
    thread = threading.Thread(target=contextvars.Context().run, args=(audit.record, "a.b"), kwargs={"actor": "three"})
    thread.start()
    thread.join()
    assert [record["actor"]["id"] for record in records] == ["one", "two", "three"]


async def serve(app: Any, *, kind: str = "http", **scope: Any) -> list[Any]:
    """Serve one request."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    defaults = {"type": kind, "method": "POST", "path": "/orders", "headers": [], "client": ("192.0.2.7", 1)}
    await app({**defaults, **scope}, None, send)
    return sent


@pytest.mark.parametrize(("status", "outcome"), [(201, "success"), (404, "failure"), (403, "denied"), (None, "failure")])
async def test_middleware_records_requests_with_their_source_and_outcome(
    audit: Decklog, records: Records, status: int | None, outcome: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["user"] = "bob"  # what authentication does, behind the middleware
        if status is None:
            raise ZeroDivisionError
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b""})

    middleware = AuditMiddleware(app, actor=lambda scope: scope.get("user"), audit=audit, methods=["POST"])
    headers = [(b"user-agent", b"curl"), (b"x-request-id", b"r-1")]
    if status is None:
        with pytest.raises(ZeroDivisionError):
            await serve(middleware, headers=headers)
    else:
        assert len(await serve(middleware, headers=headers)) == 2
    [record] = records
    assert (record["action"], record["outcome"], record["actor"]["id"]) == ("http.request", outcome, "bob")
    assert record["source"] == {"ip": "192.0.2.7", "user_agent": "curl"}
    assert record["correlation_id"] == "r-1"
    assert record["metadata"] == {"method": "POST", "status": status or 500}


async def test_middleware_records_only_what_is_asked_and_passes_other_scopes(audit: Decklog, records: Records) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        if scope["type"] != "lifespan":
            audit.record("a.b")

    await serve(AuditMiddleware(app, audit=audit, methods=["POST"]), method="GET", client=None)
    await serve(AuditMiddleware(app), kind="websocket", headers=[])
    await serve(AuditMiddleware(app), kind="lifespan")
    assert seen == ["http", "websocket", "lifespan"]
    assert [record["action"] for record in records] == ["a.b", "a.b"]
    assert [record.get("source") for record in records] == [None, {"ip": "192.0.2.7"}]
    assert {record["actor"]["id"] for record in records} == {"alice"}


class DjangoRequest:
    """What the middleware reads of a request of Django."""

    META: ClassVar = {"REMOTE_ADDR": "192.0.2.7", "HTTP_X_REQUEST_ID": "r-1"}


async def test_django_middleware_serves_sync_and_async_and_anonymous_requests(audit: Decklog, records: Records) -> None:
    async def view(request: Any) -> str:
        return audit.record("a.b")

    assert await audit_context(view)(DjangoRequest()) == records[0]["id"]
    assert audit_context(lambda request: audit.record("c.d"))(DjangoRequest()) == records[1]["id"]
    assert [(record["source"], record["correlation_id"]) for record in records] == [({"ip": "192.0.2.7"}, "r-1")] * 2


def test_logging_records_marked_lines_and_never_raises(audit: Decklog, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[logging.LogRecord] = []
    monkeypatch.setattr(AuditHandler, "handleError", lambda self, record: failed.append(record))
    logger = logging.getLogger("tests.decklog_client")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(AuditHandler(audit))
    logger.error("%s failed", "Backup", extra={"audit": {"action": "backup.run", "outcome": "failure"}})
    logger.debug("quiet", extra={"audit": {"action": "a.b", "severity": "WARNING"}})
    logger.info("not for the audit log")
    logger.info("wrong", extra={"audit": {"action": ""}})
    logger.info("wrong", extra={"audit": {"actor": "bob"}})
    assert [(record["message"], record["severity"]) for record in records] == [("Backup failed", "ERROR"), ("quiet", "WARNING")]
    assert len(failed) == 2


def test_record_has_an_id_and_a_time_and_the_forms_of_python(audit: Decklog, records: Records) -> None:
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    audit.record("a.b", id="mine", occurred_at=moment, metadata={"path": Path("/x"), "error": ValueError("no"), "set": {1}})
    audit.record("a.b")
    assert records[0]["id"] == "mine"
    assert records[0]["occurred_at"] == "2026-01-31T12:00:00Z"
    assert records[0]["metadata"] == {"path": "/x", "error": "no", "set": [1]}
    assert len(records[1]["id"]) == 36
    assert abs(datetime.fromisoformat(records[1]["occurred_at"].replace("Z", "+00:00")) - datetime.now(UTC)).days == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"action": ""}, "action: is required"),
        ({"actor": None}, "actor: is required"),
        ({"actor": {}}, "actor: is required"),
        ({"user_id": "x"}, "user_id: there is no such field"),
        ({"metadata": {"a": object()}}, "object has no form in JSON"),
        ({"message": "\ud800"}, "cannot be written as JSON"),
        ({"occurred_at": datetime.fromisoformat("2026-01-01T00:00:00")}, "no time zone"),
    ],
)
def test_record_that_cannot_be_written_is_refused_with_the_reason(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRecordError, match=message):
        encoded({"action": "a.b", "actor": "alice", **fields}, bytes_max=1_000)


def test_record_that_is_too_large_is_refused() -> None:
    with pytest.raises(RecordTooLargeError, match="1000 are allowed"):
        encoded({"action": "a.b", "actor": "alice", "message": "x" * 1_000}, bytes_max=1_000)


@given(st.lists(st.integers(0, 2**80), min_size=2, max_size=20))
def test_ids_are_made_once_whatever_the_clock_says(times: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("decklog_client.making.time.time_ns", iter(times).__next__)
        ids = [new_id() for _ in times]
    assert len(set(ids)) == len(ids)
    assert {(len(name), name[14], name[19] in "89ab") for name in ids} == {(36, "7", True)}


def test_client_of_a_fork_records_for_itself(tmp_path: Path) -> None:
    """The child inherits a client that has recorded, and its threads do not exist there."""
    audit = Decklog(url="http://127.0.0.1:1", key="k", spool=tmp_path)
    audit.record("a.b", actor="parent")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            audit.record("a.b", actor="child")
            now = audit.stats()
            status = 0 if (now.recorded, now.waiting) == (1, 1) else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    audit.record("a.b", actor="parent")
    assert len(list(tmp_path.glob("*.spool"))) == 2
    assert audit.stats().recorded == 2
    audit.close(0.0)
