"""The rule for addresses of PostgreSQL: another host is reached only where its certificate proves which host it is.

It knows addresses only, and opens no connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit


def unverified_hosts(dsn: str, default_mode: str = "") -> list[str]:
    """Return the hosts of a PostgreSQL URL that are not this machine and whose certificates would not be verified.

    Args:
        dsn: A URL as asyncpg takes it, with one or several hosts. One that cannot be read names no host: connecting fails then.
        default_mode: The `sslmode` of a URL without one, as PGSSLMODE gives it.
    """
    try:
        query = parse_qs(urlsplit(dsn).query)
        hosts = list(_hosts(urlsplit(dsn).netloc, query.get("host", [])))
    except ValueError:
        return []
    mode = query.get("sslmode", [default_mode])[-1]
    return [] if mode == "verify-full" else [host for host in hosts if not _is_here(host)]


def _hosts(netloc: str, named: list[str]) -> Iterator[str]:
    for each in [*netloc.rpartition("@")[2].split(","), *(host for entry in named for host in entry.split(","))]:
        bracketed, _, rest = each.removeprefix("[").partition("]")
        host = bracketed if each.startswith("[") else each if each.startswith("/") else (bracketed + rest).partition(":")[0]
        if host:
            yield unquote(host)


def _is_here(host: str) -> bool:
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
