"""The closed lists of English words that a question is read by: words without a meaning of their own, verbs, fields, outcomes."""

from __future__ import annotations

import re
from functools import cache

from decklog.domain.records.record import Outcome, Severity

_EMPTY = (
    "a an the there here is are was were be been being am do does did done doing has have had having "
    "us our ours we please pls thanks hi hello hey show list find get give display see search query fetch return say print look tell "
    "all any every everything anything something some what whatever of for in on at to into about with by from as and "
    "ever really currently event events record records entry entries action actions activity activities call calls thing things "
    "attempt attempts attempted tried try operation operations log logs audit data item items result results "
    "who whoever someone somebody anyone anybody everyone everybody people which how many time times during within over "
    "made make makes happen happens happened occur occurred occurs use uses used using act acts acted perform performs performed "
    "execute executed carried take took taken place went go going come came coming 's "
    "requests request api total work works worked working altogether far through regarding concerning against overall so it's id ids named called"
)
EMPTY = frozenset(_EMPTY.split())
"""Words that say nothing which narrows a question. Every other word must have a meaning, or is not understood."""
EMPTY_PHRASES = (
    "i would like to see", "i want to see", "i want to know", "i need to know", "i need to see", "i would like to know", "can you tell me",
    "can you show me", "could you show me", "could you tell me", "let me see", "let me know", "show me", "give me", "tell me", "find me",
    "list me", "get me", "walk me", "do you know", "api calls", "api call", "i need", "i want", "can you", "could you", "would you", "so far", "carried out", "let's see", "from addresses", "from ip addresses", "from an address",   "audit log", "have a look at",
)  # fmt: skip
"""Phrases without a meaning of their own, the longest first."""
LINKS = {"and": "and", "or": "or", ",": "or", "nor": "or", "as well as": "and"}
BETWEEN = frozenset(
    (
        "and",
        "or",
        ",",
        "nor",
        "by",
        "of",
        "from",
        "on",
        "in",
        "to",
        "with",
        "for",
        "the",
        "a",
        "an",
        "was",
        "were",
        "is",
        "are",
        "either",
        "both",
    )
)
"""Words that may stand between the values of one list."""

_TOUCHED = "touch touched touches touching access accessed accesses accessing affect affected handle handled involve involved"
TOUCHED = frozenset(_TOUCHED.split())
"""Verbs of any action."""
LOGIN = frozenset(("log in", "logged in", "logs in", "logging in", "sign in", "signed in", "signs in", "signing in", "logged on"))
LOGOUT = frozenset(("log out", "logged out", "logs out", "logging out", "sign out", "signed out", "signs out", "logged off"))

FAMILIES: dict[str, tuple[str, ...]] = {
    "delete": ("delete", "remove", "destroy", "terminate", "erase", "purge", "drop"),
    "create": ("create", "add", "make", "new", "register", "provision"),
    "update": ("update", "modify", "edit", "alter", "put", "set", "patch"),
    "read": ("read", "view", "open", "get", "see", "retrieve", "download"),
    "list": ("list", "describe", "lookup", "enumerate"),
    "login": ("login", "signin", "logon", "authenticate"),
    "logout": ("logout", "signout", "logoff"),
    "export": ("export", "download"),
    "grant": ("grant", "assign", "give"),
    "revoke": ("revoke", "withdraw", "unassign"),
    "start": ("start", "run", "launch", "boot"),
    "stop": ("stop", "halt", "shutdown"),
    "share": ("share", "publish"),
    "rotate": ("rotate", "renew"),
    "approve": ("approve", "accept", "confirm"),
    "reject": ("reject", "decline"),
    "enable": ("enable", "activate"),
    "disable": ("disable", "deactivate"),
}
"""Verbs that stand for others: the first of each row for all of them, the others for all where the log has no action of their own."""
CHANGE = ("change",)
"""Verbs of every action that does not only read."""
READING = (
    "get",
    "list",
    "describe",
    "read",
    "view",
    "lookup",
    "head",
    "search",
    "query",
    "download",
    "show",
    "open",
    "batchget",
    "scan",
)
"""First or last words of actions that only read."""

OUTCOMES: dict[str, tuple[Outcome, ...]] = (
    dict.fromkeys(("failed", "failing", "failure", "failures", "fail", "fails"), (Outcome.FAILURE,))
    | dict.fromkeys(
        ("denied", "refused", "forbidden", "unauthorized", "unauthorised", "deny", "denials", "denial"), (Outcome.DENIED,)
    )
    | dict.fromkeys(
        ("successful", "successfully", "succeeded", "success", "succeed", "successes", "succeeds"), (Outcome.SUCCESS,)
    )
    | dict.fromkeys(("wrong",), (Outcome.FAILURE, Outcome.DENIED))
)
UNSUCCESSFUL = frozenset(("unsuccessful", "unsuccessfully"))
SEVERITIES: dict[str, Severity] = {
    "info": Severity.INFO,
    "informational": Severity.INFO,
    "warning": Severity.WARNING,
    "warnings": Severity.WARNING,
    "error": Severity.ERROR,
    "errors": Severity.ERROR,
    "critical": Severity.CRITICAL,
    "criticals": Severity.CRITICAL,
}
OR_WORSE = (
    "or worse",
    "and worse",
    "or higher",
    "or above",
    "and above",
    "or more",
    "and up",
    "or more severe",
    "or greater",
    "and higher",
)
AT_LEAST = ("at least", "worse than", "above", "higher than", "more severe than")
"""Words before a severity; the first of them includes it."""

