"""Runs a program of Decklog inside of its pod and starts it again when its sources were changed there, as live update does.

The Tiltfile puts it in place of the images' entry point: `python -c <this file> <folder of sources> <module> <words…>`. A
program that fails waits for the next change, or a while; one that ends well, as a migration does, ends this as well.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

LOOK_SECONDS = 0.5
RETRY_SECONDS = 5.0
STOP_SECONDS_MAX = 30.0


def state(folder: Path) -> dict[str, int]:
    """When each source was changed last."""
    return {
        str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".py", ".sql", ".html", ".css", ".js")
    }


def stop(child: subprocess.Popen[bytes]) -> int:
    child.terminate()
    try:
        return child.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def main(folder: Path, program: list[str]) -> int:
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))
    while True:
        seen = state(folder)
        child = subprocess.Popen([sys.executable, "-m", *program])
        while child.poll() is None:
            time.sleep(LOOK_SECONDS)
            if stopping:
                return stop(child)
            if state(folder) != seen:
                print("The sources were changed: starting again.", flush=True)
                stop(child)
                break
        else:
            if child.returncode == 0:
                return 0
            print(f"It ended with {child.returncode}: starting again after a change, or soon.", flush=True)
            ended = time.monotonic()
            while state(folder) == seen and time.monotonic() - ended < RETRY_SECONDS:
                time.sleep(LOOK_SECONDS)
                if stopping:
                    return child.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
