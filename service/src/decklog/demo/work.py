"""Ordinary work at the company of the story: what staff, customers and programs do on a day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from random import Random

from decklog.demo import company
from decklog.demo.company import Member
from decklog.demo.strand import Strand, named
from decklog.domain.records.record import Actor, Outcome, RecordInput, Resource, Severity, Source

Task = Callable[[Strand], None]

_PER_SESSION = (5, 13)
"""Fewest and most tasks of one session."""
_ORDERS = {True: (46, 60), False: (22, 32)}
"""Fewest and most orders of a day, by whether it is a working day."""


def day(rng: Random, midnight: datetime) -> Iterator[RecordInput]:
    """Yield the records of one day, which begins at `midnight`, in no order."""
    working = midnight.weekday() < 5
    for member in company.STAFF:
        if rng.random() < (0.93 if working else 0.12):
            yield from session(rng, member, midnight + timedelta(hours=rng.gauss(8.2, 0.6)))
            if working and rng.random() < 0.75:
                yield from session(rng, member, midnight + timedelta(hours=rng.gauss(13.3, 0.5)))
    for _ in range(rng.randint(*_ORDERS[working])):
        yield from order(rng, midnight + timedelta(hours=rng.triangular(0, 24, 19)))
    for make in [night_backup, *[invoices] * 3, *[machine_reads] * 8, *([deployment] * rng.randint(3, 6) if working else [])]:
        yield from make(rng, midnight + timedelta(hours=rng.uniform(8, 17)))


def moment(rng: Random, at: datetime) -> list[RecordInput]:
    """Return what happens at any moment: a session of somebody, an order, or a program at work."""
    if rng.random() < 0.3:
        return session(rng, rng.choice(company.STAFF), at)
    make = rng.choice((order, order, order, deployment, invoices, machine_reads))
    return make(rng, at)


def session(rng: Random, member: Member, at: datetime) -> list[RecordInput]:
    """Return a session of a member of the staff: sign-in, tasks of their team, sign-out."""
    strand = Strand(rng, member.actor, member.source, at)
    account = Resource("account", member.id, member.name)
    while rng.random() < 0.09:
        strand.then("user.login", account, outcome=Outcome.FAILURE, pause=(4, 20), message="Wrong password.", metadata=_PASSWORD)
    strand.session = named(rng, "s")
    strand.then("user.login", account, pause=(4, 20), metadata={**_PASSWORD, "second_factor": "totp"})
    for _ in range(rng.randint(*_PER_SESSION)):
        rng.choice(_TASKS[member.team])(strand)
    if rng.random() < 0.7:
        strand.then("user.logout", account)
    return strand.records


_PASSWORD = {"method": "password"}


def order(rng: Random, at: datetime) -> list[RecordInput]:
    """Return the order of a customer, with its payment: records of one request."""
    number, customer = _number(rng, "order"), _customer(rng)
    strand = Strand(rng, Actor(customer.id or "", "customer"), _anywhere(rng), at)
    request, amount = named(rng, "req"), round(rng.uniform(9, 140), 2)
    tea = rng.choice(company.TEAS)
    strand.then(
        "order.create", number, request=request, metadata={"amount": amount, "currency": "EUR", "items": [tea], "channel": "web"}
    )
    strand.actor, strand.source = company.SHOP, company.INSIDE
    payment = Resource("payment", named(rng, "pay"))
    while rng.random() < 0.06:
        strand.then(
            "payment.capture", payment, request=request, pause=(1, 3), outcome=Outcome.FAILURE, severity=Severity.WARNING,
            related=[number, customer], message="The bank declined the card.", metadata={"amount": amount, "reason": "declined"},
        )  # fmt: skip
    strand.then(
        "payment.capture", payment, request=request, pause=(1, 3), related=[number, customer], metadata={"amount": amount}
    )
    return strand.records


def deployment(rng: Random, at: datetime) -> list[RecordInput]:
    """Return a deployment by the build server: records of one request, the last of which says how it ended."""
    strand = Strand(rng, company.BUILD, company.INSIDE, at)
    component, request = rng.choice(company.COMPONENTS), named(rng, "deploy")
    minor = rng.randint(20, 60)
    target, commit = Resource("service", component), f"{rng.getrandbits(40):010x}"
    author = rng.choice([member for member in company.STAFF if member.team == "engineering"])
    of = Resource("user", author.id, author.name)
    strand.then(
        "deployment.start", target, request=request, related=[of], metadata={"commit": commit, "environment": "production"}
    )
    if rng.random() < 0.12:
        strand.then(
            "deployment.complete", target, request=request, outcome=Outcome.FAILURE, severity=Severity.ERROR, related=[of],
            message="The health check failed for 120 s; the previous version stays.", metadata={"commit": commit},
        )  # fmt: skip
        return strand.records
    strand.then(
        "deployment.complete", target, request=request, related=[of], before={"version": f"2.{minor - 1}.0"},
        after={"version": f"2.{minor}.0"}, metadata={"commit": commit, "replicas": rng.randint(2, 6)},
    )  # fmt: skip
    return strand.records


def night_backup(rng: Random, at: datetime) -> list[RecordInput]:
    """Return the backup of the night before `at`. A few fail and are repeated."""
    strand = Strand(rng, company.BACKUP, company.INSIDE, at.replace(hour=2, minute=15, second=0, microsecond=0))
    database = Resource("database", "shop-primary")
    if rng.random() < 0.15:
        message = "The bucket answered 503 for 15 minutes."
        strand.then("backup.run", database, outcome=Outcome.FAILURE, severity=Severity.ERROR, message=message)
        strand.rest(1_800)
    strand.then(
        "backup.run", database, metadata={"bytes": rng.randint(41_000_000_000, 43_000_000_000), "seconds": rng.randint(610, 740)}
    )
    return strand.records


def invoices(rng: Random, at: datetime) -> list[RecordInput]:
    """Return a run of invoices."""
    strand = Strand(rng, company.BILLING, company.INSIDE, at)
    request = named(rng, "run")
    for _ in range(rng.randint(1, 4)):
        customer = _customer(rng)
        invoice = Resource("invoice", f"inv-{rng.randint(70_000, 79_999)}")
        strand.then("invoice.create", invoice, request=request, pause=(1, 4), related=[customer])
    return strand.records


def machine_reads(rng: Random, at: datetime) -> list[RecordInput]:
    """Return the reading of a secret by the program that needs it."""
    name = rng.choice(company.SECRETS[:8])
    strand = Strand(rng, Actor(name.partition("/")[0], "service"), company.INSIDE, at)
    strand.then("secret.read", Resource("secret", name), metadata={"version": rng.randint(3, 9)})
    return strand.records


# Tasks of the teams


def _read_customer(strand: Strand) -> None:
    strand.then("customer.read", _customer(strand.rng), metadata={"fields": ["name", "address", "orders"]})


def _read_order(strand: Strand) -> None:
    strand.then("order.read", _number(strand.rng, "order"))


def _answer_ticket(strand: Strand) -> None:
    request, ticket = named(strand.rng, "req"), _number(strand.rng, "ticket")
    strand.then("ticket.reply", ticket, request=request, related=[_customer(strand.rng)])
    if strand.rng.random() < 0.4:
        strand.then("ticket.close", ticket, request=request, before={"state": "open"}, after={"state": "closed"}, pause=(2, 30))


def _refund(strand: Strand) -> None:
    amount = round(strand.rng.uniform(5, 60), 2)
    if amount > 45:
        message = "Refunds above 45 EUR need the approval of finance."
        strand.then(
            "order.refund", _number(strand.rng, "order"), outcome=Outcome.DENIED, message=message, metadata={"amount": amount}
        )
        return
    strand.then(
        "order.refund",
        _number(strand.rng, "order"),
        before={"state": "paid"},
        after={"state": "refunded"},
        metadata={"amount": amount},
    )


def _ship(strand: Strand) -> None:
    number = _number(strand.rng, "order")
    strand.then(
        "order.ship", number, before={"state": "paid"}, after={"state": "shipped"}, metadata={"parcels": strand.rng.randint(1, 3)}
    )


def _count_stock(strand: Strand) -> None:
    tea, units = strand.rng.choice(company.TEAS), strand.rng.randint(40, 400)
    found = units - strand.rng.randint(0, 4)
    strand.then("stock.update", Resource("product", _slug(tea), tea), before={"units": units}, after={"units": found})


def _change_flag(strand: Strand) -> None:
    share = strand.rng.choice((0, 5, 10, 25, 50))
    before, after = {"enabled": True, "share": share}, {"enabled": True, "share": share * 2 or 5}
    strand.then("flag.update", Resource("flag", strand.rng.choice(company.FLAGS)), before=before, after=after)


def _change_config(strand: Strand) -> None:
    pool = strand.rng.randint(8, 30)
    component = strand.rng.choice(company.COMPONENTS)
    before = {"pool": {"max": pool, "idle_seconds": 60}, "log_level": "info", "region": "eu-north"}
    after = {**before, "pool": {"max": pool + 4, "idle_seconds": 60}}
    strand.then("config.update", Resource("config", f"{component}/production"), before=before, after=after)


def _read_logs(strand: Strand) -> None:
    strand.then(
        "logs.read",
        Resource("service", strand.rng.choice(company.COMPONENTS)),
        metadata={"minutes": strand.rng.choice((5, 15, 60))},
    )


def _merge(strand: Strand) -> None:
    change = _number(strand.rng, "change")
    strand.then("change.review", change, metadata={"verdict": "approved"})
    strand.then("change.merge", change, metadata={"files": strand.rng.randint(1, 14)}, pause=(5, 60))


def _change_price(strand: Strand) -> None:
    tea, price = strand.rng.choice(company.TEAS), round(strand.rng.uniform(6, 15), 2)
    strand.then(
        "product.update", Resource("product", _slug(tea), tea), before={"price": price}, after={"price": round(price + 0.5, 2)}
    )


def _report(strand: Strand) -> None:
    name = strand.rng.choice(("orders-by-day", "vat", "refunds"))
    strand.then("report.export", Resource("report", name), metadata={"rows": strand.rng.randint(40, 900), "format": "csv"})


def _approve_refund(strand: Strand) -> None:
    strand.then("refund.approve", _number(strand.rng, "order"), before={"state": "waiting"}, after={"state": "approved"})


def _review_access(strand: Strand) -> None:
    member = strand.rng.choice(company.STAFF)
    strand.then("access.review", Resource("user", member.id, member.name), metadata={"verdict": "unchanged"})


def _search_trail(strand: Strand) -> None:
    strand.then("trail.search", Resource("trail", "storefront"), metadata={"records": strand.rng.randint(0, 300)})


_TASKS: dict[str, tuple[Task, ...]] = {
    "support": (_read_customer, _read_customer, _read_order, _answer_ticket, _answer_ticket, _refund),
    "warehouse": (_ship, _ship, _ship, _count_stock, _read_order),
    "engineering": (_change_flag, _change_config, _read_logs, _read_logs, _merge),
    "finance": (_report, _approve_refund, _change_price, _read_order),
    "security": (_review_access, _search_trail, _read_logs),
}


# Subjects of the records


def _number(rng: Random, kind: str) -> Resource:
    return Resource(kind, f"{kind}-{rng.randint(1_000, 9_999)}")


def _customer(rng: Random) -> Resource:
    return Resource("customer", f"c-{rng.randint(1_000, 4_999)}")


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _anywhere(rng: Random) -> Source:
    return Source(f"198.51.100.{rng.randint(20, 250)}", rng.choice(company.STAFF[:3]).user_agent)
