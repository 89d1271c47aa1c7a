"""Envelopes that collectors and clouds put around an audit event, and files that hold none.

The event within is the same wherever it is read, so it keeps its id: imported from two places, it is stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from decklog.domain.intake.foreign_event import HoldsNoEventsError, NotAnEventError, shown

_NESTED_MAX = 4
"""Envelopes around one event: Kubernetes' in a container's log in a cloud's entry in an export."""
_PATHS = (
    ("CloudTrailEvent",),  # aws cloudtrail lookup-events
    ("detail",),  # EventBridge
    ("protoPayload",),  # Google Cloud Logging
    ("jsonPayload",),
    ("textPayload",),
    ("properties", "log"),  # Azure's diagnostic logs of AKS
    ("event", "original"),  # Elastic Common Schema
    ("log",),  # Docker, Fluent Bit
    ("message",),  # CloudWatch Logs, Filebeat, Logstash
    ("_raw",),  # Splunk
    ("MESSAGE",),  # the journal of systemd
)


def unwrapped(event: Any, known: Callable[[dict[str, Any]], bool], parsed: Callable[[bytes], Any]) -> Any:
    """Return the event within its envelopes, and `event` itself where it has none.

    Args:
        event: Any JSON.
        known: Returns whether an object is an event itself.
        parsed: Returns the value of JSON text, or raises NotAnEventError.

    Raises:
        NotAnEventError: An envelope holds text that begins like JSON and is none.
    """
    for _ in range(_NESTED_MAX):
        if not isinstance(event, dict) or known(event):
            return event
        inner = next(_inside(event, parsed), None)
        if inner is None:
            return event
        event = inner
    return event


def _inside(event: dict[str, Any], parsed: Callable[[bytes], Any]) -> Iterator[dict[str, Any]]:
    for path in _PATHS:
        value: Any = event
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = _text(path, value, parsed)
        if isinstance(value, dict):
            yield value


def _text(path: tuple[str, ...], text: str, parsed: Callable[[bytes], Any]) -> Any:
    try:
        return parsed(text.encode("utf-8", "surrogatepass"))
    except NotAnEventError as error:
        part = path == ("log",) and not text.endswith("\n")
        why = "is one part of a line that was split" if part else f"does not hold an event: {error}"
        raise NotAnEventError(f"its {'.'.join(path)} {why}") from None


def refuse_other_kinds(event: dict[str, Any]) -> None:
    """Raise the reason, by name, for what lies beside audit events and is none. Raises HoldsNoEventsError or NotAnEventError."""
    if "digestStartTime" in event and "digestEndTime" in event:
        raise HoldsNoEventsError("it is a digest file of CloudTrail, which lists log files and holds no events")
    if event.get("kind") == "Event" and ("involvedObject" in event or "regarding" in event):
        raise NotAnEventError(f"it is an Event of {shown(event.get('apiVersion'))} (kubectl get events), not an audit event")
