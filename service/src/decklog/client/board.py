"""One-time links to the board, made over the API."""

from __future__ import annotations

from collections.abc import Sequence

from decklog import session_shapes
from decklog.client.client import Client


async def make_link(url: str, keys: Sequence[str]) -> session_shapes.SignInLink:
    """Return a link that signs a browser in with all of these keys, of which there is one at least. Raises what a `Client` raises.

    Several keys are put into one session, which makes the link and ends.
    """
    if len(keys) == 1:
        async with Client(url, keys[0]) as client:
            return await client.make_link()
    async with Client(url, None) as browser:
        for key in reversed(keys):  # the identity of the last sign-in is the first one of the session
            session = await browser.sign_in(key)
        link = await browser.make_link(session)
        await browser.sign_out(session)
    return link
