"""`decklog dev --demo`: a story of its own in a tenant of its own, told once."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.demo import telling
from decklog.demo.story import REFUSED, SPAN, live, story
from decklog.demo.strand import time_of
from decklog.domain.errors import DecklogError
from decklog.domain.records.record import RecordInput, decode, prepare
from tests.support.dev import Dev

END = datetime(2026, 12, 1, 13, 30, tzinfo=UTC)
SECONDS_MAX = 60.0


def sent(record: RecordInput) -> bytes:
    return msgspec.json.encode(record)


# The story


def test_story_is_the_same_for_the_same_end() -> None:
    assert [sent(record) for record in story(END)] == [sent(record) for record in story(END)]
    assert [sent(record) for record in story(END, seed=2)] != [sent(record) for record in story(END)]


@settings(max_examples=5)
@given(st.datetimes(datetime(2024, 1, 1), datetime(2060, 1, 1)), st.integers(0, 2**32))  # noqa: DTZ001
def test_story_is_in_the_order_of_time_within_two_weeks_whatever_the_moment(end: datetime, seed: int) -> None:
    end = end.replace(tzinfo=UTC)
    records = story(end, seed)
    times = [time_of(record) for record in records]
    assert times == sorted(times)
    assert end - SPAN <= times[0] <= times[-1] < end
    assert 3_000 <= len(records) <= 5_000
    assert len({record.id for record in records}) == len(records)


def test_every_record_of_the_story_is_accepted_and_every_faulty_one_refused() -> None:
    for record in story(END):
        prepare(decode(sent(record)), now=END, fingerprint_key=b"k" * 32)
    for raw in REFUSED:
        with pytest.raises(DecklogError):
            decode(raw)


def test_live_records_have_neither_id_nor_time_of_their_own() -> None:
    assert {(record.id, record.occurred_at) for record in islice(live(1), 200)} == {(None, None)}


def test_break_in_ends_before_the_story_and_is_in_order() -> None:
    times = [time_of(record) for record in story(END) if record.correlation_id == "inc-31"]
    assert END - timedelta(hours=7) < times[0] < times[-1] < END
    one = [time_of(record) for record in story(END) if record.source and record.source.ip == "203.0.113.66"]
    assert END - timedelta(hours=19) <= one[0] < one[-1] < times[0]


# The file with its progress


def test_demo_does_not_begin_in_a_tenant_of_others(tmp_path: Path) -> None:
    assert not telling.begin(tmp_path / "demo.json", taken=True)
    assert list(tmp_path.iterdir()) == []


def test_demo_that_began_goes_on_although_its_tenant_exists(tmp_path: Path) -> None:
    assert telling.begin(tmp_path / "demo.json", taken=False)
    begun = (tmp_path / "demo.json").read_bytes()
    assert telling.begin(tmp_path / "demo.json", taken=True)
    assert (tmp_path / "demo.json").read_bytes() == begun


async def test_telling_without_a_server_goes_on_trying_and_ends_when_it_is_stopped(tmp_path: Path) -> None:
    state, stop = tmp_path / "demo.json", asyncio.Event()
    telling.begin(state, taken=False)
    begun = state.read_bytes()
    task = asyncio.create_task(telling.tell("http://127.0.0.1:9", lambda: "dlk_x", state, stop))
    await asyncio.sleep(0.05)
    assert not task.done()
    stop.set()
    await asyncio.wait_for(task, 5)
    assert state.read_bytes() == begun


# `decklog dev --demo`


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    made = Dev(tmp_path_factory.mktemp("demo"))
    made.start("--demo")
    yield made
    made.close()


def told(dev: Dev) -> dict[str, Any]:
    """The progress, once the whole story is stored."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        progress: dict[str, Any] = json.loads((dev.data / "demo.json").read_bytes())
        if progress["whole"]:
            return progress
        assert time.monotonic() < deadline, dev.log.read_text()
        time.sleep(0.1)


def found(dev: Dev, **parameters: Any) -> list[dict[str, Any]]:
    with dev.client("demo", "auditor") as client:
        answer = client.get("/api/v1/logs", params={"limit": 1000, **parameters})
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items


def test_demo_fills_its_own_tenant_alone(dev: Dev) -> None:
    stored = told(dev)["stored"]
    with dev.client("demo", "auditor") as client:
        page = client.get("/api/v1/logs", params={"limit": 1, "q": "id:story-*", "count": "exact"}).json()
        assert page["total"] == stored
        days = client.get("/api/v1/logs/stats", params={"interval": "day"}).json()["buckets"]
        assert len(days) in (14, 15)
    with dev.client("acme", "auditor") as client:
        assert client.get("/api/v1/logs").json()["items"] == []


def test_faulty_records_of_the_demo_are_kept_as_rejected(dev: Dev) -> None:
    told(dev)
    with dev.client("demo", "admin") as client:
        deadline = time.monotonic() + SECONDS_MAX
        while len(items := client.get("/api/v1/rejected").json()["items"]) < len(REFUSED):
            assert time.monotonic() < deadline, items
            time.sleep(0.1)
    assert {item["code"] for item in items} == {"invalid-record"}


def test_auditor_can_follow_the_break_in_from_the_address_to_the_response(dev: Dev) -> None:
    told(dev)
    tried = found(dev, ip="203.0.113.66", action="user.login")
    assert Counter(record["outcome"] for record in tried) == {"failure": 70, "success": 1}
    assert tried[1]["metadata"]["form"]["password"] == "[masked]"
    [entered] = [record for record in tried if record["outcome"] == "success"]
    session = found(dev, session_id=entered["session_id"])
    [created] = [record for record in session if record["action"] == "access_key.create"]
    [raised] = [record for record in session if record["action"] == "user.update"]
    assert (raised["before"]["roles"], raised["after"]["roles"]) == (["support"], ["support", "admin"])
    assert session[1]["action"] == "trail.delete"
    by_key = Counter(record["action"] for record in found(dev, actor=created["resource"]["id"]))
    assert by_key["secret.read"] == 12
    assert by_key["customer.export"] == 1
    response = [record["action"] for record in found(dev, correlation_id="inc-31", order="asc")]
    assert response[0] == "alert.raise"
    assert {"access_key.revoke", "session.revoke", "user.suspend", "trail.create"} <= set(response)


def test_numbers_of_the_story_follow_its_times(dev: Dev) -> None:
    told(dev)
    by_number = [record["seq"] for record in found(dev, q="id:story-*")]
    assert by_number == [record["seq"] for record in found(dev, q="id:story-*", sort="-occurred_at")]


def test_live_records_go_on_and_a_restart_tells_the_story_no_second_time(dev: Dev) -> None:
    before = told(dev)
    assert dev.signal(signal.SIGINT) == 0
    dev.start("--demo")
    with dev.client("demo", "auditor") as client:
        parameters: dict[str, Any] = {"q": "NOT id:story-*", "limit": 1, "count": "exact"}
        first = client.get("/api/v1/logs", params=parameters).json()["total"]
        deadline = time.monotonic() + SECONDS_MAX
        while client.get("/api/v1/logs", params=parameters).json()["total"] == first:
            assert time.monotonic() < deadline, dev.log.read_text()
            time.sleep(0.2)
        total = client.get("/api/v1/logs", params={**parameters, "q": "id:story-*"}).json()["total"]
    assert (total, told(dev)) == (before["stored"], before)
