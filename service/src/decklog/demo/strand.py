"""A strand: records of one actor that follow each other."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Any, cast

from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource, Severity, Source

Pause = tuple[float, float]
"""Shortest and longest time between two records, in seconds."""


class Strand:
    """Records of one actor from one place, in the order of their times. Each is a request of its own unless it says otherwise."""

    def __init__(self, rng: Random, actor: Actor, source: Source, at: datetime, *, session: str | None = None) -> None:
        self.rng = rng
        self.actor = actor
        self.source = source
        self.at = at
        self.session = session
        self.records: list[RecordInput] = []

    def then(
        self,
        action: str,
        resource: Resource | None = None,
        *,
        pause: Pause = (15, 240),
        outcome: Outcome = Outcome.SUCCESS,
        severity: Severity = Severity.INFO,
        request: str | None = None,
        **others: Any,
    ) -> None:
        """Let a pause pass and append a record. `request` is its correlation id; `others` are further fields of the record."""
        self.at += timedelta(seconds=round(self.rng.uniform(*pause), 3))
        self.records.append(
            RecordInput(
                action=action,
                actor=self.actor,
                resource=resource,
                occurred_at=self.at,
                outcome=outcome,
                severity=severity,
                source=self.source,
                session_id=self.session,
                correlation_id=request or named(self.rng, "req"),
                **others,
            )
        )

    def rest(self, seconds: float) -> None:
        """Let time pass without a record."""
        self.at += timedelta(seconds=seconds)


def named(rng: Random, prefix: str) -> str:
    """Return a new id, such as `req-6f0c19a2`."""
    return f"{prefix}-{rng.getrandbits(32):08x}"


def time_of(record: RecordInput) -> datetime:
    """Return when a record of a strand happened."""
    return cast("datetime", record.occurred_at)
