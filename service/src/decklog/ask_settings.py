"""Settings of the answering of questions in plain words; the part `ask` of the tree in `settings`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Questions in plain words, and conversations."""

    model_url: Annotated[
        str,
        Meta(
            max_length=2_000,
            description="Base URL of an OpenAI-compatible model that answers questions, as in `https://models.example.com/v1`; empty for the built-in grammar alone. Questions, names of actions and resource types, counts and sequence numbers are sent there, and records of tenants with `spec.ask.showRecords`.",
        ),
    ] = ""
    model: Annotated[str, Meta(max_length=200, description="Name of the model at that endpoint.")] = ""
    model_key: Annotated[str, Meta(max_length=8_192, description="Bearer token for that endpoint; empty for none.")] = ""
    model_seconds: Annotated[
        float,
        Meta(ge=1, le=120, description="Seconds that the model may take for one question; then the built-in grammar answers."),
    ] = 20.0
    conversation_days: Annotated[
        int,
        Meta(
            ge=0,
            le=365,
            description="Days for which a conversation is kept after its last question, or `retention.days` of its tenant if that is less; 0 keeps none.",
        ),
    ] = 30
