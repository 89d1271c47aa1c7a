"""A process that writes the documents of a replay: `python -m tests.bench.replay_documents` reads a `Job` and writes `Sent`, as JSON."""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

import msgspec

from tests.bench.replay import Replay

_BULK = 1_000
"""Documents of one bulk: about 4 MiB, as the indexer sends."""
_SECONDS_MAX = 300.0


class Range(msgspec.Struct, frozen=True):
    """The documents of one range of an index: records from `first` up to `end`, and the alias that they are written under."""

    alias: str
    first: int
    end: int


class Job(msgspec.Struct, frozen=True):
    """The share of one of several loaders: every bulk whose place leaves the remainder `loader`."""

    url: str
    replay: Replay
    ranges: list[Range]
    loader: int
    loaders: int


class Sent(msgspec.Struct, frozen=True):
    """Documents that were written."""

    documents: int


def _send(job: Job) -> Sent:
    address = urlsplit(job.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_SECONDS_MAX)
    path, headers = "/_bulk?filter_path=errors&require_alias=true", {"content-type": "application/x-ndjson"}
    written = number = 0
    for part in job.ranges:
        for first in range(part.first, part.end, _BULK):
            number += 1
            if number % job.loaders != job.loader:
                continue
            seqs = range(first, min(first + _BULK, part.end))
            connection.request("POST", path, b"".join([job.replay.document(seq, part.alias) for seq in seqs]), headers)
            with connection.getresponse() as answer:
                found = answer.read()
            if answer.status != http.HTTPStatus.OK or found != b'{"errors":false}':
                raise RuntimeError(f"documents were not written: {answer.status} {found[:500]!r}")
            written += len(seqs)
    return Sent(written)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_send(msgspec.json.decode(sys.stdin.buffer.read(), type=Job))))
