"""Kinds of options that several verbs have."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

Flag = Annotated[bool, Parameter(show_default=False)]
"""An option without a value, off by default."""
Json = Annotated[bool, Parameter(name="--json", show_default=False)]
"""Whether the result is written as JSON."""
Form = Annotated[Literal["text", "json"], Parameter(name=("--output", "-o"))]
"""Text for a person, or JSON; -o json is the same as --json."""
All = Annotated[bool, Parameter(name="--all", show_default=False)]
"""Whether everything is meant."""
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))]
"""A TCP port, or 0."""
