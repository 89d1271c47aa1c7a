"""Mapping of audit events of a Kubernetes API server to records.

`action` is verb and resource (`create pods`, `create pods/exec`), or verb and path for a request to no resource (`get /healthz`).
The whole event stays in `metadata`, without the content of Secrets and tokens.
"""

from __future__ import annotations

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
    shown,
    source,
    text,
)
from decklog.domain.privacy.masking import blanked
from decklog.domain.records.record import (
    MESSAGE_CHARS_MAX,
    NAME_CHARS_MAX,
    REFERENCE_CHARS_MAX,
    Actor,
    Outcome,
    RecordInput,
    Resource,
    Severity,
    Source,
)

GROUP = "audit.k8s.io"
_TIMES = ("requestReceivedTimestamp", "stageTimestamp", "timestamp", "@timestamp")
"""Fields with the time of an event, best first. API servers before 1.9 wrote `timestamp`, and Logstash writes `@timestamp`."""
_DECISION = "authorization.k8s.io/decision"
_CREDENTIAL = "authentication.kubernetes.io/credential-id"
_HASH_CHARS = 16


def is_audit_event(event: dict[str, Any]) -> bool:
    """Return whether an object has the members by which an audit event is recognised."""
    return "auditID" in event or (event.get("kind") == "Event" and str(event.get("apiVersion", "")).startswith(GROUP))


def record(event: Any) -> RecordInput:
    """Return the record of one audit event. Raises NotAnEventError."""
    if not isinstance(event, dict):
        raise NotAnEventError("it is not a JSON object")
    kind, version = event.get("kind", "Event"), event.get("apiVersion", GROUP)
    if kind != "Event":
        raise NotAnEventError(f'its kind is {shown(kind)}, not "Event"')
    if not isinstance(version, str) or not version.startswith(GROUP):
        raise NotAnEventError(f"its apiVersion is {shown(version)}, not of the group {GROUP}")
    audit_id = required(event, "auditID")
    target = members(event.get("objectRef"))
    status = members(event.get("responseStatus"))
    outcome = _outcome(event, status)
    resource, related = resources(_resources(event, target))
    shareable = _without_secrets(event, target)
    return RecordInput(
        id=f"{audit_id[:150]}:{str(event.get('stage', ''))[:40]}:{fingerprint(shareable, _HASH_CHARS)}",
        action=_action(event, target),
        actor=_actor(members(event.get("user"))),
        resource=resource,
        related=related,
        occurred_at=_time(event),
        severity=_severity(event, status, outcome),
        outcome=outcome,
        message=text(status.get("message"), MESSAGE_CHARS_MAX),
        source=_source(event),
        session_id=_session(event),
        correlation_id=audit_id[:REFERENCE_CHARS_MAX],
        metadata=shareable,
    )


_HOLDERS = {("secrets", None), ("serviceaccounts", "token"), ("tokenreviews", None)}
"""Resources and subresources whose objects hold secrets under unspecific names (`data`, `token`)."""
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def _without_secrets(event: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    """Return the event with the content of Secrets and tokens masked: masking by name would not find it."""
    if (target.get("resource"), target.get("subresource")) not in _HOLDERS:
        return event
    bodies: dict[str, Any] = {name: _emptied(event[name]) for name in ("requestObject", "responseObject") if name in event}
    return {**event, **bodies}


def _emptied(body: Any) -> Any:
    if isinstance(body, list):  # a list of objects, or the operations of a JSON patch
        return [_emptied(item) for item in body]
    if not isinstance(body, dict):
        return body
    result = dict(body)
    for name in ("data", "stringData", "value", "token"):
        if name in result:
            result[name] = blanked(result[name], "", [])
    for name in ("metadata", "annotations", "spec", "status", "items"):
        if name in result:
            result[name] = _emptied(result[name])
    if _APPLIED in result:
        result[_APPLIED] = blanked(result[_APPLIED], "", [])
    return result


def _time(event: dict[str, Any]) -> str:
    name = next((name for name in _TIMES if event.get(name) is not None), _TIMES[0])
    return moment(event.get(name), name)


def _path(event: dict[str, Any]) -> str:
    return required(event, "requestURI").partition("?")[0]


def _action(event: dict[str, Any], target: dict[str, Any]) -> str:
    verb = required(event, "verb")
    resource, subresource = text(target.get("resource"), NAME_CHARS_MAX), text(target.get("subresource"), NAME_CHARS_MAX)
    on = f"{resource}/{subresource}" if resource and subresource else resource or _path(event)
    return f"{verb} {on}"[:NAME_CHARS_MAX]


def _actor(user: dict[str, Any]) -> Actor:
    """Return the authenticated user. An impersonated user becomes a related resource."""
    name = text(user.get("username"), REFERENCE_CHARS_MAX)
    if name is None:
        return Actor(id=text(user.get("uid"), REFERENCE_CHARS_MAX) or "unknown", type="Unknown")
    if name.startswith("system:serviceaccount:"):
        return Actor(id=name, type="ServiceAccount", name=name.rpartition(":")[2] or None)
    return Actor(id=name, type="Node" if name.startswith("system:node:") else "User")


def _resources(event: dict[str, Any], target: dict[str, Any]) -> Iterator[Resource | None]:
    kind, namespace = text(target.get("resource"), NAME_CHARS_MAX), text(target.get("namespace"), REFERENCE_CHARS_MAX)
    if kind is None:
        yield Resource(type="path", id=_path(event)[:REFERENCE_CHARS_MAX])
    else:
        created = members(members(event.get("responseObject")).get("metadata")).get("name")
        name = first(text(value, REFERENCE_CHARS_MAX) for value in (target.get("name"), created))
        yield Resource(type=kind, id=f"{namespace}/{name}"[:REFERENCE_CHARS_MAX] if namespace and name else name, name=name)
    if namespace:
        yield Resource(type="namespaces", id=namespace, name=namespace)
    if impersonated := text(members(event.get("impersonatedUser")).get("username"), REFERENCE_CHARS_MAX):
        yield Resource(type="impersonatedUser", id=impersonated)


def _code(status: dict[str, Any]) -> int | None:
    code = status.get("code")
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _outcome(event: dict[str, Any], status: dict[str, Any]) -> Outcome:
    code = _code(status)
    if code in (401, 403) or members(event.get("annotations")).get(_DECISION) == "forbid":
        return Outcome.DENIED
    if event.get("stage") == "Panic" or status.get("status") == "Failure":
        return Outcome.FAILURE
    if code is None:
        return Outcome.UNKNOWN
    return Outcome.SUCCESS if code < 400 else Outcome.FAILURE


def _severity(event: dict[str, Any], status: dict[str, Any], outcome: Outcome) -> Severity:
    """Return INFO for success, ERROR for a failure of the server, WARNING for any other failure."""
    code = _code(status)
    if event.get("stage") == "Panic" or (code is not None and code >= 500):
        return Severity.ERROR
    return Severity.WARNING if outcome in (Outcome.DENIED, Outcome.FAILURE) else Severity.INFO


def _source(event: dict[str, Any]) -> Source | None:
    """Return the source. The first address is the client's as proxies report it; the others stay in `metadata`."""
    addresses = event.get("sourceIPs")
    ip = addresses[0] if isinstance(addresses, list) and addresses else None
    return source(ip, event.get("userAgent"))


def _session(event: dict[str, Any]) -> str | None:
    """Return the id of the credential, None if the event has none."""
    ids = members(members(event.get("user")).get("extra")).get(_CREDENTIAL)
    return text(ids[0], REFERENCE_CHARS_MAX) if isinstance(ids, list) and ids else None
