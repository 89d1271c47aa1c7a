"""Why a backend was not seen, an action failed, or a tenant is refused."""

from __future__ import annotations

import msgspec


class Trouble(msgspec.Struct, frozen=True):
    """Why a backend could not be observed or an action failed.

    `reason` is one CamelCase word for programs; `message` is for people and never holds a secret.
    """

    reason: str
    message: str


class Refusal(Trouble, frozen=True):
    """Why nothing at all is done for a tenant until its manifest, or what blocks it, changes."""
