"""Mapping of Kubernetes audit events: fields, refusals, and the whole event in `metadata`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.intake.foreign_event import NotAnEventError
from decklog.domain.intake.kubernetes_audit import record
from decklog.domain.privacy.masking import MASK
from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource, Severity, Source, decode
from tests.support import real_events
from tests.support.json_values import values
from tests.support.records import stored

EVENT: dict[str, Any] = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "level": "Metadata",
    "auditID": "033d17af-082d-4b24-aa22-627752e83d71",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/default/pods/web?dryRun=All",
    "verb": "delete",
    "user": {"username": "alice", "groups": ["system:authenticated"]},
    "sourceIPs": ["192.0.2.7", "10.0.0.1"],
    "userAgent": "kubectl/v1.30",
    "objectRef": {"resource": "pods", "namespace": "default", "name": "web", "apiVersion": "v1"},
    "responseStatus": {"metadata": {}, "code": 200},
    "requestReceivedTimestamp": "2023-07-10T11:42:36.123456Z",
    "stageTimestamp": "2023-07-10T11:42:37Z",
}


def changed(**changes: Any) -> RecordInput:
    return record({**EVENT, **changes})


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in EVENT.items() if name not in names}


def kept_of(made: RecordInput) -> dict[str, Any]:
    assert isinstance(made.metadata, dict)
    return made.metadata


def test_kubernetes_event_maps_to_a_record() -> None:
    made = record(EVENT)
    assert made == RecordInput(
        id=made.id,
        action="delete pods",
        actor=Actor(id="alice", type="User"),
        resource=Resource(type="pods", id="default/web", name="web"),
        related=[Resource(type="namespaces", id="default", name="default")],
        occurred_at="2023-07-10T11:42:36.123456Z",
        severity=Severity.INFO,
        outcome=Outcome.SUCCESS,
        source=Source(ip="192.0.2.7", user_agent="kubectl/v1.30"),
        correlation_id="033d17af-082d-4b24-aa22-627752e83d71",
        metadata=EVENT,
    )
    assert made.id is not None
    assert made.id.startswith("033d17af-082d-4b24-aa22-627752e83d71:ResponseComplete:")


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({"verb": "create"}, "create pods"),
        ({"verb": "create", "objectRef": {"resource": "pods", "subresource": "exec"}}, "create pods/exec"),
        ({"verb": "get", "objectRef": None, "requestURI": "/healthz?timeout=32s"}, "get /healthz"),
        ({"verb": "get", "objectRef": {}, "requestURI": "/api"}, "get /api"),
    ],
)
def test_kubernetes_action_is_verb_and_resource_or_path(changes: dict[str, Any], action: str) -> None:
    assert changed(**changes).action == action


def test_kubernetes_request_to_no_resource_is_named_by_its_path() -> None:
    made = changed(objectRef=None, requestURI="/version?timeout=1s")
    assert made.resource == Resource(type="path", id="/version")
    assert made.related is None


def test_kubernetes_new_object_has_the_name_of_the_response() -> None:
    pods = {"resource": "pods", "namespace": "default"}
    assert changed(verb="list", objectRef=pods).resource == Resource(type="pods")
    made = changed(verb="create", objectRef=pods, responseObject={"metadata": {"name": "web-x"}})
    assert made.resource == Resource(type="pods", id="default/web-x", name="web-x")
    assert changed(objectRef={"resource": "nodes", "name": "n"}).resource == Resource(type="nodes", id="n", name="n")


@pytest.mark.parametrize(
    ("changes", "outcome", "severity"),
    [
        ({"responseStatus": {"code": 201}}, Outcome.SUCCESS, Severity.INFO),
        ({"responseStatus": {"code": 101}}, Outcome.SUCCESS, Severity.INFO),
        ({"responseStatus": {"code": 403, "status": "Failure"}}, Outcome.DENIED, Severity.WARNING),
        ({"responseStatus": {"code": 401}}, Outcome.DENIED, Severity.WARNING),
        ({"responseStatus": {"code": 404}}, Outcome.FAILURE, Severity.WARNING),
        ({"responseStatus": {"code": 500}}, Outcome.FAILURE, Severity.ERROR),
        ({"responseStatus": {"status": "Failure"}}, Outcome.FAILURE, Severity.WARNING),
        ({"responseStatus": None, "stage": "RequestReceived"}, Outcome.UNKNOWN, Severity.INFO),
        ({"responseStatus": {"code": "200"}}, Outcome.UNKNOWN, Severity.INFO),
        ({"stage": "Panic", "responseStatus": None}, Outcome.FAILURE, Severity.ERROR),
        ({"annotations": {"authorization.k8s.io/decision": "forbid"}}, Outcome.DENIED, Severity.WARNING),
    ],
)
def test_kubernetes_outcome_follows_the_status(changes: dict[str, Any], outcome: Outcome, severity: Severity) -> None:
    made = changed(**changes)
    assert (made.outcome, made.severity) == (outcome, severity)


@pytest.mark.parametrize(
    ("user", "actor"),
    [
        ({"username": "alice"}, Actor(id="alice", type="User")),
        (
            {"username": "system:serviceaccount:kube-system:job"},
            Actor(id="system:serviceaccount:kube-system:job", type="ServiceAccount", name="job"),
        ),
        ({"username": "system:node:n1"}, Actor(id="system:node:n1", type="Node")),
        ({"username": "", "uid": "u"}, Actor(id="u", type="Unknown")),
        ({}, Actor(id="unknown", type="Unknown")),
        (None, Actor(id="unknown", type="Unknown")),
    ],
)
def test_kubernetes_actor_is_the_authenticated_user(user: Any, actor: Actor) -> None:
    assert changed(user=user).actor == actor


def test_kubernetes_impersonated_user_is_a_related_resource() -> None:
    made = changed(impersonatedUser={"username": "bob"})
    assert made.actor.id == "alice"
    assert made.related is not None
    assert Resource(type="impersonatedUser", id="bob") in made.related


def test_kubernetes_credential_id_is_the_session() -> None:
    made = changed(user={"username": "a", "extra": {"authentication.kubernetes.io/credential-id": ["JTI=x"]}})
    assert made.session_id == "JTI=x"


def test_kubernetes_time_is_the_best_available_timestamp() -> None:
    assert record({**without("requestReceivedTimestamp")}).occurred_at == "2023-07-10T11:42:37Z"
    old = {**without("requestReceivedTimestamp", "stageTimestamp"), "timestamp": "2017-09-11T19:55:05Z"}
    assert record(old).occurred_at == "2017-09-11T19:55:05Z"


def test_kubernetes_ids_differ_by_stage_and_ignore_spelling() -> None:
    assert changed(stage="RequestReceived").id != record(EVENT).id
    assert record(dict(reversed(EVENT.items()))).id == record(EVENT).id
    assert changed(userAgent="other").id != record(EVENT).id


def test_kubernetes_list_item_needs_no_kind() -> None:
    assert record(without("kind", "apiVersion")).action == "delete pods"


def test_kubernetes_mapping_masks_the_content_of_secrets() -> None:
    secret = {
        "kind": "Secret",
        "metadata": {"name": "s", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{hidden}", "team": "a"}},
        "data": {"k": "aGlkZGVu"},
        "stringData": {"k": "hidden"},
        "type": "Opaque",
    }
    event = {
        **EVENT,
        "objectRef": {"resource": "secrets", "namespace": "default", "name": "s"},
        "requestObject": secret,
        "responseObject": {"kind": "SecretList", "items": [secret]},
    }
    metadata = kept_of(record(event))
    kept = {
        **secret,
        "metadata": {"name": "s", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": MASK, "team": "a"}},
        "data": {"k": MASK},
        "stringData": {"k": MASK},
    }
    assert metadata["requestObject"] == kept
    assert metadata["responseObject"]["items"] == [kept]
    assert event["requestObject"] == secret
    patched = record({**event, "requestObject": [{"op": "add", "path": "/data/k", "value": "aGlkZGVu"}]})
    assert kept_of(patched)["requestObject"] == [{"op": "add", "path": "/data/k", "value": MASK}]


def test_kubernetes_mapping_masks_requested_tokens() -> None:
    made = changed(
        objectRef={"resource": "serviceaccounts", "subresource": "token", "name": "x"},
        responseObject={"kind": "TokenRequest", "status": {"token": "eyJhidden", "expirationTimestamp": "t"}},
    )
    assert kept_of(made)["responseObject"]["status"] == {"token": MASK, "expirationTimestamp": "t"}


def test_kubernetes_mapping_keeps_other_objects_whole() -> None:
    body = {"kind": "ConfigMap", "data": {"k": "v"}}
    assert changed(objectRef={"resource": "configmaps"}, requestObject=body).metadata == {
        **EVENT,
        "objectRef": {"resource": "configmaps"},
        "requestObject": body,
    }


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "not a JSON object"),
        ({"kind": 0}, "kind is 0"),
        ({**EVENT, "kind": "Pod"}, 'kind is "Pod"'),
        ({**EVENT, "apiVersion": "v1"}, 'apiVersion is "v1"'),
        ({}, "no auditID"),
        (without("verb"), "no verb"),
        (without("objectRef", "requestURI"), "no requestURI"),
        (without("requestReceivedTimestamp", "stageTimestamp"), "has no requestReceivedTimestamp"),
        ({**EVENT, "requestReceivedTimestamp": "soon"}, "requestReceivedTimestamp is not a time"),
    ],
)
def test_kubernetes_mapping_rejects_other_values_with_the_reason(value: Any, why: str) -> None:
    with pytest.raises(NotAnEventError, match=why):
        record(value)


def test_kubernetes_mapping_cuts_long_values_in_reasons() -> None:
    with pytest.raises(NotAnEventError) as error:
        record({"kind": "x" * 10_000})
    assert len(str(error.value)) < 100


@given(st.dictionaries(st.sampled_from([*EVENT, "impersonatedUser", "responseObject", "annotations"]), values))
@settings(deadline=None)
def test_kubernetes_record_is_valid_for_members_of_any_type(changes: dict[str, Any]) -> None:
    event = {**EVENT, **changes}
    try:
        made = record(event)
    except NotAnEventError:
        return
    decode(msgspec.json.encode(made))
    assert made.metadata == event


def test_kubernetes_mapping_accepts_every_real_event_whole() -> None:
    events = real_events.values("k8s_audit.ndjson.gz")
    assert len(events) == 89
    with pytest.raises(NotAnEventError, match="kind is 0"):
        record(events[85])
    del events[85]
    records = [record(event) for event in events]
    for event, made in zip(events, records, strict=True):
        content = stored(made)
        assert content["metadata"] == event or content["masked"]
    assert len({made.id for made in records}) == 88
    assert Counter(made.action for made in records) == Counter(
        event["verb"]
        + " "
        + (
            "/".join(filter(None, (event["objectRef"]["resource"], event["objectRef"].get("subresource"))))
            if "objectRef" in event
            else event["requestURI"].partition("?")[0]
        )
        for event in events
    )
    assert Counter(made.outcome for made in records) == {Outcome.SUCCESS: 77, Outcome.DENIED: 11}
