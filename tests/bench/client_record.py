"""What an application pays for a record by the Python client: the call, beside a sender at work, and the import.

The baseline is one `write` of 300 bytes, paced alike: caches and processor are then as cold as for the record.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from decklog.domain.tenant import Isolation
from tests.bench.context import Context
from tests.bench.figures import Figure, median, value_at_most
from tests.bench.processes import HOST
from tests.bench.stand import stand

NAMES = ("client_record",)
RATE = 500
"""Records per second: an application that audits each of its requests."""
_SECONDS = 16.0
_P99_MAX = 200.0
"""Microseconds."""
_IMPORT_MAX = 100.0
"""Milliseconds."""
_IMPORTS = 7
_FOLDER = Path(".bench")
"""On the disk of the checkout: the folder of temporary files may be in memory."""

APPLICATION = """
import json, os, sys, time
from decklog_client import Decklog
url, key, spool, rate, seconds, fsync = sys.argv[1:]
rate, count = int(rate), int(int(rate) * float(seconds))
audit = Decklog(url=url, key=key, spool=spool, fsync=fsync)
def record(number):
    audit.record("order.approve", actor={"id": "alice", "type": "user"}, resource={"type": "order", "id": str(number)},
                 outcome="success", metadata={"amount": number, "currency": "EUR"})
for number in range(rate):
    record(number)
audit.commit(30)
def paced(count, call):
    took, began = [], time.perf_counter()
    for number in range(count):
        left = began + number / rate - time.perf_counter()
        if left > 0:
            time.sleep(left)
        before = time.perf_counter_ns()
        call(number)
        took.append((time.perf_counter_ns() - before) / 1_000)
    return sorted(took)
file = os.open(spool + "/floor", os.O_RDWR | os.O_CREAT)
floor = paced(count // 4, lambda number: os.pwrite(file, b"x" * 300, 300 * number))
used = time.process_time()
took = paced(count, record)
audit.commit(30)
used = (time.process_time() - used) / count * 1e6
print(json.dumps({"p50": took[count // 2], "p99": took[int(count * 0.99)], "longest": took[-1], "used": used,
                  "floor": floor[int(len(floor) * 0.99)], "stored": audit.stats().stored - rate, "count": count}))
"""
IMPORT = "import time; t = time.perf_counter(); import decklog_client; print(time.perf_counter() - t)"


async def run(context: Context) -> AsyncIterator[Figure]:
    """Yield the 99th percentile of `record` with each policy of fsync that does not wait for the disk, and the time of the import."""
    imports = [float(await _output([sys.executable, "-c", IMPORT])) * 1_000 for _ in range(_IMPORTS)]
    slowest = f"the fastest of {_IMPORTS}, as other load disturbs it; median {median(imports):.0f}, slowest {max(imports):.0f} ms"
    yield Figure("client_import", min(imports), "ms", None, value_at_most(_IMPORT_MAX), slowest)
    async with stand(context.postgres("postgres")) as place:
        [customer] = await place.customers(1, Isolation.DEDICATED)
        async with place.api() as server:
            for fsync in ("interval", "never"):
                url = f"http://{HOST}:{server.port}"
                yield await _measured(context, url, customer.writer, fsync)


async def _measured(context: Context, url: str, key: str, fsync: str) -> Figure:
    _FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        argv = [sys.executable, "-c", APPLICATION, url, key, folder, str(RATE), str(context.seconds(_SECONDS)), fsync]
        found = json.loads(await _output(argv))
    if found["stored"] != found["count"]:
        raise RuntimeError(f"{found['stored']} of {found['count']} records were stored")
    note = (
        f"fsync={fsync}, {RATE} records/s beside the sender: p50 {found['p50']:.0f}, longest {found['longest']:.0f} µs; "
        f"{found['used']:.0f} µs of processor for each record, sender included"
    )
    name = "client_record" if fsync == "interval" else f"client_record_{fsync}"
    return Figure(name, found["p99"], "µs", found["floor"], value_at_most(_P99_MAX), note)


async def _output(argv: list[str]) -> str:
    return (await asyncio.to_thread(subprocess.run, argv, stdout=subprocess.PIPE, text=True, check=True)).stdout
