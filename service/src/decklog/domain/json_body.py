"""The JSON body of a request as one of the shapes of the API: one reader, so that every body is refused for the same faults."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from decklog.domain.errors import Code, DecklogError, invalid_parameter
from decklog.domain.unique_names import repeated

Shape = TypeVar("Shape")


def decoded(body: bytes, shape: type[Shape]) -> Shape:
    """Return a body as a value of a shape.

    Raises:
        DecklogError: `invalid-json`, also where a name occurs twice in one object, and `invalid-parameter` for another shape.
    """
    try:
        found = msgspec.json.decode(body, type=shape)
        twice = repeated(body)
    except msgspec.ValidationError as error:
        raise invalid_parameter("body", f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecklogError(Code.INVALID_JSON, f"The body is not valid JSON in UTF-8: {error}.") from None
    if twice:
        raise DecklogError(Code.INVALID_JSON, f"The body: {twice[0]}; each name may occur once.")
    return found
