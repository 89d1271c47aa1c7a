"""Manage the test servers from a terminal.

python -m tests.backends list [NAME ...]       show the sources of each server, and why a source is not usable
python -m tests.backends provision [NAME ...]  fill the cache without starting a server
python -m tests.backends up [NAME ...]         start servers, print the environment for test runs, stop them with Ctrl-C
python -m tests.backends down                  stop the servers that DECKLOG_TEST_KEEP=1 left running
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from tests.backends import BACKENDS, BadAddressError, UnavailableError, browser, docker, images, kubernetes, node, running
from tests.backends.backend import Backend
from tests.backends.cache import provision as provision_recipe
from tests.backends.resolve import named, prospects
from tests.backends.run import RUN_VARIABLE, down
from tests.backends.tools import TOOLS

AT_ONCE_MAX = 3
"""Recipes built in parallel. The compiler uses every core; other builds mostly download, unpack or link."""
SLOW_TOOLS = ("gateway", "edge", "helm", "ratelimit")
"""Tools whose builds take more than a minute, the longest first."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.backends", description="Manage the servers that the tests of Decklog use."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("list", "show the sources of each server, and why a source is not usable"),
        ("provision", "build or unpack the servers into the cache, without starting them"),
        ("up", "start servers and print their addresses as environment variables; Ctrl-C stops them"),
    ):
        commands.add_parser(name, help=text).add_argument(
            "names", nargs="*", metavar="NAME", help=f"one of {', '.join(BACKENDS)} (default: all)"
        )
    commands.add_parser("down", help="stop the servers that DECKLOG_TEST_KEEP=1 left running")
    given = parser.parse_args(arguments)
    if given.command == "down":
        for folder in down():
            print(f"stopped {folder}")
        return 0
    try:
        backends = named(*given.names)
    except ValueError as error:
        parser.error(str(error))
    return {"list": show, "provision": provision, "up": up}[given.command](backends)


def show(backends: Sequence[Backend[Any]]) -> int:
    for backend in backends:
        used = False
        for source, lacks, gives in prospects(backend, os.environ):
            state = "no " if lacks else ("yes" if not used else " - ")
            print(f"{backend.name:<11} {source:<12} {state} {lacks or gives}")
            used = used or not lacks
    return 0


def provision(backends: Sequence[Backend[Any]]) -> int:
    """Fill the cache with several builds in parallel, because most builds wait for one core or for a registry.

    With all backends, the browser is installed too.
    """
    with ThreadPoolExecutor(AT_ONCE_MAX) as pool:
        started: list[tuple[str, list[Future[Any]]]] = [
            (backend.name, [pool.submit(job) for job in _jobs(backend)]) for backend in _slowest_first(backends)
        ]
        if len(backends) == len(BACKENDS):
            started.append((browser.NAME, [pool.submit(browser.chromium)]))
        return sum([_report(name, jobs) for name, jobs in started]) and 1


def _slowest_first(backends: Sequence[Backend[Any]]) -> list[Backend[Any]]:
    return sorted(backends, key=lambda backend: backend is not kubernetes.BACKEND)


def _jobs(backend: Backend[Any]) -> list[Callable[[], object]]:
    """Return the functions that fill the cache for one backend, the slowest first."""
    jobs: list[Callable[[], object]] = [backend.provision]
    if backend is kubernetes.BACKEND:
        tools = sorted(TOOLS, key=lambda name: SLOW_TOOLS.index(name) if name in SLOW_TOOLS else len(SLOW_TOOLS))
        jobs += [partial(provision_recipe, TOOLS[name]) for name in tools]
        jobs += [node.available, images.provision_all, docker.available]
    return jobs


def _report(name: str, jobs: Sequence[Future[Any]]) -> bool:
    """Print the outcome for one backend; return whether it failed."""
    reasons = [str(error) for job in jobs if (error := _unavailable(job)) is not None]
    for reason in reasons:
        print(f"{name}: unavailable: {reason}", file=sys.stderr)
    if not reasons:
        print(f"{name}: ready")
    return bool(reasons)


def _unavailable(job: Future[Any]) -> UnavailableError | None:
    try:
        job.result()
    except UnavailableError as unavailable:
        return unavailable
    return None


def up(backends: Sequence[Backend[Any]]) -> int:
    os.environ.pop(RUN_VARIABLE, None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # each stops the servers before this process ends
        signal.signal(number, signal.default_int_handler)
    failed = 0
    try:
        with running() as servers:
            for backend in backends:
                try:
                    address = servers.run.address(backend)
                except (UnavailableError, BadAddressError) as reason:
                    failed += 1
                    print(f"# {backend.name}: {reason}", flush=True)
                    continue
                for name, value in backend.exports(address).items():
                    print(f"export {name}={shlex.quote(value)}", flush=True)
            if failed == len(backends):
                return 1
            print("# running; Ctrl-C stops the servers", flush=True)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
