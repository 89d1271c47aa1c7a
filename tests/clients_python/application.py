"""An application that records, and prints the id of each record once `record` has returned. The test kills it.

`python -m tests.clients_python.application URL SPOOL NAME COUNT FILE_BYTES_MAX`, with the key in DECKLOG_KEY.
"""

from __future__ import annotations

import os
import resource
import sys

from decklog_client import Decklog

FULL_SECONDS = 120.0


def main() -> None:
    url, spool, name, count, file_bytes_max = sys.argv[1:]
    if int(file_bytes_max):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes_max), resource.RLIM_INFINITY))
    audit = Decklog(
        url=url,
        key=os.environ["DECKLOG_KEY"],
        spool=spool,
        batch_records=200,
        segment_bytes=64 * 1024,
        linger=0.01,
        backoff_max=0.5,
        scan=0.2,
        full_timeout=FULL_SECONDS,
    )
    for number in range(int(count)):
        made = audit.record("chaos.step", actor=name, resource={"type": "step", "id": str(number)}, message="x" * 100)
        print(made, number, flush=True)
    audit.commit(FULL_SECONDS)
    print("done", flush=True)
    audit.close()


if __name__ == "__main__":
    main()
