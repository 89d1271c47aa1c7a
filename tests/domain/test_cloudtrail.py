"""Mapping of CloudTrail events: fields, refusals, and the whole event in `metadata`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decklog.domain.intake.cloudtrail import IAM_PREFIXES, record
from decklog.domain.intake.foreign_event import NotAnEventError
from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource, Severity, Source, decode
from tests.support import real_events
from tests.support.json_values import values
from tests.support.records import stored

EVENT: dict[str, Any] = {
    "eventVersion": "1.08",
    "userIdentity": {
        "type": "AssumedRole",
        "principalId": "AROAEXAMPLE:session",
        "arn": "arn:aws:sts::111122223333:assumed-role/Admin/session",
        "accountId": "111122223333",
        "accessKeyId": "ASIAEXAMPLE",
    },
    "eventTime": "2023-07-10T11:42:36Z",
    "eventSource": "ec2.amazonaws.com",
    "eventName": "DescribeInstances",
    "awsRegion": "us-east-1",
    "sourceIPAddress": "192.0.2.7",
    "userAgent": "aws-cli/2.0",
    "requestParameters": None,
    "responseElements": None,
    "requestID": "r-1",
    "eventID": "293ba626-3be5-4a26-ab1b-0f4c54f49959",
}


def changed(**changes: Any) -> RecordInput:
    return record({**EVENT, **changes})


def test_cloudtrail_event_maps_to_a_record() -> None:
    assert record(EVENT) == RecordInput(
        id="293ba626-3be5-4a26-ab1b-0f4c54f49959",
        action="ec2:DescribeInstances",
        actor=Actor(id="arn:aws:sts::111122223333:assumed-role/Admin/session", type="AssumedRole", name="Admin/session"),
        occurred_at="2023-07-10T11:42:36Z",
        severity=Severity.INFO,
        outcome=Outcome.SUCCESS,
        source=Source(ip="192.0.2.7", user_agent="aws-cli/2.0"),
        session_id="ASIAEXAMPLE",
        correlation_id="r-1",
        metadata=EVENT,
    )


@pytest.mark.parametrize(
    ("source", "name", "action"),
    [
        ("s3.amazonaws.com", "GetObject", "s3:GetObject"),
        ("monitoring.amazonaws.com", "DescribeAlarms", "cloudwatch:DescribeAlarms"),
        ("tagging.amazonaws.com", "GetResources", "tag:GetResources"),
        ("email.amazonaws.com", "SendEmail", "ses:SendEmail"),
        ("streams.dynamodb.amazonaws.com", "GetRecords", "dynamodb:GetRecords"),
        ("resource-explorer-2.amazonaws.com", "ListIndexes", "resource-explorer-2:ListIndexes"),
        ("signin.amazonaws.com", "ConsoleLogin", "signin:ConsoleLogin"),
        ("lambda.amazonaws.com", "GetFunction20150331v2", "lambda:GetFunction20150331v2"),
        ("example.com", "Do", "example:Do"),
    ],
)
def test_cloudtrail_action_has_iam_notation(source: str, name: str, action: str) -> None:
    assert changed(eventSource=source, eventName=name).action == action


def test_cloudtrail_prefix_table_has_only_exceptions() -> None:
    assert all(source != prefix for source, prefix in IAM_PREFIXES.items())


@pytest.mark.parametrize(
    ("code", "outcome", "severity"),
    [
        ("AccessDenied", Outcome.DENIED, Severity.WARNING),
        ("AccessDeniedException", Outcome.DENIED, Severity.WARNING),
        ("Client.UnauthorizedOperation", Outcome.DENIED, Severity.WARNING),
        ("VpceAccessDenied", Outcome.DENIED, Severity.WARNING),
        ("NoSuchBucketPolicy", Outcome.FAILURE, Severity.WARNING),
        ("ThrottlingException", Outcome.FAILURE, Severity.WARNING),
        ("InternalFailure", Outcome.FAILURE, Severity.ERROR),
        ("Server.InternalError", Outcome.FAILURE, Severity.ERROR),
        ("ServiceUnavailable", Outcome.FAILURE, Severity.ERROR),
        ("", Outcome.SUCCESS, Severity.INFO),
        (None, Outcome.SUCCESS, Severity.INFO),
    ],
)
def test_cloudtrail_outcome_follows_the_error_code(code: str | None, outcome: Outcome, severity: Severity) -> None:
    made = changed(errorCode=code)
    assert (made.outcome, made.severity) == (outcome, severity)


def test_cloudtrail_failed_sign_in_is_denied() -> None:
    made = changed(responseElements={"ConsoleLogin": "Failure"}, errorMessage="Failed authentication")
    assert made.outcome is Outcome.DENIED
    assert made.message == "Failed authentication"
    assert changed(responseElements={"ConsoleLogin": "Success"}).outcome is Outcome.SUCCESS


@pytest.mark.parametrize(
    ("identity", "actor"),
    [
        (
            {"type": "IAMUser", "arn": "arn:aws:iam::1:user/ben", "userName": "ben", "principalId": "AIDA"},
            Actor(id="arn:aws:iam::1:user/ben", type="IAMUser", name="ben"),
        ),
        ({"type": "Root", "arn": "arn:aws:iam::1:root", "accountId": "1"}, Actor(id="arn:aws:iam::1:root", type="Root")),
        ({"type": "AWSService", "invokedBy": "x.amazonaws.com"}, Actor(id="x.amazonaws.com", type="AWSService")),
        ({"accountId": "1", "invokedBy": "ec2.amazonaws.com"}, Actor(id="ec2.amazonaws.com", type="AWSService")),
        ({"type": "AWSAccount", "accountId": "1", "principalId": "AROA"}, Actor(id="AROA", type="AWSAccount")),
        ({"type": "WebIdentityUser", "userName": "u", "principalId": "p:u"}, Actor(id="p:u", type="WebIdentityUser", name="u")),
        ({"type": "IdentityCenterUser", "onBehalfOf": {"userId": "u-1"}}, Actor(id="u-1", type="IdentityCenterUser")),
        ({"accountId": "1"}, Actor(id="1", type="Unknown")),
        ({}, Actor(id="unknown", type="Unknown")),
        (None, Actor(id="unknown", type="Unknown")),
        ("odd", Actor(id="unknown", type="Unknown")),
    ],
)
def test_cloudtrail_actor_is_the_most_specific_identity(identity: Any, actor: Actor) -> None:
    assert changed(userIdentity=identity).actor == actor


def test_cloudtrail_permanent_keys_are_no_session() -> None:
    assert changed(userIdentity={"type": "IAMUser", "accessKeyId": "AKIAEXAMPLE", "arn": "a"}).session_id is None


def test_cloudtrail_listed_resources_come_first() -> None:
    made = changed(
        resources=[
            {"ARN": "arn:aws:s3:::b", "accountId": "1", "type": "AWS::S3::Bucket"},
            {"ARN": "arn:aws:ssm:us-east-1:1:parameter/p", "accountId": "1"},
            {"ARN": "arn:aws:s3:::b", "accountId": "1", "type": "AWS::S3::Bucket"},
            "odd",
            {},
        ],
        requestParameters={"instanceId": "i-1"},
    )
    assert made.resource == Resource(type="AWS::S3::Bucket", id="arn:aws:s3:::b")
    assert made.related == [Resource(type="ssm:parameter", id="arn:aws:ssm:us-east-1:1:parameter/p")]


def test_cloudtrail_resource_comes_from_request_parameters_without_a_list() -> None:
    made = changed(
        eventName="TerminateInstances",
        requestParameters={"instancesSet": {"items": [{"instanceId": "i-1"}, {"instanceId": "i-2"}]}},
    )
    assert made.resource == Resource(type="AWS::EC2::Instance", id="i-1")
    assert made.related == [Resource(type="AWS::EC2::Instance", id="i-2")]
    made = changed(eventSource="s3.amazonaws.com", requestParameters={"bucketName": "b", "Host": "h"})
    assert made.resource == Resource(type="AWS::S3::Bucket", id="b")
    assert changed(requestParameters={"instanceId": 5, "instancesSet": []}).resource is None


@pytest.mark.parametrize("address", ["075.050.255.67", "ec2.amazonaws.com", "AWS Internal", "2001:db8::1"])
def test_cloudtrail_invalid_source_address_is_kept(address: str) -> None:
    assert stored(changed(sourceIPAddress=address))["source"]["ip"] == address


def test_cloudtrail_long_values_are_cut_in_fields_and_whole_in_metadata() -> None:
    long, longer = "x" * 2_000, "y" * 70_000
    content = stored(
        changed(
            eventName=long,
            userAgent=long,
            errorCode="E",
            errorMessage=longer,
            sourceIPAddress=long,
            requestID=long,
            userIdentity={"arn": "arn:aws:iam::1:user/" + long, "type": long, "accessKeyId": "ASIA" + long},
            eventSource="s3.amazonaws.com",
            requestParameters={"bucketName": long},
        )
    )
    assert content["action"] == ("s3:" + long)[:256]
    assert content["message"] == longer[:65_536]
    assert content["metadata"]["errorMessage"] == longer
    assert content["source"] == {"ip": long, "user_agent": long}
    for name in ("eventName", "userAgent", "sourceIPAddress", "requestID"):
        assert content["metadata"][name] == long


def test_cloudtrail_event_without_id_gets_one_from_its_content() -> None:
    for odd in (None, "", 5, "x" * 257):
        made = changed(eventID=odd)
        assert made.id is not None
        assert made.id.startswith("cloudtrail:")
        assert made.id == changed(eventID=odd).id
        assert made.id != changed(eventID=odd, requestID="other").id


def test_cloudtrail_insight_maps_to_an_action_of_cloudtrail() -> None:
    insight = {name: EVENT[name] for name in ("eventTime", "eventID")} | {
        "eventType": "AwsCloudTrailInsight",
        "insightDetails": {"insightType": "ApiCallRateInsight", "eventName": "RunInstances"},
    }
    assert record(insight).action == "cloudtrail:ApiCallRateInsight"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "not a JSON object"),
        ([], "not a JSON object"),
        ("x", "not a JSON object"),
        ({}, "no eventName"),
        ({**EVENT, "eventName": None}, "eventName is not a string"),
        ({**EVENT, "eventSource": 5}, "eventSource is not a string"),
        ({**EVENT, "eventTime": "redacted"}, "eventTime is not a time"),
        ({"eventName": "x", "eventSource": "y"}, "has no eventTime"),
    ],
)
def test_cloudtrail_mapping_rejects_other_values_with_the_reason(value: Any, why: str) -> None:
    with pytest.raises(NotAnEventError, match=why):
        record(value)


@given(st.dictionaries(st.sampled_from([*EVENT, "resources", "errorCode", "errorMessage", "insightDetails"]), values))
@settings(deadline=None)
def test_cloudtrail_record_is_valid_for_members_of_any_type(changes: dict[str, Any]) -> None:
    event = {**EVENT, **changes}
    try:
        made = record(event)
    except NotAnEventError:
        return
    decode(msgspec.json.encode(made))
    assert made.metadata == event


def test_cloudtrail_mapping_accepts_every_real_event_whole() -> None:
    events = real_events.values("cloudtrail_invictus.ndjson.gz")
    assert len(events) == 2_900
    records = [record(event) for event in events]
    for event, made in zip(events, records, strict=True):
        content = stored(made)
        masked = content.get("masked", [])
        assert content["metadata"] == event or masked
        assert made.id == event["eventID"]
    assert len({made.id for made in records}) == 2_900
    actions = Counter(made.action for made in records)
    differing = {"monitoring": "cloudwatch", "servicecatalog-appregistry": "servicecatalog"}
    expected = Counter(
        f"{differing.get(service, service)}:{event['eventName']}"
        for event in events
        for service in [event["eventSource"].removesuffix(".amazonaws.com")]
    )
    assert actions == expected
    assert Counter(made.outcome for made in records) == {Outcome.SUCCESS: 2_600, Outcome.DENIED: 60, Outcome.FAILURE: 240}
