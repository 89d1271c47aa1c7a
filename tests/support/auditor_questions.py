"""Twenty questions of an auditor over real CloudTrail events, each with its query and its command line.

What is right is computed from the events as AWS wrote them, in plain Python: nothing of Decklog has a part in it.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

FILE = "cloudtrail_invictus.ndjson.gz"
"""The events, beside the project: 2,900 of 10 July 2023, from 11:42 to 12:37 UTC."""

Event = Mapping[str, Any]


class AuditorQuestion(NamedTuple):
    """One question.

    `words` ask it in plain English; `query` asks it in the query language, and `command` on the command line. `matches` says whether
    an event answers it, and `group` by which value the answer counts, where it does.
    """

    words: str
    query: str
    command: tuple[str, ...]
    matches: Callable[[Event], bool]
    group: Callable[[Event], str | None] | None = None

    def ids(self, events: Sequence[Event]) -> list[str]:
        """Return the ids of the events that answer the question, by their time; those of the same second in the order of the file."""
        return [event["eventID"] for event in sorted(filter(self.matches, events), key=lambda event: event["eventTime"])]

    def counts(self, events: Sequence[Event]) -> dict[str, int]:
        """Return the number of answers by the value that the question asks for; empty where it asks for none."""
        found = Counter(map(self.group, filter(self.matches, events))) if self.group is not None else Counter[str | None]()
        return {value: count for value, count in found.items() if value is not None}


def _parameter(event: Event, name: str) -> object:
    return (event["requestParameters"] or {}).get(name)


def _failed(event: Event) -> bool:
    return "errorCode" in event or "errorMessage" in event


_DENIALS = ("AccessDenied", "Client.UnauthorizedOperation")


def _action(event: Event) -> str:
    """The action as an IAM policy names it; of the services that are asked for, the host begins with the prefix."""
    return f"{event['eventSource'].partition('.')[0]}:{event['eventName']}"


def _actor(event: Event) -> str | None:
    who = event["userIdentity"]
    return next((str(who[name]) for name in ("arn", "invokedBy", "principalId") if name in who), None)


def _role(event: Event) -> str:
    """The name of the role whose session acted, as in `arn:aws:sts::123:assumed-role/<role>/<session>`."""
    kind, _, rest = str(event["userIdentity"].get("arn")).rpartition(":")[2].partition("/")
    return rest.partition("/")[0] if kind == "assumed-role" else ""


def _address(event: Event) -> str | None:
    found = event.get("sourceIPAddress")
    return found if isinstance(found, str) else None


def _is_public(text: str | None) -> bool:
    """Whether a text is an address outside of the private networks of RFC 1918."""
    try:
        found = ipaddress.IPv4Address(text or "")
    except ValueError:
        return False
    return not any(found in ipaddress.ip_network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


def _day(zone: str) -> Callable[[Event], str]:
    return lambda event: datetime.fromisoformat(event["eventTime"]).astimezone(ZoneInfo(zone)).date().isoformat()


def _had_mfa(event: Event) -> object:
    return event["userIdentity"].get("sessionContext", {}).get("attributes", {}).get("mfaAuthenticated")


def _named(action: str) -> Callable[[Event], bool]:
    return lambda event: _action(event) == action


_SHARING = {
    *("ec2:ModifySnapshotAttribute", "ec2:ModifyImageAttribute", "rds:ModifyDBSnapshotAttribute", "s3:PutBucketPolicy"),
}
_THIEF = "stratus-red-team-ec2-steal-credentials-role"
_BACKDOOR = "stratus-red-team-backdoor-r-role"
_DAY = "occurred_at:2023-07-10"

QUESTIONS = (
    AuditorQuestion(
        "Who deleted what on 10 July 2023?",
        f"action:*:Delete* {_DAY}",
        ("search", f"action:*:Delete* {_DAY}", "--columns", "time,actor,action,resource", "-n", "1000"),
        lambda event: event["eventName"].startswith("Delete") and event["eventTime"].startswith("2023-07-10"),
    ),
    AuditorQuestion(
        "All failed or denied actions of bert-jan",
        "actor.name:bert-jan outcome:(failure OR denied)",
        ("search", "actor.name:bert-jan outcome:(failure OR denied)", "-n", "1000"),
        lambda event: event["userIdentity"].get("userName") == "bert-jan" and _failed(event),
    ),
    AuditorQuestion(
        "Everything that the access key AKIATFQR7NSCUXC3DDDP did, in order",
        "metadata.userIdentity.accessKeyId:AKIATFQR7NSCUXC3DDDP",
        ("search", "metadata.userIdentity.accessKeyId:AKIATFQR7NSCUXC3DDDP", "--by", "occurred", "--oldest"),
        lambda event: event["userIdentity"].get("accessKeyId") == "AKIATFQR7NSCUXC3DDDP",
    ),
    AuditorQuestion(
        f"Which addresses was the role {_THIEF} used from?",
        f"actor.id:*:assumed-role/{_THIEF}/*",
        ("top", "source.ip", f"actor.id:*:assumed-role/{_THIEF}/*"),
        lambda event: _role(event) == _THIEF,
        _address,
    ),
    AuditorQuestion(
        f"What changed on the role {_BACKDOOR}?",
        f"resource.id:{_BACKDOOR} metadata.readOnly:false",
        ("search", f"resource.id:{_BACKDOOR} metadata.readOnly:false", "--by", "occurred", "--oldest"),
        lambda event: _parameter(event, "roleName") == _BACKDOOR and not event["readOnly"],
    ),
    AuditorQuestion(
        "How many records are there per day, in Amsterdam time?",
        _DAY,
        ("top", "day", _DAY, "--zone", "Europe/Amsterdam"),
        lambda event: event["eventTime"].startswith("2023-07-10"),
        _day("Europe/Amsterdam"),
    ),
    AuditorQuestion(
        "How many records are there per day, in Auckland time?",
        "occurred_at:[2023-07-10 TO 2023-07-11]",
        ("top", "day", "occurred_at:[2023-07-10 TO 2023-07-11]", "--zone", "Pacific/Auckland"),
        lambda event: event["eventTime"][:10] in ("2023-07-10", "2023-07-11"),
        _day("Pacific/Auckland"),
    ),
    AuditorQuestion(
        "Export what was denied in the records of the last seven days, by the time of receipt",
        "outcome:denied received_at:>now-7d",
        ("export", "outcome:denied received_at:>now-7d", "-o", "csv"),
        lambda event: event.get("errorCode") in _DENIALS,
    ),
    AuditorQuestion(
        "Who read secrets?",
        "action:secretsmanager:GetSecretValue",
        ("top", "actor.id", "action:secretsmanager:GetSecretValue"),
        _named("secretsmanager:GetSecretValue"),
        _actor,
    ),
    AuditorQuestion(
        "What was changed in IAM?",
        "action:iam:* metadata.readOnly:false",
        ("top", "action", "action:iam:* metadata.readOnly:false", "--limit", "100"),
        lambda event: event["eventSource"] == "iam.amazonaws.com" and not event["readOnly"],
        _action,
    ),
    AuditorQuestion(
        "Did anybody stop or delete a trail?",
        "action:(cloudtrail:StopLogging OR cloudtrail:DeleteTrail)",
        ("search", "action:(cloudtrail:StopLogging OR cloudtrail:DeleteTrail)"),
        lambda event: _action(event) in ("cloudtrail:StopLogging", "cloudtrail:DeleteTrail"),
    ),
    AuditorQuestion(
        "Which actions came from addresses outside of the private networks?",
        "ip:0.0.0.0/0 NOT ip:10.0.0.0/8 NOT ip:172.16.0.0/12 NOT ip:192.168.0.0/16",
        ("top", "action", "ip:0.0.0.0/0 NOT ip:10.0.0.0/8 NOT ip:172.16.0.0/12 NOT ip:192.168.0.0/16", "--limit", "100"),
        lambda event: _is_public(_address(event)),
        _action,
    ),
    AuditorQuestion(
        "Who worked in a session without a second factor?",
        "metadata.userIdentity.sessionContext.attributes.mfaAuthenticated:false",
        ("top", "actor.id", "metadata.userIdentity.sessionContext.attributes.mfaAuthenticated:false", "--limit", "100"),
        lambda event: _had_mfa(event) == "false",
        _actor,
    ),
    AuditorQuestion(
        "Which attempts to assume a role were refused?",
        "action:sts:AssumeRole outcome:(failure OR denied)",
        ("search", "action:sts:AssumeRole outcome:(failure OR denied)", "--columns", "time,actor,outcome,message"),
        lambda event: _action(event) == "sts:AssumeRole" and _failed(event),
    ),
    AuditorQuestion(
        "Who signed in to the console?",
        "action:signin:ConsoleLogin",
        ("search", "action:signin:ConsoleLogin"),
        _named("signin:ConsoleLogin"),
    ),
    AuditorQuestion(
        "Who made or removed a password of the console?",
        "action:(iam:CreateLoginProfile OR iam:UpdateLoginProfile OR iam:DeleteLoginProfile)",
        (
            "search",
            "action:(iam:CreateLoginProfile OR iam:UpdateLoginProfile OR iam:DeleteLoginProfile)",
            *("--by", "occurred", "--oldest"),
        ),
        lambda event: event["eventName"] in ("CreateLoginProfile", "UpdateLoginProfile", "DeleteLoginProfile"),
    ),
    AuditorQuestion(
        "What was shared with others: snapshots, images and buckets?",
        "action:(ec2:ModifySnapshotAttribute OR ec2:ModifyImageAttribute OR rds:ModifyDBSnapshotAttribute OR s3:PutBucketPolicy)",
        (
            *("top", "action"),
            "action:(ec2:ModifySnapshotAttribute OR ec2:ModifyImageAttribute OR rds:ModifyDBSnapshotAttribute OR s3:PutBucketPolicy)",
        ),
        lambda event: _action(event) in _SHARING,
        _action,
    ),
    AuditorQuestion(
        "Everything of the session ASIATFQR7NSCY3B4ATOG",
        "session_id:ASIATFQR7NSCY3B4ATOG",
        ("story", "--session", "ASIATFQR7NSCY3B4ATOG"),
        lambda event: event["userIdentity"].get("accessKeyId") == "ASIATFQR7NSCY3B4ATOG",
    ),
    AuditorQuestion(
        "Everything of the request 95b435ce-68af-4a4b-b89c-f653d8946ebc",
        "correlation_id:95b435ce-68af-4a4b-b89c-f653d8946ebc",
        ("story", "--request", "95b435ce-68af-4a4b-b89c-f653d8946ebc"),
        lambda event: event.get("requestID") == "95b435ce-68af-4a4b-b89c-f653d8946ebc",
    ),
    AuditorQuestion(
        "What happened from 14:00 to 14:10 in Amsterdam on 10 July 2023?",
        "from:2023-07-10T14:00:00+02:00 to:2023-07-10T14:10:00+02:00",
        ("export", "from:2023-07-10T14:00:00+02:00 to:2023-07-10T14:10:00+02:00"),
        lambda event: "2023-07-10T12:00:00Z" <= event["eventTime"] < "2023-07-10T12:10:00Z",
    ),
)
