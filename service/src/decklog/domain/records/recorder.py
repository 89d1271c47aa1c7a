"""The member `recorded_by` of a stored record: the credential that stored it, and the address of the client.

The server adds it to the content, so the digest covers it. No client can send it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from decklog.domain.records.canonical import canonical_plain

_SUBJECT_CHARS_MAX = 1_024
_ISSUER_CHARS_MAX = 2_048
_ADDRESS_CHARS_MAX = 256


class RecordedBy(msgspec.Struct, omit_defaults=True, frozen=True):
    """The credential that stored a record, as the server verified it."""

    type: Annotated[str, Meta(description="Kind of the credential: `api_key` or `jwt`.")]
    id: Annotated[str, Meta(description="Id of the API key, or `sub` of the token.")]
    issuer: Annotated[str, Meta(description="`iss` of the token; absent for an API key.")] | None = None
    ip: Annotated[str, Meta(description="Address of the client.")] | None = None


def storable(text: str, characters: int) -> str:
    """Return the first characters of a text, without U+0000 and lone surrogates, which no record can hold."""
    return text[:characters].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


@lru_cache(maxsize=4_096)
def recorder(kind: str, subject: str, issuer: str | None, ip: str | None) -> bytes:
    """Return `recorded_by` as canonical JSON. Few credentials and addresses recur, so a record costs one look-up."""
    return canonical_plain(
        RecordedBy(
            type=kind,
            id=storable(subject, _SUBJECT_CHARS_MAX),
            issuer=storable(issuer, _ISSUER_CHARS_MAX) if issuer else None,
            ip=storable(ip, _ADDRESS_CHARS_MAX) if ip else None,
        )
    )
