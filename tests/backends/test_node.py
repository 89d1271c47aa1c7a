"""Test DNS of nodes and their requirements, without a node. `tests.e2e.test_node` tests a running one."""

from __future__ import annotations

import os
import struct

import pytest

from tests.backends import UnavailableError, node
from tests.backends.names import FAILED, NO_ERROR, NO_SUCH_NAME, answer

ADDRESSES = {("decklog-api", "decklog"): "198.19.0.7"}


def query(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def lookup(name: str, kind: int = 1) -> tuple[int, bytes]:
    """Return the response code and the records for a query."""
    sent = query(name, kind)
    got = answer(sent, lambda name, namespace: ADDRESSES.get((name, namespace)))
    number, flags, questions, answers, *_ = struct.unpack("!HHHHHH", got[:12])
    assert (number, flags & ~0xF, questions) == (4711, 0x8500, 1)
    assert got[12:].startswith(sent[12:])
    records = got[len(sent) :]
    assert bool(records) == bool(answers)
    return flags & 0xF, records


def test_dns_answers_only_full_names_of_existing_services() -> None:
    code, record = lookup("Decklog-API.decklog.svc.cluster.local")
    assert (code, record[-4:]) == (NO_ERROR, bytes([198, 19, 0, 7]))
    assert lookup("decklog-api.decklog.svc.cluster.local", kind=28) == (NO_ERROR, b"")  # Services have no IPv6 addresses
    for name in ("decklog-api.other.svc.cluster.local", "decklog-api.decklog.svc", "example.com"):
        assert lookup(name) == (NO_SUCH_NAME, b"")


def test_dns_fails_instead_of_nxdomain_when_the_api_server_is_unreachable() -> None:
    def unreachable(name: str, namespace: str) -> str:
        raise ConnectionRefusedError

    assert answer(query("a.b.svc.cluster.local"), unreachable)[3] & 0xF == FAILED


def test_node_check_reports_the_reason_when_it_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UnavailableError, match="a node needs root on Linux"):
        node.check()
