"""What is said about nodes holds where none can run, too; a node itself is seen at work in `tests.e2e.test_node`."""

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


def asked(name: str, kind: int = 1) -> tuple[int, bytes]:
    """The code and the records that are answered."""
    sent = query(name, kind)
    got = answer(sent, lambda name, namespace: ADDRESSES.get((name, namespace)))
    number, flags, questions, answers, *_ = struct.unpack("!HHHHHH", got[:12])
    assert (number, flags & ~0xF, questions) == (4711, 0x8500, 1)
    assert got[12:].startswith(sent[12:])
    records = got[len(sent) :]
    assert bool(records) == bool(answers)
    return flags & 0xF, records


def test_a_service_is_found_by_its_whole_name_and_nothing_else_is() -> None:
    code, record = asked("Decklog-API.decklog.svc.cluster.local")
    assert (code, record[-4:]) == (NO_ERROR, bytes([198, 19, 0, 7]))
    assert asked("decklog-api.decklog.svc.cluster.local", kind=28) == (NO_ERROR, b"")  # there is no IPv6
    for name in ("decklog-api.other.svc.cluster.local", "decklog-api.decklog.svc", "example.com"):
        assert asked(name) == (NO_SUCH_NAME, b"")


def test_an_api_server_that_is_away_is_no_reason_to_say_that_there_is_no_such_name() -> None:
    def away(name: str, namespace: str) -> str:
        raise ConnectionRefusedError

    assert answer(query("a.b.svc.cluster.local"), away)[3] & 0xF == FAILED


def test_the_reason_is_told_where_no_node_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UnavailableError, match="a node needs root on Linux"):
        node.check()
