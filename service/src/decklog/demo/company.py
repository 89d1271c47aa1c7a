"""The people, programs and addresses of the story. All are invented; the addresses are those that RFC 5737 and RFC 3849 keep for documentation."""

from __future__ import annotations

from dataclasses import dataclass

from decklog.domain.records.record import Actor, Source

_FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
_CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36"
_SAFARI = "Mozilla/5.0 (Macintosh; Intel Mac OS X 15_1) AppleWebKit/605.1.15 Version/18.1 Safari/605.1.15"
_SCANNER = "MarramScan/3.2 (Android 15)"


@dataclass(frozen=True)
class Member:
    """A member of the staff, with the place and the program that they work from."""

    id: str
    name: str
    team: str
    ip: str
    user_agent: str

    @property
    def actor(self) -> Actor:
        """The member as the actor of a record."""
        return Actor(self.id, "user", self.name)

    @property
    def source(self) -> Source:
        """Where the requests of the member come from."""
        return Source(self.ip, self.user_agent)


STAFF = (
    Member("u-amara", "Amara Okafor", "support", "192.0.2.21", _CHROME),
    Member("u-jonas", "Jonas Lindqvist", "support", "192.0.2.22", _CHROME),
    Member("u-mei", "Mei Tanaka", "support", "2001:db8:40::17", _SAFARI),
    Member("u-priya", "Priya Raman", "warehouse", "192.0.2.61", _SCANNER),
    Member("u-tomas", "Tomás Herrera", "warehouse", "192.0.2.62", _SCANNER),
    Member("u-elif", "Elif Demir", "engineering", "192.0.2.35", _FIREFOX),
    Member("u-owen", "Owen Pryce", "engineering", "2001:db8:40::2a", _FIREFOX),
    Member("u-sofia", "Sofia Marino", "engineering", "192.0.2.36", _SAFARI),
    Member("u-hugo", "Hugo Lambert", "finance", "192.0.2.44", _CHROME),
    Member("u-noor", "Noor Haddad", "security", "192.0.2.50", _FIREFOX),
)
BY_ID = {member.id: member for member in STAFF}
VICTIM = BY_ID["u-jonas"]
"""The member whose password the intruder guesses."""
DEFENDER = BY_ID["u-noor"]
"""The member who finds and stops the intruder."""

SHOP = Actor("shop", "service", "Web shop")
SIGN_IN = Actor("sign-in", "service", "Sign-in")
BUILD = Actor("ci", "service", "Build server")
BACKUP = Actor("backup", "service", "Nightly backup")
BILLING = Actor("billing", "service", "Billing")
MONITOR = Actor("monitor", "service", "Monitoring")
INSIDE = Source("198.51.100.10", "marram-service/1.9")
"""Where the company's own programs run."""

INTRUDER = Source("203.0.113.66", "python-requests/2.32.3")
"""Where the passwords are tried from."""
SECOND_HOST = Source("203.0.113.140", "curl/8.9.1")
"""Where the intruder uses the new access key from."""

SECRETS = (
    "payments/production",
    "payments/webhook",
    "shop/database",
    "shop/session-signing",
    "warehouse/label-printer",
    "billing/bank-transfer",
    "ci/deploy-key",
    "backup/bucket",
    "mail/sender",
    "crm/import",
    "dns/zone",
    "analytics/warehouse",
)
COMPONENTS = ("shop", "checkout", "warehouse", "billing", "sign-in", "mailer")
TEAS = ("Dune Oolong", "Harbour Breakfast", "Salt Marsh Green", "Lantern Chai", "Driftwood Rooibos", "Winter Shore White")
FLAGS = ("new-checkout", "gift-wrapping", "loyalty-points", "tea-of-the-month", "express-shipping")
