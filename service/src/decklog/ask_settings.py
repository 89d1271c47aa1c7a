"""Settings of the answering of questions in plain words; the part `ask` of the tree in `settings`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Questions in plain words, and conversations."""

    conversation_days: Annotated[
        int,
        Meta(
            ge=0,
            le=365,
            description="Days for which a conversation is kept after its last question, or `retention.days` of its tenant if that is less; 0 keeps none.",
        ),
    ] = 30
