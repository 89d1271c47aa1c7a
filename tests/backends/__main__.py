"""The test servers from a terminal.

python -m tests.backends list                  what would be used, and why not
python -m tests.backends provision [NAME ...]  everything into the cache, nothing started
python -m tests.backends up [NAME ...]         start, print the environment that makes test runs use them, end all with Ctrl-C
python -m tests.backends down                  end what DECKLOG_TEST_KEEP=1 left running
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any

from tests.backends import BACKENDS, BadAddressError, UnavailableError, images, kubernetes, node, running
from tests.backends.backend import Backend
from tests.backends.cache import provision as provision_recipe
from tests.backends.resolve import named, prospects
from tests.backends.run import RUN_VARIABLE, down
from tests.backends.tools import TOOLS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.backends", description="The servers that Decklog is tested against.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("list", "show what would be used, and why not"),
        ("provision", "build or unpack everything into the cache"),
        ("up", "start servers and print their addresses as environment; Ctrl-C ends them"),
    ):
        commands.add_parser(name, help=text).add_argument(
            "names", nargs="*", metavar="NAME", help=f"any of {', '.join(BACKENDS)}; all if none"
        )
    commands.add_parser("down", help="end the servers that DECKLOG_TEST_KEEP=1 left running")
    given = parser.parse_args(arguments)
    if given.command == "down":
        for folder in down():
            print(f"ended {folder}")
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
    failed = 0
    for backend in backends:
        try:
            backend.provision()
            if backend is kubernetes.BACKEND:
                for recipe in TOOLS.values():
                    provision_recipe(recipe)
                node.available()
                images.provision_all()
            print(f"{backend.name}: ready")
        except UnavailableError as unavailable:
            failed += 1
            print(f"{backend.name}: cannot be had: {unavailable}", file=sys.stderr)
    return 1 if failed else 0


def up(backends: Sequence[Backend[Any]]) -> int:
    os.environ.pop(RUN_VARIABLE, None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # each ends us in order
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
            print("# running; Ctrl-C ends them", flush=True)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
