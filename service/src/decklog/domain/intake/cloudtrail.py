"""Mapping of AWS CloudTrail events to records.

`action` has the notation of IAM policies: the prefix of the service and the name of the event (`ec2:DescribeInstances`). The whole
event stays in `metadata`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from decklog.domain.intake.foreign_event import (
    NotAnEventError,
    fingerprint,
    first,
    members,
    moment,
    required,
    resources,
    source,
    text,
)
from decklog.domain.records.record import (
    ID_CHARS_MAX,
    MESSAGE_CHARS_MAX,
    NAME_CHARS_MAX,
    REFERENCE_CHARS_MAX,
    Actor,
    Outcome,
    RecordInput,
    Resource,
    Severity,
)

IAM_PREFIXES = {
    "api.pricing": "pricing",
    "appstream2": "appstream",
    "cloudcontrolapi": "cloudformation",
    "discovery-marketplace": "aws-marketplace",
    "email": "ses",
    "entitlement-marketplace": "aws-marketplace",
    "iotdata": "iot",
    "metering-marketplace": "aws-marketplace",
    "migrationhub": "mgh",
    "monitoring": "cloudwatch",
    "mturk-requester": "mechanicalturk",
    "servicecatalog-appregistry": "servicecatalog",
    "streams.dynamodb": "dynamodb",
    "tagging": "tag",
}
"""IAM prefixes of services where it is not the first part of `eventSource` (`monitoring.amazonaws.com`)."""

_DOMAIN = ".amazonaws.com"
_DENIED = re.compile(r"AccessDenied|Unauthori[sz]ed|NotAuthorized|Forbidden|AuthFailure|AuthorizationError")
_SERVERS_FAULT = re.compile(r"^Server\.|^Internal(Error|Failure|Server|Service)|^ServiceUnavailable|^ServiceException")

_TARGETS: dict[str, tuple[tuple[str, str], ...]] = {
    "cloudtrail": (("name", "AWS::CloudTrail::Trail"),),
    "dynamodb": (("tableName", "AWS::DynamoDB::Table"),),
    "ec2": (
        ("instanceId", "AWS::EC2::Instance"),
        ("volumeId", "AWS::EC2::Volume"),
        ("snapshotId", "AWS::EC2::Snapshot"),
        ("imageId", "AWS::EC2::Image"),
        ("groupId", "AWS::EC2::SecurityGroup"),
        ("routeTableId", "AWS::EC2::RouteTable"),
        ("internetGatewayId", "AWS::EC2::InternetGateway"),
        ("subnetId", "AWS::EC2::Subnet"),
        ("vpcId", "AWS::EC2::VPC"),
    ),
    "iam": (
        ("roleName", "AWS::IAM::Role"),
        ("userName", "AWS::IAM::User"),
        ("groupName", "AWS::IAM::Group"),
        ("instanceProfileName", "AWS::IAM::InstanceProfile"),
        ("policyArn", "AWS::IAM::ManagedPolicy"),
    ),
    "kms": (("keyId", "AWS::KMS::Key"),),
    "lambda": (("functionName", "AWS::Lambda::Function"),),
    "logs": (("logGroupName", "AWS::Logs::LogGroup"),),
    "rds": (
        ("dBInstanceIdentifier", "AWS::RDS::DBInstance"),
        ("dBClusterIdentifier", "AWS::RDS::DBCluster"),
        ("dBSnapshotIdentifier", "AWS::RDS::DBSnapshot"),
    ),
    "s3": (("bucketName", "AWS::S3::Bucket"),),
    "secretsmanager": (("secretId", "AWS::SecretsManager::Secret"),),
    "ssm": (("instanceId", "AWS::EC2::Instance"),),
    "sts": (("roleArn", "AWS::IAM::Role"),),
}
"""Request parameters that name the resource of an event without `resources`, by IAM prefix, most specific first."""


_TIMES = ("eventTime", "@timestamp")
"""Members with the time of an event, best first. Logstash moves `eventTime` to `@timestamp`."""


def is_event(event: dict[str, Any]) -> bool:
    """Return whether an object has the members by which an event of CloudTrail is recognised."""
    return ("eventName" in event and "eventSource" in event) or ("eventVersion" in event and "eventType" in event)


def record(event: Any) -> RecordInput:
    """Return the record of one CloudTrail event. Raises NotAnEventError."""
    if not isinstance(event, dict):
        raise NotAnEventError("it is not a JSON object")
    service, action = _action(event)
    identity = members(event.get("userIdentity"))
    outcome = _outcome(event)
    resource, related = resources(_resources(event, service))
    return RecordInput(
        id=_id(event),
        action=action[:NAME_CHARS_MAX],
        actor=_actor(identity),
        resource=resource,
        related=related,
        occurred_at=_time(event),
        severity=_severity(event, outcome),
        outcome=outcome,
        message=text(event.get("errorMessage"), MESSAGE_CHARS_MAX),
        source=source(event.get("sourceIPAddress"), event.get("userAgent")),
        session_id=_session(identity),
        correlation_id=first(text(event.get(name), REFERENCE_CHARS_MAX) for name in ("requestID", "sharedEventID")),
        metadata=event,
    )


def _time(event: dict[str, Any]) -> str:
    name = next((name for name in _TIMES if event.get(name) is not None), _TIMES[0])
    return moment(event.get(name), name)


def _id(event: dict[str, Any]) -> str:
    identity = event.get("eventID")
    if isinstance(identity, str) and 0 < len(identity) <= ID_CHARS_MAX:
        return identity
    return "cloudtrail:" + fingerprint(event, 32)


def _action(event: dict[str, Any]) -> tuple[str, str]:
    insight = members(event.get("insightDetails"))
    if insight and "eventName" not in event:
        return "cloudtrail", "cloudtrail:" + required(insight, "insightType")
    name = required(event, "eventName")
    host = required(event, "eventSource").removesuffix(_DOMAIN)
    service = IAM_PREFIXES.get(host) or host.partition(".")[0]
    return service, f"{service}:{name}"


def _actor(identity: dict[str, Any]) -> Actor:
    kind, arn = text(identity.get("type"), NAME_CHARS_MAX), text(identity.get("arn"), REFERENCE_CHARS_MAX)
    by_service = text(identity.get("invokedBy"), REFERENCE_CHARS_MAX)
    user_name = text(identity.get("userName"), REFERENCE_CHARS_MAX)
    names = ("principalId", "userName", "accountId", "credentialId")
    known = [text(identity.get(name), REFERENCE_CHARS_MAX) for name in names]
    known.insert(1, text(members(identity.get("onBehalfOf")).get("userId"), REFERENCE_CHARS_MAX))
    if kind in (None, "AWSService"):
        known.insert(0, by_service)
    found = first([arn, *known, by_service])
    if kind is None:
        kind = "AWSService" if by_service else "Unknown"
    # The ARN of a role's session ends in `<role>/<session>`, which people recognise.
    name = user_name or (arn.partition("/")[2] if arn else None)
    return Actor(id=found or "unknown", type=kind, name=name or None)


def _session(identity: dict[str, Any]) -> str | None:
    """Return the id of temporary credentials, which identifies one session. Ids of keys are not secret."""
    key = text(identity.get("accessKeyId"), REFERENCE_CHARS_MAX)
    return key if key and key.startswith("ASIA") else None


def _outcome(event: dict[str, Any]) -> Outcome:
    code = event.get("errorCode")
    answer = members(event.get("responseElements"))
    if isinstance(code, str) and code:
        return Outcome.DENIED if _DENIED.search(code) else Outcome.FAILURE
    if "Failure" in (answer.get("ConsoleLogin"), answer.get("SwitchRole"), answer.get("ExitRole")):
        return Outcome.DENIED
    return Outcome.FAILURE if event.get("errorMessage") else Outcome.SUCCESS


def _severity(event: dict[str, Any], outcome: Outcome) -> Severity:
    """Return INFO for success, ERROR for a failure of the service, WARNING for any other failure."""
    if outcome is Outcome.SUCCESS:
        return Severity.INFO
    code = event.get("errorCode")
    return Severity.ERROR if isinstance(code, str) and _SERVERS_FAULT.search(code) else Severity.WARNING


def _resources(event: dict[str, Any], service: str) -> Iterator[Resource | None]:
    listed = event.get("resources")
    if isinstance(listed, list) and listed:
        yield from map(_listed, listed)
        return
    parameters = members(event.get("requestParameters"))
    for name, kind in _TARGETS.get(service, ()):
        if value := text(parameters.get(name), REFERENCE_CHARS_MAX):
            yield Resource(type=kind, id=value)
    if service == "ec2":
        items = members(parameters.get("instancesSet")).get("items")
        for item in items if isinstance(items, list) else ():
            if value := text(members(item).get("instanceId"), REFERENCE_CHARS_MAX):
                yield Resource(type="AWS::EC2::Instance", id=value)


def _listed(value: Any) -> Resource | None:
    """Return one of the event's `resources`; without a type, its ARN gives service and kind (`iam:role`)."""
    listed = members(value)
    arn = first(text(listed.get(name), REFERENCE_CHARS_MAX) for name in ("ARN", "arn", "ARNPrefix"))
    kind = text(listed.get("type"), NAME_CHARS_MAX)
    if kind is None and arn is not None:
        parts = arn.split(":", maxsplit=5)
        if len(parts) == 6:
            kind = ":".join(part for part in (parts[2], re.split("[:/]", parts[5])[0]) if part)
    if kind is None and arn is None:
        return None
    return Resource(type=(kind or "unknown")[:NAME_CHARS_MAX], id=arn)
