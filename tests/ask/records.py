"""Generated records of two worlds: the log of a company's product and that of a cloud account. Every question has near misses in them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import Any

NOW = datetime(2026, 7, 15, 12, 0, tzinfo=UTC)
_FIRST = datetime(2026, 5, 20, tzinfo=UTC)
_ACCOUNT = "arn:aws:iam::123456789012:"
_PEOPLE = ("alice", "bob", "bobby", "carol", "dave", "erin", "frank@acme.example", "batch", "deploy-bot")
_WORK = {
    "user.login": ("user", "u"),
    "user.logout": ("user", "u"),
    "user.create": ("user", "u"),
    "user.delete": ("user", "u"),
    "document.create": ("document", "d"),
    "document.read": ("document", "d"),
    "document.update": ("document", "d"),
    "document.delete": ("document", "d"),
    "document.undelete": ("document", "d"),
    "document.share": ("document", "d"),
    "report.read": ("report", "r"),
    "report.export": ("report", "r"),
    "role.grant": ("role", "role"),
    "role.revoke": ("role", "role"),
    "role.update": ("role", "role"),
    "secret.read": ("secret", "sec"),
    "secret.rotate": ("secret", "sec"),
    "payment.capture": ("payment", "pay"),
    "payment.refund": ("payment", "pay"),
    "api_key.create": ("api_key", "key"),
    "api_key.revoke": ("api_key", "key"),
    "config.read": ("config", "cfg"),
    "config.change": ("config", "cfg"),
    "backup.run": ("database", "db"),
}
_PLACES = ("10.0.0.44", "10.0.0.7", "10.3.1.2", "192.0.2.17", "203.0.113.9", "203.0.113.80")
_MESSAGES = ("The second factor was wrong.", "A second look at the factor.", "The password was wrong.", "Done.")
_CLOUD = {
    "ec2:RunInstances": ("AWS::EC2::Instance", "i-0abc123def4567890"),
    "ec2:TerminateInstances": ("AWS::EC2::Instance", "i-0abc123def4567890"),
    "ec2:DescribeInstances": ("AWS::EC2::Instance", "i-0abc123def4567890"),
    "ec2:DeleteVolume": ("AWS::EC2::Volume", "vol-0aa11bb22cc33dd44"),
    "ec2:DeleteSnapshot": ("AWS::EC2::Snapshot", "snap-01"),
    "s3:GetObject": ("AWS::S3::Bucket", "logs-prod"),
    "s3:ListBucket": ("AWS::S3::Bucket", "logs-prod"),
    "s3:DeleteBucket": ("AWS::S3::Bucket", "logs-prod"),
    "s3:DeleteBucketPolicy": ("AWS::S3::Bucket", "logs-prod"),
    "s3:PutBucketPolicy": ("AWS::S3::Bucket", "logs-prod"),
    "iam:CreateUser": ("AWS::IAM::User", "maria"),
    "iam:DeleteUser": ("AWS::IAM::User", "maria"),
    "iam:GetUser": ("AWS::IAM::User", "maria"),
    "iam:CreateAccessKey": ("AWS::IAM::User", "maria"),
    "iam:AttachUserPolicy": ("AWS::IAM::User", "maria"),
    "sts:AssumeRole": ("AWS::IAM::Role", f"{_ACCOUNT}role/admin"),
    "signin:ConsoleLogin": (None, ""),
    "kms:Decrypt": ("AWS::KMS::Key", "mrk-1"),
    "kms:ScheduleKeyDeletion": ("AWS::KMS::Key", "mrk-1"),
    "cloudtrail:StopLogging": ("AWS::CloudTrail::Trail", "main"),
}
_CALLERS = (
    (f"{_ACCOUNT}user/maria", "IAMUser", "AKIAIOSFODNN7EXAMPLE"),
    (f"{_ACCOUNT}user/ci", "IAMUser", "AKIAEXAMPLEKEY000002"),
    ("arn:aws:sts::123456789012:assumed-role/admin/bert", "AssumedRole", "ASIAEXAMPLEKEY000001"),
    ("arn:aws:sts::123456789012:assumed-role/admin/ops", "AssumedRole", "ASIAEXAMPLEKEY000003"),
    ("arn:aws:sts::123456789012:assumed-role/reader/ops", "AssumedRole", "ASIAEXAMPLEKEY000004"),
    (f"{_ACCOUNT}root", "Root", ""),
)
_REQUEST = "7f1c2f6e-5d0b-4f0e-9b0a-3c1d2e4f5a6b"


@cache
def world(name: str) -> tuple[dict[str, Any], ...]:
    """The records of a world, as their JSON: `c` for the company, `a` for the cloud account."""
    chance = Random(16)
    made = list(_company(chance) if name == "c" else _account(chance))
    return tuple({**record, "seq": seq, "received_at": record["occurred_at"]} for seq, record in enumerate(made))


def _moments(chance: Random, count: int) -> Iterator[datetime]:
    """Moments of all days, half of them in the days that questions name."""
    for _ in range(count):
        first = chance.choice((_FIRST, datetime(2026, 7, 5, tzinfo=UTC), datetime(2026, 7, 12, tzinfo=UTC)))
        first = chance.choice((first, first, datetime(2026, 7, 9, 20, tzinfo=UTC)))
        last = NOW if first.day != 9 else datetime(2026, 7, 10, 23, 59, tzinfo=UTC)
        yield first + timedelta(seconds=chance.randrange(int((last - first).total_seconds())))


def _common(chance: Random, at: datetime) -> dict[str, Any]:
    outcome = chance.choices(("success", "failure", "denied", "unknown"), (6, 2, 2, 0.3))[0]
    severity = chance.choices(("INFO", "WARNING", "ERROR", "CRITICAL"), (6, 2, 2, 1))[0]
    return {"occurred_at": at.isoformat().replace("+00:00", "Z"), "outcome": outcome, "severity": severity}


def _company(chance: Random) -> Iterator[dict[str, Any]]:
    for at in _moments(chance, 3_000):
        action = chance.choice(list(_WORK))
        kind, stem = _WORK[action]
        number = chance.choice((1, 2, 3, 4, 8, 17, 21, 31, 170))
        record = {
            "action": action,
            "actor": {"id": chance.choice(_PEOPLE), "type": "user"},
            "resource": {"type": kind, "id": chance.choice(("carol", "bob")) if kind == "user" else f"{stem}-{number}"},
            "source": {"ip": chance.choice(_PLACES)},
            "session_id": f"s-{chance.choice((3, 9, 12, 99))}",
            "correlation_id": f"req-{chance.choice((7, 8, 70))}",
            "message": chance.choice(_MESSAGES),
            **_common(chance, at),
        }
        if chance.random() < 0.15:
            other = chance.choice((("document", "d-17"), ("document", "d-21"), ("user", "carol"), ("report", "r-2")))
            record["related"] = [{"type": other[0], "id": other[1]}]
        yield record


def _account(chance: Random) -> Iterator[dict[str, Any]]:
    for at in _moments(chance, 2_000):
        action = chance.choice(list(_CLOUD))
        kind, resource = _CLOUD[action]
        actor, actor_type, key = chance.choice(_CALLERS)
        common = _common(chance, at)
        identity = {"accessKeyId": key} if key else {}
        record = {
            "action": action,
            "actor": {"id": actor, "type": actor_type, "name": actor.partition("/")[2] or "root"},
            "source": {"ip": chance.choice(("192.0.2.8", "192.0.2.200", "198.51.100.23", "198.51.100.24"))},
            "correlation_id": chance.choice((_REQUEST, "00000000-0000-0000-0000-000000000000")),
            "metadata": {"awsRegion": chance.choice(("eu-west-1", "us-east-1")), "userIdentity": identity},
            **common,
        }
        if key.startswith("ASIA"):
            record["session_id"] = key
        if common["outcome"] != "success":
            record["metadata"]["errorCode"] = chance.choice(("AccessDenied", "Throttling", "NoSuchBucket"))
        if kind is not None:
            record["resource"] = {"type": kind, "id": chance.choice((resource, resource, f"{resource}x"))}
        if chance.random() < 0.1:
            record["related"] = [{"type": "AWS::S3::Bucket", "id": "logs-prod"}]
        yield record
