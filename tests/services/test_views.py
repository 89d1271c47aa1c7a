"""Viewers: every reading gives the records of their scope alone, with its fields alone, and reveals nothing else."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decklog.api.routes.logs import page_json, stats_json
from decklog.domain.errors import Code, DecklogError
from decklog.domain.identity.access import GRANTS, Permission, Principal, Role
from decklog.domain.identity.scope import Scope
from decklog.domain.log import LogName, Position
from decklog.domain.records.append import AppendRequest
from decklog.domain.records.record import Prepared
from decklog.domain.search import lexemes, tree
from decklog.domain.search.fields import COUNTABLE
from decklog.domain.search.query import Query, parse
from decklog.domain.tenant import State
from decklog.services.records.reading import Page
from decklog.services.sealing import Sealing, derived_key
from tests.support.desk import REQUEST, Desk, desk
from tests.support.examples import examples
from tests.support.memory import make_tenant
from tests.support.naive import satisfies, values
from tests.support.scopes import fields_of_scopes, may_ask, only_texts, seen, shows, viewer
from tests.support.strategies import queries, records, terms_of

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
properties = settings(
    deadline=None,
    max_examples=examples(125),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
OURS, THEIRS = {"metadata": {"customer": "c-1"}}, {"metadata": {"customer": "c-2"}}
SCOPE = "metadata.customer:c-1"


@contextmanager
def refused(code: Code, text: str | None = None) -> Iterator[None]:
    with pytest.raises(DecklogError, match=text) as error:
        yield
    assert error.value.code is code


def shown(page: Page) -> list[dict[str, Any]]:
    write = page.view.writer()
    return [json.loads(write(record)) for record in page.items]


async def listed(at: Desk, principal: Principal, *parameters: tuple[str, str]) -> Page:
    return (await at.reading.list(principal, REQUEST, parameters))[2]


async def exported(at: Desk, principal: Principal, *parameters: tuple[str, str]) -> bytes:
    export = await at.reading.export(principal, REQUEST, parameters)
    async with aclosing(export):
        return b"".join([chunk async for chunk in export])


# -- the law


async def answers(at: Desk, principal: Principal, query: Parameters) -> dict[str, Any]:
    """Return the answers of all readings to a query, without sealed values."""
    pages, cursor = [], list[tuple[str, str]]()
    while True:
        page = await listed(at, principal, *query, ("limit", "2"), ("count", "exact"), *cursor)
        pages.append((shown(page), page.total))
        if page.next is None:
            break
        cursor = [("cursor", page.next)]
    found: dict[str, Any] = {"pages": pages}
    found["ndjson"] = await exported(at, principal, *query)
    found["json"] = await exported(at, principal, *query, ("format", "json"))
    found["csv"] = await exported(at, principal, *query, ("format", "csv"))
    stats = await at.reading.stats(principal, REQUEST, query)
    found["total"] = stats.total
    stream = await at.streams.open(principal, REQUEST, query, "-1")
    async with aclosing(stream):
        events = [(await anext(aiter(stream))).record for _ in range(stats.total)]
        found["stream"] = [json.loads(await stream.rendered(event)) for event in events if event is not None]
    return found


async def stored(at: Desk, made: Sequence[Prepared]) -> None:
    """Store records in this order, half of them where the index finds them."""
    half = len(made) // 2
    for part in (made[:half], made[half:]):
        if part:
            await at.store.append([AppendRequest(at.acme, LogName.EVENTS, list(part))])
        if part is not made[half:]:
            await at.index_all()


def expected(made: Sequence[Prepared], scope: Query, query: tree.Node, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """The records that a viewer sees, oldest first."""
    contents = [json.loads(record.content) for record in made]
    inside = [content for content in contents if satisfies(scope.root, content)]
    return [view for content in inside if asks(query, view := seen(content, fields) or {})]


def asks(node: tree.Node, view: dict[str, Any]) -> bool:
    """Return whether the visible part of a record satisfies a query; words are found in some texts alone."""
    match node:
        case tree.And():
            return all(asks(child, view) for child in node.children)
        case tree.Or():
            return any(asks(child, view) for child in node.children)
        case tree.Not():
            return not asks(node.child, view)
        case tree.Phrase(field="") | tree.WordPattern(field=""):
            return satisfies(node, only_texts(view))
        case _:
            return satisfies(node, view)


def readable(text: str) -> bool:
    """Return whether a text is a query. Parameters may have longer patterns than the language."""
    try:
        parse([("q", text)])
    except DecklogError:
        return False
    return True


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Prepared], Query, tuple[str, ...], Query]:
    """Records, the query and the fields of a scope, and a query of its holder."""
    made = draw(st.lists(records(), min_size=1, max_size=6))
    scope = draw(queries(terms_of(draw(st.sampled_from(made)))))
    fields = draw(fields_of_scopes())
    found = terms_of(draw(st.sampled_from(made)))
    words = [lexemes.quoted(word) for text in found.texts for word in text]
    text = draw(st.one_of(queries(found).map(lambda query: query.text), st.sampled_from(words or ["a"])))
    return made, scope, fields, parse([("q", text)])[1] if readable(text) else Query()


def without_received(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "received_at"} for record in records]


@given(situation=situations(), indexed=st.booleans())
@properties
async def test_viewer_sees_what_the_scope_shows_and_queries_what_it_sees(
    situation: tuple[list[Prepared], Query, tuple[str, ...], Query], indexed: bool
) -> None:
    made, scope, fields, query = situation
    async with desk(indexed=indexed) as at:
        await stored(at, made)
        principal = viewer(at.acme, scope, *fields)
        asked = [] if query.empty else [("q", query.text)]
        if not may_ask(query.root, fields):
            with refused(Code.INVALID_QUERY, "viewer token"):
                await answers(at, principal, asked)
            asked, query = [], Query()
        wanted = expected(made, scope, query.root, fields)
        found = await answers(at, principal, asked)
        pages = [record for page, _ in found["pages"] for record in page]
        assert without_received(pages) == wanted[::-1]
        assert {total for _, total in found["pages"]} == {len(wanted)} == {found["total"]}
        assert without_received(found["stream"]) == wanted
        assert without_received([json.loads(line) for line in found["ndjson"].splitlines()]) == wanted
        assert without_received(json.loads(found["json"])) == wanted
        header, *rows = csv.reader(io.StringIO(found["csv"].decode(), newline=""))
        assert (tuple(header), len(rows)) == (fields, len(wanted))


@given(situation=situations(), by=st.sampled_from(list(COUNTABLE)))
@properties
async def test_counts_of_a_viewer_are_those_of_what_it_sees(
    situation: tuple[list[Prepared], Query, tuple[str, ...], Query], by: str
) -> None:
    made, scope, fields, _ = situation
    path = COUNTABLE[by].path
    async with desk() as at:
        await stored(at, made)
        principal, parameters = viewer(at.acme, scope, *fields), [("by", by), ("facets", by)]
        if not shows(fields, path):
            for each in parameters:
                with refused(Code.INVALID_QUERY, "viewer token"):
                    await at.reading.stats(principal, REQUEST, [each])
            return
        stats = await at.reading.stats(principal, REQUEST, parameters)
        wanted = Counter(next(iter(values(view, path)), None) for view in expected(made, scope, tree.Everything(), fields))
        assert {bucket.key[0]: bucket.count for bucket in stats.buckets} == wanted
        assert dict(stats.facets[0].values) == {value: count for value, count in wanted.items() if value is not None}


@st.composite
def twins(draw: st.DrawFn) -> tuple[list[Prepared], list[Prepared], Query, tuple[str, ...], Query]:
    """Two logs that differ only in records outside of a scope, and in hidden fields of those within."""
    made, scope, fields, query = draw(situations())
    others = draw(st.lists(records(), max_size=4))

    def inside(record: Prepared) -> bool:
        return satisfies(scope.root, json.loads(record.content))

    first = [record for record in made if inside(record)]
    second: list[Prepared] = []
    for record in first:
        content, visible = json.loads(record.content), seen(json.loads(record.content), fields)
        alike = [other for other in (*others, *made) if inside(other) and seen(json.loads(other.content), fields) == visible]
        second.append(draw(st.sampled_from([record, *alike])) if content else record)
    outside = [record for record in (*made, *others) if not inside(record)]

    def mixed(kept: list[Prepared]) -> list[Prepared]:
        for record in draw(st.lists(st.sampled_from(outside), max_size=4)) if outside else ():
            kept = list(kept)
            kept.insert(draw(st.integers(0, len(kept))), record)
        return kept

    return mixed(first), mixed(second), scope, fields, query


@given(case=twins())
@properties
async def test_logs_that_look_alike_to_a_viewer_answer_alike(
    case: tuple[list[Prepared], list[Prepared], Query, tuple[str, ...], Query],
) -> None:
    first, second, scope, fields, query = case
    fields = tuple(field for field in fields if field != "received_at") or ("action",)
    found = []
    for made in (first, second):
        async with desk() as at:
            await stored(at, made)
            try:
                asked = [] if query.empty else [("q", query.text)]
                found.append(await answers(at, viewer(at.acme, scope, *fields), asked))
            except DecklogError as error:
                found.append({"refused": (error.code, error.detail, error.extra)})
    assert found[0] == found[1]


# -- what else a viewer may not


@every_call
async def test_reading_beyond_the_scope_is_refused(call: Call) -> None:
    async with desk() as at:
        await at.put(OURS, THEIRS)
        principal = viewer(at.acme, SCOPE)
        for parameters in ([("log", "access")], [("log", "access"), ("q", "a")]):
            with refused(Code.FORBIDDEN, "events"):
                await call(at, principal, parameters)
        with refused(Code.TENANT_SUSPENDED):
            await call(at, viewer(make_tenant("acme", state=State.SUSPENDED), SCOPE), [])


async def test_record_outside_of_the_scope_is_not_found_whatever_is_known_of_it() -> None:
    async with desk() as at:
        await at.put(OURS, THEIRS)
        principal = viewer(at.acme, SCOPE)
        _, record = await at.reading.get(principal, REQUEST, 0, [])
        assert record.seq == 0
        missing = []
        for seq in (1, 2):
            with pytest.raises(DecklogError) as error:
                await at.reading.get(principal, REQUEST, seq, [])
            missing.append((error.value.code, error.value.detail.replace(str(seq), "N"), error.value.extra))
        assert missing[0] == missing[1]
        assert missing[0][0] is Code.NOT_FOUND
        for fields in (("action",), ("metadata", "occurred_at")):
            with refused(Code.INVALID_QUERY, "'seq'"):
                await at.reading.get(viewer(at.acme, SCOPE, *fields), REQUEST, 0, [])


async def test_damaged_record_outside_of_the_scope_is_not_found() -> None:
    async with desk() as at:
        await at.put(OURS, THEIRS, OURS)
        for seq in (1, 2):
            at.store.damage(at.acme, LogName.EVENTS, seq)
        principal = viewer(at.acme, SCOPE)
        with refused(Code.NOT_FOUND):
            await at.reading.get(principal, REQUEST, 1, [])
        with pytest.raises(DecklogError) as error:
            await at.reading.get(principal, REQUEST, 2, [])
        assert (error.value.code, error.value.extra) == (Code.RECORD_DAMAGED, {})
        assert "2" not in error.value.detail


async def test_words_of_hidden_texts_are_not_found() -> None:
    async with desk() as at:
        await at.put(
            {**OURS, "message": "shown", "actor": {"id": "hidden", "name": "secret"}, "resource": {"type": "t", "id": "r"}}
        )
        await at.index_all()
        principal = viewer(at.acme, SCOPE, "message", "actor.id", "metadata")
        counts = {}
        for word in ("shown", "hidden", "secret", "c-1", "sho*", "hid*", "NOT hidden", "NOT shown"):
            counts[word] = len((await listed(at, principal, ("q", word))).items)
        assert counts == {
            "shown": 1,
            "hidden": 0,
            "secret": 0,
            "c-1": 0,
            "sho*": 1,
            "hid*": 0,
            "NOT hidden": 1,
            "NOT shown": 0,
        }
        assert len((await listed(at, principal, ("q", "actor.id:hidden"))).items) == 1
        for query in ("actor.name:secret", "exists:actor.name", "since:24h", "-resource.id:r", "a OR actor.type:user"):
            with refused(Code.INVALID_QUERY, "does not show"):
                await listed(at, principal, ("q", query))
        with refused(Code.INVALID_QUERY, "Words are found in"):
            await listed(at, viewer(at.acme, SCOPE, "action"), ("q", "shown"))


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        ("list", [("sort", "occurred_at")]),
        ("list", [("from", "2026-01-01T00:00:00Z")]),
        ("list", [("actor", "tester")]),
        ("list", [("metadata.b", "1")]),
        ("stats", [("by", "actor")]),
        ("stats", [("facets", "outcome,actor")]),
        ("stats", [("interval", "day")]),
        ("export", [("fields", "action,actor.id")]),
        ("export", [("fields", "metadata")]),
        ("export", [("fields", "seq")]),
        ("stream", [("severity", "INFO")]),
    ],
)
async def test_hidden_field_can_neither_be_asked_for_nor_be_compared(call: str, parameters: Parameters) -> None:
    async with desk() as at:
        await at.put(OURS, THEIRS)
        with refused(Code.INVALID_QUERY, "viewer token does not show"):
            await CALLS[call](at, viewer(at.acme, SCOPE, "action", "outcome", "metadata.a"), parameters)


async def test_answers_to_a_viewer_hold_no_number_of_the_log() -> None:
    async with desk() as at:
        await at.put(*[THEIRS, OURS] * 3)
        principal = viewer(at.acme, SCOPE, "action")
        page = await listed(at, principal, ("limit", "2"))
        body = json.loads(await page_json(at.reading, page))
        assert body == {"items": [{"action": "test.happened"}] * 2, "next": page.next, "total": None, "position": None}
        ascending = json.loads(await page_json(at.reading, await listed(at, principal, ("order", "asc"))))
        stats = json.loads(stats_json(await at.reading.stats(principal, REQUEST, [])))
        assert stats.keys() == {"buckets", "total", "by", "interval", "tz", "facets"}
        export = await at.reading.export(principal, REQUEST, [])
        await export.aclose()
        assert export.filename == "acme-events.ndjson"
        sealed = [str(page.next), ascending["position"], export.position]
        assert len({len(each) for each in sealed}) == 1
        for each in sealed:
            with refused(Code.INVALID_PARAMETER):
                Position.parse(each)
            assert re.fullmatch("[A-Za-z0-9_-]{120,130}", each)


async def test_viewer_goes_on_from_sealed_positions_and_from_no_others() -> None:
    async with desk() as at:
        await at.put(OURS, THEIRS, OURS)
        principal = viewer(at.acme, SCOPE)
        first = await listed(at, principal, ("after", "-1"))
        assert [record.seq for record in first.items] == [0, 2]
        place = first.view.mark(first.position or "")
        await at.put(THEIRS, OURS)
        assert [record.seq for record in (await listed(at, principal, ("after", place))).items] == [4]
        async with aclosing(await at.streams.open(principal, REQUEST, [], place)) as stream:
            event = await anext(aiter(stream))
            assert event.record is not None
            assert event.record.seq == 4
        page = await listed(at, at.principal(), ("limit", "1"), ("metadata.customer", "c-1"))
        for name, value in (("after", "1"), ("after", str(first.position)), ("after", "0"), ("after", "x" * 2_000)):
            with refused(Code.INVALID_PARAMETER, "not a position"):
                await listed(at, principal, (name, value))
        for cursor in (page.next or "", "", "é", place[:-2] + "AA"):
            with refused(Code.INVALID_CURSOR):
                await listed(at, principal, ("cursor", cursor))
        with refused(Code.INVALID_CURSOR):
            await listed(at, viewer(at.acme, "NOT action:x"), ("cursor", place))
        with refused(Code.INVALID_PARAMETER, "not a position"):
            await listed(at, viewer(at.rival, SCOPE), ("after", place))
        with refused(Code.UNKNOWN_PARAMETER, "wait"):
            await listed(at, principal, ("wait", "1"))


async def test_error_of_a_position_that_is_gone_says_no_number() -> None:
    async with desk() as at:
        await at.put(*[OURS] * 3)
        principal = viewer(at.acme, SCOPE)
        page = await listed(at, principal, ("after", "-1"))
        place = page.view.mark(page.position or "")
        at.store.restore(at.acme, LogName.EVENTS, 1)
        for ask in (
            listed(at, principal, ("after", place)),
            at.reading.export(principal, REQUEST, [("after", place)]),
            at.streams.open(principal, REQUEST, [], place),
        ):
            with refused(
                Code.INVALID_PARAMETER, r"^after: the log cannot be read on from this position any more\. Begin without it\.$"
            ):
                await ask


async def test_stream_of_a_viewer_ends_without_the_number_of_a_damaged_record() -> None:
    async with desk() as at:
        await at.put(OURS)
        async with aclosing(await at.streams.open(viewer(at.acme, SCOPE), REQUEST, [])) as stream:
            stream.end(DecklogError(Code.RECORD_DAMAGED, "Record 7 of the log.", extra={"seq": 7}))
            with pytest.raises(DecklogError) as error:
                await anext(aiter(stream))
        assert (error.value.extra, "7" in error.value.detail) == ({}, False)


async def test_readings_of_a_viewer_are_recorded_with_subject_token_and_key() -> None:
    async with desk() as at:
        await at.put(OURS)
        await at.reading.list(viewer(at.acme, SCOPE, "action", subject="c-1/u-7"), REQUEST, [("action", "test")])
        (found,) = await at.accesses()
        assert found["actor"] == {"id": "c-1/u-7", "type": "viewer"}
        assert found["metadata"]["role"] == "viewer"
        assert found["metadata"]["viewer"] == {"token": "token-1", "minted_by": "key-1"}
        assert found["metadata"]["filter"] == {"q": "metadata.customer:c-1 AND action:test"}


async def test_conditions_of_scope_and_query_together_are_bounded() -> None:
    async with desk() as at:
        await at.put(OURS)
        words = " ".join(f"w{number}" for number in range(100))
        assert (await listed(at, viewer(at.acme, SCOPE, "message"), ("q", words))).items == []
        with refused(Code.INVALID_QUERY, "more than 256 conditions"):
            await listed(at, viewer(at.acme, SCOPE, "message", "actor", "source"), ("q", words))


def test_viewer_has_one_permission_that_no_other_role_has() -> None:
    assert GRANTS[Role.VIEWER] == {Permission.VIEW}
    assert all(Permission.VIEW not in granted for role, granted in GRANTS.items() if role is not Role.VIEWER)
    with pytest.raises(ValueError, match="scope"):
        Principal(kind="viewer", subject="x", role=Role.VIEWER, tenant=None)
    with pytest.raises(ValueError, match="scope"):
        Principal(kind="api_key", subject="x", role=Role.AUDITOR, tenant=None, scope=Scope("t", "k", Query()))


# -- sealing


@given(st.text(max_size=300).map(lambda text: text.rstrip("\0")), st.integers(0, 2**40))
def test_sealed_text_is_read_by_its_key_for_its_owner_alone(text: str, owner: int) -> None:
    key = derived_key("a secret of the tests", "positions")
    sealed = Sealing(key).seal(text, owner)
    assert Sealing(key).opened(sealed, owner) == text
    assert Sealing(key).seal(text, owner) != sealed
    assert Sealing(key).opened(sealed, owner + 1) is None
    assert Sealing(derived_key("a secret of the tests", "others")).opened(sealed, owner) is None
    assert Sealing().opened(sealed, owner) is None
    assert Sealing(key).opened(sealed[:-4], owner) is None