FIELDS: dict[str, str] = (
    dict.fromkeys(("actor", "actors", "user", "users", "person", "persons", "people", "identity", "identities", "caller", "callers", "principal", "principals"), "actor.id")
    | dict.fromkeys(("address", "addresses", "ip", "ips", "ip address", "ip addresses", "source address", "source addresses", "source ip"), "source.ip")
    | dict.fromkeys(("action", "actions", "operation", "operations", "action name"), "action")
    | dict.fromkeys(("outcome", "outcomes"), "outcome")
    | dict.fromkeys(("severity", "severities", "level", "levels"), "severity")
    | dict.fromkeys(("resource type", "resource types", "type of resource", "kind of resource"), "resource.type")
    | dict.fromkeys(("resource", "resources", "object", "objects", "target", "targets"), "resource.id")
    | dict.fromkeys(("session", "sessions"), "session_id")
    | dict.fromkeys(("actor type", "actor types", "user type", "type of actor", "type of user"), "actor.type")
    | dict.fromkeys(("user agent", "user agents", "browser", "browsers", "client", "clients"), "source.user_agent")
    | dict.fromkeys(("region", "regions"), "metadata.awsRegion")
    | dict.fromkeys(("error code", "error codes"), "metadata.errorCode")
    | dict.fromkeys(("access key", "access keys", "access key id"), "metadata.userIdentity.accessKeyId")
)  # fmt: skip
"""Nouns for fields that are counted by, and their paths."""
GENERIC = frozenset(("action", "actions", "operation", "operations"))
"""Nouns for a field that are words without a meaning elsewhere."""

NEGATIONS = frozenset(
    ("not", "n't", "except", "excluding", "without", "other than", "apart from", "but not", "besides", "except for")
)
MORE = frozenset(("more", "fewer", "less", "oftener"))

_PLURAL = ((re.compile(r"ies$"), "y"), (re.compile(r"(?<=s|x|z)es$|(?<=ch|sh)es$"), ""), (re.compile(r"(?<!s|u|i)s$"), ""))
_ENDINGS = re.compile(r"(?:ion|ing|ed|ment|al)$")


TRANSPARENT = frozenset(("value",))
"""Last words of actions that name a part of the object before them: `GetSecretValue` reads a secret."""
OPENINGS = EMPTY | {"export"}
"""Words that ask for something where they open a question."""
RECEIVED = ("by the time of receipt", "by time of receipt", "by receipt time", "received")
"""Words that say that times are those of the receipt."""
_MFA = "metadata.userIdentity.sessionContext.attributes.mfaAuthenticated"
CONCEPTS: dict[str, tuple[str, str]] = {
    "private networks": ("ip", " OR ".join(f"ip:{each}" for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))),
    "second factor": ("factor", f"{_MFA}:true"),
    "mfa": ("factor", f"{_MFA}:true"),
    "multi-factor authentication": ("factor", f"{_MFA}:true"),
}
"""Phrases for a condition, with its kind and text."""
_ALIKE = {
    "private addresses": "private networks",
    "private network": "private networks",
    "private ip addresses": "private networks",
}
CONCEPTS |= {phrase: CONCEPTS[other] for phrase, other in _ALIKE.items()}
CONCEPTS |= {
    f"{before}without {name}": ("factor", f"{_MFA}:false")
    for before in ("session ", "sessions ", "")
    for name in ("a second factor", "second factor", "mfa", "multi-factor authentication")
}

_IRREGULAR = {
    "revocation": "revoke", "ran": "run", "written": "write", "wrote": "write", "saw": "see", "seen": "see", "given": "give",
    "gave": "give", "sent": "send", "built": "build", "withdrew": "withdraw", "withdrawn": "withdraw", "configuration": "config",
    "configurations": "config", "overwritten": "overwrite", "renewal": "renew", "modification": "modify", "modifications": "modify",
}  # fmt: skip


@cache
def root(word: str) -> str:
    """Return what the forms of a word have in common: delete, deleted, deletion and deletes have the same root."""
    word = _IRREGULAR.get(word, word)
    for plural, singular in _PLURAL:
        if len(word) > 3 and plural.search(word):
            word = plural.sub(singular, word)
            break
    if word.endswith("ied"):
        word = word[:-3] + "y"
    stem = _ENDINGS.sub("", word)
    if len(stem) >= 3:
        word = stem[:-1] if stem != word and len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "sl" else stem
    return word[:-1] if word.endswith("e") and len(word) > 3 else word
