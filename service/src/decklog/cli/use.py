"""`decklog use`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from decklog.cli.columns import Column, member
from decklog.cli.connection import context_names
from decklog.cli.exits import EXITS, FOUND, NOTHING
from decklog.cli.manual import manual
from decklog.cli.options import Flag
from decklog.cli.output import Listing, Output, is_live
from decklog.client.contexts import Contexts, default_file
from decklog.domain.errors import Code, DecklogError

app = App(
    name="use",
    help_epilogue=manual(
        """Without a name, the contexts of decklog login are listed; an asterisk marks the current one. Keys are never printed.""",
        "decklog use",
        "decklog use acme-auditor",
        "decklog use acme-writer --forget",
        exits=EXITS,
    ),
)


@app.default
def use(
    name: Annotated[str | None, Parameter(completer=context_names)] = None, /, *, forget: Flag = False, output: Output = "table"
) -> int:
    """Choose the current context, or list all contexts.

    Args:
        name: Name of the context.
        forget: Remove the context and its key, in place of using it.
        output: Form of the list.
    """
    contexts = Contexts(default_file(os.environ))
    if name is None:
        if forget:
            raise DecklogError(Code.MISCONFIGURED, "--forget needs the name of a context.")
        return _list(contexts, output)
    if forget:
        contexts.forget(name)
        sys.stdout.write(f"The context {name} is removed.\n")
        return FOUND
    contexts.use(name)
    sys.stdout.write(f"The current context is {name}, for {contexts.get(name).url}.\n")
    return FOUND


def _list(contexts: Contexts, output: str) -> int:
    mark = Column("current", lambda item: "*" if item["current"] else "", fixed=True)
    listing = Listing([mark, *(member(each, fixed=False) for each in ("name", "url", "key_file"))], output, live=is_live(output))
    current = contexts.current
    for name, context in sorted(contexts.all().items()):
        facts = {"name": name, "url": context.url, "key_file": context.key_file, "current": name == current}
        listing.add(msgspec.json.encode(facts))
    listing.close()
    if not listing.count:
        sys.stderr.write("There are no contexts. decklog login makes one.\n")
    return FOUND if listing.count else NOTHING
