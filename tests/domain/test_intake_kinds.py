"""Kinds of events are recognised within any envelope, and what is none is named."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from decklog.domain.intake.decklog_export import of_cells
from decklog.domain.intake.foreign_event import HoldsNoEventsError, NotAnEventError
from decklog.domain.intake.kinds import recorded
from decklog.domain.log import LogName
from decklog.domain.records.record import RecordInput, StoredRecord
from decklog.domain.records.wire import csv_cells, csv_header, csv_rows, renderer
from tests.support.strategies import prepared

TRAIL: dict[str, Any] = {
    "eventVersion": "1.09",
    "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/dana", "userName": "dana"},
    "eventTime": "2026-11-20T10:00:06Z",
    "eventSource": "iam.amazonaws.com",
    "eventName": "CreateUser",
    "eventID": "00000000-0000-4000-8000-000000000006",
}
AUDIT: dict[str, Any] = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "auditID": "a-1",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/shop/pods/web",
    "verb": "delete",
    "user": {"username": "dana"},
    "objectRef": {"resource": "pods", "namespace": "shop", "name": "web", "apiVersion": "v1"},
    "responseStatus": {"code": 200},
    "requestReceivedTimestamp": "2026-11-20T10:00:06.123456Z",
}


def stored(value: dict[str, Any]) -> StoredRecord:
    found = prepared({"action": "a", "actor": {"id": "alice"}, **value})
    return StoredRecord(1, 7, datetime(2026, 1, 2, tzinfo=UTC), found.digest, found.content.decode())


def record_of(event: Any, kind: str = "auto") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(recorded(json.dumps(event).encode(), kind)[0])
    return found


ENVELOPES: dict[str, Any] = {
    "lookup-events": lambda text, event: {"EventId": "x", "Username": "dana", "CloudTrailEvent": text},
    "EventBridge": lambda text, event: {"detail-type": "AWS API Call via CloudTrail", "time": "x", "detail": event},
    "Docker": lambda text, event: {"log": text + "\n", "stream": "stdout", "time": "2026-11-20T10:00:06Z"},
    "Fluent Bit": lambda text, event: {"date": 1.5, "log": text, "kubernetes": {"pod_name": "x"}},
    "CloudWatch Logs": lambda text, event: {"id": "1", "timestamp": 1, "message": text},
    "Google's text": lambda text, event: {"insertId": "1", "textPayload": text, "timestamp": "x"},
    "Google's JSON": lambda text, event: {"insertId": "1", "jsonPayload": event},
    "Google's proto": lambda text, event: {"insertId": "1", "protoPayload": event},
    "Azure": lambda text, event: {"category": "kube-audit", "properties": {"log": text, "stream": "stdout"}},
    "Filebeat": lambda text, event: {"@timestamp": "x", "event": {"original": text}},
    "Splunk": lambda text, event: {"sourcetype": "x", "_raw": text},
    "Docker's within Azure's": lambda text, event: {"properties": {"log": json.dumps({"log": text + "\n", "stream": "stdout"})}},
}


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize(("event", "kind"), [(TRAIL, "cloudtrail"), (AUDIT, "kubernetes")], ids=["cloudtrail", "kubernetes"])
def test_event_in_an_envelope_has_the_record_of_the_bare_event(envelope: str, event: dict[str, Any], kind: str) -> None:
    wrapped = ENVELOPES[envelope](json.dumps(event), event)
    assert record_of(wrapped) == record_of(wrapped, kind) == record_of(event, kind)


def test_unstorable_characters_within_an_envelope_are_replaced() -> None:
    event = {**TRAIL, "userAgent": "a\0b", "errorMessage": "\ud800"}
    encoded, replaced = recorded(json.dumps({"log": json.dumps(event)}).encode(), "auto")
    assert replaced == 2
    assert json.loads(encoded)["source"]["user_agent"] == "a\ufffdb"


def test_cloudtrail_event_in_the_form_of_logstash_is_read_by_its_timestamp() -> None:
    event = {**TRAIL, "@timestamp": "2020-09-14T00:44:23.000Z", "@version": "1"}
    del event["eventTime"]
    assert record_of(event)["occurred_at"] == "2020-09-14T00:44:23.000Z"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (5, "it is not a JSON object"),
        ([TRAIL], "it is not a JSON object"),
        ({"b": 1, "a": 2}, "it is of no known kind .cloudtrail, kubernetes, decklog.; its first members: a, b"),
        ({}, "its first members: none"),
        ({"log": '{"kind": "Ev'}, "its log is one part of a line that was split"),
        ({"textPayload": "{x}"}, "its textPayload does not hold an event: it is not JSON"),
        (
            {"kind": "Event", "apiVersion": "v1", "involvedObject": {}, "message": "x"},
            r'it is an Event of "v1" .kubectl get events',
        ),
        ({name: value for name, value in TRAIL.items() if name != "eventTime"}, "it has no eventTime"),
        ({name: value for name, value in AUDIT.items() if "Time" not in name}, "it has no requestReceivedTimestamp"),
    ],
)
def test_event_of_no_kind_is_refused_with_the_reason(event: Any, reason: str) -> None:
    with pytest.raises(NotAnEventError, match=reason):
        record_of(event)


@pytest.mark.parametrize("kind", ["auto", "cloudtrail"])
def test_digest_file_of_cloudtrail_is_named_and_holds_no_events(kind: str) -> None:
    digest = {"awsAccountId": "1", "digestStartTime": "x", "digestEndTime": "y", "logFiles": []}
    with pytest.raises(HoldsNoEventsError, match="it is a digest file of CloudTrail"):
        record_of(digest, kind)


EXPORTED: dict[str, Any] = {
    "id": "e-1",
    "actor": {"id": "-dana", "type": "user", "name": "'=Dana"},
    "resource": {"type": "t", "id": "r", "name": "n"},
    "related": [{"type": "t", "id": "x"}],
    "occurred_at": "2026-01-01T00:00:00.123456Z",
    "severity": "ERROR",
    "outcome": "denied",
    "message": 'said "no";=1,\r\n@then left',
    "source": {"ip": "192.0.2.1", "user_agent": "curl"},
    "session_id": "s",
    "correlation_id": "c",
    "before": {"a": [1, None]},
    "after": 2**70,
    "metadata": {"a;=b": "x\t=1"},
}


def test_exported_record_keeps_its_fields_and_names_its_origin() -> None:
    found = stored({"action": "a", **EXPORTED})
    record = record_of(json.loads(renderer("acme", LogName.ACCESS)(found)))
    origin = record["metadata"].pop("decklog")
    assert record == {"action": "a", **EXPORTED}
    assert (origin["tenant"], origin["log"], origin["epoch"], origin["seq"]) == ("acme", "access", 1, 7)
    assert origin["digest"] == "sha256:" + found.digest.hex()
    msgspec.convert(record, RecordInput)


def test_exported_record_without_an_id_gets_its_place_as_id() -> None:
    exported = json.loads(renderer("acme", LogName.EVENTS)(stored({})))
    assert record_of(exported)["id"] == "decklog:acme/events/1/7"


def test_record_that_was_imported_before_keeps_its_first_origin() -> None:
    first = json.loads(renderer("acme", LogName.EVENTS)(stored({"metadata": {"decklog": {"tenant": "older"}, "a": 1}})))
    assert record_of(first)["metadata"] == {"decklog": {"tenant": "older"}, "a": 1}
    plain = json.loads(renderer("acme", LogName.EVENTS)(stored({"metadata": [1]})))
    assert record_of(plain)["metadata"]["value"] == [1]


def test_row_of_a_csv_export_is_the_record_of_the_json_export() -> None:
    found = stored({"action": "a", **EXPORTED})
    text = csv_header() + csv_rows([csv_cells("acme", LogName.EVENTS, found)])
    columns, cells = csv.reader(io.StringIO(text, newline=""))
    assert of_cells(columns, cells) == json.loads(renderer("acme", LogName.EVENTS)(found))


@pytest.mark.parametrize(
    ("columns", "cells", "reason"),
    [
        (["seq", "action"], ["1"], "it has 1 cells, and the first row has 2"),
        (["seq", "metadata"], ["1", "{"], "its metadata is not JSON"),
    ],
)
def test_row_that_is_no_record_is_refused(columns: list[str], cells: list[str], reason: str) -> None:
    with pytest.raises(NotAnEventError, match=reason):
        of_cells(columns, cells)


@pytest.mark.parametrize("twin", [b'"eventName"', b'"event\\u004eame"'])
def test_event_with_a_name_twice_is_refused_with_the_name(twin: bytes) -> None:
    raw = (
        b'{"eventName":"CreateUser","eventSource":"iam.amazonaws.com","eventTime":"2026-01-01T00:00:00Z",'
        + twin
        + b':"DeleteUser"}'
    )
    with pytest.raises(NotAnEventError, match="the name 'eventName' occurs twice"):
        recorded(raw, "cloudtrail")
    with pytest.raises(NotAnEventError, match="the name 'a' occurs twice in requestParameters"):
        recorded(raw.replace(twin + b':"DeleteUser"', b'"requestParameters":{"a":"\\ud800","a":1}'), "cloudtrail")
