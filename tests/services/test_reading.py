"""What an auditor may ask, and rule 8: each answer has its access record before it is given, or is not given."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import Principal, RequestContext, Role
from decklog.domain.log import LogName
from decklog.domain.records.record import Outcome
from decklog.domain.tenant import State
from decklog.services.records.access_log import ACTIONS, TENANTS_LIST, AccessLog
from decklog.services.records.reading import Page
from tests.support.desk import REQUEST, Desk, desk

Parameters = list[tuple[str, str]]
Call = Callable[[Desk, Principal, Parameters], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "list": lambda at, principal, parameters: at.reading.list(principal, REQUEST, parameters),
    "get": lambda at, principal, parameters: at.reading.get(principal, REQUEST, 0, parameters),
    "stats": lambda at, principal, parameters: at.reading.stats(principal, REQUEST, parameters),
    "export": lambda at, principal, parameters: at.reading.export(principal, REQUEST, parameters),
    "stream": lambda at, principal, parameters: at.streams.open(principal, REQUEST, parameters),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@contextmanager
def refused(code: Code, text: str | None = None) -> Iterator[None]:
    with pytest.raises(DecklogError, match=text) as error:
        yield
    assert error.value.code is code


# -- who may


@every_call
async def test_reading_is_forbidden_for_a_writer(call: Call) -> None:
    async with desk() as at:
        await at.put({})
        with refused(Code.FORBIDDEN):
            await call(at, at.principal(role=Role.WRITER), [])


@every_call
async def test_reading_a_tenants_log_is_forbidden_for_the_platform(call: Call) -> None:
    async with desk() as at:
        platform = Principal(kind="api_key", subject="key-p", role=Role.PLATFORM, tenant=None)
        with refused(Code.FORBIDDEN):
            await call(at, platform, [])


@every_call
async def test_reading_is_refused_for_a_suspended_tenant(call: Call) -> None:
    async with desk() as at:
        await at.put({})
        suspended = msgspec.structs.replace(at.acme, state=State.SUSPENDED)
        with refused(Code.TENANT_SUSPENDED):
            await call(at, at.principal(suspended), [])


@every_call
async def test_reading_refuses_unknown_parameters(call: Call) -> None:
    async with desk() as at:
        await at.put({})
        for name in ("tenant", "offset", "Limit"):
            with refused(Code.UNKNOWN_PARAMETER, name):
                await call(at, at.principal(), [(name, "rival")])


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        ("list", [("limit", "0")]),
        ("list", [("limit", "1001")]),
        ("list", [("limit", "-1")]),
        ("list", [("limit", "1e2")]),
        ("list", [("limit", "٣")]),
        ("list", [("limit", "")]),
        ("list", [("limit", "5"), ("limit", "6")]),
        ("list", [("severity", "bad")]),
        ("get", [("log", "x")]),
        ("stats", [("by", "message")]),
        ("stats", [("by", "")]),
        ("stats", [("by", "action,action")]),
        ("stats", [("by", "action,actor,outcome")]),
        ("stats", [("by", "action"), ("by", "actor"), ("by", "outcome")]),
        ("stats", [("interval", "year")]),
        ("stats", [("interval", "day"), ("interval", "day")]),
        ("export", [("format", "xml")]),
        ("export", [("format", "csv"), ("format", "json")]),
    ],
)
async def test_reading_refuses_invalid_values(call: str, parameters: Parameters) -> None:
    async with desk() as at:
        await at.put({})
        with refused(Code.INVALID_PARAMETER, parameters[0][0]):
            await CALLS[call](at, at.principal(), parameters)


@pytest.mark.parametrize(("call", "parameter"), [("get", "actor"), ("export", "limit"), ("stats", "cursor"), ("list", "format")])
async def test_reading_refuses_parameters_of_other_calls(call: str, parameter: str) -> None:
    async with desk() as at:
        await at.put({})
        with refused(Code.UNKNOWN_PARAMETER):
            await CALLS[call](at, at.principal(), [(parameter, "1")])


# -- rule 8


async def test_each_reading_writes_one_access_record_with_filter_and_count() -> None:
    async with desk() as at:
        await at.put({"actor": {"id": "alice"}}, {"actor": {"id": "bob"}}, {"actor": {"id": "alice"}})
        auditor = at.principal()
        filters: Parameters = [("actor", "alice")]
        await at.reading.list(auditor, REQUEST, [*filters, ("limit", "10")])
        await at.reading.get(auditor, REQUEST, 1, [])
        await at.reading.stats(auditor, REQUEST, [*filters, ("by", "action"), ("interval", "day")])
        found = await at.accesses()
        assert [item["action"] for item in found] == ["log.search", "log.read", "log.stats"]
        for item in found:
            assert item["actor"] == {"id": "key-1", "type": "api_key"}
            assert item["resource"] == {"type": "log", "id": "events"}
            assert item["source"] == {"ip": "192.0.2.7", "user_agent": "tests/1"}
            assert item["correlation_id"] == "request-1"
            assert item["outcome"] == "success"
            assert item["metadata"]["role"] == "auditor"
        listed, read, counted = (item["metadata"] for item in found)
        assert (listed["filter"], listed["records"], listed["limit"]) == ({"q": "actor.id:alice"}, 2, 10)
        assert (read["seq"], read["records"]) == ("1", 1)
        assert (counted["filter"], counted["by"], counted["interval"]) == ({"q": "actor.id:alice"}, ["action"], "day")


@every_call
async def test_reading_fails_when_its_access_record_cannot_be_written(call: Call) -> None:
    async with desk() as at:
        await at.put({})
        for code in (Code.STORAGE_UNAVAILABLE, Code.OUTCOME_UNKNOWN):
            at.store.failing_append = DecklogError(code, "No.")
            with refused(Code.ACCESS_LOG_UNAVAILABLE):
                await call(at, at.principal(), [])
            at.store.failing_append = None
        assert at.streams.count == 0


async def test_access_records_of_reading_are_exempt_from_the_quota() -> None:
    async with desk() as at:
        at.store.register(at.acme, events_per_second=1, burst=1)
        for _ in range(5):
            await at.reading.list(at.principal(), REQUEST, [])
        assert len(await at.accesses()) == 5


async def test_reading_the_access_log_is_recorded_in_the_access_log() -> None:
    async with desk() as at:
        await at.reading.list(at.principal(), REQUEST, [])
        _, log, page = await at.reading.list(at.principal(), REQUEST, [("log", "access")])
        assert log is LogName.ACCESS
        assert len(page.items) == 1
        found = await at.accesses()
        assert [item["resource"]["id"] for item in found] == ["events", "access"]


async def test_request_for_a_missing_record_is_recorded() -> None:
    async with desk() as at:
        for seq in (7, -1, 2**63, 10**30):
            with refused(Code.NOT_FOUND):
                await at.reading.get(at.principal(), REQUEST, seq, [])
        assert [(item["outcome"], item["metadata"]["records"]) for item in await at.accesses()] == [("failure", 0)] * 4


async def test_access_record_masks_filter_values_under_secret_names() -> None:
    async with desk() as at:
        await at.put({})
        parameters = [("metadata.user.password", "hunter2"), ("metadata.api_key.value", "hunter3"), ("metadata.a", "b")]
        await at.reading.list(at.principal(), REQUEST, parameters)
        (found,) = await at.accesses()
        assert "hunter" not in json.dumps(found)
        assert found["metadata"]["filter"]["q"] == (
            'metadata.a:b AND metadata.api_key.value:"[masked]" AND metadata.user.password:"[masked]"'
        )


@pytest.mark.parametrize("text", ["x" * 100_000, "a\0b", "a\ud800b", ""])
async def test_access_record_is_written_whatever_headers_contain(text: str) -> None:
    async with desk() as at:
        request = RequestContext(request_id=text, ip=text, user_agent=text)
        await at.reading.list(at.principal(subject=text), request, [])
        assert len(await at.accesses()) == 1


async def test_access_record_holds_the_longest_filters() -> None:
    async with desk() as at:
        long = "\U0001f984" * 2_000
        parameters = [(name, long) for name in ("actor", "resource_id", "resource_type", "session_id", "correlation_id", "id")]
        parameters += [(f"metadata.{number}{long[:600]}", long) for number in range(16)]
        await at.reading.list(at.principal(), REQUEST, parameters)
        assert len(await at.accesses()) == 1


async def test_request_without_a_tenant_is_recorded_in_the_platforms_log() -> None:
    async with desk() as at:
        platform = Principal(kind="jwt", subject="ops@example.org", role=Role.PLATFORM, tenant=None, issuer="https://issuer")
        await at.access_log.write(platform, REQUEST, TENANTS_LIST, resource=("tenants", None), details={"records": 2})
        (found,) = await at.accesses(at.platform)
        assert found["action"] in ACTIONS
        assert found["resource"] == {"type": "tenants"}
        assert found["metadata"] == {"records": 2, "role": "platform", "issuer": "https://issuer"}
        assert await at.accesses() == []


async def test_late_access_record_is_written_when_its_caller_is_cancelled() -> None:
    async with desk() as at:
        late = at.access_log.write_late(
            at.principal(),
            REQUEST,
            "log.stream.close",
            resource=("log", "events"),
            details={"records": 3},
            outcome=Outcome.SUCCESS,
        )
        running = late.__await__()
        next(running)
        running.close()  # the caller is gone
        await at.access_log.stop()
        assert [item["metadata"]["records"] for item in await at.accesses()] == [3]


async def test_late_access_record_that_fails_raises_nothing() -> None:
    class Broken:
        def refuse_query(self, _: object) -> None: ...

        async def append_access(self, *_: object, **__: object) -> Any:
            raise DecklogError(Code.OVERLOADED, "Full.")

    at = Desk()
    log = AccessLog(Broken(), lambda: at.platform)
    await log.write_late(
        at.principal(), REQUEST, "log.export.close", resource=("log", "events"), details={"records": 3}, outcome=Outcome.FAILURE
    )


# -- what is given


async def test_pages_continue_by_cursor_without_gaps_or_repeats() -> None:
    async with desk() as at:
        await at.put(*[{} for _ in range(25)])
        seen: list[int] = []
        parameters: Parameters = [("limit", "10")]
        while True:
            tenant, log, page = await at.reading.list(at.principal(), REQUEST, parameters)
            assert (tenant, log) == (at.acme, LogName.EVENTS)
            seen += [record.seq for record in page.items]
            if page.next is None:
                break
            parameters = [("limit", "10"), ("cursor", page.next)]
            await at.put({})
        assert seen == list(range(24, -1, -1))


async def test_page_has_100_records_by_default() -> None:
    async with desk() as at:
        await at.put(*[{} for _ in range(120)])
        assert len((await at.reading.list(at.principal(), REQUEST, []))[2].items) == 100
        assert len((await at.reading.list(at.principal(), REQUEST, [("limit", "1000")]))[2].items) == 120


async def listed(at: Desk, *parameters: tuple[str, str]) -> Page:
    return (await at.reading.list(at.principal(), REQUEST, parameters))[2]


def seqs(page: Page) -> list[int]:
    return [record.seq for record in page.items]


async def test_pages_in_each_order_continue_by_cursor() -> None:
    async with desk() as at:
        times = [5, 1, 4, 1, 3, 2, 1]
        await at.put(*[{"occurred_at": f"2026-02-0{day}T00:00:00Z"} for day in times])
        await at.index_all()
        by_time = sorted(range(7), key=lambda number: (times[number], number))
        for parameters, wanted in [
            ([("sort", "occurred_at")], by_time),
            ([("sort", "-occurred_at")], by_time[::-1]),
            ([("sort", "occurred_at"), ("order", "desc"), ("actor", "tester")], by_time[::-1]),
            ([("order", "asc")], list(range(7))),
            ([("sort", "-received_at")], list(range(7))[::-1]),
        ]:
            seen: list[int] = []
            cursor: list[tuple[str, str]] = []
            while True:
                page = await listed(at, ("limit", "3"), *parameters, *cursor)
                seen += seqs(page)
                if page.next is None:
                    break
                cursor = [("cursor", page.next)]
            assert seen == wanted


async def test_position_of_an_answer_pulls_what_is_new() -> None:
    async with desk() as at:
        await at.put({"severity": "ERROR"}, {}, {"severity": "ERROR"}, {})
        pulled: list[int] = []
        after = "-1"
        rounds: list[list[dict[str, Any]]] = [[], [{}, {"severity": "ERROR"}], [{}], [{"severity": "ERROR"}]]
        for new in rounds:
            if new:
                await at.put(*new)
            page = await listed(at, ("severity", "ERROR"), ("after", after), ("limit", "100"))
            assert page.next is None
            pulled += seqs(page)
            after = str(page.position)
        assert pulled == [0, 2, 5, 7]
        assert after.endswith(".7")
        page = await listed(at, ("after", "0"), ("limit", "2"))
        assert (seqs(page), str(page.position)[-2:]) == ([1, 2], ".2")
        assert seqs(await listed(at, ("after", "0"), ("limit", "2"), ("cursor", page.next or ""))) == [3, 4]
        assert (await listed(at)).position is None


async def test_after_refuses_what_it_cannot_go_on_from() -> None:
    async with desk() as at:
        await at.put({}, {}, {})
        for parameters in (
            [("after", "3")],
            [("after", "x")],
            [("after", "1.2")],
            [("after", "0"), ("sort", "occurred_at")],
            [("after", "0"), ("order", "desc")],
            [("after", "0"), ("after", "1")],
        ):
            with refused(Code.INVALID_PARAMETER):
                await listed(at, *parameters)
        page = await listed(at, ("after", "-1"), ("sort", "received_at"))
        at.store.restore(at.acme, LogName.EVENTS, 1)
        at.now.forward(seconds=5)
        await at.put({}, {})
        with refused(Code.INVALID_PARAMETER):
            await listed(at, ("after", str(page.position)))


async def test_total_counts_all_matching_records_where_it_is_asked_for() -> None:
    async with desk() as at:
        await at.put(*[{"message": "needle" if number % 3 else "hay"} for number in range(30)])
        await at.index_all()
        await at.put({"message": "needle"})
        for parameters, total in (([], 31), ([("q", "needle")], 21), ([("q", "needle"), ("after", "20")], 21)):
            page = await listed(at, ("limit", "5"), ("count", "exact"), *parameters)
            assert (len(page.items), page.total) == (5, total)
        assert (await listed(at)).total is None
        assert (await listed(at, ("count", "none"))).total is None
        for text in ("all", "", "EXACT"):
            with refused(Code.INVALID_PARAMETER):
                await listed(at, ("count", text))


async def test_stats_name_the_values_of_facets_and_fill_intervals() -> None:
    async with desk() as at:
        actions = ["a", "b", "a", "c", "a", "b"]
        await at.put(
            *[{"action": action, "occurred_at": f"2026-01-{1 + 2 * day:02}T23:30:00Z"} for day, action in enumerate(actions)]
        )
        await at.index_all()
        parameters = [
            ("facets", "action,resource_type"),
            ("top", "2"),
            ("interval", "day"),
            ("tz", "Europe/Amsterdam"),
            ("fill", "zero"),
        ]
        stats = await at.reading.stats(at.principal(), REQUEST, parameters)
        assert [(facet.field, facet.values, facet.other, facet.missing) for facet in stats.facets] == [
            ("action", [("a", 3), ("b", 2)], 1, 0),
            ("resource_type", [], 0, 6),
        ]
        assert [bucket.count for bucket in stats.buckets] == [1, 0] * 5 + [1]
        assert stats.buckets[0].start == datetime(2026, 1, 1, 23, tzinfo=UTC)
        (found,) = await at.accesses()
        assert found["metadata"]["facets"] == ["action", "resource_type"]


@pytest.mark.parametrize(
    "parameters",
    [
        [("facets", "metadata")],
        [("facets", "actor,actor")],
        [("facets", "")],
        [("facets", "actor"), ("top", "0")],
        [("facets", "actor"), ("top", "101")],
        [("top", "3")],
        [("tz", "UTC")],
        [("interval", "day"), ("tz", "Utopia")],
        [("interval", "hour"), ("tz", "Australia/Lord_Howe")],
        [("fill", "zero")],
        [("interval", "day"), ("fill", "all")],
    ],
)
async def test_stats_refuse_parameters_that_they_do_not_know(parameters: list[tuple[str, str]]) -> None:
    async with desk() as at:
        with refused(Code.INVALID_PARAMETER):
            await at.reading.stats(at.principal(), REQUEST, parameters)


async def test_access_record_of_a_list_has_its_order_and_its_start() -> None:
    async with desk() as at:
        await at.put({}, {}, {})
        page = await listed(at, ("sort", "occurred_at"), ("limit", "1"), ("count", "exact"))
        await listed(at, ("sort", "occurred_at"), ("limit", "1"), ("cursor", page.next or ""))
        await listed(at, ("after", "1"))
        first, second, third = [item["metadata"] for item in await at.accesses()]
        assert (first["sort"], first["count"], first.get("start")) == ("occurred_at", "exact", None)
        assert second["start"].startswith("1.")
        assert (third["after"], third["sort"]) == ("1", "received_at")


async def test_cursor_is_refused_with_other_filters_or_for_another_tenant() -> None:
    async with desk() as at:
        await at.put({}, {})
        await at.put({}, {}, tenant=at.rival)
        _, _, page = await at.reading.list(at.principal(), REQUEST, [("limit", "1")])
        assert page.next is not None
        for principal, extra in (
            (at.principal(), [("actor", "a")]),
            (at.principal(), [("log", "access")]),
            (at.principal(), [("sort", "occurred_at")]),
            (at.principal(), [("after", "-1")]),
            (at.principal(at.rival), []),
        ):
            with refused(Code.INVALID_CURSOR):
                await at.reading.list(principal, REQUEST, [("cursor", page.next), *extra])


async def test_every_reading_returns_only_the_tenants_own_records() -> None:
    async with desk() as at:
        await at.put({"message": "mine"})
        await at.put({"message": "theirs"}, {"message": "theirs"}, tenant=at.rival)
        _, _, page = await at.reading.list(at.principal(), REQUEST, [])
        assert [json.loads(record.content)["message"] for record in page.items] == ["mine"]
        with refused(Code.NOT_FOUND):
            await at.reading.get(at.principal(), REQUEST, 1, [])
        assert (await at.reading.stats(at.principal(), REQUEST, [])).total == 1
        export = await at.reading.export(at.principal(), REQUEST, [])
        assert b"theirs" not in b"".join([chunk async for chunk in export])


@pytest.mark.parametrize("by", [[("by", "action"), ("by", "severity")], [("by", "action,severity")]])
async def test_statistics_count_by_two_fields(by: Parameters) -> None:
    async with desk() as at:
        await at.put({"action": "a"}, {"action": "a", "severity": "ERROR"}, {"action": "a"}, {"action": "b"})
        stats = await at.reading.stats(at.principal(), REQUEST, by)
        assert stats.grouping.by == ("action", "severity")
        assert [(bucket.key, bucket.count) for bucket in stats.buckets] == [
            (("a", "INFO"), 2),
            (("a", "ERROR"), 1),
            (("b", "INFO"), 1),
        ]
        assert stats.total == 4
