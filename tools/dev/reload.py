"""Run a program of Decklog in its pod, and restart it when live update changes its sources.

The Tiltfile replaces the images' entry point with it: `python -c <this file> <folder of sources> <module> <words…>`. A
failed program is restarted after a change or after RETRY_SECONDS. A program that succeeds, like a migration, ends this one, too.
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
    """Return the time of the last change of each source."""
    return {
        str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".py", ".sql", ".html", ".css", ".js")
    }


def stop(child: subprocess.Popen[bytes]) -> int:
    """End the program and return its exit code. It is killed after STOP_SECONDS_MAX."""
    child.terminate()
    try:
        return child.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def main(folder: Path, program: list[str]) -> int:
    """Run the program until it succeeds or this process is told to end, and return the exit code."""
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
