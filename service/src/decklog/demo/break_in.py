"""The break-in of the story, from the first tried password to the day after.

An auditor can find this: one address tries passwords (`ip:203.0.113.66`), one sign-in succeeds, its session creates an access key and
raises the rights of its account, the key reads secrets and exports the customers, the audit trail of the shop is deleted, and the
responses share the correlation id `inc-31`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

from decklog.demo import company
from decklog.demo.company import DEFENDER, INTRUDER, SECOND_HOST, VICTIM
from decklog.demo.strand import Strand, named
from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource, Severity

BEGINS = timedelta(hours=19)
"""How long before the end of the story the first password is tried."""
_FOUND = timedelta(hours=12, minutes=40)
"""From the first password to the alert."""
_ROUNDS = 7
"""Passwords that are tried for each account."""
_EXPORTED = 48_210
"""Customers in the export."""
INCIDENT = "inc-31"
_ACCESS_KEY = Resource("access_key", "ak-9041", "backup-sync")
_ACCOUNT = Resource("user", VICTIM.id, VICTIM.name)
_TRAIL = Resource("trail", "storefront")
_CUSTOMERS = Resource("dataset", "customers")
_SUPPORT = {"roles": ["support"], "second_factor_required": True}
_ADMIN = {"roles": ["support", "admin"], "second_factor_required": False}


def break_in(rng: Random, end: datetime) -> list[RecordInput]:
    """Return the records of the break-in, in the order of their times; the last are hours before `end`."""
    begin = end - BEGINS
    tried = _spray(rng, begin)
    inside = _sign_in(rng, tried.at)
    by_key = _use_key(rng, inside.at)
    _cover_tracks(inside, by_key.at)
    return [*tried.records, *inside.records, *by_key.records, *_alert(rng, begin + _FOUND), *_respond(rng, begin + _FOUND)]


def _spray(rng: Random, at: datetime) -> Strand:
    """Few passwords for many accounts, so that no account is locked but one."""
    strand = Strand(rng, Actor("unknown", "user"), INTRUDER, at)
    for number in range(_ROUNDS):
        for member in company.STAFF:
            strand.actor = Actor(member.id, "user")
            strand.then(
                "user.login", Resource("account", member.id, member.name), pause=(3, 14), outcome=Outcome.FAILURE, severity=Severity.WARNING,
                message="Wrong password.", metadata={"method": "password", "form": {"user": member.id, "password": f"Autumn-{number}!"}},
            )  # fmt: skip
        strand.rest(240)
    locked = company.STAFF[3]
    strand.actor, strand.source = company.SIGN_IN, company.INSIDE
    strand.then(
        "account.lock", Resource("account", locked.id, locked.name), severity=Severity.WARNING,
        message="Locked for 30 minutes after 7 wrong passwords.", before={"locked": False}, after={"locked": True},
    )  # fmt: skip
    return strand


def _sign_in(rng: Random, at: datetime) -> Strand:
    """The one success, and what its session does until the new key takes over."""
    strand = Strand(rng, VICTIM.actor, INTRUDER, at, session=named(rng, "s"))
    account = Resource("account", VICTIM.id, VICTIM.name)
    device = {"method": "password", "second_factor": None, "device": "new", "country": "unknown"}
    strand.then("user.login", account, pause=(60, 200), message="Signed in from a new device.", metadata=device)
    strand.then(
        "secret.list",
        Resource("vault", "production"),
        outcome=Outcome.DENIED,
        severity=Severity.WARNING,
        message="Needs the role admin.",
    )
    strand.then("member.list", Resource("team", "support"), metadata={"records": 3})
    strand.then("role.read", Resource("role", "admin"))
    strand.then(
        "user.update", _ACCOUNT, severity=Severity.WARNING, message="Changed through the import of the support tool.",
        before=_SUPPORT, after=_ADMIN, related=[Resource("role", "admin")], metadata={"ticket": None, "tool": "support-import"},
    )  # fmt: skip
    strand.then(
        "access_key.create",
        _ACCESS_KEY,
        severity=Severity.WARNING,
        related=[_ACCOUNT],
        after={"scopes": ["secrets:read", "data:export"], "expires": None},
    )
    return strand


def _use_key(rng: Random, at: datetime) -> Strand:
    """Secrets and an export, by the access key, from another address."""
    strand = Strand(rng, Actor(_ACCESS_KEY.id or "", "access_key", _ACCESS_KEY.name), SECOND_HOST, at + timedelta(minutes=9))
    of = [_ACCOUNT]
    strand.then("secret.list", Resource("vault", "production"), related=of, metadata={"records": len(company.SECRETS)})
    for name in company.SECRETS:
        secret = Resource("secret", name)
        if name == "billing/bank-transfer":
            strand.then(
                "secret.read",
                secret,
                related=of,
                outcome=Outcome.DENIED,
                severity=Severity.ERROR,
                message="Needs a second approval.",
                pause=(2, 9),
            )
        else:
            strand.then("secret.read", secret, related=of, severity=Severity.WARNING, pause=(2, 9))
    request = named(rng, "export")
    for page in range(12):
        strand.then(
            "customer.list", _CUSTOMERS, related=of, request=request, pause=(6, 20), metadata={"page": page + 1, "records": 500}
        )
    strand.then(
        "customer.export", _CUSTOMERS, related=of, request=request, severity=Severity.WARNING,
        metadata={"rows": _EXPORTED, "bytes": 31_884_102, "format": "csv", "destination": "download"},
    )  # fmt: skip
    return strand


def _cover_tracks(strand: Strand, at: datetime) -> None:
    """The session of the sign-in again: an alert is turned off, and the trail of the shop is deleted."""
    strand.at = at
    rule = Resource("alert_rule", "unusual-export")
    strand.then(
        "alert_rule.update",
        rule,
        severity=Severity.WARNING,
        before={"enabled": True, "threshold": 1_000},
        after={"enabled": False, "threshold": 1_000},
    )
    strand.then(
        "trail.delete", _TRAIL, severity=Severity.CRITICAL, message="The audit trail storefront was deleted.",
        before={"enabled": True, "retention_days": 365, "sinks": ["archive"]}, after=None,
    )  # fmt: skip
    strand.then("user.logout", Resource("account", VICTIM.id, VICTIM.name))


def _alert(rng: Random, at: datetime) -> list[RecordInput]:
    strand = Strand(rng, company.MONITOR, company.INSIDE, at)
    strand.then(
        "alert.raise", Resource("alert", "trail-silent"), request=INCIDENT, severity=Severity.CRITICAL, related=[_TRAIL],
        message="The trail storefront has sent nothing for 10 hours.",
    )  # fmt: skip
    return strand.records


def _respond(rng: Random, at: datetime) -> list[RecordInput]:
    """Detection and revocation, all under the incident's correlation id."""
    strand = Strand(rng, DEFENDER.actor, DEFENDER.source, at + timedelta(minutes=6), session=named(rng, "s"))
    strand.then(
        "user.login", Resource("account", DEFENDER.id, DEFENDER.name), metadata={"method": "password", "second_factor": "totp"}
    )
    strand.then(
        "incident.open", Resource("incident", INCIDENT), request=INCIDENT, severity=Severity.WARNING, related=[_TRAIL, _ACCOUNT]
    )
    strand.then(
        "trail.search", Resource("trail", "sign-in"), request=INCIDENT, metadata={"query": "ip:203.0.113.66", "records": 74}
    )
    strand.then(
        "access_key.revoke",
        _ACCESS_KEY,
        request=INCIDENT,
        severity=Severity.WARNING,
        related=[_ACCOUNT],
        before={"state": "active"},
        after={"state": "revoked"},
    )
    strand.then("session.revoke", _ACCOUNT, request=INCIDENT, severity=Severity.WARNING, metadata={"sessions": 2})
    strand.then("user.update", _ACCOUNT, request=INCIDENT, before=_ADMIN, after=_SUPPORT)
    strand.then(
        "user.suspend",
        _ACCOUNT,
        request=INCIDENT,
        severity=Severity.WARNING,
        before={"state": "active"},
        after={"state": "suspended"},
    )
    for name in company.SECRETS:
        strand.then("secret.rotate", Resource("secret", name), request=INCIDENT, pause=(20, 60))
    after = {"enabled": True, "retention_days": 365, "sinks": ["archive"]}
    strand.then("trail.create", _TRAIL, request=INCIDENT, before=None, after=after)
    strand.then(
        "alert_rule.update",
        Resource("alert_rule", "unusual-export"),
        request=INCIDENT,
        before={"enabled": False},
        after={"enabled": True},
    )
    strand.then(
        "incident.update",
        Resource("incident", INCIDENT),
        request=INCIDENT,
        before={"state": "open"},
        after={"state": "contained"},
    )
    return strand.records
